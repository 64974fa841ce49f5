// SPDX-License-Identifier: Apache-2.0

package packing

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Engine holds the nodes, what is assigned on them and what has been asked for, and
// ranks nodes for a pod.
type Engine struct {
	options  Options
	machines []*machine // in the fixed order
	byName   map[string]*machine
	assigned map[string]*assignment
	kinds    []kind
	demand   *demand

	prices      *prices
	corePrice   float64 // what pods without GPUs pay, in units of corePrices
	nextReprice int
	stale       bool // nodes came, changed or went since prices were made

	shapes      []shape
	totalCores  float64
	totalGPUs   int
	largestNode int

	scores  map[string]*scores // by request
	changed []*machine         // since the engine was surveyed, in order
}

type machine struct {
	Node
	// position in machines, kind in kinds and shape in shapes, as of the last survey.
	position, kind, shape int
	freeGPU               []int64
	freeMIG               map[string]int
	freeCPU, freeMemory   int64
	freeCores             float64
	pods                  map[string]*assignment
	used                  Used
}

type assignment struct {
	request Request
	machine *machine
	gpus    []int
}

// gpuKind of the machine's GPUs; all without any are of one kind.
func (m *machine) gpuKind() kind {
	if m.GPUs == 0 {
		return kind{}
	}
	return kind{m.Model, m.GPUMemoryBytes}
}

// scores of a request on every machine, by its position. They hold while prices stay,
// but for the machines changed since.
type scores struct {
	epoch   int
	changed int // how many of the engine's changes they know of
	of      []score
}

type score struct {
	fits bool
	cost Cost
	step float64 // the part of the cost that is not noise
}

// New is an engine without nodes.
func New(o Options) (*Engine, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("options of placement: %w", err)
	}
	return &Engine{options: o.withDefaults(), byName: map[string]*machine{}, assigned: map[string]*assignment{},
		demand: newDemand(), scores: map[string]*scores{}, stale: true}, nil
}

// SetNode makes a node known, or its new size. What is assigned on it stays, as far
// as its GPUs are still there.
func (e *Engine) SetNode(n Node) error {
	if err := n.Validate(); err != nil {
		return err
	}
	n.MIG = maps.Clone(n.MIG)
	m := e.byName[n.Name]
	if m != nil {
		if sameNode(m.Node, n) {
			return nil
		}
		e.remove(m)
	} else {
		m = &machine{pods: map[string]*assignment{}}
		e.byName[n.Name] = m
	}
	m.Node = n
	at, _ := slices.BinarySearchFunc(e.machines, m, inOrder)
	e.machines = slices.Insert(e.machines, at, m)
	e.stale = true
	e.settle(m)
	return nil
}

func sameNode(a, b Node) bool {
	sameMIG := maps.Equal(a.MIG, b.MIG)
	a.MIG, b.MIG = nil, nil
	return sameMIG && a.Name == b.Name && a.Order == b.Order && a.Model == b.Model && a.GPUMemoryBytes == b.GPUMemoryBytes &&
		a.GPUs == b.GPUs && a.CPUMilli == b.CPUMilli && a.MemoryBytes == b.MemoryBytes
}

func inOrder(a, b *machine) int {
	return cmp.Or(cmp.Compare(a.Order, b.Order), strings.Compare(a.Name, b.Name))
}

func (e *Engine) remove(m *machine) {
	at, _ := slices.BinarySearchFunc(e.machines, m, inOrder)
	e.machines = slices.Delete(e.machines, at, at+1)
}

// RemoveNode forgets a node and what is assigned on it, and says whether it was known.
func (e *Engine) RemoveNode(name string) bool {
	m := e.byName[name]
	if m == nil {
		return false
	}
	for id := range m.pods {
		delete(e.assigned, id)
	}
	e.remove(m)
	delete(e.byName, name)
	e.stale = true
	return true
}

// survey brings kinds, shapes and totals up to date after a change of the nodes. What
// it makes depends on the nodes alone, not on the order in which they came.
func (e *Engine) survey() {
	e.kinds = e.kinds[:0]
	for _, m := range e.machines {
		e.kinds = append(e.kinds, m.gpuKind())
	}
	slices.SortFunc(e.kinds, func(a, b kind) int {
		return cmp.Or(strings.Compare(a.model, b.model), cmp.Compare(a.memory, b.memory))
	})
	e.kinds = slices.Compact(e.kinds)
	e.shapes = e.shapes[:0]
	e.totalCores, e.totalGPUs, e.largestNode = 0, 0, 0
	index := map[shapeKey]int{}
	clear(e.scores)
	e.changed = e.changed[:0]
	for i, m := range e.machines {
		m.position, m.kind = i, slices.Index(e.kinds, m.gpuKind())
		e.totalCores += float64(m.CPUMilli) / 1000
		e.totalGPUs += m.GPUs
		e.largestNode = max(e.largestNode, m.GPUs)
		key := shapeKey{m.kind, m.GPUs, about(m.CPUMilli), about(m.MemoryBytes)}
		at, known := index[key]
		if !known {
			at = len(e.shapes)
			index[key] = at
			e.shapes = append(e.shapes, shape{kind: m.kind, gpus: m.GPUs})
		}
		m.shape = at
		s := &e.shapes[at]
		s.cores = max(s.cores, float64(m.CPUMilli)/1000)
		s.memory = max(s.memory, m.MemoryBytes)
		s.capacity += m.GPUs
	}
	e.stale = false
}

