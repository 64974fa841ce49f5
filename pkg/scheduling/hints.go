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

	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/claims"
)

// EventsToRegister names what may end a refusal of ours: a node that comes or
// changes, a pod that leaves a node's GPUs, an annotation of the pod itself; for pods
// with claims the devices of a node, and who has them. Each has a hint, so that an event that changes nothing for a pod does not wake it.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	node := fwk.Add | fwk.UpdateNodeAllocatable | fwk.UpdateNodeLabel | fwk.UpdateNodeTaint | fwk.UpdateNodeCondition
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

// afterNodeChange wakes a pod when a node that we would have refused is one that
// we would take. Which pods are on it is not part of the event and not asked.
func (p *Plugin) afterNodeChange(logger klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	before, after, err := util.As[*v1.Node](oldObj, newObj)
	if err != nil {
		return fwk.Queue, err
	}
	request, claimed, err := p.wanted(pod)
	if err != nil {
		return fwk.QueueSkip, nil //nolint:nilerr // the pod is malformed, and nodes do not mend annotations
	}
	if refusal := placement.Check(request, p.as(request, claimed, p.node(after), after)); refusal != nil {
		logger.V(5).Info("Node changed, but is refused for the pod", "pod", klog.KObj(pod), "node", klog.KObj(after), "reason", refusal.Reason)
		return fwk.QueueSkip, nil
	}
	if before != nil && placement.Check(request, p.as(request, claimed, p.node(before), before)) == nil {
		logger.V(5).Info("Node changed in nothing that kept the pod off it", "pod", klog.KObj(pod), "node", klog.KObj(after))
		return fwk.QueueSkip, nil
	}
	return fwk.Queue, nil
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
	if before == nil || !mayUseGPUs(before) {
		return fwk.QueueSkip, nil
	}
	gone := after == nil
	switch {
	case isolated(before) && (gone || !isolated(after)):
		return fwk.Queue, nil
	case gone && isolated(pod):
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
