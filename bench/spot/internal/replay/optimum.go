// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/spotbench/spotbench/pkg/runpolicy"
)

// fractions is into how many parts of a tick the optimum divides work, so that a
// start that does not fill its last tick gains what is left of it.
const fractions = 4

// Optimum is the cheapest schedule for somebody who knows the recording, by
// dynamic programming over (tick, placement, work left). Starts that would be
// interrupted before any work is done are left out: no optimum has them.
func Optimum(s *Setting, start time.Duration) (runpolicy.Policy, error) {
	o := newOptimum(s, start)
	if !o.solve() {
		return nil, fmt.Errorf("work of %v and a restart of %v do not fit into %v, not even on demand", s.Job.Work, s.Job.Restart, s.Job.Deadline)
	}
	return o.plan(), nil
}

// unset marks "go on as you are" among the choices.
const unset = math.MaxUint8

type optimum struct {
	setting *Setting
	first   int // tick of the recording
	ticks   int // to the deadline
	work    int // in fractions of a tick
	start   int // ticks that a start takes
	gain    int // fractions of a tick that its last tick leaves for work

	modes   []runpolicy.Placement
	region  []int // of each mode
	regions int

	// value[t%len][mode or len(modes)+region][work left]; the last region is "no data yet".
	value [][][]float64
	// stay[t][mode][w] and launch[t][region][w] are the choices.
	stop   [][][]bool
	launch [][][]uint8
}

func newOptimum(s *Setting, start time.Duration) *optimum {
	gap := s.Job.Step
	o := &optimum{setting: s, first: First(start, gap), ticks: int(s.Job.Deadline / gap)}
	unit := gap / fractions
	o.work = int((s.Job.Work + unit - 1) / unit)
	o.start = int((s.Job.Restart + gap - 1) / gap)
	o.gain = int((time.Duration(o.start)*gap - s.Job.Restart) / unit)
	var names []string
	onDemand := map[int]int{} // zone by region
	for z, t := range s.Traces {
		r := slices.Index(names, t.Region)
		if r < 0 {
			r, names = len(names), append(names, t.Region)
		}
		if best, ok := onDemand[r]; !ok || s.OnDemandUSDPerHour[z] < s.OnDemandUSDPerHour[best] {
			onDemand[r] = z
		}
		o.modes = append(o.modes, runpolicy.Placement{Capacity: runpolicy.Spot, Zone: z})
		o.region = append(o.region, r)
	}
	o.regions = len(names)
	for r := range o.regions {
		o.modes = append(o.modes, runpolicy.Placement{Capacity: runpolicy.OnDemand, Zone: onDemand[r]})
		o.region = append(o.region, r)
	}
	return o
}

// price is that of one tick; infinite when the mode cannot run in it.
func (o *optimum) price(mode, tick int) float64 {
	p, hours := o.modes[mode], o.setting.Job.Step.Hours()
	if p.Capacity == runpolicy.OnDemand {
		return o.setting.OnDemandUSDPerHour[p.Zone] * hours
	}
	t := o.setting.Traces[p.Zone]
	if at := o.first + tick; at < len(t.Up) && t.Up[at] {
		return t.SpotUSDPerHour[at] * hours
	}
	return math.Inf(1)
}

