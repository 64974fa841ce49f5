// SPDX-License-Identifier: Apache-2.0

// Package calibration compares predicted with observed interruptions: it learns
// from the first part of each recording and predicts the rest.
package calibration

import (
	"math"
	"time"

	"github.com/spotbench/spotbench/bench/internal/trace"
	"github.com/spotbench/spotbench/pkg/risk"
)

// Horizons of the predictions.
var Horizons = []time.Duration{15 * time.Minute, time.Hour, 4 * time.Hour, 24 * time.Hour}

// Predictor says how probable an interruption is within a horizon, of an instance
// of a pool and an age.
type Predictor struct {
	Name        string
	Probability func(pool int, age, horizon time.Duration) float64
}

// Fit learns from the first part of each recording: by age, with a constant rate
// per pool (the exponential fit), and not at all (the Advisor's band, in which all
// of these pools are listed).
func Fit(traces []trace.Trace, part float64, band risk.Hazard) []Predictor {
	lifetimes := risk.NewLifetimes[int](risk.HeavyTailed(band))
	events, hours := make([]float64, len(traces)), make([]float64, len(traces))
	for pool, t := range traces {
		end := int(part * float64(len(t.Up)))
		spells(t, 0, end, func(_ int, age time.Duration, next bool) {
			lifetimes.Observe(pool, age, t.Gap, !next, 1)
			hours[pool] += t.Gap.Hours()
			if !next {
				events[pool]++
			}
		})
	}
	return []Predictor{
		{"by age", func(pool int, age, horizon time.Duration) float64 {
			return lifetimes.Posterior(pool).Interruption(age, horizon)
		}},
		{"exponential", func(pool int, _, horizon time.Duration) float64 {
			// One interruption more than observed, so that none observed is not never.
			return risk.Hazard((events[pool] + 0.5) / math.Max(hours[pool], 0.5)).Interruption(horizon)
		}},
		{"Advisor band", func(_ int, _, horizon time.Duration) float64 { return band.Interruption(horizon) }},
	}
}

// spells calls for each tick with capacity: its age, and whether the next has too.
// Capacity that is there at the first tick has an unknown age and is left out until
// it is interrupted once.
func spells(t trace.Trace, from, to int, visit func(tick int, age time.Duration, next bool)) {
	since := -1
	for i := from; i+1 < to; i++ {
		switch {
		case !t.Up[i]:
			since = i + 1
		case since >= 0:
			visit(i, time.Duration(i-since)*t.Gap, t.Up[i+1])
		}
	}
}

// Bins of the reliability plot.
const Bins = 10

// Score is how good one predictor is at one horizon.
type Score struct {
	Predictor string
	Horizon   time.Duration
	// Brier is the mean squared difference between prediction and outcome, from 0
	// (perfect) to 1.
	Brier float64
	// Predictions, their mean and the share that came true.
	N                   int
	Predicted, Observed float64
	// Bin i has predictions from i/Bins to (i+1)/Bins.
	Bin [Bins]struct {
		N                   int
		Predicted, Observed float64
	}
}

// Evaluate scores the predictors on the later part of each recording, once per hour
// of capacity.
func Evaluate(traces []trace.Trace, part float64, predictors []Predictor) []Score {
	var scores []Score
	for _, horizon := range Horizons {
		for _, p := range predictors {
			scores = append(scores, evaluate(traces, part, p, horizon))
		}
	}
	return scores
}

func evaluate(traces []trace.Trace, part float64, p Predictor, horizon time.Duration) Score {
	s := Score{Predictor: p.Name, Horizon: horizon}
	for pool, t := range traces {
		held := int(part * float64(len(t.Up)))
		every := max(int(time.Hour/t.Gap), 1)
		ahead := int(math.Ceil(horizon.Seconds() / t.Gap.Seconds()))
		spells(t, 0, len(t.Up), func(tick int, age time.Duration, _ bool) {
			if tick < held || (tick-held)%every != 0 || tick+ahead >= len(t.Up) {
				return
			}
			outcome := 0.0
			for i := tick + 1; i <= tick+ahead; i++ {
				if !t.Up[i] {
					outcome = 1
					break
				}
			}
			predicted := p.Probability(pool, age, horizon)
			s.N++
			s.Brier += (predicted - outcome) * (predicted - outcome)
			s.Predicted += predicted
			s.Observed += outcome
			b := &s.Bin[min(int(predicted*Bins), Bins-1)]
			b.N++
			b.Predicted += predicted
			b.Observed += outcome
		})
	}
	n := math.Max(float64(s.N), 1)
	s.Brier, s.Predicted, s.Observed = s.Brier/n, s.Predicted/n, s.Observed/n
	for i := range s.Bin {
		if b := &s.Bin[i]; b.N > 0 {
			b.Predicted, b.Observed = b.Predicted/float64(b.N), b.Observed/float64(b.N)
		}
	}
	return s
}

// Merge adds the scores of another set of recordings.
func Merge(a, b []Score) []Score {
	if a == nil {
		return b
	}
	out := make([]Score, len(a))
	for i, s := range a {
		o := b[i]
		n, m := float64(s.N), float64(o.N)
		mean := func(x, y float64) float64 { return (n*x + m*y) / math.Max(n+m, 1) }
		s.Brier, s.Predicted, s.Observed, s.N = mean(s.Brier, o.Brier), mean(s.Predicted, o.Predicted), mean(s.Observed, o.Observed), s.N+o.N
		for j := range s.Bin {
			x, y := s.Bin[j], o.Bin[j]
			if k := float64(x.N + y.N); k > 0 {
				x.Predicted = (float64(x.N)*x.Predicted + float64(y.N)*y.Predicted) / k
				x.Observed = (float64(x.N)*x.Observed + float64(y.N)*y.Observed) / k
			}
			x.N += y.N
			s.Bin[j] = x
		}
		out[i] = s
	}
	return out
}
