// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// maxCached bounds the verdicts kept; more tokens than this in a minute are asked
// about every time.
const maxCached = 4096

// TokenReview asks the cluster's API server about tokens. Its verdicts are kept for
// a minute under the tokens' hashes, never the tokens.
type TokenReview struct {
	client kubernetes.Interface
	now    func() time.Time

	mu    sync.Mutex
	known map[digest]verdict
}

type verdict struct {
	user  string // "" for a token that is not valid
	until time.Time
}

// NewTokenReview asks through client, whose account must be allowed to create
// tokenreviews (ClusterRole system:auth-delegator).
func NewTokenReview(client kubernetes.Interface) *TokenReview {
	return &TokenReview{client: client, now: time.Now, known: map[digest]verdict{}}
}

// Authenticate is the token's user, for example
// "system:serviceaccount:spotbench-system:node-agent".
func (t *TokenReview) Authenticate(ctx context.Context, token string) (string, error) {
	key := sha256.Sum256([]byte(token))
	now := t.now()
	t.mu.Lock()
	v, ok := t.known[key]
	t.mu.Unlock()
	if !ok || now.After(v.until) {
		user, err := t.ask(ctx, token)
		if err != nil {
			return "", err
		}
		v = verdict{user: user, until: now.Add(cacheFor)}
		t.keep(key, v, now)
	}
	if v.user == "" {
		return "", ErrUnauthenticated
	}
	return v.user, nil
}

func (t *TokenReview) ask(ctx context.Context, token string) (string, error) {
	review, err := t.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{Audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("TokenReview: %w; may the catalog's ServiceAccount create tokenreviews (ClusterRole system:auth-delegator)?", err)
	}
	// An API server that knows nothing of audiences leaves the answer's list empty:
	// then the token may have been made for anything.
	if !review.Status.Authenticated || !slices.Contains(review.Status.Audiences, Audience) {
		return "", nil
	}
	return review.Status.User.Username, nil
}

func (t *TokenReview) keep(key digest, v verdict, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.known) >= maxCached {
		for k, old := range t.known {
			if now.After(old.until) {
				delete(t.known, k)
			}
		}
	}
	if len(t.known) < maxCached {
		t.known[key] = v
	}
}
