// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/risk"
)

func priors(t *testing.T) risk.Book {
	t.Helper()
	book, err := risk.ParseBook([]byte("defaults: {aws: {perHour: 0.1, source: assumed}}"))
	if err != nil {
		t.Fatal(err)
	}
	return book
}

// lives are n machines of a zone that each lived for d and were then taken back, or not.
func lives(zone string, n int, d time.Duration, takenBack bool, end time.Time) []catalog.Instance {
	var out []catalog.Instance
	for i := range n {
		m := catalog.Instance{UID: fmt.Sprintf("%s-%d", zone, i), Provider: "aws", Region: "r", Zone: zone, InstanceType: "p5", CapacityType: "spot",
			StartedAt: end.Add(-d), SeenAt: end}
		if takenBack {
			m.NoticeAt = end
		}
		out = append(out, m)
	}
	return out
}

func TestAPoolThatWasNeverSeenHasItsPriorAndSaysSo(t *testing.T) {
	now := newYear
	got := catalog.ReckonRisk(nil, priors(t), catalog.RiskQuery{Provider: "aws", Region: "r", InstanceType: "p5"}, now)
	if len(got) != 1 || got[0].PriorPerHour != 0.1 || got[0].PriorSource != "assumed" || got[0].Machines != 0 {
		t.Fatalf("%+v, want one entry with the prior of 0.1 per hour", got)
	}
	// The prior's mean time is 1/0.1 = 10 h; the pieces follow it but for the tail, cut off at 64 h.
	if got[0].MeanHours < 6 || got[0].MeanHours > 16 {
		t.Errorf("mean time to an interruption %.1f h, want about 10 h", got[0].MeanHours)
	}
	if all := catalog.ReckonRisk(nil, priors(t), catalog.RiskQuery{}, now); len(all) != 0 {
		t.Errorf("without a pool to ask for: %+v, want none", all)
	}
}

func TestMachinesThatLiveLongLowerTheHazardAndThoseTakenBackRaiseIt(t *testing.T) {
	now := newYear
	machines := append(lives("calm", 20, 10*time.Hour, false, now.Add(-time.Hour)), lives("rough", 20, time.Hour, true, now.Add(-time.Hour))...)
	machines = append(machines, catalog.Instance{UID: "od", Provider: "aws", Region: "r", Zone: "calm", InstanceType: "p5", CapacityType: "on-demand", StartedAt: now.Add(-time.Hour), SeenAt: now})
	got := catalog.ReckonRisk(machines, priors(t), catalog.RiskQuery{}, now)
	if len(got) != 2 || got[0].Zone != "calm" || got[1].Zone != "rough" {
		t.Fatalf("%+v, want the spot pools calm and rough and nothing on demand", got)
	}
	calm, rough := got[0], got[1]
	// An hour of decay at a half-life of 14 days leaves 99.8 %.
	if math.Abs(calm.InstanceHours-200) > 1 || calm.Interruptions != 0 || calm.Machines != 20 {
		t.Errorf("evidence of calm: %+v, want 20 machines, 200 h and no interruption", calm)
	}
	if math.Abs(rough.InstanceHours-20) > 0.1 || math.Abs(rough.Interruptions-20) > 0.1 {
		t.Errorf("evidence of rough: %+v, want 20 h and 20 interruptions", rough)
	}
	for i := range calm.HazardByAge {
		c, r := calm.HazardByAge[i], rough.HazardByAge[i]
		if c.PerHour >= r.PerHour {
			t.Errorf("from %v h on: calm %.3f per hour, rough %.3f, want less", c.FromHours, c.PerHour, r.PerHour)
		}
		if c.Low > c.PerHour || c.High < c.PerHour || r.Low > r.PerHour || r.High < r.PerHour {
			t.Errorf("the means %.3f and %.3f lie outside of their intervals %+v, %+v", c.PerHour, r.PerHour, c, r)
		}
	}
}

func TestWhatHappenedLongAgoCountsLess(t *testing.T) {
	now := newYear
	fresh := catalog.ReckonRisk(lives("z", 10, time.Hour, true, now), priors(t), catalog.RiskQuery{}, now)
	old := catalog.ReckonRisk(lives("z", 10, time.Hour, true, now.Add(-catalog.RiskHalfLife)), priors(t), catalog.RiskQuery{}, now)
	if math.Abs(fresh[0].Interruptions-10) > 1e-9 || math.Abs(old[0].Interruptions-5) > 1e-9 {
		t.Errorf("ten interruptions count %v now and %v a half-life ago, want 10 and 5", fresh[0].Interruptions, old[0].Interruptions)
	}
	if gone := catalog.ReckonRisk(lives("z", 10, time.Hour, true, now.Add(-catalog.RiskWindow-time.Hour)), priors(t), catalog.RiskQuery{}, now); len(gone) != 0 {
		t.Errorf("lives before the window: %+v, want none", gone)
	}
}

func TestRefusedLaunchesRaiseTheHazardOfNewMachinesByAQuarterOfAnInterruptionEach(t *testing.T) {
	now := newYear
	machines := lives("scarce", 4, 10*time.Hour, false, now.Add(-time.Hour))
	for i := range 8 {
		at := now.Add(-time.Hour)
		machines = append(machines, catalog.Instance{UID: fmt.Sprint("refused-", i), Provider: "aws", Region: "r", Zone: "scarce", InstanceType: "p5", CapacityType: "spot", StartedAt: at, NoticeAt: at})
	}
	got := catalog.ReckonRisk(machines, priors(t), catalog.RiskQuery{}, now)
	if len(got) != 1 {
		t.Fatalf("%+v, want one pool", got)
	}
	// 8 × 1/4 at age 0, less what an hour's decay of 14 days' half-life takes: 2^(-1/336).
	first := got[0].HazardByAge[0]
	if want := 2 * math.Exp2(-1.0/336); math.Abs(first.Interruptions-want) > 1e-6 {
		t.Errorf("%v interruptions in the first piece, want %v", first.Interruptions, want)
	}
	calm := catalog.ReckonRisk(lives("scarce", 4, 10*time.Hour, false, now.Add(-time.Hour)), priors(t), catalog.RiskQuery{}, now)
	if first.PerHour <= calm[0].HazardByAge[0].PerHour {
		t.Errorf("hazard %v with refused launches, %v without", first.PerHour, calm[0].HazardByAge[0].PerHour)
	}
}
