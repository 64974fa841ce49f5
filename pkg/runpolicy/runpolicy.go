// SPDX-License-Identifier: Apache-2.0

package runpolicy

import (
	"math"
	"slices"
	"time"

	"github.com/spotbench/spotbench/pkg/risk"
)

// Planner is the policy.
type Planner struct {
	job    Job
	market *market
	// home is the zone with the data, or the one where it would best begin.
	home int
	plan *plan
	// planned is when and for what the plan was made.
	plannedAt   time.Duration
	plannedHome int
	stale       bool
}

// New makes the policy for one job.
func New(job Job) (*Planner, error) {
	if err := job.Check(); err != nil {
		return nil, err
	}
	return &Planner{job: job, market: newMarket()}, nil
}

// Learn takes in what was seen of the zones one step long before the run began: a
// market that was watched is known better than one that was not.
func (p *Planner) Learn(zones []Zone) { p.market.observe(zones, p.job.Step) }

// replan is how long a plan serves at most when something changed, as a part of
// the deadline.
const replan = 60

// Decide says where the run goes on for the next step.
func (p *Planner) Decide(v View) Placement {
	if p.market.observe(v.Zones, p.job.Step) {
		p.stale = true
	}
	fallback := p.onDemand(v)
	slack := v.TimeLeft - v.WorkLeft - v.AtRisk
	if slack < p.job.Restart+p.job.Reserve && v.Current.Capacity != OnDemand && !p.safe(v, v.Current) {
		return fallback
	}
	p.home = p.homeOf(v)
	if p.plan == nil || p.home != p.plannedHome || p.stale && v.Elapsed-p.plannedAt >= p.job.Deadline/replan {
		p.plan = newPlan(p.market.classes(v.Zones, p.home, p.job.MoveUSD), p.job,
			v.Zones[fallback.Zone].OnDemandUSDPerHour, v.TimeLeft, slack)
		p.plannedHome, p.plannedAt, p.stale = p.home, v.Elapsed, false
	}
	return p.choose(v, fallback)
}

// homeOf is the zone that the plan sees best, with its age: the one with the data while
// it has capacity. While it has none, it is the best zone that has and that the data can
// be taken to for nothing: whether to take what just came up must be weighed with its own
// age on both sides, else waiting looks better than it is, by what the average of a class
// has over this one. Before the first start it is the zone where, by price and by how long
// capacity lasts, it would best be.
func (p *Planner) homeOf(v View) int {
	if v.Data >= 0 && v.Zones[v.Data].SpotUp {
		return v.Data
	}
	best, least := max(v.Data, 0), math.Inf(1)
	for i, z := range v.Zones {
		if v.Data >= 0 && (!z.SpotUp || p.job.MoveUSD > 0 && z.Region != v.Zones[v.Data].Region) {
			continue
		}
		if cost := p.hourly(v, i); cost < least {
			best, least = i, cost
		}
	}
	return best
}

// hourly is the price of an hour of work on spot capacity of a zone, restarts
// counted, and the waits at the price of a restart's length.
func (p *Planner) hourly(v View, zone int) float64 {
	cost := v.Zones[zone].SpotUSDPerHour * (1 + p.job.Restart.Hours()/p.lasts(zone))
	if v.Data >= 0 && v.Zones[v.Data].Region != v.Zones[zone].Region {
		cost += p.job.MoveUSD / math.Max(v.WorkLeft.Hours(), p.job.Step.Hours())
	}
	if !p.market.state[zone] {
		cost += v.Zones[zone].OnDemandUSDPerHour * 0.1
	}
	return cost
}

// onDemand is where on-demand capacity is cheapest, the way of the data counted.
func (p *Planner) onDemand(v View) Placement {
	if v.Current.Capacity == OnDemand {
		return v.Current
	}
	best, least := 0, math.Inf(1)
	for i, z := range v.Zones {
		cost := z.OnDemandUSDPerHour * (v.WorkLeft + p.job.Restart).Hours()
		if v.Data >= 0 && v.Zones[v.Data].Region != z.Region {
			cost += p.job.MoveUSD
		}
		if cost < least || cost == least && i == v.Data {
			best, least = i, cost
		}
	}
	return Placement{Capacity: OnDemand, Zone: best}
}

