// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	v1 "k8s.io/api/core/v1"
	corehelpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
)

// look brings the fleet up to date, counts the pod into the demand and, where the
// fleet knows all that could keep the pod off a node, finds the best nodes: the
// scheduler's own checks then see a handful of nodes and not thousands.
func (p *Plugin) look(a *attempt, pod *v1.Pod) *fwk.Status {
	nodes, err := p.handle.SnapshotSharedLister().NodeInfos().List()
	if err != nil {
		return fwk.AsStatus(err)
	}
	crowded, err := p.handle.SnapshotSharedLister().NodeInfos().HavePodsWithRequiredAntiAffinityList()
	if err != nil {
		return fwk.AsStatus(err)
	}
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	p.syncFleet(nodes)
	if err := p.fleet.nodes.Observe(string(pod.UID), a.request, p.waitingRequests); err != nil {
		return fwk.AsStatus(err)
	}
	a.spotSuits = p.waitForSpot(pod, a, nodes)
	if len(crowded) > 0 || !simple(pod) || p.fleet.wantsAll(pod.UID) || p.waiting.anyNominated() {
		return nil
	}
	list, ok := p.fleet.nodes.Shortlist(a.request, placement.Search{
		Best: mostAlternatives + 1, Refused: mostRefused, Elsewhere: reasonElsewhere,
		Check:   a.check,
		Allowed: p.fleet.allowed(pod),
	})
	if !ok || len(list.Best) == 0 {
		return nil // every check then says what keeps the pod off each node
	}
	a.list, a.shortlisted = list, true
	for count, n := range list.Refusals {
		refusals.WithLabelValues(string(count.Reason), count.Model).Add(float64(n))
	}
	return nil
}

// opportunities is what the pod would take from those to come, by node.
func (p *Plugin) opportunities(r placement.Request) func(node string) placement.Opportunity {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	if takes := p.fleet.nodes.Opportunities(r); takes != nil {
		return takes
	}
	return func(string) placement.Opportunity { return placement.Opportunity{} }
}

// simple says that a pod asks for nothing but CPU, memory, GPUs, and nodes by their
// labels: the fleet, taints and node affinity then decide where it can run.
func simple(pod *v1.Pod) bool {
	spec := &pod.Spec
	if len(spec.TopologySpreadConstraints) > 0 || len(spec.ResourceClaims) > 0 || len(spec.SchedulingGates) > 0 ||
		pod.Status.NominatedNodeName != "" ||
		spec.Affinity != nil && (spec.Affinity.PodAffinity != nil || spec.Affinity.PodAntiAffinity != nil) {
		return false
	}
	for _, containers := range [][]v1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			for _, port := range containers[i].Ports {
				if port.HostPort != 0 {
					return false
				}
			}
		}
	}
	for i := range spec.Volumes {
		switch v := &spec.Volumes[i].VolumeSource; {
		case v.EmptyDir != nil, v.ConfigMap != nil, v.Secret != nil, v.Projected != nil, v.DownwardAPI != nil, v.HostPath != nil:
		default:
			return false
		}
	}
	for name := range requestsOf(pod) {
		switch name {
		case v1.ResourceCPU, v1.ResourceMemory, gpu.ResourceName:
		default:
			return false
		}
	}
	return true
}

// allowed says whether a node of the fleet takes a simple pod as far as its taints,
// its labels and the number of its pods go.
func (f *fleet) allowed(pod *v1.Pod) func(ref int) bool {
	affinity := nodeaffinity.GetRequiredNodeAffinity(pod)
	particular := len(pod.Spec.NodeSelector) > 0 || pod.Spec.Affinity != nil && pod.Spec.Affinity.NodeAffinity != nil
	cordonTolerated := corehelpers.TolerationsTolerateTaint(pod.Spec.Tolerations, &v1.Taint{Key: v1.TaintNodeUnschedulable, Effect: v1.TaintEffectNoSchedule})
	tolerated := make([]bool, len(f.taints))
	for i, taints := range f.taints {
		_, untolerated := corehelpers.FindMatchingUntoleratedTaint(taints, pod.Spec.Tolerations, nil)
		tolerated[i] = !untolerated
	}
	return func(ref int) bool {
		s := &f.byRef[ref]
		if s.full || !tolerated[s.taints] || s.cordoned && !cordonTolerated {
			return false
		}
		if !particular {
			return true
		}
		match, err := affinity.Match(s.object)
		return err == nil && match
	}
}
