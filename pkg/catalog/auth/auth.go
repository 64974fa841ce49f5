// SPDX-License-Identifier: Apache-2.0

// Package auth tells who calls the catalog, and what the caller may do. Jobs in a
// cluster show a Kubernetes ServiceAccount token made for the catalog (TokenReview);
// people and tools a key of the catalog, a token from a file of hashes, or one of an
// OpenID Connect issuer.
package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// Audience is what a ServiceAccount token must have been made for.
const Audience = "spotbench-catalog"

// ErrUnauthenticated is the error for a caller that nobody vouches for. Any other
// error of an Authenticator means that the question could not be asked.
var ErrUnauthenticated = errors.New("the token is not valid here")

// Identity is who calls.
type Identity struct {
	User   string
	Groups []string
	// Role is what the credential itself allows; "" leaves it to the guard's lists.
	Role catalog.Role
	// Namespaces are those whose runs the caller may see and write. They come with the
	// role, from the credential or from the guard.
	Namespaces catalog.Namespaces
}

// Authenticator tells whose token it is.
type Authenticator interface {
	// Authenticate is the token's owner; the error is ErrUnauthenticated when it has
	// none.
	Authenticate(ctx context.Context, token string) (Identity, error)
}

// AnyOf asks one after the other until one knows the token.
type AnyOf []Authenticator

// Authenticate is the first answer. When none knows the token and one could not be
// asked, that is the error: the token may be good.
func (a AnyOf) Authenticate(ctx context.Context, token string) (Identity, error) {
	unknown := ErrUnauthenticated
	for _, one := range a {
		who, err := one.Authenticate(ctx, token)
		switch {
		case err == nil:
			return who, nil
		case !errors.Is(err, ErrUnauthenticated):
			unknown = err
		}
	}
	return Identity{}, unknown
}

// Guard decides what callers may do.
type Guard struct {
	authenticator   Authenticator
	writers, admins []string
	limits          map[string]catalog.Namespaces
}

// NewGuard lets the named users write, as the authenticator names them; "group:" and
// a name lets in all of a group. A nil authenticator lets nobody in.
func NewGuard(authenticator Authenticator, writers []string) *Guard {
	return &Guard{authenticator: authenticator, writers: slices.Clone(writers)}
}

// WithAdmins lets the named users and groups administer, too.
func (g *Guard) WithAdmins(admins []string) *Guard {
	g.admins = slices.Clone(admins)
	return g
}

// WithNamespaces limits the named users and groups to namespaces. Who is named by none
// of the guard's lists then sees no run.
func (g *Guard) WithNamespaces(limits map[string]catalog.Namespaces) *Guard {
	g.limits = limits
	return g
}

// Denied is why a caller may not do what it asks for. Status is the HTTP status to
// answer with.
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

// Identify names the caller by its Authorization header: a token as Bearer, or as
// the password of Basic, which is how browsers can send one. The error is a *Denied.
func (g *Guard) Identify(ctx context.Context, authorization string) (Identity, error) {
	if g.authenticator == nil {
		return Identity{}, &Denied{Status: http.StatusForbidden, Detail: "this catalog takes no writes: it runs outside a cluster and has no --writer-tokens file"}
	}
	token, ok := tokenOf(authorization)
	if !ok {
		return Identity{}, &Denied{Status: http.StatusUnauthorized, Detail: "this needs the header Authorization: Bearer TOKEN, with a key of `catalog-api keys create`, or a token of `kubectl create token SERVICEACCOUNT --audience " + Audience + "`"}
	}
	who, err := g.authenticator.Authenticate(ctx, token)
	switch {
	case errors.Is(err, ErrUnauthenticated):
		return Identity{}, &Denied{Status: http.StatusUnauthorized, Detail: "the token is expired, revoked, or was not made for the audience " + Audience, err: err}
	case err != nil:
		return Identity{}, &Denied{Status: http.StatusServiceUnavailable, Detail: "the token cannot be checked now; try again", err: err}
	}
	if who.Role == "" {
		who.Role, who.Namespaces = g.grant(who)
	}
	return who, nil
}

