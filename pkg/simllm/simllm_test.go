// SPDX-License-Identifier: Apache-2.0

package simllm_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/spotbench/spotbench/pkg/simllm"
)

func serve(t *testing.T, cfg simllm.Config) string {
	t.Helper()
	handler, err := simllm.New(cfg, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.URL
}

func call(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(content)
}

func TestItSaysThatItIsSimulatedWhereverItCan(t *testing.T) {
	url := serve(t, simllm.Config{Model: "m", MaxConcurrency: 1})
	for name, c := range map[string][3]string{
		"the list of models":    {"GET", "/v1/models", ""},
		"an answer":             {"POST", "/v1/completions", `{"model":"m","prompt":"a b"}`},
		"every streamed answer": {"POST", "/v1/chat/completions", `{"model":"m","stream":true,"messages":[{"role":"user","content":"a"}]}`},
	} {
		if status, body := call(t, c[0], url+c[1], c[2]); status != http.StatusOK || !strings.Contains(body, "SIMULATED") {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
}

func TestAStreamHasItsTokensThenTheCountsThenItsEnd(t *testing.T) {
	url := serve(t, simllm.Config{Model: "m", MaxConcurrency: 1})
	_, body := call(t, "POST", url+"/v1/completions", `{"model":"m","prompt":"one two three","max_tokens":2,"stream":true,"stream_options":{"include_usage":true}}`)
	events := strings.Split(strings.TrimSuffix(body, "\n\n"), "\n\n")
	if len(events) != 4 {
		t.Fatalf("%d events, want 2 tokens, the counts and the end:\n%s", len(events), body)
	}
	for i, want := range []string{`"finish_reason":null`, `"finish_reason":"length"`, `"usage":{"completion_tokens":2,"prompt_tokens":3,"total_tokens":5}`, "data: [DONE]"} {
		if !strings.Contains(events[i], want) {
			t.Errorf("event %d lacks %s: %s", i, want, events[i])
		}
	}
	if !strings.Contains(events[2], `"choices":[]`) {
		t.Errorf("the counts' event has choices: %s", events[2])
	}
}

func TestRequestsBeyondTheConcurrencyWait(t *testing.T) {
	// One slot, 50 ms a request (one token): two take 100 ms at least.
	url := serve(t, simllm.Config{Model: "m", MaxConcurrency: 1, Pace: simllm.Pace{TTFT: 50 * time.Millisecond}})
	start := time.Now()
	done := make(chan int, 2)
	for range 2 {
		go func() {
			resp, err := http.Post(url+"/v1/completions", "application/json", strings.NewReader(`{"model":"m","max_tokens":1}`))
			if err != nil {
				done <- 0
				return
			}
			resp.Body.Close()
			done <- resp.StatusCode
		}()
	}
	if a, b := <-done, <-done; a != http.StatusOK || b != http.StatusOK {
		t.Fatalf("status %d and %d", a, b)
	}
	if took := time.Since(start); took < 100*time.Millisecond {
		t.Errorf("two requests took %v together, want 100 ms at least", took)
	}
}

func TestAClientThatGoesAwayFreesItsSlot(t *testing.T) {
	url := serve(t, simllm.Config{Model: "m", MaxConcurrency: 1, Pace: simllm.Pace{ITL: 20 * time.Millisecond}})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/completions", strings.NewReader(`{"model":"m","max_tokens":100000,"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body) // until the context ends it
		resp.Body.Close()
	}
	if status, body := call(t, "POST", url+"/v1/completions", `{"model":"m","max_tokens":1}`); status != http.StatusOK {
		t.Errorf("after it: %d %s", status, body)
	}
}

func TestWrongRequestsAreRefusedWithWhatIsWrong(t *testing.T) {
	url := serve(t, simllm.Config{Model: "m", MaxConcurrency: 1})
	for name, c := range map[string]struct {
		path, body string
		status     int
		want       string
	}{
		"another model": {"/v1/completions", `{"model":"x"}`, 404, `this server simulates \"m\"`},
		"no JSON":       {"/v1/completions", `{`, 400, "not the JSON of a completion"},
		"no tokens":     {"/v1/completions", `{"model":"m","max_tokens":0}`, 400, "max_tokens 0: must be between 1"},
		"another path":  {"/v1/embeddings", `{}`, 404, "no POST /v1/embeddings here"},
	} {
		if status, body := call(t, "POST", url+c.path, c.body); status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s, want %d with %q", name, status, body, c.status, c.want)
		}
	}
}

func TestThePaceOfAGPUIsTheTablesOrTheGeneralOne(t *testing.T) {
	paces, err := simllm.ParseGPUPaces("H100-80GB=8ms, L4-24GB=30ms")
	if err != nil {
		t.Fatal(err)
	}
	got := []time.Duration{paces.For("H100-80GB", time.Second), paces.For("L4-24GB", time.Second), paces.For("T4-16GB", time.Second)}
	if diff := cmp.Diff([]time.Duration{8 * time.Millisecond, 30 * time.Millisecond, time.Second}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for value, want := range map[string]string{
		"H100-80GB":      "is not MODEL=DURATION",
		"H100-80GB=8":    `"8" is not a duration`,
		"H100-80GB=-1ms": "must be between 0 and 1m0s",
		"A=1ms,A=2ms":    "A is there twice",
		"H100-80GB=8ms,": "is not MODEL=DURATION",
	} {
		if _, err := simllm.ParseGPUPaces(value); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", value, err, want)
		}
	}
}

func FuzzGPUPacesReadBackAsTheyAreWritten(f *testing.F) {
	f.Add("H100-80GB=8ms,A100-80GB=12ms")
	f.Add("a=1h, b=2us")
	f.Fuzz(func(t *testing.T, value string) {
		paces, err := simllm.ParseGPUPaces(value)
		if err != nil {
			return
		}
		again, err := simllm.ParseGPUPaces(paces.String())
		if err != nil {
			t.Fatalf("%q is written as %q, which is not read: %v", value, paces.String(), err)
		}
		if diff := cmp.Diff(paces, again); diff != "" {
			t.Fatalf("(-first +again):\n%s", diff)
		}
	})
}

func TestWrongConfigurationsAreNamedWithTheirValueAndARightOne(t *testing.T) {
	for want, cfg := range map[string]simllm.Config{
		`--model "": name the model`:             {MaxConcurrency: 1},
		`--max-concurrency 0: must be between 1`: {Model: "m"},
		`--ttft -1s: must be between 0`:          {Model: "m", MaxConcurrency: 1, Pace: simllm.Pace{TTFT: -time.Second}},
		`--itl 2m0s: must be between 0 and 1m0s`: {Model: "m", MaxConcurrency: 1, Pace: simllm.Pace{ITL: 2 * time.Minute}},
	} {
		if _, err := simllm.New(cfg, prometheus.NewRegistry()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
