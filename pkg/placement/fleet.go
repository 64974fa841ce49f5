// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/placement/packing"
	"github.com/spotbench/spotbench/pkg/risk"
)

// Fleet is the nodes as they were last seen, with what has been asked of them of
// late. It makes the same decisions as Check and Rank over all nodes, and is quick
// about it: nodes that are alike are checked and reckoned once for a pod, and what a
// pod takes from those to come is reckoned again only of nodes that changed.
//
// It is not safe for concurrent use.
type Fleet struct {
	engine *packing.Engine
	nodes  []*member // by name: the fixed order of the engine
	// brief has of each of nodes what is looked at for every pod, close together.
	brief  []brief
	byName map[string]*member

	classes []class
	classOf map[classKey]int
	unused  []int // indices of classes without nodes

	observed map[string]bool
}

type member struct {
	node  Node
	class int
	// position in nodes and brief, as of the last brief.
	position int
}

type brief struct {
	class, ref       int32
	gpuPods, isolate bool
}

// class of nodes that are alike but for their names and the pods on them.
type class struct {
	key   classKey
	nodes int
}

type classKey struct {
	node Node
	ages risk.ByAge
}

// FleetNode is a node with the room on it, as a pod that asks for whole GPUs finds it.
type FleetNode struct {
	Node
	// CPUMilli and MemoryBytes are what it has for pods in all.
	CPUMilli, MemoryBytes int64
	// Slices is how many MIG slices it has of a profile, in all.
	Slices map[string]int
	// Used is what the pods on it have of that.
	Used packing.Used
	// Ref is what Search.Allowed is asked about it by.
	Ref int
}

// NewFleet is a fleet without nodes.
func NewFleet(o packing.Options) (*Fleet, error) {
	engine, err := packing.New(o)
	if err != nil {
		return nil, err
	}
	return &Fleet{engine: engine, byName: map[string]*member{}, classOf: map[classKey]int{}, observed: map[string]bool{}}, nil
}

// Set makes a node known, or what has become of it. A node that cannot be reckoned
// with is an error, and as good as gone.
func (f *Fleet) Set(n FleetNode) error {
	n.Opportunity = Opportunity{}
	room := packing.Node{Name: n.Name, Model: n.GPUs.Model, GPUMemoryBytes: n.GPUs.MemoryBytes, GPUs: n.TotalGPUs, MIG: n.Slices, CPUMilli: n.CPUMilli, MemoryBytes: n.MemoryBytes}
	// Time-slicing can offer more of them than the engine takes: those beyond count as
	// the first to be taken.
	if beyond := room.GPUs - packing.MostGPUs; beyond > 0 {
		room.GPUs = packing.MostGPUs
		n.Used.GPUs = max(0, n.Used.GPUs-beyond)
	}
	err := f.engine.SetNode(room)
	if err == nil {
		err = f.engine.SetUsed(n.Name, n.Used)
	}
	if err != nil {
		f.Remove(n.Name)
		return err
	}
	m := f.byName[n.Name]
	if m == nil {
		m = &member{class: -1}
		f.byName[n.Name] = m
		m.position, _ = slices.BinarySearchFunc(f.nodes, n.Name, byMemberName)
		f.nodes = slices.Insert(f.nodes, m.position, m)
		f.brief = slices.Insert(f.brief, m.position, brief{})
		f.renumber(m.position)
	}
	m.node = n.Node
	f.classify(m)
	f.brief[m.position] = brief{class: int32(m.class), ref: int32(n.Ref), gpuPods: n.GPUPods > 0, isolate: n.IsolatedPods > 0} //nolint:gosec // counts of nodes
	return nil
}

// renumber the nodes from a position on.
func (f *Fleet) renumber(from int) {
	for i := from; i < len(f.nodes); i++ {
		f.nodes[i].position = i
	}
}

func byMemberName(m *member, name string) int { return strings.Compare(m.node.Name, name) }

func (f *Fleet) classify(m *member) {
	key := classKey{node: m.node}
	key.node.Name, key.node.FreeGPUs, key.node.GPUPods, key.node.IsolatedPods = "", 0, 0, 0
	if m.node.Ages != nil {
		key.node.Ages, key.ages = nil, *m.node.Ages
	}
	if m.class >= 0 && f.classes[m.class].key == key {
		return
	}
	f.leave(m)
	at, known := f.classOf[key]
	if !known {
		if n := len(f.unused); n > 0 {
			at, f.unused = f.unused[n-1], f.unused[:n-1]
			f.classes[at] = class{key: key}
		} else {
			at = len(f.classes)
			f.classes = append(f.classes, class{key: key})
		}
		f.classOf[key] = at
	}
	f.classes[at].nodes++
	m.class = at
}

