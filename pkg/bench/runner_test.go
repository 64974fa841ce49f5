// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/bench"
	"github.com/spotbench/spotbench/pkg/bench/progress"
	"github.com/spotbench/spotbench/pkg/bench/report"
	"github.com/spotbench/spotbench/pkg/simllm"
)

var quiet = slog.New(slog.DiscardHandler)

// server is the simulated model with a hook before every completion; a hook that
// answers itself returns true.
func server(t testing.TB, pace simllm.Pace, before func(http.ResponseWriter, *http.Request) bool) string {
	t.Helper()
	sim, err := simllm.New(simllm.Config{Model: "m", Pace: pace, MaxConcurrency: 64}, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || !before(w, r) {
			sim.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func options(t testing.TB, url string) bench.Options {
	t.Helper()
	return bench.Options{
		Config: progress.Config{
			Model: "m", Benchmark: "b", Endpoint: "completions", Concurrency: []int{1, 3}, Requests: 7, Warmup: 2, InputTokens: 4, OutputTokens: 3, Seed: 1,
		},
		BaseURL: url, CheckpointDir: t.TempDir(), ResultsDir: t.TempDir(), WaitReady: 10 * time.Second, RequestTimeout: 10 * time.Second,
		MaxFailures: 3, Node: "n", GPUModel: "L4-24GB",
	}
}

// run is one process's life.
func run(ctx context.Context, opts bench.Options) error {
	r, err := bench.New(opts, quiet, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	return errors.Join(r.Run(ctx), r.Close())
}

func result(t interface{ Fatal(...any) }, opts bench.Options, concurrency int) (report.Result, []byte) {
	content, err := os.ReadFile(filepath.Join(opts.ResultsDir, report.Name(opts.Benchmark, concurrency)))
	if err != nil {
		t.Fatal(err)
	}
	var r report.Result
	if err := json.Unmarshal(content, &r); err != nil {
		t.Fatal(err)
	}
	return r, content
}

// However often a run is stopped, and wherever the copy of its checkpoint was cut off, every
// request is measured exactly once and no warm-up is.
func TestEveryRequestIsMeasuredExactlyOnceWhateverTheInterruptions(t *testing.T) {
	var budget atomic.Int64
	var interrupt atomic.Pointer[context.CancelFunc]
	url := server(t, simllm.Pace{}, func(http.ResponseWriter, *http.Request) bool {
		if budget.Add(-1) == 0 {
			(*interrupt.Load())()
		}
		return false
	})
	base := options(t, url)
	rapid.Check(t, func(rt *rapid.T) {
		opts := base
		var err error
		if opts.CheckpointDir, err = os.MkdirTemp(base.CheckpointDir, ""); err != nil {
			rt.Fatal(err)
		}
		if opts.ResultsDir, err = os.MkdirTemp(base.ResultsDir, ""); err != nil {
			rt.Fatal(err)
		}
		opts.Concurrency = rapid.SliceOfNDistinct(rapid.IntRange(1, 5), 1, 3, rapid.ID[int]).Draw(rt, "concurrency")
		opts.Requests = rapid.IntRange(1, 9).Draw(rt, "requests")
		opts.Warmup = rapid.IntRange(0, 3).Draw(rt, "warmup")
		for _, after := range rapid.SliceOfN(rapid.IntRange(1, 20), 0, 4).Draw(rt, "interruptions") {
			ctx, cancel := context.WithCancel(context.Background())
			interrupt.Store(&cancel)
			budget.Store(int64(after))
			err := run(ctx, opts)
			cancel()
			if err != nil && !errors.Is(err, bench.ErrInterrupted) {
				rt.Fatal(err)
			}
			path := filepath.Join(opts.CheckpointDir, progress.FileName)
			info, err := os.Stat(path)
			if err != nil {
				rt.Fatal(err)
			}
			if err := os.Truncate(path, rapid.Int64Range(0, info.Size()).Draw(rt, "kept bytes")); err != nil {
				rt.Fatal(err)
			}
		}
		budget.Store(-1)
		if err := run(context.Background(), opts); err != nil {
			rt.Fatal(err)
		}
		for _, c := range opts.Concurrency {
			r, _ := result(rt, opts, c)
			if r.Completed != opts.Requests || len(r.TTFTs) != opts.Requests || r.TotalOutputTokens != 3*opts.Requests {
				rt.Fatalf("concurrency %d: completed %d, %d ttfts, %d output tokens; want %d requests of 3 tokens", c, r.Completed, len(r.TTFTs), r.TotalOutputTokens, opts.Requests)
			}
			sum := 0
			for _, s := range r.Spotbench.Segments {
				sum += s.Completed
				if s.Completed == 0 || s.End.Before(s.Start) {
					rt.Fatalf("segment %+v", s)
				}
			}
			if sum != opts.Requests || r.Spotbench.Resumed != (len(r.Spotbench.Segments) > 1) {
				rt.Fatalf("concurrency %d: segments %+v", c, r.Spotbench.Segments)
			}
		}
	})
}

func TestAFinishedRunGivesTheSameBytesAgainWithoutAskingTheServer(t *testing.T) {
	opts := options(t, server(t, simllm.Pace{TTFT: time.Millisecond, ITL: time.Millisecond}, func(http.ResponseWriter, *http.Request) bool { return false }))
	if err := run(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	_, first := result(t, opts, 3)
	opts.ResultsDir = t.TempDir() // another node: the volume of results is empty
	opts.BaseURL = "http://127.0.0.1:1"
	if err := run(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	if _, again := result(t, opts, 3); !bytes.Equal(first, again) {
		t.Errorf("the result differs:\n%s\n%s", first, again)
	}
}

func TestTheMeasurementsAreThePaceOfTheServer(t *testing.T) {
	opts := options(t, server(t, simllm.Pace{TTFT: 40 * time.Millisecond, ITL: 20 * time.Millisecond}, func(http.ResponseWriter, *http.Request) bool { return false }))
	opts.Concurrency, opts.Requests, opts.Endpoint = []int{2}, 4, "chat"
	if err := run(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	r, _ := result(t, opts, 2)
	// A token cannot come before its time; how late it may be depends on the machine.
	// 40 + 2×20 = 80 ms a request; two rounds of two requests take 160 ms.
	if r.MedianTTFT < 40 || r.MedianTTFT > 200 || r.MedianE2EL < 80 || r.MedianE2EL > 400 || r.Duration < 0.16 {
		t.Errorf("ttft %v ms, e2el %v ms, duration %v s", r.MedianTTFT, r.MedianE2EL, r.Duration)
	}
	if r.TotalInputTokens != 4*4 || r.TotalOutputTokens != 4*3 || r.Backend != "openai-chat" || r.Spotbench.SystemFingerprints[0] != simllm.Fingerprint {
		t.Errorf("input %d, output %d, backend %s, %v", r.TotalInputTokens, r.TotalOutputTokens, r.Backend, r.Spotbench.SystemFingerprints)
	}
}

func TestFailedRequestsAreSentAgainUntilTooManyHaveFailed(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		status int
		want   string
	}{
		"the server refuses":                    {`{"error":{"message":"out of memory"}}`, 500, "out of memory"},
		"the stream stops half-way":             {"data: {\"choices\":[{\"text\":\"a\"}]}\n\n", 200, "the stream ended after 1 chunks"},
		"the stream has an error inside":        {"data: {\"error\":{\"message\":\"engine died\"}}\n\n", 200, "engine died"},
		"the stream has no token":               {"data: [DONE]\n\n", 200, "no token"},
		"the stream is something else entirely": {"data: <html>\n\n", 200, "not JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			var calls, failing atomic.Int64
			url := server(t, simllm.Pace{}, func(w http.ResponseWriter, _ *http.Request) bool {
				if n := calls.Add(1); n <= 2 || n > failing.Load() { // the two of the warm-up are well
					return false
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.answer)
				return true
			})
			opts := options(t, url)
			opts.Concurrency, opts.MaxFailures = []int{1}, 1
			failing.Store(3)
			if err := run(t.Context(), opts); err != nil {
				t.Fatalf("one failure of the one allowed: %v", err)
			}
			if r, _ := result(t, opts, 1); r.Completed != 7 || r.Spotbench.FailedAttempts != 1 {
				t.Errorf("completed %d with %d failed attempts, want 7 with 1", r.Completed, r.Spotbench.FailedAttempts)
			}
			opts.CheckpointDir = t.TempDir()
			calls.Store(0)
			failing.Store(1000)
			err := run(t.Context(), opts)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "--max-failures 1") {
				t.Errorf("got %v, want an error with %q and --max-failures 1", err, c.want)
			}
		})
	}
}

func TestTheServerIsWaitedForAndAWrongModelIsNot(t *testing.T) {
	opts := options(t, "http://127.0.0.1:1")
	opts.WaitReady = 700 * time.Millisecond
	if err := run(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "not ready within --wait-ready 700ms") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("no server: %v", err)
	}
	opts = options(t, server(t, simllm.Pace{}, func(http.ResponseWriter, *http.Request) bool { return false }))
	opts.Model = "other"
	if err := run(t.Context(), opts); err == nil || !strings.Contains(err.Error(), `"other"`) || !strings.Contains(err.Error(), `["m"]`) {
		t.Errorf("wrong model: %v", err)
	}
}

// Warm-up, measured and repeated prompts: none may be another's, or a prefix cache measures itself.
func TestNoTwoPromptsAreTheSame(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	opts := options(t, server(t, simllm.Pace{}, func(_ http.ResponseWriter, r *http.Request) bool {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		mu.Lock()
		defer mu.Unlock()
		seen[string(body)]++
		return false
	}))
	if err := run(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	if want := 2 * (7 + 2); len(seen) != want { // levels × (measured + warm-up)
		t.Errorf("%d different prompts, want %d", len(seen), want)
	}
}

func TestWrongOptionsAreNamedWithTheirValueAndARightOne(t *testing.T) {
	for want, change := range map[string]func(*bench.Options){
		`--base-url "localhost:8080": must be an http or https address`:   func(o *bench.Options) { o.BaseURL = "localhost:8080" },
		`--model "": name the model`:                                      func(o *bench.Options) { o.Model = "" },
		`--benchmark "a/b": must be a name`:                               func(o *bench.Options) { o.Benchmark = "a/b" },
		`--endpoint "embeddings": must be completions or chat`:            func(o *bench.Options) { o.Endpoint = "embeddings" },
		`--concurrency 0: must be between 1 and 4096, for example 1,4,16`: func(o *bench.Options) { o.Concurrency = []int{0} },
		`--concurrency 4: is there twice`:                                 func(o *bench.Options) { o.Concurrency = []int{4, 4} },
		`--requests 0: must be between 1`:                                 func(o *bench.Options) { o.Requests = 0 },
		`--warmup -1: must be between 0`:                                  func(o *bench.Options) { o.Warmup = -1 },
		`--output-tokens 0: must be between 1`:                            func(o *bench.Options) { o.OutputTokens = 0 },
		`--checkpoint-dir "": name a directory, for example /checkpoint`:  func(o *bench.Options) { o.CheckpointDir = "" },
		`must not be the checkpoint directory`:                            func(o *bench.Options) { o.ResultsDir = o.CheckpointDir },
		`--wait-ready 0s: must be more than 0`:                            func(o *bench.Options) { o.WaitReady = 0 },
		`--results-dir "/does/not/exist": not a directory`:                func(o *bench.Options) { o.ResultsDir = "/does/not/exist" },
		`--checkpoint-dir "/does/not/exist": open`:                        func(o *bench.Options) { o.CheckpointDir = "/does/not/exist" },
	} {
		opts := options(t, "http://127.0.0.1:1")
		change(&opts)
		if _, err := bench.New(opts, quiet, prometheus.NewRegistry()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
