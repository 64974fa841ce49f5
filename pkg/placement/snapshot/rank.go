// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"cmp"
	"slices"

	v1 "k8s.io/api/core/v1"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
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

// opportunities are reckoned from what the scheduler had learned; where the document
// does not say, as a scheduler does that was just started. nil when they cannot be
// reckoned.
func (s Snapshot) opportunities(r placement.Request, p Pod) func(node string) placement.Opportunity {
	fleet, err := placement.NewFleet(packing.Options{})
	if err != nil {
		return nil
	}
	for _, n := range s.Nodes {
		// A node with sizes that cannot be is ranked without regard to pods to come.
		_ = fleet.Set(n.fleet(p))
	}
	if s.Packing == nil {
		s.learn(fleet, p)
	} else if err := fleet.Restore(*s.Packing, s.observed()); err != nil {
		return nil
	}
	if err := fleet.Observe(p.id(), r, s.waiting); err != nil {
		return nil
	}
	return fleet.Opportunities(r)
}

// fleet is the node as a pod finds it that asks for whole GPUs and is not on it, with
// the room there.
func (n Node) fleet(p Pod) placement.FleetNode {
	node, taken := n.whole(p), n.requestedWithout(p)
	out := placement.FleetNode{
		Node: node, CPUMilli: n.Allocatable.Cpu().MilliValue(), MemoryBytes: n.Allocatable.Memory().Value(),
		Slices: slicesIn(n.Allocatable),
		Used:   packing.Used{GPUs: max(0, node.TotalGPUs-node.FreeGPUs), MIG: slicesIn(taken), CPUMilli: taken.Cpu().MilliValue(), MemoryBytes: taken.Memory().Value()},
	}
	if n.Unschedulable || n.Notice != "" {
		out.Used.GPUs, out.Used.MIG = node.TotalGPUs, out.Slices // none of it is for the pods to come
	}
	return out
}

// observed are the pods that count in Packing.
func (s Snapshot) observed() (ids []string) {
	for _, n := range s.Nodes {
		for _, p := range n.Pods {
			if p.Observed {
				ids = append(ids, p.id())
			}
		}
	}
	for _, p := range s.Pending {
		if p.Observed {
			ids = append(ids, p.id())
		}
	}
	return ids
}

// learn counts the pods that run into the demand, but for one, in the order in which
// they came.
func (s Snapshot) learn(fleet *placement.Fleet, but Pod) {
	var running []Pod
	for _, n := range s.Nodes {
		for _, p := range n.Pods {
			if !p.Same(but) && p.SchedulerName == benchspec.SchedulerName {
				running = append(running, p)
			}
		}
	}
	slices.SortFunc(running, func(a, b Pod) int { return cmp.Or(a.Created.Compare(b.Created), a.compare(b)) })
	for _, p := range running {
		if request, err := s.Request(p); err == nil {
			_ = fleet.Observe(p.id(), request, nil)
		}
	}
}

// slicesIn is how many MIG slices there are of each profile.
func slicesIn(of v1.ResourceList) map[string]int {
	slices := map[string]int{}
	for name, quantity := range of {
		if r, is, err := gpu.ParseResource(string(name)); is && err == nil && quantity.Sign() > 0 && r.Profile != "" && !r.Shared {
			slices[r.Profile] = int(quantity.Value())
		}
	}
	return slices
}

// waiting is what the pods ask for that were refused and wait.
func (s Snapshot) waiting() []placement.Waiting {
	var out []placement.Waiting
	for _, p := range s.Pending {
		if request, err := s.Request(p); err == nil && p.Refused != "" && request.GPUs > 0 {
			out = append(out, placement.Waiting{Request: request, Pods: 1})
		}
	}
	return out
}
