// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"bytes"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// The formats that are read, as results and imports name them.
const (
	// VLLM is vLLM's bench serve, and bench-runner's superset of it.
	VLLM = "vllm"
	// VLLMThroughput and VLLMLatency are vLLM's bench throughput and bench latency.
	VLLMThroughput = "vllm-throughput"
	VLLMLatency    = "vllm-latency"
	// InferencePerf is a lifecycle report of inference-perf, of a stage or of all.
	InferencePerf = "inference-perf"
	// GuideLLM is GuideLLM's benchmarks.json, version 1.
	GuideLLM = "guidellm"
	// GenAIPerf and AIPerf are the profile exports of the tools of those names.
	GenAIPerf = "genai-perf"
	AIPerf    = "aiperf"
	// LMEval is lm-evaluation-harness' results_*.json.
	LMEval = "lm-eval"
	// MLPerf is LoadGen's mlperf_log_summary.txt.
	MLPerf = "mlperf-loadgen"
	// SGLang is what bench_serving appends to its output file.
	SGLang = "sglang"
	// LlamaBench is llama-bench -o json, jsonl or csv.
	LlamaBench = "llama-bench"
	// InferenceMAX is the aggregate of an InferenceMAX run.
	InferenceMAX = "inferencemax"
	// Exported is a catalog's own export as lines of JSON.
	Exported = "spotbench"
)

// Formats are those that Parse gives.
func Formats() []string {
	return []string{VLLM, VLLMThroughput, VLLMLatency, InferencePerf, GuideLLM, GenAIPerf, AIPerf, LMEval, MLPerf, SGLang, LlamaBench, InferenceMAX, Exported}
}

// format reads one document.
type format struct {
	name string
	// many is set where the tool puts several documents into one file.
	many  bool
	parse func(*reader) []catalog.Result
}

// detect finds the format by fields that only its tool writes.
func detect(file string, fields map[string]field) (format, error) {
	has := func(names ...string) bool {
		for _, n := range names {
			if _, ok := fields[n]; !ok {
				return false
			}
		}
		return true
	}
	object := func(name string) bool { return bytes.HasPrefix(fields[name].raw, []byte("{")) }
	unsupported := func(format, instead string) (f struct{ err error }) {
		f.err = &UnsupportedError{File: file, Format: format, Instead: instead}
		return f
	}
	switch {
	case has("load_summary", "successes") && bytes.Equal(bytes.TrimSpace(fields["load_summary"].raw), []byte("{}")):
		return format{}, unsupported("inference-perf's Prometheus metrics", "import the *_lifecycle_metrics.json beside it, which is what the clients saw").err
	case has("load_summary", "successes"):
		return format{name: InferencePerf, parse: parseInferencePerf}, nil
	case has("importID", "run", "format", "durationSeconds"):
		return format{name: Exported, many: true, parse: parseExported}, nil
	case has("hw", "tput_per_gpu"):
		return format{name: InferenceMAX, many: true, parse: parseInferenceMAX}, nil
	case has("results", "configs", "versions"), has("results", "lm_eval_version"):
		return format{name: LMEval, parse: parseLMEval}, nil
	case has("benchmarks"):
		return format{name: GuideLLM, parse: parseGuideLLM}, nil
	case has("build_commit", "avg_ts"):
		return format{name: LlamaBench, many: true, parse: parseLlamaBench}, nil
	case has("mean_e2e_latency_ms"), has("total_output_tokens_retokenized"):
		return format{name: SGLang, many: true, parse: parseSGLang}, nil
	case has("aiperf_version"), object("request_latency") && has("benchmark_duration"), object("request_throughput") && has("benchmark_duration"):
		return format{name: AIPerf, parse: parseAIPerf}, nil
	case object("request_latency") && has("input_config"), object("request_throughput") && has("input_config"):
		return format{name: GenAIPerf, parse: parseGenAIPerf}, nil
	case has("elapsed_time", "num_requests", "requests_per_second"):
		return format{name: VLLMThroughput, parse: parseVLLMThroughput}, nil
	case has("avg_latency", "percentiles"):
		return format{name: VLLMLatency, parse: parseVLLMLatency}, nil
	case has("benchmark", "metric", "model"):
		return format{}, unsupported("PyTorch's benchmark records (*.pytorch.json)", "import the file without .pytorch in its name, which is beside it").err
	case has("metadata", "metrics"):
		return format{}, unsupported("one record per request (AIPerf's profile_export.jsonl)", "import profile_export_aiperf.json, which is beside it").err
	}
	return format{name: VLLM, many: true, parse: parseVLLM}, nil
}

// Names of the fields that Result.Unknown may have.
const (
	requests     = "requests"
	completed    = "completed"
	failed       = "failed"
	duration     = "durationSeconds"
	inputTokens  = "inputTokens"
	outputTokens = "outputTokens"
)
