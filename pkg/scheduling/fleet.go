// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/packing"
)

// fleet is placement's, as the snapshots of the scheduler show it. Its lock is held
// by whoever changes it; Filter reads what the PreFilter before it left.
type fleet struct {
	mu    sync.Mutex
	nodes *placement.Fleet
	seen  map[string]*seenNode
	// byRef has them by the number that the fleet knows them by, gone ones too.
	byRef []openness
	// taints has each list of taints once, without those that keep no pod off. Most
	// nodes have one of a few.
	taints   [][]v1.Taint
	taintsOf map[string]int32
	// layout is the nodes of the last snapshot in its order, to see what changed
	// without looking up every name.
	layout []layoutNode
	// at and risksOf are when machines' ages and pools' risks were last looked at.
	at, risksOf time.Time
	// started is set once pods that were there before us are counted.
	started bool
	// all has the pods that are shown every node.
	all map[types.UID]bool
}

// seenNode is a node as the fleet has it.
type seenNode struct {
	object     *v1.Node
	generation int64
	node       placement.Node
	// ref is its place in byRef.
	ref int
}

// openness is what keeps pods off a node besides what the fleet knows of, close
// together for all nodes.
type openness struct {
	object *v1.Node
	// taints is the place of the node's in fleet.taints.
	taints int32
	// full says that no more pods may run there, whatever they ask for.
	full, cordoned bool
}

type layoutNode struct {
	info       fwk.NodeInfo
	generation int64
}

// freshness is how old machines' ages may be.
const freshness = time.Minute

func newFleet() (*fleet, error) {
	nodes, err := placement.NewFleet(packing.Options{})
	if err != nil {
		return nil, err
	}
	return &fleet{nodes: nodes, seen: map[string]*seenNode{}, taintsOf: map[string]int32{}, all: map[types.UID]bool{}}, nil
}

// syncFleet makes the fleet what the snapshot is. Nodes that have not changed are
// passed by, unless what is known of their pools may have.
func (p *Plugin) syncFleet(nodes []fwk.NodeInfo) {
	f := p.fleet
	now := p.now()
	var risksOf time.Time
	if p.feed != nil {
		risksOf = p.feed.AsOf()
	}
	stale := now.Sub(f.at) >= freshness || !risksOf.Equal(f.risksOf)
	if stale {
		f.at, f.risksOf = now, risksOf
	}
	// Numbers and taints of nodes that are gone are dropped, with all others, now and
	// then.
	if most := 2*len(nodes) + 64; len(f.byRef) > most || len(f.taints) > most {
		f.reset()
	}
	moved := len(nodes) != len(f.layout)
	f.layout = slices.Grow(f.layout[:0], len(nodes))[:len(nodes)]
	for i, info := range nodes {
		last := &f.layout[i]
		generation := info.GetGeneration()
		if last.info != info {
			moved = true
		} else if !stale && last.generation == generation {
			continue
		}
		*last = layoutNode{info, generation}
		name := info.Node().Name
		if s := f.seen[name]; stale || s == nil || s.generation != generation || s.object != info.Node() {
			p.see(info, generation)
		}
	}
	if moved {
		f.forgetGone(nodes)
	}
	if !f.started {
		f.started = true
		p.observeRunning(nodes)
	}
}

// reset forgets all nodes.
func (f *fleet) reset() {
	for name := range f.seen {
		f.nodes.Remove(name)
	}
	clear(f.seen)
	clear(f.taintsOf)
	f.byRef, f.taints, f.layout = nil, nil, nil
}

// see sets one node.
func (p *Plugin) see(info fwk.NodeInfo, generation int64) {
	n, allocatable, requested := p.withPods(info), info.GetAllocatable(), info.GetRequested()
	set := placement.FleetNode{
		Node: n, CPUMilli: allocatable.GetMilliCPU(), MemoryBytes: allocatable.GetMemory(),
		Used: packing.Used{GPUs: max(0, n.TotalGPUs-n.FreeGPUs), CPUMilli: requested.GetMilliCPU(), MemoryBytes: requested.GetMemory()},
	}
	set.Slices, set.Used.MIG = slicesIn(allocatable.GetScalarResources()), slicesIn(requested.GetScalarResources())
	if info.Node().Spec.Unschedulable || n.Notice != "" {
		set.Used.GPUs, set.Used.MIG = n.TotalGPUs, set.Slices // none of it is for the pods to come
	}
	set.Ref = p.fleet.remember(&seenNode{object: info.Node(), generation: generation, node: n}, len(info.GetPods()) >= allocatable.GetAllowedPodNumber())
	if err := p.fleet.nodes.Set(set); err != nil {
		p.logger.Error(err, "A node has sizes that cannot be; pods are placed on it without regard to those to come", "node", n.Name)
	}
}

