// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

// shares divides memory and bandwidth among the Saves of a store. Each Save waits
// for at most one chunk's worth of each at a time, and who waits is served in order,
// so that Saves get equal parts, however many files they have.
type shares struct {
	slots *semaphore.Weighted
	limit *rate.Limiter // nil without a limit

	mu     sync.Mutex
	urgent int
	calm   chan struct{} // closed when no urgent Save is left
}

func newShares(bytesPerSecond int64) *shares {
	s := &shares{slots: semaphore.NewWeighted(parallel), calm: make(chan struct{})}
	close(s.calm)
	if bytesPerSecond > 0 {
		s.limit = rate.NewLimiter(rate.Limit(bytesPerSecond), maxChunk)
	}
	return s
}

// share is one Save's part. An urgent one is not bound by the limit, and the others
// wait for it.
type share struct {
	of                *shares
	urgent            bool
	memory, bandwidth chan struct{} // each holds the turn
}

func (s *shares) join(urgent bool) *share {
	if urgent {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.urgent++; s.urgent == 1 {
			s.calm = make(chan struct{})
		}
	}
	return &share{of: s, urgent: urgent, memory: make(chan struct{}, 1), bandwidth: make(chan struct{}, 1)}
}

func (p *share) leave() {
	if !p.urgent {
		return
	}
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	if p.of.urgent--; p.of.urgent == 0 {
		close(p.of.calm)
	}
}

// acquire waits for the memory of one chunk, which release gives back.
func (p *share) acquire(ctx context.Context) error {
	return turn(ctx, p.memory, func() error {
		if !p.urgent {
			p.of.mu.Lock()
			calm := p.of.calm
			p.of.mu.Unlock()
			select {
			case <-calm:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return p.of.slots.Acquire(ctx, 1)
	})
}

func (p *share) release() { p.of.slots.Release(1) }

// send waits until n bytes may be sent. If these cannot be before the deadline of ctx,
// it does not wait for that.
func (p *share) send(ctx context.Context, n int) error {
	if p.of.limit == nil || p.urgent {
		return nil
	}
	return turn(ctx, p.bandwidth, func() error {
		for n > 0 {
			part := min(n, p.of.limit.Burst())
			if err := p.of.limit.WaitN(ctx, part); err != nil {
				return fmt.Errorf("upload limit of %.0f bytes/s: %w", float64(p.of.limit.Limit()), err)
			}
			n -= part
		}
		return nil
	})
}

// turn calls do while nobody else has the turn.
func turn(ctx context.Context, token chan struct{}, do func() error) error {
	select {
	case token <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-token }()
	return do()
}
