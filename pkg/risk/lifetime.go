// SPDX-License-Identifier: Apache-2.0

package risk

import (
	"math"
	"time"

	"gonum.org/v1/gonum/mathext"
)

// Pieces is the number of pieces of age over which a hazard is constant: up to a
// quarter of an hour, an hour, four hours, sixteen hours, and beyond.
const Pieces = 5

// ends has the pieces' upper ends in hours; the last has none.
var ends = [Pieces]float64{0.25, 1, 4, 16, math.Inf(1)}

// Piece is the index of the piece that an age lies in.
func Piece(age time.Duration) int {
	for i, end := range ends {
		if age.Hours() < end {
			return i
		}
	}
	return Pieces - 1
}

// PieceWidth is how long an instance is in a piece; the longest duration for the
// last.
func PieceWidth(i int) time.Duration {
	if i == 0 {
		return hours(ends[0])
	}
	return hours(ends[i] - ends[i-1])
}

// ByAge is a hazard per hour by piece of age.
type ByAge [Pieces]float64

// weibullShape is how fast hazards fall with age before anything was observed. 1
// would be an exponential distribution; published spot lifetimes are heavy-tailed,
// and fits of their first hours lie between 0.4 and 0.8.
const weibullShape = 0.6

// HeavyTailed spreads a hazard over ages: a Weibull distribution with the same mean
// time and a hazard that falls with age.
func HeavyTailed(h Hazard) ByAge {
	scale := 1 / (float64(h) * math.Gamma(1+1/weibullShape))
	cumulative := func(t float64) float64 { return math.Pow(t/scale, weibullShape) }
	var out ByAge
	from := 0.0
	for i, to := range ends {
		if math.IsInf(to, 1) {
			to = 4 * from
		}
		if h > 0 {
			out[i] = (cumulative(to) - cumulative(from)) / (to - from)
		}
		from = to
	}
	return out
}

// Cumulative is the hazard summed up from an age over a horizon.
func (b ByAge) Cumulative(age, horizon time.Duration) float64 {
	sum, at, left := 0.0, age.Hours(), horizon.Hours()
	for i, end := range ends {
		if at >= end || left <= 0 {
			continue
		}
		d := min(left, end-at)
		sum += b[i] * d
		at, left = at+d, left-d
	}
	return sum
}

// Survival is the probability of no interruption within a horizon from an age on.
func (b ByAge) Survival(age, horizon time.Duration) float64 {
	return math.Exp(-b.Cumulative(age, horizon))
}

// MeanHours is the mean time to an interruption from an age on, +Inf when the
// oldest are never interrupted.
func (b ByAge) MeanHours(age time.Duration) float64 {
	sum, alive, at := 0.0, 1.0, age.Hours()
	for i, end := range ends {
		if at >= end {
			continue
		}
		if b[i] <= 0 {
			sum += alive * (end - at)
		} else {
			dies := -math.Expm1(-b[i] * (end - at))
			sum += alive * dies / b[i]
			alive *= 1 - dies
		}
		at = end
	}
	return sum
}

// Lifetimes learns hazards by age of pools that resemble each other. All pools
// share the shape (how the hazard changes with age), learned from all of them; each
// has a factor of its own on it (its frailty), learned from what it did itself:
//
//	mᵢ = (a + Eᵢ) / (a/hᵢ + Xᵢ)             the shape at age i
//	φₚ = (k + Eₚ) / (k + Σᵢ mᵢ·Xₚᵢ)         the factor of pool p
//	hazard of pool p at age i = φₚ·mᵢ
//
// with E interruptions in X instance-hours, and the prior hᵢ weighing as much as a
// observed interruptions, the shape as much as k. Both are means of Gamma
// posteriors (interruptions in a piece are Poisson), so a pool never seen has the
// others' hazard, and one seen for long its own. The time Xᵢ in the shape is not weighed
// with the pools' factors, as a model of proportional hazards would have it: machines
// that grew old are safe in rough pools too, and the recordings are predicted better so.
type Lifetimes[P comparable] struct {
	prior ByAge
	all   evidence
	pools map[P]*evidence
}

// evidence is what was observed.
type evidence struct {
	hours         ByAge
	interruptions ByAge
}

// Weights of the prior, in interruptions.
const (
	shapeWeight   = 2
	frailtyWeight = 3
)

// leastPrior stands in for a prior of never, which no observation could move: once in six
// weeks of running.
const leastPrior = 1.0 / 1000

