// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/spotbench/spotbench/pkg/bench/progress"
	"github.com/spotbench/spotbench/pkg/bench/report"
)

var config = progress.Config{
	Model: "m", Benchmark: "b", Endpoint: "completions", Concurrency: []int{2}, Requests: 3, InputTokens: 10, OutputTokens: 3,
}

const ms = int64(time.Millisecond)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// A run interrupted after its requests 0 and 2 on an H100 (2 s), which did request 1 an hour
// later on an A100 (1.5 s).
func interrupted() []progress.Segment {
	return []progress.Segment{
		{
			Window: progress.Window{Concurrency: 2, Start: start, Node: "h", GPUModel: "H100-80GB", GPUUUIDs: []string{"GPU-1"}},
			Requests: []progress.Request{
				{ID: 2, EndedNS: 2000 * ms, TTFTNS: 300 * ms, LatencyNS: 500 * ms, ITLNS: []int64{100 * ms, 100 * ms}, Input: 10, Output: 3},
				{ID: 0, EndedNS: 1000 * ms, TTFTNS: 100 * ms, LatencyNS: 200 * ms, ITLNS: []int64{50 * ms, 50 * ms}, Input: 10, Output: 3},
			},
		},
		{
			Window: progress.Window{Concurrency: 2, Start: start.Add(time.Hour), Node: "a", GPUModel: "A100-80GB"},
			Requests: []progress.Request{
				{ID: 1, EndedNS: 1500 * ms, TTFTNS: 200 * ms, LatencyNS: 200 * ms, Input: 10, Output: 1},
			},
		},
	}
}

var near = cmpopts.EquateApprox(0, 1e-9)

func TestAResultMergesItsSegmentsByVLLMsDefinitions(t *testing.T) {
	r := report.Of(config, 2, interrupted(), 4)
	want := report.Measures{
		Duration:             3.5, // 2 s + 1.5 s: the hour between them is not measuring
		Completed:            3,
		TotalInputTokens:     30,
		TotalOutputTokens:    7,       // 3 + 3 + 1
		RequestThroughput:    3 / 3.5, // requests by active seconds
		OutputThroughput:     2,       // 7 / 3.5
		TotalTokenThroughput: 37 / 3.5,
	}
	if diff := cmp.Diff(want, r.Measures, near); diff != "" {
		t.Errorf("measures (-want +got):\n%s", diff)
	}
	wantLatencies := report.Latencies{
		// 100, 200, 300: std √((100² + 0 + 100²)/3); p99 at position 1.98 of 0..2.
		MeanTTFT: 200, MedianTTFT: 200, StdTTFT: math.Sqrt(20000.0 / 3), P99TTFT: 298,
		// (200−100)/2 = 50 and (500−300)/2 = 100; a single token has no TPOT. p99 at 0.99 of 50..100.
		MeanTPOT: 75, MedianTPOT: 75, StdTPOT: 25, P99TPOT: 99.5,
		// 50, 50, 100, 100: p99 at position 2.97, between the third and the fourth, both 100.
		MeanITL: 75, MedianITL: 75, StdITL: 25, P99ITL: 100,
		// 200, 200, 500: mean 300, std √((100² + 100² + 200²)/3); p99 at 1.98: 200 + 0.98×300.
		MeanE2EL: 300, MedianE2EL: 200, StdE2EL: math.Sqrt(20000), P99E2EL: 494,
	}
	if diff := cmp.Diff(wantLatencies, r.Latencies, near); diff != "" {
		t.Errorf("latencies (-want +got):\n%s", diff)
	}
	if !slices.Equal(r.TTFTs, []float64{0.1, 0.2, 0.3}) || !slices.Equal(r.OutputLens, []int{3, 1, 3}) {
		t.Errorf("lists are not in the order of ids: ttfts %v, output_lens %v", r.TTFTs, r.OutputLens)
	}
	if r.Date != "20260102-040406" {
		t.Errorf("date %s, want that of the last finished request", r.Date)
	}
}

func TestAResultSaysWhereItWasMeasuredAndKeepsModelsOfGPUApart(t *testing.T) {
	got := report.Of(config, 2, interrupted(), 4).Spotbench
	if !got.Resumed || !got.MixedGPU || got.FailedAttempts != 4 {
		t.Errorf("resumed %v, mixedGPU %v, failedAttempts %d; want true, true, 4", got.Resumed, got.MixedGPU, got.FailedAttempts)
	}
	want := []report.Segment{
		{Node: "h", GPUModel: "H100-80GB", GPUUUIDs: []string{"GPU-1"}, Start: start, End: start.Add(2 * time.Second), Completed: 2},
		{Node: "a", GPUModel: "A100-80GB", GPUUUIDs: []string{}, Start: start.Add(time.Hour), End: start.Add(time.Hour + 1500*time.Millisecond), Completed: 1},
	}
	if diff := cmp.Diff(want, got.Segments); diff != "" {
		t.Errorf("segments (-want +got):\n%s", diff)
	}
	h, a := got.PerGPU["H100-80GB"], got.PerGPU["A100-80GB"]
	if h.Completed != 2 || h.OutputThroughput != 3 /* 6 tokens / 2 s */ || h.MeanTTFT != 200 || a.Completed != 1 || a.MeanTTFT != 200 || a.MeanTPOT != 0 {
		t.Errorf("perGPU: %+v", got.PerGPU)
	}

	whole := report.Of(config, 2, interrupted()[:1], 0).Spotbench
	if whole.Resumed || whole.MixedGPU || whole.PerGPU != nil {
		t.Errorf("one segment: %+v, want neither resumed nor mixed", whole)
	}
}

// The keys of a result that `vllm bench serve` wrote, less generated_texts.
var vllmKeys = []string{
	"date", "backend", "model_id", "tokenizer_id", "best_of", "num_prompts", "request_rate", "burstiness", "max_concurrency", "duration",
	"completed", "total_input_tokens", "total_output_tokens", "request_throughput", "request_goodput:", "output_throughput",
	"total_token_throughput", "input_lens", "output_lens", "ttfts", "itls", "errors",
	"mean_ttft_ms", "median_ttft_ms", "std_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "median_tpot_ms", "std_tpot_ms", "p99_tpot_ms",
	"mean_itl_ms", "median_itl_ms", "std_itl_ms", "p99_itl_ms", "mean_e2el_ms", "median_e2el_ms", "std_e2el_ms", "p99_e2el_ms",
}

func TestAResultHasVLLMsKeysAndOneOfOurs(t *testing.T) {
	content, err := report.Of(config, 2, interrupted(), 0).Encode()
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(content, &fields); err != nil {
		t.Fatal(err)
	}
	want := slices.Sorted(slices.Values(append(slices.Clone(vllmKeys), "spotbench")))
	var got []string
	for key := range fields {
		got = append(got, key)
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

func TestTheSameResultIsNotWrittenTwiceAndLeavesNoOtherFile(t *testing.T) {
	dir := t.TempDir()
	for i, want := range []bool{true, false} {
		written, err := report.Write(dir, "b-c1.json", []byte("{}\n"))
		if err != nil || written != want {
			t.Errorf("write %d: written %v, %v; want %v", i+1, written, err, want)
		}
	}
	if written, err := report.Write(dir, "b-c1.json", []byte("{\"a\":1}\n")); err != nil || !written {
		t.Errorf("other content: written %v, %v; want true", written, err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("files: %v, %v", files, err)
	}
	if content, _ := os.ReadFile(filepath.Join(dir, "b-c1.json")); string(content) != "{\"a\":1}\n" {
		t.Errorf("content %q", content)
	}
}