// Used is what is taken of a node by pods that the engine was not given one by one.
type Used struct {
	// GPUs is how many whole ones, MIG how many slices by profile.
	GPUs                  int
	MIG                   map[string]int
	CPUMilli, MemoryBytes int64
}

// SetUsed says all that is taken of a known node besides what was assigned. More than
// the node has is all of it: a node may shrink under its pods.
func (e *Engine) SetUsed(node string, u Used) error {
	m := e.byName[node]
	switch {
	case m == nil:
		return fmt.Errorf("node %q is not known", node)
	case u.GPUs < 0:
		return fmt.Errorf("node %s: GPUs used are %d, want 0 or more", node, u.GPUs)
	case m.used.GPUs == u.GPUs && m.used.CPUMilli == u.CPUMilli && m.used.MemoryBytes == u.MemoryBytes && maps.Equal(m.used.MIG, u.MIG):
		return nil
	}
	err := amounts(map[string]int64{"CPUMilli": u.CPUMilli, "MemoryBytes": u.MemoryBytes})
	if err == nil {
		err = counts("MIG", u.MIG)
	}
	if err != nil {
		return fmt.Errorf("node %s: used: %w", node, err)
	}
	m.used = Used{u.GPUs, maps.Clone(u.MIG), u.CPUMilli, u.MemoryBytes}
	e.settle(m)
	return nil
}

// settle computes what a machine has left.
func (e *Engine) settle(m *machine) {
	if e.changed = append(e.changed, m); len(e.changed) > 4*len(e.machines)+1024 {
		clear(e.scores) // it is time to forget the past
		e.changed = e.changed[:0]
	}
	m.freeGPU = m.freeGPU[:0]
	for range m.GPUs {
		m.freeGPU = append(m.freeGPU, WholeGPU)
	}
	for g := range min(m.used.GPUs, m.GPUs) {
		m.freeGPU[g] = 0
	}
	m.freeMIG = maps.Clone(m.MIG)
	for profile, n := range m.used.MIG {
		if _, known := m.freeMIG[profile]; known {
			m.freeMIG[profile] -= n
		}
	}
	m.freeCPU, m.freeMemory = m.CPUMilli-m.used.CPUMilli, m.MemoryBytes-m.used.MemoryBytes
	for _, a := range m.pods {
		r := a.request
		m.freeCPU -= r.CPUMilli
		m.freeMemory -= r.MemoryBytes
		for _, g := range a.gpus {
			if g < len(m.freeGPU) {
				m.freeGPU[g] -= r.GPUMilli
			}
		}
		for profile, n := range r.MIG {
			if _, known := m.freeMIG[profile]; known {
				m.freeMIG[profile] -= n
			}
		}
	}
	m.freeCores = float64(m.freeCPU) / 1000
}

func (e *Engine) freeGPUs() (free float64) {
	for _, m := range e.machines {
		for _, milli := range m.freeGPU {
			free += float64(max(milli, 0)) / WholeGPU
		}
	}
	return free
}

// Observe counts a pod into the demand: once for each pod, when it is first seen,
// before it is ranked.
func (e *Engine) Observe(r Request) error {
	if err := r.Validate(); err != nil {
		return err
	}
	e.demand.observe(r, e.options.HalfLife)
	if e.demand.seen >= e.nextReprice {
		e.Reprice()
	}
	return nil
}

// RepricesNext says whether the next observed pod brings new prices: the time to say
// what is pending.
func (e *Engine) RepricesNext() bool { return e.demand.seen+1 >= e.nextReprice }

// Waiting is so many pods that ask for the same and wait.
type Waiting struct {
	Request
	Pods int
}

// Pending says what is waiting now. These pods count in full, however long ago they
// were observed, from the next prices on. Their order does not matter.
func (e *Engine) Pending(waiting []Waiting) error {
	keys := make(map[string]Waiting, len(waiting))
	for i, w := range waiting {
		if err := w.Validate(); err != nil {
			return fmt.Errorf("pending request %d: %w", i, err)
		}
		if w.Pods < 0 {
			return fmt.Errorf("pending request %d: Pods is %d, want 0 or more", i, w.Pods)
		}
		key := w.key()
		w.Pods += keys[key].Pods
		keys[key] = w
	}
	for _, c := range e.demand.classes {
		c.pending = 0
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if w := keys[key]; w.GPUs > 0 && w.Pods > 0 {
			e.demand.class(w.Request).pending += float64(w.Pods)
		}
	}
	return nil
}

