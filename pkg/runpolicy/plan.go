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
//   - the class that home is of, whether home has spot capacity and since when (in
//     pieces of age), and the cheapest class that has some elsewhere;
//   - whether the run is on spot, on demand, or waits.

// pieces of age, of home up and down: 2·Pieces home states, up first.
const homeStates = 2 * risk.Pieces

// What the run is doing.
const (
	onSpot = iota
	waiting
	onDemand
	doings
)

type plan struct {
	classes  []class
	onDemand float64 // USD per hour
	restart  float64 // hours
	layer    float64 // hours between layers
	slack    []float64

	// elsewhere[e][f] is the probability that from e being the cheapest class
	// elsewhere it is f one layer later; len(classes)-1 is "none".
	elsewhere [][]float64
	// chance[c][x] are the next states of home, of class c in state x.
	chance [][homeStates][]outcome
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
func (p *plan) states() int  { return len(p.classes) * homeStates * (p.beyond() + 1) * doings }
func (p *plan) horizon() int { return len(p.value) - 1 }

func (p *plan) state(class, home, elsewhere, doing int) int {
	return ((class*homeStates+home)*(p.beyond()+1)+elsewhere)*doings + doing
}

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
	p.chance = make([][homeStates][]outcome, len(p.classes))
	for c, class := range p.classes {
		for age := range risk.Pieces {
			p.chance[c][age] = p.aged(age, class.loss[age], 0, risk.Pieces)
			p.chance[c][risk.Pieces+age] = p.aged(age, class.coming[age], risk.Pieces, 0)
		}
	}
	n := p.beyond()
	p.elsewhere = make([][]float64, n+1)
	there := make([]float64, n) // in the long run
	for k := range n {
		c := p.classes[k+1]
		there[k] = c.back / (c.back + c.away)
	}
	for e := range n + 1 {
		row := make([]float64, n+1)
		none := 1.0
		for k := range n {
			c := p.classes[k+1]
			up := there[k]
			switch {
			case k < e:
				up = -math.Expm1(-c.back * p.layer)
			case k == e:
				up = math.Exp(-c.away * p.layer)
			}
			row[k] = none * up
			none *= 1 - up
		}
		row[n] = none
		p.elsewhere[e] = row
	}
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
	n, e := len(p.slack), p.beyond()+1
	expected := make([][]float32, n) // by slack: the next layer's value after each doing
	for i := range n {
		expected[i] = p.expect(next[i])
	}
	v := make([][]float32, n)
	for i, slack := range p.slack {
		v[i] = make([]float32, p.states())
		work := timeLeft - slack
		if work <= 1e-9 {
			continue
		}
		for el := range e {
			left := tooLate
			if el < p.beyond() {
				left = p.leave(expected, i, timeLeft, el)
			}
			for c := range p.classes {
				for x := range homeStates {
					// Going on costs less than starting the same anew.
					var goOn [doings]float64
					best := left
					for a := range doings {
						goOn[a] = tooLate
						if a == onSpot && x >= risk.Pieces {
							continue
						}
						goOn[a] = p.act(expected, i, timeLeft, c, x, el, a, false)
						best = math.Min(best, p.act(expected, i, timeLeft, c, x, el, a, a != waiting))
					}
					for doing := range doings {
						v[i][p.state(c, x, el, doing)] = float32(math.Min(best, goOn[doing]))
					}
				}
			}
		}
	}
	return v
}

// expect is the value one layer later by what is done in between.
func (p *plan) expect(next []float32) []float32 {
	out := make([]float32, len(next))
	e := p.beyond() + 1
	for c := range p.classes {
		for x := range homeStates {
			for doing := range doings {
				if doing == onSpot && x >= risk.Pieces {
					continue
				}
				// First over home's next state, then over the others'.
				var byElse [classesBeyond + 1]float64
				for _, o := range p.chance[c][x] {
					then := doing
					if doing == onSpot && o.state >= risk.Pieces {
						then = waiting
					}
					for f := range e {
						byElse[f] += o.p * float64(next[p.state(c, o.state, f, then)]) //nolint:gosec // f < e, and there is one class fewer beyond than byElse has room for
					}
				}
				for el := range e {
					sum := 0.0
					for f, q := range p.elsewhere[el] {
						sum += q * byElse[f]
					}
					out[p.state(c, x, el, doing)] = float32(sum)
				}
			}
		}
	}
	return out
}

// act is the expected cost of doing a for a layer at home, started anew or not, and
// going on best.
func (p *plan) act(expected [][]float32, i int, timeLeft float64, c, x, el, a int, start bool) float64 {
	at, slack := place{i: i}, p.slack[i]
	price := 0.0
	switch a {
	case waiting:
		at, slack = p.waitTo[i], slack-p.layer
	default:
		price = p.onDemand
		if a == onSpot {
			price = p.classes[c].price
		}
		if start {
			at, slack = p.startTo[i], slack-p.restart
		}
	}
	return p.follow(expected, at, slack, timeLeft, price, a, p.state(c, x, el, a))
}

// leave is the expected cost of going to the cheapest class elsewhere.
func (p *plan) leave(expected [][]float32, i int, timeLeft float64, el int) float64 {
	c := p.classes[el+1]
	// Capacity found there has been there for some time, and what was home is
	// elsewhere from there.
	return c.move + p.follow(expected, p.startTo[i], p.slack[i]-p.restart, timeLeft, c.price, onSpot, p.state(el+1, 1, el, onSpot))
}

func (p *plan) follow(expected [][]float32, at place, slack, timeLeft, price float64, doing, state int) float64 {
	work := timeLeft - slack
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
