// SPDX-License-Identifier: Apache-2.0

package packing

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
)

// Cost is what a placement takes from the pods to come, in GPUs for as long as the pod
// runs. Only differences between nodes mean something: each pod has a constant of its
// own in it.
type Cost struct {
	// Fragmentation is what is lost to packing, Scarcity the surcharge for GPUs that
	// only some pods can do without.
	Fragmentation, Scarcity float64
}

// GPUs is all of the cost.
func (c Cost) GPUs() float64 { return c.Fragmentation + c.Scarcity }

// Candidate is a node that can take the pod, and how.
type Candidate struct {
	Node string
	GPUs []int
	Cost Cost
	// Rank is what nodes are compared by: the cost in whole steps of Options.Step, and
	// what the caller adds. Equal ones are in the fixed order.
	Rank float64
}

// Rank of all nodes that can take the request, best first. extra is what else a node
// costs, in GPUs, such as its price over that of a GPU; nil is nothing. It is compared
// at full precision, and an infinite one leaves the node out.
func (e *Engine) Rank(r Request, extra func(node string) float64) ([]Candidate, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	type ranked struct {
		m    *machine
		cost Cost
		rank float64
	}
	var all []ranked
	scored := e.scored(r)
	for i, m := range e.machines {
		s := &scored[i]
		if !s.fits {
			continue
		}
		if at := s.rank(m, extra); !math.IsInf(at, 1) {
			all = append(all, ranked{m, s.cost, at})
		}
	}
	slices.SortStableFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), tie(r, a.m, b.m))
	})
	candidates := make([]Candidate, len(all))
	for i, c := range all {
		candidates[i] = Candidate{Node: c.m.Name, GPUs: e.pick(c.m, r), Cost: c.cost, Rank: c.rank}
	}
	return candidates, nil
}

// Best is the first of Rank, without the work of sorting; false when no node can take
// the request.
func (e *Engine) Best(r Request, extra func(node string) float64) (Candidate, bool, error) {
	if err := r.Validate(); err != nil {
		return Candidate{}, false, err
	}
	best, rank := -1, math.Inf(1) // so that an infinite one is never less
	ties := r.GPUs == 0 || len(r.MIG) > 0
	scored := e.scored(r)
	for i := range scored {
		s := &scored[i]
		if !s.fits || s.step > rank && extra == nil {
			continue
		}
		at := s.rank(e.machines[i], extra)
		if at < rank || ties && best >= 0 && at == rank && tie(r, e.machines[i], e.machines[best]) < 0 {
			best, rank = i, at
		}
	}
	if best < 0 {
		return Candidate{}, false, nil
	}
	m := e.machines[best]
	return Candidate{Node: m.Name, GPUs: e.pick(m, r), Cost: scored[best].cost, Rank: rank}, true, nil
}

// Scored is a node as a request sees it.
type Scored struct {
	// Position of the node in the fixed order, from 0.
	Position int
	// Fits is false where the node cannot take the request; the rest then says nothing.
	Fits bool
	Cost Cost
	// Rank is the cost in whole steps of Options.Step, Tie what orders nodes of equal
	// rank before the fixed order.
	Rank float64
	Tie  int
}

// Scores of every node in the fixed order, for callers that compare by more than the
// engine knows. The sequence holds until the engine is changed.
func (e *Engine) Scores(r Request) (iter.Seq[Scored], error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	scored := e.scored(r)
	return func(yield func(Scored) bool) {
		for i := range scored {
			s := Scored{Position: i, Fits: scored[i].fits, Cost: scored[i].cost, Rank: scored[i].step}
			if s.Fits {
				s.Tie = leaning(r, e.machines[i])
			}
			if !yield(s) {
				return
			}
		}
	}, nil
}

// OpportunityCost of one request on one node; the refusal where it cannot take it.
func (e *Engine) OpportunityCost(r Request, node string) (Cost, *Refusal, error) {
	refusal, err := e.Check(r, node)
	if err != nil || refusal != nil {
		return Cost{}, refusal, err
	}
	e.priced()
	cost, _ := e.cost(e.byName[node], r)
	return cost, nil, nil
}

// rank is what a machine is compared by.
func (s *score) rank(m *machine, extra func(node string) float64) float64 {
	if extra == nil {
		return s.step
	}
	x := extra(m.Name)
	if math.IsNaN(x) {
		x = 0
	}
	return s.step + x
}

// tie orders nodes that cost the same, before the fixed order.
func tie(r Request, a, b *machine) int { return cmp.Compare(leaning(r, a), leaning(r, b)) }

