// SPDX-License-Identifier: Apache-2.0

package packing

import (
	"fmt"
	"math"
	"slices"
)

// State is what an engine has learned, without its nodes and what is assigned on them:
// an engine with the same nodes that is given it goes on as this one would have.
type State struct {
	// Classes of pods in the demand, in the order in which they were first seen.
	Classes []ClassState `json:"classes,omitempty"`
	// Cores asked for by pods without GPUs, and Weight, what the newest pod counts: a
	// half of that is a pod half forgotten.
	Cores  float64 `json:"cores,omitempty"`
	Weight float64 `json:"weight"`
	// Seen is how many pods were observed, RepriceAt of which one prices are made next;
	// 0 says that none were made yet.
	Seen      int `json:"seen"`
	RepriceAt int `json:"repriceAt,omitempty"`
	// CorePrice is that of a core for pods without GPUs.
	CorePrice float64 `json:"corePrice,omitempty"`
	// Pressure of each shape of node as of the last prices. It is reckoned anew where the
	// nodes are of other shapes by now.
	Pressure []ShapePressure `json:"pressure,omitempty"`
}

// ShapePressure is the demand expected that only one shape of node can meet, over what
// was free of it.
type ShapePressure struct {
	Model          string `json:"model,omitempty"`
	GPUMemoryBytes int64  `json:"gpuMemoryBytes,omitempty"`
	GPUs           int    `json:"gpus"`
	// Cores and MemoryBytes are those of the largest node of the shape.
	Cores       float64 `json:"cores"`
	MemoryBytes int64   `json:"memoryBytes"`
	Pressure    float64 `json:"pressure"`
}

// ClassState is a kind of pod that was asked for.
type ClassState struct {
	Models         []string `json:"models,omitempty"`
	GPUMemoryBytes int64    `json:"gpuMemoryBytes,omitempty"`
	GPUs           int      `json:"gpus"`
	// Slots is how many hundredths of each GPU.
	Slots int     `json:"slots"`
	Cores float64 `json:"cores,omitempty"`
	// MemoryBytes is the mean of its pods.
	MemoryBytes float64 `json:"memoryBytes,omitempty"`
	// Count is the pods observed, by their weight; Pending those that wait.
	Count   float64 `json:"count"`
	Pending float64 `json:"pending,omitempty"`
	// Discount is by how much, in GPUs, one more falls short of the GPUs it uses.
	Discount float64 `json:"discount,omitempty"`
	// New says that it was first asked for after the last prices were made.
	New bool `json:"new,omitempty"`
}

// State of the engine now.
func (e *Engine) State() State {
	d := e.demand
	s := State{Cores: d.cores, Weight: d.weight, Seen: d.seen, RepriceAt: e.nextReprice, CorePrice: e.corePrice}
	for _, c := range d.classes {
		s.Classes = append(s.Classes, ClassState{
			Models: c.models, GPUMemoryBytes: c.gpuMemory, GPUs: c.gpus, Slots: c.slots,
			Cores: c.cores, MemoryBytes: c.memory, Count: c.count, Pending: c.pending, Discount: c.discount, New: !c.priced,
		})
	}
	if e.prices != nil && !e.stale {
		s.Pressure = e.shapePressure()
	}
	return s
}

func (e *Engine) shapePressure() []ShapePressure {
	out := make([]ShapePressure, len(e.shapes))
	for i, s := range e.shapes {
		k := e.kinds[s.kind]
		out[i] = ShapePressure{k.model, k.memory, s.gpus, s.cores, s.memory, e.prices.pressure[i]}
	}
	return out
}

// Restore makes the engine, which knows its nodes already, go on from a state.
func (e *Engine) Restore(s State) error {
	if err := s.Validate(); err != nil {
		return err
	}
	d := newDemand()
	d.cores, d.weight, d.seen = s.Cores, s.Weight, s.Seen
	for _, c := range s.Classes {
		worth := worthOf(c.GPUs, c.Slots)
		restored := &class{
			models: slices.Clone(c.Models), gpuMemory: c.GPUMemoryBytes, gpus: c.GPUs, slots: c.Slots, cores: c.Cores, memory: c.MemoryBytes,
			worth: worth, count: c.Count, pending: c.Pending, discount: min(c.Discount, worth), priced: !c.New,
		}
		key := restored.key()
		if d.byKey[key] != nil {
			return fmt.Errorf("state of packing: two classes are alike (%s)", key)
		}
		d.byKey[key] = restored
		d.classes = append(d.classes, restored)
	}
	e.demand, e.nextReprice, e.corePrice, e.prices = d, s.RepriceAt, s.CorePrice, nil
	e.survey()
	if s.RepriceAt == 0 {
		return nil
	}
	e.prices = &prices{}
	all := d.classes
	d.classes = slices.DeleteFunc(slices.Clone(all), func(c *class) bool { return !c.priced })
	e.solve(0, 0)
	d.classes = all
	sameShape := func(a, b ShapePressure) bool { a.Pressure = b.Pressure; return a == b }
	if !slices.EqualFunc(s.Pressure, e.shapePressure(), sameShape) {
		e.solve(0, 0) // as when nodes come or go
		return nil
	}
	for i := range s.Pressure {
		e.prices.pressure[i] = s.Pressure[i].Pressure
	}
	return nil
}

// Validate says which field is out of range, its value and what would do.
func (s State) Validate() error {
	if s.Seen < 0 || s.RepriceAt < 0 {
		return fmt.Errorf("state of packing: seen is %d and repriceAt %d, want 0 or more", s.Seen, s.RepriceAt)
	}
	if !(s.Weight >= 1 && s.Weight <= 2*heaviest) {
		return fmt.Errorf("state of packing: weight is %v, want 1 to %v", s.Weight, 2*heaviest)
	}
	check := func(where string, of ...float64) error {
		for _, v := range of {
			if math.IsNaN(v) || v < 0 || v > most {
				return fmt.Errorf("state of packing: %s has the figure %v, want 0 to %d", where, v, int64(most))
			}
		}
		return nil
	}
	if err := check("cores or corePrice", s.Cores, s.CorePrice); err != nil {
		return err
	}
	for i, p := range s.Pressure {
		if err := check(fmt.Sprintf("pressure[%d]", i), p.Pressure); err != nil {
			return err
		}
	}
	for i, c := range s.Classes {
		where := fmt.Sprintf("classes[%d]", i)
		if c.GPUs < 1 || c.GPUs > MostGPUs || c.Slots < 1 || c.Slots > slots {
			return fmt.Errorf("state of packing: %s has gpus %d and slots %d, want 1 to %d and 1 to %d", where, c.GPUs, c.Slots, MostGPUs, slots)
		}
		if err := check(where, float64(c.GPUMemoryBytes), c.Cores, c.MemoryBytes, c.Count, c.Pending, c.Discount); err != nil {
			return err
		}
	}
	return nil
}
