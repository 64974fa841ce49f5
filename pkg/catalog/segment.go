// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"errors"
	"fmt"
	"time"
)

// Segment is one pod's stretch of a run: what ran where, from when to when.
type Segment struct {
	PodUID             string    `json:"podUID,omitempty" readOnly:"true" doc:"UID of the pod"`
	Node               string    `json:"node,omitempty" maxLength:"253" doc:"Node of the pod"`
	GPUModel           string    `json:"gpuModel,omitempty" maxLength:"128" doc:"Model of the GPUs, canonical"`
	GPUUUIDs           []string  `json:"gpuUUIDs,omitempty" nullable:"false" maxItems:"1024" doc:"UUIDs of the GPUs the pod had"`
	CapacityType       string    `json:"capacityType,omitempty" enum:"spot,on-demand" doc:"How the node was bought"`
	Region             string    `json:"region,omitempty" maxLength:"128"`
	Zone               string    `json:"zone,omitempty" maxLength:"128"`
	InstanceType       string    `json:"instanceType,omitempty" maxLength:"128"`
	USDPerHour         float64   `json:"usdPerHour,omitempty" minimum:"0" maximum:"1000000" doc:"Price of the pod's share of the node, USD per hour"`
	OnDemandUSDPerHour float64   `json:"onDemandUSDPerHour,omitempty" minimum:"0" maximum:"1000000" doc:"The same share on demand, USD per hour"`
	StartedAt          time.Time `json:"startedAt,omitzero" doc:"When the pod's containers started"`
	EndedAt            time.Time `json:"endedAt,omitzero" doc:"When they ended; absent while they run"`
	RestoredGeneration int64     `json:"restoredGeneration,omitempty" minimum:"0" doc:"Generation of the checkpoint it continued from; absent for a fresh start"`
}

// Validate says what is wrong with the segment.
func (s Segment) Validate() error {
	var errs []error
	errs = append(errs, validCapacity(s.CapacityType), validPrice("usdPerHour", s.USDPerHour), validPrice("onDemandUSDPerHour", s.OnDemandUSDPerHour),
		inOrder("startedAt", s.StartedAt, "endedAt", s.EndedAt))
	if s.RestoredGeneration < 0 {
		errs = append(errs, fmt.Errorf("restoredGeneration %d is negative; leave it out for a fresh start", s.RestoredGeneration))
	}
	return errors.Join(errs...)
}

// Merge is the segment after an update; fields that the update does not have keep
// their value.
func (s Segment) Merge(update Segment) Segment {
	set(&s.Node, update.Node, false)
	set(&s.GPUModel, update.GPUModel, false)
	if len(update.GPUUUIDs) > 0 {
		s.GPUUUIDs = update.GPUUUIDs
	}
	set(&s.CapacityType, update.CapacityType, false)
	set(&s.Region, update.Region, false)
	set(&s.Zone, update.Zone, false)
	set(&s.InstanceType, update.InstanceType, false)
	set(&s.USDPerHour, update.USDPerHour, false)
	set(&s.OnDemandUSDPerHour, update.OnDemandUSDPerHour, false)
	set(&s.StartedAt, update.StartedAt, false)
	set(&s.EndedAt, update.EndedAt, false)
	set(&s.RestoredGeneration, update.RestoredGeneration, false)
	return s
}

// Duration is how long the segment lasted; one that still runs lasts until now.
func (s Segment) Duration(now time.Time) time.Duration {
	end := s.EndedAt
	if end.IsZero() {
		end = now
	}
	if s.StartedAt.IsZero() || end.Before(s.StartedAt) {
		return 0
	}
	return end.Sub(s.StartedAt)
}

// Cost is what a run's segments cost in USD, and what the same work costs on demand,
// reckoned as a report on savings does: they add up to its lines. Segments that still
// run are counted until now. known is false when a segment that took time lacks a
// price, so that a sum is too low.
func Cost(segments []Segment, interruptions []Interruption, now time.Time) (usd, onDemandUSD float64, known bool) {
	items := make([]Spending, len(segments))
	for n, s := range segments {
		items[n].Segment = s
		for _, i := range interruptions {
			if i.PodUID == s.PodUID && i.WorkLostSeconds != nil {
				items[n].WorkLostSeconds += *i.WorkLostSeconds
			}
		}
	}
	total := Save(items, SavingsQuery{By: ByRun}, now).Total
	return total.PaidUSD, total.OnDemandUSD, total.UnpricedHours+total.UncomparedHours == 0
}
