// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/web"
	"github.com/spotbench/spotbench/pkg/risk"
)

func get(t *testing.T, s *shelf, path string) (int, http.Header, string) {
	t.Helper()
	var log strings.Builder
	handler := web.New(s, risk.Book{}, slog.New(slog.NewTextHandler(&log, nil)))
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	if strings.Contains(log.String(), "rendered") {
		t.Error(log.String())
	}
	return recorder.Code, recorder.Header(), recorder.Body.String()
}

func TestTheListShowsEachRunWithItsCostAndWhatIsWrongWithIt(t *testing.T) {
	status, header, body := get(t, &shelf{runs: runs()}, "/")
	if status != http.StatusOK || !strings.HasPrefix(header.Get("Content-Type"), "text/html") {
		t.Fatalf("status %d, type %q; want a page", status, header.Get("Content-Type"))
	}
	// Qwen: 21 min at 14.20 and 35.6 min at 7.90 are 4.97 + 4.69 = 9.66; on demand
	// 21 min at 49.10 and 35.6 min at 20.48 are 17.19 + 12.15, less 1.9 s that were lost: 29.31, 67 %
	// saved.
	for _, want := range []string{"Qwen/Qwen2.5-72B-Instruct", "/runs/gpu-workloads%2Fqwen-sharegpt-5f0c21aa", "4× A100-80GB", "<li>h100-spot-0</li><li>a100-spot-0</li>",
		"1.9 s lost", "$9.66", "−67 %", "$29.31", "Measured on GPUs of more than one model: concurrency 16.", "58 min 00 s",
		`<span class="pill running">running</span>`, `<span class="verdict valid">valid</span>`} {
		if !strings.Contains(body, want) {
			t.Errorf("the list lacks %q", want)
		}
	}
}

func TestARunsPageShowsWhereItRanHowItWasInterruptedAndWhatItMeasured(t *testing.T) {
	status, _, body := get(t, &shelf{runs: runs()}, "/runs/gpu-workloads%2Fqwen-sharegpt-5f0c21aa")
	if status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	// The first segment is 21 of 58 minutes: 36.21 % of the width; the notice is at 20: 34.48 %.
	for _, want := range []string{`width="36.21%"`, `x1="34.48%"`, "Interruption 1: spot notice on h100-spot-0", "<b>running again</b><span>+2 min 24 s</span>",
		"<b>tainted</b><span>+0.3 s</span>", "46.1 MiB", "mixed GPUs", "612", "cheapest of 2 feasible nodes", "sha256:8d1d5f2c2b0f", "GPU-0a9b8c7d-6e5f-4a3b-9c2d-1e0f9a8b7c6d"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if a, b := strings.Index(body, ">1<"), strings.Index(body, ">16<"); a < 0 || b < a {
		t.Errorf("concurrency 1 is at %d and 16 at %d; want the lightest load first", a, b)
	}
}

func TestEveryRunOfEveryStateHasAPage(t *testing.T) {
	s := &shelf{runs: runs()}
	for _, run := range s.runs {
		if status, _, body := get(t, s, web.PathOf(run.Key)); status != http.StatusOK || !strings.Contains(body, "</html>") {
			t.Errorf("%s: status %d, want a whole page", run.Key, status)
		}
	}
	bare := &shelf{runs: []catalog.Detail{catalog.Describe(catalog.Parts{Run: catalog.Run{Key: "ns/bare"}}, noon)}}
	for _, path := range []string{"/", "/runs/ns%2Fbare"} {
		if status, _, body := get(t, bare, path); status != http.StatusOK || !strings.Contains(body, "bare") {
			t.Errorf("%s of a run of which only the key is known: status %d, want a page", path, status)
		}
	}
}

func TestWhatPodsSayIsTextAndNeverMarkup(t *testing.T) {
	const evil = `<script>alert(1)</script>`
	d := catalog.Describe(catalog.Parts{
		Run:      catalog.Run{Key: "ns/x", Model: evil, Benchmark: evil, PlacementReason: evil, Node: `"onload="x`, Status: catalog.Succeeded},
		Segments: []catalog.Segment{{Node: evil, GPUModel: evil, CapacityType: "spot", StartedAt: noon, EndedAt: at(1)}},
		Results:  []catalog.Result{{File: evil}},
	}, at(2))
	for _, path := range []string{"/", "/runs/ns%2Fx", "/?model=%3Cscript%3Ealert(1)%3C/script%3E"} {
		_, header, body := get(t, &shelf{runs: []catalog.Detail{d}}, path)
		if strings.Contains(body, "<script") || strings.Contains(body, `"onload="`) {
			t.Errorf("%s has a script of a pod's making", path)
		}
		if csp := header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
			t.Errorf("%s: Content-Security-Policy %q, want one that allows no script", path, csp)
		}
	}
}

func TestThePagesNeedNothingFromElsewhereAndNoScript(t *testing.T) {
	s := &shelf{runs: runs()}
	for _, path := range []string{"/", "/runs/gpu-workloads%2Fqwen-sharegpt-5f0c21aa"} {
		_, _, body := get(t, s, path)
		for _, bad := range []string{"http://", "https://", "//cdn", "<script", " style=", "ZgotmplZ", "%!", "<nil>"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s has %q", path, bad)
			}
		}
		if len(body) > 150<<10 {
			t.Errorf("%s has %d bytes, want at most 150 KiB", path, len(body))
		}
	}
	for _, asset := range []string{"/assets/style.css", "/assets/icon.svg"} {
		if status, _, body := get(t, s, asset); status != http.StatusOK || body == "" {
			t.Errorf("%s: status %d", asset, status)
		}
	}
	if status, _, _ := get(t, s, "/assets/..%2Fweb.go"); status == http.StatusOK {
		t.Error("a file outside the assets is served")
	}
}

