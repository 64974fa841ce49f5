// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"math"
	"math/rand"
	"slices"
	"strings"

	"github.com/spotbench/spotbench/bench/placement/internal/openb"
)

// Ties says which of several equally good machines is taken.
type Ties string

// The first in a fixed order, as in the published experiment, or any of them, as
// kube-scheduler does.
const (
	InOrder  Ties = "order"
	AtRandom Ties = "random"
)

// scorer rates a machine that fits, higher is better.
type scorer func(m *Machine, c *Class) int64

// picker chooses the GPUs of a machine that fits.
type picker func(m *Machine, c *Class) []int

// Scored is a policy of the kube-scheduler kind: every machine that fits gets a
// score, the best is taken.
type Scored struct {
	cluster *Cluster
	score   scorer
	pick    picker
	ties    Ties
	random  *rand.Rand
	cache   [][]scored // by class, machine
}

type scored struct {
	version int
	score   int64
}

const unfit = math.MinInt64

// Names of the published policies and of the stock ones, in the order of the tables.
func Names() []string {
	return []string{"FGD", "BestFit", "DotProd", "GpuPacking", "GpuClustering", "MostAllocated", "LeastAllocated", "FirstFit", "Random"}
}

// New is the policy of that name on a cluster. trace is what FGD takes its typical
// pods from; random breaks ties and draws for Random.
func New(name string, c *Cluster, trace []openb.Pod, ties Ties, random *rand.Rand) (*Scored, error) {
	s := &Scored{cluster: c, ties: ties, random: random, pick: tightestGPU}
	switch name {
	case "FGD":
		f := newFragmentation(c, trace)
		s.score, s.pick = f.score, f.pick
	case "BestFit":
		s.score = bestFit
	case "DotProd":
		s.score = dotProduct
	case "GpuPacking":
		s.score = gpuPacking
	case "GpuClustering":
		s.score = gpuClustering
	case "MostAllocated":
		s.score = mostAllocated
	case "LeastAllocated":
		s.score = leastAllocated
	case "FirstFit":
		s.score = func(*Machine, *Class) int64 { return 0 }
	case "Random":
		s.score = func(*Machine, *Class) int64 { return 0 }
		s.ties = AtRandom
		s.pick = s.anyGPU
	default:
		return nil, fmt.Errorf("policy %q is not known, have %s", name, strings.Join(Names(), ", "))
	}
	return s, nil
}

// Choose a machine and its GPUs for a pod; false when none fits.
func (s *Scored) Choose(pod openb.Pod) (machine int, gpus []int, ok bool, err error) {
	c := s.cluster.Class(pod)
	for len(s.cache) <= c.ID {
		s.cache = append(s.cache, nil)
	}
	if s.cache[c.ID] == nil {
		s.cache[c.ID] = slices.Repeat([]scored{{version: -1}}, len(s.cluster.Machines))
	}
	best, rank, equal := int64(unfit), 0, 0
	for i := range s.cluster.Machines {
		m, entry := &s.cluster.Machines[i], &s.cache[c.ID][i]
		if entry.version != m.Version {
			entry.version, entry.score = m.Version, unfit
			if m.Fits(c) {
				entry.score = s.score(m, c)
			}
		}
		switch {
		case entry.score == unfit || entry.score < best:
		case entry.score > best:
			best, machine, rank, equal = entry.score, i, s.cluster.Rank[i], 1
		case s.ties == InOrder:
			if r := s.cluster.Rank[i]; r < rank {
				machine, rank = i, r
			}
		default:
			equal++
			if s.random.Intn(equal) == 0 {
				machine = i
			}
		}
	}
	if best == unfit {
		return 0, nil, false, nil
	}
	if c.GPUs > 0 {
		gpus = s.pick(&s.cluster.Machines[machine], c)
	}
	return machine, gpus, true, nil
}

// tightestGPU gives a share the GPU with the least left, and whole GPUs the first
// idle ones.
func tightestGPU(m *Machine, c *Class) []int {
	if c.GPUs == 1 {
		best := -1
		for g, free := range m.GPUMilli {
			if free >= c.GPUMilli && (best < 0 || free < m.GPUMilli[best]) {
				best = g
			}
		}
		return []int{best}
	}
	return idleGPUs(m, c.GPUs)
}

