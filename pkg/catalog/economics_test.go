// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
)

func TestAMillionTokensCostTheWholeRunAndItsInputsAreShown(t *testing.T) {
	parts := catalog.Parts{
		Run: catalog.Run{GPUCount: 2, Status: catalog.Succeeded, PriceSource: "price book"},
		Segments: []catalog.Segment{
			{Node: "a", CapacityType: "spot", USDPerHour: 4, OnDemandUSDPerHour: 10, StartedAt: noon, EndedAt: after(time.Hour)},
			{Node: "b", CapacityType: "spot", USDPerHour: 2, OnDemandUSDPerHour: 10, GPUUUIDs: []string{"G1", "G2"}, StartedAt: after(2 * time.Hour), EndedAt: after(3 * time.Hour)}},
		Telemetry: []catalog.Telemetry{{GPUs: []catalog.GPUTelemetry{{EnergyJoules: 3.6e6}}}},
		Results:   []catalog.Result{{OutputTokens: 500_000, InputTokens: 1_000_000, Completed: 100}, {OutputTokens: 1_500_000, InputTokens: 1_000_000, Completed: 100}},
	}
	e := catalog.Describe(parts, after(4*time.Hour)).Economics
	for name, v := range map[string]struct{ got, want float64 }{
		"paid: $6 for 2 M tokens":             {*e.USDPerMillionOutputTokens, 3},
		"on demand: $20":                      {*e.OnDemandUSDPerMillionOutputTokens, 10},
		"input and output: 4 M tokens":        {*e.USDPerMillionTokens, 1.5},
		"1 kWh for 2 M tokens":                {*e.KWhPerMillionOutputTokens, 0.5},
		"2 h of 2 GPUs":                       {e.GPUHours, 4},
		"the second segment's price":          {e.Prices[1].USDPerHour, 2},
		"the first segment's GPUs, the pod's": {float64(e.Prices[0].GPUs), 2},
	} {
		if math.Abs(v.got-v.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", name, v.got, v.want)
		}
	}
	if e.PriceSource != "price book" || len(e.Missing) != 0 {
		t.Errorf("%+v", e)
	}
}

func TestAFigureWithoutItsInputsIsAbsentAndSaysWhy(t *testing.T) {
	segment := catalog.Segment{CapacityType: "on-demand", USDPerHour: 4, StartedAt: noon, EndedAt: after(time.Hour)}
	unpriced := segment
	unpriced.USDPerHour = 0
	result := catalog.Result{OutputTokens: 1, Completed: 1}
	for name, tt := range map[string]struct {
		parts catalog.Parts
		want  string
	}{
		"no result":       {catalog.Parts{Segments: []catalog.Segment{segment}}, "no result"},
		"tokens not told": {catalog.Parts{Segments: []catalog.Segment{segment}, Results: []catalog.Result{result, {Unknown: []string{"outputTokens"}}}}, "1 of 2 points"},
		"not one token":   {catalog.Parts{Segments: []catalog.Segment{segment}, Results: []catalog.Result{{}}}, "No output token"},
		"a missing price": {catalog.Parts{Segments: []catalog.Segment{segment, unpriced}, Results: []catalog.Result{result}}, "no price"},
		"no segment":      {catalog.Parts{Results: []catalog.Result{result}}, "Nobody told"},
	} {
		t.Run(name, func(t *testing.T) {
			e := catalog.Describe(tt.parts, after(time.Hour)).Economics
			if e.USDPerMillionOutputTokens != nil || !strings.Contains(strings.Join(e.Missing, " "), tt.want) {
				t.Errorf("%v, %q; want no figure and %q", e.USDPerMillionOutputTokens, e.Missing, tt.want)
			}
		})
	}
}

func TestAPointThatTellsItsNodesIsPricedByThemAndTheirTime(t *testing.T) {
	d := catalog.Describe(catalog.Parts{Segments: []catalog.Segment{
		{Node: "a", USDPerHour: 9, StartedAt: noon, EndedAt: after(time.Hour)},
		{Node: "b", USDPerHour: 3, StartedAt: after(time.Hour), EndedAt: after(2 * time.Hour)}}}, after(2*time.Hour))
	measured := func(on ...catalog.MeasuredOn) catalog.Result {
		v := 1000.0
		return catalog.Result{OutputThroughput: &v, Spotbench: &catalog.Provenance{Segments: on}}
	}
	// 10 min at $9 and 20 min at $3 are $5 an hour: 5/3600/1000 × 1e6 = $1.389.
	got, known := d.PointCost(measured(catalog.MeasuredOn{Node: "a", Start: after(50 * time.Minute), End: after(time.Hour)}, catalog.MeasuredOn{Node: "b", Start: after(time.Hour), End: after(80 * time.Minute)}))
	if !known || math.Abs(got-5.0/3.6) > 1e-9 {
		t.Errorf("cost %v, %v; want 1.389", got, known)
	}
	if _, known := d.PointCost(measured()); known {
		t.Error("a point of a run with two prices that does not tell where it was measured has a cost")
	}
}
