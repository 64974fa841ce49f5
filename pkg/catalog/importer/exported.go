// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"bytes"
	"encoding/json"
	"iter"
	"maps"
	"slices"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// parseExported reads a line of /v1/exports/results, so that results move from
// one catalog to another. The run they go to is the importer's choice; the format
// they had at first is kept among the settings.
func parseExported(r *reader) []catalog.Result {
	for name, f := range r.fields {
		if bytes.Contains(f.raw, []byte(`\u0000`)) {
			r.wrong(name, "it has a NUL character, which cannot be stored; remove it")
			return nil
		}
	}
	result, err := strictly(r.fields, maps.Keys(r.fields))
	if err != nil { // told of the first by name, not of any
		_, err = strictly(r.fields, slices.Values(slices.Sorted(maps.Keys(r.fields))))
		r.wrong("id", "it is not a result as this version exports it: %v", err)
		return nil
	}
	r.check(&result)
	return []catalog.Result{result}
}

// check says what cannot be of a result that was exported, and makes it one that may be
// imported.
func (r *reader) check(result *catalog.Result) {
	if min(result.Requests, result.Completed, result.Failed, result.InputTokens, result.OutputTokens) < 0 || result.DurationSeconds < 0 {
		for name, negative := range map[string]bool{requests: result.Requests < 0, completed: result.Completed < 0, failed: result.Failed < 0, duration: result.DurationSeconds < 0,
			inputTokens: result.InputTokens < 0, outputTokens: result.OutputTokens < 0} {
			if negative {
				r.wrong(name, "it is negative; this cannot be")
			}
		}
	}
	if result.Completed > result.Requests && result.States(requests) {
		r.wrong(completed, "%d requests completed of %d asked for", result.Completed, result.Requests)
	}
	for _, name := range result.Unknown {
		if !slices.Contains([]string{requests, completed, failed, duration, inputTokens, outputTokens}, name) {
			r.wrong("unknown", "%q is no field that can be unknown", clean(name))
		}
	}
	if result.Format != "" && result.Format != Exported {
		if result.Settings == nil {
			result.Settings = map[string]string{}
		}
		result.Settings["sourceFormat"] = clean(result.Format)
	}
	// These name the result in the catalog it comes from.
	result.ID, result.ImportID, result.RunKey, result.File, result.Format = "", "", "", "", ""
}

// exportedLines reads results as they are written by an export, without taking their
// fields apart first. ok is false if one is anything else: a field twice, an escape, a
// fault.
func exportedLines(file string, data []byte, documents []span) (results []catalog.Result, ok bool) {
	results = make([]catalog.Result, len(documents))
	var errs []error
	r := &reader{file: file, errs: &errs}
	for n, d := range documents {
		text := data[d.start:d.end]
		if bytes.IndexByte(text, '\\') >= 0 {
			return nil, false
		}
		for _, name := range objects {
			if bytes.Count(text, name) > 1 {
				return nil, false
			}
		}
		strict := json.NewDecoder(bytes.NewReader(text))
		strict.DisallowUnknownFields()
		result := &results[n]
		if strict.Decode(result) != nil || strict.InputOffset() != int64(len(text)) {
			return nil, false
		}
		if result.ImportID == "" || result.RunKey == "" || result.Format == "" || result.DurationSeconds == 0 {
			return nil, false // by these the format is known
		}
		if r.check(result); len(errs) > 0 {
			return nil, false
		}
	}
	return results, true
}

// objects are the fields of a result that are objects. Two of one name would be merged by
// encoding/json, where the last one holds.
var objects = [][]byte{[]byte(`"ttft"`), []byte(`"tpot"`), []byte(`"itl"`), []byte(`"e2el"`), []byte(`"metrics"`), []byte(`"settings"`), []byte(`"spotbench"`)}

// strictly reads a result of these fields and no others.
func strictly(fields map[string]field, names iter.Seq[string]) (result catalog.Result, err error) {
	size := 2
	for name, f := range fields {
		size += len(name) + len(f.raw) + 4
	}
	text := append(make([]byte, 0, size), '{')
	for name := range names {
		if len(text) > 1 {
			text = append(text, ',')
		}
		quoted, err := json.Marshal(name)
		if err != nil {
			return result, err
		}
		text = append(append(append(text, quoted...), ':'), fields[name].raw...)
	}
	strict := json.NewDecoder(bytes.NewReader(append(text, '}')))
	strict.DisallowUnknownFields()
	err = strict.Decode(&result)
	return result, err
}
