// SPDX-License-Identifier: Apache-2.0

package telemetry_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/telemetry"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// second is the time n seconds after the first sample.
func second(n float64) time.Time { return start.Add(time.Duration(n * float64(time.Second))) }

// values are what a sample has; all else is absent.
type values map[telemetry.Metric]float64

func sample(uuid string, v values) telemetry.Seen {
	s := telemetry.Seen{Sample: telemetry.Sample{Device: telemetry.Device{UUID: uuid, Model: "NVIDIA L4"}}}
	for m, value := range v {
		s.Set(m, value)
	}
	return s
}

// played gives one GPU's summary after samples at the given seconds.
func played(t *testing.T, at []float64, of func(i int) telemetry.Seen) telemetry.GPUSummary {
	t.Helper()
	var a telemetry.Accumulator
	for i, n := range at {
		a.Add(second(n), []telemetry.Seen{of(i)}, nil)
	}
	s := a.Summary()
	if len(s.GPUs) != 1 || !s.From.Equal(second(at[0])) || !s.To.Equal(second(at[len(at)-1])) {
		t.Fatalf("summary %+v", s)
	}
	return s.GPUs[0]
}

func TestSummary(t *testing.T) {
	// Four samples at 0, 1, 2 and 4 s. Power 100, 200, 300, 200 W: mean 800/4 = 200,
	// p5 rank ceil(0.2) = 1st of {100,200,200,300} = 100, median rank 2nd = 200, p95 rank
	// ceil(3.8) = 4th = 300. Energy counter 10, 210, 5 (reset), 105 J: 200 + 5 + 100 = 305 J.
	// Thermal at 1 s (1 s since the last) and at 4 s (2 s since the last): 3 s.
	watts, joules := []float64{100, 200, 300, 200}, []float64{10, 210, 5, 105}
	reasons := []telemetry.ClocksEventReasons{0, telemetry.ReasonHWThermal, 0, telemetry.ReasonSWThermal}
	got := played(t, []float64{0, 1, 2, 4}, func(i int) telemetry.Seen {
		return sample("GPU-1", values{telemetry.PowerUsage: watts[i], telemetry.TotalEnergy: 1000 * joules[i], telemetry.ClockEvents: float64(reasons[i]),
			telemetry.SMClock: 2040, telemetry.GPUTemp: 60, telemetry.GPUUtil: 95, telemetry.FBUsed: 32, telemetry.ProfSMActive: 0.75})
	})
	flat := func(v float64) *telemetry.Distribution {
		return &telemetry.Distribution{Mean: v, P5: v, P50: v, P95: v, Max: v}
	}
	steady := 1.0
	want := telemetry.GPUSummary{Device: telemetry.Device{UUID: "GPU-1", Model: "NVIDIA L4"}, Samples: 4,
		PowerWatts: &telemetry.Distribution{Mean: 200, P5: 100, P50: 200, P95: 300, Max: 300},
		SMClockMHz: flat(2040), TemperatureC: flat(60), Utilization: flat(95), MemoryUsedBytes: flat(32 << 20), SMActive: flat(0.75),
		EnergyJoules: 305, EnergySource: telemetry.EnergyCounter, ThrottledSeconds: telemetry.ThrottledSeconds{Thermal: 3},
		ReasonSeconds: map[string]float64{"hw_thermal": 1, "sw_thermal": 2}, ClockSteadiness: &steady,
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(telemetry.GPUSummary{}, "Series")); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
}

func TestWhatTheGPUDoesNotGiveIsNotInTheSummary(t *testing.T) {
	got := played(t, []float64{0, 1}, func(int) telemetry.Seen { return sample("GPU-1", values{telemetry.GPUTemp: 40}) })
	if got.PowerWatts != nil || got.SMClockMHz != nil || got.ClockSteadiness != nil || got.EnergySource != "" || got.EnergyJoules != 0 {
		t.Errorf("summary %+v, want a temperature and nothing else", got)
	}
}

func TestEnergy(t *testing.T) {
	tests := map[string]struct {
		at     []float64
		of     []values
		joules float64
		source telemetry.EnergySource
	}{
		// Trapezes: (100+300)/2·2 = 400 and (300+200)/2·1 = 250.
		"without a counter it is the power over time": {
			at: []float64{0, 2, 3}, of: []values{{telemetry.PowerUsage: 100}, {telemetry.PowerUsage: 300}, {telemetry.PowerUsage: 200}},
			joules: 650, source: telemetry.EnergyIntegral,
		},
		// The counter gives 500 J of the first second; then it is blank: 100 W for 2 s.
		"a counter that goes blank is continued by the power": {
			at: []float64{0, 1, 3}, of: []values{{telemetry.PowerUsage: 100, telemetry.TotalEnergy: 1e3}, {telemetry.PowerUsage: 100, telemetry.TotalEnergy: 501e3}, {telemetry.PowerUsage: 100}},
			joules: 700, source: telemetry.EnergyMixed,
		},
		"what nobody looked at for a minute is not guessed": {
			at: []float64{0, 60}, of: []values{{telemetry.PowerUsage: 100}, {telemetry.PowerUsage: 100}},
		},
		"but a counter has counted it": {
			at: []float64{0, 60}, of: []values{{telemetry.TotalEnergy: 0}, {telemetry.TotalEnergy: 6e6}},
			joules: 6000, source: telemetry.EnergyCounter,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := played(t, tt.at, func(i int) telemetry.Seen { return sample("GPU-1", tt.of[i]) })
			if got.EnergyJoules != tt.joules || got.EnergySource != tt.source {
				t.Errorf("%g J by %q, want %g by %q", got.EnergyJoules, got.EnergySource, tt.joules, tt.source)
			}
		})
	}
}

