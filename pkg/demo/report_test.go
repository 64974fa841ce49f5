// SPDX-License-Identifier: Apache-2.0

package demo_test

import (
	"strings"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/demo"
)

// good is a report with nothing wrong in it: one run, two results of 40 requests.
func good() demo.Report {
	sent := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return demo.Report{
		Pods: []demo.PodReport{{Name: "qwen-abcde", Run: "gpu-workloads/qwen", Finished: true, GPUCount: 4, GPUModel: "A100-80GB",
			Nodes: []string{"h100-spot-0", "a100-spot-0"}, CostUSD: 0.25, OnDemandCostUSD: 1}},
		Notice: demo.NoticeReport{Node: "h100-spot-0", SentAt: sent, TaintedAt: sent.Add(500 * time.Millisecond), CheckpointedAt: sent.Add(time.Second),
			EvictedAt: sent.Add(2 * time.Second), RunningAgainAt: sent.Add(5 * time.Second)},
		Results: demo.ResultsReport{Expected: 2, InCatalog: 2, RequestsExpected: 80, RequestsInCatalog: 80},
	}
}

func TestReportErr(t *testing.T) {
	tests := map[string]struct {
		spoil func(*demo.Report)
		want  string
	}{
		"a run that did not finish fails the demo":           {func(r *demo.Report) { r.Pods[0].Finished = false }, "did not finish"},
		"no run at all fails the demo":                       {func(r *demo.Report) { r.Pods = nil }, "no benchmark was run"},
		"a result that is missing fails the demo":            {func(r *demo.Report) { r.Results.InCatalog = 1; r.Results.Lost = 1 }, "1 of 2 results"},
		"a result too many fails the demo":                   {func(r *demo.Report) { r.Results.InCatalog = 3 }, "3 of 2 results"},
		"a request measured twice fails the demo":            {func(r *demo.Report) { r.Results.RequestsInCatalog = 81 }, "81 measured requests"},
		"a phase that was never seen fails the demo":         {func(r *demo.Report) { r.Notice.TaintedAt = time.Time{} }, "never seen to be tainted"},
		"a phase before the notice cannot be a measurement":  {func(r *demo.Report) { r.Notice.EvictedAt = r.Notice.SentAt.Add(-time.Second) }, "before the notice"},
		"a pod that never ran again after it fails the demo": {func(r *demo.Report) { r.Notice.RunningAgainAt = time.Time{} }, "running again"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			report := good()
			tt.spoil(&report)
			if err := report.Err(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Err() = %v, want one that says %q", err, tt.want)
			}
		})
	}
	t.Run("nothing lost and everything finished is no error", func(t *testing.T) {
		report := good()
		if err := report.Err(); err != nil {
			t.Errorf("Err() = %v", err)
		}
	})
}

func TestReportPrint(t *testing.T) {
	report := good()
	var out strings.Builder
	if err := report.Print(&out); err != nil {
		t.Fatal(err)
	}
	// Saved: 1 - 0.25/1 = 75 %. Tainted 500 ms after the notice.
	for _, want := range []string{"qwen-abcde", "4× A100-80GB", "h100-spot-0 → a100-spot-0", "75 %", "tainted after 500ms", "2 of 2 sweep points"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the last screen does not say %q:\n%s", want, out.String())
		}
	}
}
