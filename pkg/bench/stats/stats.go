// SPDX-License-Identifier: Apache-2.0

// Package stats computes what vLLM's `bench serve` reports, by the same
// definitions, so that numbers can be compared: NumPy's mean, median, standard
// deviation of the population, and percentile by linear interpolation.
package stats

import (
	"math"
	"slices"
)

// Summary describes a set of values, in the values' unit.
type Summary struct {
	Mean, Median, Std, P99 float64
}

// Of summarises values; all zero when there are none, as in vLLM. The order of
// the values changes nothing.
func Of(values []float64) Summary {
	if len(values) == 0 {
		return Summary{}
	}
	sorted := slices.Sorted(slices.Values(values))
	mean := Mean(sorted)
	var squares float64
	for _, v := range sorted {
		squares += (v - mean) * (v - mean)
	}
	return Summary{
		Mean:   mean,
		Median: Percentile(sorted, 50),
		Std:    math.Sqrt(squares / float64(len(sorted))),
		P99:    Percentile(sorted, 99),
	}
}

// Mean is the sum of the values by their number; 0 when there are none.
func Mean(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	var sum float64
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// Percentile is the value below which p percent (0 to 100) of the sorted values
// lie, interpolated linearly between the two that are nearest: NumPy's default
// method, and its arithmetic. 0 when there are no values.
func Percentile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	position := min(max(p, 0), 100) / 100 * float64(len(sorted)-1)
	below := int(math.Floor(position))
	if below >= len(sorted)-1 {
		return sorted[len(sorted)-1]
	}
	a, b, t := sorted[below], sorted[below+1], position-float64(below)
	if t >= 0.5 { // keeps rounding symmetric, as NumPy does
		return b - (b-a)*(1-t)
	}
	return a + (b-a)*t
}