func TestClockSteadinessIsTheShareOfBusySamplesNearTheirMedian(t *testing.T) {
	// Busy clocks 1900, 2000, 2000, 2000, 1800: the median is 2000, ±5 % of it is 1900 to
	// 2100, so 4 of 5 are near. The idle 300 MHz does not count.
	clocks, utils := []float64{1900, 2000, 300, 2000, 2000, 1800}, []float64{90, 99, 0, 99, 99, 50}
	got := played(t, []float64{0, 1, 2, 3, 4, 5}, func(i int) telemetry.Seen {
		return sample("GPU-1", values{telemetry.SMClock: clocks[i], telemetry.GPUUtil: utils[i]})
	})
	if got.ClockSteadiness == nil || *got.ClockSteadiness != 0.8 {
		t.Errorf("steadiness %v, want 0.8", got.ClockSteadiness)
	}
}

func TestErrorsAndNeighboursOfARun(t *testing.T) {
	var a telemetry.Accumulator
	single, double := []float64{5, 7, 1}, []float64{1, 1, 2} // 2 and, after a reset, 1 more; 0 and 1
	for i := range single {
		s := sample("GPU-1", values{telemetry.ECCSingleBit: single[i], telemetry.ECCDoubleBit: double[i], telemetry.RemappedCorrectable: float64(i), telemetry.RemappedUncorrectable: 1})
		s.Neighbours = []int{0, 2, 1}[i]
		a.Add(second(float64(i)), []telemetry.Seen{s}, []telemetry.XID{{GPU: "GPU-1", Code: 31}, {GPU: "GPU-2", Code: 48}})
	}
	a.Add(second(3), nil, []telemetry.XID{{GPU: "GPU-1", Code: 79}}) // the GPU is not read any more
	got := a.Summary().GPUs[0]
	want := telemetry.GPUSummary{Device: telemetry.Device{UUID: "GPU-1", Model: "NVIDIA L4"}, Samples: 3,
		SingleBitErrors: 3, DoubleBitErrors: 1, RemappedRows: 2, XIDs: map[int]int{31: 3, 79: 1}, Neighbours: 2, NeighbourSeconds: 2}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(telemetry.GPUSummary{}, "Series")); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
}

func TestSummaryOfNothingIsEmpty(t *testing.T) {
	var a telemetry.Accumulator
	a.Add(start, nil, nil)
	if diff := cmp.Diff(telemetry.Summary{}, a.Summary()); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
}

func TestDevicesAreListedByGPUAndInstance(t *testing.T) {
	var a telemetry.Accumulator
	mig := func(uuid string, index, instance int) telemetry.Seen {
		return telemetry.Seen{Sample: telemetry.Sample{Device: telemetry.Device{UUID: uuid, Index: index, MIG: &telemetry.MIG{GPUInstance: instance}}}}
	}
	z := sample("GPU-z", nil)
	a.Add(start, []telemetry.Seen{mig("MIG-a", 1, 9), mig("MIG-b", 1, 7), z}, nil)
	var got []string
	for _, g := range a.Summary().GPUs {
		got = append(got, g.UUID)
	}
	if !slices.Equal(got, []string{"GPU-z", "MIG-b", "MIG-a"}) {
		t.Errorf("order %v", got)
	}
}

func TestPercentilesAgreeWithSortingTheSamples(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		watts := rapid.SliceOfN(rapid.IntRange(0, 1000), 1, 200).Draw(t, "watts")
		var a telemetry.Accumulator
		sum := 0.0
		for i, w := range watts {
			a.Add(second(float64(i)), []telemetry.Seen{sample("GPU-1", values{telemetry.PowerUsage: float64(w)})}, nil)
			sum += float64(w)
		}
		slices.Sort(watts)
		nearestRank := func(p float64) float64 { return float64(watts[int(math.Ceil(p*float64(len(watts))))-1]) }
		want := &telemetry.Distribution{Mean: sum / float64(len(watts)), P5: nearestRank(0.05), P50: nearestRank(0.50), P95: nearestRank(0.95), Max: float64(watts[len(watts)-1])}
		if diff := cmp.Diff(want, a.Summary().GPUs[0].PowerWatts); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func TestEveryMetricIsDescribedInItsPlace(t *testing.T) {
	for i, info := range telemetry.Metrics {
		if int(info.Metric) != i || info.Name == "" || info.Help == "" {
			t.Errorf("entry %d: %+v", i, info)
		}
	}
	if len(telemetry.Metrics) > 64 {
		t.Errorf("%d metrics do not fit into the bits of a sample", len(telemetry.Metrics))
	}
}
