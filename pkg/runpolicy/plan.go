// SPDX-License-Identifier: Apache-2.0

package runpolicy

import (
	"math"
	"time"

	"github.com/spotbench/spotbench/pkg/risk"
)

// The plan is the expected cost of finishing from every situation on, by dynamic
// programming backwards from the deadline. A situation is
//
//   - the time left, in layers of equal length;
//   - the slack: time left less work left. Running leaves it as it is, waiting
//     spends it, a start costs the restart time of it (as work added);
//   - whether home has spot capacity and since when (in pieces of age), and the cheapest
//     class of other zones that has some;
//   - what the run does: it is on spot at home, waits, is on demand, or is on spot
//     capacity of a class of other zones, from where it may come home again.

// pieces of age, of home up and down: 2·Pieces home states, up first.
const homeStates = 2 * risk.Pieces

// What the run is doing; from away on it is on spot capacity of class doing-away+1.
const (
	atHome = iota
	waiting
	onDemand
	away
)

type plan struct {
	// classes has home first.
	classes  []class
	onDemand float64 // USD per hour
	restart  float64 // hours
	layer    float64 // hours between layers
	slack    []float64

	// elsewhere[k][e][f] is the probability that from e being the cheapest class
	// elsewhere it is f one layer later, while the run is on class k (0: on none);
	// beyond() is "none". taken[e] is what is elsewhere once the run took class e.
	elsewhere [][][]float64
	taken     [][]float64
	// chance[x] are the next states of home in state x.
	chance [homeStates][]outcome
	// lost[k] is the probability that capacity of class k is lost within a layer.
	lost []float64
	// value[layer][slack][state]
	value [][][]float32

	waitTo, startTo []place // where slack leads: after waiting a layer, after a start
}

type outcome struct {
	state int
	p     float64
}

// place is between two points of the slack grid.
type place struct {
	i int // -1: below the grid
	w float64
}

const tooLate = 1e9

func (p *plan) beyond() int  { return len(p.classes) - 1 }
func (p *plan) doings() int  { return away + p.beyond() }
func (p *plan) states() int  { return homeStates * (p.beyond() + 1) * p.doings() }
func (p *plan) horizon() int { return len(p.value) - 1 }

func (p *plan) state(home, elsewhere, doing int) int {
	return (home*(p.beyond()+1)+elsewhere)*p.doings() + doing
}

// class that a doing is on, 0 for home and where it is on none.
func classOf(doing int) int { return max(0, doing-away+1) }

// newPlan solves from the deadline back to the time left.
func newPlan(classes []class, job Job, onDemandUSD float64, timeLeft, slack time.Duration) *plan {
	p := &plan{classes: classes, onDemand: onDemandUSD, restart: job.Restart.Hours()}
	if job.Checkpoint > 0 {
		p.restart += job.Checkpoint.Hours() / 2
	}
	p.layer = math.Max(job.Deadline.Hours()/layers, job.Step.Hours())
	n := int(math.Ceil(timeLeft.Hours()/p.layer)) + 1
	p.slackGrid(slack.Hours())
	p.chances()
	p.value = make([][][]float32, n+1)
	p.value[0] = p.end()
	for k := 1; k <= n; k++ {
		p.value[k] = p.solve(float64(k)*p.layer, p.value[k-1])
	}
	return p
}

// layers and slackPoints set the plan's resolution.
const (
	layers      = 200
	slackPoints = 40
)

// slackGrid is dense where slack is scarce: from one restart (less is too late for
// anything but on-demand capacity) in steps that grow.
func (p *plan) slackGrid(most float64) {
	span := math.Max(most-p.restart, p.layer) + p.layer
	for i := range slackPoints {
		x := float64(i) / (slackPoints - 1)
		p.slack = append(p.slack, p.restart+span*x*(0.25+0.75*x))
	}
	for _, s := range p.slack {
		p.waitTo = append(p.waitTo, p.find(s-p.layer))
		p.startTo = append(p.startTo, p.find(s-p.restart))
	}
}

func (p *plan) find(slack float64) place {
	if slack < p.slack[0]-1e-9 {
		return place{i: -1}
	}
	lo, hi := 0, len(p.slack)-1
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; p.slack[mid] <= slack {
			lo = mid
		} else {
			hi = mid
		}
	}
	return place{i: lo, w: math.Min((slack-p.slack[lo])/(p.slack[hi]-p.slack[lo]), 1)}
}

func (p *plan) chances() {
	for age := range risk.Pieces {
		p.chance[age] = p.aged(age, p.classes[0].loss[age], 0, risk.Pieces)
		p.chance[risk.Pieces+age] = p.aged(age, p.classes[0].coming[age], risk.Pieces, 0)
	}
	n := p.beyond()
	p.lost, p.taken = make([]float64, n+1), make([][]float64, n)
	there := make([]float64, n) // in the long run
	for k := range n {
		c := p.classes[k+1]
		there[k] = c.back / (c.back + c.away)
		p.lost[k+1] = -math.Expm1(-p.layer / c.lasts)
	}
	for on := range n + 1 {
		var rows [][]float64
		for e := range n + 1 {
			rows = append(rows, p.cheapest(func(k int) float64 {
				c := p.classes[k+1]
				switch {
				case k+1 == on && len(c.zones) == 1:
					return 0 // its only zone is the one that the run is on
				case k < e:
					return -math.Expm1(-c.back * p.layer)
				case k == e:
					return math.Exp(-c.away * p.layer)
				default:
					return there[k]
				}
			}))
		}
		p.elsewhere = append(p.elsewhere, rows)
	}
	for e := range n {
		p.taken[e] = p.cheapest(func(k int) float64 {
			switch {
			case k < e, k == e && len(p.classes[k+1].zones) == 1:
				return 0
			case k == e:
				return 1 - 1/float64(len(p.classes[k+1].zones))
			default:
				return there[k]
			}
		})
	}
}