func (f *Fleet) leave(m *member) {
	if m.class < 0 {
		return
	}
	c := &f.classes[m.class]
	if c.nodes--; c.nodes == 0 {
		delete(f.classOf, c.key)
		f.unused = append(f.unused, m.class)
	}
	m.class = -1
}

// Remove forgets a node.
func (f *Fleet) Remove(name string) {
	f.engine.RemoveNode(name)
	m := f.byName[name]
	if m == nil {
		return
	}
	f.leave(m)
	delete(f.byName, name)
	f.nodes = slices.Delete(f.nodes, m.position, m.position+1)
	f.brief = slices.Delete(f.brief, m.position, m.position+1)
	f.renumber(m.position)
}

// Node is a node as it was last set.
func (f *Fleet) Node(name string) (Node, bool) {
	m := f.byName[name]
	if m == nil {
		return Node{}, false
	}
	return m.node, true
}

// Kinds calls visit with one node of each kind that there is, without a name and as
// if it were empty, and with how many there are.
func (f *Fleet) Kinds(visit func(example Node, nodes int)) {
	for i := range f.classes {
		if f.classes[i].nodes > 0 {
			visit(f.classes[i].example(), f.classes[i].nodes)
		}
	}
}

func (c *class) example() Node {
	n := c.key.node
	n.FreeGPUs = n.TotalGPUs
	if c.key.ages != (risk.ByAge{}) {
		ages := c.key.ages
		n.Ages = &ages
	}
	return n
}

// packing is the request as the engine takes it; false when it takes none such. Which
// cards a slice may be cut from it does not ask: Check does. Shares and
// devices of claims count as what their pods take of CPU and memory alone.
func (r Request) packing() (packing.Request, bool) {
	p := packing.Request{CPUMilli: r.CPUMilli, MemoryBytes: r.MemoryBytes}
	switch {
	case r.GPUs == 0 || r.Resource.Shared || r.Resource.Claimed:
	case r.Resource.Whole():
		p.GPUs, p.GPUMilli, p.Models, p.GPUMemoryBytes = r.GPUs, packing.WholeGPU, r.Spec.GPUModels, r.Spec.GPUMemoryBytes
	default:
		p.MIG = map[string]int{r.Resource.Profile: r.GPUs}
	}
	return p, p.Validate() == nil
}

// Waiting is so many pods that ask for the same and wait.
type Waiting struct {
	Request Request
	Pods    int
}

// Observe counts what a pod asks for into the demand, once for each id until it is
// forgotten. waiting is asked for the pods that wait now when it is time to make
// prices of the demand; nil is none.
func (f *Fleet) Observe(id string, r Request, waiting func() []Waiting) error {
	p, ok := r.packing()
	if f.observed[id] || !ok {
		return nil
	}
	if waiting != nil && f.engine.RepricesNext() {
		var pending []packing.Waiting
		for _, w := range waiting() {
			if p, ok := w.Request.packing(); ok {
				pending = append(pending, packing.Waiting{Request: p, Pods: w.Pods})
			}
		}
		if err := f.engine.Pending(pending); err != nil {
			return err
		}
	}
	f.observed[id] = true
	return f.engine.Observe(p)
}

// Observed has the ids of the pods that count.
func (f *Fleet) Observed() map[string]bool { return maps.Clone(f.observed) }

// State is what was learned of the pods that were observed.
func (f *Fleet) State() packing.State { return f.engine.State() }

// Restore makes a fleet that knows its nodes go on from a state, in which the pods of
// these ids count already.
func (f *Fleet) Restore(s packing.State, observed []string) error {
	if err := f.engine.Restore(s); err != nil {
		return err
	}
	clear(f.observed)
	for _, id := range observed {
		f.observed[id] = true
	}
	return nil
}

// Forget that a pod was observed, when it is gone for good. It still counts.
func (f *Fleet) Forget(id string) { delete(f.observed, id) }

// Pressure of each GPU model: the demand expected that only it can meet, over what is
// free of it, from 0 to 3.
func (f *Fleet) Pressure() map[string]float64 { return f.engine.Pressure() }

// Fragmentation of each GPU model: how many of its free GPUs a pod of late that may run
// on it could not use, on average.
func (f *Fleet) Fragmentation() map[string]float64 { return f.engine.Fragmentation() }

// Shortlist is the first of all feasible nodes, and why others are not.
type Shortlist struct {
	Best  []Candidate
	Tally Tally
	// Refused has why nodes will not do, of a few, by name.
	Refused map[string]string
	// Refusals counts the nodes that Check refuses.
	Refusals map[RefusalCount]int
}

// RefusalCount is what refused nodes are counted by.
type RefusalCount struct {
	Reason Reason
	Model  string
}

