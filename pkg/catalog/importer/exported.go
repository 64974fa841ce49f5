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
	for name, negative := range map[string]bool{requests: result.Requests < 0, completed: result.Completed < 0, failed: result.Failed < 0, duration: result.DurationSeconds < 0,
		inputTokens: result.InputTokens < 0, outputTokens: result.OutputTokens < 0} {
		if negative {
			r.wrong(name, "it is negative; this cannot be")
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
	return []catalog.Result{result}
}

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
