// SPDX-License-Identifier: Apache-2.0

package scheduling_test

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/spotbench/spotbench/pkg/scheduling"
)

func TestAPodWithoutRoomIsWokenByRoomOnANodeThatCouldHoldIt(t *testing.T) {
	_, handle := newPlugin(t, fake.NewClientset(), nil, reference())
	plugin, err := scheduling.NewResources(t.Context(), nil, handle)
	if err != nil {
		t.Fatal(err)
	}
	events, err := plugin.(framework.EnqueueExtensions).EventsToRegister(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hints := map[fwk.EventResource]fwk.ClusterEventWithHint{}
	for _, e := range events {
		hints[e.Event.Resource] = e
	}
	if hints[fwk.Node].Event.ActionType&fwk.UpdateNodeTaint == 0 {
		t.Error("taints are not registered: the scheduler then wakes everybody for each")
	}
	with := func(n *v1.Node, change func(*v1.Node)) *v1.Node {
		n = n.DeepCopy()
		change(n)
		return n
	}
	nodes := reference()
	a100, h100 := nodes[0], nodes[1]
	unlabelled := with(h100, func(n *v1.Node) {
		delete(n.Labels, "nvidia.com/gpu.product")
		delete(n.Labels, "node.kubernetes.io/instance-type")
	})
	broken := with(h100, func(n *v1.Node) { n.Status.Allocatable["nvidia.com/gpu"] = resource.MustParse("4") })
	on := func(pod *v1.Pod, node string) *v1.Pod {
		pod.Spec.NodeName = node
		return pod
	}
	one, all := benchPod("p", 1, map[string]string{"gpu-model": "H100-80GB"}), benchPod("p", 8, map[string]string{"gpu-model": "H100-80GB"})
	anywhere, large := benchPod("p", 1, nil), benchPod("p", 16, nil)
	cpu := benchPod("p", 0, nil)
	for name, test := range map[string]struct {
		resource fwk.EventResource
		pod      *v1.Pod
		old, new any
		want     fwk.QueueingHint
	}{
		"a pod ends on a node of the model":                 {fwk.Pod, one, on(benchPod("x", 1, nil), "h100-spot-0"), nil, fwk.Queue},
		"a pod ends on a node of another":                   {fwk.Pod, one, on(benchPod("x", 1, nil), "a100-spot-0"), nil, fwk.QueueSkip},
		"a pod ends anywhere, and the pod does not mind":    {fwk.Pod, anywhere, on(benchPod("x", 1, nil), "l4-spot-0"), nil, fwk.Queue},
		"a pod ends on a node without GPUs":                 {fwk.Pod, anywhere, on(benchPod("x", 0, nil), "system-0"), nil, fwk.QueueSkip},
		"it does, and the pod wants none":                   {fwk.Pod, cpu, on(benchPod("x", 0, nil), "system-0"), nil, fwk.Queue},
		"a pod ends on a node too small":                    {fwk.Pod, large, on(benchPod("x", 8, nil), "h100-spot-0"), nil, fwk.QueueSkip},
		"a pod ends on a node that is gone":                 {fwk.Pod, anywhere, on(benchPod("x", 1, nil), "gone"), nil, fwk.QueueSkip},
		"a pod that waits is deleted":                       {fwk.Pod, anywhere, benchPod("x", 1, nil), nil, fwk.QueueSkip},
		"a node of the model joins":                         {fwk.Node, one, nil, h100, fwk.Queue},
		"a node of another joins":                           {fwk.Node, one, nil, a100, fwk.QueueSkip},
		"a node joins, too small":                           {fwk.Node, large, nil, h100, fwk.QueueSkip},
		"a node joins without its labels":                   {fwk.Node, one, nil, unlabelled, fwk.QueueSkip},
		"they come":                                         {fwk.Node, one, unlabelled, h100, fwk.Queue},
		"another model's become that of the pod":            {fwk.Node, one, with(h100, func(n *v1.Node) { n.Labels = a100.Labels }), h100, fwk.Queue},
		"the other way round":                               {fwk.Node, one, h100, with(h100, func(n *v1.Node) { n.Labels = a100.Labels }), fwk.QueueSkip},
		"a taint goes":                                      {fwk.Node, one, h100, with(h100, func(n *v1.Node) { n.Spec.Taints = nil }), fwk.QueueSkip},
		"GPUs come back, enough for the pod":                {fwk.Node, all, broken, h100, fwk.Queue},
		"GPUs fail":                                         {fwk.Node, one, h100, broken, fwk.QueueSkip},
		"GPUs come back, of which there were enough for it": {fwk.Node, one, broken, h100, fwk.Queue},
	} {
		t.Run(name, func(t *testing.T) {
			old, now := test.old, test.new
			got, err := hints[test.resource].QueueingHintFn(klog.FromContext(t.Context()), test.pod, old, now)
			if err != nil || got != test.want {
				t.Errorf("hint %v (%v), want %v", got, err, test.want)
			}
		})
	}
}

func TestTheResourcesPluginTakesNoArguments(t *testing.T) {
	_, handle := newPlugin(t, fake.NewClientset(), nil, reference())
	if _, err := scheduling.NewResources(t.Context(), args(`{}`), handle); err == nil || !strings.Contains(err.Error(), "SpotbenchResourcesFit: args are a *runtime.Unknown, want none") {
		t.Errorf("error %v", err)
	}
}