// NewLifetimes starts with a prior.
func NewLifetimes[P comparable](prior ByAge) *Lifetimes[P] {
	for i := range prior {
		prior[i] = math.Max(prior[i], leastPrior)
	}
	return &Lifetimes[P]{prior: prior, pools: map[P]*evidence{}}
}

// Observe adds instance time of a pool: an instance ran from age on for a while,
// and was interrupted at its end or not. n instances may be told at once.
func (l *Lifetimes[P]) Observe(pool P, age, ran time.Duration, interrupted bool, n float64) {
	own := l.pools[pool]
	if own == nil {
		own = &evidence{}
		l.pools[pool] = own
	}
	for _, e := range []*evidence{&l.all, own} {
		at, left := age.Hours(), ran.Hours()
		for i, end := range ends {
			if at >= end || left <= 0 {
				continue
			}
			d := min(left, end-at)
			e.hours[i] += n * d
			at, left = at+d, left-d
		}
		if interrupted {
			e.interruptions[Piece(age+ran)] += n
		}
	}
}

// ObserveByAge adds what somebody else has summed up of a pool: instance-hours and
// interruptions by piece of age.
func (l *Lifetimes[P]) ObserveByAge(pool P, hours, interruptions ByAge) {
	own := l.pools[pool]
	if own == nil {
		own = &evidence{}
		l.pools[pool] = own
	}
	for _, e := range []*evidence{&l.all, own} {
		for i := range e.hours {
			e.hours[i] += hours[i]
			e.interruptions[i] += interruptions[i]
		}
	}
}

// FailedLaunch counts a refused launch as an interruption at age 0 that took no
// time, with the given weight from 0 to 1: capacity that cannot be had is capacity
// that would have been reclaimed.
func (l *Lifetimes[P]) FailedLaunch(pool P, weight float64) { l.Observe(pool, 0, 0, true, weight) }

// Decay forgets: everything observed so far weighs half after halfLife.
func (l *Lifetimes[P]) Decay(passed, halfLife time.Duration) {
	factor := math.Exp2(-passed.Hours() / halfLife.Hours())
	l.all.scale(factor)
	for _, e := range l.pools {
		e.scale(factor)
	}
}

func (e *evidence) scale(factor float64) {
	for i := range e.hours {
		e.hours[i] *= factor
		e.interruptions[i] *= factor
	}
}

// Posterior is what is known of a pool.
type Posterior struct {
	// Hazard has the means.
	Hazard ByAge
	// shape is of the Gamma distributions around them.
	shape ByAge
	// Hours and Interruptions are the evidence from the pool itself, and by age.
	Hours, Interruptions           float64
	HoursByAge, InterruptionsByAge ByAge
}

// Posterior is what is known of a pool now.
func (l *Lifetimes[P]) Posterior(pool P) Posterior {
	var p Posterior
	own := l.pools[pool]
	if own == nil {
		own = &evidence{}
	}
	p.HoursByAge, p.InterruptionsByAge = own.hours, own.interruptions
	var shape ByAge
	expected := 0.0
	for i, h := range l.prior {
		shape[i] = (shapeWeight + l.all.interruptions[i]) / (shapeWeight/h + l.all.hours[i])
		expected += shape[i] * own.hours[i]
		p.Hours += own.hours[i]
		p.Interruptions += own.interruptions[i]
	}
	frailty := (frailtyWeight + p.Interruptions) / (frailtyWeight + expected)
	for i := range shape {
		p.Hazard[i] = frailty * shape[i]
		// Relative variances of the two factors add up.
		p.shape[i] = 1 / (1/(frailtyWeight+p.Interruptions) + 1/(shapeWeight+l.all.interruptions[i]))
	}
	return p
}

// Interval has the hazard at an age with the given probability, from 0 to 1,
// between low and high (per hour).
func (p Posterior) Interval(age time.Duration, probability float64) (low, high float64) {
	i := Piece(age)
	quantile := func(q float64) float64 {
		return mathext.GammaIncRegInv(p.shape[i], q) / p.shape[i] * p.Hazard[i]
	}
	return quantile((1 - probability) / 2), quantile((1 + probability) / 2)
}

// Interruption is the probability, from 0 to 1, of an interruption within a horizon
// of an instance of the given age. It counts the uncertainty of the hazard: a mean
// over the Gamma posterior, which for the same mean hazard is less than with a
// hazard known exactly.
func (p Posterior) Interruption(age, horizon time.Duration) float64 {
	h := p.Hazard.Cumulative(age, horizon)
	shape := p.shape[Piece(age)]
	return -math.Expm1(-shape * math.Log1p(h/shape))
}