// leaning is less where a request rather goes at equal cost: for MIG slices the node
// with fewer left, for pods without GPUs one without.
func leaning(r Request, m *machine) int {
	switch {
	case len(r.MIG) > 0:
		return m.freeMIGAfter(r)
	case r.GPUs == 0:
		return min(m.GPUs+len(m.MIG), 1)
	}
	return 0
}

// Scores are kept for so many requests, and so many of them in all: at 32 bytes each
// they would grow large on clusters of many nodes.
const mostRequests, mostScores = 512, 1 << 19

// scored is the score of a request on every machine, by its position. Only machines
// that have changed since the last time are scored again.
func (e *Engine) scored(r Request) []score {
	e.priced()
	key := r.key()
	scored := e.scores[key]
	if scored == nil {
		if len(e.scores) >= max(1, min(mostRequests, mostScores/max(1, len(e.machines)))) {
			clear(e.scores)
		}
		scored = &scores{of: make([]score, len(e.machines))}
		e.scores[key] = scored
	}
	again := e.changed[scored.changed:]
	if scored.epoch != e.prices.epoch {
		again = e.machines
	}
	for _, m := range again {
		scored.of[m.position] = e.score(m, r)
	}
	scored.epoch, scored.changed = e.prices.epoch, len(e.changed)
	return scored.of
}

func (e *Engine) score(m *machine, r Request) score {
	if !m.fits(r) {
		return score{}
	}
	cost, _ := e.cost(m, r)
	return score{fits: true, cost: cost, step: math.Round(cost.GPUs()/e.options.Step) * e.options.Step}
}

func (r Request) key() string {
	var mig strings.Builder
	for _, profile := range slices.Sorted(maps.Keys(r.MIG)) {
		fmt.Fprintf(&mig, " %q=%d", profile, r.MIG[profile])
	}
	return fmt.Sprintf("%q %d %d %d %d %d%s", r.Models, r.GPUMemoryBytes, r.GPUs, r.GPUMilli, r.CPUMilli, r.MemoryBytes, mig.String())
}

// fits is check without its words.
func (m *machine) fits(r Request) bool {
	if m.freeCPU < r.CPUMilli || m.freeMemory < r.MemoryBytes || m.fitting(r.GPUMilli) < r.GPUs {
		return false
	}
	for profile, wanted := range r.MIG {
		if m.freeMIG[profile] < wanted {
			return false
		}
	}
	return !r.accelerated() || (len(r.Models) == 0 || slices.Contains(r.Models, m.Model)) && m.GPUMemoryBytes >= r.GPUMemoryBytes
}

// pick the GPUs of a machine that fits.
func (e *Engine) pick(m *machine, r Request) []int {
	if r.GPUs == 0 {
		return nil
	}
	e.priced()
	_, gpus := e.cost(m, r)
	return gpus
}

// cost of a request on a machine that fits, and the GPUs it takes there: one at a
// time, each time the one whose loss costs least; of equal ones that with least left.
func (e *Engine) cost(m *machine, r Request) (Cost, []int) {
	var s state
	kind := e.prices.like[m.kind]
	s.of(kind, m.freeCores, m.freeGPU)
	before, _ := e.prices.potential(&s)
	left := m.freeCores - r.cores()
	var buffer [MostGPUs]int64
	free := append(buffer[:0], m.freeGPU...)
	var gpus []int
	after := math.Inf(-1)
	if r.GPUs == 0 {
		s.of(kind, left, free)
		after, _ = e.prices.potential(&s)
	}
	for len(gpus) < r.GPUs {
		best := -1
		for g, milli := range free {
			if milli < r.GPUMilli || slices.Contains(gpus, g) || slices.Index(free, milli) < g && !slices.Contains(gpus, slices.Index(free, milli)) {
				continue // too little, taken, or the same as one already tried
			}
			free[g] -= r.GPUMilli
			s.of(kind, left, free)
			worth, _ := e.prices.potential(&s)
			free[g] = milli
			if best < 0 || worth > after || worth == after && milli < free[best] {
				best, after = g, worth
			}
		}
		free[best] -= r.GPUMilli
		gpus = append(gpus, best)
	}
	loss := before - after
	pressure := e.prices.pressure[m.shape]
	cost := Cost{Fragmentation: loss - r.worth(), Scarcity: e.options.ScarcityWeight * pressure * loss}
	if len(r.MIG) > 0 {
		taken := m.totalMIG()
		share := 0.0
		for _, n := range r.MIG {
			share += float64(n) / float64(taken)
		}
		cost.Scarcity += e.options.ScarcityWeight * pressure * share
	}
	slices.Sort(gpus)
	return cost, gpus
}
