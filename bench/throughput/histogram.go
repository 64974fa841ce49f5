// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"math"
	"slices"

	dto "github.com/prometheus/client_model/go"
)

// histogram counts observations by the upper bound of their bucket, cumulatively.
type histogram map[float64]uint64

// read adds up all series of a family that have a label's value; every series when
// label is "".
func read(family *dto.MetricFamily, label, value string) histogram {
	h := histogram{}
	for _, m := range family.GetMetric() {
		matches := label == ""
		for _, l := range m.GetLabel() {
			matches = matches || (l.GetName() == label && l.GetValue() == value)
		}
		if !matches {
			continue
		}
		for _, b := range m.GetHistogram().GetBucket() {
			h[b.GetUpperBound()] += b.GetCumulativeCount()
		}
	}
	return h
}

// since is what came after an earlier reading.
func (h histogram) since(before histogram) histogram {
	out := histogram{}
	for bound, n := range h {
		out[bound] = n - before[bound]
	}
	return out
}

// total is how many observations there are.
func (h histogram) total() uint64 { return h[math.Inf(1)] }

// quantile is Prometheus' estimate: linear within the bucket, NaN without
// observations, and the highest finite bound when it lies above that.
func (h histogram) quantile(q float64) float64 {
	bounds := slices.Sorted(maps.Keys(h))
	if len(bounds) == 0 || h[bounds[len(bounds)-1]] == 0 {
		return math.NaN()
	}
	rank := q * float64(h[bounds[len(bounds)-1]])
	lower, below := 0.0, uint64(0)
	for _, bound := range bounds {
		n := h[bound]
		if float64(n) >= rank {
			if math.IsInf(bound, 1) {
				return lower
			}
			if n == below {
				return bound
			}
			return lower + (bound-lower)*(rank-float64(below))/float64(n-below)
		}
		lower, below = bound, n
	}
	return lower
}
