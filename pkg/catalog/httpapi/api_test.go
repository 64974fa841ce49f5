// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/auth"
	"github.com/spotbench/spotbench/pkg/catalog/client"
	"github.com/spotbench/spotbench/pkg/catalog/filter"
	"github.com/spotbench/spotbench/pkg/catalog/httpapi"
	"github.com/spotbench/spotbench/pkg/catalog/localpg"
	"github.com/spotbench/spotbench/pkg/catalog/postgres"
)

var update = flag.Bool("update", false, "write docs/reference/openapi.yaml anew")

var server *localpg.Server

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "catalog-test-")
	if err != nil {
		panic(err)
	}
	if server, err = localpg.Start(context.Background(), dir, slog.New(slog.DiscardHandler)); err != nil {
		panic(err)
	}
	code := m.Run()
	if err := errors.Join(server.Stop(context.Background()), os.RemoveAll(dir)); err != nil {
		panic(err)
	}
	os.Exit(code)
}

// stage is a catalog with a real store and guard.
type stage struct {
	url                  string
	handler              http.Handler
	writer, other, admin string // tokens of a writer, of somebody else, and of an administrator
	client, unauthorized *client.Client
	log                  *bytes.Buffer
}

func newStage(t *testing.T, edits ...func(*httpapi.Options)) *stage {
	t.Helper()
	store, err := postgres.Open(t.Context(), postgres.Options{URL: server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	if _, err := store.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := &stage{log: &bytes.Buffer{}}
	var lines [3]string
	for n, user := range []string{"writer", "other", "admin"} {
		token, line, err := auth.NewToken(user)
		if err != nil {
			t.Fatal(err)
		}
		lines[n] = line
		*[]*string{&s.writer, &s.other, &s.admin}[n] = token
	}
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte(strings.Join(lines[:], "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := auth.NewTokenFile(file)
	if err != nil {
		t.Fatal(err)
	}
	options := httpapi.Options{Store: store, Guard: auth.NewGuard(auth.AnyOf{tokens, auth.NewKeys(store)}, []string{"writer"}).WithAdmins([]string{"admin"}), Registry: prometheus.NewRegistry(),
		Log: slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, edit := range edits {
		edit(&options)
	}
	s.handler = httpapi.New(options)
	web := httptest.NewServer(s.handler)
	t.Cleanup(web.Close)
	s.url = web.URL
	connect := func(token string) *client.Client {
		c, err := client.New(web.URL, web.Client(), func(context.Context) (string, error) { return token, nil })
		if err != nil {
			t.Fatal(err)
		}
		c.SetRetries(1, 0)
		return c
	}
	s.client, s.unauthorized = connect(s.writer), connect("")
	return s
}

// send makes a request and reads the answer.
func (s *stage) send(t *testing.T, method, path, token, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for n := 0; n+1 < len(header); n += 2 {
		req.Header.Set(header[n], header[n+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

const vllm = `{"model_id":"org/m","num_prompts":10,"completed":10,"duration":2,"max_concurrency":4,"p99_ttft_ms":NaN}`

func TestARunIsToldAndReadBackThroughTheClient(t *testing.T) {
	s := newStage(t)
	ctx, key := t.Context(), "gpu-workloads/told-1a2b3c4d"
	start := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	if _, err := s.client.PutRun(ctx, key, catalog.Run{Model: "org/told", Status: catalog.Running, StartedAt: start}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.PutSegment(ctx, key, "u1", catalog.Segment{Node: "n1", GPUModel: "L4", GPUUUIDs: []string{"GPU-1"}, CapacityType: "spot", USDPerHour: 2, OnDemandUSDPerHour: 4, StartedAt: start, EndedAt: start.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	lost := 2.5
	if _, err := s.client.PutInterruption(ctx, key, "n-1", catalog.Interruption{Kind: "spot", Node: "n1", NoticeAt: start, WorkLostSeconds: &lost}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.PutTelemetry(ctx, key, "u1", catalog.Telemetry{From: start, To: start.Add(time.Hour), GPUs: []catalog.GPUTelemetry{{UUID: "GPU-1", Samples: 3}}}); err != nil {
		t.Fatal(err)
	}
	first, err := s.client.Import(ctx, key, "told-c4.json", []byte(vllm))
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.client.Import(ctx, key, "told-c4.json", []byte(vllm))
	if err != nil || !cmp.Equal(first, again) {
		t.Errorf("the second import differs: %s %v", cmp.Diff(first, again), err)
	}
	if _, err := s.client.PutRun(ctx, key, catalog.Run{Status: catalog.Succeeded, FinishedAt: start.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	run, err := s.client.GetRun(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	// 1 h × 2 USD; 1 h × 4 USD on demand.
	if run.Key != key || run.Model != "org/told" || run.CostUSD != 2 || run.OnDemandCostUSD != 4 || run.WorkLostSeconds != 2.5 || run.InterruptionCount != 1 ||
		run.Validity.Verdict != catalog.Suspect || len(run.Validity.Reasons) != 1 || run.Validity.Reasons[0].Code != "few-requests" { // the file has less than 100 requests
		t.Errorf("run %+v", run.Summary)
	}
	if len(run.Segments) != 1 || len(run.Interruptions) != 1 || len(run.Telemetry) != 1 || len(run.Results) != 1 || run.Results[0].ID != first.Results[0] {
		t.Errorf("parts %+v", run)
	}
	runs, err := s.client.ListRuns(ctx, filter.RunList{Runs: filter.Runs{Model: "org/told", Status: catalog.Succeeded, Verdict: catalog.Suspect}, Paged: filter.Paged{Limit: 5}})
	if err != nil || len(runs.Items) != 1 || !cmp.Equal(runs.Items[0], run.Summary) {
		t.Errorf("the list has another run than the run itself: %+v %v", runs.Items, err)
	}
	for name, tt := range map[string]struct {
		filter filter.RunList
		want   int
	}{
		"started in the hour":  {filter.RunList{Runs: filter.Runs{Model: "org/told", Dated: filter.Dated{Since: start, Before: start.Add(time.Hour)}}, Paged: filter.Paged{Order: "oldest"}}, 1},
		"started later":        {filter.RunList{Runs: filter.Runs{Model: "org/told", Dated: filter.Dated{Since: start.Add(time.Second)}}}, 0},
		"started earlier":      {filter.RunList{Runs: filter.Runs{Model: "org/told", Dated: filter.Dated{Before: start}}}, 0},
		"bought on demand":     {filter.RunList{Runs: filter.Runs{Model: "org/told", CapacityType: "on-demand"}}, 0},
		"in another region":    {filter.RunList{Runs: filter.Runs{Model: "org/told", Region: "eu"}}, 0},
		"on another node":      {filter.RunList{Runs: filter.Runs{Model: "org/told", Node: "n9"}}, 0},
		"with another verdict": {filter.RunList{Runs: filter.Runs{Model: "org/told", Verdict: catalog.Valid}}, 0},
		"on another machine":   {filter.RunList{Runs: filter.Runs{Model: "org/told", InstanceType: "p5"}}, 0},
	} {
		if page, err := s.client.ListRuns(ctx, tt.filter); err != nil || len(page.Items) != tt.want {
			t.Errorf("runs %s: %d, %v, want %d", name, len(page.Items), err, tt.want)
		}
	}
	for name, tt := range map[string]struct {
		filter filter.ResultList
		want   int
	}{
		"of vLLM at 4":         {filter.ResultList{Results: filter.Results{Run: key, Format: "vllm", Concurrency: 4}}, 1},
		"at 5":                 {filter.ResultList{Results: filter.Results{Run: key, Concurrency: 5}}, 0},
		"of another format":    {filter.ResultList{Results: filter.Results{Run: key, Format: "sglang"}}, 0},
		"of another GPU model": {filter.ResultList{Results: filter.Results{Run: key, GPUModel: "L4"}}, 0}, // the run itself does not tell one
	} {
		if page, err := s.client.ListResults(ctx, tt.filter); err != nil || len(page.Items) != tt.want {
			t.Errorf("results %s: %d, %v, want %d", name, len(page.Items), err, tt.want)
		}
	}
	results, err := s.client.ListResults(ctx, filter.ResultList{Results: filter.Results{Run: key}})
	if err != nil || !cmp.Equal(results.Items, run.Results) {
		t.Errorf("results %+v %v", results, err)
	}
	interruptions, err := s.client.ListInterruptions(ctx, filter.InterruptionList{Interruptions: filter.Interruptions{Run: key, Node: "n1"}})
	if err != nil || !cmp.Equal(interruptions.Items, run.Interruptions) {
		t.Errorf("interruptions %+v %v", interruptions, err)
	}
	telemetry, err := s.client.GetTelemetry(ctx, key)
	if err != nil || !cmp.Equal(telemetry, run.Telemetry) {
		t.Errorf("telemetry %+v %v", telemetry, err)
	}
	models, err := s.client.ListModels(ctx)
	if err != nil || len(models) == 0 {
		t.Errorf("models %+v %v", models, err)
	}
	if strings.Contains(s.log.String(), s.writer) {
		t.Error("the log has the writer's token")
	}
}

func TestAnswersToWhatCannotBeDone(t *testing.T) {
	s := newStage(t)
	if resp, body := s.send(t, "PUT", "/v1/runs/ns%2Fthere", s.writer, `{"model":"m"}`); resp.StatusCode != http.StatusOK || resp.Header.Get("ETag") == "" {
		t.Fatal(resp.Status, body)
	}
	tests := map[string]struct {
		method, path, token, body string
		status                    int
		detail                    string
	}{
		"no token":                           {"PUT", "/v1/runs/ns%2Fx", "", `{}`, 401, "Authorization: Bearer"},
		"a token of nobody":                  {"PUT", "/v1/runs/ns%2Fx", "abc", `{}`, 401, "the token is"},
		"a token of somebody else":           {"PUT", "/v1/runs/ns%2Fx", s.other, `{}`, 403, "other is not among"},
		"a refused caller's body is unread":  {"POST", "/v1/imports?run=ns/x", s.other, `nonsense`, 403, "other"},
		"a run that is not there":            {"GET", "/v1/runs/ns%2Fnone", "", ``, 404, `run \"ns/none\"`},
		"a segment without its run":          {"PUT", "/v1/runs/ns%2Fnone/segments/u", s.writer, `{}`, 404, "create it first"},
		"an unknown address":                 {"GET", "/v2/runs", "", ``, 404, "/openapi.json"},
		"an address that takes no DELETE":    {"DELETE", "/v1/runs/ns%2Fthere", s.writer, ``, 405, "GET, HEAD, PUT"},
		"a key with capitals":                {"PUT", "/v1/runs/NS", s.writer, `{}`, 422, `run key \"NS\"`},
		"a status that is none":              {"PUT", "/v1/runs/ns%2Fthere", s.writer, `{"status":"done"}`, 422, "status"},
		"a field that is none":               {"PUT", "/v1/runs/ns%2Fthere", s.writer, `{"modle":"m"}`, 422, "modle"},
		"no JSON":                            {"PUT", "/v1/runs/ns%2Fthere", s.writer, `{`, 400, ""},
		"an end before the start":            {"PUT", "/v1/runs/ns%2Fthere", s.writer, `{"startedAt":"2026-01-02T00:00:00Z","finishedAt":"2026-01-01T00:00:00Z"}`, 422, "finishedAt"},
		"a NUL in a name":                    {"PUT", "/v1/runs/ns%2Fthere", s.writer, `{"model":"a\u0000"}`, 422, "NUL"},
		"a GPU without a UUID":               {"PUT", "/v1/runs/ns%2Fthere/telemetry/u", s.writer, `{"gpus":[{"uuid":""}]}`, 422, "gpus[0].uuid"},
		"a result file of another tool":      {"POST", "/v1/imports?run=ns/there", s.writer, `{"load_summary":{},"successes":{}}`, 415, "Prometheus"},
		"a result file that is cut":          {"POST", "/v1/imports?run=ns/there&file=c4.json", s.writer, `{"model_id":`, 422, `file \"c4.json\", at byte 12`},
		"a result for a run that is none":    {"POST", "/v1/imports?run=ns/none", s.writer, vllm, 404, "ns/none"},
		"an import without a run":            {"POST", "/v1/imports", s.writer, vllm, 422, "run"},
		"a page of more than 500":            {"GET", "/v1/runs?limit=501", "", ``, 422, "limit"},
		"a page token of somebody's own":     {"GET", "/v1/runs?pageToken=abc", "", ``, 422, "leave it out"},
		"a body larger than a run can be":    {"PUT", "/v1/runs/ns%2Fthere", s.writer, `{"model":"` + strings.Repeat("x", 5<<20) + `"}`, 413, ""},
		"a result file above the size limit": {"POST", "/v1/imports?run=ns/there", s.writer, strings.Repeat(" ", 64<<20+1), 413, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			resp, body := s.send(t, tt.method, tt.path, tt.token, tt.body)
			if resp.StatusCode != tt.status || !strings.Contains(body, tt.detail) {
				t.Errorf("%d %s, want %d with %s", resp.StatusCode, body, tt.status, tt.detail)
			}
			var problem struct {
				Status int
				Title  string
			}
			if err := json.Unmarshal([]byte(body), &problem); err != nil || problem.Status != tt.status || problem.Title == "" || resp.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("no problem document: %s %s", resp.Header.Get("Content-Type"), body)
			}
			if tt.status == 401 && resp.Header.Get("WWW-Authenticate") == "" {
				t.Error("no WWW-Authenticate")
			}
		})
	}
}

func TestAWriteForAnOlderRevisionIs412(t *testing.T) {
	s := newStage(t)
	first, _ := s.send(t, "PUT", "/v1/runs/ns%2Fetag", s.writer, `{"model":"m"}`)
	tag := first.Header.Get("ETag")
	if resp, body := s.send(t, "PUT", "/v1/runs/ns%2Fetag", s.writer, `{"model":"n"}`, "If-Match", tag); resp.StatusCode != http.StatusOK {
		t.Errorf("%s %s", resp.Status, body)
	}
	for _, stale := range []string{tag, `"x"`} {
		if resp, body := s.send(t, "PUT", "/v1/runs/ns%2Fetag", s.writer, `{"model":"o"}`, "If-Match", stale); resp.StatusCode != http.StatusPreconditionFailed {
			t.Errorf("%s: %s %s", stale, resp.Status, body)
		}
	}
}

func TestTheReadOnlyAddressTakesNoWrites(t *testing.T) {
	s := newStage(t)
	web := httptest.NewServer(httpapi.ReadOnly(s.handler))
	defer web.Close()
	s.url = web.URL
	for _, method := range []string{"PUT", "POST", "DELETE", "PATCH"} {
		if resp, body := s.send(t, method, "/v1/runs/ns%2Fro", s.writer, `{}`); resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s: %s %s", method, resp.Status, body)
		}
	}
	for _, path := range []string{"/v1/runs", "/v1/models", "/healthz", "/readyz", "/metrics", "/openapi.json", "/openapi.yaml"} {
		if resp, body := s.send(t, "GET", path, "", ""); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s %s", path, resp.Status, body)
		}
	}
}

func TestTheOpenAPIDocumentIsThePublishedOne(t *testing.T) {
	got, err := httpapi.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.FromSlash("../../../docs/reference/openapi.yaml")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("the API changed; run `go test ./pkg/catalog/httpapi -update` (-published +now)\n%s", diff)
	}
}

func TestHowGPUsWentOverTimeIsKeptApartFromTheirSummaries(t *testing.T) {
	s := newStage(t)
	const key = "/v1/runs/ns%2Fplotted"
	tell := func(body string) (int, string) {
		resp, text := s.send(t, "PUT", key+"/telemetry/u", s.writer, body)
		return resp.StatusCode, text
	}
	s.send(t, "PUT", key, s.writer, `{"model":"m"}`)
	const series = `{"from":"2026-11-01T12:00:00Z","stepSeconds":2,"powerWatts":[100,null,300.5]}`
	if status, text := tell(`{"from":"2026-11-01T12:00:00Z","to":"2026-11-01T12:01:00Z","gpus":[{"uuid":"GPU-1","samples":3,"series":` + series + `},{"uuid":"GPU-2","samples":3}]}`); status != http.StatusOK {
		t.Fatal(text)
	}
	// A later summary without the course leaves it: the agent does not send it each time.
	if status, text := tell(`{"from":"2026-11-01T12:00:00Z","to":"2026-11-01T12:02:00Z","gpus":[{"uuid":"GPU-1","samples":9},{"uuid":"GPU-2","samples":9}]}`); status != http.StatusOK {
		t.Fatal(text)
	}
	if _, text := s.send(t, "GET", key+"/telemetry", "", ""); !strings.Contains(text, series) || strings.Count(text, `"series"`) != 1 || !strings.Contains(text, `"samples":9`) {
		t.Errorf("the telemetry is %s", text)
	}
	for _, path := range []string{key, "/v1/runs?model=m"} {
		if _, text := s.send(t, "GET", path, "", ""); strings.Contains(text, `"series"`) {
			t.Errorf("GET %s carries the course of the GPUs", path)
		}
	}
	if resp, _ := s.send(t, "GET", "/v1/runs/ns%2Fnone/telemetry", "", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("the telemetry of no run: %s", resp.Status)
	}
	for name, bad := range map[string]string{
		"a step of no time":   `{"from":"2026-11-01T12:00:00Z","stepSeconds":0,"powerWatts":[1]}`,
		"more than 240 steps": `{"from":"2026-11-01T12:00:00Z","stepSeconds":1,"powerWatts":[1` + strings.Repeat(",1", 240) + `]}`,
		"no start":            `{"stepSeconds":1,"powerWatts":[1]}`,
		"a text":              `{"from":"2026-11-01T12:00:00Z","stepSeconds":1,"powerWatts":["1"]}`,
	} {
		if status, text := tell(`{"gpus":[{"uuid":"GPU-1","series":` + bad + `}]}`); status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
}
