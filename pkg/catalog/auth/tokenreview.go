// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"fmt"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// TokenReview asks the cluster's API server about tokens. Its verdicts are kept for
// a minute under the tokens' hashes, never the tokens.
type TokenReview struct {
	client rest.Interface
	known  memory
}

// NewTokenReview asks the cluster of a configuration, whose account must be allowed to
// create tokenreviews (ClusterRole system:auth-delegator). The client knows this one kind
// of object: a clientset would bring all of Kubernetes' with it, which is half of the
// memory that a catalog at rest takes.
func NewTokenReview(config *rest.Config) (*TokenReview, error) {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"}) // what errors are told in
	if err := authenticationv1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/apis", &authenticationv1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("cluster that checks tokens: %w", err)
	}
	return &TokenReview{client: client, known: newMemory(cacheFor)}, nil
}

// Authenticate is the token's user, for example
// "system:serviceaccount:spotbench-system:node-agent", with the groups it is in.
func (t *TokenReview) Authenticate(ctx context.Context, token string) (Identity, error) {
	if ours(token) {
		return Identity{}, ErrUnauthenticated
	}
	return t.known.recall(token, func() (Identity, error) {
		return t.ask(ctx, token)
	})
}

func (t *TokenReview) ask(ctx context.Context, token string) (Identity, error) {
	var review authenticationv1.TokenReview
	err := t.client.Post().Resource("tokenreviews").Body(&authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{Audience}},
	}).Do(ctx).Into(&review)
	if err != nil {
		return Identity{}, fmt.Errorf("TokenReview: %w; may the catalog's ServiceAccount create tokenreviews (ClusterRole system:auth-delegator)?", err)
	}
	// An API server that knows nothing of audiences leaves the answer's list empty:
	// then the token may have been made for anything.
	if !review.Status.Authenticated || !slices.Contains(review.Status.Audiences, Audience) {
		return Identity{}, nil
	}
	return Identity{User: review.Status.User.Username, Groups: review.Status.User.Groups}, nil
}
