// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"context"
	"maps"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/util"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
)

// EventsToRegister names what may end a refusal of ours: a node that comes, changes or
// goes, a pod that leaves a node's GPUs, an annotation of the pod itself. Each has a
// hint, so that an event that changes nothing for a pod does not wake it.
//
// The queue asks for every pod that waits, one after the other, while nobody else may
// use it: what is the same for all of them is worked out once, and the cheap questions
// come first.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	node := fwk.Add | fwk.Delete | fwk.UpdateNodeAllocatable | fwk.UpdateNodeLabel | fwk.UpdateNodeTaint | fwk.UpdateNodeCondition
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: node}, QueueingHintFn: p.afterNodeChange},
		{Event: fwk.ClusterEvent{Resource: fwk.Pod, ActionType: fwk.Update | fwk.Delete}, QueueingHintFn: p.afterPodChange},
	}, nil
}

// afterNodeChange wakes a pod when a node that we would have refused is one that we
// would take, or when one went away that a pod with a deadline waits for. Which pods
// are on the node is not part of the event and not asked.
func (p *Plugin) afterNodeChange(logger klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	change, err := p.nodeChange(oldObj, newObj)
	if err != nil {
		return fwk.Queue, err
	}
	if change.nothing {
		return fwk.QueueSkip, nil
	}
	// What the pod asks for is read only where it matters: that takes longest.
	if _, deadline := pod.Annotations[benchspec.AnnotationDeadline]; !deadline && (change.new == nil || gpusOf(pod) > change.new.TotalGPUs) {
		return fwk.QueueSkip, nil
	}
	request, err := p.request(pod)
	if err != nil {
		return fwk.QueueSkip, nil //nolint:nilerr // the pod is malformed, and nodes do not mend annotations
	}
	suited, suits := suitable(request, change.old), suitable(request, change.new)
	switch {
	case suits && !suited:
		return fwk.Queue, nil
	case suited && !suits && change.old.Pool.CapacityType == gpu.Spot && placement.WaitsForSpot(request):
		return fwk.Queue, nil // it may have been the last to wait for
	}
	logger.V(5).Info("Node changed in nothing that kept the pod off it", "pod", klog.KObj(pod), "node", change.name(), "suits", suits)
	return fwk.QueueSkip, nil
}

// suitable says whether a node would be taken if it were empty.
func suitable(r placement.Request, n *placement.Node) bool {
	return n != nil && r.GPUs <= n.TotalGPUs && placement.Check(r, *n) == nil
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
		if before != nil && maps.Equal(before.Annotations, after.Annotations) && gpusOf(before) == gpusOf(after) {
			return fwk.QueueSkip, nil
		}
		return fwk.Queue, nil
	}
	if before == nil {
		return fwk.QueueSkip, nil
	}
	gone := after == nil
	makesRoom := isolated(before) && (gone || !isolated(after)) || gone && isolated(pod)
	if makesRoom && gpusOf(before) > 0 {
		return fwk.Queue, nil
	}
	return fwk.QueueSkip, nil
}
