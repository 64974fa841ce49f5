// SPDX-License-Identifier: Apache-2.0

package telemetry_test

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/telemetry"
)

func TestASeriesHasTheMeanOfEachStep(t *testing.T) {
	// Two samples in the first second, none in the second, one in the third.
	watts := []float64{100, 200, 310}
	got := played(t, []float64{0, 0.5, 2}, func(i int) telemetry.Seen {
		return sample("GPU-1", values{telemetry.PowerUsage: watts[i], telemetry.FBUsed: 2, telemetry.ClockEvents: float64([]telemetry.ClocksEventReasons{0, telemetry.ReasonHWThermal, 0}[i])})
	}).Series
	nan := math.NaN()
	want := telemetry.Series{From: start, Step: time.Second, PowerWatts: []float64{150, nan, 310}, MemoryUsedBytes: []float64{2 << 20, nan, 2 << 20}, Throttled: []float64{0.5, nan, 0}}
	if diff := cmp.Diff(want, got, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestASeriesOfAnyLengthIsBoundedAndLosesNothing: however long and uneven the samples
// come, there are at most 240 steps, they span the whole time, and the means of the steps
// lie within what was sampled in each.
func TestASeriesOfAnyLengthIsBoundedAndLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a telemetry.Accumulator
		at := 0.0
		type seen struct{ at, watts float64 }
		var all []seen
		for range rapid.IntRange(1, 300).Draw(t, "samples") {
			watts := rapid.Float64Range(0, 700).Draw(t, "watts")
			all = append(all, seen{at, watts})
			a.Add(second(at), []telemetry.Seen{sample("GPU-1", values{telemetry.PowerUsage: watts})}, nil)
			at += rapid.SampledFrom([]float64{0, 0.1, 1, 30, 7000}).Draw(t, "pause")
		}
		s := a.Summary().GPUs[0].Series
		if len(s.PowerWatts) > telemetry.SeriesSteps || s.SMClockMHz != nil || !s.From.Equal(start) {
			t.Fatalf("%d steps from %v, clocks %v", len(s.PowerWatts), s.From, s.SMClockMHz)
		}
		last := all[len(all)-1].at
		if end := s.Step.Seconds() * float64(len(s.PowerWatts)); end <= last-1e-6 || end-s.Step.Seconds() > last+1e-6 {
			t.Fatalf("%d steps of %v for %v s", len(s.PowerWatts), s.Step, last)
		}
		for n, mean := range s.PowerWatts {
			low, high := math.Inf(1), math.Inf(-1)
			for _, one := range all {
				if int(time.Duration(one.at*float64(time.Second))/s.Step) == n {
					low, high = min(low, one.watts), max(high, one.watts)
				}
			}
			if math.IsInf(low, 1) != math.IsNaN(mean) || mean < low-1e-6 || mean > high+1e-6 {
				t.Fatalf("step %d has %v of samples from %v to %v", n, mean, low, high)
			}
		}
	})
}
