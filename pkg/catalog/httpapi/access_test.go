// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/auth"
	"github.com/spotbench/spotbench/pkg/catalog/httpapi"
	"github.com/spotbench/spotbench/pkg/catalog/web"
)

// closed is a catalog whose reads need a token.
func closed(o *httpapi.Options) { o.Readers = true }

// withPages is a catalog with the pages for people.
func withPages(o *httpapi.Options) {
	reader, _ := o.Store.(web.Reader)
	o.Pages, o.PagePatterns = web.New(reader, o.Hazards, o.Log), web.Patterns
}

// inDays is a time for a request.
func inDays(n int) string { return time.Now().AddDate(0, 0, n).UTC().Format(time.RFC3339) }

// newKey makes a key as an administrator does.
func newKey(t *testing.T, s *stage, id string, role catalog.Role) string {
	t.Helper()
	resp, body := s.send(t, "PUT", "/v1/keys/"+id, s.admin, fmt.Sprintf(`{"role":%q,"expiresAt":%q}`, role, inDays(30)))
	var made struct{ Key string }
	if err := json.Unmarshal([]byte(body), &made); err != nil || resp.StatusCode != http.StatusCreated || made.Key == "" {
		t.Fatalf("%s %s", resp.Status, body)
	}
	return made.Key
}

// TestNothingButWhatTheDocumentSaysIsReachedWithoutAToken walks every operation of
// the document, every page, and addresses that are none.
func TestNothingButWhatTheDocumentSaysIsReachedWithoutAToken(t *testing.T) {
	reader := func(s *stage) string {
		return newKey(t, s, fmt.Sprintf("walk-r-%d", time.Now().UnixNano()), catalog.Reader)
	}
	writer := func(s *stage) string {
		return newKey(t, s, fmt.Sprintf("walk-w-%d", time.Now().UnixNano()), catalog.Writer)
	}
	for name, edits := range map[string][]func(*httpapi.Options){"reads are open": {withPages}, "reads need a token": {withPages, closed}} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, edits...)
			isClosed := len(edits) == 2
			read, write := reader(s), writer(s)
			walked := 0
			for path, item := range readDocument(t, s).root["paths"].(map[string]any) {
				path = strings.NewReplacer("{key}", "none", "{id}", "none", "{podUID}", "u", "{noticeID}", "n", "{uid}", "u").Replace(path)
				for method, operation := range item.(map[string]any) {
					walked++
					method, operation := strings.ToUpper(method), operation.(map[string]any)
					secured := operation["security"] != nil
					administers := strings.HasPrefix(path, "/v1/keys") || strings.HasPrefix(path, "/v1/audit")
					if !secured && method != http.MethodGet {
						t.Errorf("%s %s changes something and needs no token", method, path)
					}
					for _, bad := range []string{"", "nonsense", "sbk_none_nonsense", "a.b.c"} {
						resp, body := s.send(t, method, path, bad, "{}")
						if refused := resp.StatusCode == http.StatusUnauthorized; refused != (secured || isClosed) {
							t.Errorf("%s %s with token %q: %s %s", method, path, bad, resp.Status, body)
						}
					}
					if resp, _ := s.send(t, method, path, read, "{}"); (resp.StatusCode == http.StatusForbidden) != secured {
						t.Errorf("%s %s by a reader: %s", method, path, resp.Status)
					}
					if resp, _ := s.send(t, method, path, write, "{}"); (resp.StatusCode == http.StatusForbidden) != administers {
						t.Errorf("%s %s by a writer: %s", method, path, resp.Status)
					}
				}
			}
			if walked < 18 {
				t.Errorf("only %d operations were walked", walked)
			}
			others := []string{"/metrics", "/no/such", "/v1/none"}
			for _, pattern := range web.Patterns {
				method, path, found := strings.Cut(pattern, " ")
				if !found || method != http.MethodGet {
					t.Errorf("page %q is not for GET alone", pattern)
				}
				others = append(others, strings.NewReplacer("{$}", "", "{key}", "none", "{name}", "none", "{file}", "none").Replace(path))
			}
			for _, path := range others {
				resp, _ := s.send(t, "GET", path, "", "")
				if refused := resp.StatusCode == http.StatusUnauthorized; refused != isClosed {
					t.Errorf("GET %s: %s", path, resp.Status)
				}
				if isClosed && len(resp.Header.Values("WWW-Authenticate")) != 2 {
					t.Errorf("GET %s does not ask for a token: %v", path, resp.Header)
				}
			}
			for _, path := range []string{"/healthz", "/readyz", "/openapi.json", "/openapi.yaml"} {
				if resp, _ := s.send(t, "GET", path, "", ""); resp.StatusCode != http.StatusOK {
					t.Errorf("GET %s: %s; probes and readers of the document have no token", path, resp.Status)
				}
			}
			// A browser sends its key as a password.
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.SetBasicAuth("me", read)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("the page with a key as password: %s", resp.Status)
			}
		})
	}
}

