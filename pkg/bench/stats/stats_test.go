// SPDX-License-Identifier: Apache-2.0

package stats_test

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/bench/stats"
)

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-12*max(1, math.Abs(a), math.Abs(b)) }

func TestSummaryIsWhatNumPyComputes(t *testing.T) {
	for name, c := range map[string]struct {
		values []float64
		want   stats.Summary
	}{
		"no values are all zero, as in vLLM": {nil, stats.Summary{}},
		"one value is its own mean, median and percentile, without spread": {
			[]float64{7}, stats.Summary{Mean: 7, Median: 7, P99: 7},
		},
		// mean (1+2+3+4)/4 = 2.5; median between 2 and 3;
		// std √((1.5²+0.5²+0.5²+1.5²)/4) = √(5/4);
		// p99 at position 0.99×3 = 2.97: 4 − (4−3)×(1−0.97) = 3.97.
		"an even number of values has its median half-way": {
			[]float64{4, 1, 3, 2}, stats.Summary{Mean: 2.5, Median: 2.5, Std: math.Sqrt(1.25), P99: 3.97},
		},
		// std of the population √((9+1+16)/3 …): mean 5, deviations −3 −1 +4, squares 9+1+16 = 26, 26/3.
		// p99 at position 0.99×2 = 1.98: 9 − (9−4)×(1−0.98) = 8.9.
		"std divides by the number of values and not by one less": {
			[]float64{2, 4, 9}, stats.Summary{Mean: 5, Median: 4, Std: math.Sqrt(26.0 / 3), P99: 8.9},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := stats.Of(c.values)
			if !near(got.Mean, c.want.Mean) || !near(got.Median, c.want.Median) || !near(got.Std, c.want.Std) || !near(got.P99, c.want.P99) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestPercentilesLieBetweenTheValuesAndGrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(-1e6, 1e6), 1, 50).Draw(t, "values")
		slices.Sort(values)
		low := rapid.Float64Range(0, 100).Draw(t, "low")
		high := rapid.Float64Range(low, 100).Draw(t, "high")
		a, b := stats.Percentile(values, low), stats.Percentile(values, high)
		if a > b+1e-6 || a < values[0]-1e-6 || b > values[len(values)-1]+1e-6 {
			t.Fatalf("p%v = %v, p%v = %v of %v", low, a, high, b, values)
		}
	})
}

func TestTheOrderOfTheValuesChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOf(rapid.Float64Range(0, 1e3)).Draw(t, "values")
		shuffled := rapid.Permutation(values).Draw(t, "shuffled")
		if a, b := stats.Of(values), stats.Of(shuffled); a != b {
			t.Fatalf("%+v against %+v", a, b)
		}
	})
}
