// SPDX-License-Identifier: Apache-2.0

package importer_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/importer"
)

// examples are files in the shape each tool writes, with numbers of our own. For
// vLLM's serve, inference-perf and InferenceMAX there are real files too; the
// others follow the tools' sources and published output.
var examples = map[string]string{
	"vllm": minimal,
	"vllm-throughput": `{
    "elapsed_time": 20.0,
    "num_requests": 100,
    "total_num_tokens": 50000,
    "requests_per_second": 5.0,
    "tokens_per_second": 2500.0
}`,
	"vllm-latency": `{
    "avg_latency": 1.25,
    "std_latency": 0.05,
    "latencies": [1.2, 1.3],
    "percentiles": {"10": 1.21, "25": 1.225, "50": 1.25, "75": 1.275, "90": 1.29, "99": 1.299}
}`,
	"inference-perf": `{"load_summary": {"count": 12, "schedule_delay": {"mean": -0.002, "p99": 0.001, "max": 0.003}, "send_duration": 4.0, "requested_rate": 3.0, "achieved_rate": 3.1},
 "successes": {"count": 10, "latency": {
   "request_latency": {"mean": 0.5, "min": 0.4, "p99.9": 0.61, "median": 0.49, "p99": 0.6, "max": 0.7},
   "normalized_time_per_output_token": {"mean": 0.05, "median": 0.05, "p99": 0.06},
   "time_per_output_token": {"mean": 0.01, "median": 0.011, "p99": 0.02},
   "time_to_first_token": {"mean": 0.03, "median": 0.029, "p99": 0.04},
   "inter_token_latency": {"mean": 0.01, "median": 0.009, "p99": 0.03}},
  "throughput": {"input_tokens_per_sec": 200.0, "output_tokens_per_sec": 20.0, "total_tokens_per_sec": 220.0, "requests_per_sec": 2.0},
  "prompt_len": {"mean": 100.0, "median": 100.0}, "output_len": {"mean": 10.0, "median": 10.0}},
 "failures": {"count": 2, "request_latency": null, "prompt_len": null}}`,
	"inferencemax": `[
  {"hw": "b200-trt", "tp": 8, "ep": 8, "dp_attention": "false", "conc": 8, "model": "org/m", "framework": "trt", "precision": "fp8",
   "tput_per_gpu": 125.0, "output_tput_per_gpu": 62.5, "input_tput_per_gpu": 62.5, "mean_ttft": 0.25, "median_ttft": 0.2, "std_ttft": 0.125, "p99_ttft": 1.25,
   "mean_tpot": 0.0156, "mean_intvty": 64.0, "std_tpot": 0.00025, "std_intvty": 4000.0, "mean_itl": 0.15, "mean_e2el": 14.5},
  {"hw": "mi355x", "tp": 8, "ep": 1, "dp_attention": "false", "conc": 16, "model": "org/m", "framework": "sglang", "precision": "fp8", "tput_per_gpu": 170.0, "mtp": "off"}
]`,
	"guidellm": `{"metadata": {"version": 1, "guidellm_version": "0.5.0", "python_version": "3.12.3"},
 "args": {"target": "http://server:8000", "profile": "concurrent", "rate": [4.0], "backend": "openai_http", "model": "org/m", "random_seed": 42, "request_format": "/v1/completions"},
 "benchmarks": [{"type_": "generative_benchmark",
  "config": {"strategy": {"type_": "concurrent", "streams": 4, "max_concurrency": 4}, "backend": {"model": "org/m"}},
  "metrics": {"request_totals": {"successful": 4, "errored": 1, "incomplete": 2, "total": 7},
   "requests_per_second": {"successful": {"mean": 0.16, "count": 3}},
   "output_tokens_per_second": {"successful": {"mean": 164.0, "count": 4}}, "tokens_per_second": {"successful": {"mean": 180.0, "count": 4}},
   "request_latency": {"successful": {"mean": 25.0, "median": 24.5, "std_dev": 0.5, "min": 24.0, "max": 26.0, "count": 4, "percentiles": {"p001": 24.0, "p01": 24.0, "p50": 24.5, "p95": 26.0, "p99": 26.0, "p999": 26.0}}},
   "time_to_first_token_ms": {"successful": {"mean": 170.0, "median": 168.0, "std_dev": 2.0, "count": 4}},
   "time_per_output_token_ms": {"successful": {"mean": 24.4, "median": 24.3, "count": 4}},
   "inter_token_latency_ms": {"successful": {"mean": 24.2, "median": 24.1, "count": 4}},
   "prompt_token_count": {"successful": {"mean": 99.0, "total_sum": 396.0}}, "output_token_count": {"successful": {"mean": 1024.0, "total_sum": 4096.0}}},
  "requests": {"successful": [{"output": "a text that nobody keeps"}]}, "start_time": 1772470696.6, "end_time": 1772470721.6, "duration": 25.0}]}`,
	"genai-perf": `{"request_throughput": {"unit": "requests/sec", "avg": 2.0},
 "request_latency": {"unit": "ms", "avg": 500.0, "p25": 450.0, "p50": 490.0, "p99": 600.0, "min": 400.0, "max": 610.0, "std": 40.0},
 "request_count": {"unit": "count", "avg": 100.0},
 "time_to_first_token": {"unit": "ms", "avg": 30.0, "p50": 29.0, "p99": 45.0, "std": 3.0},
 "inter_token_latency": {"unit": "ms", "avg": 10.0, "p50": 9.9, "p99": 12.0},
 "output_token_throughput": {"unit": "tokens/sec", "avg": 200.0},
 "output_sequence_length": {"unit": "tokens", "avg": 100.5}, "input_sequence_length": {"unit": "tokens", "avg": 550.0},
 "input_config": {"model": ["org/m"], "endpoint_type": "chat", "streaming": true, "concurrency": null, "perf_analyzer": {"stimulus": {"concurrency": 10}}}}`,
	"aiperf": `{"schema_version": "1.1", "aiperf_version": "0.5.0",
 "request_throughput": {"unit": "requests/sec", "avg": 13.0},
 "request_latency": {"unit": "ms", "avg": 6500.0, "p50": 5800.0, "p99": 9400.0, "std": 1200.0},
 "time_to_first_token": {"unit": "sec", "avg": 1.5, "p50": 0.75, "p99": 4.0},
 "inter_token_latency": {"unit": "ms", "avg": 50.0, "p50": 51.0, "p99": 56.0},
 "inter_chunk_latency": {"unit": "ms", "avg": 80.0},
 "output_token_throughput": {"unit": "tokens/sec", "avg": 1270.0},
 "benchmark_duration": {"unit": "sec", "avg": 15.0}, "request_count": {"unit": "requests", "avg": 195.0},
 "total_isl": {"unit": "tokens", "avg": 110000.0}, "total_osl": {"unit": "tokens", "avg": 19370.0},
 "was_cancelled": false, "error_summary": [{"error_details": {"code": 499, "type": "Cancelled"}, "count": 4}, {"error_details": {"code": 500}, "count": 1}],
 "error_request_count": null, "goodput": null,
 "input_config": {"endpoint": {"model_names": ["org/m"], "type": "chat", "streaming": true}, "loadgen": {"concurrency": 100, "request_rate_mode": "concurrency_burst"}}}`,
	"lm-eval": `{"results": {"gsm8k": {"alias": "gsm8k", "exact_match,strict-match": 0.75, "exact_match_stderr,strict-match": 0.012, "exact_match,flexible-extract": 0.77, "exact_match_stderr,flexible-extract": "N/A"},
  "mmlu": {" ": " ", "alias": "mmlu"}},
 "configs": {"gsm8k": {"task": "gsm8k"}}, "versions": {"gsm8k": 3.0}, "n-shot": {"gsm8k": 5}, "n-samples": {"gsm8k": {"original": 1319, "effective": 200}},
 "config": {"model": "vllm", "model_args": "pretrained=org/m,dtype=auto", "batch_size": "auto", "limit": 200.0},
 "git_hash": "abc", "date": 1763000000.5, "lm_eval_version": "0.4.9", "total_evaluation_time_seconds": "301.5"}`,
	"mlperf-loadgen": `================================================
MLPerf Results Summary
================================================
SUT name : our-sut
Scenario : Server
Mode     : PerformanceOnly
Completed samples per second    : 75.00
Completed tokens per second: 22000.50
Result is : VALID
  Performance constraints satisfied : Yes
  Min duration satisfied : Yes
TTFT Early Stopping Result:
 * Run successful.
TPOT Early Stopping Result:
 * Run successful.

================================================
Additional Stats
================================================
Scheduled samples per second : 76.25
Min latency (ns)                : 80000000
Max latency (ns)                : 150000000000
Mean latency (ns)               : 17500000000
50.00 percentile latency (ns)   : 14700000000
99.90 percentile latency (ns)   : 103000000000

Completed tokens per second                 : 22000.50
Mean First Token latency (ns)               : 200000000
50.00 percentile first token latency (ns)   : 187000000
99.00 percentile first token latency (ns)   : 675000000

Min Time to Output Token (ns)                : 30000000
Mean Time to Output Token (ns)               : 61000000
99.00 percentile time to output token (ns)   : 190000000

================================================
Test Parameters Used
================================================
samples_per_query : 1
target_qps : 75.5
target_latency (ns): 0
min_duration (ms): 600000

No warnings encountered during test.

No errors encountered during test.
`,
	"sglang": `{"tag": null, "backend": "sglang", "dataset_name": "random", "request_rate": 4.0, "max_concurrency": 64, "sharegpt_output_len": null, "random_input_len": 1024, "random_output_len": 256, "random_range_ratio": 0.5, "duration": 50.0, "completed": 200, "total_input_tokens": 150000, "total_output_tokens": 38000, "total_output_tokens_retokenized": 37990, "request_throughput": 4.0, "input_throughput": 3000.0, "output_throughput": 760.0, "total_throughput": 3760.0, "mean_e2e_latency_ms": 2100.0, "median_e2e_latency_ms": 2000.0, "std_e2e_latency_ms": 300.0, "p99_e2e_latency_ms": 3200.0, "mean_ttft_ms": 60.0, "median_ttft_ms": 55.0, "std_ttft_ms": 9.0, "p99_ttft_ms": 90.0, "mean_tpot_ms": 10.5, "median_tpot_ms": 10.4, "p99_tpot_ms": 14.0, "mean_itl_ms": 10.4, "p95_itl_ms": 12.0, "p99_itl_ms": 13.0, "max_itl_ms": 80.0, "concurrency": 8.4, "accept_length": null}
{"backend": "sglang", "request_rate": Infinity, "max_concurrency": null, "duration": 20.0, "completed": 3, "total_input_tokens": 10, "total_output_tokens": 20, "mean_e2e_latency_ms": 100.0, "errors": ["", "", "timed out", ""], "generated_texts": ["a", "b", "", "c"], "server_info": {"model_path": "org/m"}}
`,
	"llama-bench": `[
  {"build_commit": "8cf427ff", "build_number": 5163, "cpu_info": "a CPU", "gpu_info": "NVIDIA L4", "backends": "CUDA", "model_filename": "models/m.gguf", "model_type": "qwen2 7B Q4_K - Medium", "model_size": 4677120000, "model_n_params": 7615616512, "n_batch": 2048, "n_ubatch": 512, "n_threads": 8, "type_k": "f16", "type_v": "f16", "n_gpu_layers": 99, "split_mode": "layer", "flash_attn": false, "tensor_split": "0.00", "n_prompt": 512, "n_gen": 0, "n_depth": 0, "test_time": "2025-04-24T11:58:50Z", "avg_ns": 64000000, "stddev_ns": 1000000, "avg_ts": 8000.0, "stddev_ts": 120.0, "samples_ns": [ 63000000, 65000000 ], "samples_ts": [ 8127.0, 7876.9 ]},
  {"build_commit": "8cf427ff", "model_filename": "models/m.gguf", "n_prompt": 0, "n_gen": 128, "avg_ns": 1000000000, "stddev_ns": 0, "avg_ts": 128.0, "stddev_ts": 0.5, "samples_ns": [ 1000000000 ], "samples_ts": [ 128.0 ]}
]`,
	"spotbench": `{"id":"81ec4224-00a4-57c0-84ac-48eceff363ec","importID":"c2dc6be8-9b5b-54da-baef-29f16bdc7f7f","run":"lab/a","file":"c4.json","format":"vllm","tool":"vllm bench serve","model":"org/m","concurrency":4,"requests":10,"completed":9,"failed":1,"durationSeconds":2,"inputTokens":100,"outputTokens":0,"ttft":{"meanMs":12.5,"percentilesMs":{"p95":18}},"metrics":{"a":1},"unknown":["outputTokens"]}
`,
	"llama-bench as CSV": `build_commit,build_number,backends,model_filename,model_type,model_size,model_n_params,n_prompt,n_gen,n_depth,test_time,avg_ns,stddev_ns,avg_ts,stddev_ts
"8cf427ff","5163","CUDA","models/m.gguf","qwen2 7B Q4_K - Medium","4677120000","7615616512","0","128","0","2025-04-24T11:59:33Z","1000000000","0","128.0","0.5"
`,
}

