// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"context"
	"maps"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/util"

	"github.com/spotbench/spotbench/pkg/placement"
)

// EventsToRegister names what may end a refusal of ours: a node that comes or
// changes, a pod that leaves a node's GPUs, an annotation of the pod itself. Each
// has a hint, so that an event that changes nothing for a pod does not wake it.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	node := fwk.Add | fwk.UpdateNodeAllocatable | fwk.UpdateNodeLabel | fwk.UpdateNodeTaint | fwk.UpdateNodeCondition
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: node}, QueueingHintFn: p.afterNodeChange},
		{Event: fwk.ClusterEvent{Resource: fwk.Pod, ActionType: fwk.Update | fwk.Delete}, QueueingHintFn: p.afterPodChange},
	}, nil
}

// afterNodeChange wakes a pod when a node that we would have refused is one that
// we would take. Which pods are on it is not part of the event and not asked.
func (p *Plugin) afterNodeChange(logger klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	before, after, err := util.As[*v1.Node](oldObj, newObj)
	if err != nil {
		return fwk.Queue, err
	}
	request, err := p.request(pod)
	if err != nil {
		return fwk.QueueSkip, nil //nolint:nilerr // the pod is malformed, and nodes do not mend annotations
	}
	if refusal := placement.Check(request, as(request, p.node(after), after)); refusal != nil {
		logger.V(5).Info("Node changed, but is refused for the pod", "pod", klog.KObj(pod), "node", klog.KObj(after), "reason", refusal.Reason)
		return fwk.QueueSkip, nil
	}
	if before != nil && placement.Check(request, as(request, p.node(before), before)) == nil {
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
	if before == nil || !usesGPUs(before) {
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
