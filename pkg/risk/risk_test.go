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

func near(got, want, relative float64) bool {
	return math.Abs(got-want) <= relative*math.Abs(want)
}

func TestProbabilitiesOfAnHourlyHazard(t *testing.T) {
	// Once in ten hours: over one hour exp(-0.1) = 0.904837 of the runs survive.
	h := risk.Hazard(0.1)
	if got := h.Survival(time.Hour); !near(got, 0.904837418, 1e-8) {
		t.Errorf("Survival = %v", got)
	}
	if got := h.Interruption(time.Hour); !near(got, 0.095162582, 1e-8) {
		t.Errorf("Interruption = %v", got)
	}
	if got := h.MeanTime(); got != 10*time.Hour {
		t.Errorf("MeanTime = %v, want 10h", got)
	}
	if risk.Hazard(0).Interruption(time.Hour) != 0 || risk.Hazard(0).MeanTime() != math.MaxInt64 {
		t.Error("without a hazard nothing is ever interrupted")
	}
}

func TestExpectedHoursInCasesThatCanBeDoneByHand(t *testing.T) {
	for name, test := range map[string]struct {
		hazard risk.Hazard
		run    risk.Run
		want   float64
	}{
		"no work takes no time":                     {0.5, risk.Run{}, 0},
		"without interruptions it is the work":      {0, risk.Run{Work: 3 * time.Hour}, 3},
		"checkpoints cost: 5 of 6 min between 6 h":  {0, risk.Run{Work: 6 * time.Hour, Resumable: true, Interval: time.Hour, CheckpointCost: 6 * time.Minute}, 6 + 5*0.1},
		"starting over: (exp(0.5·2)-1)/0.5":         {0.5, risk.Run{Work: 2 * time.Hour}, (math.E - 1) / 0.5},
		"with a restart: exp(0.5·0.5)·(e-1)/0.5":    {0.5, risk.Run{Work: 2 * time.Hour, Restart: 30 * time.Minute}, math.Exp(0.25) * (math.E - 1) / 0.5},
		"every notice saves all: only the restarts": {0.5, risk.Run{Work: 2 * time.Hour, Resumable: true, Interval: 5 * time.Hour, NoticeSaves: 1, Restart: 30 * time.Minute}, 2 * math.Exp(0.25)},
		// Two stretches: 1 h + 6 min that ends in a checkpoint, 1 h that ends in the result.
		"one checkpoint half-way": {0.5, risk.Run{Work: 2 * time.Hour, Resumable: true, Interval: time.Hour, CheckpointCost: 6 * time.Minute},
			(math.Expm1(0.55) + math.Expm1(0.5)) / 0.5},
		"notices mean nothing to a run that cannot resume": {0.5, risk.Run{Work: 2 * time.Hour, NoticeSaves: 1}, (math.E - 1) / 0.5},
	} {
		t.Run(name, func(t *testing.T) {
			if got := risk.ExpectedHours(test.hazard, test.run); !near(got, test.want, 1e-12) {
				t.Errorf("ExpectedHours = %v, want %v", got, test.want)
			}
		})
	}
}

func TestARunThatCannotFinishTakesForever(t *testing.T) {
	if got := risk.ExpectedHours(60, risk.Run{Work: 8760 * time.Hour}); !math.IsInf(got, 1) {
		t.Errorf("ExpectedHours = %v, want +Inf", got)
	}
	// With notices it may be long, but it is a number: x = 60·8760 overflows exp.
	got := risk.ExpectedHours(60, risk.Run{Work: 8760 * time.Hour, Resumable: true, Interval: 9000 * time.Hour, NoticeSaves: 0.5})
	if want := (60*8760 + math.Log(0.5)) / 0.5 / 60; !near(got, want, 1e-12) {
		t.Errorf("ExpectedHours = %v, want %v", got, want)
	}
}