func TestAKeyWorksUntilItIsRotatedAwayRevokedOrExpired(t *testing.T) {
	s := newStage(t)
	id := fmt.Sprintf("life-%d", time.Now().UnixNano())
	first := newKey(t, s, id, catalog.Writer)
	works := func(key string) bool {
		resp, body := s.send(t, "PUT", "/v1/runs/ns%2Fkeyed", key, `{"model":"m"}`)
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
			t.Fatalf("%s %s", resp.Status, body)
		}
		return resp.StatusCode == http.StatusOK
	}
	if !works(first) {
		t.Error("a new key does not work")
	}
	if resp, _ := s.send(t, "PUT", "/v1/keys/"+id, s.admin, fmt.Sprintf(`{"role":"admin","expiresAt":%q}`, inDays(1))); resp.StatusCode != http.StatusConflict {
		t.Errorf("a second key of the name: %s", resp.Status)
	}
	rotate := func(overlap int) string {
		t.Helper()
		resp, body := s.send(t, "POST", "/v1/keys/"+id+"/rotate", s.admin, fmt.Sprintf(`{"expiresAt":%q,"overlapSeconds":%d}`, inDays(60), overlap))
		var made struct{ Key string }
		if err := json.Unmarshal([]byte(body), &made); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %s", resp.Status, body)
		}
		return made.Key
	}
	second := rotate(3600)
	third := rotate(3600)
	// Another server, which remembers no verdicts.
	s2 := newStage(t)
	s.url = s2.url
	if works(first) || !works(second) || !works(third) {
		t.Errorf("after a second rotation within the overlap: first %t, second %t, third %t; want the third and the one before it", works(first), works(second), works(third))
	}
	resp, body := s.send(t, "GET", "/v1/keys", s2.admin, "")
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, id) || strings.Contains(body, third) || strings.Contains(body, "hash") {
		t.Errorf("the list: %s %s", resp.Status, body)
	}
	if resp, _ := s.send(t, "DELETE", "/v1/keys/"+id, s2.admin, ""); resp.StatusCode != http.StatusNoContent {
		t.Errorf("revoke: %s", resp.Status)
	}
	s.url = newStage(t).url
	if works(second) || works(third) {
		t.Error("a revoked key works")
	}
	for what, text := range map[string]string{"yesterday": inDays(-1), "in three years": inDays(3 * 366)} {
		if resp, _ := s2.send(t, "PUT", "/v1/keys/none", s2.admin, fmt.Sprintf(`{"role":"read","expiresAt":%q}`, text)); resp.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("a key that expires %s: %s", what, resp.Status)
		}
	}
}

// TestEveryWriteIsInTheLogOfWritesAndNothingElseIs: with who, what and from where;
// a write that was refused changed nothing and is not there.
func TestEveryWriteIsInTheLogOfWritesAndNothingElseIs(t *testing.T) {
	s := newStage(t)
	id := fmt.Sprintf("audit-%d", time.Now().UnixNano())
	key := newKey(t, s, id, catalog.Writer)
	s.send(t, "PUT", "/v1/runs/ns%2Faudited", key, `{"model":"m"}`)
	s.send(t, "PUT", "/v1/runs/ns%2Faudited/segments/u", key, `{"node":"n"}`)
	s.send(t, "PUT", "/v1/runs/ns%2Faudited/interruptions/i", key, `{"kind":"spot"}`)
	s.send(t, "PUT", "/v1/runs/ns%2Faudited/telemetry/u", key, `{}`)
	s.send(t, "PUT", "/v1/instances/u", key, `{"node":"n"}`)
	s.send(t, "POST", "/v1/imports?run=ns/audited&file=f.json", key, vllm)
	s.send(t, "PUT", "/v1/runs/ns%2Fnone/segments/u", key, `{"node":"n"}`) // no such run
	s.send(t, "PUT", "/v1/runs/ns%2Faudited", key, `{"gpuCount":-1}`)      // cannot be
	s.send(t, "PUT", "/v1/keys/more", key, `{"role":"admin"}`)             // may not
	s.send(t, "GET", "/v1/runs", key, "")
	var got []string
	for token := ""; ; {
		_, body := s.send(t, "GET", "/v1/audit?limit=2&caller=key:"+id+"&pageToken="+token, s.admin, "")
		var page catalog.Page[catalog.AuditEntry]
		if err := json.Unmarshal([]byte(body), &page); err != nil {
			t.Fatal(err, body)
		}
		for _, e := range page.Items {
			got = append(got, e.Operation)
			if e.Remote != "127.0.0.1" || time.Since(e.At) > time.Minute || !strings.HasPrefix(e.Target, "/v1/") {
				t.Errorf("%+v", e)
			}
		}
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	want := "import put-instance put-telemetry put-interruption put-segment put-run"
	if strings.Join(got, " ") != want {
		t.Errorf("the log has %v, want %s", got, want)
	}
	_, body := s.send(t, "GET", "/v1/audit?caller=admin&limit=500", s.admin, "")
	if !strings.Contains(body, "/v1/keys/"+id) {
		t.Errorf("the making of the key is not in the log: %s", body)
	}
}

func TestACallerWhoAsksTooOftenWaitsAndOthersDoNot(t *testing.T) {
	s := newStage(t, closed, func(o *httpapi.Options) { o.Limits = auth.NewLimits(1) })
	var refused *http.Response
	for range 4 {
		if resp, _ := s.send(t, "GET", "/v1/models", s.other, ""); resp.StatusCode != http.StatusOK {
			refused = resp
		}
	}
	if refused == nil || refused.StatusCode != http.StatusTooManyRequests || refused.Header.Get("Retry-After") != "1" {
		t.Errorf("four at once, where two may be: %+v", refused)
	}
	if resp, _ := s.send(t, "GET", "/v1/models", s.writer, ""); resp.StatusCode != http.StatusOK {
		t.Errorf("another caller: %s", resp.Status)
	}
	if resp, _ := s.send(t, "PUT", "/v1/runs/ns%2Flimited", s.other, "{}"); resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("a write of the first: %s", resp.Status)
	}
	for range 4 {
		if resp, _ := s.send(t, "GET", "/healthz", "", ""); resp.StatusCode != http.StatusOK {
			t.Errorf("a probe: %s", resp.Status)
		}
	}
	for range 3 {
		refused, _ = s.send(t, "GET", "/v1/models", "guess", "")
	}
	if refused.StatusCode != http.StatusTooManyRequests {
		t.Errorf("the third guess at a token: %s", refused.Status)
	}
}