// solve fills the tables backwards from the deadline; false when nothing fits.
func (o *optimum) solve() bool {
	modes, states := len(o.modes), len(o.modes)+o.regions+1
	layers := max(o.start, 1) + 1
	o.value = make([][][]float64, layers)
	for l := range o.value {
		o.value[l] = make([][]float64, states)
		for m := range states {
			o.value[l][m] = slices.Repeat([]float64{math.Inf(1)}, o.work+1)
			o.value[l][m][0] = 0
		}
	}
	o.stop, o.launch = make([][][]bool, o.ticks), make([][][]uint8, o.ticks)
	launched := make([][]float64, o.regions)
	by := make([][]uint8, o.regions)
	for t := o.ticks - 1; t >= 0; t-- {
		now, next := o.value[t%layers], o.value[(t+1)%layers]
		for r := range o.regions {
			launched[r] = slices.Repeat([]float64{math.Inf(1)}, o.work+1)
			by[r] = make([]uint8, o.work+1)
		}
		for m := range modes {
			o.launches(t, m, layers, launched[o.region[m]], by[o.region[m]])
		}
		o.launch[t] = make([][]uint8, o.regions+1)
		for r := range o.regions + 1 {
			o.launch[t][r] = o.wait(r, now[modes+r], next[modes+r], launched, by)
		}
		o.stop[t] = make([][]bool, modes)
		for m := range modes {
			o.stop[t][m] = o.goOn(o.price(m, t), now[m], next[m], now[modes+o.region[m]])
		}
	}
	return !math.IsInf(o.value[0][modes+o.regions][o.work], 1)
}

// launches offers to start a mode at t.
func (o *optimum) launches(t, mode, layers int, best []float64, by []uint8) {
	cost, at := 0.0, t+o.start
	for i := t; i < at && i < o.ticks; i++ {
		cost += o.price(mode, i)
	}
	gain := o.gain
	if o.start == 0 { // work goes on within the tick
		cost, at, gain = o.price(mode, t), t+1, fractions
	}
	if at > o.ticks || math.IsInf(cost, 1) {
		return
	}
	then := o.value[at%layers][mode]
	for w := 1; w <= o.work; w++ {
		if c := cost + o.after(then, w-gain, at); c < best[w] {
			best[w], by[w] = c, uint8(mode) //nolint:gosec // there are fewer than 255 modes
		}
	}
}

// after is the value of going on with w left from tick at.
func (o *optimum) after(then []float64, w, at int) float64 {
	switch {
	case w <= 0:
		return 0
	case at >= o.ticks:
		return math.Inf(1)
	default:
		return then[w]
	}
}

func (o *optimum) wait(region int, now, next []float64, launched [][]float64, by [][]uint8) []uint8 {
	choice := make([]uint8, o.work+1)
	for w := 1; w <= o.work; w++ {
		now[w], choice[w] = next[w], unset
		for r, costs := range launched {
			c := costs[w]
			if region != r && region < o.regions {
				c += o.setting.Job.MoveUSD
			}
			if c < now[w] {
				now[w], choice[w] = c, by[r][w]
			}
		}
	}
	return choice
}

func (o *optimum) goOn(price float64, now, next, idle []float64) []bool {
	stop := make([]bool, o.work+1)
	for w := 1; w <= o.work; w++ {
		c := price + next[max(w-fractions, 0)]
		stop[w] = idle[w] < c
		now[w] = min(c, idle[w])
	}
	return stop
}

// plan walks the choices forward.
func (o *optimum) plan() runpolicy.Policy {
	var plan schedule
	w, mode, region := o.work, -1, o.regions
	for t := 0; t < o.ticks && w > 0; {
		if mode >= 0 && !o.stop[t][mode][w] {
			plan = append(plan, o.modes[mode])
			w -= fractions
			t++
			continue
		}
		mode = -1
		choice := o.launch[t][region][w]
		if choice == unset {
			plan = append(plan, runpolicy.Placement{})
			t++
			continue
		}
		mode = int(choice)
		region = o.region[mode]
		for range max(o.start, 1) {
			plan = append(plan, o.modes[mode])
			t++
		}
		w -= o.gain
		if o.start == 0 {
			w -= fractions
		}
	}
	return &plan
}

// schedule is a plan that does not look.
type schedule []runpolicy.Placement

// Decide follows the plan.
func (s *schedule) Decide(runpolicy.View) runpolicy.Placement {
	if len(*s) == 0 {
		return runpolicy.Placement{}
	}
	next := (*s)[0]
	*s = (*s)[1:]
	return next
}
