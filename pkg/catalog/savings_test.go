// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/catalog"
)

var newYear = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)

// twoPods is a run of ten hours on spot for $2 an hour ($5 on demand), of which
// the first pod lost half an hour, with New Year six hours after its start.
func twoPods() []catalog.Spending {
	spot := func(from, to time.Duration, zone string) catalog.Segment {
		return catalog.Segment{Region: "us-east-1", Zone: zone, InstanceType: "p5.48xlarge", CapacityType: "spot", USDPerHour: 2, OnDemandUSDPerHour: 5,
			StartedAt: newYear.Add(from), EndedAt: newYear.Add(to)}
	}
	return []catalog.Spending{
		{RunKey: "team-a/sweep", Model: "llama", Namespace: "team-a", Segment: spot(-6*time.Hour, -2*time.Hour, "us-east-1a"), Interruptions: 1, WorkLostSeconds: 1800},
		{RunKey: "team-a/sweep", Model: "llama", Namespace: "team-a", Segment: spot(-2*time.Hour, 4*time.Hour, "us-east-1b")},
	}
}

func TestSavingsAreReckonedAgainstOnDemandWithoutTheWorkDoneTwice(t *testing.T) {
	report := catalog.Save(twoPods(), catalog.SavingsQuery{By: catalog.ByModel}, newYear.Add(24*time.Hour))
	want := catalog.Savings{
		Runs: 1, Hours: 10, PaidUSD: 20, ComparedUSD: 20, // 10 h × $2
		OnDemandUSD:  47.5,                                  // 9.5 h × $5
		BoundUSD:     19,                                    // 9.5 h × $2
		SavedPercent: 100 * (1 - 20/47.5), BoundPercent: 60, // 1 - 2/5
		Interruptions: 1, WorkLostSeconds: 1800,
	}
	if got := report.Total; !near(got, want) {
		t.Errorf("total %+v,\nwant %+v", got, want)
	}
	want.Key = "llama"
	if len(report.Lines) != 1 || !near(report.Lines[0], want) {
		t.Errorf("lines %+v, want the one of llama", report.Lines)
	}
}

func near(a, b catalog.Savings) bool {
	close := func(x, y float64) bool { return math.Abs(x-y) < 1e-9 }
	return a.Key == b.Key && a.Runs == b.Runs && a.Interruptions == b.Interruptions && close(a.Hours, b.Hours) && close(a.PaidUSD, b.PaidUSD) &&
		close(a.OnDemandUSD, b.OnDemandUSD) && close(a.BoundUSD, b.BoundUSD) && close(a.SavedPercent, b.SavedPercent) && close(a.BoundPercent, b.BoundPercent) &&
		close(a.WorkLostSeconds, b.WorkLostSeconds) && close(a.UnpricedHours, b.UnpricedHours) && close(a.UncomparedHours, b.UncomparedHours) && close(a.ComparedUSD, b.ComparedUSD)
}

func TestASegmentThatCrossesTheTurnOfAMonthIsSplitThere(t *testing.T) {
	report := catalog.Save(twoPods(), catalog.SavingsQuery{By: catalog.ByMonth}, newYear.Add(24*time.Hour))
	if len(report.Lines) != 2 || report.Lines[0].Key != "2026-12" || report.Lines[0].PaidUSD != 12 || report.Lines[1].Key != "2027-01" || report.Lines[1].PaidUSD != 8 {
		t.Errorf("lines %+v, want $12 (6 h) in 2026-12 and $8 (4 h) in 2027-01", report.Lines)
	}
}

func TestOnlyWhatFallsIntoTheTimeAskedForIsCounted(t *testing.T) {
	report := catalog.Save(twoPods(), catalog.SavingsQuery{By: catalog.ByPool, From: newYear.Add(-3 * time.Hour), To: newYear.Add(time.Hour)}, newYear.Add(24*time.Hour))
	// 1 h of the first pod, with the half hour it lost at its end, and 3 h of the second.
	if len(report.Lines) != 2 || report.Lines[0].Key != "us-east-1/us-east-1b/p5.48xlarge/spot" || report.Lines[0].PaidUSD != 6 || report.Lines[1].OnDemandUSD != 2.5 {
		t.Errorf("lines %+v, want $6 in us-east-1b, and in us-east-1a half an hour that counts, $2.50 on demand", report.Lines)
	}
}

func TestASegmentThatStillRunsIsCountedUntilNowAndOneWithoutAPriceIsSaid(t *testing.T) {
	now := newYear.Add(time.Hour)
	report := catalog.Save([]catalog.Spending{
		{RunKey: "a", Namespace: "x", Segment: catalog.Segment{CapacityType: "on-demand", USDPerHour: 5, StartedAt: newYear}},
		{RunKey: "b", Namespace: "x", Segment: catalog.Segment{CapacityType: "spot", OnDemandUSDPerHour: 5, StartedAt: newYear}},
		{RunKey: "c", Namespace: "x", Segment: catalog.Segment{CapacityType: "spot", USDPerHour: 3, StartedAt: newYear}},
	}, catalog.SavingsQuery{By: catalog.ByNamespace}, now)
	want := catalog.Savings{Key: "x", Runs: 3, Hours: 3, UnpricedHours: 1, UncomparedHours: 1, PaidUSD: 8, ComparedUSD: 5, OnDemandUSD: 5, BoundUSD: 5}
	if len(report.Lines) != 1 || !near(report.Lines[0], want) {
		t.Errorf("lines %+v, want %+v: on demand saves nothing, an hour has no price, and one nothing to compare with", report.Lines, want)
	}
}