// simulate plays a run once, hour by hour as the package describes the model.
func simulate(rng *rand.Rand, h, work, interval, cost, q, restart float64) float64 {
	clock := 0.0
	for work > 0 {
		stretch, last := interval+cost, false
		if work <= interval {
			stretch, last = work, true
		}
		// Durable progress within the stretch, raised by checkpoints on notice.
		for left := stretch; left > 0; {
			next := rng.ExpFloat64() / h
			if next >= left {
				clock += left
				break
			}
			clock += next
			if rng.Float64() < q {
				left -= next
			}
			for { // restart, itself exposed
				r := rng.ExpFloat64() / h
				if r >= restart {
					clock += restart
					break
				}
				clock += r
			}
		}
		if last {
			return clock
		}
		work -= interval
	}
	return clock
}

func TestFormulaAgreesWithSimulationWithinOnePercent(t *testing.T) {
	hours := func(h float64) time.Duration { return time.Duration(h * float64(time.Hour)) }
	for name, c := range map[string]struct{ h, work, interval, cost, q, restart float64 }{
		"rare interruptions":            {0.02, 8, 1, 0.01, 0, 0.05},
		"frequent, no notices":          {0.7, 6, 0.5, 0.05, 0, 0.2},
		"frequent, nine of ten notices": {0.7, 6, 0.5, 0.05, 0.9, 0.2},
		"no periodic checkpoints":       {0.5, 3, 100, 0, 0.5, 0.1},
		"every notice":                  {1.5, 5, 2, 0.1, 1, 0.3},
		"a rest shorter than a stretch": {0.4, 5.3, 1, 0.1, 0.3, 0.1},
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			const runs = 200_000
			sum := 0.0
			for range runs {
				sum += simulate(rng, c.h, c.work, c.interval, c.cost, c.q, c.restart)
			}
			got := risk.ExpectedHours(risk.Hazard(c.h), risk.Run{Work: hours(c.work), Resumable: true, Interval: hours(c.interval),
				CheckpointCost: hours(c.cost), NoticeSaves: c.q, Restart: hours(c.restart)})
			if want := sum / runs; !near(got, want, 0.01) {
				t.Errorf("formula %v h, simulation %v h", got, want)
			}
		})
	}
}

func TestTheOutlookAgreesWithSimulationWithinOnePercent(t *testing.T) {
	hours := func(h float64) time.Duration { return time.Duration(h * float64(time.Hour)) }
	// A price that doubles after five hours.
	price := func(elapsed time.Duration) float64 {
		if elapsed < 5*time.Hour {
			return 2
		}
		return 4
	}
	for name, c := range map[string]struct{ h, work, interval, cost, q, restart float64 }{
		"rare interruptions":            {0.02, 8, 1, 0.01, 0, 0.05},
		"frequent, no notices":          {0.7, 6, 0.5, 0.05, 0, 0.2},
		"frequent, nine of ten notices": {0.7, 6, 0.5, 0.05, 0.9, 0.2},
		"no periodic checkpoints":       {0.5, 3, 100, 0, 0.5, 0.1},
		"every notice":                  {1.5, 5, 2, 0.1, 1, 0.3},
		"a rest shorter than a stretch": {0.4, 5.3, 1, 0.1, 0.3, 0.1},
	} {
		t.Run(name, func(t *testing.T) {
			run := risk.Run{Work: hours(c.work), Resumable: true, Interval: hours(c.interval), CheckpointCost: hours(c.cost), NoticeSaves: c.q, Restart: hours(c.restart)}
			mean := risk.ExpectedHours(risk.Hazard(c.h), run)
			outlook := risk.Foresee(risk.Hazard(c.h), run, hours(6*mean))
			rng := rand.New(rand.NewPCG(3, 4))
			const runs = 200_000
			// Away from the jump at the time that a run without interruptions takes.
			within := []float64{1.15 * mean, 1.4 * mean, 2 * mean}
			done, paid := make([]float64, len(within)), 0.0
			for range runs {
				took := simulate(rng, c.h, c.work, c.interval, c.cost, c.q, c.restart)
				for i, w := range within {
					if took <= w {
						done[i]++
					}
				}
				paid += 2*min(took, 5) + 4*max(0, took-5)
			}
			for i, w := range within {
				if got, want := outlook.Probability(hours(w)), done[i]/runs; math.Abs(got-want) > 0.01 {
					t.Errorf("finished within %.2f h with probability %.4f, simulation %.4f", w, got, want)
				}
			}
			if got, want := outlook.CostUSD(price), paid/runs; !near(got, want, 0.01) {
				t.Errorf("cost $%.4f, simulation $%.4f", got, want)
			}
			// The mean is the area over the distribution.
			if got := outlook.CostUSD(func(time.Duration) float64 { return 1 }); !near(got, mean, 0.01) {
				t.Errorf("mean %.4f h, the formula has %.4f h", got, mean)
			}
		})
	}
}

