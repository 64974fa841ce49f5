// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/auth"
)

// issuer is an OpenID Connect issuer: it publishes its configuration and keys over
// HTTP, and signs tokens.
type issuer struct {
	*httptest.Server
	key *ecdsa.PrivateKey
	id  string
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{}
	i.rotate(t, "first")
	mux := http.NewServeMux()
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(v); err != nil {
			panic(err)
		}
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys", "authorization_endpoint": i.URL + "/auth", "token_endpoint": i.URL + "/token",
			"id_token_signing_alg_values_supported": []string{"ES256"}})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: i.id, Algorithm: "ES256", Use: "sig"}}})
	})
	return i
}

func (i *issuer) rotate(t *testing.T, id string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i.key, i.id = key, id
}

// token signs claims; those given take the place of good ones.
func (i *issuer) token(t *testing.T, claims map[string]any) string {
	t.Helper()
	all := map[string]any{"iss": i.URL, "aud": "spotbench", "sub": "1", "email": "ada@example.org", "email_verified": true, "groups": []string{"ml"}, "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix()}
	for name, value := range claims {
		all[name] = value
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: i.key, KeyID: i.id}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

func TestTokensOfAnIssuerAreWhatTheyWereSignedFor(t *testing.T) {
	i, other := newIssuer(t), newIssuer(t)
	guard := auth.NewGuard(auth.NewOIDC(i.URL, "spotbench", "email", "groups", i.Client()), []string{"group:oidc:ml"}).WithAdmins([]string{"oidc:root@example.org"})
	tests := map[string]struct {
		token string
		need  catalog.Role
		want  int // 0: allowed
	}{
		"one of a writers' group writes":                               {i.token(t, nil), catalog.Writer, 0},
		"and does not administer":                                      {i.token(t, nil), catalog.Admin, http.StatusForbidden},
		"a named administrator does":                                   {i.token(t, map[string]any{"email": "root@example.org"}), catalog.Admin, 0},
		"one of no group reads":                                        {i.token(t, map[string]any{"groups": nil}), catalog.Reader, 0},
		"and does not write":                                           {i.token(t, map[string]any{"groups": []string{"other"}}), catalog.Writer, http.StatusForbidden},
		"a user whose name is a writer's elsewhere":                    {i.token(t, map[string]any{"email": "group:oidc:ml", "groups": nil}), catalog.Writer, http.StatusForbidden},
		"an expired token":                                             {i.token(t, map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}), catalog.Reader, http.StatusUnauthorized},
		"a token for another client":                                   {i.token(t, map[string]any{"aud": "other"}), catalog.Reader, http.StatusUnauthorized},
		"a token that says it is of this issuer, signed by another":    {other.token(t, map[string]any{"iss": i.URL}), catalog.Reader, http.StatusUnauthorized},
		"a token of another issuer":                                    {other.token(t, nil), catalog.Reader, http.StatusUnauthorized},
		"a token without the user's claim":                             {i.token(t, map[string]any{"email": ""}), catalog.Reader, http.StatusUnauthorized},
		"a token with an address that is not verified":                 {i.token(t, map[string]any{"email_verified": false}), catalog.Reader, http.StatusUnauthorized},
		"a token of an issuer that does not tell":                      {i.token(t, map[string]any{"email_verified": nil}), catalog.Reader, http.StatusUnauthorized},
		"a token that says so in words":                                {i.token(t, map[string]any{"email_verified": "true"}), catalog.Reader, http.StatusUnauthorized},
		"no JWT":                                                       {"nonsense", catalog.Reader, http.StatusUnauthorized},
		"a token without a signature, whose header says it needs none": {"eyJhbGciOiJub25lIn0.e30.", catalog.Reader, http.StatusUnauthorized},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			who, err := guard.Allow(t.Context(), "Bearer "+tt.token, tt.need)
			var denied *auth.Denied
			if tt.want == 0 && err != nil || tt.want != 0 && (!errors.As(err, &denied) || denied.Status != tt.want) {
				t.Errorf("%+v, %v; want status %d", who, err, tt.want)
			}
		})
	}
	i.rotate(t, "second")
	// go-oidc asks for the keys once for all who ask at the same time, and may not have noticed
	// yet that the question before has been answered.
	who, err := guard.Allow(t.Context(), "Bearer "+i.token(t, nil), catalog.Writer)
	for try := 0; err != nil && try < 20; try++ {
		time.Sleep(5 * time.Millisecond)
		who, err = guard.Allow(t.Context(), "Bearer "+i.token(t, nil), catalog.Writer)
	}
	if err != nil || who.User != "oidc:ada@example.org" {
		t.Errorf("after the issuer changed its key: %+v, %v", who, err)
	}
}

func TestAnIssuerThatIsAwayMakesNoTokenWrong(t *testing.T) {
	i := newIssuer(t)
	token := i.token(t, nil)
	i.Close()
	guard := auth.NewGuard(auth.NewOIDC(i.URL, "spotbench", "email", "groups", http.DefaultClient), nil)
	var denied *auth.Denied
	if _, err := guard.Allow(t.Context(), "Bearer "+token, catalog.Reader); !errors.As(err, &denied) || denied.Status != http.StatusServiceUnavailable {
		t.Errorf("%v, want status 503", err)
	}
}

func TestEachCallerHasALimitOfItsOwn(t *testing.T) {
	limits := auth.NewLimits(1)
	for range 2 {
		if _, ok := limits.Take("a"); !ok {
			t.Fatal("a caller may not ask twice at once, with one a second")
		}
	}
	if wait, ok := limits.Take("a"); ok || wait <= 0 || wait > time.Second {
		t.Errorf("the third: wait %v, %t; want up to a second", wait, ok)
	}
	if wait, exhausted := limits.Exhausted("a"); !exhausted || wait <= 0 || wait > time.Second {
		t.Errorf("the third may ask in %v, %t; want up to a second", wait, exhausted)
	}
	for range 3 { // to ask whether it may is not to ask
		if _, exhausted := limits.Exhausted("b"); exhausted {
			t.Error("one who has not asked has no more to ask")
		}
	}
	if _, ok := limits.Take("b"); !ok {
		t.Error("another caller waits too")
	}
	if _, ok := auth.NewLimits(0).Take("a"); !ok {
		t.Error("0 is a limit")
	}
}
