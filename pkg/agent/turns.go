// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"slices"
	"sync"
	"time"
)

// savesAtOnce is how many pods are saved at once on a notice. Were it all of them, they
// would share the bandwidth, and be too late together where some could be in time.
const savesAtOnce = 16

// turns decides who is saved next: the pod with the most work at stake.
type turns struct {
	mu      sync.Mutex
	free    int
	waiting []*waiter
}

type waiter struct {
	stake time.Duration
	turn  chan struct{} // closed when it is this one's turn
}

func newTurns() *turns { return &turns{free: savesAtOnce} }

// acquire waits for a turn, which release gives back.
func (t *turns) acquire(ctx context.Context, stake time.Duration) error {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return nil
	}
	w := &waiter{stake: stake, turn: make(chan struct{})}
	t.waiting = append(t.waiting, w)
	t.mu.Unlock()
	select {
	case <-w.turn:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.waiting, w); i >= 0 {
		t.waiting = slices.Delete(t.waiting, i, i+1)
	} else {
		t.next() // it was given the turn at this moment
	}
	return context.Cause(ctx)
}

func (t *turns) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next()
}

// next gives a turn to who has most at stake.
func (t *turns) next() {
	if len(t.waiting) == 0 {
		t.free++
		return
	}
	most := 0
	for i, w := range t.waiting {
		if w.stake > t.waiting[most].stake {
			most = i
		}
	}
	close(t.waiting[most].turn)
	t.waiting = slices.Delete(t.waiting, most, most+1)
}
