// SPDX-License-Identifier: Apache-2.0

package packing

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Steps of the dual descent and their lengths: many and wide from nothing, few and
// short from the last prices.
const (
	firstSteps, firstLength = 40, 0.3
	laterSteps, laterLength = 20, 0.05
	lastLength              = 0.01
)

// solve takes so many steps towards the solution of the linear program for the
// present state and demand, from the last values of the classes.
//
// Dual descent: values are lowered for classes of which present prices would place
// more than is in demand, and raised for those of which they would place less. How
// much they would place comes from the soft packings themselves, whose gradient it is.
func (e *Engine) solve(steps int, length float64) {
	free := e.freeGPUs()
	scale := e.options.Horizon * free / max(e.demand.total(), 1)
	for _, c := range e.demand.classes {
		c.demand = c.count/e.demand.weight*scale + c.pending
		c.priced = true
		c.allowed = c.allowed[:0]
		for _, k := range e.kinds {
			c.allowed = append(c.allowed, c.allows(k))
		}
	}
	p := e.prices
	p.epoch++
	p.coreUnit = 1
	if e.totalCores > 0 && e.totalGPUs > 0 {
		p.coreUnit = typicalCores * float64(e.totalGPUs) / e.totalCores
	}
	for len(p.tables) < len(e.kinds) {
		p.tables = append(p.tables, [len(corePrices)]table{})
	}
	p.like = alike(len(e.kinds), e.demand.classes)
	p.pressure = e.pressure(scale)
	standing := e.standing()
	for step := range steps {
		length := length * math.Pow(lastLength/length, float64(step)/float64(steps))
		e.fillTables()
		placedCores := e.place(standing)
		for _, c := range e.demand.classes {
			excess := (c.placed - c.demand) / max(c.placed, c.demand, 1e-9)
			c.discount = min(max(c.discount+length*c.worth*excess, 0), c.worth)
		}
		if cores := e.demand.cores / e.demand.weight * scale; cores > 0 {
			excess := (placedCores - cores) / max(placedCores, cores)
			e.corePrice = min(max(e.corePrice-0.05*length*excess, 0), 0.3)
		}
	}
	e.fillTables()
}

// alike is, for each kind, the first one on which the same classes may run: they share
// their tables.
func alike(kinds int, classes []*class) []int {
	like := make([]int, kinds)
	first := map[string]int{}
	for k := range like {
		key := make([]byte, len(classes))
		for i, c := range classes {
			if c.allowed[k] {
				key[i] = 1
			}
		}
		at, known := first[string(key)]
		if !known {
			at = k
			first[string(key)] = k
		}
		like[k] = at
	}
	return like
}

func (e *Engine) fillTables() {
	p := e.prices
	p.floor = 0
	for corePrices[p.floor] < e.corePrice {
		p.floor++
	}
	var exps exponentials
	exps.values(e.demand.classes, e.options.Softness)
	for k := p.floor; k < len(corePrices); k++ {
		exps.cores(e.demand.classes, corePrices[k]*p.coreUnit, e.options.Softness)
		for kind := range e.kinds {
			if p.like[kind] == kind {
				p.tables[kind][k].fill(e.demand.classes, kind, &exps, e.options.Softness, e.largestNode)
			}
		}
	}
}

// standing is how many machines are in a state, and their free cores together.
type standing struct {
	state

	machines, cores float64
}

// standing has the machines by their states, which stay what they are while prices are
// made: most of a large cluster's machines are in one of a few.
func (e *Engine) standing() []standing {
	var all []standing
	known := map[state]int{}
	for _, m := range e.machines {
		var s state
		s.of(e.prices.like[m.kind], math.Floor(m.freeCores), m.freeGPU)
		at, ok := known[s]
		if !ok {
			at = len(all)
			known[s] = at
			all = append(all, standing{state: s})
		}
		all[at].machines++
		all[at].cores += max(m.freeCores, 0)
	}
	return all
}

// place says how much of each class the soft packings of the present state hold, and
// returns the cores left to pods without GPUs.
func (e *Engine) place(machines []standing) (spareCores float64) {
	type holding struct {
		idle  [MostGPUs + 1]float64
		parts [slots + 1]float64
		cores float64
	}
	p := e.prices
	held := make([][len(corePrices)]*holding, len(e.kinds))
	for i := range machines {
		s := &machines[i]
		_, k := p.potential(&s.state)
		h := held[s.kind][k]
		if h == nil {
			h = &holding{}
			held[s.kind][k] = h
		}
		h.idle[s.idle] += s.machines
		h.cores += s.cores
		for _, r := range s.parts[:s.n] {
			h.parts[r] += s.machines
		}
	}
	for _, c := range e.demand.classes {
		c.placed = 0
	}
	for kind := range held {
		for k, h := range held[kind] {
			if h == nil {
				continue
			}
			used := p.tables[kind][k].place(e.demand.classes, &h.idle, &h.parts, e.options.Softness)
			if k == p.floor {
				spareCores += max(0, h.cores-used)
			}
		}
	}
	return spareCores
}

