// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// maxText is the longest name that is kept, bytes.
const maxText = 1024

// Factors that turn a tool's unit of time into milliseconds.
const (
	seconds      = 1e3
	milliseconds = 1
	microseconds = 1e-3
	nanoseconds  = 1e-6
)

// reader takes typed values out of an object's fields and collects what is wrong.
type reader struct {
	file string
	// path is where the object is in its document: empty, or ending in a dot.
	path   string
	fields map[string]field
	errs   *[]error
}

func (r *reader) wrong(name, format string, args ...any) {
	*r.errs = append(*r.errs, &FileError{File: r.file, Field: r.path + name, Offset: r.fields[name].offset, Problem: fmt.Sprintf(format, args...)})
}

// missing reports whether the field is absent or null.
func (r *reader) missing(name string) bool {
	f, ok := r.fields[name]
	return !ok || string(f.raw) == "null"
}

// needs reports whether the fields are there that every file of a tool has; if
// not, that is wrong with the file.
func (r *reader) needs(tool string, names ...string) bool {
	var absent []string
	for _, name := range names {
		if r.missing(name) {
			absent = append(absent, r.path+name)
		}
	}
	if len(absent) > 0 {
		*r.errs = append(*r.errs, &FileError{File: r.file, Field: absent[0], Problem: fmt.Sprintf("it lacks %s, which every result file has of %s", strings.Join(absent, ", "), tool)})
	}
	return len(absent) == 0
}

// clean makes a text storable and bounds it.
func clean(s string) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\uFFFD")
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return s
}

func (r *reader) text(name string) string {
	var s string
	if r.missing(name) {
		return ""
	}
	raw := r.fields[name].raw
	// A character takes at most six bytes, as in \u0041.
	if len(raw) <= 6*maxText+2 {
		if err := json.Unmarshal(raw, &s); err != nil {
			r.wrong(name, "%s is no string", short(raw))
		}
	}
	if len(s) > maxText || len(raw) > 6*maxText+2 {
		r.wrong(name, "%d bytes are too long for a name; use at most %d", len(raw), maxText)
		return ""
	}
	return clean(s)
}

// number is a number that fits a float64, or nil where it is absent.
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

// scaled is a positive number in another unit.
func (r *reader) scaled(name string, factor float64) *float64 {
	v := r.positive(name)
	if v == nil {
		return nil
	}
	scaled := *v * factor
	if math.IsInf(scaled, 0) {
		r.wrong(name, "%v is too large for a time", *v)
		return nil
	}
	return &scaled
}

// count is a whole number from zero; 0 where it is absent.
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

// limit is a count that may be absent.
func (r *reader) limit(name string) *int64 {
	if r.missing(name) {
		return nil
	}
	c := r.count(name)
	return &c
}

// object is the object of that name, without fields where it is absent.
func (r *reader) object(name string) *reader {
	inner := &reader{file: r.file, path: r.path + name + ".", errs: r.errs}
	if r.missing(name) {
		return inner
	}
	inner.fields = r.nested(name, r.fields[name].raw)
	return inner
}

// nested reads the fields of an object inside a document, at most maxFields.
func (r *reader) nested(name string, raw json.RawMessage) map[string]field {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		r.wrong(name, "%s is no object", short(raw))
		return nil
	}
	fields := map[string]field{}
	for dec.More() {
		key, err := dec.Token()
		// The place of a nested value is that of what holds it.
		f := field{offset: r.fields[name].offset}
		if err == nil {
			err = dec.Decode(&f.raw)
		}
		if err != nil {
			r.wrong(name, "not JSON: %v", err)
			return nil
		}
		text, _ := key.(string) // inside an object the decoder gives strings here, or an error
		if fields[text] = f; len(fields) > maxFields {
			r.wrong(name, "it has more than %d fields, which no benchmark writes; check that this is a result file", maxFields)
			return nil
		}
	}
	return fields
}

// maxEntries is the most entries of a list that is read; vLLM's and SGLang's have
// one a request.
const maxEntries = 1 << 20

