// SPDX-License-Identifier: Apache-2.0

package risk_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/risk"
)

func hoursLong(h float64) time.Duration { return time.Duration(h * float64(time.Hour)) }

// flat is the same hazard at every age.
func flat(perHour float64) risk.ByAge {
	var b risk.ByAge
	for i := range b {
		b[i] = perHour
	}
	return b
}

func TestAHazardByAgeAddsUpOverThePiecesItGoesThrough(t *testing.T) {
	// To 15 min, 1 h, 4 h, 16 h and beyond.
	b := risk.ByAge{4, 2, 1, 0.5, 0.1}
	for name, c := range map[string]struct {
		age, horizon time.Duration
		want         float64
	}{
		"within the first piece":                          {0, 6 * time.Minute, 4 * 0.1},
		"a new machine over two hours: 1 + 1.5 + 1":       {0, 2 * time.Hour, 4*0.25 + 2*0.75 + 1},
		"one of half an hour over an hour: 1 + 0.5":       {30 * time.Minute, time.Hour, 2*0.5 + 1*0.5},
		"one of ten hours over ten hours: 3 + 0.4":        {10 * time.Hour, 10 * time.Hour, 0.5*6 + 0.1*4},
		"the oldest keep the last piece's for ever":       {100 * time.Hour, 100 * time.Hour, 10},
		"no time, no hazard":                              {time.Hour, 0, 0},
		"an age at the end of a piece is in the next one": {time.Hour, time.Hour, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := b.Cumulative(c.age, c.horizon); math.Abs(got-c.want) > 1e-9 {
				t.Errorf("%v, want %v", got, c.want)
			}
			if got := b.Survival(c.age, c.horizon); math.Abs(got-math.Exp(-c.want)) > 1e-9 {
				t.Errorf("survival %v, want exp(-%v)", got, c.want)
			}
		})
	}
	if got := flat(0.25).MeanHours(7 * time.Hour); math.Abs(got-4) > 1e-9 {
		t.Errorf("a constant 0.25 per hour: mean time %v h at any age, want 4", got)
	}
	if got := (risk.ByAge{1, 0, 0, 0, 0}).MeanHours(0); !math.IsInf(got, 1) {
		t.Errorf("who survives the first quarter of an hour lives for ever: mean %v h, want +Inf", got)
	}
}

func TestAHeavyTailedPriorFallsWithAgeAndKeepsItsMeanTime(t *testing.T) {
	for _, h := range []risk.Hazard{0.01, 0.05, 0.229, 1} {
		b := risk.HeavyTailed(h)
		for i := 1; i < risk.Pieces; i++ {
			if b[i] >= b[i-1] {
				t.Errorf("%v per hour: the hazard rises to %v in piece %d", h, b[i], i)
			}
		}
		// The last piece is constant where a Weibull distribution goes on falling.
		if mean := b.MeanHours(0) * float64(h); mean < 0.6 || mean > 1.6 {
			t.Errorf("%v per hour: mean time %.2f times what it says", h, mean)
		}
	}
	if risk.HeavyTailed(0) != (risk.ByAge{}) {
		t.Error("no hazard at any age is none")
	}
}

// lives draws lives of machines whose hazard is constant within each piece of age.
func lives(rng *rand.Rand, b risk.ByAge, n int, atMost time.Duration, tell func(lived time.Duration, interrupted bool)) {
	for range n {
		at, target := 0.0, rng.ExpFloat64()
		for i := range risk.Pieces {
			width := risk.PieceWidth(i).Hours()
			if target < b[i]*width {
				at += target / b[i]
				break
			}
			at, target = at+width, target-b[i]*width
		}
		if lived := hoursLong(math.Min(at, 1e5)); lived < atMost {
			tell(lived, true)
		} else {
			tell(atMost, false)
		}
	}
}

func TestEnoughLivesTeachTheHazardAtEachAge(t *testing.T) {
	truth := risk.ByAge{1.2, 0.6, 0.3, 0.1, 0.04}
	l := risk.NewLifetimes[string](risk.HeavyTailed(0.05)) // wrong by a factor of several
	rng := rand.New(rand.NewPCG(5, 6))
	lives(rng, truth, 20_000, 48*time.Hour, func(lived time.Duration, interrupted bool) { l.Observe("p", 0, lived, interrupted, 1) })
	got := l.Posterior("p")
	for i := range truth {
		if !near(got.Hazard[i], truth[i], 0.1) {
			t.Errorf("piece %d: learned %.3f per hour, the truth is %.3f", i, got.Hazard[i], truth[i])
		}
	}
	// A pool never seen is like those that were.
	if other := l.Posterior("q"); !near(other.Hazard[0], truth[0], 0.1) || other.Hours != 0 {
		t.Errorf("a pool never seen: %+v, want the others' hazard by no evidence of its own", other)
	}
}

