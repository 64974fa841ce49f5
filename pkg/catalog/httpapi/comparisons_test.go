// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/client"
	"github.com/spotbench/spotbench/pkg/catalog/compare"
	"github.com/spotbench/spotbench/pkg/catalog/filter"
)

func TestWhatWasImportedIsComparedFollowedFromVersionToVersionAndChosenFrom(t *testing.T) {
	s := newStage(t)
	for n := range 4 {
		for version, throughput := range map[string]int{"0.10.0": 200 + n, "0.11.0": 100 + n} {
			key := fmt.Sprintf("compare/v%s-%d", version, n)
			if _, err := s.client.PutRun(t.Context(), key, catalog.Run{Model: "org/compared", Benchmark: "chat", Status: catalog.Succeeded, GPUModel: "H100-80GB", GPUCount: 1, Engine: "vllm", EngineVersion: version, USDPerHour: 3.6}); err != nil {
				t.Fatal(err)
			}
			file := fmt.Sprintf(`{"date":"20260101-000000","backend":"vllm","model_id":"org/compared","tokenizer_id":"t","num_prompts":200,"request_rate":"inf","burstiness":1.0,"max_concurrency":8,"duration":10,"completed":200,
				"total_input_tokens":1000,"total_output_tokens":1000,"request_throughput":20,"output_throughput":%d,"total_token_throughput":%d,"mean_ttft_ms":10,"median_ttft_ms":10,"std_ttft_ms":1,"p99_ttft_ms":%d}`, throughput, 2*throughput, 20000/throughput)
			if _, err := s.client.Import(t.Context(), key, "c8.json", []byte(file)); err != nil {
				t.Fatal(err)
			}
		}
	}
	of := filter.Runs{Model: "org/compared"}
	report, err := s.client.Compare(t.Context(), filter.Comparison{By: []string{"engineVersion"}, Base: "0.10.0", Runs: of})
	if err != nil || len(report.Configurations) != 2 || report.Lines[0].Cells[1].ToBase.Effect != compare.Worse {
		t.Errorf("comparison %+v, %v; want 0.11.0 worse", report, err)
	}
	// Halved: the medians 201.5 and 101.5.
	regressions, err := s.client.Regressions(t.Context(), filter.Regressions{Runs: of})
	if err != nil || len(regressions.Items) == 0 || regressions.Items[0].To != "0.11.0" || regressions.ThresholdPercent != 5 {
		t.Errorf("regressions %+v, %v", regressions, err)
	}
	frontier, err := s.client.Pareto(t.Context(), filter.Pareto{Runs: of})
	if err != nil || len(frontier.Choices) != 2 || !frontier.Choices[0].Frontier || frontier.Choices[1].Frontier || len(frontier.Objectives) != 3 {
		t.Errorf("frontier %+v, %v; want 0.10.0 alone, in three objectives", frontier, err)
	}
	if _, err := s.client.Compare(t.Context(), filter.Comparison{Run: []string{"compare/none", "compare/v0.10.0-0"}}); !client.IsStatus(err, http.StatusNotFound) {
		t.Errorf("a run that is not there: %v", err)
	}
	if _, err := s.client.Compare(t.Context(), filter.Comparison{Runs: of, By: []string{"gpuModel"}}); !client.IsStatus(err, http.StatusUnprocessableEntity) {
		t.Errorf("one configuration: %v", err)
	}
}
