// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"context"

	v1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/spotbench/spotbench/pkg/placement"
)

// PreScore ranks all feasible nodes at once and at full precision: scores from 0
// to 100 could not tell costs apart, and the scheduler breaks ties at random.
func (p *Plugin) PreScore(_ context.Context, state fwk.CycleState, pod *v1.Pod, nodes []fwk.NodeInfo) *fwk.Status {
	a, err := attemptOf(state)
	if err != nil {
		return fwk.AsStatus(err)
	}
	names := make(map[string]fwk.NodeInfo, len(nodes))
	for _, info := range nodes {
		names[info.Node().Name] = info
	}
	if a.shortlisted {
		for _, c := range a.list.Best {
			if names[c.Node.Name] != nil {
				a.ranked = append(a.ranked, c)
			}
		}
		return nil
	}
	feasible := make([]placement.Node, 0, len(nodes))
	takes := p.opportunities(a.request)
	for _, info := range nodes {
		n := p.nodeWithPods(a, info)
		n.Opportunity = takes(n.Name)
		feasible = append(feasible, n)
	}
	a.ranked = placement.Rank(a.request, feasible)
	a.list.Tally = placement.Count(a.ranked)
	return nil
}

// Score gives the best node all points and every other none.
func (*Plugin) Score(_ context.Context, state fwk.CycleState, _ *v1.Pod, info fwk.NodeInfo) (int64, *fwk.Status) {
	a, err := attemptOf(state)
	if err != nil {
		return 0, fwk.AsStatus(err)
	}
	if len(a.ranked) > 0 && a.ranked[0].Node.Name == info.Node().Name {
		return framework.MaxNodeScore, nil
	}
	return framework.MinNodeScore, nil
}

// ScoreExtensions are not needed: scores are final.
func (*Plugin) ScoreExtensions() framework.ScoreExtensions { return nil }
