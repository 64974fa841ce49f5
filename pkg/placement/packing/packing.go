// SPDX-License-Identifier: Apache-2.0

// Package packing says what a placement takes from the pods that come after it, and
// so where a pod should go for the cluster to hold most.
//
// It is pure: no client, no clock, no I/O, no randomness. The same calls in the same
// order give the same answers, and the order in which nodes were made known does not
// matter. An Engine is not safe for concurrent use.
//
// # What a placement costs
//
// A node is worth what the pods to come could still do on it, its potential: the
// best packing of its free GPUs and cores, each class of pods weighed by what
// serving one more of it is worth (a whole GPU is worth 1). Classes that are served
// in full anyhow weigh little, so that a GPU with 190 thousandths left is worth next
// to nothing where hardly any pod asks for so little, and one with half of it left
// is worth half a GPU where halves are in demand. These weights are the dual prices
// of a linear program over the present state of all nodes: choose packings for what
// is free so as to serve the most of the expected demand.
//
// The cost of a placement is the fall in the node's potential less what the pod
// itself is worth: the fragmentation it causes, in GPUs. Where pods name GPU models,
// the fall is charged again by the model's bid price, which rises with the demand
// that only this model can meet: the scarcity.
//
// Costs are compared in steps of Options.Step, and nodes within a step in a fixed
// order: differences below it are noise of the forecast, and a fixed order fills one
// node before it opens the next.
package packing

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
)

// WholeGPU is one GPU in thousandths.
const WholeGPU = 1000

// Node is what a machine has for pods, in all.
type Node struct {
	Name string
	// Order places the node among equally good ones, lowest first; then by name.
	Order int
	// Model of its GPUs, and the memory of each in bytes, 0 when not known.
	Model          string
	GPUMemoryBytes int64
	// GPUs is how many undivided ones it has, MIG how many slices by profile ("1g.10gb").
	GPUs        int
	MIG         map[string]int
	CPUMilli    int64
	MemoryBytes int64
}

// Request is what a pod asks for.
type Request struct {
	// Models it may run on; none means any. GPUMemoryBytes is the least per GPU.
	Models         []string
	GPUMemoryBytes int64
	// GPUs is how many, GPUMilli how much of each: 1000 is all of it.
	GPUs     int
	GPUMilli int64
	// MIG is how many slices, by profile.
	MIG         map[string]int
	CPUMilli    int64
	MemoryBytes int64
}

// worth of the request: the GPUs it uses.
func (r Request) worth() float64 { return float64(r.GPUs) * float64(r.GPUMilli) / WholeGPU }

func (r Request) cores() float64 { return float64(r.CPUMilli) / 1000 }

func (r Request) accelerated() bool { return r.GPUs > 0 || len(r.MIG) > 0 }

// most is the largest amount of anything: sums of it stay far from overflow.
const most = 1 << 52

// MostGPUs is how many a node may have.
const MostGPUs = 64

// Validate says which field is out of range, its value and what would do.
func (r Request) Validate() error {
	switch {
	case r.GPUs < 0 || r.GPUs > MostGPUs:
		return fmt.Errorf("GPUs is %d, want 0 to %d", r.GPUs, MostGPUs)
	case r.GPUs > 0 && (r.GPUMilli < 1 || r.GPUMilli > WholeGPU):
		return fmt.Errorf("GPUMilli is %d, want 1 to %d for a pod with GPUs", r.GPUMilli, WholeGPU)
	case r.GPUs == 0 && r.GPUMilli != 0:
		return fmt.Errorf("GPUMilli is %d, want 0 for a pod without GPUs", r.GPUMilli)
	}
	if err := amounts(map[string]int64{"CPUMilli": r.CPUMilli, "MemoryBytes": r.MemoryBytes, "GPUMemoryBytes": r.GPUMemoryBytes}); err != nil {
		return err
	}
	return counts("MIG", r.MIG)
}

// Validate says which field is out of range, its value and what would do.
func (n Node) Validate() error {
	switch {
	case n.Name == "":
		return errors.New("node without a Name")
	case n.GPUs < 0 || n.GPUs > MostGPUs:
		return fmt.Errorf("node %s: GPUs is %d, want 0 to %d", n.Name, n.GPUs, MostGPUs)
	}
	err := amounts(map[string]int64{"CPUMilli": n.CPUMilli, "MemoryBytes": n.MemoryBytes, "GPUMemoryBytes": n.GPUMemoryBytes})
	if err == nil {
		err = counts("MIG", n.MIG)
	}
	if err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	return nil
}

func amounts(of map[string]int64) error {
	for _, field := range slices.Sorted(maps.Keys(of)) {
		if of[field] < 0 || of[field] > most {
			return fmt.Errorf("%s is %d, want 0 to %d", field, of[field], int64(most))
		}
	}
	return nil
}

func counts(field string, of map[string]int) error {
	for _, profile := range slices.Sorted(maps.Keys(of)) {
		if of[profile] < 1 || of[profile] > 1<<20 {
			return fmt.Errorf("%s[%s] is %d, want 1 to %d", field, profile, of[profile], 1<<20)
		}
	}
	return nil
}

// Options are what the engine assumes. The zero value of a field means its default.
type Options struct {
	// HalfLife is after how many later pods an observed one counts half. Default 10,000.
	HalfLife float64
	// Horizon is the demand that is planned for, as a part of the free GPUs. Below 1
	// it leaves room for what cannot be packed. Default 0.7.
	Horizon float64
	// Softness is how much worth, in GPUs, a packing may be short of the best and still
	// count as likely. Default 0.02.
	Softness float64
	// Step is the difference in cost, in GPUs, that is not noise. Default 0.04.
	Step float64
	// ScarcityWeight is what a GPU of a model costs more when the demand that only it
	// can meet is all of it. Default 0.5.
	ScarcityWeight float64
	// PriorGPUs is the demand, in GPUs, that every model is assumed to be named for
	// before anything is known: models of which there are few are spared first.
	// Default 2.
	PriorGPUs float64
	// RepriceEvery is how many observed pods prices last at most. Default 500.
	RepriceEvery int
}

func (o Options) withDefaults() Options {
	set := func(field *float64, value float64) {
		if *field == 0 {
			*field = value
		}
	}
	set(&o.HalfLife, 10_000)
	set(&o.Horizon, 0.7)
	set(&o.Softness, 0.02)
	set(&o.Step, 0.04)
	set(&o.ScarcityWeight, 0.5)
	set(&o.PriorGPUs, 2)
	if o.RepriceEvery == 0 {
		o.RepriceEvery = 500
	}
	return o
}

// Validate says which field is out of range.
func (o Options) Validate() error {
	for _, f := range []struct {
		name        string
		value       float64
		least, most float64
	}{
		{"HalfLife", o.HalfLife, 0, 1e9},
		{"Horizon", o.Horizon, 0, 10},
		{"Softness", o.Softness, 0, 1},
		{"Step", o.Step, 0, 1},
		{"ScarcityWeight", o.ScarcityWeight, 0, 100},
		{"PriorGPUs", o.PriorGPUs, 0, 1e6},
		{"RepriceEvery", float64(o.RepriceEvery), 0, 1e9},
	} {
		if math.IsNaN(f.value) || f.value < f.least || f.value > f.most {
			return fmt.Errorf("%s is %v, want %v to %v, 0 for the default", f.name, f.value, f.least, f.most)
		}
	}
	if o.Softness > 0 && o.Softness < 0.01 {
		return fmt.Errorf("option Softness is %v, want at least 0.01: worths are weighed by exp(worth/Softness)", o.Softness)
	}
	return nil
}