// serviceAccounts begins the user name of every ServiceAccount, and allServiceAccounts the
// names of the groups that it is in of itself: of all, and of its namespace's. Whoever the
// API server knows is in authenticated.
const (
	serviceAccounts    = "system:serviceaccount:"
	allServiceAccounts = "system:serviceaccounts"
	authenticated      = "system:authenticated"
)

// ofItself says that nobody put a member into a group.
func ofItself(group string) bool {
	return group == authenticated || group == allServiceAccounts || strings.HasPrefix(group, allServiceAccounts+":")
}

// grant is what the lists allow; whoever is known may read. A ServiceAccount that is named
// by itself is one of the platform's own, for all namespaces. One that is only let in as a
// member of the group of ServiceAccounts, or not at all, is a job's: for its own.
func (g *Guard) grant(who Identity) (catalog.Role, catalog.Namespaces) {
	named := func(names []string) bool {
		return slices.Contains(names, who.User) || slices.ContainsFunc(who.Groups, func(group string) bool { return !ofItself(group) && slices.Contains(names, "group:"+group) })
	}
	member := func(names []string) bool {
		return slices.ContainsFunc(who.Groups, func(group string) bool { return ofItself(group) && slices.Contains(names, "group:"+group) })
	}
	if named(g.admins) || member(g.admins) {
		return catalog.Admin, nil
	}
	role := catalog.Reader
	if named(g.writers) || member(g.writers) {
		role = catalog.Writer
	}
	return role, g.namespaces(who, named(g.writers))
}

// namespaces are those of a caller who does not administer. What is said of groups that it
// is in of itself is not meant for one who is named.
func (g *Guard) namespaces(who Identity, named bool) catalog.Namespaces {
	limits, limited := g.limits[who.User]
	for _, group := range who.Groups {
		if more, ok := g.limits["group:"+group]; ok && (!named || !ofItself(group)) {
			limits, limited = append(slices.Clone(limits), more...), true
		}
	}
	namespace, _, job := strings.Cut(strings.TrimPrefix(who.User, serviceAccounts), ":")
	job = job && strings.HasPrefix(who.User, serviceAccounts)
	switch {
	case named && !limited:
		return nil
	case job && !named:
		return append(catalog.Namespaces{namespace}, limits...)
	case limited:
		return limits
	case len(g.limits) > 0:
		return catalog.Namespaces{}
	}
	return nil
}

// Allow identifies the caller and checks its role. The error is a *Denied.
func (g *Guard) Allow(ctx context.Context, authorization string, need catalog.Role) (Identity, error) {
	who, err := g.Identify(ctx, authorization)
	if err != nil || who.Role.Includes(need) {
		return who, err
	}
	if need == catalog.Admin {
		return who, &Denied{Status: http.StatusForbidden, Detail: who.User + " may not administer the catalog; that takes a key of the role admin, or a place in --admins"}
	}
	return who, &Denied{Status: http.StatusForbidden, Detail: who.User + " is not among the catalog's writers (--writers), and has no key that may write"}
}

// tokenOf is the token in an Authorization header.
func tokenOf(authorization string) (string, bool) {
	scheme, rest, _ := strings.Cut(authorization, " ")
	rest = strings.TrimSpace(rest)
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		return rest, rest != ""
	case strings.EqualFold(scheme, "Basic"):
		plain, err := base64.StdEncoding.DecodeString(rest)
		_, token, _ := strings.Cut(string(plain), ":")
		return token, err == nil && token != ""
	}
	return "", false
}

// cacheFor is how long a verdict is believed: a revoked token works no longer than this.
const cacheFor = time.Minute

// digest stands for a token wherever it is kept.
type digest = [sha256.Size]byte
