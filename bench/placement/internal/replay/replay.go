// SPDX-License-Identifier: Apache-2.0

// Package replay runs a policy over the arrivals of a trace and measures how much of
// the cluster's GPUs it allocates.
package replay

import (
	"fmt"
	"math"

	"github.com/spotbench/spotbench/bench/placement/internal/openb"
	"github.com/spotbench/spotbench/bench/placement/internal/policy"
)

// Policy chooses a machine and its GPUs for a pod; false when none fits.
type Policy interface {
	Choose(pod openb.Pod) (machine int, gpus []int, ok bool, err error)
}

// Curve is the mean allocation, in percent of the cluster's GPUs, by the load that
// had arrived, in whole percent. Loads that no arrival fell on are NaN.
type Curve []float64

// Run feeds the arrivals to the policy one by one. A pod that does not fit is gone,
// and none ever leaves.
func Run(c *policy.Cluster, p Policy, arrivals []openb.Pod) (Curve, error) {
	var sums, events []float64
	var arrived int64
	for _, pod := range arrivals {
		class := c.Class(pod)
		arrived += pod.TotalGPUMilli()
		machine, gpus, ok, err := p.Choose(pod)
		if err != nil {
			return nil, fmt.Errorf("pod %s: %w", pod.Name, err)
		}
		if ok {
			if err := c.Place(class, machine, gpus); err != nil {
				return nil, fmt.Errorf("pod %s: %w", pod.Name, err)
			}
		}
		load := int(math.RoundToEven(100 * float64(arrived) / float64(c.Capacity)))
		for len(sums) <= load {
			sums, events = append(sums, 0), append(events, 0)
		}
		sums[load] += math.Round(1e4*float64(c.Allocated)/float64(c.Capacity)) / 100
		events[load]++
	}
	for i := range sums {
		sums[i] /= events[i]
	}
	return sums, nil
}

// Mean of several curves, as far as the shortest goes.
func Mean(curves []Curve) Curve {
	if len(curves) == 0 {
		return nil
	}
	n := len(curves[0])
	for _, c := range curves {
		n = min(n, len(c))
	}
	mean := make(Curve, n)
	for load := range mean {
		for _, c := range curves {
			mean[load] += c[load] / float64(len(curves))
		}
	}
	return mean
}