func TestEveryFormatIsReadInTheCatalogsUnits(t *testing.T) {
	ms := func(mean, median, std, p99 float64, others map[string]float64) *catalog.Latency {
		at := func(v float64) *float64 {
			if math.IsNaN(v) {
				return nil
			}
			return &v
		}
		return &catalog.Latency{MeanMs: at(mean), MedianMs: at(median), StdMs: at(std), P99Ms: at(p99), PercentilesMs: others}
	}
	none := math.NaN()
	allUnknown := []string{"requests", "completed", "failed", "durationSeconds", "inputTokens", "outputTokens"}
	tests := map[string][]catalog.Result{
		"vllm-throughput": {{Tool: "vllm bench throughput", Requests: 100, Completed: 100, DurationSeconds: 20, RequestThroughput: ptr(5.0), TotalTokenThroughput: ptr(2500.0),
			Metrics: map[string]float64{"total_tokens": 50000}, Unknown: []string{"inputTokens", "outputTokens"}}},
		// 1.25 s are 1250 ms.
		"vllm-latency": {{Tool: "vllm bench latency", Requests: 2, Completed: 2, E2EL: ms(1250, 1250, 50, 1299, map[string]float64{"p10": 1210, "p25": 1225, "p75": 1275, "p90": 1290}),
			Settings: map[string]string{"request": "one batch"}, Unknown: []string{"durationSeconds", "inputTokens", "outputTokens"}}},
		"inference-perf": {{Tool: "inference-perf", RequestRate: ptr(3.0), Requests: 12, Completed: 10, Failed: 2,
			DurationSeconds: 5,                       // 10 requests at 2 a second
			InputTokens:     1000, OutputTokens: 100, // 10 requests of 100 and 10
			RequestThroughput: ptr(2.0), OutputThroughput: ptr(20.0), TotalTokenThroughput: ptr(220.0),
			TTFT: ms(30, 29, none, 40, nil), TPOT: ms(10, 11, none, 20, nil), ITL: ms(10, 9, none, 30, nil), E2EL: ms(500, 490, none, 600, map[string]float64{"min": 400, "max": 700, "p99.9": 610}),
			Metrics: map[string]float64{"achieved_requests_per_second": 3.1, "send_duration_seconds": 4, "input_tokens_per_second": 200, "normalized_time_per_output_token_mean_ms": 50,
				"normalized_time_per_output_token_median_ms": 50, "normalized_time_per_output_token_p99_ms": 60, "schedule_delay_mean_ms": -2, "schedule_delay_p99_ms": 1, "schedule_delay_max_ms": 3},
			Settings: map[string]string{"scope": "stage"}}},
		"inferencemax": {
			{Tool: "InferenceMAX", Model: "org/m", Backend: "trt", Concurrency: ptr[int64](8), TTFT: ms(250, 200, 125, 1250, nil), TPOT: ms(15.6, none, 0.25, none, nil), ITL: ms(150, none, none, none, nil), E2EL: ms(14500, none, none, none, nil),
				Metrics:  map[string]float64{"total_tokens_per_second_per_gpu": 125, "output_tokens_per_second_per_gpu": 62.5, "input_tokens_per_second_per_gpu": 62.5, "interactivity_mean_tokens_per_second_per_user": 64},
				Settings: map[string]string{"hw": "b200-trt", "tp": "8", "ep": "8", "dp_attention": "false", "precision": "fp8"}, Unknown: allUnknown},
			{Tool: "InferenceMAX", Model: "org/m", Backend: "sglang", Concurrency: ptr[int64](16), Metrics: map[string]float64{"total_tokens_per_second_per_gpu": 170},
				Settings: map[string]string{"hw": "mi355x", "tp": "8", "ep": "1", "dp_attention": "false", "precision": "fp8", "mtp": "off"}, Unknown: allUnknown},
		},
		"guidellm": {{Tool: "guidellm", ToolVersion: "0.5.0", Model: "org/m", Backend: "openai_http", Concurrency: ptr[int64](4),
			Requests: 7, Completed: 4, Failed: 1, DurationSeconds: 25, InputTokens: 396, OutputTokens: 4096, // 4 + 1 + 2 that were going on
			RequestThroughput: ptr(0.16), OutputThroughput: ptr(164.0), TotalTokenThroughput: ptr(180.0),
			TTFT: ms(170, 168, 2, none, nil), TPOT: ms(24.2, 24.1, none, none, nil),
			E2EL:     ms(25000, 24500, 500, 26000, map[string]float64{"min": 24000, "max": 26000, "p0.1": 24000, "p1": 24000, "p95": 26000, "p99.9": 26000}),
			Metrics:  map[string]float64{"time_per_output_token_with_first_mean_ms": 24.4, "time_per_output_token_with_first_median_ms": 24.3, "incomplete_requests": 2},
			Settings: map[string]string{"type_": "concurrent", "profile": "concurrent", "random_seed": "42", "request_format": "/v1/completions"}}},
		"genai-perf": {{Tool: "genai-perf", Model: "org/m", Concurrency: ptr[int64](10), Requests: 100, Completed: 100, RequestThroughput: ptr(2.0), OutputThroughput: ptr(200.0),
			TTFT: ms(30, 29, 3, 45, nil), TPOT: ms(10, 9.9, none, 12, nil), E2EL: ms(500, 490, 40, 600, map[string]float64{"p25": 450, "min": 400, "max": 610}),
			Metrics:  map[string]float64{"input_tokens_per_request_mean": 550, "output_tokens_per_request_mean": 100.5},
			Settings: map[string]string{"endpoint_type": "chat", "streaming": "true"}, Unknown: []string{"failed", "durationSeconds", "inputTokens", "outputTokens"}}},
		"aiperf": {{Tool: "aiperf", ToolVersion: "0.5.0", Model: "org/m", Concurrency: ptr[int64](100),
			Requests: 200, Completed: 195, Failed: 5, // 195 + 4 + 1
			DurationSeconds: 15, InputTokens: 110000, OutputTokens: 19370, RequestThroughput: ptr(13.0), OutputThroughput: ptr(1270.0),
			TTFT: ms(1500, 750, none, 4000, nil), TPOT: ms(50, 51, none, 56, nil), ITL: ms(80, none, none, none, nil), E2EL: ms(6500, 5800, 1200, 9400, nil),
			Settings: map[string]string{"schema_version": "1.1", "was_cancelled": "false", "type": "chat", "streaming": "true"}}},
		"lm-eval": {{Tool: "lm-eval", ToolVersion: "0.4.9", Model: "org/m", Requests: 200, Completed: 200, Unknown: []string{"durationSeconds", "failed", "inputTokens", "outputTokens"},
			Metrics:  map[string]float64{"exact_match,strict-match": 0.75, "exact_match_stderr,strict-match": 0.012, "exact_match,flexible-extract": 0.77},
			Settings: map[string]string{"task": "gsm8k", "n-shot": "5", "task_version": "3.0", "batch_size": "auto", "limit": "200.0"}}},
		"mlperf-loadgen": {{Tool: "mlperf loadgen", RequestRate: ptr(75.5), RequestThroughput: ptr(75.0), OutputThroughput: ptr(22000.5),
			// 17.5e9 ns are 17 500 ms.
			E2EL: ms(17500, 14700, none, none, map[string]float64{"min": 80, "max": 150000, "p99.9": 103000}), TTFT: ms(200, 187, none, 675, nil), TPOT: ms(61, none, none, 190, map[string]float64{"min": 30}),
			Metrics: map[string]float64{"scheduled_samples_per_second": 76.25}, Unknown: allUnknown,
			Settings: map[string]string{"scenario": "Server", "mode": "PerformanceOnly", "sut": "our-sut", "validity": "VALID", "samples_per_query": "1", "target_qps": "75.5", "target_latency (ns)": "0", "min_duration (ms)": "600000"}}},
		"sglang": {
			{Tool: "sglang bench_serving", Backend: "sglang", RequestRate: ptr(4.0), Concurrency: ptr[int64](64), Requests: 200, Completed: 200, DurationSeconds: 50, InputTokens: 150000, OutputTokens: 38000,
				RequestThroughput: ptr(4.0), OutputThroughput: ptr(760.0), TotalTokenThroughput: ptr(3760.0),
				TTFT: ms(60, 55, 9, 90, nil), TPOT: ms(10.5, 10.4, none, 14, nil), ITL: ms(10.4, none, none, 13, map[string]float64{"p95": 12, "max": 80}), E2EL: ms(2100, 2000, 300, 3200, nil),
				Metrics:  map[string]float64{"input_tokens_per_second": 3000, "concurrency_mean": 8.4, "output_tokens_retokenized": 37990},
				Settings: map[string]string{"dataset_name": "random", "random_input_len": "1024", "random_output_len": "256", "random_range_ratio": "0.5"}, Unknown: []string{"requests", "failed"}},
			{Tool: "sglang bench_serving", Model: "org/m", Backend: "sglang", Requests: 4, Completed: 3, Failed: 1, DurationSeconds: 20, InputTokens: 10, OutputTokens: 20, E2EL: ms(100, none, none, none, nil)},
		},
		"llama-bench": {
			{Tool: "llama-bench", ToolVersion: "8cf427ff", Model: "models/m.gguf", Backend: "CUDA", Concurrency: ptr[int64](1), Requests: 2, Completed: 2,
				DurationSeconds: 0.128, InputTokens: 1024, // 63 + 65 ms; 2 × 512
				TotalTokenThroughput: ptr(8000.0), E2EL: ms(64, none, 1, none, nil),
				Metrics: map[string]float64{"tokens_per_second_std": 120, "model_bytes": 4677120000, "model_parameters": 7615616512},
				Settings: map[string]string{"model_type": "qwen2 7B Q4_K - Medium", "gpu_info": "NVIDIA L4", "cpu_info": "a CPU", "n_prompt": "512", "n_gen": "0", "n_depth": "0", "n_batch": "2048", "n_ubatch": "512",
					"n_threads": "8", "n_gpu_layers": "99", "type_k": "f16", "type_v": "f16", "flash_attn": "false", "split_mode": "layer", "tensor_split": "0.00", "build_number": "5163", "test_time": "2025-04-24T11:58:50Z"}},
			{Tool: "llama-bench", ToolVersion: "8cf427ff", Model: "models/m.gguf", Concurrency: ptr[int64](1), Requests: 1, Completed: 1, DurationSeconds: 1, OutputTokens: 128,
				OutputThroughput: ptr(128.0), TotalTokenThroughput: ptr(128.0), E2EL: ms(1000, none, 0, none, nil), Metrics: map[string]float64{"tokens_per_second_std": 0.5},
				Settings: map[string]string{"n_prompt": "0", "n_gen": "128"}},
		},
		"spotbench": {{Tool: "vllm bench serve", Model: "org/m", Concurrency: ptr[int64](4), Requests: 10, Completed: 9, Failed: 1, DurationSeconds: 2, InputTokens: 100,
			TTFT: ms(12.5, none, none, none, map[string]float64{"p95": 18}), Metrics: map[string]float64{"a": 1}, Settings: map[string]string{"sourceFormat": "vllm"}, Unknown: []string{"outputTokens"}}},
		"llama-bench as CSV": {{Tool: "llama-bench", ToolVersion: "8cf427ff", Model: "models/m.gguf", Backend: "CUDA", Concurrency: ptr[int64](1), OutputThroughput: ptr(128.0), TotalTokenThroughput: ptr(128.0),
			E2EL: ms(1000, none, 0, none, nil), Metrics: map[string]float64{"tokens_per_second_std": 0.5, "model_bytes": 4677120000, "model_parameters": 7615616512},
			Settings: map[string]string{"model_type": "qwen2 7B Q4_K - Medium", "n_prompt": "0", "n_gen": "128", "n_depth": "0", "build_number": "5163", "test_time": "2025-04-24T11:59:33Z"},
			Unknown:  []string{"requests", "completed", "durationSeconds", "inputTokens", "outputTokens"}}},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := importer.Parse("r", []byte(examples[name]))
			if err != nil {
				t.Fatal(err)
			}
			format, _, _ := strings.Cut(name, " ")
			if got.Format != format || len(got.Notes) != 0 {
				t.Errorf("format %s with notes %q", got.Format, got.Notes)
			}
			if diff := cmp.Diff(want, got.Results, cmpopts.EquateApprox(1e-12, 0)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	for _, format := range importer.Formats() {
		if _, ok := examples[format]; !ok {
			t.Errorf("no example of %s", format)
		}
	}
}

func TestLinesMeanTheSameAsAList(t *testing.T) {
	var rows []json.RawMessage
	if err := json.Unmarshal([]byte(examples["llama-bench"]), &rows); err != nil {
		t.Fatal(err)
	}
	list, err := importer.Parse("r", []byte(examples["llama-bench"]))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := importer.Parse("r", append(append(rows[0], '\n'), rows[1]...))
	if diff := cmp.Diff(list, lines); diff != "" || err != nil {
		t.Errorf("%v (-list +lines)\n%s", err, diff)
	}
}

func TestALastLineThatWasCutOffIsLeftOutWithANote(t *testing.T) {
	whole := examples["sglang"]
	first := strings.Index(whole, "\n") + 1
	for _, keep := range []int{first + 1, first + 20, len(whole) - 3} {
		got, err := importer.Parse("r.jsonl", []byte(whole[:keep]))
		if err != nil || len(got.Results) != 1 || len(got.Notes) != 1 || got.Notes[0] != "document 2 is cut off in the middle and was left out" {
			t.Errorf("the first %d bytes: %d results, notes %q, %v", keep, len(got.Results), got.Notes, err)
		}
	}
	if _, err := importer.Parse("r.jsonl", []byte(whole[:first-10])); err == nil || !strings.Contains(err.Error(), "the file ends in the middle") {
		t.Errorf("a single line that is cut: %v", err)
	}
}

func TestWhatIsNotSureIsRefusedWithItsField(t *testing.T) {
	change := func(format, old, now string) string {
		if !strings.Contains(examples[format], old) {
			t.Fatalf("the example of %s has no %s", format, old)
		}
		return strings.Replace(examples[format], old, now, 1)
	}
	tests := map[string]struct{ content, want string }{
		"a time in a unit that is not known":      {change("aiperf", `"unit": "sec", "avg": 1.5`, `"unit": "fortnight", "avg": 1.5`), `field "time_to_first_token.unit", at byte 235: "fortnight" is no unit`},
		"a number that stands as text":            {change("genai-perf", `"avg": 500.0`, `"avg": "500.0"`), `field "request_latency.avg"`},
		"a throughput per minute":                 {change("genai-perf", `"unit": "tokens/sec"`, `"unit": "tokens/min"`), `"tokens/min" is no unit`},
		"more successes than requests":            {change("inference-perf", `"count": 10`, `"count": 13`), `13 requests succeeded of 12`},
		"a negative time":                         {change("inferencemax", `"mean_ttft": 0.25`, `"mean_ttft": -0.25`), `field "mean_ttft"`},
		"a percentile that is none":               {change("vllm-latency", `"99"`, `"990"`), `field "percentiles.990"`},
		"a GuideLLM without a strategy's numbers": {change("guidellm", `"request_totals"`, `"totals"`), `it lacks benchmarks[0].metrics.request_totals.successful`},
		"results of two tools in one file":        {minimal + "\n" + examples["sglang"], "results of vllm and of sglang"},
		"two reports in one file":                 {examples["aiperf"] + examples["aiperf"], "several documents of aiperf"},
		"two MLPerf summaries in one file":        {examples["mlperf-loadgen"] + examples["mlperf-loadgen"], "several summaries"},
		"an MLPerf scenario of the future":        {change("mlperf-loadgen", "Scenario : Server", "Scenario : Dream"), `"Dream" is unknown`},
		"an MLPerf verdict that is none":          {change("mlperf-loadgen", "VALID", "MAYBE"), `"MAYBE" is no verdict`},
		"an MLPerf number that is none":           {change("mlperf-loadgen", ": 17500000000", ": soon"), `"soon" is no positive number`},
		"a CSV with a row that is too short":      {examples["llama-bench as CSV"] + "\"x\"\n", "not CSV"},
		"an evaluation without a score":           {`{"results":{"a":{"alias":"a"}},"configs":{},"versions":{}}`, "it has no results"},
		"an export with a field of the future":    {change("spotbench", `"tool"`, `"tune"`), `unknown field "tune"`},
		"an export with more than all requests":   {change("spotbench", `"completed":9`, `"completed":11`), `11 requests completed of 10`},
		"an export with a negative count":         {change("spotbench", `"inputTokens":100`, `"inputTokens":-1`), `field "inputTokens"`},
		"an export with an unknown unknown":       {change("spotbench", `["outputTokens"]`, `["colour"]`), `"colour" is no field`},
		"a list without entries":                  {`[]`, "an empty JSON list"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := importer.Parse("r", []byte(tt.content))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %s (read: %+v)", err, tt.want, got)
			}
		})
	}
}