func TestAFilterAndThePagesOfTheListKeepEachOther(t *testing.T) {
	_, _, body := get(t, &shelf{runs: runs(), next: "abc="}, "/?status=succeeded&model=Qwen%2FQwen2.5-72B-Instruct")
	for _, want := range []string{`<option value="succeeded" selected>`, `<option value="Qwen/Qwen2.5-72B-Instruct" selected>`, "model=Qwen%2FQwen2.5-72B-Instruct", "pageToken=abc%3D", "status=succeeded"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(body, "pill running") {
		t.Error("a running run is listed among those that succeeded")
	}
	if _, _, body := get(t, &shelf{}, "/?status=failed"); !strings.Contains(body, "No run matches") {
		t.Error("an empty answer to a filter does not say so")
	}
}

func TestWhatCannotBeShownIsSaidWithItsStatus(t *testing.T) {
	tests := map[string]struct {
		shelf  *shelf
		path   string
		status int
		text   string
	}{
		"a run that is not there":         {&shelf{}, "/runs/ns%2Fgone", http.StatusNotFound, "ns/gone"},
		"a page token that is none":       {&shelf{err: catalog.ErrInvalid}, "/?pageToken=x", http.StatusBadRequest, "not understood"},
		"a database that does not answer": {&shelf{err: errors.New("dial unix /run/secret-path: no route")}, "/", http.StatusServiceUnavailable, "cannot be read now"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			status, _, body := get(t, tt.shelf, tt.path)
			if status != tt.status || !strings.Contains(body, tt.text) {
				t.Errorf("status %d, want %d with %q", status, tt.status, tt.text)
			}
			if strings.Contains(body, "secret-path") {
				t.Error("the page shows the inside of the server")
			}
		})
	}
}

func TestAComparisonOfMuchAndAListOfManyChoicesStayShort(t *testing.T) {
	s := &shelf{}
	for n := range 8 {
		s.runs = append(s.runs, sweep(fmt.Sprintf("run-%d", n), fmt.Sprintf("GPU-%d", n), "1", 3.6, 9.8, float64(n+1)))
	}
	many := s.runs[0]
	for n := range 600 {
		point := many.Results[0]
		point.Concurrency = ptr(int64(1000 + n))
		many.Results = append(many.Results, point)
	}
	s.runs = append(s.runs, many)
	for path, want := range map[string]string{
		"/compare?model=x&by=gpuModel": `aria-current="page">concurrency 1<`, "/compare?by=gpuModel&load=3": `aria-current="page">concurrency 8<`,
		"/pareto?model=" + sweepModel: "more choices are in the JSON", web.PathOfModel(sweepModel): "more choices are in the JSON",
	} {
		if strings.Contains(path, "model=x") {
			path = strings.Replace(path, "x", sweepModel, 1)
		}
		status, _, body := get(t, s, path)
		if status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: status %d, want a page with %q", path, status, want)
		}
		if len(body) > 150<<10 {
			t.Errorf("%s has %d bytes, want at most 150 KiB", path, len(body))
		}
	}
}

func TestEveryPageShowsWhatItIsForAndWhereItIsInTheNavigation(t *testing.T) {
	s := furnished()
	for path, want := range map[string][]string{
		"/models": {sweepModel, `href="/models/meta-llama%2FLlama-3.1-8B-Instruct"`, `href="/models" aria-current="page"`},
		// From the version 0.10.2 to 0.11.0 the speed is 0.88 of what it was.
		web.PathOfModel(sweepModel): {"Newer versions made worse", "from 0.10.2 to 0.11.0", "−12.0 %", "1× A100-80GB", "frontier", "<svg"},
		"/compare":                  {"Two to eight configurations"},
		"/compare?by=gpuModel&model=" + sweepModel:                                               {"<b>A</b>", "better", "p &lt; 0.001", "As JSON"},
		"/compare?run=gpu-workloads/llama-8b-h100-0-10-0&run=gpu-workloads/llama-8b-a100-0-11-0": {"untested", "1 run, no interval"},
		"/pareto":  {"choices are on the frontier of throughput, latency, cost", "concurrency 32"},
		"/fleet":   {"h100-spot-0", "taken back", "at risk", "gpu-workloads/llama-70b-throughput-0b7d9e11"},
		"/savings": {"Qwen/Qwen2.5-72B-Instruct", "$9.66", "−67 %"},
		"/runs/gpu-workloads%2Fllama-8b-h100-0-10-0": {"What a million output tokens cost", "price book, 2026-11-01", "1 h × $3.60"},
	} {
		status, _, body := get(t, s, path)
		if status != http.StatusOK {
			t.Errorf("%s: status %d", path, status)
		}
		for _, part := range want {
			if !strings.Contains(body, part) {
				t.Errorf("%s lacks %q", path, part)
			}
		}
		for _, bad := range []string{"http://", "https://", "<script", " style=", "ZgotmplZ", "%!", "&lt;nil"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s has %q", path, bad)
			}
		}
		if len(body) > 150<<10 {
			t.Errorf("%s has %d bytes, want at most 150 KiB", path, len(body))
		}
	}
	for path, want := range map[string]int{"/models/none": 404, "/compare?by=colour": 400, "/compare?by=model&verdict=good": 400, "/savings?by=colour": 400, "/pareto?latency=long": 400, "/compare?run=gpu-workloads/llama-8b-h100-0-10-0": 400} {
		if status, _, body := get(t, s, path); status != want || !strings.Contains(body, "</html>") {
			t.Errorf("%s: status %d, want a page with %d", path, status, want)
		}
	}
}
