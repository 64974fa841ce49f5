// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/spotbench/spotbench/pkg/placement"
)

// Reasons of the scheduler's other checks, in the order they are looked for.
const (
	ReasonCordoned placement.Reason = "Cordoned"
	ReasonTaint    placement.Reason = "Taint"
	ReasonAffinity placement.Reason = "NodeAffinity"
	ReasonResource placement.Reason = "Resources"
)

// checkFit is what kube-scheduler's own plugins refuse, as far as the document tells.
func checkFit(p Pod, n Node) *placement.Refusal {
	if n.Unschedulable && !tolerates(p, v1.Taint{Key: v1.TaintNodeUnschedulable, Effect: v1.TaintEffectNoSchedule}) {
		return &placement.Refusal{Reason: ReasonCordoned, Detail: "been cordoned"}
	}
	if taint, ok := p.Untolerated(n); ok {
		return &placement.Refusal{Reason: ReasonTaint, Detail: "taint " + taint.ToString() + ", which the pod does not tolerate"}
	}
	required := nodeaffinity.GetRequiredNodeAffinity(p.affine())
	node := &v1.Node{}
	node.Name, node.Labels = n.Name, n.Labels
	if match, err := required.Match(node); err != nil || !match {
		detail := "labels other than the pod's node selector or affinity asks for"
		if err != nil {
			detail = "labels that cannot be matched with the pod's affinity: " + err.Error()
		}
		return &placement.Refusal{Reason: ReasonAffinity, Detail: detail}
	}
	return checkResources(p, n)
}

// affine is the pod as far as the node's labels matter.
func (p Pod) affine() *v1.Pod {
	pod := &v1.Pod{Spec: v1.PodSpec{NodeSelector: p.NodeSelector}}
	if p.NodeAffinity != nil {
		pod.Spec.Affinity = &v1.Affinity{NodeAffinity: &v1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: p.NodeAffinity}}
	}
	return pod
}

// Untolerated is the first taint of a node that keeps the pod off it.
func (p Pod) Untolerated(n Node) (v1.Taint, bool) {
	return corev1helpers.FindMatchingUntoleratedTaint(n.Taints, p.Tolerations, func(t *v1.Taint) bool {
		return t.Effect == v1.TaintEffectNoSchedule || t.Effect == v1.TaintEffectNoExecute
	})
}

func tolerates(p Pod, taint v1.Taint) bool {
	_, found := p.Untolerated(Node{Taints: []v1.Taint{taint}})
	return !found
}

func checkResources(p Pod, n Node) *placement.Refusal {
	taken := n.requestedWithout(p)
	wants := p.Requests.DeepCopy()
	if wants == nil {
		wants = v1.ResourceList{}
	}
	wants[v1.ResourcePods] = *resource.NewQuantity(1, resource.DecimalSI)
	for _, name := range sortedKeys(wants) {
		want, has := wants[name], n.Allocatable[name]
		if name == v1.ResourcePods && len(n.Allocatable) == 0 {
			continue // a document without these figures
		}
		free := has.DeepCopy()
		free.Sub(taken[name])
		if want.Sign() > 0 && want.Cmp(free) > 0 {
			return &placement.Refusal{
				Reason:    ReasonResource,
				Detail:    fmt.Sprintf("%s of %s %s free, wanted %s", free.String(), has.String(), name, want.String()),
				Temporary: want.Cmp(has) <= 0,
			}
		}
	}
	return nil
}

// requestedWithout is what the node's pods but one have.
func (n Node) requestedWithout(p Pod) v1.ResourceList {
	for _, other := range n.Pods {
		if other.Same(p) {
			return add(n.Requested, other, -1)
		}
	}
	return n.Requested
}

// add adds a pod's requests to a sum, or takes them away with sign -1.
func add(to v1.ResourceList, p Pod, sign int) v1.ResourceList {
	out := to.DeepCopy()
	if out == nil {
		out = v1.ResourceList{}
	}
	one := p.Requests.DeepCopy()
	if one == nil {
		one = v1.ResourceList{}
	}
	one[v1.ResourcePods] = *resource.NewQuantity(1, resource.DecimalSI)
	for name, q := range one {
		sum := out[name]
		if sign < 0 {
			sum.Sub(q)
			if sum.Sign() < 0 {
				sum = resource.Quantity{}
			}
		} else {
			sum.Add(q)
		}
		out[name] = sum
	}
	return out
}
