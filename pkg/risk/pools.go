// SPDX-License-Identifier: Apache-2.0

package risk

import (
	"time"

	"github.com/spotbench/spotbench/pkg/gpu"
)

// Pools learns the hazards of pools from what is assumed of each. Pools of which
// the same is assumed learn from each other how the hazard changes with age.
type Pools struct {
	priors  Book
	learned map[Hazard]*Lifetimes[gpu.Pool]
}

// NewPools starts with what the book says.
func NewPools(priors Book) *Pools {
	return &Pools{priors: priors, learned: map[Hazard]*Lifetimes[gpu.Pool]{}}
}

// Of is the learner that a pool shares with those of the same prior.
func (p *Pools) Of(pool gpu.Pool) *Lifetimes[gpu.Pool] {
	h := p.priors.Lookup(pool).Hazard
	if p.learned[h] == nil {
		p.learned[h] = NewLifetimes[gpu.Pool](HeavyTailed(h))
	}
	return p.learned[h]
}

// Prior is what is assumed of a pool.
func (p *Pools) Prior(pool gpu.Pool) Evidence { return p.priors.Lookup(pool) }

// Decay forgets in all pools; see Lifetimes.Decay.
func (p *Pools) Decay(passed, halfLife time.Duration) {
	for _, l := range p.learned {
		l.Decay(passed, halfLife)
	}
}
