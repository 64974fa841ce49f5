// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/claims"
)

// Decision is where a pod goes, or why it goes nowhere.
type Decision struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	// Node is the chosen one, "" when the pod stays pending.
	Node string `json:"node,omitempty"`
	// Reason is one sentence: why this node, or why none.
	Reason string `json:"reason"`
	// InTime is the probability, from 0 to 1, that the pod meets its deadline if it starts on
	// Node now; nil for one without a deadline or a node.
	InTime *float64 `json:"inTime,omitempty"`
	// Candidates are the nodes that would do, best first: the chosen one leads.
	Candidates []Candidate `json:"candidates,omitempty"`
	// Refused are the others, by name.
	Refused []Refused `json:"refused,omitempty"`
	// Unchecked is what else the pod asks of a node and was not looked at.
	Unchecked []string `json:"unchecked,omitempty"`
}

// Candidate is a node that would do.
type Candidate struct {
	Node     string `json:"node"`
	GPUModel string `json:"gpuModel,omitempty"`
	Pool     Pool   `json:"pool"`
	// The figures are placement.Estimate's.
	InterruptionRisk float64 `json:"interruptionRisk"`
	ExpectedHours    float64 `json:"expectedHours"`
	USDPerHour       float64 `json:"usdPerHour"`
	ExpectedCostUSD  float64 `json:"expectedCostUSD"`
	OnDemandCostUSD  float64 `json:"onDemandCostUSD"`
	// Lost is what it lost by to the first, "" for the first.
	Lost string `json:"lost,omitempty"`
}

// Refused is a node that will not do.
type Refused struct {
	Node     string `json:"node"`
	GPUModel string `json:"gpuModel,omitempty"`
	Pool     Pool   `json:"pool"`
	// Reason is the first that applies; Detail completes "the node has …".
	Reason placement.Reason `json:"reason"`
	Detail string           `json:"detail"`
	// Temporary is true when pods are in the way, whose end would change it.
	Temporary bool `json:"temporary,omitempty"`
}

// Feasible says whether the pod gets a node.
func (d Decision) Feasible() bool { return d.Node != "" }

// Find is the pod of a name, on a node or pending; node is "" for a pending one.
func (s Snapshot) Find(namespace, name string) (pod Pod, node string, ok bool) {
	for _, p := range s.Pending {
		if p.Namespace == namespace && p.Name == name {
			return p, "", true
		}
	}
	for _, n := range s.Nodes {
		for _, p := range n.Pods {
			if p.Namespace == namespace && p.Name == name {
				return p, n.Name, true
			}
		}
	}
	return Pod{}, "", false
}

