// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"context"
	"errors"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/spotbench/spotbench/pkg/gpu"
)

// What a pod's FailedScheduling event says. The scheduler counts equal reasons of
// nodes and puts the count before them: "2 node(s) have A100-80GB, wanted H100-80GB".
const (
	// ErrReasonPrefix begins every refusal of a node; the detail with the figures
	// (placement.Refusal) follows.
	ErrReasonPrefix = "node(s) have "
	// ErrReasonMalformed begins the refusal of a pod whose annotations cannot be
	// read; the problems follow.
	ErrReasonMalformed = "the pod's annotations are malformed: "
	// ErrReasonNoNodes refuses a pod that names models while there are no nodes.
	ErrReasonNoNodes = "there are no nodes"
	// ErrReasonNoGPUsAsked refuses a pod that is particular about GPUs but asks for
	// none.
	ErrReasonNoGPUsAsked = "the pod's annotations name GPU models or memory, but it asks for no " + gpu.ResourceName + "; add it to resources.limits"
)

// PreFilter reads the pod once per attempt. A pod that cannot be read or
// contradicts itself is refused whatever the nodes. One that asks for nothing the
// fleet does not know of is shown only the best nodes; another one that names models
// only the nodes that have one of them.
func (p *Plugin) PreFilter(_ context.Context, state fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) (*framework.PreFilterResult, *fwk.Status) {
	request, claimed, err := p.wanted(pod)
	if u := (*unreadable)(nil); errors.As(err, &u) {
		refusals.WithLabelValues(u.reason, "").Inc()
		return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, u.text)
	}
	if request.GPUs == 0 && (len(request.Spec.GPUModels) > 0 || request.Spec.GPUMemoryBytes > 0) {
		refusals.WithLabelValues("NoGPUsAsked", "").Inc()
		return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, ErrReasonNoGPUsAsked)
	}
	a := &attempt{request: request, claimed: claimed}
	if status := p.look(a, pod); !status.IsSuccess() {
		return nil, status
	}
	if a.shortlisted {
		state.Write(stateKey, a)
		names := sets.New[string]()
		for _, c := range a.list.Best {
			names.Insert(c.Node.Name)
		}
		return &framework.PreFilterResult{NodeNames: names}, nil
	}
	if len(request.Spec.GPUModels) == 0 || !request.Resource.Whole() {
		state.Write(stateKey, a)
		return nil, nil
	}
	names := p.models.of(request.Spec.GPUModels)
	if len(names) == 0 {
		if text := enumerate(p.excluded(request)); text != "" {
			return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, text)
		}
		return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, ErrReasonNoNodes)
	}
	a.narrowed = true
	state.Write(stateKey, a)
	return &framework.PreFilterResult{NodeNames: names}, nil
}

// PreFilterExtensions are not needed: Filter counts the pods in the node it is
// given, which has them added and removed already.
func (*Plugin) PreFilterExtensions() framework.PreFilterExtensions { return nil }

// Filter refuses nodes that do not meet what the pod asks for. Only where other
// pods are in the way may preemption help.
func (p *Plugin) Filter(_ context.Context, state fwk.CycleState, pod *v1.Pod, info fwk.NodeInfo) *fwk.Status {
	a, err := attemptOf(state)
	if err != nil {
		return fwk.AsStatus(err)
	}
	node := p.nodeWithPods(a, info)
	refusal := a.check(node)
	if refusal == nil {
		return nil
	}
	refusals.WithLabelValues(string(refusal.Reason), node.GPUs.Model).Inc()
	code := fwk.UnschedulableAndUnresolvable
	if refusal.Temporary {
		code = fwk.Unschedulable
	}
	return fwk.NewStatus(code, ErrReasonPrefix+refusal.Detail)
}
