// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// parseExported reads a line of /v1/exports/results, so that results move from
// one catalog to another. The run they go to is the importer's choice; the format
// they had at first is kept among the settings.
func parseExported(r *reader) []catalog.Result {
	values := make(map[string]json.RawMessage, len(r.fields))
	for name, f := range r.fields {
		if bytes.Contains(f.raw, []byte(`\u0000`)) {
			r.wrong(name, "it has a NUL character, which cannot be stored; remove it")
			return nil
		}
		values[name] = f.raw
	}
	text, err := json.Marshal(values)
	if err != nil {
		r.wrong("id", "not JSON: %v", err)
		return nil
	}
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	var result catalog.Result
	if err := strict.Decode(&result); err != nil {
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
