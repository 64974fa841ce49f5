// SPDX-License-Identifier: Apache-2.0

// Package policy holds the cluster of a replay and the published scheduling
// policies, each with the arithmetic of its publication.
package policy

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spotbench/spotbench/bench/placement/internal/openb"
)

// Class is what pods must have in common to be placed alike.
type Class struct {
	ID                  int
	CPUMilli, MemoryMiB int64
	GPUs                int
	GPUMilli            int64
	// Models is a set of the cluster's models by their bit; Constrained is false where
	// any will do.
	Models      uint64
	Constrained bool
}

func (c *Class) allows(model int) bool { return !c.Constrained || c.Models&(1<<model) != 0 }

// Machine is a node and what is left of it.
type Machine struct {
	openb.Node
	ModelID             int
	CPUMilli, MemoryMiB int64
	GPUMilli            []int64
	FreeGPUMilli        int64
	// Kinds counts the GPU pods on it by what they ask for: "share", "1-gpu", …
	Kinds map[string]int
	// Version grows with each change.
	Version int
}

// Fits says whether a pod of the class can run on the machine now.
func (m *Machine) Fits(c *Class) bool {
	if m.CPUMilli < c.CPUMilli || m.MemoryMiB < c.MemoryMiB {
		return false
	}
	return c.GPUs == 0 || c.allows(m.ModelID) && fittingGPUs(m.GPUMilli, c.GPUMilli) >= c.GPUs
}

func fittingGPUs(free []int64, milli int64) (n int) {
	for _, f := range free {
		if f >= milli {
			n++
		}
	}
	return n
}

// Cluster is the ledger of a replay: what each machine has left.
type Cluster struct {
	Machines []Machine
	// Rank of each machine among equally good ones, lowest first.
	Rank      []int
	Allocated int64 // GPU milli
	Capacity  int64 // GPU milli

	models  map[string]int
	classes map[string]*Class
}

// NewCluster is an idle cluster.
func NewCluster(nodes []openb.Node, rank []int) (*Cluster, error) {
	c := &Cluster{Rank: rank, Capacity: openb.Capacity(nodes), models: map[string]int{}, classes: map[string]*Class{}}
	for _, n := range nodes {
		id, known := c.models[n.Model]
		if !known {
			id = len(c.models)
			c.models[n.Model] = id
		}
		if id >= 64 {
			return nil, fmt.Errorf("more than 64 GPU models, %q is one too many", n.Model)
		}
		m := Machine{Node: n, ModelID: id, CPUMilli: n.CPUMilli, MemoryMiB: n.MemoryMiB,
			GPUMilli: make([]int64, n.GPUs), FreeGPUMilli: int64(n.GPUs) * openb.WholeGPU, Kinds: map[string]int{}}
		for i := range m.GPUMilli {
			m.GPUMilli[i] = openb.WholeGPU
		}
		c.Machines = append(c.Machines, m)
	}
	return c, nil
}

// Class of a pod; the same pointer for pods that are alike.
func (c *Cluster) Class(p openb.Pod) *Class {
	key := fmt.Sprint(p.CPUMilli, p.MemoryMiB, p.GPUs, p.GPUMilli, p.Models)
	if class := c.classes[key]; class != nil {
		return class
	}
	class := &Class{ID: len(c.classes), CPUMilli: p.CPUMilli, MemoryMiB: p.MemoryMiB, GPUs: p.GPUs, GPUMilli: p.GPUMilli}
	class.Models, class.Constrained = c.modelSet(p.Models)
	c.classes[key] = class
	return class
}

func (c *Cluster) modelSet(models []string) (set uint64, constrained bool) {
	for _, model := range models {
		if id, known := c.models[model]; known {
			set |= 1 << id
		}
	}
	return set, len(models) > 0
}

// Place books a pod on a machine and its GPUs. It refuses, with an error that names
// the fault, whatever the machine does not have.
func (c *Cluster) Place(class *Class, machine int, gpus []int) error {
	m := &c.Machines[machine]
	fault := func(format string, args ...any) error {
		return fmt.Errorf("%s: %s", m.Name, fmt.Sprintf(format, args...))
	}
	switch {
	case m.CPUMilli < class.CPUMilli:
		return fault("%d CPU milli left, the pod asks for %d", m.CPUMilli, class.CPUMilli)
	case m.MemoryMiB < class.MemoryMiB:
		return fault("%d MiB of memory left, the pod asks for %d", m.MemoryMiB, class.MemoryMiB)
	case class.GPUs > 0 && !class.allows(m.ModelID):
		return fault("%s GPUs are not among the pod's models", m.Model)
	case len(gpus) != class.GPUs:
		return fault("%d GPUs given, the pod asks for %d", len(gpus), class.GPUs)
	}
	for i, g := range gpus {
		for _, other := range gpus[:i] {
			if g == other {
				return fault("GPU %d given twice", g)
			}
		}
		if g < 0 || g >= len(m.GPUMilli) || m.GPUMilli[g] < class.GPUMilli {
			return fault("GPU %d has not the %d milli the pod asks for", g, class.GPUMilli)
		}
	}
	m.CPUMilli -= class.CPUMilli
	m.MemoryMiB -= class.MemoryMiB
	for _, g := range gpus {
		m.GPUMilli[g] -= class.GPUMilli
		m.FreeGPUMilli -= class.GPUMilli
		c.Allocated += class.GPUMilli
	}
	if class.GPUs > 0 {
		m.Kinds[kind(class)]++
	}
	m.Version++
	return nil
}

// kind is the pod's class in GpuClustering.
func kind(c *Class) string {
	if c.GPUMilli < openb.WholeGPU {
		return "share"
	}
	return strconv.Itoa(c.GPUs) + "-gpu"
}

// modelsKey is a pod's model constraint as one word.
func modelsKey(p openb.Pod) string { return strings.Join(p.Models, "|") }
