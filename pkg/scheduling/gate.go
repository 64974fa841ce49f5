// SPDX-License-Identifier: Apache-2.0

package scheduling

import "sync"

// gate holds up whoever waits at it while as many are inside as it has room for. Those
// that enter are not held up: they are counted alone.
type gate struct {
	mu     sync.Mutex
	freed  *sync.Cond
	room   int
	inside int
}

func newGate(room int) *gate {
	g := &gate{room: room}
	g.freed = sync.NewCond(&g.mu)
	return g
}

func (g *gate) wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.inside >= g.room {
		g.freed.Wait()
	}
}

func (g *gate) enter() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside++
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	g.freed.Signal()
}
