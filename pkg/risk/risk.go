// SPDX-License-Identifier: Apache-2.0

// Package risk is the arithmetic of interruptions: from how often a pool is
// interrupted to what it costs to finish a run on it.
//
// It is pure: no client, no clock, no I/O.
//
// # Model
//
// Interruptions come at a constant rate λ (the hazard, per hour), so an
// undisturbed stretch of t hours has probability exp(-λt). A run with W hours of
// work left takes a checkpoint of cost δ after every τ hours of work. After an
// interruption a restart takes R hours, itself exposed to interruptions, so that
// getting going again takes (exp(λR)-1)/λ hours on average.
//
// With probability q (a notice that comes and is used in time) an interruption
// loses no work, since a checkpoint is taken on notice; otherwise the work since
// the last checkpoint is lost. The expected time E(s) to get through a stretch of
// s hours that ends in a checkpoint then solves
//
//	E(s) = s·exp(-λs) + ∫₀ˢ λ·exp(-λt)·[ t + (exp(λR)-1)/λ + q·E(s-t) + (1-q)·E(s) ] dt
//
// of which the solution is
//
//	E(s) = exp(λR)/λ · ln(1 + q·(exp(λs)-1)) / q
//
// For q → 0 it is Daly's exp(λR)·(exp(λs)-1)/λ, for q = 1 it is s·exp(λR). The
// whole run is ⌊W/τ⌋ stretches of τ+δ and one of the rest, which ends in the
// result and not in a checkpoint.
//
// # Sources
//
// J. W. Young, "A first order approximation to the optimum checkpoint interval",
// CACM 17(9), 1974. J. T. Daly, "A higher order estimate of the optimum
// checkpoint interval for restart dumps", FGCS 22(3), 2006.
package risk

import (
	"math"
	"time"
)

// Hazard is a rate of interruptions per hour of running.
type Hazard float64

// AfterRebalance is the least hazard of a machine that the cloud recommends to
// leave. The clouds publish no figure; once an hour makes an interruption within
// the hour more likely than not (63 %).
const AfterRebalance Hazard = 1

// Survival is the probability, from 0 to 1, of no interruption within d.
func (h Hazard) Survival(d time.Duration) float64 {
	return math.Exp(-float64(h) * d.Hours())
}

// Interruption is the probability, from 0 to 1, of at least one interruption
// within d.
func (h Hazard) Interruption(d time.Duration) float64 {
	return -math.Expm1(-float64(h) * d.Hours())
}

// MeanTime is the mean time to an interruption; the longest representable
// duration when there are none.
func (h Hazard) MeanTime() time.Duration {
	if h <= 0 {
		return math.MaxInt64
	}
	return hours(1 / float64(h))
}

// Run is what the cost of finishing depends on.
type Run struct {
	// Work left if never interrupted.
	Work time.Duration
	// Resumable runs have checkpoints; for others the fields below but Restart mean
	// nothing, and every interruption loses all work.
	Resumable bool
	// Interval is the work between two checkpoints; 0 for Daly's, which is the best when
	// no notice saves anything: notices are best effort, and checkpoints are for those
	// that do not come.
	Interval time.Duration
	// CheckpointCost is how long one checkpoint holds up the work.
	CheckpointCost time.Duration
	// NoticeSaves is the probability, from 0 to 1, that an interruption announces
	// itself in time for a checkpoint.
	NoticeSaves float64
	// Restart is the time from an interruption to the work going on.
	Restart time.Duration
}

// ExpectedHours is the expected time to finish a run under a hazard, checkpoints,
// lost work and restarts counted. It is +Inf when it exceeds what a float can
// hold: such a run does not finish.
func ExpectedHours(h Hazard, r Run) float64 {
	work := r.Work.Hours()
	if work <= 0 {
		return 0
	}
	if !r.Resumable {
		return stretch(h, work, 0, r.Restart.Hours())
	}
	interval := r.Interval.Hours()
	if r.Interval <= 0 {
		interval = DalyInterval(h, r.CheckpointCost).Hours()
	}
	if interval <= 0 || interval >= work {
		return stretch(h, work, r.NoticeSaves, r.Restart.Hours())
	}
	whole := math.Floor(work / interval)
	rest := work - whole*interval
	if rest <= 0 {
		// The last stretch ends in the result.
		whole, rest = whole-1, interval
	}
	return whole*stretch(h, interval+r.CheckpointCost.Hours(), r.NoticeSaves, r.Restart.Hours()) +
		stretch(h, rest, r.NoticeSaves, r.Restart.Hours())
}

// stretch is E(s) of the package's documentation, in hours.
func stretch(h Hazard, s, q, restart float64) float64 {
	rate := float64(h)
	if rate <= 0 {
		return s
	}
	var progress float64 // ln(1 + q(exp(λs)-1)) / q
	switch x := rate * s; {
	case x < 1e-12:
		// progress is x to the last digit; dividing it by the rate could underflow.
		return s * math.Exp(rate*restart)
	case q <= 0, q*math.Expm1(x) < 1e-12:
		progress = math.Expm1(x)
	case x > 700: // exp overflows; ln(1 + q·exp(x)) is x + ln q to the last digit
		progress = (x + math.Log(q)) / q
	default:
		progress = math.Log1p(q*math.Expm1(x)) / q
	}
	return math.Exp(rate*restart) / rate * progress
}

// YoungInterval is Young's first-order best time between checkpoints, sqrt(2δM)
// for a mean time M between interruptions.
func YoungInterval(h Hazard, cost time.Duration) time.Duration {
	if h <= 0 {
		return math.MaxInt64
	}
	return hours(math.Sqrt(2 * cost.Hours() / float64(h)))
}

// DalyInterval is Daly's higher-order best time between checkpoints:
//
//	sqrt(2δM)·[1 + ⅓·sqrt(δ/2M) + ⅑·(δ/2M)] - δ   for δ < 2M, else M
func DalyInterval(h Hazard, cost time.Duration) time.Duration {
	if h <= 0 {
		return math.MaxInt64
	}
	mean, delta := 1/float64(h), cost.Hours()
	if delta >= 2*mean {
		return hours(mean)
	}
	ratio := delta / (2 * mean)
	return hours(math.Sqrt(2*delta*mean)*(1+math.Sqrt(ratio)/3+ratio/9) - delta)
}

// hours converts without overflowing: more than 292 years is the longest
// duration.
func hours(h float64) time.Duration {
	ns := h * float64(time.Hour)
	if ns >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(ns)
}