// remember keeps what was seen of a node, under the number it had before.
func (f *fleet) remember(s *seenNode, full bool) (ref int) {
	before := f.seen[s.node.Name]
	if before == nil {
		s.ref = len(f.byRef)
		f.byRef = append(f.byRef, openness{})
	} else {
		s.ref = before.ref
	}
	f.seen[s.node.Name] = s
	open := &f.byRef[s.ref]
	if open.object != s.object {
		open.object, open.cordoned, open.taints = s.object, s.object.Spec.Unschedulable, f.intern(s.object.Spec.Taints)
	}
	open.full = full
	return s.ref
}

// intern is the place of the taints that keep pods off.
func (f *fleet) intern(taints []v1.Taint) int32 {
	var lines strings.Builder
	var off []v1.Taint
	for _, t := range taints {
		if t.Effect == v1.TaintEffectNoSchedule || t.Effect == v1.TaintEffectNoExecute {
			off = append(off, t)
			lines.WriteString(t.ToString() + "\n")
		}
	}
	key := lines.String()
	at, known := f.taintsOf[key]
	if !known {
		at = int32(len(f.taints)) //nolint:gosec // at most as many as there are nodes, twice
		f.taints = append(f.taints, off)
		f.taintsOf[key] = at
	}
	return at
}

func (f *fleet) forgetGone(nodes []fwk.NodeInfo) {
	here := make(map[string]bool, len(nodes))
	for _, info := range nodes {
		here[info.Node().Name] = true
	}
	for name := range f.seen {
		if !here[name] {
			delete(f.seen, name)
			f.nodes.Remove(name)
		}
	}
}

// observeRunning counts the pods that were placed before this scheduler started, in
// the order in which they came.
func (p *Plugin) observeRunning(nodes []fwk.NodeInfo) {
	var running []*v1.Pod
	for _, info := range nodes {
		for _, pod := range info.GetPods() {
			if pod.GetPod().Spec.SchedulerName == benchspec.SchedulerName {
				running = append(running, pod.GetPod())
			}
		}
	}
	slices.SortFunc(running, func(a, b *v1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(string(a.UID), string(b.UID)))
	})
	for _, pod := range running {
		if request, err := p.request(pod); err == nil {
			if err := p.fleet.nodes.Observe(string(pod.UID), request, nil); err != nil {
				p.logger.Error(err, "A running pod is not counted into the demand", "pod", pod.Namespace+"/"+pod.Name)
			}
		}
	}
}

// node is a node of the snapshot as the fleet has it; false when it has another.
func (f *fleet) node(info fwk.NodeInfo) (placement.Node, bool) {
	s := f.seen[info.Node().Name]
	if s == nil || s.generation != info.GetGeneration() || s.object != info.Node() {
		return placement.Node{}, false
	}
	return s.node, true
}

// lookAtAll shows a pod every node from now on.
func (f *fleet) lookAtAll(uid types.UID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all[uid] = true
}

func (f *fleet) wantsAll(uid types.UID) bool { return f.all[uid] }

// markets are the scarcity and the fragmentation of each GPU model.
func (f *fleet) markets() (pressure, fragmentation map[string]float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.nodes.Pressure(), f.nodes.Fragmentation()
}

// learned is what is known of the demand, and which pods count in it.
func (f *fleet) learned() (packing.State, func(types.UID) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	observed := f.nodes.Observed()
	return f.nodes.State(), func(uid types.UID) bool { return observed[string(uid)] }
}

// forgetDeleted forgets pods that are deleted.
func (f *fleet) forgetDeleted(factory informers.SharedInformerFactory) error {
	_, err := factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{DeleteFunc: func(obj any) {
		if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = gone.Obj
		}
		if pod, ok := obj.(*v1.Pod); ok {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.nodes.Forget(string(pod.UID))
			delete(f.all, pod.UID)
		}
	}})
	if err != nil {
		return fmt.Errorf("following the deletion of pods: %w", err)
	}
	return nil
}