// Search says what to look for.
type Search struct {
	// Best is how many of the best nodes to list, Refused of how many refused ones to
	// say why.
	Best, Refused int
	// Check refuses kinds of nodes (without asking who is on them); nil is Check.
	Check func(Node) *Refusal
	// Allowed says whether the node of that FleetNode.Ref passes what the fleet knows
	// nothing of; Elsewhere is what to say of those that do not, or that lack CPU or
	// memory.
	Allowed   func(ref int) bool
	Elsewhere string
}

// verdict on a class.
type verdict struct {
	refusal   *Refusal
	estimate  Estimate
	modelRank int
}

// Shortlist finds the best nodes for a pod. false means that the fleet cannot tell,
// as of slices and shares, which it does not see as their pods do: ask Check and Rank.
func (f *Fleet) Shortlist(r Request, s Search) (Shortlist, bool) {
	request, ok := r.packing()
	if !ok || !r.Resource.Whole() {
		return Shortlist{}, false
	}
	scores, err := f.engine.Scores(request)
	if err != nil {
		return Shortlist{}, false
	}
	if s.Check == nil {
		s.Check = func(n Node) *Refusal { return Check(r, n) }
	}
	list := Shortlist{Refused: map[string]string{}, Refusals: map[RefusalCount]int{}}
	verdicts := f.verdicts(r, s.Check)
	var keys []key
	// The preferred are those that are as good as the best up to the model.
	best := key{late: true, modelRank: math.MaxInt}
	for score := range scores {
		b := &f.brief[score.Position]
		v := &verdicts[b.class]
		refused := v.refusal != nil
		if !refused && r.GPUs > 0 && (b.isolate || b.gpuPods && r.Spec.Isolation == benchspec.IsolationNode) {
			refused = true
			refusal := CheckNeighbours(r, f.nodes[score.Position].node)
			list.Refusals[RefusalCount{refusal.Reason, f.nodes[score.Position].node.GPUs.Model}]++
		}
		if refused || !score.Fits || !s.Allowed(int(b.ref)) {
			if len(list.Refused) < s.Refused {
				n := f.nodes[score.Position].node
				list.Refused[n.Name] = why(r, n, v.refusal, s.Elsewhere)
			}
			continue
		}
		list.Tally.Feasible++
		switch late := v.estimate.Overrun > 0; {
		case best.late && !late, late == best.late && v.modelRank < best.modelRank:
			best.late, best.modelRank, list.Tally.Preferred = late, v.modelRank, 1
		case late == best.late && v.modelRank == best.modelRank:
			list.Tally.Preferred++
		}
		takes := Opportunity{GPUs: score.Rank, Leaning: score.Tie}
		k := keyOf(&r, v.modelRank, v.estimate, takes, "")
		if len(keys) == s.Best {
			// Nodes come by name: of equal ones the earlier stays.
			if keys[len(keys)-1].compareButName(&k) <= 0 {
				continue
			}
			keys, list.Best = keys[:s.Best-1], list.Best[:s.Best-1]
		}
		m := f.nodes[score.Position]
		k.name = m.node.Name
		at, _ := slices.BinarySearchFunc(keys, k, key.compare)
		keys = slices.Insert(keys, at, k)
		c := Candidate{Node: m.node, Estimate: v.estimate, ModelRank: v.modelRank}
		c.Node.Opportunity = takes
		list.Best = slices.Insert(list.Best, at, c)
	}
	for i := range verdicts {
		if verdicts[i].refusal != nil {
			list.Refusals[RefusalCount{verdicts[i].refusal.Reason, f.classes[i].key.node.GPUs.Model}] += f.classes[i].nodes
		}
	}
	return list, true
}

func (f *Fleet) verdicts(r Request, check func(Node) *Refusal) []verdict {
	out := make([]verdict, len(f.classes))
	for i := range f.classes {
		if f.classes[i].nodes == 0 {
			continue
		}
		n := f.classes[i].example()
		if out[i].refusal = check(n); out[i].refusal == nil {
			out[i].estimate, out[i].modelRank = Reckon(r, n), modelRank(r.Spec, n)
		}
	}
	return out
}

func why(r Request, n Node, refusal *Refusal, elsewhere string) string {
	if refusal == nil {
		refusal = CheckNeighbours(r, n)
	}
	if refusal == nil {
		refusal = CheckRoom(r, n)
	}
	if refusal == nil {
		return elsewhere
	}
	return refusal.String()
}

// Opportunities is what a pod would take on each node from the pods to come, where
// nodes have room for it; nil when that cannot be told.
func (f *Fleet) Opportunities(r Request) func(name string) Opportunity {
	request, ok := r.packing()
	if !ok {
		return nil
	}
	scores, err := f.engine.Scores(request)
	if err != nil {
		return nil
	}
	takes := make(map[string]Opportunity, len(f.nodes))
	for score := range scores {
		if score.Fits {
			takes[f.nodes[score.Position].node.Name] = Opportunity{GPUs: score.Rank, Leaning: score.Tie}
		}
	}
	return func(name string) Opportunity { return takes[name] }
}
