// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strconv"

	"github.com/spotbench/spotbench/bench/placement/internal/openb"
	"github.com/spotbench/spotbench/pkg/placement/packing"
)

// ours is the name of the policy that Spotbench's scheduler follows.
const ours = "ours"

// engine lets the scheduler's own engine play: it learns from each pod as it arrives,
// and of none before.
type engine struct {
	*packing.Engine
	index  map[string]int
	placed int
}

func newOurs(nodes []openb.Node, rank []int) (*engine, error) {
	e, err := packing.New(packing.Options{})
	if err != nil {
		return nil, err
	}
	p := &engine{Engine: e, index: map[string]int{}}
	for i, n := range nodes {
		p.index[n.Name] = i
		node := packing.Node{Name: n.Name, Order: rank[i], Model: n.Model, GPUs: n.GPUs, CPUMilli: n.CPUMilli, MemoryBytes: n.MemoryMiB << 20}
		if err := e.SetNode(node); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Choose implements replay.Policy.
func (p *engine) Choose(pod openb.Pod) (machine int, gpus []int, ok bool, err error) {
	r := packing.Request{Models: pod.Models, GPUs: pod.GPUs, GPUMilli: pod.GPUMilli, CPUMilli: pod.CPUMilli, MemoryBytes: pod.MemoryMiB << 20}
	if err := p.Observe(r); err != nil {
		return 0, nil, false, err
	}
	best, ok, err := p.Best(r, nil)
	if err != nil || !ok {
		return 0, nil, false, err
	}
	p.placed++
	if _, err := p.Assign(strconv.Itoa(p.placed), r, best.Node, best.GPUs); err != nil {
		return 0, nil, false, err
	}
	return p.index[best.Node], best.GPUs, true, nil
}
