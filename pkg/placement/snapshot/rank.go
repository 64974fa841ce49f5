// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"cmp"
	"slices"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/packing"
)

// rank is the one place that orders feasible nodes: with what the pod takes there from
// the pods to come.
func (s Snapshot) rank(r placement.Request, p Pod, feasible []placement.Node) []placement.Candidate {
	if takes := s.opportunities(r, p); takes != nil {
		for i := range feasible {
			feasible[i].Opportunity = takes(feasible[i].Name)
		}
	}
	return placement.Rank(r, feasible)
}

// opportunities are reckoned as a scheduler does that was just started: it counts the
// pods that run into the demand, in the order in which they came, then those that
// wait, then this one. nil when they cannot be reckoned.
func (s Snapshot) opportunities(r placement.Request, p Pod) func(node string) placement.Opportunity {
	fleet, err := placement.NewFleet(packing.Options{})
	if err != nil {
		return nil
	}
	var running []Pod
	for _, n := range s.Nodes {
		node := n.placement(p)
		taken := n.requestedWithout(p)
		// A node with sizes that cannot be is ranked without regard to pods to come.
		_ = fleet.Set(placement.FleetNode{
			Node: node, CPUMilli: n.Allocatable.Cpu().MilliValue(), MemoryBytes: n.Allocatable.Memory().Value(),
			Used: packing.Used{GPUs: max(0, node.TotalGPUs-node.FreeGPUs), CPUMilli: taken.Cpu().MilliValue(), MemoryBytes: taken.Memory().Value()},
		})
		for _, other := range n.Pods {
			if !other.Same(p) && other.SchedulerName == benchspec.SchedulerName {
				running = append(running, other)
			}
		}
	}
	slices.SortFunc(running, func(a, b Pod) int { return cmp.Or(a.Created.Compare(b.Created), a.compare(b)) })
	for _, other := range running {
		if request, err := s.Request(other); err == nil {
			_ = fleet.Observe(other.id(), request, nil)
		}
	}
	if err := fleet.Observe(p.id(), r, s.waiting); err != nil {
		return nil
	}
	return fleet.Opportunities(r)
}

// waiting is what the pods ask for that were refused and wait.
func (s Snapshot) waiting() []placement.Request {
	var out []placement.Request
	for _, p := range sorted(s.Pending) {
		if request, err := s.Request(p); err == nil && p.Refused != "" && p.GPUs > 0 {
			out = append(out, request)
		}
	}
	return out
}
