// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/spotbench/spotbench/pkg/catalog"
)

func parseVLLM(r *reader) []catalog.Result {
	if !r.needs("vLLM's bench serve; import a file saved with --save-result", "model_id", "num_prompts", "completed", "duration") {
		return nil
	}
	result := catalog.Result{
		Tool:  "vllm bench serve",
		Model: r.text("model_id"), Tokenizer: r.text("tokenizer_id"), Backend: r.text("backend"), LocalDate: r.text("date"),
		Burstiness: r.positive("burstiness"), RequestRate: r.rate("request_rate"),
		Requests: r.count("num_prompts"), Completed: r.count("completed"),
		InputTokens: r.count("total_input_tokens"), OutputTokens: r.count("total_output_tokens"),
		RequestThroughput: r.positive("request_throughput"), OutputThroughput: r.positive("output_throughput"), TotalTokenThroughput: r.positive("total_token_throughput"),
		TTFT: r.flat("ttft_ms", milliseconds), TPOT: r.flat("tpot_ms", milliseconds), ITL: r.flat("itl_ms", milliseconds), E2EL: r.flat("e2el_ms", milliseconds),
		Spotbench: r.provenance("spotbench"),
	}
	if d := r.positive("duration"); d != nil {
		result.DurationSeconds = *d
	}
	// vLLM writes the name with a colon by mistake; other writers leave it out.
	if result.RequestGoodput = r.positive("request_goodput:"); result.RequestGoodput == nil {
		result.RequestGoodput = r.positive("request_goodput")
	}
	if !r.missing("max_concurrency") {
		c := r.count("max_concurrency")
		result.Concurrency = &c
	}
	if result.Model == "" && len(*r.errs) == 0 {
		r.wrong("model_id", "it is empty; give the model's name")
	}
	if result.Completed > result.Requests {
		r.wrong("completed", "%d requests completed of %d asked for; correct num_prompts or completed", result.Completed, result.Requests)
	}
	result.Failed = r.failures(result.Requests - result.Completed)
	return []catalog.Result{result}
}

// rate is the offered load: a number, or "inf" for as fast as possible.
func (r *reader) rate(name string) *float64 {
	if r.missing(name) {
		return nil
	}
	var s string
	if json.Unmarshal(r.fields[name].raw, &s) == nil {
		if s != "inf" {
			r.wrong(name, "%q is no rate; a number per second or \"inf\" belongs here", s)
		}
		return nil
	}
	return r.positive(name)
}

// failures is the number of requests that failed: those the detailed output
// tells an error of, or else those that did not complete.
func (r *reader) failures(incomplete int64) int64 {
	if r.missing("errors") {
		return max(incomplete, 0)
	}
	list := r.list("errors")
	failed := int64(0)
	for _, e := range list {
		if text := string(e); text != `""` && text != "null" {
			failed++
		}
	}
	return max(failed, incomplete)
}

// flat collects the statistics of one quantity from fields such as
// p99_ttft_ms, where the quantity is the part of the name behind the statistic.
func (r *reader) flat(quantity string, factor float64) *catalog.Latency {
	var l latency
	for _, name := range r.names() {
		statistic, ok := strings.CutSuffix(name, "_"+quantity)
		if !ok || statistics[statistic] == "" && !isPercentile(statistic) {
			continue
		}
		if known := statistics[statistic]; known != "" {
			statistic = known
		}
		l.set(statistic, r.scaled(name, factor))
	}
	return l.result()
}

// provenance reads what bench-runner adds.
func (r *reader) provenance(name string) *catalog.Provenance {
	if r.missing(name) {
		return nil
	}
	raw := r.fields[name].raw
	if len(raw) > maxProvenance {
		r.wrong(name, "%d bytes are more than the %d it may have", len(raw), maxProvenance)
		return nil
	}
	if bytes.Contains(raw, []byte(`\u0000`)) {
		r.wrong(name, "it has a NUL character, which no name has; remove it")
		return nil
	}
	var p catalog.Provenance
	if err := json.Unmarshal(raw, &p); err != nil {
		r.wrong(name, "it is not the object that bench-runner writes: %v", err)
		return nil
	}
	if err := json.Unmarshal(raw, &p.Other); err != nil {
		r.wrong(name, "it is no object: %v", err)
		return nil
	}
	for _, known := range []string{"segments", "resumed", "mixedGPU"} {
		delete(p.Other, known)
	}
	if len(p.Other) == 0 {
		p.Other = nil
	}
	return &p
}
