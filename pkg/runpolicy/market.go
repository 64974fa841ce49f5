// SPDX-License-Identifier: Apache-2.0

package runpolicy

import (
	"math"
	"slices"
	"time"

	"github.com/spotbench/spotbench/pkg/risk"
)

// Priors of spot capacity of which nothing was observed yet: once in eight hours it
// is lost, and once lost it is away for two hours on average. Both are heavy-tailed.
const (
	priorLoss   risk.Hazard = 1.0 / 8
	priorReturn risk.Hazard = 1.0 / 2
)

// firstAge is taken for the age of what is there, or away, at the first look.
const firstAge = 2 * time.Hour

// market is what was learned of the zones.
type market struct {
	up, down *risk.Lifetimes[int]
	// state and age are of each zone at the last look.
	state []bool
	age   []time.Duration
}

func newMarket() *market {
	return &market{
		up:   risk.NewLifetimes[int](risk.HeavyTailed(priorLoss)),
		down: risk.NewLifetimes[int](risk.HeavyTailed(priorReturn)),
	}
}

// observe takes in the zones of a new step; it tells whether a zone changed.
func (m *market) observe(zones []Zone, step time.Duration) (changed bool) {
	if m.state == nil {
		for _, z := range zones {
			m.state = append(m.state, z.SpotUp)
			m.age = append(m.age, firstAge)
		}
		return true
	}
	for i, z := range zones {
		lifetimes := m.down
		if m.state[i] {
			lifetimes = m.up
		}
		lifetimes.Observe(i, m.age[i], step, z.SpotUp != m.state[i], 1)
		m.age[i] += step
		if z.SpotUp != m.state[i] {
			m.state[i], m.age[i] = z.SpotUp, 0
			changed = true
		}
	}
	return changed
}

// class is a zone, or zones of about the same price, as the plan sees them.
type class struct {
	price        float64
	loss, coming risk.ByAge
	// away and back are the rates (per hour) at which the last of them goes away and
	// the first comes back.
	away, back float64
	// lasts is how long capacity taken there is expected to last, in hours.
	lasts float64
	move  float64 // USD to go there
	zones []int
}

// similar is the ratio of prices up to which zones are of one class.
const similar = 1.1

// classesBeyond is how many classes of other zones the plan tells apart.
const classesBeyond = 2

// classes are the home zone first, then the others that are cheaper than on-demand
// capacity, by price.
func (m *market) classes(zones []Zone, home int, moveUSD float64) []class {
	out := []class{{price: zones[home].SpotUSDPerHour, loss: m.up.Posterior(home).Hazard, coming: m.down.Posterior(home).Hazard, zones: []int{home}}}
	var others []int
	for i, z := range zones {
		if i != home && z.SpotUSDPerHour < z.OnDemandUSDPerHour {
			others = append(others, i)
		}
	}
	slices.SortStableFunc(others, func(a, b int) int {
		switch pa, pb := zones[a].SpotUSDPerHour, zones[b].SpotUSDPerHour; {
		case pa < pb:
			return -1
		case pa > pb:
			return 1
		default:
			return 0
		}
	})
	for len(others) > 0 && len(out) <= classesBeyond {
		limit := similar * zones[others[0]].SpotUSDPerHour
		n := 0
		for n < len(others) && zones[others[n]].SpotUSDPerHour <= limit {
			n++
		}
		out = append(out, m.merge(zones, home, others[:n], moveUSD))
		others = others[n:]
	}
	return out
}

// lasts is how long spot capacity of a zone is expected to last from now on, or once it
// is there again, in hours.
func (m *market) lasts(zone int) float64 {
	age := time.Duration(0)
	if m.state[zone] {
		age = m.age[zone]
	}
	return m.up.Posterior(zone).Hazard.MeanHours(age)
}

// gone is how long spot capacity of a zone is expected to stay away, in hours; 0 while
// it is there.
func (m *market) gone(zone int) float64 {
	if m.state[zone] {
		return 0
	}
	return m.down.Posterior(zone).Hazard.MeanHours(m.age[zone])
}

// next is the state of a zone (as in a plan) after a step in which nothing changes, the
// one that it changes to, and how probable that is.
func (m *market) next(zone int, step time.Duration) (same, changed int, change float64) {
	age := risk.Piece(m.age[zone])
	hazards := m.up
	same, changed = age, risk.Pieces
	if !m.state[zone] {
		hazards = m.down
		same, changed = risk.Pieces+age, 0
	}
	return same, changed, -math.Expm1(-hazards.Posterior(zone).Hazard[age] * step.Hours())
}

// merge sees several zones as one: there when any of them is.
func (m *market) merge(zones []Zone, home int, members []int, moveUSD float64) class {
	c := class{zones: members}
	n := float64(len(members))
	allAway := 1.0
	for _, i := range members {
		up, down := m.up.Posterior(i).Hazard, m.down.Posterior(i).Hazard
		for a := range up {
			c.loss[a] += up[a] / n
			c.coming[a] += down[a] / n
		}
		there, gone := up.MeanHours(0), down.MeanHours(0)
		c.lasts += m.lasts(i) / n
		allAway *= gone / (there + gone)
		c.back += 1 / gone
		c.price += zones[i].SpotUSDPerHour / n
		if zones[i].Region != zones[home].Region {
			c.move += moveUSD / n
		}
	}
	c.away = c.back * allAway / math.Max(1-allAway, 1e-9)
	return c
}