// safe is whether on-demand capacity can still finish in time one step after this
// choice, whatever happens in between.
func (p *Planner) safe(v View, next Placement) bool {
	slack := v.TimeLeft - v.WorkLeft
	reserve := p.job.Restart + p.job.Reserve
	switch {
	case next.Capacity == OnDemand:
		return true
	case next.Capacity == Idle:
		return slack-p.job.Step >= reserve
	case next == v.Current:
		if p.job.Reserve == 0 && v.WorkLeft+v.RestartLeft <= min(p.job.Step, v.TimeLeft) {
			return true // done before anything can happen
		}
		atRisk := min(v.AtRisk+p.job.Step, p.job.Checkpoint)
		return slack-min(p.job.Step, v.RestartLeft)-atRisk >= reserve
	default:
		return slack-min(p.job.Step, p.job.Restart)-min(p.job.Step, p.job.Checkpoint) >= reserve
	}
}

// choose weighs what can be done now by the plan.
func (p *Planner) choose(v View, fallback Placement) Placement {
	best, least := fallback, math.Inf(1)
	consider := func(next Placement) {
		if !p.safe(v, next) {
			return
		}
		cost := p.cost(v, next)
		if p.job.MoveUSD > 0 && next.Capacity == Spot && v.Data >= 0 && v.Zones[next.Zone].Region != v.Zones[v.Data].Region {
			cost *= 1 + resolution
		}
		if cost < least {
			best, least = next, cost
		}
	}
	// What is going on comes first: it needs no reason to stay.
	if v.Current.Capacity != Idle {
		consider(v.Current)
	}
	consider(fallback)
	// Running spot capacity is not given up to wait: the plan knows the others only by
	// their average, which looks better than this one's age, and a start would be paid for it.
	if v.Current.Capacity != Spot || v.Zones[v.Current.Zone].SpotUSDPerHour >= v.Zones[fallback.Zone].OnDemandUSDPerHour {
		consider(Placement{})
	}
	for i, z := range v.Zones {
		next := Placement{Capacity: Spot, Zone: i}
		if z.SpotUp && z.SpotUSDPerHour < v.Zones[fallback.Zone].OnDemandUSDPerHour && p.worthwhile(v, next) {
			consider(next)
		}
	}
	return best
}

// resolution is how much less, as a part, a plan must say that it costs to pay for a move
// to another region: below it, the plan's grid and what it leaves out decide.
const resolution = 0.002

// worthwhile is whether to leave running spot capacity for other spot capacity can
// pay at all: what is saved while the new one lasts against the start and the move.
// The plan sees other zones too coarsely to be asked this.
func (p *Planner) worthwhile(v View, next Placement) bool {
	if v.Current.Capacity != Spot {
		return true
	}
	lasts := min(p.lasts(next.Zone), p.lasts(v.Current.Zone), v.WorkLeft.Hours())
	cost := v.Zones[next.Zone].SpotUSDPerHour * p.job.Restart.Hours()
	if v.Zones[v.Data].Region != v.Zones[next.Zone].Region {
		cost += p.job.MoveUSD
	}
	hourly := func(zone int) float64 {
		return v.Zones[zone].SpotUSDPerHour * (1 + p.job.Restart.Hours()/p.lasts(zone))
	}
	return (hourly(v.Current.Zone)-hourly(next.Zone))*lasts > margin*cost
}

// margin is by how much a voluntary change must pay: prices that differ now will
// not differ for ever.
const margin = 2

// lasts is how long spot capacity of a zone is expected to last, in hours.
func (p *Planner) lasts(zone int) float64 { return p.market.lasts(zone) }

