// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"strings"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// timeUnits are the units of time that GenAI-Perf and AIPerf write.
var timeUnits = map[string]float64{"ms": milliseconds, "sec": seconds, "s": seconds, "us": microseconds, "ns": nanoseconds}

// exported reads metrics as GenAI-Perf and AIPerf export them: an object each,
// with a unit.
type exported struct{ *reader }

// latency is the distribution of a time; a unit that is not known is refused.
func (e exported) latency(name string) *catalog.Latency {
	if e.missing(name) {
		return nil
	}
	metric := e.object(name)
	factor, ok := timeUnits[metric.text("unit")]
	if !ok {
		metric.wrong("unit", "%q is no unit of time known here; ms, sec, us or ns belongs here", metric.text("unit"))
		return nil
	}
	return metric.latency(factor)
}

// average is the mean of a metric whose unit must be one of those.
func (e exported) average(name string, units ...string) *float64 {
	if e.missing(name) {
		return nil
	}
	metric := e.object(name)
	unit := metric.text("unit")
	for _, u := range units {
		if unit == u {
			return metric.positive("avg")
		}
	}
	metric.wrong("unit", "%q is no unit known here; %s belongs here", unit, strings.Join(units, " or "))
	return nil
}

// whole is an average that is a count.
func (e exported) whole(name string, units ...string) (int64, bool) {
	v := e.average(name, units...)
	if v == nil || *v != float64(int64(*v)) || *v > 1<<53 {
		return 0, false
	}
	return int64(*v), true
}

var (
	perSecond = map[string][]string{"requests": {"requests/sec", "requests per sec"}, "tokens": {"tokens/sec", "tokens per sec"}}
	ofCount   = []string{"requests", "count"}
)

// common reads what both tools write under the same names. Their inter-token
// latency is a request's time after the first token over the tokens after it,
// which is tpot here.
func (e exported) common() catalog.Result {
	result := catalog.Result{
		RequestThroughput: e.average("request_throughput", perSecond["requests"]...), OutputThroughput: e.average("output_token_throughput", perSecond["tokens"]...),
		TTFT: e.latency("time_to_first_token"), TPOT: e.latency("inter_token_latency"), E2EL: e.latency("request_latency"),
	}
	var ok bool
	if result.Completed, ok = e.whole("request_count", ofCount...); !ok {
		result.Unknown = append(result.Unknown, requests, completed)
	}
	result.Requests = result.Completed
	return result
}

// more are the metrics that have no column.
func (e exported) more(m metrics) {
	if v := e.latency("time_to_second_token"); v != nil {
		m.set("time_to_second_token_mean_ms", v.MeanMs)
	}
	m.set("output_tokens_per_second_per_user", e.average("output_token_throughput_per_user", "tokens/sec/user", "tokens/sec", "tokens per sec"))
	m.set("input_tokens_per_request_mean", e.average("input_sequence_length", "tokens"))
	m.set("output_tokens_per_request_mean", e.average("output_sequence_length", "tokens"))
}

// parseGenAIPerf reads profile_export_genai_perf.json.
func parseGenAIPerf(r *reader) []catalog.Result {
	e := exported{r}
	result := e.common()
	config := r.object("input_config")
	result.Tool, result.Model = "genai-perf", firstModel(config, "model", "model_names")
	result.RequestGoodput = e.average("request_goodput", perSecond["requests"]...)
	if c := config.fields["concurrency"]; isNumber(c.raw) {
		result.Concurrency = config.limit("concurrency")
	}
	if c := config.fields["request_rate"]; isNumber(c.raw) {
		result.RequestRate = config.positive("request_rate")
	}
	if analyzer := config.fields["perf_analyzer"]; len(analyzer.raw) > 0 && analyzer.raw[0] == '{' {
		stimulus := config.object("perf_analyzer").object("stimulus")
		if result.Concurrency == nil {
			result.Concurrency = stimulus.limit("concurrency")
		}
		if result.RequestRate == nil {
			result.RequestRate = stimulus.positive("request_rate")
		}
	}
	m := metrics{}
	e.more(m)
	result.Metrics = m.result()
	result.Settings = config.settings(nil, "endpoint_type", "streaming", "backend", "service_kind")
	result.Unknown = append(result.Unknown, failed, duration, inputTokens, outputTokens)
	return []catalog.Result{result}
}