// asking counts how often the guard is asked.
type asking struct {
	httpapi.Guard
	asked atomic.Int64
}

func (a *asking) Allow(ctx context.Context, authorization string, need catalog.Role) (auth.Identity, error) {
	a.asked.Add(1)
	return a.Guard.Allow(ctx, authorization, need)
}

func TestOneWhoGuessesAtTokensIsNoLongerAskedAboutAndOneWithoutATokenGuessesNothing(t *testing.T) {
	for name, method := range map[string]string{"reads": http.MethodGet, "writes": http.MethodPut} {
		t.Run(name, func(t *testing.T) {
			guard := &asking{}
			s := newStage(t, closed, func(o *httpapi.Options) {
				guard.Guard = o.Guard
				o.Guard, o.Guesses = guard, auth.NewLimits(1)
			})
			path, body := "/v1/runs/ns%2Fguessed", `{"model":"m"}`
			for range 5 {
				if resp, _ := s.send(t, method, path, "", body); resp.StatusCode != http.StatusUnauthorized {
					t.Fatalf("without a token: %s", resp.Status)
				}
			}
			if resp, _ := s.send(t, method, path, s.writer, body); resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
				t.Fatalf("a good token: %s", resp.Status)
			}
			guard.asked.Store(0)
			var last *http.Response
			for n := range 20 {
				last, _ = s.send(t, method, path, fmt.Sprintf("guess-%d", n), body)
			}
			if last.StatusCode != http.StatusTooManyRequests || last.Header.Get("Retry-After") != "1" || guard.asked.Load() > 5 {
				t.Errorf("the twentieth guess: %s, after %d questions", last.Status, guard.asked.Load())
			}
		})
	}
}

func TestTheReadOnlyAddressAnswersNoAdministrator(t *testing.T) {
	s := newStage(t)
	plain := httptest.NewServer(httpapi.ReadOnly(s.handler))
	defer plain.Close()
	s.url = plain.URL
	for path, want := range map[string]int{
		"/v1/keys": http.StatusForbidden, "/v1/audit?limit=1": http.StatusForbidden, "/v1/%6Beys": http.StatusForbidden, "//v1//keys": http.StatusForbidden, "/v1/models": http.StatusOK,
	} {
		if resp, body := s.send(t, "GET", path, s.admin, ""); resp.StatusCode != want {
			t.Errorf("%s: %s %s, want %d", path, resp.Status, body, want)
		}
	}
}

func TestARotationThatIsSentAgainEndsNoSecretThatIsInUse(t *testing.T) {
	s := newStage(t)
	id := fmt.Sprintf("again-%d", time.Now().UnixNano())
	inUse := newKey(t, s, id, catalog.Writer)
	rotate := func(name string) string {
		t.Helper()
		resp, body := s.send(t, "POST", "/v1/keys/"+id+"/rotate", s.admin, fmt.Sprintf(`{"expiresAt":%q,"overlapSeconds":3600}`, inDays(60)), "Idempotency-Key", name)
		var made struct{ Key string }
		if err := json.Unmarshal([]byte(body), &made); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %s", resp.Status, body)
		}
		return made.Key
	}
	// A fresh server, which remembers no verdict.
	works := func(key string) bool {
		resp, _ := newStage(t).send(t, "PUT", "/v1/runs/ns%2Frotated", key, `{}`)
		return resp.StatusCode == http.StatusOK
	}
	lost := rotate("monday") // the answer that nobody got
	got := rotate("monday")
	if !works(inUse) || works(lost) || !works(got) {
		t.Errorf("the secret in use works: %v, the lost one: %v, the new one: %v", works(inUse), works(lost), works(got))
	}
	next := rotate("tuesday")
	if works(inUse) || !works(got) || !works(next) {
		t.Errorf("after another rotation the first secret works: %v, the one before: %v, the new one: %v", works(inUse), works(got), works(next))
	}
}