// place adds to each class what the packings of these GPUs hold of it, and returns
// the cores that takes. idle[n] is how many nodes have n idle GPUs, parts[r] how many
// GPUs in use have r slots left; both are used up.
func (t *table) place(classes []*class, idle *[MostGPUs + 1]float64, parts *[slots + 1]float64, softness float64) (cores float64) {
	var several, bySize [slots + 1]float64
	for n := MostGPUs; n > 0; n-- {
		if idle[n] == 0 {
			continue
		}
		single := idle[n] * math.Exp((t.idle[n-1]+t.share[slots]-t.idle[n])/softness)
		parts[slots] += single
		idle[n-1] += single
		for g := 2; g <= n; g++ {
			if !math.IsInf(t.multi[g], -1) {
				nodes := idle[n] * math.Exp((t.idle[n-g]+t.multi[g]-t.idle[n])/softness)
				idle[n-g] += nodes
				several[g] += nodes
			}
		}
	}
	for r := slots; r > 0; r-- {
		if parts[r] == 0 {
			continue
		}
		for size := 1; size <= r; size++ {
			if t.bySize[size] > 0 {
				gpus := parts[r] * t.bySize[size] * t.patterns[r-size] / t.patterns[r]
				bySize[size] += gpus
				parts[r-size] += gpus
			}
		}
	}
	for i, c := range classes {
		var placed float64
		switch {
		case t.weight[i] == 0:
			continue
		case c.gpus > 1:
			placed = several[c.gpus] * math.Exp((t.weight[i]-t.multi[c.gpus])/softness)
		default:
			placed = bySize[c.slots] * t.weight[i] / t.bySize[c.slots]
		}
		c.placed += placed
		cores += placed * c.cores
	}
	return cores
}

// mostPressure bounds what a model with hardly anything free can cost.
const mostPressure = 3

// pressure of each shape: the expected demand of pods that may not run everywhere,
// spread over the shapes each may run on so that the worst is least, over what is
// free.
//
// A pod may not run everywhere when it names models, or needs GPUs of more memory, or
// is too large for more than half of the GPUs there are. Every model starts with a
// little demand of its own, so that those with few GPUs are spared before it is known
// whether any pod names them.
func (e *Engine) pressure(scale float64) []float64 {
	free, load := make([]float64, len(e.shapes)), make([]float64, len(e.shapes))
	for i := range free {
		free[i] = 1.0 / WholeGPU // not to divide by nothing
	}
	for _, m := range e.machines {
		for _, milli := range m.freeGPU {
			free[m.shape] += float64(max(milli, 0)) / WholeGPU
		}
	}
	type choice struct {
		shapes []int
		amount float64
		on     []float64
	}
	var choices []*choice
	known := map[string]*choice{}
	want := func(shapes []int, amount float64) {
		key := fmt.Sprint(shapes)
		if known[key] == nil {
			known[key] = &choice{shapes: shapes, on: make([]float64, len(shapes))}
			choices = append(choices, known[key])
		}
		known[key].amount += amount
	}
	for k := range e.kinds {
		var shapes []int
		for i := range e.shapes {
			if e.shapes[i].kind == k && e.shapes[i].gpus > 0 {
				shapes = append(shapes, i)
			}
		}
		if len(shapes) > 0 {
			want(shapes, e.options.PriorGPUs*scale)
		}
	}
	for _, c := range e.demand.classes {
		var shapes []int
		capacity, anyKind := 0, true
		for i := range e.shapes {
			s := &e.shapes[i]
			anyKind = anyKind && (s.gpus == 0 || c.allowed[s.kind])
			if s.holds(c) {
				shapes = append(shapes, i)
				capacity += s.capacity
			}
		}
		if len(shapes) == 0 || anyKind && 2*capacity >= e.totalGPUs {
			continue
		}
		want(shapes, c.worth*c.demand)
	}
	// Each choice in turn fills the least loaded of its kinds, given the others; the
	// sum of squares falls each time, to its one least value.
	const sweeps = 30
	for range sweeps {
		for _, ch := range choices {
			for i, k := range ch.shapes {
				load[k] -= ch.on[i]
			}
			order := make([]int, len(ch.shapes))
			for i := range order {
				order[i] = i
			}
			slices.SortStableFunc(order, func(a, b int) int {
				return cmp.Compare(load[ch.shapes[a]]/free[ch.shapes[a]], load[ch.shapes[b]]/free[ch.shapes[b]])
			})
			amount, room, level, filled := ch.amount, 0.0, 0.0, 0
			for i, at := range order {
				k := ch.shapes[at]
				amount += load[k]
				room += free[k]
				level, filled = amount/room, i+1
				if i+1 < len(order) {
					if next := ch.shapes[order[i+1]]; level <= load[next]/free[next] {
						break
					}
				}
			}
			clear(ch.on)
			for _, at := range order[:filled] {
				ch.on[at] = max(0, level*free[ch.shapes[at]]-load[ch.shapes[at]])
			}
			for i, k := range ch.shapes {
				load[k] += ch.on[i]
			}
		}
	}
	for k := range load {
		load[k] = min(load[k]/free[k], mostPressure)
	}
	return load
}
