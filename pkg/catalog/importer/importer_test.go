// SPDX-License-Identifier: Apache-2.0

package importer_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/importer"
)

func ptr[T any](v T) *T { return &v }

const minimal = `{"model_id":"org/m","num_prompts":10,"completed":10,"duration":2}`

func TestParseReadsWhatVLLMWrites(t *testing.T) {
	file := `{"date": "20251111-140207", "backend": "openai", "model_id": "org/m", "tokenizer_id": "org/t", "best_of": 1,
	 "num_prompts": 10, "request_rate": "inf", "burstiness": 1.0, "max_concurrency": 4, "duration": 2.5, "completed": 8,
	 "total_input_tokens": 100, "total_output_tokens": 200, "request_throughput": 3.2, "request_goodput:": null, "output_throughput": 80,
	 "total_token_throughput": 120, "input_lens": [10, 20], "itls": [[0.1], []], "generated_texts": ["secret NaN", "[{"], "errors": ["", "boom", ""],
	 "mean_ttft_ms": 12.5, "median_ttft_ms": 12, "std_ttft_ms": 1, "p99_ttft_ms": 20, "p95_ttft_ms": 18, "p99.9_ttft_ms": 21,
	 "mean_tpot_ms": NaN, "median_tpot_ms": Infinity, "p99_tpot_ms": -Infinity,
	 "spotbench": {"segments":[{"node":"n0","gpuModel":"A100-80GB","gpuUUIDs":["GPU-1"],"start":"2026-01-01T00:00:00Z","end":"2026-01-01T00:01:00Z","completed":8}],"resumed":true,"mixedGPU":false,"warmup":3}}`
	got, err := importer.Parse("r.json", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	want := importer.Parsed{Format: "vllm", Results: []catalog.Result{{
		Tool: "vllm bench serve", Model: "org/m", Tokenizer: "org/t", Backend: "openai", LocalDate: "20251111-140207",
		Concurrency: ptr[int64](4), Burstiness: ptr(1.0), Requests: 10, Completed: 8,
		Failed:          2, // 10 asked for - 8 completed, more than the one whose error is told
		DurationSeconds: 2.5, InputTokens: 100, OutputTokens: 200,
		RequestThroughput: ptr(3.2), OutputThroughput: ptr(80.0), TotalTokenThroughput: ptr(120.0),
		TTFT: &catalog.Latency{MeanMs: ptr(12.5), MedianMs: ptr(12.0), StdMs: ptr(1.0), P99Ms: ptr(20.0), PercentilesMs: map[string]float64{"p95": 18, "p99.9": 21}},
		Spotbench: &catalog.Provenance{Resumed: true, Other: map[string]any{"warmup": 3.0},
			Segments: []catalog.MeasuredOn{{Node: "n0", GPUModel: "A100-80GB", GPUUUIDs: []string{"GPU-1"}, Start: start, End: start.Add(time.Minute), Completed: 8}}},
	}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestParseReadsEveryShapeOfTheFieldsThatVary(t *testing.T) {
	tests := map[string]struct {
		fields string
		check  func(catalog.Result) bool
	}{
		"a request rate as a number":                  {`"request_rate": 2.5`, func(r catalog.Result) bool { return *r.RequestRate == 2.5 }},
		"a request rate of Infinity without quotes":   {`"request_rate": Infinity`, func(r catalog.Result) bool { return r.RequestRate == nil }},
		"goodput under vLLM's misspelt name":          {`"request_goodput:": 1.5`, func(r catalog.Result) bool { return *r.RequestGoodput == 1.5 }},
		"goodput under its right name":                {`"request_goodput": 1.5`, func(r catalog.Result) bool { return *r.RequestGoodput == 1.5 }},
		"no limit on concurrency":                     {`"max_concurrency": null`, func(r catalog.Result) bool { return r.Concurrency == nil }},
		"errors of detailed output":                   {`"errors": ["", "x"]`, func(r catalog.Result) bool { return r.Failed == 1 }},
		"fields of a later vLLM":                      {`"a_new_field": {"x": [1]}`, func(r catalog.Result) bool { return r.Completed == 10 }},
		"a count as Python writes a float":            {`"total_input_tokens": 100.0`, func(r catalog.Result) bool { return r.InputTokens == 100 }},
		"a field that is there twice is the last one": {`"duration": 7`, func(r catalog.Result) bool { return r.DurationSeconds == 7 }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := importer.Parse("r.json", []byte(strings.TrimSuffix(minimal, "}")+","+tt.fields+"}"))
			if err != nil {
				t.Fatal(err)
			}
			if !tt.check(got.Results[0]) {
				t.Errorf("read as %+v", got.Results[0])
			}
		})
	}
}

func TestParseSaysWhatIsWrongAndWhere(t *testing.T) {
	tests := map[string]struct{ content, want string }{
		"an empty file":                       {``, `file "r.json", at byte 0: the file ends in the middle of the JSON`},
		"a file that was cut":                 {minimal[:40], `at byte 40: the file ends in the middle`},
		"a file that is no JSON":              {`{"model_id": yes}`, `at byte 13: not JSON`},
		"a place behind a NaN is the file's":  {`{"a": NaN, "b": yes}`, `at byte 16: not JSON`},
		"a value of another type":             {`{"model_id":"m","num_prompts":"ten","completed":1,"duration":1}`, `field "num_prompts", at byte 30: "ten" is no number`},
		"a missing field":                     {`{"model_id":"m","completed":1}`, `it lacks num_prompts, duration`},
		"more completed than asked for":       {`{"model_id":"m","num_prompts":1,"completed":2,"duration":1}`, `field "completed", at byte 44: 2 requests completed of 1`},
		"a negative duration":                 {`{"model_id":"m","num_prompts":1,"completed":1,"duration":-1}`, `field "duration", at byte 57: -1 is negative`},
		"half a request":                      {`{"model_id":"m","num_prompts":1.5,"completed":1,"duration":1}`, `1.5 is no count`},
		"a rate in words":                     {strings.TrimSuffix(minimal, "}") + `,"request_rate":"fast"}`, `"fast" is no rate`},
		"an empty model":                      {`{"model_id":"","num_prompts":1,"completed":1,"duration":1}`, `give the model's name`},
		"a second document that is no JSON":   {minimal + ` x`, `at byte 66: not JSON`},
		"a list of something":                 {`[1]`, `a JSON list of something other than objects`},
		"a single number":                     {`3`, `a single JSON value`},
		"a nesting bomb":                      {strings.Repeat("[", 100000), `nested deeper than 32 levels`},
		"an object spotbench of another kind": {strings.TrimSuffix(minimal, "}") + `,"spotbench":[1]}`, `field "spotbench", at byte 77: it is not the object`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := importer.Parse("r.json", []byte(tt.content))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %s", err, tt.want)
			}
		})
	}
}

func TestParseRefusesByNameWhatItRecognisesAndDoesNotRead(t *testing.T) {
	tests := map[string]struct{ content, want string }{
		"what the server told Prometheus":      {`{"load_summary":{},"successes":{"count":937}}`, "import the *_lifecycle_metrics.json"},
		"GuideLLM before it had versions":      {`{"benchmarks":[{"type_":"generative_benchmark"}]}`, "GuideLLM without metadata.version"},
		"a GuideLLM of the future":             {`{"metadata":{"version":7},"benchmarks":[]}`, "GuideLLM of version 7"},
		"PyTorch's records":                    {`[{"benchmark":{},"metric":{},"model":{}}]`, "import the file without .pytorch"},
		"AIPerf's record of one request":       {`{"metadata":{},"metrics":{},"error":null}`, "profile_export_aiperf.json"},
		"MLPerf's log of details":              {`:::MLLOG {"key": "x"}`, "mlperf_log_summary.txt"},
		"an MLPerf run that measured accuracy": {"MLPerf Results Summary\nSUT name : x\nScenario : Offline\nMode     : AccuracyOnly\nResult is : VALID\n", `of mode "AccuracyOnly"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := importer.Parse("r.json", []byte(tt.content))
			var unsupported *importer.UnsupportedError
			if !errors.As(err, &unsupported) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want that it is not read, with %s", err, tt.want)
			}
		})
	}
}

func TestParseRefusesAFileThatIsTooLarge(t *testing.T) {
	_, err := importer.Parse("r.json", make([]byte, importer.MaxBytes+1))
	if err == nil || !strings.Contains(err.Error(), "vLLM: without --save-detailed") {
		t.Errorf("error %v", err)
	}
}

// referenceFiles are real files, which the tree does not carry.
func referenceFiles(t *testing.T, folder string) []string {
	t.Helper()
	data := os.Getenv("SPOTBENCH_DATA")
	files, err := filepath.Glob(filepath.Join(data, "bench-results", folder, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if data == "" || len(files) == 0 {
		t.Skipf("no reference data: set SPOTBENCH_DATA to a directory that holds bench-results/%s/*.json (SPOTBENCH_DATA=%q)", folder, data)
	}
	return files
}

func TestParseReadsRealFilesOfVLLM(t *testing.T) {
	for _, file := range referenceFiles(t, "vllm") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := importer.Parse(filepath.Base(file), data)
			if err != nil {
				t.Fatal(err)
			}
			r := got.Results[0]
			if r.Completed == 0 || r.TTFT == nil || r.TPOT == nil || r.ITL == nil || r.TTFT.P99Ms == nil {
				t.Fatalf("incomplete: %+v", r)
			}
			// The file's own throughput is its tokens over its time.
			if ratio := *r.OutputThroughput / (float64(r.OutputTokens) / r.DurationSeconds); ratio < 0.999 || ratio > 1.001 {
				t.Errorf("output throughput %v, but %d tokens in %v s", *r.OutputThroughput, r.OutputTokens, r.DurationSeconds)
			}
			if text, err := json.Marshal(r); err != nil || len(text) > 4096 {
				t.Errorf("%d bytes of %d are kept (%v): lists or texts are among them", len(text), len(data), err)
			}
		})
	}
}
