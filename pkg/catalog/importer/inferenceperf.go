// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"math"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// parseInferencePerf reads stage_N_lifecycle_metrics.json and
// summary_lifecycle_metrics.json. Its times are seconds. It names neither the
// model nor the GPU. A summary is of all stages together and says so, for a run
// that has both counts every request twice.
func parseInferencePerf(r *reader) []catalog.Result {
	load, good, bad := r.object("load_summary"), r.object("successes"), r.object("failures")
	if !load.needs("inference-perf", "count") || !good.needs("inference-perf", "count") {
		return nil
	}
	times, rates := good.object("latency"), good.object("throughput")
	result := catalog.Result{
		Tool: "inference-perf", Requests: load.count("count"), Completed: good.count("count"), Failed: bad.count("count"),
		RequestRate:       load.positive("requested_rate"),
		RequestThroughput: rates.positive("requests_per_sec"), OutputThroughput: rates.positive("output_tokens_per_sec"), TotalTokenThroughput: rates.positive("total_tokens_per_sec"),
		TTFT: times.object("time_to_first_token").latency(seconds), TPOT: times.object("time_per_output_token").latency(seconds),
		ITL: times.object("inter_token_latency").latency(seconds), E2EL: times.object("request_latency").latency(seconds),
		Settings: map[string]string{"scope": "stage"},
	}
	if load.missing("requested_rate") && load.missing("send_duration") {
		result.Settings["scope"] = "all stages"
	}
	if result.Completed > result.Requests {
		good.wrong("count", "%d requests succeeded of %d sent; correct load_summary.count or this", result.Completed, result.Requests)
	}
	m := metrics{}
	m.set("achieved_requests_per_second", load.positive("achieved_rate"))
	m.set("send_duration_seconds", load.positive("send_duration"))
	m.set("input_tokens_per_second", rates.positive("input_tokens_per_sec"))
	// Whole request over output tokens: it has the first token in it, unlike tpot.
	normalized := times.object("normalized_time_per_output_token")
	for _, statistic := range []string{"mean", "median", "p99"} {
		m.set("normalized_time_per_output_token_"+statistic+"_ms", normalized.scaled(statistic, seconds))
	}
	delay := load.object("schedule_delay")
	for _, statistic := range []string{"mean", "p99", "max"} {
		if v := delay.number(statistic); v != nil { // it may be below zero: sent early
			ms := *v * seconds
			m.set("schedule_delay_"+statistic+"_ms", &ms)
		}
	}
	result.Metrics = m.result()
	// The time is what the tool divided by: requests over requests per second.
	if t := result.RequestThroughput; t != nil && *t > 0 && !math.IsInf(float64(result.Completed) / *t, 0) {
		result.DurationSeconds = float64(result.Completed) / *t
	} else {
		result.Unknown = append(result.Unknown, duration)
	}
	var ok bool
	if result.InputTokens, ok = tokens(good.object("prompt_len"), result.Completed); !ok {
		result.Unknown = append(result.Unknown, inputTokens)
	}
	if result.OutputTokens, ok = tokens(good.object("output_len"), result.Completed); !ok {
		result.Unknown = append(result.Unknown, outputTokens)
	}
	return []catalog.Result{result}
}

// tokens is the sum that a mean per request was made of.
func tokens(length *reader, requests int64) (int64, bool) {
	mean := length.positive("mean")
	if mean == nil {
		return 0, false
	}
	sum := math.Round(*mean * float64(requests))
	if sum > 1<<53 {
		length.wrong("mean", "%v tokens a request are too many", *mean)
		return 0, false
	}
	return int64(sum), true
}