func TestTheOutlookOfARunWithoutInterruptionsIsAStep(t *testing.T) {
	o := risk.Foresee(0, risk.Run{Work: 4 * time.Hour}, 10*time.Hour)
	if o.Probability(3*time.Hour+59*time.Minute) != 0 || o.Probability(4*time.Hour+time.Minute) != 1 {
		t.Errorf("finished before 4 h with probability %v, after it with %v, want 0 and 1", o.Probability(3*time.Hour+59*time.Minute), o.Probability(4*time.Hour+time.Minute))
	}
	if got := o.CostUSD(func(time.Duration) float64 { return 3 }); math.Abs(got-12) > 0.05 {
		t.Errorf("4 h at $3: $%v", got)
	}
	if p := risk.Foresee(0, risk.Run{Work: 4 * time.Hour}, time.Hour).Probability(time.Hour); p != 0 {
		t.Errorf("four hours of work in one with probability %v", p)
	}
}

func TestYoungsAndDalysIntervalsAgainstBruteForce(t *testing.T) {
	for _, c := range []struct {
		mean float64 // hours
		cost time.Duration
		// young is how much dearer than the best Young's first order may be, in percent.
		young float64
	}{
		{0.72, 30 * time.Second, 1}, {1.5, 30 * time.Second, 1}, {10.5, 30 * time.Second, 1}, {1.5, 2 * time.Second, 1},
		{4, 5 * time.Minute, 1},
		{1, 20 * time.Minute, 3}, // Young's holds for checkpoints much shorter than the mean
	} {
		h := risk.Hazard(1 / c.mean)
		// Many stretches, so that the last one, which ends without a checkpoint, hardly counts.
		finish := func(interval time.Duration) float64 {
			return risk.ExpectedHours(h, risk.Run{Work: 1000 * interval, Resumable: true, Interval: interval, CheckpointCost: c.cost}) / (1000 * interval.Hours())
		}
		best := math.Inf(1)
		for interval := time.Second; interval < 20*time.Hour; interval += interval/200 + time.Second {
			best = math.Min(best, finish(interval))
		}
		if daly := finish(risk.DalyInterval(h, c.cost)); daly > best*1.001 {
			t.Errorf("mean %v h, checkpoint %v: Daly's interval takes %v h per hour of work, the best %v", c.mean, c.cost, daly, best)
		}
		if young := finish(risk.YoungInterval(h, c.cost)); young > best*(1+c.young/100) {
			t.Errorf("mean %v h, checkpoint %v: Young's interval takes %v h per hour of work, the best %v", c.mean, c.cost, young, best)
		}
	}
}

