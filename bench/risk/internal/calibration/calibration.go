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
	// Against is by how much the first predictor's score is better (below 0) or worse, with
	// the standard error of that difference: beyond two of them it is hardly chance.
	Against, StandardError float64
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
		var first []block
		for _, p := range predictors {
			s, blocks := evaluate(traces, part, p, horizon)
			if first == nil {
				first = blocks
			}
			s.Against, s.StandardError = paired(first, blocks)
			scores = append(scores, s)
		}
	}
	return scores
}

// block is the squared errors of one pool in one stretch of time.
type block struct{ n, errors float64 }

// blockLength of a block: outcomes of hours beside each other are of the same
// interruption, and a day of a pool has little to do with another.
const blockLength = 24 * time.Hour

// paired is the mean difference of squared errors between two predictors on the same
// predictions, and its standard error, in which a block counts as one draw (a ratio of
// sums over blocks).
func paired(first, other []block) (difference, standardError float64) {
	n, sum, used := 0.0, 0.0, 0.0
	for i, b := range first {
		n += b.n
		sum += b.errors - other[i].errors
		if b.n > 0 {
			used++
		}
	}
	if n == 0 {
		return 0, 0
	}
	difference = sum / n
	squares := 0.0
	for i, b := range first {
		d := b.errors - other[i].errors - difference*b.n
		squares += d * d
	}
	// One block says nothing of how blocks differ.
	return difference, math.Sqrt(squares*used/math.Max(used-1, 0)) / n
}

func evaluate(traces []trace.Trace, part float64, p Predictor, horizon time.Duration) (Score, []block) {
	s := Score{Predictor: p.Name, Horizon: horizon}
	var blocks []block
	for pool, t := range traces {
		held := int(part * float64(len(t.Up)))
		every := max(int(time.Hour/t.Gap), 1)
		ahead := int(math.Ceil(horizon.Seconds() / t.Gap.Seconds()))
		perBlock := max(int(max(blockLength, horizon)/t.Gap), 1)
		before := len(blocks)
		blocks = append(blocks, make([]block, (len(t.Up)-held)/perBlock+1)...)
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
			squared := (predicted - outcome) * (predicted - outcome)
			s.Brier += squared
			blocks[before+(tick-held)/perBlock].n++
			blocks[before+(tick-held)/perBlock].errors += squared
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
	return s, blocks
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
		s.Against = mean(s.Against, o.Against)
		s.StandardError = math.Hypot(n*s.StandardError, m*o.StandardError) / math.Max(n+m, 1)
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
