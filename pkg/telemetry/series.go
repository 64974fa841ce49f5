// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"math"
	"time"
)

// SeriesSteps is the most steps of a series, however long it is.
const SeriesSteps = 240

// Series is how a device went over time: for each step from From on the mean of a
// quantity's samples, NaN where there was none. A quantity that was never given is nil.
type Series struct {
	From time.Time
	Step time.Duration
	// Units are those of GPUSummary. Throttled is the share of the samples with the
	// clocks held down, 0 to 1.
	PowerWatts, SMClockMHz, TemperatureC, Utilization, MemoryUsedBytes, Throttled []float64
}

// followed are the quantities that a series has, with what a unit is in it.
var followed = [...]struct {
	of   func(*Sample) (float64, bool)
	into func(*Series) *[]float64
}{
	{func(s *Sample) (float64, bool) { return s.Value(PowerUsage) }, func(s *Series) *[]float64 { return &s.PowerWatts }},
	{func(s *Sample) (float64, bool) { return s.Value(SMClock) }, func(s *Series) *[]float64 { return &s.SMClockMHz }},
	{func(s *Sample) (float64, bool) { return s.Value(GPUTemp) }, func(s *Series) *[]float64 { return &s.TemperatureC }},
	{func(s *Sample) (float64, bool) { return s.Value(GPUUtil) }, func(s *Series) *[]float64 { return &s.Utilization }},
	{func(s *Sample) (float64, bool) { v, ok := s.Value(FBUsed); return v * (1 << 20), ok }, func(s *Series) *[]float64 { return &s.MemoryUsedBytes }},
	{func(s *Sample) (float64, bool) {
		_, ok := s.Value(ClockEvents)
		if s.Reasons.Thermal() || s.Reasons.Power() || s.Reasons.Other() {
			return 1, ok
		}
		return 0, ok
	}, func(s *Series) *[]float64 { return &s.Throttled }},
}

// means are the sums of one step.
type means struct {
	sum   [len(followed)]float64
	count [len(followed)]int32
}

// track collects a series. When it is full, two steps become one: it never has more than
// SeriesSteps, and the whole time is always in it.
type track struct {
	step  time.Duration
	steps []means
}

// shortestStep is the step that a track begins with, about the time between two samples.
const shortestStep = time.Second

// add takes a sample; since is the time from the start of the series. One from before the
// start, of a clock that was set back, has no place in it.
func (t *track) add(since time.Duration, s *Sample) {
	if since < 0 {
		return
	}
	t.step = max(t.step, shortestStep)
	for since/t.step >= SeriesSteps {
		t.halve()
	}
	n := int(since / t.step)
	for len(t.steps) <= n {
		t.steps = append(t.steps, means{})
	}
	for i, f := range followed {
		if v, ok := f.of(s); ok {
			t.steps[n].sum[i] += v
			t.steps[n].count[i]++
		}
	}
}

func (t *track) halve() {
	t.step *= 2
	for n := 0; n < len(t.steps); n += 2 {
		both := t.steps[n]
		if n+1 < len(t.steps) {
			for i := range both.sum {
				both.sum[i] += t.steps[n+1].sum[i]
				both.count[i] += t.steps[n+1].count[i]
			}
		}
		t.steps[n/2] = both
	}
	t.steps = t.steps[:(len(t.steps)+1)/2]
}

func (t *track) series(from time.Time) Series {
	s := Series{From: from, Step: t.step}
	for i, f := range followed {
		values, any := make([]float64, len(t.steps)), false
		for n, m := range t.steps {
			values[n] = math.NaN()
			if m.count[i] > 0 {
				values[n], any = m.sum[i]/float64(m.count[i]), true
			}
		}
		if any {
			*f.into(&s) = values
		}
	}
	return s
}
