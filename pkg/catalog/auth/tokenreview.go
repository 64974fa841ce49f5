// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"fmt"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// TokenReview asks the cluster's API server about tokens. Its verdicts are kept for
// a minute under the tokens' hashes, never the tokens.
type TokenReview struct {
	client kubernetes.Interface
	known  memory
}

// NewTokenReview asks through client, whose account must be allowed to create
// tokenreviews (ClusterRole system:auth-delegator).
func NewTokenReview(client kubernetes.Interface) *TokenReview {
	return &TokenReview{client: client, known: newMemory(cacheFor)}
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
	review, err := t.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{Audience}},
	}, metav1.CreateOptions{})
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
