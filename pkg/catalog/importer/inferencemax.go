// SPDX-License-Identifier: Apache-2.0

package importer

import "github.com/spotbench/spotbench/pkg/catalog"

// parseInferenceMAX reads one configuration of an InferenceMAX aggregate. Its
// times are seconds. Throughput stays per GPU: the file does not tell how many
// GPUs there were beyond its parallelism settings. std_intvty is left out: it is
// the inverse of std_tpot, not a deviation of anything.
func parseInferenceMAX(r *reader) []catalog.Result {
	if !r.needs("InferenceMAX's aggregate", "hw", "model", "conc", "tput_per_gpu") {
		return nil
	}
	m := metrics{}
	m.set("total_tokens_per_second_per_gpu", r.positive("tput_per_gpu"))
	m.set("output_tokens_per_second_per_gpu", r.positive("output_tput_per_gpu"))
	m.set("input_tokens_per_second_per_gpu", r.positive("input_tput_per_gpu"))
	for _, statistic := range []string{"mean", "median", "p99"} {
		m.set("interactivity_"+statistic+"_tokens_per_second_per_user", r.positive(statistic+"_intvty"))
	}
	return []catalog.Result{{
		Tool: "InferenceMAX", Model: r.text("model"), Backend: r.text("framework"), Concurrency: r.limit("conc"),
		TTFT: r.flat("ttft", seconds), TPOT: r.flat("tpot", seconds), ITL: r.flat("itl", seconds), E2EL: r.flat("e2el", seconds),
		Metrics: m.result(), Settings: r.settings(nil, "hw", "tp", "ep", "dp_attention", "precision", "mtp"),
		Unknown: []string{requests, completed, failed, duration, inputTokens, outputTokens},
	}}
}
