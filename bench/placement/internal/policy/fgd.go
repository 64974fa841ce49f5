// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/spotbench/spotbench/bench/placement/internal/openb"
)

// typicalShare is how many of a trace's pods FGD's typical ones stand for.
const typicalShare = 0.95

// fragmentation is FGD: the placement that least adds to the GPU milli which a
// typical pod could not use.
type fragmentation struct {
	typical []typicalPod
}

type typicalPod struct {
	Class
	share float64
}

func newFragmentation(c *Cluster, trace []openb.Pod) *fragmentation {
	counts, pods := map[string]int{}, map[string]openb.Pod{}
	for _, p := range trace {
		key := fmt.Sprint(p.CPUMilli, p.GPUs, p.GPUMilli, modelsKey(p))
		counts[key]++
		pods[key] = p
	}
	keys := make([]string, 0, len(counts))
	for key := range counts {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	f, covered := &fragmentation{}, 0
	for _, key := range keys {
		p := pods[key]
		t := typicalPod{Class{CPUMilli: p.CPUMilli, GPUs: p.GPUs, GPUMilli: p.GPUMilli}, float64(counts[key])}
		t.Models, t.Constrained = c.modelSet(p.Models)
		f.typical = append(f.typical, t)
		covered += counts[key]
		if float64(covered) >= typicalShare*float64(len(trace)) {
			break
		}
	}
	for i := range f.typical {
		f.typical[i].share /= float64(covered)
	}
	return f
}

// amount is the expected GPU milli of a machine that a typical pod cannot use.
func (f *fragmentation) amount(model int, cpu int64, gpus []int64) (expected float64) {
	var idle int64
	for _, free := range gpus {
		idle += free
	}
	for i := range f.typical {
		t := &f.typical[i]
		if t.GPUs == 0 || cpu < t.CPUMilli || !t.allows(model) {
			expected += t.share * float64(idle)
			continue
		}
		fitting, lost := 0, int64(0)
		for _, free := range gpus {
			if free >= t.GPUMilli {
				fitting++
			} else {
				lost += free
			}
		}
		if fitting < t.GPUs {
			lost = idle
		}
		expected += t.share * float64(lost)
	}
	return expected
}

func (f *fragmentation) score(m *Machine, c *Class) int64 {
	score, _ := f.best(m, c)
	return score
}

func (f *fragmentation) pick(m *Machine, c *Class) []int {
	_, gpus := f.best(m, c)
	return gpus
}

func (f *fragmentation) best(m *Machine, c *Class) (best int64, gpus []int) {
	before := f.amount(m.ModelID, m.CPUMilli, m.GPUMilli)
	rate := func(gpus []int) int64 {
		after := slices.Clone(m.GPUMilli)
		for _, g := range gpus {
			after[g] -= c.GPUMilli
		}
		gain := before - f.amount(m.ModelID, m.CPUMilli-c.CPUMilli, after)
		return int64(top / (1 + math.Exp(-gain/openb.WholeGPU)))
	}
	if c.GPUs == 0 || c.GPUMilli == openb.WholeGPU {
		gpus = idleGPUs(m, c.GPUs)
		return rate(gpus), gpus
	}
	best = unfit
	for g, free := range m.GPUMilli {
		if free < c.GPUMilli || slices.Index(m.GPUMilli, free) < g {
			continue // too little, or the same as a GPU already rated
		}
		if score := rate([]int{g}); score > best {
			best, gpus = score, []int{g}
		}
	}
	return best, gpus
}
