// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"time"

	"github.com/spotbench/spotbench/pkg/runpolicy"
)

// onDemandZone is where on-demand capacity is cheapest with the data's way there.
func onDemandZone(job runpolicy.Job, v runpolicy.View) int {
	best, bestCost := 0, 0.0
	for i, z := range v.Zones {
		cost := z.OnDemandUSDPerHour * (v.WorkLeft + job.Restart).Hours()
		if v.Data >= 0 && v.Zones[v.Data].Region != z.Region {
			cost += job.MoveUSD
		}
		if i == 0 || cost < bestCost || cost == bestCost && i == v.Data {
			best, bestCost = i, cost
		}
	}
	return best
}

// AlwaysOnDemand never uses spot capacity.
type AlwaysOnDemand struct{ Job runpolicy.Job }

// Decide stays on demand.
func (p AlwaysOnDemand) Decide(v runpolicy.View) runpolicy.Placement {
	if v.Current.Capacity == runpolicy.OnDemand {
		return v.Current
	}
	return runpolicy.Placement{Capacity: runpolicy.OnDemand, Zone: onDemandZone(p.Job, v)}
}

// Greedy runs on the cheapest spot capacity there is, waits when there is none,
// and goes on demand for good when the time left no longer allows waiting.
type Greedy struct{ Job runpolicy.Job }

// Decide takes spot capacity while the deadline allows.
func (p Greedy) Decide(v runpolicy.View) runpolicy.Placement {
	if v.Current.Capacity == runpolicy.OnDemand {
		return v.Current
	}
	step := p.Job.Step
	late := roundUp(v.WorkLeft+v.AtRisk+p.Job.Restart, step) >= v.TimeLeft.Truncate(step)
	if v.Current.Capacity == runpolicy.Spot && (!late || v.RestartLeft == 0) {
		return v.Current
	}
	if late {
		return runpolicy.Placement{Capacity: runpolicy.OnDemand, Zone: onDemandZone(p.Job, v)}
	}
	if z := cheapest(v.Zones, ""); z >= 0 {
		return runpolicy.Placement{Capacity: runpolicy.Spot, Zone: z}
	}
	return runpolicy.Placement{}
}

// cheapest is the zone with the cheapest spot capacity, in another region than
// avoid if there is any; -1 when there is none.
func cheapest(zones []runpolicy.Zone, avoid string) int {
	best := -1
	for i, z := range zones {
		if z.SpotUp && (best < 0 ||
			zones[best].Region == avoid && z.Region != avoid ||
			(zones[best].Region == avoid) == (z.Region == avoid) && z.SpotUSDPerHour < zones[best].SpotUSDPerHour) {
			best = i
		}
	}
	return best
}

func roundUp(d, step time.Duration) time.Duration {
	return (d + step - 1).Truncate(step)
}

// UniformProgress is the policy of "Can't Be Late" (NSDI 2024): it keeps the work
// done in proportion to the time gone, on spot capacity where there is any and on
// demand when behind. With several zones it fails over eagerly: the cheapest zone
// outside the region that was just lost.
type UniformProgress struct {
	Job runpolicy.Job
	// last is the region of the last instance.
	last string
}

// Decide keeps progress uniform.
func (p *UniformProgress) Decide(v runpolicy.View) runpolicy.Placement {
	if v.Data >= 0 {
		p.last = v.Zones[v.Data].Region
	}
	current := v.Current.Capacity
	spot := runpolicy.Placement{Capacity: runpolicy.Spot, Zone: v.Current.Zone}
	if current != runpolicy.Spot {
		spot.Zone = cheapest(v.Zones, p.last)
	}
	onDemand := v.Current
	if current != runpolicy.OnDemand {
		onDemand = runpolicy.Placement{Capacity: runpolicy.OnDemand, Zone: max(v.Data, 0)}
	}
	switch p.request(v, current, spot.Zone >= 0) {
	case runpolicy.Spot:
		return spot
	case runpolicy.OnDemand:
		return onDemand
	default:
		return runpolicy.Placement{}
	}
}

func (p *UniformProgress) request(v runpolicy.View, current runpolicy.Capacity, hasSpot bool) runpolicy.Capacity {
	work, deadline, d, step := p.Job.Work.Seconds(), p.Job.Deadline.Seconds(), p.Job.Restart, p.Job.Step
	done := (p.Job.Work - v.WorkLeft).Seconds()
	uniform := func(at time.Duration) float64 { return at.Seconds() * work / deadline }
	left := v.TimeLeft.Truncate(step)

	want := runpolicy.Idle
	switch {
	case hasSpot:
		want = runpolicy.Spot
	case done < uniform(v.Elapsed):
		want = runpolicy.OnDemand
	}
	if current == runpolicy.OnDemand && (!hasSpot || done <= uniform(v.Elapsed+2*d)) {
		want = runpolicy.OnDemand
	}
	if current != runpolicy.Spot && roundUp(v.WorkLeft+2*d, step) >= left {
		want = runpolicy.OnDemand
	}
	if roundUp(v.WorkLeft+v.AtRisk+d, step) >= left {
		want = runpolicy.OnDemand
		if current == runpolicy.Spot && v.RestartLeft == 0 {
			want = runpolicy.Spot
		}
	}
	return want
}
