// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"context"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/placement"
)

const (
	// mostRefused bounds the refused nodes a placement lists.
	mostRefused = 8
	// mostAlternatives bounds the other feasible nodes it lists.
	mostAlternatives = 3
	// bindTimeout bounds the binding.
	bindTimeout = 10 * time.Second
	// mostBindings is how many requests to bind may be under way before the next pod is
	// decided on: decisions are faster than an API server, and would pile up.
	mostBindings = 100
	// reasonElsewhere is why a node without a refusal of ours was not feasible.
	reasonElsewhere = "was refused by other checks (taints, affinity, CPU, memory, ports or volumes)"
)

// Reserve puts together what Bind writes. It runs within the scheduling cycle,
// while the snapshot that the decision was made on still holds.
func (p *Plugin) Reserve(_ context.Context, state fwk.CycleState, pod *v1.Pod, nodeName string) *fwk.Status {
	a, err := attemptOf(state)
	if err != nil {
		return fwk.AsStatus(err)
	}
	nodes := p.handle.SnapshotSharedLister().NodeInfos()
	info, err := nodes.Get(nodeName)
	if err != nil {
		return fwk.AsStatus(fmt.Errorf("the chosen node %s is not in the snapshot: %w", nodeName, err))
	}
	ranked := a.ranked
	// With one feasible node the scheduler asks nobody for scores.
	if len(ranked) == 0 && a.shortlisted {
		ranked = slices.DeleteFunc(slices.Clone(a.list.Best), func(c placement.Candidate) bool { return c.Node.Name != nodeName })
	}
	if len(ranked) == 0 {
		n := p.nodeWithPods(a, info)
		n.Opportunity = p.opportunities(a.request)(nodeName)
		ranked = placement.Rank(a.request, []placement.Node{n})
	}
	refused := a.list.Refused
	if !a.shortlisted {
		all, err := nodes.List()
		if err != nil {
			return fwk.AsStatus(fmt.Errorf("listing the snapshot's nodes: %w", err))
		}
		refused = p.refused(a, ranked, all)
	}
	a.decided = decision(a, ranked, nodeName, refused)
	// Bindings take longer than decisions: what hundreds of them no longer need is let
	// go of.
	a.list, a.ranked = placement.Shortlist{}, nil
	a.seen.Clear()
	p.bindings.wait()
	return nil
}

// Unreserve has nothing to undo: the decision ends with its attempt.
func (*Plugin) Unreserve(context.Context, fwk.CycleState, *v1.Pod, string) {}

// Bind binds the pod with the decision in the same request, as annotations of the
// Binding, which the API server merges into the pod's: it is there before the kubelet
// knows of the pod, and no second request can fail between the two.
func (p *Plugin) Bind(ctx context.Context, state fwk.CycleState, pod *v1.Pod, nodeName string) *fwk.Status {
	a, err := attemptOf(state)
	if err != nil {
		return fwk.AsStatus(err)
	}
	if a.decided == nil {
		return fwk.NewStatus(fwk.Skip)
	}
	if a.claimed != nil {
		// Of several models that would do, the claims have theirs by now.
		if model := p.devices.modelGiven(pod, nodeName); model != "" {
			a.decided.GPUModel = model
		}
	}
	binding := &v1.Binding{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: pod.Name,
			UID:         pod.UID, // never the next pod of the same name
			Annotations: map[string]string{benchspec.AnnotationPlacement: a.decided.String()},
		},
		Target: v1.ObjectReference{Kind: "Node", Name: nodeName},
	}
	p.bindings.enter()
	defer p.bindings.leave()
	ctx, cancel := context.WithTimeout(ctx, bindTimeout)
	defer cancel()
	if err := p.handle.ClientSet().CoreV1().Pods(pod.Namespace).Bind(ctx, binding, metav1.CreateOptions{}); err != nil {
		return fwk.AsStatus(fmt.Errorf("binding with annotation %s: %w", benchspec.AnnotationPlacement, err))
	}
	placements.WithLabelValues(a.decided.GPUModel, a.decided.CapacityType).Inc()
	return nil
}

// decision is the placement on one of the ranked candidates.
func decision(a *attempt, ranked []placement.Candidate, nodeName string, refused map[string]string) *benchspec.Placement {
	r := a.request
	chosen, reason := ranked[0], placement.Explain(r, ranked, a.list.Tally)
	if chosen.Node.Name != nodeName {
		for _, c := range ranked {
			if c.Node.Name == nodeName {
				chosen = c
			}
		}
		reason = "chosen by other scoring plugins of the profile; by expected cost it would be " + ranked[0].Node.Name
	}
	n, e := chosen.Node, chosen.Estimate
	return &benchspec.Placement{
		Node:               nodeName,
		Provider:           n.Pool.Provider,
		Region:             n.Pool.Region,
		Zone:               n.Pool.Zone,
		InstanceType:       n.Pool.InstanceType,
		GPUModel:           n.GPUs.Model,
		GPUCount:           r.GPUs,
		Resource:           resourceOf(r),
		CapacityType:       n.Pool.CapacityType,
		USDPerHour:         e.USDPerHour,
		OnDemandUSDPerHour: e.OnDemandUSDPerHour,
		InterruptionRisk:   e.Risk,
		ExpectedHours:      e.Hours,
		ExpectedCostUSD:    e.CostUSD,
		OnDemandCostUSD:    e.OnDemandCostUSD,
		Reason:             reason,
		Alternatives:       alternatives(r, ranked, chosen),
		Refused:            refused,
	}
}

// resourceOf is by what the pod asks for its GPUs, "" for whole ones and for none.
func resourceOf(r placement.Request) string {
	if r.Resource.Whole() {
		return ""
	}
	return r.Resource.Name()
}

// alternatives are the best of the ranked candidates besides the chosen.
func alternatives(r placement.Request, ranked []placement.Candidate, chosen placement.Candidate) []benchspec.Alternative {
	var out []benchspec.Alternative
	for _, c := range ranked {
		if len(out) == mostAlternatives {
			break
		}
		if c.Node.Name == chosen.Node.Name {
			continue
		}
		out = append(out, benchspec.Alternative{
			Node:             c.Node.Name,
			GPUModel:         c.Node.GPUs.Model,
			InstanceType:     c.Node.Pool.InstanceType,
			Zone:             c.Node.Pool.Zone,
			CapacityType:     c.Node.Pool.CapacityType,
			USDPerHour:       c.Estimate.USDPerHour,
			InterruptionRisk: c.Estimate.Risk,
			ExpectedCostUSD:  c.Estimate.CostUSD,
			Lost:             placement.Lost(r, chosen, c),
		})
	}
	return out
}

// refused says what kept nodes other than the ranked ones.
func (p *Plugin) refused(a *attempt, ranked []placement.Candidate, all []fwk.NodeInfo) map[string]string {
	feasible := make(map[string]bool, len(ranked))
	for _, c := range ranked {
		feasible[c.Node.Name] = true
	}
	out := map[string]string{}
	for _, info := range all {
		name := info.Node().Name
		if feasible[name] {
			continue
		}
		if len(out) == mostRefused {
			break
		}
		n := p.nodeWithPods(a, info)
		refusal := a.check(n)
		if refusal == nil {
			refusal = placement.CheckRoom(a.request, n)
		}
		if refusal == nil {
			out[name] = reasonElsewhere
			continue
		}
		out[name] = refusal.String()
	}
	return out
}