func TestEveryBreakdownAddsUpToTheSameTotalAndToTheCent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		items := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) catalog.Spending {
			start := newYear.Add(time.Duration(rapid.Int64Range(-2e6, 2e6).Draw(t, "start")) * time.Second)
			return catalog.Spending{
				RunKey: "run-" + strconv.Itoa(rapid.IntRange(0, 5).Draw(t, "run")), Model: rapid.SampledFrom([]string{"llama", "qwen", ""}).Draw(t, "model"),
				Namespace: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace"), WorkLostSeconds: rapid.Float64Range(0, 7200).Draw(t, "lost"),
				Segment: catalog.Segment{Zone: rapid.SampledFrom([]string{"1", "2"}).Draw(t, "zone"), CapacityType: "spot",
					USDPerHour: rapid.Float64Range(0, 100).Draw(t, "price"), OnDemandUSDPerHour: rapid.Float64Range(0, 100).Draw(t, "on-demand"),
					StartedAt: start, EndedAt: start.Add(time.Duration(rapid.Int64Range(0, 3e6).Draw(t, "seconds")) * time.Second)},
			}
		}), 0, 12).Draw(t, "items")
		var totals []string
		for _, by := range []catalog.SavingsBy{catalog.ByModel, catalog.ByPool, catalog.ByNamespace, catalog.ByMonth, catalog.ByRun} {
			report := catalog.Save(items, catalog.SavingsQuery{By: by}, newYear.Add(1e4*time.Hour))
			var paid, demand int64
			for _, l := range report.Lines {
				paid += int64(math.Round(l.PaidUSD * 1e6))
				demand += int64(math.Round(l.OnDemandUSD * 1e6))
			}
			if paid != int64(math.Round(report.Total.PaidUSD*1e6)) || demand != int64(math.Round(report.Total.OnDemandUSD*1e6)) {
				t.Errorf("by %s: the lines add up to %d and %d millionths of a dollar, the total says %v and %v", by, paid, demand, report.Total.PaidUSD, report.Total.OnDemandUSD)
			}
			totals = append(totals, strconv.FormatInt(paid, 10))
			printed := report.InCents()
			cents := func(usd float64) int64 { return int64(math.Round(100 * usd)) }
			paid, demand = 0, 0
			for i, l := range printed.Lines {
				paid += cents(l.PaidUSD)
				demand += cents(l.OnDemandUSD)
				if math.Abs(l.PaidUSD-report.Lines[i].PaidUSD) >= 0.0100001 {
					t.Errorf("by %s: $%v is printed as $%v", by, report.Lines[i].PaidUSD, l.PaidUSD)
				}
			}
			if paid != cents(report.Total.PaidUSD) || demand != cents(report.Total.OnDemandUSD) {
				t.Errorf("by %s: printed lines add up to %d and %d cents, the total is $%v and $%v", by, paid, demand, report.Total.PaidUSD, report.Total.OnDemandUSD)
			}
			if by == catalog.ByRun {
				eachRunAddsUpToItsLine(t, items, report)
			}
		}
		for _, total := range totals {
			if total != totals[0] {
				t.Errorf("totals by breakdown differ: %s", strings.Join(totals, ", "))
			}
		}
	})
}

func TestABreakdownThatIsUnknownIsRefusedWithTheOnesThereAre(t *testing.T) {
	err := catalog.SavingsQuery{By: "colour"}.Validate()
	if err == nil || !strings.Contains(err.Error(), `"colour"`) || !strings.Contains(err.Error(), "namespace") {
		t.Errorf("error %v, want one that names the value and the breakdowns", err)
	}
}

// eachRunAddsUpToItsLine holds what a run says it cost to the report's line of it.
func eachRunAddsUpToItsLine(t *rapid.T, items []catalog.Spending, report catalog.SavingsReport) {
	for _, line := range report.Lines {
		parts := catalog.Parts{Run: catalog.Run{Status: catalog.Succeeded}}
		for i, item := range items {
			if item.RunKey != line.Key {
				continue
			}
			item.Segment.PodUID = strconv.Itoa(i)
			parts.Segments = append(parts.Segments, item.Segment)
			parts.Interruptions = append(parts.Interruptions, catalog.Interruption{PodUID: item.Segment.PodUID, WorkLostSeconds: &items[i].WorkLostSeconds})
		}
		run := catalog.Describe(parts, newYear.Add(1e4*time.Hour))
		if math.Round(1e6*run.CostUSD) != math.Round(1e6*line.PaidUSD) || math.Round(1e6*run.OnDemandCostUSD) != math.Round(1e6*line.OnDemandUSD) {
			t.Errorf("%s says it cost $%v ($%v on demand), the report $%v and $%v", line.Key, run.CostUSD, run.OnDemandCostUSD, line.PaidUSD, line.OnDemandUSD)
		}
	}
}
