// SPDX-License-Identifier: Apache-2.0

// Package replay plays a policy against a recording of spot capacity.
//
// Time goes in the recording's ticks. At the start of a tick the policy sees what
// is available during it and says where to run; an instance whose spot capacity is
// gone was interrupted. A start takes the restart time, during which the instance
// is paid and no work is done. Whole ticks are paid, at the price of their start.
package replay

import (
	"fmt"
	"math"
	"time"

	"github.com/spotbench/spotbench/bench/internal/trace"
	"github.com/spotbench/spotbench/pkg/runpolicy"
)

// Setting is what is replayed.
type Setting struct {
	Job    runpolicy.Job
	Traces []trace.Trace
	// OnDemandUSDPerHour is by trace.
	OnDemandUSDPerHour []float64
}

// Tick is one tick of a schedule.
type Tick struct {
	Placement runpolicy.Placement
	// Interrupted is whether the tick began with an interruption.
	Interrupted bool
}

// Result is what came of it.
type Result struct {
	CostUSD       float64
	Missed        bool
	Finish        time.Duration
	Interruptions int
	Moves         int
	// Lost is work that had to be done again, Restarting time paid for starts.
	Lost, Restarting time.Duration
	OnDemand         time.Duration
	Schedule         []Tick
}

// First is the tick at which a window begins: the first that does not start
// before it. A hundredth of a tick is forgiven, because starts are published in
// hours with four decimals, rounded up as often as down.
func First(start, gap time.Duration) int {
	return int(math.Ceil(start.Seconds()/gap.Seconds() - 0.01))
}

// Fits is whether the recording lasts from the start to the deadline.
func (s *Setting) Fits(start time.Duration) bool {
	for _, t := range s.Traces {
		if First(start, t.Gap)+int(math.Ceil(s.Job.Deadline.Seconds()/t.Gap.Seconds())) > len(t.Up) {
			return false
		}
	}
	return true
}

// Zones is what can be seen at a tick of the recording.
func (s *Setting) Zones(tick int) []runpolicy.Zone {
	zones := make([]runpolicy.Zone, len(s.Traces))
	for i, t := range s.Traces {
		zones[i] = runpolicy.Zone{Name: t.Zone, Region: t.Region, SpotUp: t.Up[tick],
			SpotUSDPerHour: t.SpotUSDPerHour[tick], OnDemandUSDPerHour: s.OnDemandUSDPerHour[i]}
	}
	return zones
}

// Run plays a policy from the start of a window to the end of the work, which may
// be after the deadline, or to the end of the recording.
func Run(s *Setting, policy runpolicy.Policy, start time.Duration) (Result, error) {
	gap := s.Job.Step
	first := First(start, gap)
	var r Result
	view := runpolicy.View{TimeLeft: s.Job.Deadline, WorkLeft: s.Job.Work, Data: -1}
	for tick := first; view.WorkLeft > 0; tick++ {
		if tick >= len(s.Traces[0].Up) {
			r.Missed = true
			return r, nil
		}
		view.Elapsed = time.Duration(tick-first) * gap
		view.TimeLeft = s.Job.Deadline - view.Elapsed
		view.Zones = s.Zones(tick)
		interrupted := view.Current.Capacity == runpolicy.Spot && !view.Zones[view.Current.Zone].SpotUp
		if interrupted {
			r.Interruptions++
			r.Lost += view.AtRisk
			view.WorkLeft += view.AtRisk
			view.AtRisk, view.RestartLeft = 0, 0
			view.Current = runpolicy.Placement{}
		}
		next := policy.Decide(view)
		if next.Capacity == runpolicy.Spot && !view.Zones[next.Zone].SpotUp {
			return r, fmt.Errorf("tick %d: the policy runs on spot capacity of %s, which has none", tick, view.Zones[next.Zone].Name)
		}
		r.Schedule = append(r.Schedule, Tick{Placement: next, Interrupted: interrupted})
		if next.Capacity == runpolicy.Idle {
			// Whoever stops by himself takes a checkpoint first.
			view.Current, view.RestartLeft, view.AtRisk = runpolicy.Placement{}, 0, 0
			continue
		}
		if next != view.Current {
			view.RestartLeft, view.AtRisk = s.Job.Restart, 0
			if view.Data >= 0 && view.Zones[view.Data].Region != view.Zones[next.Zone].Region {
				r.CostUSD += s.Job.MoveUSD
				r.Moves++
			}
		}
		view.Current, view.Data = next, next.Zone
		price := view.Zones[next.Zone].SpotUSDPerHour
		if next.Capacity == runpolicy.OnDemand {
			price = view.Zones[next.Zone].OnDemandUSDPerHour
			r.OnDemand += gap
		}
		r.CostUSD += price * gap.Hours()
		starting := min(gap, view.RestartLeft)
		r.Restarting += starting
		view.RestartLeft -= starting
		work := min(gap-starting, view.WorkLeft)
		view.WorkLeft -= work
		if s.Job.Checkpoint > 0 && next.Capacity == runpolicy.Spot {
			view.AtRisk = (view.AtRisk + work) % s.Job.Checkpoint
		}
		r.Finish = view.Elapsed + starting + work
	}
	r.Missed = r.Finish > s.Job.Deadline
	return r, nil
}
