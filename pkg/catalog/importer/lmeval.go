// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"slices"
	"strings"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// parseLMEval reads results_*.json of lm-evaluation-harness: one result per task
// or group, whose numbers keep their names, "metric,filter". Its requests are the
// samples that were scored. What it says once for all tasks (the time) is not
// divided among them.
func parseLMEval(r *reader) []catalog.Result {
	if !r.needs("lm-evaluation-harness", "results") {
		return nil
	}
	scores, config := r.object("results"), r.object("config")
	samples, shots, versions := r.maybe("n-samples"), r.maybe("n-shot"), r.maybe("versions")
	model := r.text("model_name")
	if model == "" {
		model = pretrained(config)
	}
	var results []catalog.Result
	for _, task := range scores.names() {
		values := scores.object(task)
		m := metrics{}
		for _, name := range values.names() {
			// Beside numbers there are an alias and "N/A" for a deviation that is unknown.
			if isNumber(values.fields[name].raw) && strings.Contains(name, ",") {
				m.set(name, values.number(name))
			}
		}
		if len(m) == 0 {
			continue // a group that only names its tasks
		}
		result := catalog.Result{
			Tool: "lm-eval", ToolVersion: r.text("lm_eval_version"), Model: model, Metrics: m.result(),
			Settings: map[string]string{"task": clean(task)}, Unknown: []string{failed, duration, inputTokens, outputTokens},
		}
		for name, from := range map[string]*reader{"n-shot": shots, "task_version": versions} {
			if value := from.settings(nil, task)[task]; value != "" {
				result.Settings[name] = value
			}
		}
		result.Settings = config.settings(result.Settings, "batch_size", "limit", "random_seed", "model_dtype", "model_revision")
		if n := samples.maybe(task); !n.missing("effective") {
			result.Requests = n.count("effective")
			result.Completed = result.Requests
		} else {
			result.Unknown = append(result.Unknown, requests, completed)
		}
		slices.Sort(result.Unknown)
		results = append(results, result)
	}
	return results
}

// pretrained is the model in model_args, "pretrained=org/name,dtype=…" or an object.
func pretrained(config *reader) string {
	if args := config.maybe("model_args"); args.fields != nil {
		return args.text("pretrained")
	}
	if config.missing("model_args") || config.fields["model_args"].raw[0] != '"' {
		return ""
	}
	for part := range strings.SplitSeq(config.text("model_args"), ",") {
		if name, value, ok := strings.Cut(part, "="); ok && (name == "pretrained" || name == "model") {
			return value
		}
	}
	return ""
}