func TestPoolsShareTheShapeAndHaveTheirOwnFactor(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	l := risk.NewLifetimes[string](risk.HeavyTailed(0.1))
	calm, rough := risk.ByAge{0.4, 0.2, 0.1, 0.05, 0.02}, risk.ByAge{2, 1, 0.5, 0.25, 0.1}
	lives(rng, calm, 2000, 24*time.Hour, func(lived time.Duration, gone bool) { l.Observe("calm", 0, lived, gone, 1) })
	lives(rng, rough, 2000, 24*time.Hour, func(lived time.Duration, gone bool) { l.Observe("rough", 0, lived, gone, 1) })
	for i := range calm {
		// The truth is five; the shape they share draws them together a little.
		if ratio := l.Posterior("rough").Hazard[i] / l.Posterior("calm").Hazard[i]; ratio < 3.5 || ratio > 5.5 {
			t.Errorf("piece %d: the rough pool has %.2f times the calm one's hazard, want about 4 to 5", i, ratio)
		}
	}
}

// TestTheIntervalHoldsTheTruthAsOftenAsItSays draws pools as the prior says that pools
// are, lets each be seen for a while, and counts how often the 90 % interval is right.
func TestTheIntervalHoldsTheTruthAsOftenAsItSays(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	prior := flat(0.1)
	const pools = 2000
	inside, width := 0, map[int]float64{}
	for _, seen := range []int{5, 50} {
		for range pools / 2 {
			// A factor of mean 1 as uncertain as that of a pool with three interruptions.
			factor := 0.0
			for range 3 {
				factor += rng.ExpFloat64() / 3
			}
			truth := flat(0.1 * factor)
			l := risk.NewLifetimes[int](prior)
			lives(rng, truth, seen, 4*time.Hour, func(lived time.Duration, gone bool) { l.Observe(0, 0, lived, gone, 1) })
			p := l.Posterior(0)
			low, high := p.Interval(0, 0.9)
			if low > p.Hazard[0] || high < p.Hazard[0] || low < 0 {
				t.Fatalf("the mean %v lies outside of its interval from %v to %v", p.Hazard[0], low, high)
			}
			if low <= truth[0] && truth[0] <= high {
				inside++
			}
			width[seen] += (high - low) / (pools / 2)
		}
	}
	if share := float64(inside) / pools; share < 0.88 {
		t.Errorf("%.1f %% of the pools lie in their 90 %% interval", 100*share)
	}
	if width[50] > width[5] {
		t.Errorf("intervals of pools seen ten times as long are %.3f wide, the others %.3f", width[50], width[5])
	}
}

func TestAPriorOfNeverGivesWayToWhatHappens(t *testing.T) {
	l := risk.NewLifetimes[string](risk.HeavyTailed(0))
	if h := l.Posterior("p").Hazard[0]; h > 0.001 {
		t.Errorf("before anything happened: %v per hour", h)
	}
	for range 50 {
		l.Observe("p", 0, 30*time.Minute, true, 1)
	}
	if p := l.Posterior("p").Interruption(15*time.Minute, 30*time.Minute); p < 0.1 {
		t.Errorf("after 50 machines that each lived for half an hour: probability %v of an interruption", p)
	}
}

func TestWhatIsForgottenCountsHalfAfterAHalfLife(t *testing.T) {
	l := risk.NewLifetimes[string](flat(0.1))
	l.Observe("p", 0, 10*time.Hour, true, 4)
	l.FailedLaunch("p", 0.5)
	l.Decay(24*time.Hour, 24*time.Hour)
	if p := l.Posterior("p"); math.Abs(p.Hours-20) > 1e-9 || math.Abs(p.Interruptions-2.25) > 1e-9 || math.Abs(p.InterruptionsByAge[0]-0.25) > 1e-9 {
		t.Errorf("%v hours and %v interruptions, %v of them at age 0; want half of 40, of 4.5 and of 0.5", p.Hours, p.Interruptions, p.InterruptionsByAge[0])
	}
}

func TestPropertiesOfAPosterior(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := risk.NewLifetimes[int](risk.HeavyTailed(risk.Hazard(rapid.Float64Range(0, 2).Draw(t, "prior"))))
		for range rapid.IntRange(0, 20).Draw(t, "lives") {
			l.Observe(rapid.IntRange(0, 2).Draw(t, "pool"), hoursLong(rapid.Float64Range(0, 30).Draw(t, "age")), hoursLong(rapid.Float64Range(0, 100).Draw(t, "ran")),
				rapid.Bool().Draw(t, "interrupted"), rapid.Float64Range(0, 5).Draw(t, "machines"))
		}
		p := l.Posterior(rapid.IntRange(0, 3).Draw(t, "of"))
		age := hoursLong(rapid.Float64Range(0, 50).Draw(t, "at"))
		last := 0.0
		for _, horizon := range []time.Duration{time.Minute, time.Hour, 4 * time.Hour, 24 * time.Hour} {
			risky := p.Interruption(age, horizon)
			if !(risky >= last-1e-9 && risky <= 1) {
				t.Fatalf("probability %v within %v, %v within less", risky, horizon, last)
			}
			// Uncertainty never makes an interruption more probable than the mean hazard does.
			if sure := 1 - p.Hazard.Survival(age, horizon); risky > sure+1e-9 {
				t.Fatalf("within %v: %v, with a hazard known exactly %v", horizon, risky, sure)
			}
			last = risky
		}
		if low, high := p.Interval(age, 0.9); !(low >= 0 && low <= high) || math.IsInf(high, 0) {
			t.Fatalf("interval from %v to %v", low, high)
		}
	})
}
