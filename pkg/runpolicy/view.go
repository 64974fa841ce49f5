// SPDX-License-Identifier: Apache-2.0

package runpolicy

import (
	"fmt"
	"time"
)

// Capacity is what kind of instance a run is on.
type Capacity int

// Kinds of capacity. Idle is waiting: nothing runs and nothing is paid.
const (
	Idle Capacity = iota
	Spot
	OnDemand
)

// String is the capacity as people write it.
func (c Capacity) String() string {
	switch c {
	case Spot:
		return "spot"
	case OnDemand:
		return "on-demand"
	default:
		return "idle"
	}
}

// Placement is where a run is or should be. For Idle the zone means nothing.
type Placement struct {
	Capacity Capacity
	// Zone is an index into View.Zones.
	Zone int
}

// Job is what has to be done.
type Job struct {
	// Work is how long the run takes if never interrupted, Deadline the time from
	// the start by which it must be finished.
	Work, Deadline time.Duration
	// Restart is the time from an instance's start to the work going on.
	Restart time.Duration
	// Step is the time between two decisions.
	Step time.Duration
	// Checkpoint is the work between two checkpoints, which an interruption in
	// between loses; 0 when each interruption leaves time for one.
	Checkpoint time.Duration
	// MoveUSD is what it costs to take the run's data to another region.
	MoveUSD float64
	// Reserve is slack that is never spent: how late a decision may come into
	// effect in practice.
	Reserve time.Duration
}

// Check reports the field that makes a job meaningless.
func (j Job) Check() error {
	switch {
	case j.Work <= 0:
		return fmt.Errorf("field Work is %v; write how long the run takes, above 0", j.Work)
	case j.Deadline <= 0:
		return fmt.Errorf("field Deadline is %v; write the time by which it must be finished, above 0", j.Deadline)
	case j.Step <= 0:
		return fmt.Errorf("field Step is %v; write the time between two decisions, above 0", j.Step)
	case j.Restart < 0 || j.Reserve < 0:
		return fmt.Errorf("fields Restart and Reserve are %v and %v; write 0 or more", j.Restart, j.Reserve)
	case !(j.MoveUSD >= 0):
		return fmt.Errorf("field MoveUSD is %v; write 0 or more", j.MoveUSD)
	}
	return nil
}

// Zone is what can be seen of a zone now.
type Zone struct {
	Name, Region string
	// SpotUp is whether spot capacity can be had (and is kept) until the next
	// decision.
	SpotUp bool
	// SpotUSDPerHour and OnDemandUSDPerHour are today's prices.
	SpotUSDPerHour, OnDemandUSDPerHour float64
}

// View is all that a policy sees when it decides: nothing of the future.
type View struct {
	// Elapsed is the time since the start, TimeLeft to the deadline.
	Elapsed, TimeLeft time.Duration
	// WorkLeft is what is still to be done if nothing is lost from here on, AtRisk
	// the part of what is done that an interruption now would lose.
	WorkLeft, AtRisk time.Duration
	// Current is what runs now; after an interruption it is Idle.
	Current Placement
	// RestartLeft is what is left of the current instance's start.
	RestartLeft time.Duration
	// Data is the zone with the newest checkpoint; -1 before the first start.
	Data  int
	Zones []Zone
}

// dataAfter is the zone with the newest checkpoint once the run went on at a placement.
func (v View) dataAfter(next Placement) int {
	if next.Capacity == Idle {
		return v.Data
	}
	return next.Zone
}

// Policy decides where a run goes on. It is asked once per step, in order.
type Policy interface {
	Decide(View) Placement
}