// list is the list of that name.
func (r *reader) list(name string) []json.RawMessage {
	if r.missing(name) {
		return nil
	}
	raw := r.fields[name].raw
	dec := json.NewDecoder(bytes.NewReader(raw))
	if start, err := dec.Token(); err != nil || start != json.Delim('[') {
		r.wrong(name, "%s is no list", short(raw))
		return nil
	}
	values := []json.RawMessage{}
	for dec.More() {
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			r.wrong(name, "not JSON: %v", err)
			return nil
		}
		if values = append(values, value); len(values) > maxEntries {
			r.wrong(name, "it has more than %d entries, which no benchmark writes; check that this is a result file", maxEntries)
			return nil
		}
	}
	return values
}

// objects is the list of objects of that name.
func (r *reader) objects(name string) []*reader {
	var out []*reader
	for n, raw := range r.list(name) {
		if len(out) == MaxResults {
			r.wrong(name, "it has more than the %d entries a file may have; split it", MaxResults)
			break
		}
		out = append(out, &reader{file: r.file, path: fmt.Sprintf("%s%s[%d].", r.path, name, n), errs: r.errs, fields: r.nested(name, raw)})
	}
	return out
}

// names are the object's fields in order.
func (r *reader) names() []string {
	names := make([]string, 0, len(r.fields))
	for name := range r.fields {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// settings keeps scalars as text under their own names.
func (r *reader) settings(into map[string]string, names ...string) map[string]string {
	for _, name := range names {
		if r.missing(name) {
			continue
		}
		raw := r.fields[name].raw
		var s string
		if json.Unmarshal(raw, &s) != nil {
			if raw[0] == '{' || raw[0] == '[' {
				continue
			}
			s = string(raw)
		}
		if into == nil {
			into = map[string]string{}
		}
		into[name] = clean(s)
	}
	return into
}

// statistics maps what tools call the numbers of a distribution to one name.
var statistics = map[string]string{"mean": "mean", "avg": "mean", "median": "median", "p50": "median", "std": "std", "std_dev": "std", "stddev": "std", "p99": "p99", "min": "min", "max": "max"}

// latency reads a distribution whose numbers are in the object's fields.
func (r *reader) latency(factor float64) *catalog.Latency {
	var l latency
	for _, name := range r.names() {
		statistic, ok := statistics[name]
		if !ok {
			if !isPercentile(name) {
				continue
			}
			statistic = name
		}
		if statistic == "median" && name == "p50" && !r.missing("median") {
			continue
		}
		l.set(statistic, r.scaled(name, factor))
	}
	return l.result()
}

// latency is a distribution while it is put together.
type latency struct {
	catalog.Latency
	found bool
}

func (l *latency) set(statistic string, ms *float64) {
	if ms == nil {
		return
	}
	l.found = true
	switch statistic {
	case "mean":
		l.MeanMs = ms
	case "median":
		l.MedianMs = ms
	case "std":
		l.StdMs = ms
	case "p99":
		l.P99Ms = ms
	default:
		if l.PercentilesMs == nil {
			l.PercentilesMs = map[string]float64{}
		}
		l.PercentilesMs[statistic] = *ms
	}
}

func (l *latency) result() *catalog.Latency {
	if !l.found {
		return nil
	}
	return &l.Latency
}

// isPercentile reports whether the name is p0 to p100, with up to three decimals.
func isPercentile(name string) bool {
	digits, ok := strings.CutPrefix(name, "p")
	if !ok || len(digits) > 7 || digits == "" || strings.Trim(digits, "0123456789.") != "" {
		return false
	}
	v, err := strconv.ParseFloat(digits, 64)
	return err == nil && v <= 100
}

// metrics collects further numbers.
type metrics map[string]float64

func (m metrics) set(name string, v *float64) {
	if v != nil && !math.IsNaN(*v) && !math.IsInf(*v, 0) {
		m[clean(name)] = *v
	}
}

// result is nil where there are none, so that the field is left out.
func (m metrics) result() map[string]float64 {
	if len(m) == 0 {
		return nil
	}
	return m
}

// short quotes the beginning of a value for a message.
func short(raw json.RawMessage) string {
	if len(raw) > 40 {
		return strings.ToValidUTF8(string(raw[:40]), "") + "…"
	}
	return string(raw)
}
