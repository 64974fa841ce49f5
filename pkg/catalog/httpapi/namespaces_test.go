// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/auth"
	"github.com/spotbench/spotbench/pkg/catalog/httpapi"
)

// jobs knows two tokens, each of a ServiceAccount of a namespace, with the groups that
// the API server tells of it.
type jobs struct{ mine, theirs string }

func (j jobs) Authenticate(_ context.Context, token string) (auth.Identity, error) {
	namespace, ok := map[string]string{"job-of-mine": j.mine, "job-of-theirs": j.theirs}[token]
	if !ok {
		return auth.Identity{}, auth.ErrUnauthenticated
	}
	return auth.Identity{User: "system:serviceaccount:" + namespace + ":default", Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"}}, nil
}

// neighbours are two namespaces with a run each, with everything that a run can have, in a
// catalog whose reads need a token and whose jobs may write.
type neighbours struct {
	*stage
	mine, theirs string
	// reader and writer are keys for mine alone.
	reader, writer string
	// results and imports are those of each namespace.
	results, imports map[string]string
	models           map[string]string
}

func newNeighbours(t *testing.T, edits ...func(*httpapi.Options)) *neighbours {
	t.Helper()
	id := time.Now().UnixNano()
	n := &neighbours{mine: fmt.Sprintf("mine-%d", id), theirs: fmt.Sprintf("theirs-%d", id), results: map[string]string{}, imports: map[string]string{}, models: map[string]string{}}
	n.stage = newStage(t, append([]func(*httpapi.Options){withPages, closed, func(o *httpapi.Options) {
		store, _ := o.Store.(auth.KeyStore)
		files := o.Guard
		o.Guard = either{files, auth.NewGuard(auth.AnyOf{auth.NewKeys(store), jobs{n.mine, n.theirs}}, []string{"group:system:serviceaccounts"})}
	}}, edits...)...)
	for _, namespace := range []string{n.mine, n.theirs} {
		key := url.PathEscape(namespace + "/run")
		n.models[namespace] = "org/" + namespace
		start := "2026-11-20T10:00:00Z"
		for path, body := range map[string]string{
			"": fmt.Sprintf(`{"model":%q,"namespace":%q,"gpuModel":"L4","gpuCount":1,"engine":"vllm","engineVersion":"1","status":"succeeded","startedAt":%q,"finishedAt":"2026-11-20T11:00:00Z"}`, n.models[namespace], namespace, start),
		} {
			if resp, text := n.send(t, "PUT", "/v1/runs/"+key+path, n.stage.writer, body); resp.StatusCode != http.StatusOK {
				t.Fatal(text)
			}
		}
		for path, body := range map[string]string{
			"/segments/u":      fmt.Sprintf(`{"node":"node-of-%s","capacityType":"spot","usdPerHour":2,"onDemandUSDPerHour":4,"startedAt":%q,"endedAt":"2026-11-20T11:00:00Z"}`, namespace, start),
			"/interruptions/n": fmt.Sprintf(`{"kind":"spot","node":"node-of-%s","noticeAt":"2026-11-20T10:30:00Z"}`, namespace),
			"/telemetry/u":     fmt.Sprintf(`{"from":%q,"to":"2026-11-20T11:00:00Z","gpus":[{"uuid":"GPU-of-%s","samples":3}]}`, start, namespace),
		} {
			if resp, text := n.send(t, "PUT", "/v1/runs/"+key+path, n.stage.writer, body); resp.StatusCode != http.StatusOK {
				t.Fatal(text)
			}
		}
		content := strings.Replace(vllm, "org/m", n.models[namespace], 1)
		imported, err := n.client.Import(t.Context(), namespace+"/run", "r.json", []byte(content))
		if err != nil {
			t.Fatal(err)
		}
		n.results[namespace], n.imports[namespace] = imported.Results[0], imported.ID
	}
	make := func(role catalog.Role) string {
		name := fmt.Sprintf("limited-%s-%d", role, id)
		resp, text := n.send(t, "PUT", "/v1/keys/"+name, n.admin, fmt.Sprintf(`{"role":%q,"namespaces":[%q],"expiresAt":%q}`, role, n.mine, inDays(1)))
		key := regexp.MustCompile(`sbk_[^"]+`).FindString(text)
		if resp.StatusCode != http.StatusCreated || key == "" || !strings.Contains(text, n.mine) {
			t.Fatalf("%s %s", resp.Status, text)
		}
		return key
	}
	n.reader, n.writer = make(catalog.Reader), make(catalog.Writer)
	return n
}

// either asks a second guard about whom the first does not know.
type either [2]httpapi.Guard

func (e either) Allow(ctx context.Context, authorization string, need catalog.Role) (auth.Identity, error) {
	who, err := e[0].Allow(ctx, authorization, need)
	if err != nil && who.User == "" {
		return e[1].Allow(ctx, authorization, need)
	}
	return who, err
}

// TestWhatIsOfAnotherNamespaceIsInNoAnswer asks every address of the document and every
// page, with and without naming what is of the other namespace.
func TestWhatIsOfAnotherNamespaceIsInNoAnswer(t *testing.T) {
	n := newNeighbours(t)
	walk := func(of string) []string {
		model, run := url.QueryEscape(n.models[of]), url.QueryEscape(of+"/run")
		return []string{
			"/v1/runs?limit=500", "/v1/runs?namespace=" + of, "/v1/runs?model=" + model, "/v1/runs?order=oldest&node=node-of-" + of,
			"/v1/runs/" + url.PathEscape(of+"/run"), "/v1/runs/" + url.PathEscape(of+"/run") + "/telemetry",
			"/v1/results?limit=500", "/v1/results?run=" + run, "/v1/results?model=" + model, "/v1/results/" + n.results[of], "/v1/imports/" + n.imports[of] + "/file",
			"/v1/interruptions?limit=500", "/v1/interruptions?run=" + run, "/v1/interruptions?node=node-of-" + of,
			"/v1/models", "/v1/compare?run=" + run + "&run=" + url.QueryEscape(n.mine+"/run"), "/v1/compare?by=model&model=" + model, "/v1/compare?by=model", "/v1/pareto?model=" + model, "/v1/pareto", "/v1/pareto?run=" + run, "/v1/regressions?model=" + model, "/v1/regressions",
			"/v1/savings?by=run", "/v1/savings?by=namespace", "/v1/savings?by=model&model=" + model, "/v1/savings?namespace=" + of,
			"/v1/exports/results?format=ndjson", "/v1/exports/results?format=csv&run=" + run, "/v1/exports/results?format=csv", "/v1/exports/results?format=parquet",
			"/v1/instances?limit=500", "/v1/risk",
			"/", "/?model=" + model, "/runs/" + url.PathEscape(of+"/run"), "/models", "/models/" + url.PathEscape(n.models[of]), "/compare", "/compare?run=" + run + "&run=" + url.QueryEscape(n.mine+"/run"), "/compare?by=model&model=" + model,
			"/pareto", "/pareto?model=" + model, "/fleet", "/savings", "/savings?by=run", "/savings?by=namespace", "/metrics",
		}
	}
	// Every read of the document is among those.
	asked := strings.Join(walk(n.theirs), " ")
	for path, item := range readDocument(t, n.stage).root["paths"].(map[string]any) {
		if _, read := item.(map[string]any)["get"]; !read || strings.HasPrefix(path, "/v1/keys") || strings.HasPrefix(path, "/v1/audit") {
			continue
		}
		pattern := strings.NewReplacer(`\{key\}`, `[^/? ]+`, `\{id\}`, `[^/? ]+`).Replace(regexp.QuoteMeta(path))
		if !regexp.MustCompile(pattern + `(\?| )`).MatchString(asked + " ") {
			t.Errorf("GET %s is not asked here", path)
		}
	}
	for name, token := range map[string]string{"a reader's key": n.reader, "a writer's key": n.writer, "a job's token": "job-of-mine"} {
		t.Run(name, func(t *testing.T) {
			found := map[string]bool{}
			for _, path := range walk(n.theirs) {
				resp, text := n.send(t, "GET", path, token, "")
				// What the caller asked for stands in the problem that says it is not there.
				echo := resp.StatusCode >= 400
				for _, theirs := range []string{"GPU-of-" + n.theirs, n.results[n.theirs], n.imports[n.theirs], n.theirs + "/run", n.models[n.theirs], "node-of-" + n.theirs} {
					if strings.Contains(text, theirs) && !echo && !strings.Contains(path, url.QueryEscape(theirs)) {
						t.Errorf("GET %s has %s:\n%.2000s", path, theirs, text)
					}
				}
				if resp.StatusCode >= 500 || resp.StatusCode == http.StatusUnauthorized {
					t.Errorf("GET %s: %s", path, resp.Status)
				}
			}
			for _, path := range walk(n.mine) {
				resp, text := n.send(t, "GET", path, token, "")
				if resp.StatusCode >= 400 && !strings.Contains(path, "ompare") && !strings.Contains(path, "namespace=") {
					t.Errorf("GET %s, which is its own: %s %.300s", path, resp.Status, text)
				}
				if strings.Contains(text, n.mine) {
					found[path] = true
				}
			}
			if len(found) < 25 {
				t.Errorf("its own namespace is only in %d answers: %v", len(found), found)
			}
			for path, want := range map[string]int{
				"/v1/runs/" + url.PathEscape(n.theirs+"/run"): 404, "/v1/results/" + n.results[n.theirs]: 404, "/v1/imports/" + n.imports[n.theirs] + "/file": 404, "/models/" + url.PathEscape(n.models[n.theirs]): 404,
				"/runs/" + url.PathEscape(n.theirs+"/run"): 404, "/v1/compare?run=" + url.QueryEscape(n.theirs+"/run") + "&run=" + url.QueryEscape(n.mine+"/run"): 404,
			} {
				if resp, _ := n.send(t, "GET", path, token, ""); resp.StatusCode != want {
					t.Errorf("GET %s: %s, want %d as for what is not there", path, resp.Status, want)
				}
			}
		})
	}
	// Who is not limited sees both.
	all := newKey(t, n.stage, fmt.Sprintf("all-%d", time.Now().UnixNano()), catalog.Reader)
	_, text := n.send(t, "GET", "/v1/runs?limit=500", all, "")
	if !strings.Contains(text, n.mine) || !strings.Contains(text, n.theirs) {
		t.Error("a key for all namespaces does not see both runs")
	}
}

func TestAWriteIntoAnotherNamespaceIsRefusedAndChangesNothing(t *testing.T) {
	n := newNeighbours(t)
	other := url.PathEscape(n.theirs + "/run")
	before, _ := n.send(t, "GET", "/v1/runs/"+other, n.admin, "")
	for name, token := range map[string]string{"a writer's key": n.writer, "a job's token": "job-of-mine"} {
		for _, call := range [][3]string{
			{"PUT", "/v1/runs/" + other, `{"status":"failed"}`},
			{"PUT", "/v1/runs/" + url.PathEscape(n.theirs+"/new"), `{}`},
			{"PUT", "/v1/runs/no-namespace", `{}`},
			{"PUT", "/v1/runs/" + url.PathEscape(n.mine+"-2/run"), `{}`},
			{"PUT", "/v1/runs/" + other + "/segments/u", `{"node":"x"}`},
			{"PUT", "/v1/runs/" + other + "/interruptions/n", `{"kind":"x"}`},
			{"PUT", "/v1/runs/" + other + "/telemetry/u", `{"gpus":[]}`},
			{"POST", "/v1/imports?file=r.json&run=" + url.QueryEscape(n.theirs+"/run"), vllm},
			{"PUT", "/v1/instances/some-node", `{"node":"x"}`},
			// Its own run must not pass for one of theirs.
			{"PUT", "/v1/runs/" + url.PathEscape(n.mine+"/run"), fmt.Sprintf(`{"namespace":%q}`, n.theirs)},
		} {
			if resp, text := n.send(t, call[0], call[1], token, call[2]); resp.StatusCode != http.StatusForbidden {
				t.Errorf("%s %s by %s: %s %s", call[0], call[1], name, resp.Status, text)
			}
		}
		for _, call := range [][3]string{
			{"PUT", "/v1/runs/" + url.PathEscape(n.mine+"/run"), fmt.Sprintf(`{"namespace":%q}`, n.mine)},
			{"PUT", "/v1/runs/" + url.PathEscape(n.mine+"/other"), `{}`},
			{"POST", "/v1/imports?file=r2.json&run=" + url.QueryEscape(n.mine+"/run"), strings.Replace(vllm, "10,", "11,", 1)},
		} {
			if resp, text := n.send(t, call[0], call[1], token, call[2]); resp.StatusCode >= 300 {
				t.Errorf("%s %s, its own, by %s: %s %s", call[0], call[1], name, resp.Status, text)
			}
		}
	}
	if resp, _ := n.send(t, "PUT", "/v1/runs/"+url.PathEscape(n.mine+"/run"), n.reader, `{}`); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a reader's write: %s", resp.Status)
	}
	if after, _ := n.send(t, "GET", "/v1/runs/"+other, n.admin, ""); after.Header.Get("ETag") != before.Header.Get("ETag") {
		t.Errorf("the run of the other namespace has revision %s, was %s", after.Header.Get("ETag"), before.Header.Get("ETag"))
	}
}

func TestAKeyIsNotMadeForNamespacesThatCannotBe(t *testing.T) {
	s := newStage(t)
	for name, body := range map[string]string{
		"an administrator of one namespace": `"role":"admin","namespaces":["a"]`, "no namespace at all": `"role":"read","namespaces":[]`,
		"a path": `"role":"read","namespaces":["a/b"]`, "a pattern": `"role":"read","namespaces":["*"]`, "an empty name": `"role":"read","namespaces":[""]`,
	} {
		if resp, text := s.send(t, "PUT", fmt.Sprintf("/v1/keys/bad-%d", time.Now().UnixNano()), s.admin, fmt.Sprintf(`{%s,"expiresAt":%q}`, body, inDays(1))); resp.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(text, "namespaces") {
			t.Errorf("%s: %s %s", name, resp.Status, text)
		}
	}
}
