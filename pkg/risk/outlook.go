// SPDX-License-Identifier: Apache-2.0

package risk

import (
	"math"
	"time"
)

// Outlook is when a run will have finished: the distribution of which ExpectedHours
// is the mean.
type Outlook struct {
	step time.Duration
	// finished[k] is the probability that the run is done after k steps.
	finished []float64
}

// outlookSteps is the resolution of an outlook. Probabilities are off by less than
// 0.01 where nothing jumps between two steps.
const outlookSteps = 1000

// Foresee reckons the distribution up to a horizon, under the model of the package's
// documentation. It goes back from the horizon in steps of length d. With k steps
// left and j of the work safe (in a checkpoint), at the beginning of a stretch that
// ends L steps later with a checkpoint or the result,
//
//	f(k, j) = ρ^L·f(k-L, j+L) + q·S₁(k, j) + (1-q)·S₂(k, j)      ρ = exp(-λd)
//	S₁(k, j) = Σ (1-ρ)·ρ^(u-1)·h(k-u, j+u)    S₂(k, j) = Σ (1-ρ)·ρ^(u-1)·h(k-u, j)    u = 1…L
//	h(k, j) = exp(-λR)·f(k-R/d, j) + (1-exp(-λR))·h(k-m/d, j)
//
// where S₁ is over interruptions that a notice saved and S₂ over the others, and h is
// the beginning of a restart, which takes m on average if it is interrupted. Both sums
// follow from those one step later.
func Foresee(h Hazard, r Run, horizon time.Duration) Outlook {
	stretch, total := r.Work.Hours(), r.Work.Hours()
	q := 0.0
	if r.Resumable {
		q = r.NoticeSaves
		interval := r.Interval.Hours()
		if r.Interval <= 0 {
			interval = DalyInterval(h, r.CheckpointCost).Hours()
		}
		if interval > 0 && interval < total {
			// The last stretch ends in the result and not in a checkpoint.
			checkpoints := math.Ceil(total/interval) - 1
			total += checkpoints * r.CheckpointCost.Hours()
			stretch = interval + r.CheckpointCost.Hours()
		}
	}
	if total <= 0 || horizon <= 0 {
		return Outlook{step: 1, finished: []float64{1}}
	}
	// The whole run is a whole number of steps.
	n := int(math.Ceil(total / (horizon.Hours() / outlookSteps)))
	d := total / float64(n)
	layers := int(math.Ceil(horizon.Hours() / d))
	// At least a step, so that a layer follows from those before it.
	restart := max(1, r.Restart.Hours()/d)
	failed := max(1, meanFailedRestart(h, r.Restart.Hours())/d)
	rho, restarts := h.Survival(hours(d)), h.Survival(r.Restart)
	p := 1 - rho
	ends := stretchEnds(n, stretch/d)
	table := func() [][]float64 {
		t := make([][]float64, layers+1)
		for k := range t {
			t[k] = make([]float64, n+1)
		}
		return t
	}
	f, again, saved, lost := table(), table(), table(), table()
	at := func(t [][]float64, k, j int) float64 {
		if k < 0 {
			return 0
		}
		return t[k][j]
	}
	between := func(t [][]float64, k float64, j int) float64 {
		below := math.Floor(k)
		return at(t, int(below), j) + (k-below)*(at(t, int(below)+1, j)-at(t, int(below), j))
	}
	o := Outlook{step: hours(d), finished: make([]float64, layers+1)}
	for k := range f {
		f[k][n] = 1
		for j := range n + 1 {
			again[k][j] = restarts*between(f, float64(k)-restart, j) + (1-restarts)*between(again, float64(k)-failed, j)
		}
		for j := range n {
			length := ends[j] - j
			through := math.Pow(rho, float64(length))
			// An interruption comes in the middle of a step: half a step is done or lost.
			saved[k][j] = p * (again[k][j] + at(again, k-1, j+1)) / 2
			if length > 1 {
				saved[k][j] += rho * at(saved, k-1, j+1)
			}
			middle := func(k int) float64 { return (at(again, k, j) + at(again, k-1, j)) / 2 }
			lost[k][j] = p*middle(k) + rho*at(lost, k-1, j) - p*through*middle(k-length)
			f[k][j] = through*at(f, k-length, ends[j]) + q*saved[k][j] + (1-q)*lost[k][j]
		}
		o.finished[k] = f[k][0]
	}
	return o
}

// stretchEnds has, for each step, the one at which the stretch it lies in ends.
func stretchEnds(n int, stretch float64) []int {
	ends := make([]int, n)
	m := 1
	for j := range ends {
		for int(math.Round(float64(m)*stretch)) <= j {
			m++
		}
		ends[j] = min(int(math.Round(float64(m)*stretch)), n)
	}
	return ends
}

// meanFailedRestart is how long a restart lasts that is interrupted, in hours.
func meanFailedRestart(h Hazard, restart float64) float64 {
	x := float64(h) * restart
	if x < 1e-6 {
		return restart / 2
	}
	return 1/float64(h) - restart/math.Expm1(x)
}

// Probability is that of being finished within a time, from 0 to 1. Times beyond
// the horizon count as the horizon.
func (o Outlook) Probability(within time.Duration) float64 {
	x := float64(within) / float64(o.step)
	k := int(math.Floor(x))
	switch {
	case k < 0:
		return 0
	case k >= len(o.finished)-1:
		return o.finished[len(o.finished)-1]
	}
	return o.finished[k]
}

// CostUSD is what the run is expected to cost up to the horizon, at a price per
// hour that may change: it is paid for as long as the run goes on.
func (o Outlook) CostUSD(usdPerHour func(elapsed time.Duration) float64) float64 {
	sum := 0.0
	for k := range len(o.finished) - 1 {
		sum += (1 - o.finished[k]) * o.step.Hours() * usdPerHour(o.step*time.Duration(k)+o.step/2)
	}
	return sum
}
