// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"encoding/json"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// parseSGLang reads one line of bench_serving's output file. It names the model
// only in newer versions' server_info, and how many requests were asked for only
// where it was run with --output-details.
func parseSGLang(r *reader) []catalog.Result {
	if !r.needs("SGLang's bench_serving", "backend", "duration", "completed") {
		return nil
	}
	m := metrics{}
	m.set("input_tokens_per_second", r.positive("input_throughput"))
	m.set("concurrency_mean", r.positive("concurrency"))
	m.set("accept_length", r.positive("accept_length"))
	m.set("output_tokens_retokenized", r.positive("total_output_tokens_retokenized"))
	result := catalog.Result{
		Tool: "sglang bench_serving", Backend: r.text("backend"), Concurrency: r.limit("max_concurrency"),
		Completed: r.count("completed"), InputTokens: r.count("total_input_tokens"), OutputTokens: r.count("total_output_tokens"),
		RequestThroughput: r.positive("request_throughput"), OutputThroughput: r.positive("output_throughput"), TotalTokenThroughput: r.positive("total_throughput"),
		TTFT: r.flat("ttft_ms", milliseconds), TPOT: r.flat("tpot_ms", milliseconds), ITL: r.flat("itl_ms", milliseconds), E2EL: r.flat("e2e_latency_ms", milliseconds),
		Metrics: m.result(), Settings: r.settings(nil, "dataset_name", "random_input_len", "random_output_len", "random_range_ratio", "sharegpt_output_len", "tag"),
	}
	if d := r.positive("duration"); d != nil {
		result.DurationSeconds = *d
	}
	var trace string
	if json.Unmarshal(r.fields["request_rate"].raw, &trace) == nil && trace == "trace" {
		result.Settings = r.settings(result.Settings, "request_rate")
	} else {
		result.RequestRate = r.rate("request_rate")
	}
	server := r.maybe("server_info")
	result.Model = server.text("model_path")
	if result.Model == "" && !r.missing("model") {
		result.Model = r.text("model")
	}
	if sent := r.list("errors"); sent != nil && int64(len(sent)) >= result.Completed {
		result.Requests = int64(len(sent))
		result.Failed = r.failures(result.Requests - result.Completed)
	} else {
		result.Requests = result.Completed
		result.Unknown = []string{requests, failed}
	}
	return []catalog.Result{result}
}
