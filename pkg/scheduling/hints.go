// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"context"
	"maps"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/util"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/claims"
)

// EventsToRegister names what may end a refusal of ours: a node that comes, changes or
// goes, a pod that leaves a node's GPUs, an annotation of the pod itself; for pods with
// claims the devices of a node, and who has them. Each has a hint, so that an event that
// changes nothing for a pod does not wake it.
//
// The queue asks for every pod that waits, one after the other, while nobody else may
// use it: what is the same for all of them is worked out once, and the cheap questions
// come first.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	node := fwk.Add | fwk.Delete | fwk.UpdateNodeAllocatable | fwk.UpdateNodeLabel | fwk.UpdateNodeTaint | fwk.UpdateNodeCondition
	events := []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: node}, QueueingHintFn: p.afterNodeChange},
		{Event: fwk.ClusterEvent{Resource: fwk.Pod, ActionType: fwk.Update | fwk.Delete}, QueueingHintFn: p.afterPodChange},
	}
	if p.devices != nil {
		events = append(events,
			fwk.ClusterEventWithHint{Event: fwk.ClusterEvent{Resource: fwk.ResourceSlice, ActionType: fwk.Add | fwk.Update}, QueueingHintFn: p.afterSliceChange},
			fwk.ClusterEventWithHint{Event: fwk.ClusterEvent{Resource: fwk.ResourceClaim, ActionType: fwk.Add | fwk.Update | fwk.Delete}, QueueingHintFn: p.afterClaimChange})
	}
	return events, nil
}

// afterNodeChange wakes a pod when a node that we would have refused is one that we
// would take, or when one went away that a pod with a deadline waits for. Which pods
// are on the node is not part of the event and not asked.
func (p *Plugin) afterNodeChange(logger klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	change, err := p.nodeChange(oldObj, newObj)
	if err != nil {
		return fwk.Queue, err
	}
	// What the pod asks for is read only where it matters: that takes longest.
	if gpus, whole := wholeGPUs(pod); whole {
		_, deadline := pod.Annotations[benchspec.AnnotationDeadline]
		if change.nothing || !deadline && (change.new == nil || gpus > change.new.TotalGPUs) {
			return fwk.QueueSkip, nil
		}
	}
	request, claimed, err := p.wanted(pod)
	if err != nil {
		return fwk.QueueSkip, nil //nolint:nilerr // the pod is malformed, and nodes do not mend annotations
	}
	suited := p.suitable(request, claimed, change.old, change.before)
	suits := p.suitable(request, claimed, change.new, change.after)
	switch {
	case suits && !suited:
		return fwk.Queue, nil
	case suited && !suits && change.old.Pool.CapacityType == gpu.Spot && placement.WaitsForSpot(request):
		return fwk.Queue, nil // it may have been the last to wait for
	}
	logger.V(5).Info("Node changed in nothing that kept the pod off it", "pod", klog.KObj(pod), "node", change.name(), "suits", suits)
	return fwk.QueueSkip, nil
}

// wholeGPUs is how many GPUs a pod asks for, and true when these are whole ones or
// none: what it sees of a node is then what nodeChange has of it.
func wholeGPUs(pod *v1.Pod) (int, bool) {
	kind, n, err := gpusAsked(requestsOf(pod))
	return n, err == nil && kind.Whole() && len(pod.Spec.ResourceClaims) == 0
}

// suitable says whether a node would be taken if it were empty.
func (p *Plugin) suitable(r placement.Request, c *claimed, n *placement.Node, node *v1.Node) bool {
	if n == nil {
		return false
	}
	seen := p.as(r, c, *n, node)
	return r.GPUs <= seen.TotalGPUs && placement.Check(r, seen) == nil
}

// nodeChange is what an event changes of a node, as we see it; nil where there is none.
type nodeChange struct {
	before, after *v1.Node
	old, new      *placement.Node
	// nothing says that it changes nothing that we look at.
	nothing bool
}

func (c *nodeChange) name() string {
	if c.new != nil {
		return c.new.Name
	}
	return c.old.Name
}