func idleGPUs(m *Machine, n int) (gpus []int) {
	for g, free := range m.GPUMilli {
		if free == openb.WholeGPU && len(gpus) < n {
			gpus = append(gpus, g)
		}
	}
	return gpus
}

func (s *Scored) anyGPU(m *Machine, c *Class) []int {
	if c.GPUMilli == openb.WholeGPU {
		return idleGPUs(m, c.GPUs)
	}
	var fitting []int
	for g, free := range m.GPUMilli {
		if free >= c.GPUMilli {
			fitting = append(fitting, g)
		}
	}
	return []int{fitting[s.random.Intn(len(fitting))]}
}

// The largest machine of the published experiment, by which its scores are scaled.
const (
	mostCPUMilli = 128_000
	mostGPUMilli = 8 * openb.WholeGPU
	top          = 100
)

func bestFit(m *Machine, c *Class) int64 {
	left := 0.5*float64(m.CPUMilli-c.CPUMilli)/mostCPUMilli + 0.5*float64(m.FreeGPUMilli-int64(c.GPUs)*c.GPUMilli)/mostGPUMilli
	return int64((1 - left) * top)
}

func dotProduct(m *Machine, c *Class) int64 {
	dot := float64(m.CPUMilli)/mostCPUMilli*float64(c.CPUMilli)/mostCPUMilli +
		float64(m.FreeGPUMilli)/mostGPUMilli*float64(int64(c.GPUs)*c.GPUMilli)/mostGPUMilli
	return int64(top * (1 - dot/2))
}

// gpuPacking prefers GPUs in use, then idle ones on a node in use, then idle nodes.
func gpuPacking(m *Machine, c *Class) int64 {
	if c.GPUs == 0 {
		return 0
	}
	idle := fittingGPUs(m.GPUMilli, openb.WholeGPU)
	if idle == len(m.GPUMilli) {
		return max(top/3-int64(idle), int64(idle))
	}
	var used []int64
	for _, free := range m.GPUMilli {
		if free >= c.GPUMilli && free < openb.WholeGPU {
			used = append(used, free)
		}
	}
	if fresh := c.GPUs - len(used); fresh > 0 {
		return max(top/2-int64(fresh), top/3)
	}
	slices.Sort(used)
	var free int64
	for _, f := range used[:c.GPUs] {
		free += f * 100 / openb.WholeGPU
	}
	return max(top-free/10, top/2)
}

// gpuClustering prefers nodes that run the same kind of GPU pod: alone, with others,
// idle nodes, and last nodes with other kinds only; the fuller the better.
func gpuClustering(m *Machine, c *Class) int64 {
	if c.GPUs == 0 {
		return 0
	}
	base := int64(0)
	switch {
	case m.Kinds[kind(c)] > 0 && len(m.Kinds) == 1:
		base = top * 3 / 4
	case m.Kinds[kind(c)] > 0:
		base = top * 2 / 4
	case len(m.Kinds) == 0:
		base = top / 4
	}
	return top/4*(mostGPUMilli-m.FreeGPUMilli)/mostGPUMilli + base
}

// mostAllocated is kube-scheduler's strategy of that name for the GPU resource.
func mostAllocated(m *Machine, c *Class) int64 {
	capacity := int64(len(m.GPUMilli)) * openb.WholeGPU
	if c.GPUs == 0 || capacity == 0 {
		return 0
	}
	return (capacity - m.FreeGPUMilli + int64(c.GPUs)*c.GPUMilli) * top / capacity
}

// leastAllocated is kube-scheduler's default: LeastAllocated and BalancedAllocation
// over CPU and memory.
func leastAllocated(m *Machine, c *Class) int64 {
	cpu, memory := m.CPUMilli-c.CPUMilli, m.MemoryMiB-c.MemoryMiB
	least := (cpu*top/m.Node.CPUMilli + memory*top/m.Node.MemoryMiB) / 2
	spread := math.Abs(float64(cpu)/float64(m.Node.CPUMilli) - float64(memory)/float64(m.Node.MemoryMiB))
	return least + int64((1-spread/2)*top)
}
