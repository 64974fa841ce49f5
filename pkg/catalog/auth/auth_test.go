// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/client-go/rest"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/auth"
)

const (
	agent    = "system:serviceaccount:spotbench-system:node-agent"
	stranger = "system:serviceaccount:default:default"
)

// apiServer answers TokenReviews over HTTP as kube-apiserver does: tokens are
// "USER@AUDIENCE"; anything else is nobody's.
type apiServer struct {
	reviews atomic.Int64
	broken  atomic.Bool
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.reviews.Add(1)
	var review authenticationv1.TokenReview
	if r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" || json.NewDecoder(r.Body).Decode(&review) != nil {
		http.Error(w, "no such thing", http.StatusNotFound)
		return
	}
	if a.broken.Load() {
		http.Error(w, "etcd is gone", http.StatusInternalServerError)
		return
	}
	user, audience, _ := strings.Cut(review.Spec.Token, "@")
	if slices.Contains(review.Spec.Audiences, audience) {
		review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: []string{audience}, User: authenticationv1.UserInfo{Username: user, Groups: []string{"system:serviceaccounts"}}}
	} else if audience == "no-audience-support" {
		review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: user}}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	if err := json.NewEncoder(w).Encode(review); err != nil {
		panic(err)
	}
}

func reviewer(t *testing.T) (*apiServer, *auth.TokenReview) {
	t.Helper()
	api := &apiServer{}
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	reviews, err := auth.NewTokenReview(&rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	return api, reviews
}

func TestOnlyAWriterWithATokenForTheCatalogMayWrite(t *testing.T) {
	_, reviews := reviewer(t)
	guard := auth.NewGuard(reviews, []string{agent})
	tests := map[string]struct {
		header string
		want   int // 0: allowed
	}{
		"a writer's token":                              {"Bearer " + agent + "@spotbench-catalog", 0},
		"the scheme's case does not matter":             {"bearer " + agent + "@spotbench-catalog", 0},
		"no header":                                     {"", http.StatusUnauthorized},
		"another scheme":                                {"Basic dXNlcjpwYXNz", http.StatusUnauthorized},
		"no token after the scheme":                     {"Bearer ", http.StatusUnauthorized},
		"a token that nobody issued":                    {"Bearer nonsense", http.StatusUnauthorized},
		"a writer's token for another audience":         {"Bearer " + agent + "@https://kubernetes.default.svc", http.StatusUnauthorized},
		"an API server that does not confirm audiences": {"Bearer " + agent + "@no-audience-support", http.StatusUnauthorized},
		"a good token of one who is no writer":          {"Bearer " + stranger + "@spotbench-catalog", http.StatusForbidden},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			who, err := guard.Allow(t.Context(), tt.header, catalog.Writer)
			user := who.User
			var denied *auth.Denied
			switch {
			case tt.want == 0 && !slices.Contains(who.Groups, "system:serviceaccounts"):
				t.Errorf("groups %v, want those that the API server tells", who.Groups)
			case tt.want == 0 && (err != nil || user != agent):
				t.Errorf("user %q, error %v; want %q", user, err, agent)
			case tt.want != 0 && (!errors.As(err, &denied) || denied.Status != tt.want):
				t.Errorf("error %v, want status %d", err, tt.want)
			case tt.want != 0 && len(tt.header) > 8 && strings.Contains(err.Error(), strings.TrimSpace(tt.header[7:])):
				t.Errorf("the error repeats the token: %v", err)
			}
		})
	}
}

func TestAVerdictIsAskedForOnceAMinuteAndAFailureIsNotRemembered(t *testing.T) {
	api, reviews := reviewer(t)
	token := agent + "@spotbench-catalog"

	api.broken.Store(true)
	if _, err := reviews.Authenticate(t.Context(), token); err == nil || errors.Is(err, auth.ErrUnauthenticated) {
		t.Fatalf("error %v while the API server fails, want one that is not ErrUnauthenticated", err)
	}
	guard := auth.NewGuard(reviews, []string{agent})
	var denied *auth.Denied
	if _, err := guard.Allow(t.Context(), "Bearer "+token, catalog.Writer); !errors.As(err, &denied) || denied.Status != http.StatusServiceUnavailable {
		t.Fatalf("error %v while the API server fails, want status 503", err)
	}
	api.broken.Store(false)
	api.reviews.Store(0)
	for range 5 {
		if who, err := reviews.Authenticate(t.Context(), token); err != nil || who.User != agent {
			t.Fatalf("user %q, error %v; want %q", who.User, err, agent)
		}
	}
	if n := api.reviews.Load(); n != 1 {
		t.Errorf("%d reviews for five calls, want 1", n)
	}
}

