// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"context"
	"fmt"
	"sync/atomic"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/feature"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/noderesources"
	"k8s.io/kubernetes/pkg/scheduler/util"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
)

// ResourcesName is the name in KubeSchedulerConfiguration of the plugin that
// NewResources makes. It takes the place of NodeResourcesFit, which is disabled.
const ResourcesName = "SpotbenchResourcesFit"

// fit is Kubernetes' own NodeResourcesFit with other hints. Upstream, the end of
// any pod anywhere and any change of any node's taints wake every pod that found no
// room: of tens of thousands that wait for GPUs each is tried again, and a pod that
// comes meanwhile waits for all of them.
type fit struct {
	*noderesources.Fit
	nodes listers.NodeLister
	// last is the event that hints were last asked about.
	last *atomic.Pointer[roomChange]
}

var (
	_ framework.PreFilterPlugin   = fit{}
	_ framework.FilterPlugin      = fit{}
	_ framework.EnqueueExtensions = fit{}
)

// NewResources is the factory of the plugin. It has no arguments.
func NewResources(ctx context.Context, obj runtime.Object, handle framework.Handle) (framework.Plugin, error) {
	if obj != nil {
		return nil, fmt.Errorf("pluginConfig %s: args are a %T, want none: the plugin has no arguments", ResourcesName, obj)
	}
	// Upstream asks for a strategy of scoring, which no profile of ours uses.
	args := &config.NodeResourcesFitArgs{ScoringStrategy: &config.ScoringStrategy{
		Type:      config.LeastAllocated,
		Resources: []config.ResourceSpec{{Name: string(v1.ResourceCPU), Weight: 1}, {Name: string(v1.ResourceMemory), Weight: 1}},
	}}
	plugin, err := noderesources.NewFit(ctx, args, handle, feature.NewSchedulerFeaturesFromGates(utilfeature.DefaultFeatureGate))
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w", ResourcesName, err)
	}
	upstream, ok := plugin.(*noderesources.Fit)
	if !ok {
		return nil, fmt.Errorf("plugin %s is a %T, want a *noderesources.Fit", ResourcesName, plugin)
	}
	return fit{upstream, handle.SharedInformerFactory().Core().V1().Nodes().Lister(), &atomic.Pointer[roomChange]{}}, nil
}

// Name is the plugin's name.
func (fit) Name() string { return ResourcesName }

// EventsToRegister has upstream's events, whose hints are only asked where the node in
// question could hold the pod if it were empty.
//
// Labels are among them because they say whether it could. Taints are because the
// scheduler otherwise adds them itself, with a hint that wakes everybody; upstream's
// sees that no room came with them.
func (f fit) EventsToRegister(ctx context.Context) ([]fwk.ClusterEventWithHint, error) {
	events, err := f.Fit.EventsToRegister(ctx)
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w", ResourcesName, err)
	}
	for i := range events {
		switch e := &events[i]; e.Event.Resource {
		case fwk.Node:
			e.Event.ActionType |= fwk.UpdateNodeLabel | fwk.UpdateNodeTaint
			e.QueueingHintFn = f.afterNodeChange(e.QueueingHintFn)
		case fwk.Pod:
			e.QueueingHintFn = f.afterPodChange(e.QueueingHintFn)
		default: // as upstream has it
		}
	}
	return events, nil
}

// afterNodeChange asks upstream about a node that could hold the pod: as about a new
// one where it could not before.
func (f fit) afterNodeChange(upstream fwk.QueueingHintFn) fwk.QueueingHintFn {
	return func(logger klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
		before, after, err := util.As[*v1.Node](oldObj, newObj)
		if err != nil {
			return fwk.Queue, err
		}
		change := f.change(before, after)
		switch {
		case !change.after.couldHold(pod):
			return fwk.QueueSkip, nil
		case !change.before.couldHold(pod):
			return upstream(logger, pod, nil, newObj)
		}
		return upstream(logger, pod, oldObj, newObj)
	}
}

// afterPodChange asks upstream about the end of a pod, or its getting smaller, on a
// node that could hold the pod that waits.
func (f fit) afterPodChange(upstream fwk.QueueingHintFn) fwk.QueueingHintFn {
	return func(logger klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
		before, after, err := util.As[*v1.Pod](oldObj, newObj)
		if err != nil {
			return fwk.Queue, err
		}
		if after != nil && after.UID == pod.UID || before == nil || before.Spec.NodeName == "" {
			return upstream(logger, pod, oldObj, newObj)
		}
		// A node that is gone takes no pod, and tells when it is back. The lister is never
		// older than the event.
		node, err := f.nodes.Get(before.Spec.NodeName)
		if err != nil || !f.change(nil, node).after.couldHold(pod) {
			return fwk.QueueSkip, nil //nolint:nilerr // as said above
		}
		return upstream(logger, pod, oldObj, newObj)
	}
}

// roomChange is what a node was and is to pods that look for room, worked out once for
// all of them.
type roomChange struct {
	from, to      *v1.Node
	before, after *emptyNode
}

func (f fit) change(from, to *v1.Node) *roomChange {
	if last := f.last.Load(); last != nil && last.from == from && last.to == to {
		return last
	}
	change := &roomChange{from: from, to: to, before: emptyNodeOf(from), after: emptyNodeOf(to)}
	f.last.Store(change)
	return change
}

// emptyNode is a node as if no pod were on it.
type emptyNode struct {
	placement.Node
	cpuMilli, memoryBytes int64
}

func emptyNodeOf(node *v1.Node) *emptyNode {
	if node == nil {
		return nil
	}
	n := &emptyNode{cpuMilli: node.Status.Allocatable.Cpu().MilliValue(), memoryBytes: node.Status.Allocatable.Memory().Value()}
	n.GPUs, n.HasGPUs = gpusOfNode(node)
	gpus := node.Status.Allocatable[gpu.ResourceName]
	n.TotalGPUs = int(gpus.Value())
	return n
}

// couldHold says whether the node's GPUs are what the pod asks for, and the node large
// enough.
func (n *emptyNode) couldHold(pod *v1.Pod) bool {
	if n == nil {
		return false
	}
	requests := requestsOf(pod)
	gpus := requests[gpu.ResourceName]
	if int(gpus.Value()) > n.TotalGPUs || requests.Cpu().MilliValue() > n.cpuMilli || requests.Memory().Value() > n.memoryBytes {
		return false
	}
	if gpus.IsZero() {
		return true
	}
	r, err := asks(pod)
	return err == nil && placement.CheckGPUs(r, n.Node) == nil
}