// Reprice makes prices from what is known now. It is done by itself every so many
// observed pods; see Options.RepriceEvery.
func (e *Engine) Reprice() {
	if e.stale {
		e.survey()
	}
	if e.prices == nil {
		e.prices = &prices{}
		e.solve(firstSteps, firstLength)
	} else {
		e.solve(laterSteps, laterLength)
	}
	e.nextReprice = e.demand.seen + min(max(e.demand.seen/2, 1), e.options.RepriceEvery)
}

// Assignment is where a pod is, and on which of the node's GPUs.
type Assignment struct {
	Node string
	GPUs []int
}

// Assign books a pod on a node. gpus are the GPUs it has there; with none given, the
// ones whose loss costs least are taken.
func (e *Engine) Assign(pod string, r Request, node string, gpus []int) (Assignment, error) {
	fault := func(format string, args ...any) (Assignment, error) {
		return Assignment{}, fmt.Errorf("pod %s: %s", pod, fmt.Sprintf(format, args...))
	}
	refusal, err := e.Check(r, node)
	switch {
	case err != nil:
		return fault("%v", err)
	case refusal != nil:
		return fault("%v", refusal)
	case e.assigned[pod] != nil:
		return fault("assigned to %s already, release it first", e.assigned[pod].machine.Name)
	}
	m := e.byName[node]
	if len(gpus) == 0 {
		gpus = e.pick(m, r)
	}
	if len(gpus) != r.GPUs {
		return fault("%d GPUs given, it asks for %d", len(gpus), r.GPUs)
	}
	for i, g := range gpus {
		switch {
		case slices.Contains(gpus[:i], g):
			return fault("GPU %d given twice", g)
		case g < 0 || g >= len(m.freeGPU):
			return fault("GPU %d given, %s has 0 to %d", g, node, len(m.freeGPU)-1)
		case m.freeGPU[g] < r.GPUMilli:
			return fault("GPU %d of %s has %d milli left, it asks for %d", g, node, m.freeGPU[g], r.GPUMilli)
		}
	}
	r.MIG = maps.Clone(r.MIG)
	a := &assignment{request: r, machine: m, gpus: slices.Clone(gpus)}
	e.assigned[pod], m.pods[pod] = a, a
	e.settle(m)
	return Assignment{Node: node, GPUs: slices.Clone(gpus)}, nil
}

// Release gives back what a pod had, and says whether it had anything.
func (e *Engine) Release(pod string) bool {
	a := e.assigned[pod]
	if a == nil {
		return false
	}
	delete(e.assigned, pod)
	delete(a.machine.pods, pod)
	e.settle(a.machine)
	return true
}

// Assigned says where a pod is.
func (e *Engine) Assigned(pod string) (Assignment, bool) {
	a := e.assigned[pod]
	if a == nil {
		return Assignment{}, false
	}
	return Assignment{Node: a.machine.Name, GPUs: slices.Clone(a.gpus)}, true
}

// Free is what a node has left.
type Free struct {
	GPUMilli              []int64
	MIG                   map[string]int
	CPUMilli, MemoryBytes int64
}

// Free of a node; false when it is not known.
func (e *Engine) Free(node string) (Free, bool) {
	m := e.byName[node]
	if m == nil {
		return Free{}, false
	}
	return Free{GPUMilli: slices.Clone(m.freeGPU), MIG: maps.Clone(m.freeMIG), CPUMilli: m.freeCPU, MemoryBytes: m.freeMemory}, true
}

// Pressure of each GPU model: the expected demand that only it can meet over what is
// free of it, at most 3.
func (e *Engine) Pressure() map[string]float64 {
	e.priced()
	pressure, capacity := map[string]float64{}, map[string]float64{}
	for i, s := range e.shapes {
		if s.gpus > 0 {
			model := e.kinds[s.kind].model
			pressure[model] += e.prices.pressure[i] * float64(s.capacity)
			capacity[model] += float64(s.capacity)
		}
	}
	for model := range pressure {
		pressure[model] /= capacity[model]
	}
	return pressure
}

// priced sees to it that there are prices for every node. Nodes that came or went do
// not change what classes are worth until it is time for new prices.
func (e *Engine) priced() {
	switch {
	case e.prices == nil:
		e.Reprice()
	case e.stale:
		e.survey()
		e.solve(0, 0)
	}
}

// totalMIG is how many slices a node has in all.
func (m *machine) totalMIG() (n int) {
	for _, count := range m.MIG {
		n += count
	}
	return n
}

func (m *machine) freeMIGAfter(r Request) (n int) {
	for profile, wanted := range r.MIG {
		n += m.freeMIG[profile] - wanted
	}
	return n
}