func TestATokenFromTheFileNamesItsUserUntilItsLineIsRemoved(t *testing.T) {
	token, line, err := auth.NewToken("ci")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "tokens")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# writers\n\n" + line + "\n")
	file, err := auth.NewTokenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if who, err := file.Authenticate(t.Context(), token); err != nil || who.User != "ci" {
		t.Errorf("user %q, error %v; want ci", who.User, err)
	}
	if _, err := file.Authenticate(t.Context(), token+"x"); !errors.Is(err, auth.ErrUnauthenticated) {
		t.Errorf("error %v for another token, want ErrUnauthenticated", err)
	}
	write("# writers\n")
	if _, err := file.Authenticate(t.Context(), token); !errors.Is(err, auth.ErrUnauthenticated) {
		t.Errorf("error %v after the line was removed, want ErrUnauthenticated", err)
	}
	write("ci " + token + "\n")
	if _, err := auth.NewTokenFile(path); err == nil || !strings.Contains(err.Error(), "line 1") || strings.Contains(err.Error(), token) {
		t.Errorf("error %v for a bare token in the file, want one that names line 1 and not the token", err)
	}
}

func TestALineIsReplacedAtOnceHoweverOftenByOneOfTheSameLength(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	var tokens, lines [2]string
	for n := range tokens {
		var err error
		if tokens[n], lines[n], err = auth.NewToken("ci"); err != nil {
			t.Fatal(err)
		}
	}
	write := func(n int) {
		if err := os.WriteFile(path, []byte(lines[n%2]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(0)
	long := time.Now().Add(-time.Hour) // so that it counts as settled
	if err := os.Chtimes(path, long, long); err != nil {
		t.Fatal(err)
	}
	file, err := auth.NewTokenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 200 {
		if n > 0 {
			write(n)
		}
		for range 2 {
			if _, err := file.Authenticate(t.Context(), tokens[n%2]); err != nil {
				t.Fatalf("the token of write %d: %v", n, err)
			}
			if _, err := file.Authenticate(t.Context(), tokens[(n+1)%2]); !errors.Is(err, auth.ErrUnauthenticated) {
				t.Fatalf("the token that write %d replaced: error %v", n, err)
			}
		}
	}
}

func TestACatalogWithoutAnAuthenticatorTakesNoWrites(t *testing.T) {
	var denied *auth.Denied
	if _, err := auth.NewGuard(nil, []string{agent}).Allow(t.Context(), "Bearer x", catalog.Writer); !errors.As(err, &denied) || denied.Status != http.StatusForbidden {
		t.Errorf("error %v, want status 403", err)
	}
}

func TestTheFirstAuthenticatorThatKnowsATokenAnswers(t *testing.T) {
	api, reviews := reviewer(t)
	token, line, err := auth.NewToken("ci")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := auth.NewTokenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	both := auth.AnyOf{file, reviews}
	if who, err := both.Authenticate(t.Context(), token); err != nil || who.User != "ci" || api.reviews.Load() != 0 {
		t.Errorf("user %q, error %v, %d reviews; want ci without a review", who.User, err, api.reviews.Load())
	}
	if who, err := both.Authenticate(t.Context(), agent+"@spotbench-catalog"); err != nil || who.User != agent {
		t.Errorf("user %q, error %v; want %q", who.User, err, agent)
	}
	// What the catalog made itself is no business of the API server's.
	made, _ := auth.NewKey("ci")
	for _, secret := range []string{made, token + "x"} {
		before := api.reviews.Load()
		if _, err := both.Authenticate(t.Context(), secret); !errors.Is(err, auth.ErrUnauthenticated) || api.reviews.Load() != before {
			t.Errorf("a secret of the catalog's: error %v after %d reviews", err, api.reviews.Load()-before)
		}
	}
	api.broken.Store(true)
	if _, err := both.Authenticate(t.Context(), "new@spotbench-catalog"); err == nil || errors.Is(err, auth.ErrUnauthenticated) {
		t.Errorf("error %v while one cannot be asked, want one that is not ErrUnauthenticated", err)
	}
}

// known is whoever the test says.
type known struct{ who auth.Identity }

func (k known) Authenticate(context.Context, string) (auth.Identity, error) { return k.who, nil }

func TestWhoIsLimitedToWhichNamespaces(t *testing.T) {
	job := auth.Identity{User: "system:serviceaccount:team-a:default", Groups: []string{"system:serviceaccounts", "system:serviceaccounts:team-a", "system:authenticated"}}
	person := auth.Identity{User: "oidc:ada@example.org", Groups: []string{"oidc:ml"}}
	limit := func(names ...string) catalog.Namespaces { return names }
	tests := map[string]struct {
		who             auth.Identity
		writers, admins []string
		limits          map[string]catalog.Namespaces
		role            catalog.Role
		want            catalog.Namespaces
	}{
		"a job's token reads its own namespace":                        {job, nil, nil, nil, catalog.Reader, limit("team-a")},
		"one that writes as a ServiceAccount does so in its own":       {job, []string{"group:system:serviceaccounts"}, nil, nil, catalog.Writer, limit("team-a")},
		"nobody put it among those who are authenticated":              {job, []string{"group:system:authenticated"}, nil, nil, catalog.Writer, limit("team-a")},
		"so does one that writes as one of its namespace":              {job, []string{"group:system:serviceaccounts:team-a"}, nil, nil, catalog.Writer, limit("team-a")},
		"one of another namespace's group only reads":                  {job, []string{"group:system:serviceaccounts:team-b"}, nil, nil, catalog.Reader, limit("team-a")},
		"a ServiceAccount that is named is the platform's":             {job, []string{job.User}, nil, nil, catalog.Writer, nil},
		"a job may be shown another namespace besides":                 {job, nil, nil, map[string]catalog.Namespaces{job.User: {"shared"}}, catalog.Reader, limit("team-a", "shared")},
		"a ServiceAccount that is named can be limited all the same":   {job, []string{job.User}, nil, map[string]catalog.Namespaces{job.User: {"shared"}}, catalog.Writer, limit("shared")},
		"what ServiceAccounts are shown does not limit the platform's": {job, []string{job.User}, nil, map[string]catalog.Namespaces{"group:system:serviceaccounts": {"shared"}}, catalog.Writer, nil},
		"a job that administers is not limited":                        {job, nil, []string{job.User}, nil, catalog.Admin, nil},
		"a person sees all while nobody is limited":                    {person, nil, nil, nil, catalog.Reader, nil},
		"a person who is in no list sees none once others are limited": {person, nil, nil, map[string]catalog.Namespaces{"group:oidc:other": {"team-b"}}, catalog.Reader, catalog.Namespaces{}},
		"a person sees what the groups see together":                   {person, nil, nil, map[string]catalog.Namespaces{"group:oidc:ml": {"team-a"}, person.User: {"team-b"}}, catalog.Reader, limit("team-b", "team-a")},
		"a writer who is named writes everywhere":                      {person, []string{"group:oidc:ml"}, nil, map[string]catalog.Namespaces{"x": {"team-b"}}, catalog.Writer, nil},
		"a key's own limit stands":                                     {auth.Identity{User: "key:k", Role: catalog.Writer, Namespaces: limit("team-c")}, nil, nil, map[string]catalog.Namespaces{"key:k": {"team-d"}}, catalog.Writer, limit("team-c")},
		"a user whose name only looks like a ServiceAccount's is none": {auth.Identity{User: "oidc:system:serviceaccount:team-a:x"}, nil, nil, map[string]catalog.Namespaces{"y": {"z"}}, catalog.Reader, catalog.Namespaces{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			who, err := auth.NewGuard(known{tt.who}, tt.writers).WithAdmins(tt.admins).WithNamespaces(tt.limits).Identify(t.Context(), "Bearer x")
			if err != nil || who.Role != tt.role || who.Namespaces.Limited() != tt.want.Limited() || !slices.Equal(who.Namespaces, tt.want) {
				t.Errorf("%s for %v (%v), want %s for %v", who.Role, who.Namespaces, err, tt.role, tt.want)
			}
		})
	}
}
