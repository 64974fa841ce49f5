// SPDX-License-Identifier: Apache-2.0

package telemetry_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/telemetry"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// second is the time n seconds after the first sample.
func second(n float64) time.Time { return start.Add(time.Duration(n * float64(time.Second))) }

func TestSummary(t *testing.T) {
	var a telemetry.Accumulator
	// Four samples at 0, 1, 2 and 4 s. Power 100, 200, 300, 200 W: mean 800/4 = 200,
	// median rank ceil(0.5·4) = 2nd of {100,200,200,300} = 200, p95 rank ceil(3.8) = 4th = 300.
	// Energy counter 10, 210, 5 (reset), 105: 200 + 5 + 100 = 305 J.
	// Thermal at 1 s (1 s since the last) and at 4 s (2 s since the last): 3 s.
	readings := []struct {
		at      float64
		watts   float64
		energy  float64
		thermal bool
	}{{0, 100, 10, false}, {1, 200, 210, true}, {2, 300, 5, false}, {4, 200, 105, true}}
	for _, r := range readings {
		a.Add(second(r.at), []telemetry.Reading{{UUID: "GPU-1", Model: "NVIDIA L4", PowerWatts: r.watts, EnergyJoules: r.energy,
			SMClockMHz: 2040, TemperatureC: 60, UtilizationPercent: 95, MemoryUsedBytes: 3 << 20, Throttle: telemetry.Throttle{Thermal: r.thermal}}})
	}
	flat := func(v float64) telemetry.Distribution { return telemetry.Distribution{Mean: v, P50: v, P95: v, Max: v} }
	want := telemetry.Summary{From: second(0), To: second(4), GPUs: []telemetry.GPUSummary{{
		UUID: "GPU-1", Model: "NVIDIA L4", Samples: 4,
		PowerWatts: telemetry.Distribution{Mean: 200, P50: 200, P95: 300, Max: 300},
		SMClockMHz: flat(2040), TemperatureC: flat(60), Utilization: flat(95), MemoryUsedBytes: flat(3 << 20),
		EnergyJoules: 305, ThrottledSeconds: telemetry.ThrottledSeconds{Thermal: 3},
	}}}
	if diff := cmp.Diff(want, a.Summary()); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
}

func TestSummaryOfNothingIsEmpty(t *testing.T) {
	var a telemetry.Accumulator
	a.Add(start, nil)
	if diff := cmp.Diff(telemetry.Summary{}, a.Summary()); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
}

func TestGPUsAreListedByTheirIndex(t *testing.T) {
	var a telemetry.Accumulator
	a.Add(start, []telemetry.Reading{{UUID: "GPU-z", Index: 0}, {UUID: "GPU-a", Index: 1}})
	var got []string
	for _, g := range a.Summary().GPUs {
		got = append(got, g.UUID)
	}
	if !slices.Equal(got, []string{"GPU-z", "GPU-a"}) {
		t.Errorf("order %v", got)
	}
}

func TestPercentilesAgreeWithSortingTheSamples(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		watts := rapid.SliceOfN(rapid.IntRange(0, 1000), 1, 200).Draw(t, "watts")
		var a telemetry.Accumulator
		sum := 0.0
		for i, w := range watts {
			a.Add(second(float64(i)), []telemetry.Reading{{UUID: "GPU-1", PowerWatts: float64(w)}})
			sum += float64(w)
		}
		slices.Sort(watts)
		nearestRank := func(p float64) float64 { return float64(watts[int(math.Ceil(p*float64(len(watts))))-1]) }
		want := telemetry.Distribution{Mean: sum / float64(len(watts)), P50: nearestRank(0.50), P95: nearestRank(0.95), Max: float64(watts[len(watts)-1])}
		if diff := cmp.Diff(want, a.Summary().GPUs[0].PowerWatts); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}
