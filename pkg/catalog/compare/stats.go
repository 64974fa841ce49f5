// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"fmt"
	"math"
	"slices"

	"golang.org/x/perf/benchmath"
)

// Confidence is that of the intervals, Alpha the probability below which a
// difference is called significant.
const (
	Confidence = 0.95
	Alpha      = 0.05
)

// Sample is a figure over the runs of a configuration. It is the median with its
// interval and never a number alone: where there are too few runs for an interval,
// it has none, and note says so.
type Sample struct {
	N      int      `json:"n" doc:"Measured points, usually one of each run"`
	Median *float64 `json:"median,omitempty" doc:"Absent where nothing was measured"`
	Low    *float64 `json:"low,omitempty" doc:"Lower end of the interval of the median; absent where there are too few runs"`
	High   *float64 `json:"high,omitempty" doc:"Upper end"`
	Least  *float64 `json:"least,omitempty" doc:"Least value"`
	Most   *float64 `json:"most,omitempty" doc:"Greatest value"`
	Note   string   `json:"note,omitempty" doc:"What the interval lacks"`
}

// Effect says what a difference means.
type Effect string

// The effects. Unproven is a difference that so many runs cannot show or that
// chance explains; Untested is that there are too few to tell whatever they were.
const (
	Better   Effect = "better"
	Worse    Effect = "worse"
	Unproven Effect = "unproven"
	Untested Effect = "untested"
)

// Difference is a sample beside that of the base.
type Difference struct {
	DeltaPercent *float64 `json:"deltaPercent,omitempty" doc:"100 × (median ÷ base median - 1); not to be trusted unless effect is better or worse"`
	P            *float64 `json:"p,omitempty" doc:"Probability of such a difference between equals (two-sided Mann-Whitney U test); absent where untested"`
	Effect       Effect   `json:"effect" enum:"better,worse,unproven,untested" doc:"better and worse are significant; unproven: chance explains it; untested: too few runs to tell"`
	Note         string   `json:"note,omitempty" doc:"Why it is not proven"`
}

func summarise(values []float64) Sample {
	out := Sample{N: len(values)}
	if len(values) == 0 {
		out.Note = "not measured"
		return out
	}
	s := benchmath.NewSample(slices.Clone(values), &benchmath.DefaultThresholds)
	summary := benchmath.AssumeNothing.Summary(s, Confidence)
	least, most := s.Values[0], s.Values[len(s.Values)-1]
	out.Median, out.Least, out.Most = &summary.Center, &least, &most
	if math.IsInf(summary.Lo, 0) || math.IsInf(summary.Hi, 0) {
		out.Note = fmt.Sprintf("%s; an interval at %.0f %% needs 6", runs(len(values)), 100*Confidence)
		return out
	}
	out.Low, out.High = &summary.Lo, &summary.Hi
	return out
}

func runs(n int) string {
	if n == 1 {
		return "1 run"
	}
	return fmt.Sprintf("%d runs", n)
}

// differ compares a sample with the base's.
func differ(base, values []float64, higherIsBetter bool) Difference {
	if len(base) == 0 || len(values) == 0 {
		return Difference{Effect: Untested, Note: "not measured in both"}
	}
	thresholds := benchmath.Thresholds{CompareAlpha: Alpha}
	a, b := benchmath.NewSample(slices.Clone(base), &thresholds), benchmath.NewSample(slices.Clone(values), &thresholds)
	from, to := benchmath.AssumeNothing.Summary(a, Confidence).Center, benchmath.AssumeNothing.Summary(b, Confidence).Center
	var d Difference
	if from != 0 {
		delta := 100 * (to/from - 1)
		d.DeltaPercent = &delta
	}
	if least := leastP(len(base), len(values)); least > Alpha {
		d.Effect, d.Note = Untested, fmt.Sprintf("too few runs: %d and %d cannot show a difference; 4 and 4 can", len(base), len(values))
		return d
	}
	if slices.Min(base) == slices.Max(base) && slices.Equal(a.Values[:1], b.Values[:1]) && slices.Min(values) == slices.Max(values) {
		one := 1.0
		d.P, d.Effect, d.Note = &one, Unproven, "all are equal"
		return d
	}
	// With ties the library's exact test depends on which sample comes first; the
	// larger p does not, and claims less.
	p := max(benchmath.AssumeNothing.Compare(a, b).P, benchmath.AssumeNothing.Compare(b, a).P)
	d.P = &p
	if p >= Alpha || from == to {
		d.Effect, d.Note = Unproven, "such a difference is likely between equals"
		return d
	}
	d.Effect = Worse
	if (to > from) == higherIsBetter {
		d.Effect = Better
	}
	return d
}

// leastP is the least p that a two-sided U test of samples of these sizes can
// have: 2 of the C(n+m, n) orders are as extreme as can be.
func leastP(n, m int) float64 {
	orders := 1.0
	for k := 1; k <= min(n, m); k++ {
		orders *= float64(n+m-min(n, m)+k) / float64(k)
		if orders > 1e6 {
			break
		}
	}
	return 2 / orders
}
