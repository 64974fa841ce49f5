// SPDX-License-Identifier: Apache-2.0

package agent

import "time"

// Plan divides the time between a notice and the end of the machine. It is pure:
// every method is a function of the moments it is given.
type Plan struct {
	// Deadline is when the machine may be gone.
	Deadline time.Time
	// Grace is the pod's own terminationGracePeriodSeconds.
	Grace time.Duration
}

const (
	// finalSave is kept for the last checkpoint, after the containers have stopped.
	finalSave = 5 * time.Second
	// leastAsk and mostAsk bound the time that the API server gets for one eviction.
	leastAsk, mostAsk = 2 * time.Second, 5 * time.Second
	// leastGrace is what a workload is given to flush, however late it is.
	leastGrace = 1 * time.Second
)

// PrepareUntil bounds the time the workload may take to make its state consistent:
// a quarter of what is left, so that the checkpoint itself always gets most.
func (p Plan) PrepareUntil(now time.Time) time.Time {
	return now.Add(max(0, p.Deadline.Sub(now)/4))
}

// SaveUntil bounds the first checkpoint. The pod must be told to stop early enough
// to have half of what is left, or its grace period if that is shorter.
func (p Plan) SaveUntil(now time.Time) time.Time {
	left := p.Deadline.Sub(now)
	return p.Deadline.Add(-min(p.Grace+finalSave, max(0, left/2)))
}

// GraceAt is the grace period the pod gets when it is told to stop at now: its own,
// cut so that the last checkpoint still fits before the deadline.
func (p Plan) GraceAt(now time.Time) time.Duration {
	return max(leastGrace, min(p.Grace, p.Deadline.Sub(now)-finalSave))
}

// MustStop says that there is no more time to ask for an eviction: a budget that
// refuses it must not eat the grace period.
func (p Plan) MustStop(now time.Time) bool {
	return !now.Before(p.Deadline.Add(-p.Grace - finalSave))
}

// AskUntil is when an eviction that is asked for at now is given up: before the pod must
// be told to stop, so that it can be by other means.
func (p Plan) AskUntil(now time.Time) time.Time {
	return now.Add(min(mostAsk, max(leastAsk, p.Deadline.Add(-p.Grace-finalSave).Sub(now))))
}
