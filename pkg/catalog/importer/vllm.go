// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// percentile matches the latency statistics: mean_ttft_ms, p99_itl_ms, p99.9_e2el_ms.
var percentile = regexp.MustCompile(`^(mean|median|std|p[0-9]{1,3}(?:\.[0-9]{1,3})?)_(ttft|tpot|itl|e2el)_ms$`)

// reader takes typed values out of the fields and collects what is wrong.
type reader struct {
	file   string
	fields map[string]field
	errs   []error
}

func (r *reader) wrong(name, format string, args ...any) {
	r.errs = append(r.errs, &FileError{File: r.file, Field: name, Offset: r.fields[name].offset, Problem: fmt.Sprintf(format, args...)})
}

// missing reports whether the field is absent or null.
func (r *reader) missing(name string) bool {
	f, ok := r.fields[name]
	return !ok || string(f.raw) == "null"
}

func (r *reader) text(name string) string {
	var s string
	if r.missing(name) {
		return ""
	}
	if err := json.Unmarshal(r.fields[name].raw, &s); err != nil {
		r.wrong(name, "%s is no string", short(r.fields[name].raw))
	}
	if len(s) > 1024 {
		r.wrong(name, "%d bytes are too long for a name; use at most 1024", len(s))
		return ""
	}
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\uFFFD")
}

func (r *reader) number(name string) *float64 {
	if r.missing(name) {
		return nil
	}
	var v float64
	if err := json.Unmarshal(r.fields[name].raw, &v); err != nil {
		r.wrong(name, "%s is no number; a number or null belongs here", short(r.fields[name].raw))
		return nil
	}
	return &v
}

// positive is a number that cannot be below zero.
func (r *reader) positive(name string) *float64 {
	v := r.number(name)
	if v != nil && *v < 0 {
		r.wrong(name, "%v is negative; this cannot be", *v)
		return nil
	}
	return v
}

// count is a whole number from zero.
func (r *reader) count(name string) int64 {
	v := r.positive(name)
	if v == nil {
		return 0
	}
	if *v != math.Trunc(*v) || *v > 1<<53 {
		r.wrong(name, "%v is no count; a whole number belongs here", *v)
		return 0
	}
	return int64(*v)
}

func parseVLLM(file string, fields map[string]field) (catalog.Result, error) {
	r := &reader{file: file, fields: fields}
	var absent []string
	for _, name := range []string{"model_id", "num_prompts", "completed", "duration"} {
		if r.missing(name) {
			absent = append(absent, name)
		}
	}
	if len(absent) > 0 {
		return catalog.Result{}, &FileError{File: file, Field: absent[0], Problem: fmt.Sprintf(
			"it lacks %s, which every result file of vLLM's bench serve has; import a file saved with --save-result", strings.Join(absent, ", "))}
	}
	result := catalog.Result{
		Model: r.text("model_id"), Tokenizer: r.text("tokenizer_id"), Backend: r.text("backend"), LocalDate: r.text("date"),
		Burstiness: r.positive("burstiness"), RequestRate: r.rate("request_rate"),
		Requests: r.count("num_prompts"), Completed: r.count("completed"),
		InputTokens: r.count("total_input_tokens"), OutputTokens: r.count("total_output_tokens"),
		RequestThroughput: r.positive("request_throughput"), OutputThroughput: r.positive("output_throughput"), TotalTokenThroughput: r.positive("total_token_throughput"),
		TTFT: r.latency("ttft"), TPOT: r.latency("tpot"), ITL: r.latency("itl"), E2EL: r.latency("e2el"),
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
	if result.Model == "" && len(r.errs) == 0 {
		r.wrong("model_id", "it is empty; give the model's name")
	}
	if result.Completed > result.Requests {
		r.wrong("completed", "%d requests completed of %d asked for; correct num_prompts or completed", result.Completed, result.Requests)
	}
	result.Failed = r.failures(result.Requests - result.Completed)
	return result, errors.Join(r.errs...)
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
	var list []json.RawMessage
	if json.Unmarshal(r.fields["errors"].raw, &list) != nil {
		r.wrong("errors", "it is no list; one string per request belongs here")
		return 0
	}
	failed := int64(0)
	for _, e := range list {
		if text := string(e); text != `""` && text != "null" {
			failed++
		}
	}
	return max(failed, incomplete)
}

// latency collects the statistics of one quantity, in milliseconds.
func (r *reader) latency(quantity string) *catalog.Latency {
	var l catalog.Latency
	found := false
	for name := range r.fields {
		m := percentile.FindStringSubmatch(name)
		if m == nil || m[2] != quantity {
			continue
		}
		v := r.positive(name)
		if v == nil {
			continue
		}
		found = true
		switch m[1] {
		case "mean":
			l.MeanMs = v
		case "median":
			l.MedianMs = v
		case "std":
			l.StdMs = v
		case "p99":
			l.P99Ms = v
		default:
			if l.PercentilesMs == nil {
				l.PercentilesMs = map[string]float64{}
			}
			l.PercentilesMs[m[1]] = *v
		}
	}
	if !found {
		return nil
	}
	return &l
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

// short quotes the beginning of a value for a message.
func short(raw json.RawMessage) string {
	if len(raw) > 40 {
		return string(raw[:40]) + "…"
	}
	return string(raw)
}
