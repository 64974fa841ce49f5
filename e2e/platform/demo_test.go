// SPDX-License-Identifier: Apache-2.0

package platform_test

import (
	"math"
	"slices"
	"testing"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/filter"
	"github.com/spotbench/spotbench/pkg/demo"
)

// TestAnInterruptedBenchmarkIsFinishedElsewhereAndNothingIsLost is the demo's own
// scenario, held to more than its last screen says.
func TestAnInterruptedBenchmarkIsFinishedElsewhereAndNothingIsLost(t *testing.T) {
	report, err := stage.Play(t.Context(), demo.DefaultNotice)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Err(); err != nil {
		t.Error(err)
	}
	if len(report.Pods) != 3 {
		t.Fatalf("%d benchmarks, want 3", len(report.Pods))
	}
	byModel := map[string]demo.PodReport{}
	for _, p := range report.Pods {
		run, err := stage.Catalog.GetRun(t.Context(), p.Run)
		if err != nil {
			t.Fatal(err)
		}
		byModel[run.Model] = p
		if p.Why == "" {
			t.Errorf("%s: the placement has no reason", p.Name)
		}
		if p.CostUSD <= 0 || p.CostUSD >= p.OnDemandCostUSD && p.Interruptions == 0 {
			t.Errorf("%s cost $%.4f, $%.4f on demand: a spot run costs something, and less", p.Name, p.CostUSD, p.OnDemandCostUSD)
		}
		if len(run.Telemetry) == 0 || run.EnergyJoules <= 0 {
			t.Errorf("%s: no GPU telemetry in the catalog", p.Name)
		}
		for _, result := range run.Results {
			if result.Completed != result.Requests {
				t.Errorf("%s %s: %d of %d requests", p.Name, result.File, result.Completed, result.Requests)
			}
			measured := int64(0)
			for _, segment := range result.Spotbench.Segments {
				measured += segment.Completed
			}
			if measured != result.Completed {
				t.Errorf("%s %s: its segments have %d requests, the result %d", p.Name, result.File, measured, result.Completed)
			}
		}
	}

	qwen, ok := byModel["Qwen/Qwen2.5-72B-Instruct"]
	if !ok {
		t.Fatalf("no Qwen among %v", byModel)
	}
	t.Run("the benchmark that prefers H100 ran there first and then on an A100", func(t *testing.T) {
		if len(qwen.Nodes) != 2 || qwen.Nodes[0] != "h100-spot-0" || qwen.GPUModel != "A100-80GB" || qwen.GPUCount != 4 {
			t.Errorf("nodes %v, finished on %d× %s", qwen.Nodes, qwen.GPUCount, qwen.GPUModel)
		}
	})
	t.Run("it was interrupted once, saved, and lost less than two seconds", func(t *testing.T) {
		run, err := stage.Catalog.GetRun(t.Context(), qwen.Run)
		if err != nil {
			t.Fatal(err)
		}
		if len(run.Interruptions) != 1 || len(run.Segments) != 2 {
			t.Fatalf("%d interruptions, %d segments", len(run.Interruptions), len(run.Segments))
		}
		i := run.Interruptions[0]
		if i.WorkLostSeconds == nil || *i.WorkLostSeconds >= 2 || i.RestoredAt.IsZero() || i.RunningAgainAt.IsZero() || i.CheckpointBytes == 0 {
			t.Errorf("interruption %+v", i)
		}
		if run.Segments[1].RestoredGeneration == 0 {
			t.Error("the second pod did not start from a checkpoint")
		}
	})
	t.Run("the point measured on both GPU models says so", func(t *testing.T) {
		run, err := stage.Catalog.GetRun(t.Context(), qwen.Run)
		if err != nil {
			t.Fatal(err)
		}
		mixed := 0
		for _, result := range run.Results {
			if result.Spotbench.MixedGPU {
				mixed++
			}
		}
		if mixed != 1 {
			t.Errorf("%d of %d results are marked as measured on mixed GPUs, want the one that was interrupted", mixed, len(run.Results))
		}
		if run.Validity.Verdict != catalog.Invalid || !slices.ContainsFunc(run.Validity.Reasons, func(r catalog.Reason) bool { return r.Code == "mixed-gpu" }) {
			t.Errorf("the verdict is %+v: a mixed point must not pass for a clean one", run.Validity)
		}
	})
	t.Run("the node was warned within one poll and 250 ms, and the metadata service's restart", func(t *testing.T) {
		// The poll interval is 1 s; telling the mock to announce restarts it, which
		// takes a moment that a real metadata service does not.
		if took := report.Notice.TaintedAt.Sub(report.Notice.SentAt).Seconds(); took > 1+0.25+1.5 {
			t.Errorf("%.2f s from the notice to the taint", took)
		}
	})
	t.Run("benchmarks that named no model went to the cheapest GPUs that fit", func(t *testing.T) {
		llama := byModel["meta-llama/Llama-3.1-70B-Instruct"]
		if llama.Node != "a100-spot-0" || llama.Interruptions != 0 {
			t.Errorf("Llama ran on %s with %d interruptions", llama.Node, llama.Interruptions)
		}
		if mistral := byModel["mistralai/Mistral-7B-Instruct-v0.3"]; mistral.Node != "l4-spot-0" {
			t.Errorf("Mistral ran on %s", mistral.Node)
		}
	})
	t.Run("the life of the machine that was taken back is evidence for its pool's risk", func(t *testing.T) {
		machines, err := stage.Catalog.ListInstances(t.Context(), filter.InstanceList{Pool: filter.Pool{InstanceType: "p5.48xlarge"}})
		if err != nil || len(machines.Items) != 1 {
			t.Fatalf("machines of p5.48xlarge: %+v, %v, want h100-spot-0", machines.Items, err)
		}
		m := machines.Items[0]
		if m.Node != "h100-spot-0" || m.CapacityType != "spot" || m.StartedAt.IsZero() || m.NoticeAt.Before(m.StartedAt) {
			t.Errorf("machine %+v, want the life of h100-spot-0 with its notice", m)
		}
		risks, err := stage.Catalog.ListRisks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(risks, func(r catalog.PoolRisk) bool { return r.InstanceType == "p5.48xlarge" })
		if i < 0 || risks[i].Machines != 1 || risks[i].Interruptions < 0.99 || risks[i].InstanceHours <= 0 {
			t.Errorf("risks %+v, want one machine of p5.48xlarge with one interruption", risks)
		}
	})
	t.Run("the savings add up to what the runs' segments cost", func(t *testing.T) {
		report, err := stage.Catalog.Savings(t.Context(), catalog.SavingsQuery{By: catalog.ByRun, Namespace: workloads})
		if err != nil || len(report.Lines) < 3 {
			t.Fatalf("%d lines, %v, want one for each run", len(report.Lines), err)
		}
		for _, p := range report.Lines {
			run, err := stage.Catalog.GetRun(t.Context(), p.Key)
			if err != nil {
				t.Fatal(err)
			}
			const micro = 1e-6
			if run.Status == catalog.Succeeded && (math.Abs(run.CostUSD-p.PaidUSD) >= micro || math.Abs(run.OnDemandCostUSD-p.OnDemandUSD) >= micro) {
				t.Errorf("%s: $%v paid and $%v on demand says the report, $%v and $%v the run", p.Key, p.PaidUSD, p.OnDemandUSD, run.CostUSD, run.OnDemandCostUSD)
			}
			if p.SavedPercent > p.BoundPercent+1e-9 || p.UnpricedHours > 0 {
				t.Errorf("%s: %+v saved more than the discount allows, or has no price", p.Key, p)
			}
		}
	})
}
