// SPDX-License-Identifier: Apache-2.0

// Package advice says what would get a pending pod a node: which pods' end it waits
// for, what it could ask for instead, which node to add.
//
// It is pure, and it does not guess: every way it gives was tried on the snapshot,
// with the code that decides placements, and leads to a feasible node there.
package advice

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/snapshot"
)

// Group is the nodes of one GPU model and pool.
type Group struct {
	GPUModel string        `json:"gpuModel"`
	Pool     snapshot.Pool `json:"pool"`
	// Nodes are their names, in order.
	Nodes []string `json:"nodes,omitempty"`
	// Refusals are why these nodes will not do, the most frequent first.
	Refusals []Refusal `json:"refusals,omitempty"`
	// Ways are what would make one of them do, or one more like them, the easiest
	// first; empty when nothing that is known would.
	Ways []Way `json:"ways,omitempty"`
}

// Refusal is why some nodes will not do.
type Refusal struct {
	Reason placement.Reason `json:"reason"`
	// Detail completes "the nodes have …".
	Detail string `json:"detail"`
	Nodes  int    `json:"nodes"`
}

// Way is what has to happen, all of it, for the pod to get a node.
type Way struct {
	Node    string   `json:"node"`
	Changes []Change `json:"changes"`
}

// Text is what has to happen, in one line.
func (w Way) Text() string {
	texts := make([]string, len(w.Changes))
	for i, c := range w.Changes {
		texts[i] = c.Text
	}
	return strings.Join(texts, ", and ")
}

// Apply is the snapshot and the pod once it has happened.
func (w Way) Apply(s snapshot.Snapshot, p snapshot.Pod) (snapshot.Snapshot, snapshot.Pod) {
	for _, c := range w.Changes {
		s, p = c.Apply(s, p)
	}
	return s, p
}

// effort orders ways: what happens by itself and soon comes first.
func (w Way) effort() (asks int, unknown int, at time.Time) {
	for _, c := range w.Changes {
		switch {
		case c.AddNode != nil:
			asks += 2
		case c.waits() && c.At.IsZero():
			unknown++
		case c.waits():
			at = c.At
		default:
			asks++
		}
	}
	return asks, unknown, at
}

func (w Way) compare(other Way) int {
	asks, unknown, at := w.effort()
	otherAsks, otherUnknown, otherAt := other.effort()
	return cmp.Or(cmp.Compare(asks, otherAsks), cmp.Compare(unknown, otherUnknown), at.Compare(otherAt),
		cmp.Compare(len(w.Changes), len(other.Changes)), strings.Compare(w.Node, other.Node), strings.Compare(w.Text(), other.Text()))
}

// mostWays bounds the ways that a group lists.
const mostWays = 2

// For is what would get a pod a node, by GPU model and pool, the easiest first.
// Nodes without GPUs are left out for a pod that wants some. An error is why the pod
// cannot be placed whatever the nodes.
func For(s snapshot.Snapshot, p snapshot.Pod) ([]Group, error) {
	r, err := s.Request(p)
	if err != nil {
		return nil, err
	}
	type key struct {
		model string
		pool  snapshot.Pool
	}
	groups := map[key]*Group{}
	for _, n := range sortedNodes(s) {
		if n.TotalGPUs == 0 && n.GPU == nil && p.UsesGPUs() {
			continue
		}
		k := key{pool: n.Pool}
		if n.GPU != nil {
			k.model = n.GPU.Model
		}
		g := groups[k]
		if g == nil {
			g = &Group{GPUModel: k.model, Pool: k.pool}
			groups[k] = g
			if way, ok := another(s, p, n); ok {
				g.Ways = append(g.Ways, way)
			}
		}
		g.Nodes = append(g.Nodes, n.Name)
		refusal, err := s.Refusal(p, n.Name)
		if err != nil {
			return nil, err
		}
		if refusal == nil {
			continue // it got room meanwhile
		}
		g.count(*refusal)
		g.Ways = append(g.Ways, ways(s, p, n)...)
	}
	for _, model := range cards(r) {
		k := key{model: model, pool: snapshot.Pool{CapacityType: newCapacity(r)}}
		known := slices.ContainsFunc(s.Nodes, func(n snapshot.Node) bool {
			return n.GPU != nil && (n.GPU.Model == model || n.GPU.Product == model)
		})
		if way, ok := firstOf(s, p, r, model, k.pool); ok && !known {
			groups[k] = &Group{GPUModel: model, Pool: k.pool, Ways: []Way{way}}
		}
	}
	var out []Group
	for _, g := range groups {
		slices.SortFunc(g.Refusals, func(a, b Refusal) int {
			return cmp.Or(-cmp.Compare(a.Nodes, b.Nodes), strings.Compare(a.Detail, b.Detail))
		})
		g.Ways = best(g.Ways)
		out = append(out, *g)
	}
	slices.SortFunc(out, compareGroups)
	return out, nil
}

// cards that a pod names: for slices those that they are cut from.
func cards(r placement.Request) []string {
	if r.Resource.Profile == "" {
		return r.Spec.GPUModels
	}
	var out []string
	for _, model := range r.Spec.GPUModels {
		if card, _, _ := strings.Cut(model, "-MIG-"); !slices.Contains(out, card) {
			out = append(out, card)
		}
	}
	return out
}

func sortedNodes(s snapshot.Snapshot) []snapshot.Node {
	nodes := slices.Clone(s.Nodes)
	slices.SortFunc(nodes, func(a, b snapshot.Node) int { return strings.Compare(a.Name, b.Name) })
	return nodes
}

func (g *Group) count(r placement.Refusal) {
	for i := range g.Refusals {
		if g.Refusals[i].Detail == r.Detail {
			g.Refusals[i].Nodes++
			return
		}
	}
	g.Refusals = append(g.Refusals, Refusal{Reason: r.Reason, Detail: r.Detail, Nodes: 1})
}

// best are the easiest ways, of each kind one.
func best(all []Way) []Way {
	slices.SortFunc(all, Way.compare)
	var out []Way
	sameKinds := func(a, b Way) bool {
		return slices.EqualFunc(a.Changes, b.Changes, func(a, b Change) bool { return a.Kind == b.Kind && a.Annotation == b.Annotation })
	}
	for _, w := range all {
		if slices.ContainsFunc(out, func(earlier Way) bool { return sameKinds(earlier, w) }) {
			continue
		}
		if out = append(out, w); len(out) == mostWays {
			break
		}
	}
	return out
}

func compareGroups(a, b Group) int {
	switch {
	case len(a.Ways) > 0 && len(b.Ways) > 0:
		if c := a.Ways[0].compare(b.Ways[0]); c != 0 {
			return c
		}
	case len(a.Ways) != len(b.Ways):
		return cmp.Compare(len(b.Ways), len(a.Ways))
	}
	return cmp.Or(strings.Compare(a.GPUModel, b.GPUModel), strings.Compare(gpu.Pool(a.Pool).String(), gpu.Pool(b.Pool).String()))
}

// newCapacity is the kind of capacity of a node to add.
func newCapacity(r placement.Request) string {
	if string(r.Spec.Capacity) == gpu.Spot {
		return gpu.Spot
	}
	return gpu.OnDemand
}