// Request is what the scheduler reads from the pod. An error is why it would not try
// any node.
func (s Snapshot) Request(p Pod) (placement.Request, error) {
	spec, err := benchspec.Parse(p.Annotations)
	r := placement.Request{
		Spec: spec, CPUMilli: p.Requests.Cpu().MilliValue(), MemoryBytes: p.Requests.Memory().Value(),
		Now: s.Time, Assumptions: s.Assumptions.placement(),
	}
	if err != nil {
		return r, fmt.Errorf("the pod's annotations are malformed: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if p.ClaimsProblem != "" {
		return r, errors.New(p.ClaimsProblem)
	}
	if r.Resource, r.GPUs, err = p.gpus(); err != nil {
		return r, err
	}
	if r.GPUs == 0 && slices.Contains(p.Unchecked, claimsUnchecked) && (len(spec.GPUModels) > 0 || spec.GPUMemoryBytes > 0) {
		return r, errors.New("the pod may ask for GPUs by resource claims, which are not known before it is submitted; submit it and explain it then")
	}
	if r.GPUs == 0 && (len(spec.GPUModels) > 0 || spec.GPUMemoryBytes > 0) {
		return r, fmt.Errorf("the pod's annotations name GPU models or memory, but it asks for no %s; add it to resources.limits", gpu.ResourceName)
	}
	return r, nil
}

// Decide places a pod as the scheduler would. A pod that is on a node already is
// decided as if it were not.
func (s Snapshot) Decide(p Pod) Decision {
	d := Decision{Namespace: p.Namespace, Pod: p.Name, Unchecked: p.Unchecked}
	s, p = s.unplaced(p)
	r, err := s.Request(p)
	if err != nil {
		d.Reason = err.Error()
		return d
	}
	suits := s.spotSuits(r, p)
	var feasible []placement.Node
	for _, n := range s.Nodes {
		node := n.placement(p)
		refusal := check(r, p, n, node, suits)
		if refusal == nil {
			feasible = append(feasible, node)
			continue
		}
		d.Refused = append(d.Refused, Refused{
			Node: n.Name, GPUModel: node.GPUs.Model, Pool: n.Pool,
			Reason: refusal.Reason, Detail: refusal.Detail, Temporary: refusal.Temporary,
		})
	}
	slices.SortFunc(d.Refused, func(a, b Refused) int { return strings.Compare(a.Node, b.Node) })
	ranked := s.rank(r, p, feasible)
	d.Reason = placement.Explain(r, ranked, placement.Count(ranked))
	for i, c := range ranked {
		e := c.Estimate
		out := Candidate{
			Node: c.Node.Name, GPUModel: c.Node.GPUs.Model, Pool: Pool(c.Node.Pool),
			InterruptionRisk: e.Risk, ExpectedHours: e.Hours, USDPerHour: e.USDPerHour,
			ExpectedCostUSD: e.CostUSD, OnDemandCostUSD: e.OnDemandCostUSD,
		}
		if i == 0 {
			d.Node = c.Node.Name
			if p, ok := placement.InTime(r, c.Node); ok {
				d.InTime = &p
			}
		} else {
			out.Lost = placement.Lost(r, ranked[0], c)
		}
		d.Candidates = append(d.Candidates, out)
	}
	return d
}

// Refusal is why a node will not do for a pod, nil when it will. An error is that the
// node is not known, or the pod cannot be read (Request).
func (s Snapshot) Refusal(p Pod, name string) (*placement.Refusal, error) {
	r, n, err := s.requestAndNode(p, name)
	if err != nil {
		return nil, err
	}
	return check(r, p, n, n.placement(p), s.spotSuits(r, p)), nil
}

// Expected is the expected time in hours to finish on a node.
func (s Snapshot) Expected(p Pod, name string) (float64, error) {
	r, n, err := s.requestAndNode(p, name)
	if err != nil {
		return 0, err
	}
	return placement.Reckon(r, n.placement(p)).Hours, nil
}

// LatestStart is when the pod must start on a node to make its deadline.
func (s Snapshot) LatestStart(p Pod, name string) (time.Time, error) {
	r, n, err := s.requestAndNode(p, name)
	if err != nil {
		return time.Time{}, err
	}
	return placement.LatestStart(r, n.placement(p)), nil
}

func (s Snapshot) requestAndNode(p Pod, name string) (placement.Request, Node, error) {
	r, err := s.Request(p)
	if err != nil {
		return r, Node{}, err
	}
	i := slices.IndexFunc(s.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return r, Node{}, fmt.Errorf("node %s is not in the snapshot", name)
	}
	return r, s.Nodes[i], nil
}

// unplaced is the state as if a pod with claims that is on a node were not: its claims,
// but for those that other pods have too, have no devices.
func (s Snapshot) unplaced(p Pod) (Snapshot, Pod) {
	if len(p.Claims) == 0 {
		return s, p
	}
	at := slices.IndexFunc(s.Nodes, func(n Node) bool { return slices.ContainsFunc(n.Pods, p.Same) })
	if at < 0 {
		return s, p
	}
	s.Nodes = slices.Clone(s.Nodes)
	s.Nodes[at] = s.Nodes[at].leave(p)
	var others []string
	for _, d := range s.Nodes[at].Devices {
		others = append(others, d.Claim)
	}
	return s, p.allocated(false, others...)
}

// check has the order in which the scheduler asks: what the pod says of GPUs, cost
// and risk first, room next, and what any other pod is asked last.
func check(r placement.Request, p Pod, n Node, node placement.Node, spotSuits bool) *placement.Refusal {
	if refusal := placement.Check(r, node); refusal != nil {
		return refusal
	}
	if spotSuits {
		if refusal := placement.CheckWait(r, node); refusal != nil {
			return refusal
		}
	}
	if refusal := placement.CheckRoom(r, node); refusal != nil {
		return refusal
	}
	return checkFit(p, n)
}

// spotSuits says that spot nodes suit the pod, free or not: one with a deadline then
// waits for them as long as it can.
func (s Snapshot) spotSuits(r placement.Request, p Pod) bool {
	return placement.WaitsForSpot(r) && slices.ContainsFunc(s.Nodes, func(n Node) bool {
		n = n.Empty()
		return placement.SuitsWaiting(r, n.placement(p))
	})
}

// Place is the snapshot after a pod went to a node.
func (s Snapshot) Place(p Pod, node string) Snapshot {
	p = p.StartedAt(s.Time)
	s.Pending = slices.DeleteFunc(slices.Clone(s.Pending), p.Same)
	s.Nodes = slices.Clone(s.Nodes)
	for i, n := range s.Nodes {
		if n.Name != node {
			continue
		}
		if len(p.Claims) > 0 {
			s.Nodes[i].Devices = claims.Take(p.Claims, n.Devices)
			p = p.allocated(true)
		}
		if p.UsesGPUs() {
			s.Nodes[i].Pods = append(slices.Clone(n.Pods), p)
		}
		s.Nodes[i].Requested = add(n.Requested, p, +1)
	}
	return s
}

// At is the snapshot at a later time if nothing happens but that pods end when they
// are expected to. Pods whose end is not known stay, those that are late too.
func (s Snapshot) At(t time.Time) Snapshot {
	passed := t.Sub(s.Time)
	s.Nodes = slices.Clone(s.Nodes)
	for i, n := range s.Nodes {
		if len(n.HazardByAge) > 0 {
			n.Age.Duration += passed
		}
		n.Pods = nil
		var gone []Pod
		for _, p := range s.Nodes[i].Pods {
			if !p.ExpectedEnd.IsZero() && p.ExpectedEnd.After(s.Time) && !p.ExpectedEnd.After(t) {
				n.Requested = add(n.Requested, p, -1)
				gone = append(gone, p)
				continue
			}
			n.Pods = append(n.Pods, p)
		}
		for _, p := range gone {
			n = n.leave(p)
		}
		s.Nodes[i] = n
	}
	s.Time = t
	return s
}

// Without is the snapshot after pods, named by Key, have left their nodes.
func (s Snapshot) Without(keys ...string) Snapshot {
	s.Nodes = slices.Clone(s.Nodes)
	for i, n := range s.Nodes {
		n.Pods = nil
		var gone []Pod
		for _, p := range s.Nodes[i].Pods {
			if slices.Contains(keys, p.Key()) {
				n.Requested = add(n.Requested, p, -1)
				gone = append(gone, p)
				continue
			}
			n.Pods = append(n.Pods, p)
		}
		for _, p := range gone {
			n = n.leave(p)
		}
		s.Nodes[i] = n
	}
	return s
}
