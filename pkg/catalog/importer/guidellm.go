// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"math"
	"strings"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// parseGuideLLM reads benchmarks.json of version 1: one result per benchmark,
// from its successful requests. Times that end in _ms are milliseconds, the
// request's latency is seconds. GuideLLM's inter-token latency is a request's
// time after the first token over the tokens after it, which is tpot here; its
// time per output token has the first token in it and is kept apart.
func parseGuideLLM(r *reader) []catalog.Result {
	meta := r.object("metadata")
	version := meta.number("version")
	if version == nil || *version != 1 {
		what := "without metadata.version (before 0.4)"
		if version != nil {
			what = "of version " + short(meta.fields["version"].raw)
		}
		*r.errs = append(*r.errs, &UnsupportedError{File: r.file, Format: "GuideLLM " + what, Instead: "version 1 is (GuideLLM 0.4 and 0.5), so benchmark with one of those"})
		return nil
	}
	args := r.object("args")
	var results []catalog.Result
	for _, b := range r.objects("benchmarks") {
		if !b.needs("GuideLLM", "config", "metrics") {
			continue
		}
		config, m := b.object("config"), b.object("metrics")
		strategy, totals := config.object("strategy"), m.object("request_totals")
		if !totals.needs("GuideLLM", "successful", "errored") {
			continue
		}
		successful := func(metric string) *reader { return m.object(metric).object("successful") }
		result := catalog.Result{
			Tool: "guidellm", ToolVersion: meta.text("guidellm_version"), Model: config.object("backend").text("model"), Backend: args.text("backend"),
			RequestRate: strategy.positive("rate"), Completed: totals.count("successful"), Failed: totals.count("errored"),
			Requests:          totals.count("successful") + totals.count("errored") + totals.count("incomplete"),
			RequestThroughput: successful("requests_per_second").positive("mean"), OutputThroughput: successful("output_tokens_per_second").positive("mean"),
			TotalTokenThroughput: successful("tokens_per_second").positive("mean"),
			TTFT:                 successful("time_to_first_token_ms").guideLLM(milliseconds), TPOT: successful("inter_token_latency_ms").guideLLM(milliseconds),
			E2EL:     successful("request_latency").guideLLM(seconds),
			Settings: strategy.settings(nil, "type_", "rampup_duration"),
		}
		if result.Model == "" {
			result.Model = args.text("model")
		}
		result.Settings = args.settings(result.Settings, "profile", "request_format", "random_seed", "max_seconds", "max_requests")
		if streams := strategy.limit("streams"); streams != nil && *streams > 0 {
			result.Concurrency = streams
		} else {
			result.Concurrency = strategy.limit("max_concurrency")
		}
		more := metrics{}
		for _, statistic := range []string{"mean", "median"} {
			more.set("time_per_output_token_with_first_"+statistic+"_ms", successful("time_per_output_token_ms").positive(statistic))
		}
		more.set("request_concurrency_mean", successful("request_concurrency").positive("mean"))
		more.set("incomplete_requests", totals.positive("incomplete"))
		result.Metrics = more.result()
		if d := b.positive("duration"); d != nil {
			result.DurationSeconds = *d
		} else {
			result.Unknown = append(result.Unknown, duration)
		}
		var ok bool
		if result.InputTokens, ok = sum(successful("prompt_token_count")); !ok {
			result.Unknown = append(result.Unknown, inputTokens)
		}
		if result.OutputTokens, ok = sum(successful("output_token_count")); !ok {
			result.Unknown = append(result.Unknown, outputTokens)
		}
		results = append(results, result)
	}
	return results
}

// sum is the whole number total_sum.
func sum(r *reader) (int64, bool) {
	v := r.positive("total_sum")
	if v == nil || math.Round(*v) > 1<<53 {
		return 0, false
	}
	return int64(math.Round(*v)), true
}

// guideLLM reads a distribution whose percentiles are in an object of their own,
// named p05 for the 5th and p999 for the 99.9th. One of nothing is none.
func (r *reader) guideLLM(factor float64) *catalog.Latency {
	if count := r.number("count"); count != nil && *count == 0 {
		return nil
	}
	var l latency
	for _, name := range []string{"mean", "median", "std_dev", "min", "max"} {
		l.set(statistics[name], r.scaled(name, factor))
	}
	percentiles := r.object("percentiles")
	for _, name := range percentiles.names() {
		digits, ok := strings.CutPrefix(name, "p")
		if !ok || len(digits) < 2 || len(digits) > 3 || strings.Trim(digits, "0123456789") != "" {
			percentiles.wrong(name, "it is no percentile that GuideLLM writes (p001 to p999)")
			continue
		}
		if name == "p50" {
			continue // the median
		}
		statistic := "p" + strings.TrimPrefix(digits[:2], "0")
		if len(digits) == 3 {
			statistic += "." + digits[2:]
		}
		if statistic == "p" || strings.HasPrefix(statistic, "p.") {
			statistic = "p0" + statistic[1:]
		}
		l.set(statistic, percentiles.scaled(name, factor))
	}
	return l.result()
}
