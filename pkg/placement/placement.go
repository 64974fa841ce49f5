// SPDX-License-Identifier: Apache-2.0

// Package placement decides where a benchmark pod should run: which nodes it may
// use, each refusal with its reason, and one total order over those.
//
// It is pure: no client, no clock, no I/O. The same code serves the scheduler, a
// replay of a trace and an explanation of a decision.
//
// # The order
//
// A node comes before another when, at the first of these that differs,
//
//  1. no interruption there can make a run miss its deadline that on demand would
//     meet (Estimate.Overrun);
//  2. its GPU model is earlier in the pod's list: the list is lexicographically
//     first, so a preferred model is taken whatever it costs, and money decides
//     only among nodes of the same model (a pod that lists none has no preference,
//     and one that cares about money alone lists none or gives memory instead);
//  3. its price is known, and the other's is not;
//  4. the expected cost of finishing there is lower, with what the pod takes there
//     from the pods to come (package packing), in GPUs for as long as it runs, each
//     GPU-hour at Assumptions.GPUHourUSD; between nodes without a price, the expected
//     time with the same in hours;
//  5. it takes less from the pods to come;
//  6. the expected time, then the risk of an interruption, is lower;
//  7. its name sorts first.
//
// Costs are compared at full precision and nothing is random, so the same input
// in any order gives the same order.
//
// A Fleet holds the nodes between decisions and looks again only at what changed.
package placement

import (
	"time"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/risk"
)

// Node is a candidate: what is known of it when the decision is made. Its GPUs are as
// the pod in question finds them: to one that asks for MIG slices or for shares of
// GPUs these are the node's GPUs, and their number is that of the slices or shares.
type Node struct {
	Name string
	// GPUs is what its labels say; HasGPUs is false for a node without any.
	GPUs    gpu.Node
	HasGPUs bool
	Pool    gpu.Pool
	// TotalGPUs is how many the kubelet offers, FreeGPUs how many of them no pod has.
	TotalGPUs, FreeGPUs int
	// USDPerHour is the price of the whole node, OnDemandUSDPerHour of the same node
	// on demand; 0 when not known.
	USDPerHour, OnDemandUSDPerHour float64
	// Hazard is that of its pool. Where it is known how the hazard changes with a
	// machine's age, Ages has it, and Age is how long this one has run.
	Hazard risk.Hazard
	Ages   *risk.ByAge
	Age    time.Duration
	// Notice is why the node is about to go away, "" when it is not.
	Notice string
	// GPUPods is how many pods have GPUs of the node, IsolatedPods how many of these
	// asked to be alone.
	GPUPods, IsolatedPods int
	// Opportunity is what the pod in question would take there from the pods to come.
	Opportunity Opportunity
}

// Equal says whether all is the same that is known of two nodes.
func (n Node) Equal(other Node) bool {
	if (n.Ages == nil) != (other.Ages == nil) || n.Ages != nil && *n.Ages != *other.Ages {
		return false
	}
	n.Ages, other.Ages = nil, nil
	return n == other
}

// Opportunity is what a placement takes from the pods to come.
type Opportunity struct {
	// GPUs is how many they have less for it, lost to fragmentation or to scarcity, for
	// as long as the pod runs (packing.Cost, in whole steps).
	GPUs float64
	// Leaning orders nodes that take the same, less first (packing.Scored.Tie).
	Leaning int
}

// hazardOver is the constant hazard that gives the node the same probability of an
// interruption within a time as its own.
func (n Node) hazardOver(d time.Duration) risk.Hazard {
	if n.Ages == nil || d <= 0 {
		return n.Hazard
	}
	return risk.Hazard(n.Ages.Cumulative(n.Age, d) / d.Hours())
}

// share is the part of the node that so many of its GPUs are, at most all of it.
func (n Node) share(gpus int) float64 {
	switch {
	case n.GPUs.Share > 0:
		return min(1, float64(gpus)*n.GPUs.Share)
	case n.TotalGPUs > 0:
		return min(1, float64(gpus)/float64(n.TotalGPUs))
	}
	return 0
}

// Request is what is to be placed.
type Request struct {
	Spec benchspec.Spec
	// GPUs is how many the pod asks for, Resource what kind of them.
	GPUs     int
	Resource gpu.Resource
	// CPUMilli and MemoryBytes are what it asks for besides.
	CPUMilli, MemoryBytes int64
	Now                   time.Time
	// Assumptions stand in for what the pod does not say.
	Assumptions Assumptions
}

