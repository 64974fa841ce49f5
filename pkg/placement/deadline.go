// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"math"
	"time"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/risk"
)

// WaitsForSpot says whether a pod that may run on either capacity waits for spot
// rather than start on demand: it has a deadline that on demand still makes later.
func WaitsForSpot(r Request) bool {
	return !r.Spec.Deadline.IsZero() && (r.Spec.Capacity == benchspec.CapacityAny || r.Spec.Capacity == "")
}

// LatestStart is when the pod must start on a node to make its deadline, with the
// assumed margin.
func LatestStart(r Request, n Node) time.Time {
	return r.Spec.Deadline.Add(-r.Assumptions.DeadlineMargin).Add(-time.Duration(Reckon(r, n).Hours * float64(time.Hour)))
}

// CheckWait refuses an on-demand node to a pod that waits for spot, while a start
// there is not urgent yet. It is for where spot nodes suit the pod and are taken:
// the caller knows that.
func CheckWait(r Request, n Node) *Refusal {
	if !WaitsForSpot(r) || n.Pool.CapacityType == gpu.Spot {
		return nil
	}
	latest := LatestStart(r, n)
	if !r.Now.Before(latest) {
		return nil
	}
	return refuse(ReasonWaiting, "on-demand capacity; the pod waits for spot until %s, from when on demand just makes the deadline %s",
		latest.UTC().Format(time.RFC3339), r.Spec.Deadline.UTC().Format(time.RFC3339))
}

// SuitsWaiting says whether a pod that waits for spot waits for such a node: free, it
// would be taken before on demand.
func SuitsWaiting(r Request, n Node) bool {
	return n.Pool.CapacityType == gpu.Spot && Check(r, n) == nil && Reckon(r, n).Overrun == 0
}

// overrun is by how much a run would miss its deadline if a spot node were taken back at
// the worst moment, without a notice, and the run went on on demand from there: just
// before a checkpoint, or just before the end of a run that has none.
func overrun(r Request, n Node, run risk.Run, hazard risk.Hazard) time.Duration {
	if !WaitsForSpot(r) || n.Pool.CapacityType != gpu.Spot {
		return 0
	}
	lost, held := run.Work, time.Duration(0)
	if run.Resumable {
		interval := run.Interval
		if interval <= 0 {
			interval = risk.DalyInterval(hazard, run.CheckpointCost)
		}
		if interval < run.Work {
			lost = interval + run.CheckpointCost
			held = time.Duration(math.Ceil(run.Work.Seconds()/interval.Seconds())-1) * run.CheckpointCost
		}
	}
	return max(0, run.Work+held+lost+run.Restart-r.Spec.Deadline.Sub(r.Now))
}
