// SPDX-License-Identifier: Apache-2.0

package packing

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Reason is why a node cannot take a pod.
type Reason string

// Reasons, in the order they are looked for: a node has the first that applies.
const (
	ReasonNoGPUs    Reason = "NoGPUs"
	ReasonModel     Reason = "GPUModel"
	ReasonGPUMemory Reason = "GPUMemory"
	ReasonGPUs      Reason = "FreeGPUs"
	ReasonMIG       Reason = "FreeMIGSlices"
	ReasonCPU       Reason = "FreeCPU"
	ReasonMemory    Reason = "FreeMemory"
)

// Refusal is why a node cannot take a pod, with what was found and wanted.
type Refusal struct {
	Node   string
	Reason Reason
	// Detail completes "the node has …".
	Detail string
	// Temporary is true when pods on the node are in the way.
	Temporary bool
}

// String is "node-1 has 2 of 8 GPUs with 500 milli free, wanted 4".
func (r *Refusal) String() string { return r.Node + " has " + r.Detail }

// Check says why a node cannot take the request now; nil when it can. An unknown node
// is an error.
func (e *Engine) Check(r Request, node string) (*Refusal, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	m := e.byName[node]
	if m == nil {
		return nil, fmt.Errorf("node %q is not known", node)
	}
	return m.check(r), nil
}

// Refusals of every node that cannot take the request now, in the fixed order.
func (e *Engine) Refusals(r Request) ([]Refusal, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	var refusals []Refusal
	for _, m := range e.machines {
		if refusal := m.check(r); refusal != nil {
			refusals = append(refusals, *refusal)
		}
	}
	return refusals, nil
}

func (m *machine) check(r Request) *Refusal {
	refuse := func(reason Reason, temporary bool, format string, args ...any) *Refusal {
		return &Refusal{Node: m.Name, Reason: reason, Detail: fmt.Sprintf(format, args...), Temporary: temporary}
	}
	if r.accelerated() {
		switch {
		case m.GPUs == 0 && len(m.MIG) == 0:
			return refuse(ReasonNoGPUs, false, "no GPUs")
		case len(r.Models) > 0 && !slices.Contains(r.Models, m.Model):
			return refuse(ReasonModel, false, "%s, wanted %s", m.Model, strings.Join(r.Models, " or "))
		case m.GPUMemoryBytes < r.GPUMemoryBytes:
			return refuse(ReasonGPUMemory, false, "%d bytes of memory per GPU, wanted %d", m.GPUMemoryBytes, r.GPUMemoryBytes)
		}
	}
	if free := m.fitting(r.GPUMilli); free < r.GPUs {
		return refuse(ReasonGPUs, m.GPUs >= r.GPUs, "%d of %d GPUs with %d milli free, wanted %d", free, m.GPUs, r.GPUMilli, r.GPUs)
	}
	for _, profile := range slices.Sorted(maps.Keys(r.MIG)) {
		if free, wanted := m.freeMIG[profile], r.MIG[profile]; free < wanted {
			return refuse(ReasonMIG, m.MIG[profile] >= wanted, "%d of %d slices %s free, wanted %d", free, m.MIG[profile], profile, wanted)
		}
	}
	if m.freeCPU < r.CPUMilli {
		return refuse(ReasonCPU, m.CPUMilli >= r.CPUMilli, "%d of %d CPU milli free, wanted %d", m.freeCPU, m.CPUMilli, r.CPUMilli)
	}
	if m.freeMemory < r.MemoryBytes {
		return refuse(ReasonMemory, m.MemoryBytes >= r.MemoryBytes, "%d of %d bytes of memory free, wanted %d", m.freeMemory, m.MemoryBytes, r.MemoryBytes)
	}
	return nil
}

// fitting is how many GPUs have so much left.
func (m *machine) fitting(milli int64) (n int) {
	if milli == 0 {
		return 0
	}
	for _, free := range m.freeGPU {
		if free >= milli {
			n++
		}
	}
	return n
}