// Assumptions are what is reckoned with where neither pod nor node tells.
type Assumptions struct {
	// ExpectedDuration of pods that do not say.
	ExpectedDuration time.Duration
	// CheckpointCost is how long one checkpoint holds up a run.
	CheckpointCost time.Duration
	// RestartCost is the time from an interruption to the run going on elsewhere.
	RestartCost time.Duration
	// NoticeSaves is the probability that an interruption comes with a notice early
	// enough for a checkpoint.
	NoticeSaves float64
	// DeadlineMargin is how much earlier than needed a pod with a deadline starts on
	// demand: for pulling images, starting up, and an estimate that was too low.
	DeadlineMargin time.Duration
	// GPUHourUSD is what a GPU-hour taken from the pods to come counts for beside the
	// expected cost; with 0 it decides only between nodes that cost the same.
	GPUHourUSD float64
}

// work is the work left, assumed when the pod does not say.
func (r *Request) work() time.Duration {
	if r.Spec.ExpectedDuration > 0 {
		return r.Spec.ExpectedDuration
	}
	return r.Assumptions.ExpectedDuration
}

// Estimate is what finishing on a node is expected to take and cost.
type Estimate struct {
	// Risk is the probability of an interruption over the work left.
	Risk float64
	// Hours is the expected time to finish; +Inf when it never would.
	Hours float64
	// Overrun is by how much a run with a deadline would miss it if this spot node were
	// taken back at the worst moment and the run went on on demand; 0 when it would make
	// it, and for runs that have no deadline or may not run on demand.
	Overrun time.Duration
	// USDPerHour is the price of the pod's share of the node; 0 when not known.
	USDPerHour, OnDemandUSDPerHour float64
	// CostUSD is Hours at USDPerHour; OnDemandCostUSD is the undisturbed work at
	// OnDemandUSDPerHour. 0 when the price is not known.
	CostUSD, OnDemandCostUSD float64
}

// PriceKnown says whether the costs mean anything.
func (e Estimate) PriceKnown() bool { return e.USDPerHour > 0 }

// Reckon estimates what finishing on a node takes and costs. The pod pays for the
// share of the node's GPUs it asks for: for a MIG slice that of its compute slices in
// those of all cards (1g.10gb of eight A100: 1/56), for a share of a card that of all
// shares.
func Reckon(r Request, n Node) Estimate {
	run := r.run()
	hazard := n.hazardOver(run.Work)
	e := Estimate{Risk: hazard.Interruption(run.Work), Hours: risk.ExpectedHours(hazard, run), Overrun: overrun(r, n, run, hazard)}
	share := n.share(r.GPUs)
	e.USDPerHour = n.USDPerHour * share
	e.OnDemandUSDPerHour = n.OnDemandUSDPerHour * share
	e.CostUSD = e.Hours * e.USDPerHour
	if e.USDPerHour == 0 {
		e.CostUSD = 0 // and not Inf·0
	}
	e.OnDemandCostUSD = run.Work.Hours() * e.OnDemandUSDPerHour
	return e
}

// run is what is to be finished, as package risk reckons with it.
func (r Request) run() risk.Run {
	run := risk.Run{
		Work:           r.work(),
		Resumable:      r.Spec.Resumable(),
		CheckpointCost: r.Assumptions.CheckpointCost,
		NoticeSaves:    r.Assumptions.NoticeSaves,
		Restart:        r.Assumptions.RestartCost,
	}
	if !r.Spec.CheckpointInterval.Auto {
		run.Interval = r.Spec.CheckpointInterval.Every
	}
	return run
}

// InTime is the probability, from 0 to 1, that a run that starts on a node now meets its
// deadline, if it goes on on capacity like it whenever it is interrupted; ok is false for
// one without a deadline. It takes milliseconds: it is for telling people, not for ranking.
func InTime(r Request, n Node) (probability float64, ok bool) {
	if r.Spec.Deadline.IsZero() {
		return 0, false
	}
	run, left := r.run(), r.Spec.Deadline.Sub(r.Now)
	if run.Work > left {
		return 0, true
	}
	return risk.Foresee(n.hazardOver(run.Work), run, left).Probability(left), true
}
