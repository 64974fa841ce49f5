// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"errors"
	"fmt"
	"time"
)

// Interruption is one announcement that a run's node goes away, and what became
// of the run: each phase has the time at which it was finished.
type Interruption struct {
	NoticeID             string    `json:"noticeID,omitempty" readOnly:"true" doc:"Name of the notice, unique within the run"`
	RunKey               string    `json:"run,omitempty" readOnly:"true" doc:"Key of the run"`
	Kind                 string    `json:"kind,omitempty" maxLength:"64" doc:"What was announced" example:"spot"`
	Node                 string    `json:"node,omitempty" maxLength:"253" doc:"Node that goes away"`
	PodUID               string    `json:"podUID,omitempty" maxLength:"128" doc:"UID of the pod that was interrupted"`
	NoticeAt             time.Time `json:"noticeAt,omitzero" doc:"When the notice was seen"`
	TaintedAt            time.Time `json:"taintedAt,omitzero" doc:"When the node was closed to new pods"`
	CheckpointedAt       time.Time `json:"checkpointedAt,omitzero" doc:"When the checkpoint was whole in the store"`
	EvictedAt            time.Time `json:"evictedAt,omitzero" doc:"When the pod's eviction was accepted"`
	RestoredAt           time.Time `json:"restoredAt,omitzero" doc:"When the checkpoint was back in the next pod"`
	RunningAgainAt       time.Time `json:"runningAgainAt,omitzero" doc:"When the next pod's containers ran"`
	CheckpointGeneration int64     `json:"checkpointGeneration,omitempty" minimum:"0" doc:"Generation of the checkpoint"`
	CheckpointBytes      int64     `json:"checkpointBytes,omitempty" minimum:"0" doc:"Size of the checkpoint, bytes"`
	WorkLostSeconds      *float64  `json:"workLostSeconds,omitempty" minimum:"0" doc:"Work done since the state that was restored, seconds; absent until known"`
	Outcome              string    `json:"outcome,omitempty" maxLength:"256" doc:"What became of the run" example:"restored"`
}

// Validate says what is wrong with the interruption.
func (i Interruption) Validate() error {
	var errs []error
	if i.WorkLostSeconds != nil && !(*i.WorkLostSeconds >= 0) {
		errs = append(errs, fmt.Errorf("workLostSeconds %v is not a duration; give seconds from 0", *i.WorkLostSeconds))
	}
	if i.CheckpointBytes < 0 {
		errs = append(errs, fmt.Errorf("checkpointBytes %d is negative; give the size in bytes", i.CheckpointBytes))
	}
	if i.CheckpointGeneration < 0 {
		errs = append(errs, fmt.Errorf("checkpointGeneration %d is negative; generations count from 1", i.CheckpointGeneration))
	}
	return errors.Join(errs...)
}

// Merge is the interruption after an update; fields that the update does not have
// keep their value, so that each phase can be told as it happens, also by another
// node's agent.
func (i Interruption) Merge(update Interruption) Interruption {
	set(&i.Kind, update.Kind, false)
	set(&i.Node, update.Node, false)
	set(&i.PodUID, update.PodUID, false)
	set(&i.NoticeAt, update.NoticeAt, false)
	set(&i.TaintedAt, update.TaintedAt, false)
	set(&i.CheckpointedAt, update.CheckpointedAt, false)
	set(&i.EvictedAt, update.EvictedAt, false)
	set(&i.RestoredAt, update.RestoredAt, false)
	set(&i.RunningAgainAt, update.RunningAgainAt, false)
	set(&i.CheckpointGeneration, update.CheckpointGeneration, false)
	set(&i.CheckpointBytes, update.CheckpointBytes, false)
	if update.WorkLostSeconds != nil {
		i.WorkLostSeconds = update.WorkLostSeconds
	}
	set(&i.Outcome, update.Outcome, false)
	return i
}

// Phase is one step of an interruption and how long after the notice it was done.
type Phase struct {
	Name string
	At   time.Time
	// AfterNotice is zero when the notice's own time is not known.
	AfterNotice time.Duration
}

// Phases are the steps that were reached, in the order in which they belong.
func (i Interruption) Phases() []Phase {
	var phases []Phase
	for _, p := range []Phase{{Name: "tainted", At: i.TaintedAt}, {Name: "checkpointed", At: i.CheckpointedAt}, {Name: "evicted", At: i.EvictedAt},
		{Name: "restored", At: i.RestoredAt}, {Name: "running again", At: i.RunningAgainAt}} {
		if p.At.IsZero() {
			continue
		}
		if !i.NoticeAt.IsZero() {
			p.AfterNotice = p.At.Sub(i.NoticeAt)
		}
		phases = append(phases, p)
	}
	return phases
}