func TestDalysIntervalIsTakenWhereNoneIsGiven(t *testing.T) {
	h, run := risk.Hazard(0.5), risk.Run{Work: 24 * time.Hour, Resumable: true, CheckpointCost: time.Minute, Restart: 3 * time.Minute}
	given := run
	given.Interval = risk.DalyInterval(h, run.CheckpointCost)
	if a, b := risk.ExpectedHours(h, run), risk.ExpectedHours(h, given); a != b {
		t.Errorf("%v h without an interval, %v h with Daly's", a, b)
	}
	const horizon = 100 * time.Hour
	if a, b := risk.Foresee(h, run, horizon).Probability(30*time.Hour), risk.Foresee(h, given, horizon).Probability(30*time.Hour); a != b {
		t.Errorf("finished within 30 h with probability %v without an interval, %v with Daly's", a, b)
	}
}

func TestIntervalsOfKnownPools(t *testing.T) {
	// sqrt(2 · 30 s · 0.72 h) = sqrt(2 · 30 · 2592) s = 394 s
	if got := risk.YoungInterval(1/0.72, 30*time.Second).Round(time.Second); got != 394*time.Second {
		t.Errorf("Young: %v, want 6m34s", got)
	}
	// Daly's correction for δ/2M = 30/5184: 394.4·(1 + 0.02536 + 0.00064) - 30 = 374.6 s
	if got := risk.DalyInterval(1/0.72, 30*time.Second).Round(time.Second); got != 375*time.Second {
		t.Errorf("Daly: %v, want 6m15s", got)
	}
	if got := risk.DalyInterval(10, time.Hour); got != 6*time.Minute {
		t.Errorf("a checkpoint longer than twice the mean of 6m: interval %v, want the mean", got)
	}
	if risk.DalyInterval(0, time.Second) != math.MaxInt64 || risk.YoungInterval(0, time.Second) != math.MaxInt64 {
		t.Error("without interruptions there is no need of checkpoints")
	}
}

func TestProperties(t *testing.T) {
	duration := func(t *rapid.T, name string, atMost time.Duration) time.Duration {
		return time.Duration(rapid.Int64Range(0, int64(atMost)).Draw(t, name))
	}
	rapid.Check(t, func(t *rapid.T) {
		h := risk.Hazard(rapid.Float64Range(0, 2).Draw(t, "hazard"))
		run := risk.Run{
			Work:           duration(t, "work", 48*time.Hour) + time.Second,
			Resumable:      rapid.Bool().Draw(t, "resumable"),
			Interval:       duration(t, "interval", 10*time.Hour),
			CheckpointCost: duration(t, "cost", 10*time.Minute),
			NoticeSaves:    rapid.Float64Range(0, 1).Draw(t, "notice saves"),
			Restart:        duration(t, "restart", time.Hour),
		}
		expected := risk.ExpectedHours(h, run)
		if expected < run.Work.Hours()*(1-1e-9) || math.IsNaN(expected) {
			t.Fatalf("%v h, less than the work of %v h", expected, run.Work.Hours())
		}
		worse := func(what string, h risk.Hazard, r risk.Run) {
			if got := risk.ExpectedHours(h, r); got < expected*(1-1e-9) {
				t.Fatalf("%s makes it shorter: %v h, was %v h", what, got, expected)
			}
		}
		if run.Interval > 0 { // else the best interval changes too
			worse("a higher hazard", h*1.1, run)
			longer := run
			longer.CheckpointCost += time.Minute
			worse("a dearer checkpoint", h, longer)
		}
		longer := run
		longer.Restart += time.Minute
		worse("a longer restart", h, longer)
		longer = run
		longer.NoticeSaves *= 0.9
		worse("fewer notices", h, longer)
		longer = run
		longer.Work += time.Hour
		worse("more work", h, longer)

		d := duration(t, "horizon", 100*time.Hour)
		if s, i := h.Survival(d), h.Interruption(d); s < 0 || i < 0 || math.Abs(s+i-1) > 1e-12 {
			t.Fatalf("survival %v and interruption %v over %v do not add up", s, i, d)
		}
	})
}