func TestParseReadsRealFilesOfInferencePerf(t *testing.T) {
	stages := 0
	for _, folder := range []string{"vllm", "vllm+batch_size", "vllm+chunking_and_prefix_caching", "vllm+quantization"} {
		for _, file := range referenceFiles(t, filepath.Join("inference-perf", folder)) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := importer.Parse(filepath.Base(file), data)
			if strings.Contains(file, "prometheus") {
				if err == nil {
					t.Errorf("%s was read", file)
				}
				continue
			}
			if err != nil {
				t.Error(err)
				continue
			}
			stages++
			r := got.Results[0]
			if r.Completed == 0 || r.TTFT == nil || r.TPOT == nil || r.ITL == nil || r.E2EL == nil || len(r.Unknown) > 0 {
				t.Fatalf("%s is incomplete: %+v", file, r)
			}
			if want := map[bool]string{true: "all stages", false: "stage"}[strings.HasPrefix(filepath.Base(file), "summary")]; r.Settings["scope"] != want {
				t.Errorf("%s has scope %q", file, r.Settings["scope"])
			}
			// The time and the tokens that we derive give the throughput that the tool tells.
			if ratio := float64(r.OutputTokens) / r.DurationSeconds / *r.OutputThroughput; math.Abs(ratio-1) > 1e-3 {
				t.Errorf("%s: %d tokens in %v s, but %v a second (ratio %v)", file, r.OutputTokens, r.DurationSeconds, *r.OutputThroughput, ratio)
			}
			// A request is no faster than its first token.
			if *r.E2EL.MeanMs < *r.TTFT.MeanMs || *r.TTFT.MeanMs < 1 || *r.E2EL.MeanMs > 1e6 {
				t.Errorf("%s: %v ms to the first token, %v ms in all", file, *r.TTFT.MeanMs, *r.E2EL.MeanMs)
			}
		}
	}
	t.Logf("%d real reports of inference-perf", stages)
}

func TestParseReadsRealFilesOfInferenceMAX(t *testing.T) {
	for _, file := range referenceFiles(t, "inferencemax") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := importer.Parse(filepath.Base(file), data)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range got.Results {
			// Interactivity is the inverse of the time per token, which proves the unit.
			if product := *r.TPOT.MedianMs / 1000 * r.Metrics["interactivity_median_tokens_per_second_per_user"]; math.Abs(product-1) > 1e-9 || r.Concurrency == nil || r.Model == "" {
				t.Errorf("%+v (product %v)", r, product)
			}
		}
		t.Logf("%d real configurations in %s", len(got.Results), filepath.Base(file))
	}
}