// cheapest is how probable each class is the cheapest there is, when each is there with
// a probability of its own.
func (p *plan) cheapest(up func(k int) float64) []float64 {
	row, none := make([]float64, p.beyond()+1), 1.0
	for k := range p.beyond() {
		row[k] = none * up(k)
		none *= 1 - up(k)
	}
	row[p.beyond()] = none
	return row
}

// aged are the states one layer later: changed at the hazard, else in the next
// piece of age with the probability that fits its width.
func (p *plan) aged(age int, hazard float64, base, changed int) []outcome {
	change := -math.Expm1(-hazard * p.layer)
	out := []outcome{{changed, change}}
	older := math.Min(1, p.layer/risk.PieceWidth(age).Hours())
	if age == risk.Pieces-1 {
		older = 0
	}
	if older > 0 {
		out = append(out, outcome{base + age + 1, (1 - change) * older})
	}
	if older < 1 {
		out = append(out, outcome{base + age, (1 - change) * (1 - older)})
	}
	return out
}

// end is the deadline: all slack left means that the work is done.
func (p *plan) end() [][]float32 {
	v := make([][]float32, len(p.slack))
	for i := range v {
		v[i] = make([]float32, p.states())
	}
	return v
}

// solve is one layer, from the one after it.
func (p *plan) solve(timeLeft float64, next [][]float32) [][]float32 {
	n := len(p.slack)
	expected := make([][]float32, n) // by slack: the next layer's value after each doing
	for i := range n {
		expected[i] = p.expect(next[i])
	}
	v := make([][]float32, n)
	for i, slack := range p.slack {
		v[i] = make([]float32, p.states())
		if timeLeft-slack <= 1e-9 {
			continue
		}
		for x := range homeStates {
			for el := range p.beyond() + 1 {
				home := tooLate
				if x < risk.Pieces {
					home = p.act(expected, i, timeLeft, x, el, atHome, true)
				}
				other := math.Min(p.act(expected, i, timeLeft, x, el, waiting, false), p.act(expected, i, timeLeft, x, el, onDemand, true))
				if el < p.beyond() {
					other = math.Min(other, p.leave(expected, i, timeLeft, x, el))
				}
				for doing := range p.doings() {
					// Who is elsewhere brings the data back first.
					best := math.Min(other, home+p.classes[classOf(doing)].move)
					// Going on costs less than starting the same anew.
					if doing != waiting && (doing != atHome || x < risk.Pieces) {
						best = math.Min(best, p.act(expected, i, timeLeft, x, el, doing, false))
					}
					v[i][p.state(x, el, doing)] = float32(best)
				}
			}
		}
	}
	return v
}

// expect is the value one layer later by what is done in between.
func (p *plan) expect(next []float32) []float32 {
	out := make([]float32, len(next))
	for x := range homeStates {
		for doing := range p.doings() {
			if doing == atHome && x >= risk.Pieces {
				continue
			}
			// First over home's next state and the capacity that the run is on, then over
			// the others'.
			var byElse [classesBeyond + 1]float64
			lost := p.lost[classOf(doing)]
			for _, o := range p.chance[x] {
				then := doing
				if doing == atHome && o.state >= risk.Pieces {
					then = waiting
				}
				for f := range p.beyond() + 1 {
					byElse[f] += o.p * ((1-lost)*float64(next[p.state(o.state, f, then)]) + lost*float64(next[p.state(o.state, f, waiting)])) //nolint:gosec // f is at most classesBeyond
				}
			}
			for el, row := range p.elsewhere[classOf(doing)] {
				sum := 0.0
				for f, q := range row {
					sum += q * byElse[f]
				}
				out[p.state(x, el, doing)] = float32(sum)
			}
		}
	}
	return out
}

// price of a doing, USD per hour.
func (p *plan) price(doing int) float64 {
	switch doing {
	case waiting:
		return 0
	case onDemand:
		return p.onDemand
	}
	return p.classes[classOf(doing)].price
}

// act is the expected cost of doing something for a layer, started anew or not, and
// going on best.
func (p *plan) act(expected [][]float32, i int, timeLeft float64, x, el, doing int, start bool) float64 {
	at, slack := place{i: i}, p.slack[i]
	switch {
	case doing == waiting:
		at, slack = p.waitTo[i], slack-p.layer
	case start:
		at, slack = p.startTo[i], slack-p.restart
	}
	return p.follow(expected, at, slack, timeLeft, doing, p.state(x, el, doing))
}

// leave is the expected cost of going to the cheapest class elsewhere.
func (p *plan) leave(expected [][]float32, i int, timeLeft float64, x, el int) float64 {
	cost := p.classes[el+1].move
	for then, q := range p.taken[el] {
		if q > 0 {
			cost += q * p.act(expected, i, timeLeft, x, then, away+el, true)
		}
	}
	return cost
}

func (p *plan) follow(expected [][]float32, at place, slack, timeLeft float64, doing, state int) float64 {
	work, price := timeLeft-slack, p.price(doing)
	if at.i < 0 {
		// On-demand capacity to the end still makes it, nothing else does.
		if doing == onDemand && slack >= -1e-9 {
			return price * work
		}
		return tooLate
	}
	cost := price * math.Min(p.layer, work)
	if doing != waiting && work <= p.layer {
		return cost
	}
	then := float64(expected[at.i][state])
	if at.w > 0 {
		then += at.w * (float64(expected[at.i+1][state]) - then)
	}
	return cost + then
}