// nodeChange works out an event, once for all pods that are asked about it.
func (p *Plugin) nodeChange(oldObj, newObj any) (*nodeChange, error) {
	before, after, err := util.As[*v1.Node](oldObj, newObj)
	if err != nil {
		return nil, err
	}
	if last := p.lastChange.Load(); last != nil && last.before == before && last.after == after {
		return last, nil
	}
	change := &nodeChange{before: before, after: after}
	if before != nil {
		n := p.node(before)
		change.old = &n
	}
	if after != nil {
		n := p.node(after)
		change.new = &n
	}
	change.nothing = change.old != nil && change.new != nil && change.old.Equal(*change.new)
	p.lastChange.Store(change)
	return change, nil
}

// afterPodChange wakes a pod when its own annotations changed, or when a
// neighbour left that stood between it and a node's GPUs.
func (p *Plugin) afterPodChange(_ klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	before, after, err := util.As[*v1.Pod](oldObj, newObj)
	if err != nil {
		return fwk.Queue, err
	}
	if after != nil && after.UID == pod.UID {
		if before != nil && maps.Equal(before.Annotations, after.Annotations) && sameGPUs(before, after) {
			return fwk.QueueSkip, nil
		}
		return fwk.Queue, nil
	}
	if before == nil {
		return fwk.QueueSkip, nil
	}
	gone := after == nil
	makesRoom := isolated(before) && (gone || !isolated(after)) || gone && isolated(pod)
	if makesRoom && mayUseGPUs(before) {
		return fwk.Queue, nil
	}
	return fwk.QueueSkip, nil
}

// sameGPUs says whether two versions of a pod ask for the same GPUs.
func sameGPUs(a, b *v1.Pod) bool {
	kind, n, err := gpusAsked(requestsOf(a))
	otherKind, otherN, otherErr := gpusAsked(requestsOf(b))
	return kind == otherKind && n == otherN && (err == nil) == (otherErr == nil)
}

// afterSliceChange wakes a pod whose claims ask for GPUs when the devices of a node
// changed, and the node is one that we would take.
func (p *Plugin) afterSliceChange(_ klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	if len(pod.Spec.ResourceClaims) == 0 {
		return fwk.QueueSkip, nil
	}
	before, after, err := util.As[*resourceapi.ResourceSlice](oldObj, newObj)
	if err != nil {
		return fwk.Queue, err
	}
	if after == nil || after.Spec.Driver != claims.Driver || after.Spec.NodeName == nil ||
		before != nil && equality.Semantic.DeepEqual(before.Spec, after.Spec) {
		return fwk.QueueSkip, nil
	}
	return p.ifTaken(pod, *after.Spec.NodeName), nil
}

// afterClaimChange wakes a pod when a claim of its comes, and one whose claims ask for
// GPUs when those that any claim has are others than before: which devices are free
// decides what a claim may be given.
func (p *Plugin) afterClaimChange(_ klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	if len(pod.Spec.ResourceClaims) == 0 {
		return fwk.QueueSkip, nil
	}
	before, after, err := util.As[*resourceapi.ResourceClaim](oldObj, newObj)
	if err != nil {
		return fwk.Queue, err
	}
	had, has := sets.New[structured.DeviceID](), sets.New[structured.DeviceID]()
	if before != nil {
		had = allocatedTo(before)
	}
	if after != nil {
		has = allocatedTo(after)
		if before == nil && namesClaim(pod, after) {
			return fwk.Queue, nil
		}
	}
	for id := range had.SymmetricDifference(has) {
		// NVIDIA's driver names a node's pool like the node.
		if p.ifTaken(pod, id.Pool.String()) == fwk.Queue {
			return fwk.Queue, nil
		}
	}
	return fwk.QueueSkip, nil
}

// ifTaken wakes a pod with claims when a node is one that we would take, as far as the
// node and its devices go.
func (p *Plugin) ifTaken(pod *v1.Pod, name string) fwk.QueueingHint {
	node, err := p.handle.SharedInformerFactory().Core().V1().Nodes().Lister().Get(name)
	if err != nil {
		return fwk.QueueSkip // there is none, and its coming is an event of its own
	}
	request, claimed, err := p.wanted(pod)
	if err != nil || claimed == nil || placement.Check(request, p.as(request, claimed, p.node(node), node)) != nil {
		return fwk.QueueSkip
	}
	return fwk.Queue
}
