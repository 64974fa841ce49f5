// SPDX-License-Identifier: Apache-2.0

package interruption

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Sighting is a notice as one answer of the cloud has it.
type Sighting struct {
	// Key is what the cloud knows the notice by, among the answers to one question.
	Key    string
	Notice Notice
	// Begun says that the cloud has begun, whatever the deadline was.
	Begun bool
}

// Answer is what the cloud said to one question: all notices of that question that
// are in force.
type Answer struct {
	Question  string
	Sightings []Sighting
	// Explicit says that the cloud has named what is in force, so that a notice that
	// is missing is over. Otherwise (a 404, which a restarting service gives too) it
	// takes two answers in a row.
	Explicit bool
	// Partial says that some of the answer was not understood: what is missing may be
	// in that part.
	Partial bool
	// ClockAhead is how far the cloud's clock is ahead of this machine's. Deadlines are
	// said by the one and kept by the other.
	ClockAhead time.Duration
}

const (
	// doubtful is how many answers that are not explicit withdraw a notice, and how
	// many without a notice make a question quiet.
	doubtful = 2
	// settled is how long another deadline must stay the same before it is believed,
	// and moved is the least difference that matters. A service that makes the
	// deadline up anew for each answer never gives the same one for so long.
	settled = 5 * time.Second
	moved   = time.Minute
)

// Ledger knows which notices are in force, and turns answers into changes. It has
// no clock; it may be used from several goroutines. Make one with NewLedger.
type Ledger struct {
	mu        sync.Mutex
	questions map[string]*question
}

type question struct {
	held  map[string]*held
	clear int // answers in a row without a notice that takes the machine
}

// held is a notice in force.
type held struct {
	notice  Notice        // with its deadline by the cloud's clock
	ahead   time.Duration // of that clock, when the notice was seen first
	absent  int
	changes int // how often its deadline was set anew
	// Another deadline than the notice's, and since when it has been given.
	other      time.Time
	otherSince time.Time
}

// NewLedger makes the ledger of a source that asks these questions.
func NewLedger(questions ...string) *Ledger {
	l := &Ledger{questions: map[string]*question{}}
	for _, name := range questions {
		l.questions[name] = &question{held: map[string]*held{}}
	}
	return l
}

// Answered takes an answer in and calls emit for each change, never twice at once.
// The notice that is in force stays as it was first given. Only the deadline of
// planned work is followed when it settles on another moment: the old notice is
// withdrawn then and given anew. A reclaim's is not: a mock that makes it up anew
// each time must not make a new reclaim each time.
func (l *Ledger) Answered(now time.Time, answer Answer, emit func(Event)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.questions[answer.Question]
	seen, taking := map[string]bool{}, false
	for _, s := range answer.Sightings {
		if seen[s.Key] {
			continue // said twice in one answer
		}
		seen[s.Key] = true
		taking = taking || s.Notice.Kind.TakesMachine()
		h := q.held[s.Key]
		if h == nil {
			s.Notice.SeenAt = now
			h = &held{notice: s.Notice, ahead: answer.ClockAhead}
			q.held[s.Key] = h
			emit(h.event(false))
			continue
		}
		h.absent = 0
		if !h.rescheduled(now, s) {
			continue
		}
		emit(h.event(true))
		h.changes++
		s.Notice.SeenAt = now
		s.Notice.ID = fmt.Sprintf("%s-%d", s.Notice.ID, h.changes+1)
		if s.Begun {
			s.Notice.Deadline = time.Time{}
		}
		h.notice, h.ahead, h.other = s.Notice, answer.ClockAhead, time.Time{}
		emit(h.event(false))
	}
	if answer.Partial {
		q.clear = 0
		return
	}
	for _, key := range slices.Sorted(maps.Keys(q.held)) {
		h := q.held[key]
		if seen[key] {
			continue
		}
		if h.absent++; h.absent < doubtful && !answer.Explicit {
			taking = taking || h.notice.Kind.TakesMachine()
			continue
		}
		delete(q.held, key)
		emit(h.event(true))
	}
	if q.clear++; taking {
		q.clear = 0
	}
}

// event is the notice with its deadline by this machine's clock.
func (h *held) event(withdrawn bool) Event {
	return Event{Notice: h.local(), Withdrawn: withdrawn}
}

func (h *held) local() Notice {
	n := h.notice
	if !n.Deadline.IsZero() {
		n.Deadline = n.Deadline.Add(-h.ahead)
	}
	return n
}

// rescheduled reports whether the notice in force has got another deadline for good.
func (h *held) rescheduled(now time.Time, s Sighting) bool {
	n := s.Notice
	if s.Begun && h.local().Deadline.Sub(now) >= moved {
		return true // a neighbour that shares the event has let it go ahead
	}
	if n.Kind != KindMaintenance || n.Deadline.IsZero() || n.Deadline.Sub(h.notice.Deadline).Abs() < moved {
		h.other = time.Time{}
		return false
	}
	if !n.Deadline.Equal(h.other) {
		h.other, h.otherSince = n.Deadline, now
		return false
	}
	return now.Sub(h.otherSince) >= settled
}

// Failed says that a question got no answer: its notices stay in force, and nothing
// is known to be quiet.
func (l *Ledger) Failed(question string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.questions[question].clear = 0
}

// Quiet reports whether each question was answered, more than once in a row, with
// no notice that takes the machine.
func (l *Ledger) Quiet() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range l.questions {
		if q.clear < doubtful {
			return false
		}
	}
	return true
}
