// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/coreos/go-oidc/v3/oidc"
)

// OIDC knows the ID tokens of an OpenID Connect issuer. The issuer is first asked
// when the first token comes: the catalog starts without it.
type OIDC struct {
	issuer, clientID, userClaim, groupsClaim string
	client                                   *http.Client

	mu       sync.Mutex
	verifier *oidc.IDTokenVerifier
}

// NewOIDC takes tokens of the issuer that were made for clientID. Users are named by
// a claim, groups are in another; both have a default.
func NewOIDC(issuer, clientID, userClaim, groupsClaim string, client *http.Client) *OIDC {
	return &OIDC{issuer: issuer, clientID: clientID, userClaim: userClaim, groupsClaim: groupsClaim, client: client}
}

// Authenticate checks the token's signature, issuer, audience and times. Users and
// groups have "oidc:" before them, so that none passes for a ServiceAccount.
func (o *OIDC) Authenticate(ctx context.Context, token string) (Identity, error) {
	if strings.Count(token, ".") != 2 || ours(token) {
		return Identity{}, ErrUnauthenticated // no JWT
	}
	verifier, err := o.discover(ctx)
	if err != nil {
		return Identity{}, err
	}
	ctx = oidc.ClientContext(ctx, o.client)
	checked, err := verifier.Verify(ctx, token)
	if err != nil {
		// go-oidc does not tell a bad token from an issuer that does not answer; the
		// latter only matters for keys that are not known yet.
		if strings.Contains(err.Error(), "fetching keys") {
			return Identity{}, fmt.Errorf("OpenID Connect issuer %s: %w", o.issuer, err)
		}
		return Identity{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	claims := map[string]any{}
	if err := checked.Claims(&claims); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	user, _ := claims[o.userClaim].(string)
	// Anybody can register an address that is not theirs where it is not verified, and an
	// issuer that does not say so may not have done it.
	if verified := claims["email_verified"] == true; user == "" || o.userClaim == "email" && !verified {
		return Identity{}, fmt.Errorf("%w: it has no verified claim %q", ErrUnauthenticated, o.userClaim)
	}
	who := Identity{User: "oidc:" + user}
	groups, _ := claims[o.groupsClaim].([]any)
	for _, g := range groups {
		if name, ok := g.(string); ok {
			who.Groups = append(who.Groups, "oidc:"+name)
		}
	}
	return who, nil
}

// discover reads the issuer's configuration, once it answers.
func (o *OIDC) discover(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.verifier != nil {
		return o.verifier, nil
	}
	// The provider keeps the context for later requests for keys.
	provider, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), o.client), o.issuer)
	if err != nil {
		return nil, fmt.Errorf("OpenID Connect issuer %s: %w", o.issuer, err)
	}
	o.verifier = provider.Verifier(&oidc.Config{ClientID: o.clientID})
	return o.verifier, nil
}
