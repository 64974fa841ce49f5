// SPDX-License-Identifier: Apache-2.0

// Package auth tells who calls the catalog, and whether the caller may write. In a
// cluster callers show a Kubernetes ServiceAccount token made for the catalog
// (TokenReview); outside, a token from a file of hashes.
package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Audience is what a ServiceAccount token must have been made for.
const Audience = "spotbench-catalog"

// ErrUnauthenticated is the error for a caller that nobody vouches for. Any other
// error of an Authenticator means that the question could not be asked.
var ErrUnauthenticated = errors.New("the token is not valid here")

// Authenticator tells whose token it is.
type Authenticator interface {
	// Authenticate is the name of the token's owner; the error is ErrUnauthenticated
	// when it has none.
	Authenticate(ctx context.Context, token string) (user string, err error)
}

// AnyOf asks one after the other until one knows the token.
type AnyOf []Authenticator

// Authenticate is the first answer. When none knows the token and one could not be
// asked, that is the error: the token may be good.
func (a AnyOf) Authenticate(ctx context.Context, token string) (string, error) {
	unknown := ErrUnauthenticated
	for _, one := range a {
		user, err := one.Authenticate(ctx, token)
		switch {
		case err == nil:
			return user, nil
		case !errors.Is(err, ErrUnauthenticated):
			unknown = err
		}
	}
	return "", unknown
}

// Guard decides about writes.
type Guard struct {
	authenticator Authenticator
	writers       []string
}

// NewGuard lets the named users write, as the authenticator names them. A nil
// authenticator lets nobody write.
func NewGuard(authenticator Authenticator, writers []string) *Guard {
	return &Guard{authenticator: authenticator, writers: slices.Clone(writers)}
}

// Denied is why a caller may not write. Status is the HTTP status to answer with.
type Denied struct {
	Status int
	Detail string
	err    error
}

func (d *Denied) Error() string { return d.Detail }

// Unwrap is what went wrong underneath; it is for the log, not for the caller.
func (d *Denied) Unwrap() error { return d.err }

// Challenge is the WWW-Authenticate header that belongs to a 401 (RFC 6750).
const Challenge = `Bearer realm="spotbench-catalog"`

// Allow names the caller of a write from its Authorization header, or is a *Denied.
func (g *Guard) Allow(ctx context.Context, authorization string) (string, error) {
	if g.authenticator == nil {
		return "", &Denied{Status: http.StatusForbidden, Detail: "this catalog takes no writes: it runs outside a cluster and has no --writer-tokens file"}
	}
	scheme, token, _ := strings.Cut(authorization, " ")
	token = strings.TrimSpace(token)
	if authorization == "" || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", &Denied{Status: http.StatusUnauthorized, Detail: "writes need the header Authorization: Bearer TOKEN; make one with `kubectl create token SERVICEACCOUNT --audience " + Audience + "`"}
	}
	user, err := g.authenticator.Authenticate(ctx, token)
	switch {
	case errors.Is(err, ErrUnauthenticated):
		return "", &Denied{Status: http.StatusUnauthorized, Detail: "the token is expired, revoked, or was not made for the audience " + Audience, err: err}
	case err != nil:
		return "", &Denied{Status: http.StatusServiceUnavailable, Detail: "the token cannot be checked now; try again", err: err}
	case !slices.Contains(g.writers, user):
		return "", &Denied{Status: http.StatusForbidden, Detail: user + " is not among the catalog's writers (--writers)"}
	}
	return user, nil
}

// cacheFor is how long a verdict is believed: a revoked token works no longer than this.
const cacheFor = time.Minute

// digest stands for a token wherever it is kept.
type digest = [sha256.Size]byte
