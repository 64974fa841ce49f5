// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"github.com/spotbench/spotbench/pkg/catalog"
)

// parseVLLMThroughput reads `vllm bench throughput --output-json`. The file does
// not name the model. Its tokens are input and output together.
func parseVLLMThroughput(r *reader) []catalog.Result {
	if !r.needs("vLLM's bench throughput", "elapsed_time", "num_requests", "total_num_tokens", "requests_per_second", "tokens_per_second") {
		return nil
	}
	m := metrics{}
	m.set("total_tokens", r.positive("total_num_tokens"))
	result := catalog.Result{
		Tool: "vllm bench throughput", Requests: r.count("num_requests"), Completed: r.count("num_requests"),
		RequestThroughput: r.positive("requests_per_second"), TotalTokenThroughput: r.positive("tokens_per_second"),
		Metrics: m.result(), Unknown: []string{inputTokens, outputTokens},
	}
	if d := r.positive("elapsed_time"); d != nil {
		result.DurationSeconds = *d
	}
	return []catalog.Result{result}
}

// parseVLLMLatency reads `vllm bench latency --output-json`: the time that one
// batch took, seconds, over its iterations. The file has neither the model nor
// the size of the batch, so that a batch is what counts as a request here.
func parseVLLMLatency(r *reader) []catalog.Result {
	if !r.needs("vLLM's bench latency", "avg_latency", "latencies", "percentiles") {
		return nil
	}
	var l latency
	l.set("mean", r.scaled("avg_latency", seconds))
	l.set("std", r.scaled("std_latency", seconds))
	percentiles := r.object("percentiles")
	for _, name := range percentiles.names() {
		statistic := "p" + name
		if !isPercentile(statistic) {
			percentiles.wrong(name, "it is no percentile; a number from 0 to 100 belongs here")
			continue
		}
		if known := statistics[statistic]; known != "" {
			statistic = known
		}
		l.set(statistic, percentiles.scaled(name, seconds))
	}
	batches := int64(len(r.list("latencies")))
	return []catalog.Result{{
		Tool: "vllm bench latency", Requests: batches, Completed: batches, E2EL: l.result(),
		Settings: map[string]string{"request": "one batch"},
		Unknown:  []string{duration, inputTokens, outputTokens},
	}}
}