// cost is the expected cost of finishing after a choice for the next step.
func (p *Planner) cost(v View, next Placement) float64 {
	step, work := p.job.Step.Hours(), v.WorkLeft.Hours()
	start := p.job.Restart.Hours()
	if next == v.Current {
		start = v.RestartLeft.Hours()
	}
	doing, price := waiting, 0.0
	switch next.Capacity {
	case Idle:
	case OnDemand:
		doing, price = onDemand, v.Zones[next.Zone].OnDemandUSDPerHour
	case Spot:
		doing, price = p.doingAt(next.Zone), v.Zones[next.Zone].SpotUSDPerHour
	}
	paid, extra := 0.0, 0.0
	if next.Capacity != Idle {
		work += start
		paid = price * min(step, work)
		work -= step
		if v.Data >= 0 && v.Zones[v.Data].Region != v.Zones[next.Zone].Region {
			paid += p.job.MoveUSD
		}
	}
	if work <= 0 {
		return paid
	}
	if data := v.dataAfter(next); doing < away && doing != atHome && data >= 0 && v.Zones[data].Region != v.Zones[p.home].Region {
		extra = p.job.MoveUSD // the plan takes the data to be at home
	}
	if doing >= away {
		// A zone is better or worse than the others of its class for as long as the run
		// stays there: until it is lost, or a cheaper home is back.
		c, lasts := p.plan.classes[classOf(doing)], p.lasts(next.Zone)
		stays := min(lasts, work)
		if v.Zones[p.home].SpotUSDPerHour < price {
			stays = min(stays, p.market.gone(p.home))
		}
		hourly := func(price, lasts float64) float64 { return price * (1 + p.job.Restart.Hours()/lasts) }
		extra = (hourly(price, lasts) - hourly(c.price, c.lasts)) * stays
	}
	left := v.TimeLeft.Hours() - step
	return paid + extra + p.expected(v, left, left-work, next, doing)
}

// doingAt is what running on spot capacity of a zone is in the plan.
func (p *Planner) doingAt(zone int) int {
	if zone == p.home {
		return atHome
	}
	for c := p.plan.beyond(); c > 0; c-- {
		if slices.Contains(p.plan.classes[c].zones, zone) {
			return away + c - 1
		}
	}
	return away + p.plan.beyond() - 1 // dearer than the classes that the plan tells apart
}

// expected is the plan's value one step later: over whether home, and the zone that the
// run is on, change in between, with the others as they are.
func (p *Planner) expected(v View, timeLeft, slack float64, next Placement, doing int) float64 {
	elsewhere := p.plan.beyond()
	for c := p.plan.beyond(); c > 0; c-- {
		for _, z := range p.plan.classes[c].zones {
			if v.Zones[z].SpotUp {
				elsewhere = c - 1
			}
		}
	}
	same, changed, change := p.market.next(p.home, p.job.Step)
	lost := 0.0
	if doing >= away {
		_, _, lost = p.market.next(next.Zone, p.job.Step)
	}
	value := func(home int) float64 {
		switch {
		case doing == atHome && home >= risk.Pieces:
			return p.plan.at(timeLeft, slack, home, elsewhere, waiting)
		case doing < away:
			return p.plan.at(timeLeft, slack, home, elsewhere, doing)
		}
		kept := p.plan.at(timeLeft, slack, home, elsewhere, doing)
		if elsewhere == doing-away {
			// Seen as coarsely as the plan sees waiting for this class: who knew more of
			// what is taken than of what is waited for would wait too long.
			kept = 0
			for other, q := range p.plan.taken[elsewhere] {
				kept += q * p.plan.at(timeLeft, slack, home, other, doing)
			}
		}
		return (1-lost)*kept + lost*p.plan.at(timeLeft, slack, home, elsewhere, waiting)
	}
	return (1-change)*value(same) + change*value(changed)
}

// at interpolates the plan in time and slack.
func (pl *plan) at(timeLeft, slack float64, home, elsewhere, doing int) float64 {
	place, state := pl.find(slack), pl.state(home, elsewhere, doing)
	if place.i < 0 {
		if doing == onDemand || slack >= pl.restart-1e-9 {
			return pl.onDemand * (timeLeft - slack)
		}
		return tooLate
	}
	k := timeLeft / pl.layer
	lo := min(int(k), pl.horizon()-1)
	value := func(k int) float64 {
		a := float64(pl.value[k][place.i][state])
		return a + place.w*(float64(pl.value[k][min(place.i+1, len(pl.slack)-1)][state])-a)
	}
	a := value(lo)
	return a + (k-float64(lo))*(value(lo+1)-a)
}