// parseAIPerf reads profile_export_aiperf.json.
func parseAIPerf(r *reader) []catalog.Result {
	e := exported{r}
	result := e.common()
	config := r.object("input_config")
	endpoint, load := config.maybe("endpoint"), config.maybe("loadgen")
	result.Tool, result.ToolVersion = "aiperf", r.text("aiperf_version")
	result.Model = firstModel(endpoint, "model_names")
	if result.Model == "" {
		result.Model = firstModel(config, "model_names", "model")
	}
	if isNumber(load.fields["concurrency"].raw) {
		result.Concurrency = load.limit("concurrency")
	}
	if isNumber(load.fields["request_rate"].raw) {
		result.RequestRate = load.positive("request_rate")
	}
	result.ITL = e.latency("inter_chunk_latency")
	result.TotalTokenThroughput = e.average("total_token_throughput", perSecond["tokens"]...)
	result.RequestGoodput = e.average("goodput", perSecond["requests"]...)
	if errored, ok := e.whole("error_request_count", ofCount...); ok {
		result.Failed = errored
	} else {
		// Failures are summed up by kind; none at all leaves the list empty.
		for _, kind := range r.objects("error_summary") {
			result.Failed += kind.count("count")
		}
		if r.missing("error_summary") {
			result.Unknown = append(result.Unknown, failed)
		}
	}
	result.Requests = result.Completed + result.Failed
	if !r.missing("benchmark_duration") {
		d := r.object("benchmark_duration")
		factor, ok := timeUnits[d.text("unit")]
		if !ok {
			d.wrong("unit", "%q is no unit of time known here; sec belongs here", d.text("unit"))
		} else if v := d.scaled("avg", factor/seconds); v != nil {
			result.DurationSeconds = *v
		}
	} else {
		result.Unknown = append(result.Unknown, duration)
	}
	var ok bool
	if result.InputTokens, ok = e.whole("total_isl", "tokens"); !ok {
		result.Unknown = append(result.Unknown, inputTokens)
	}
	if result.OutputTokens, ok = e.whole("total_output_tokens", "tokens"); !ok {
		if result.OutputTokens, ok = e.whole("total_osl", "tokens"); !ok {
			result.Unknown = append(result.Unknown, outputTokens)
		}
	}
	m := metrics{}
	e.more(m)
	result.Metrics = m.result()
	result.Settings = r.settings(nil, "schema_version", "was_cancelled", "start_time", "end_time")
	result.Settings = endpoint.settings(result.Settings, "type", "streaming")
	return []catalog.Result{result}
}

// maybe is the object of that name, or one without fields where it is another
// kind of value: the tool calls its configuration unstable.
func (r *reader) maybe(name string) *reader {
	if raw := r.fields[name].raw; len(raw) > 0 && raw[0] == '{' {
		return r.object(name)
	}
	return &reader{file: r.file, path: r.path + name + ".", errs: r.errs}
}

// firstModel is the model, if it is one: a string, or a list of one.
func firstModel(r *reader, names ...string) string {
	for _, name := range names {
		if r.missing(name) {
			continue
		}
		switch r.fields[name].raw[0] {
		case '"':
			return r.text(name)
		case '[':
			if models := r.list(name); len(models) == 1 {
				one := &reader{file: r.file, path: r.path, errs: r.errs, fields: map[string]field{name: {raw: models[0], offset: r.fields[name].offset}}}
				return one.text(name)
			}
		}
	}
	return ""
}

func isNumber(raw []byte) bool {
	return len(raw) > 0 && (raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9')
}
