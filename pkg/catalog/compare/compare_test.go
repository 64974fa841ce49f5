// SPDX-License-Identifier: Apache-2.0

package compare_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/compare"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func ptr[T any](v T) *T { return &v }

// runsOf are valid runs of a configuration, one for each throughput in tokens/s at
// concurrency 8. Each took an hour at $3.60, on one GPU.
func runsOf(gpu, engineVersion string, throughputs ...float64) []catalog.Detail {
	var out []catalog.Detail
	for n, v := range throughputs {
		key := strings.ToLower(fmt.Sprintf("lab/%s-%s-%d", gpu, engineVersion, n))
		out = append(out, catalog.Describe(catalog.Parts{
			Run:       catalog.Run{Key: key, Model: "org/m", Benchmark: "chat", Status: catalog.Succeeded, GPUModel: gpu, GPUCount: 1, Engine: "vllm", EngineVersion: engineVersion},
			Segments:  []catalog.Segment{{PodUID: "p", GPUModel: gpu, CapacityType: "on-demand", USDPerHour: 3.6, StartedAt: noon, EndedAt: noon.Add(time.Hour)}},
			Telemetry: []catalog.Telemetry{{PodUID: "p", From: noon, To: noon.Add(time.Hour)}},
			Results: []catalog.Result{{Concurrency: ptr(int64(8)), Requests: 200, Completed: 200, InputTokens: 200 * 1000, OutputTokens: 200 * 500, OutputThroughput: &v,
				TTFT: &catalog.Latency{P99Ms: ptr(1e5 / v)}}},
		}, noon.Add(2*time.Hour)))
	}
	return out
}

func line(t *testing.T, r compare.Report, metric string) compare.Line {
	t.Helper()
	for _, l := range r.Lines {
		if l.Metric == metric {
			return l
		}
	}
	t.Fatalf("no line of %s in %+v", metric, r.Lines)
	return compare.Line{}
}

func TestADifferenceIsCalledOneOnlyIfSoManyRunsCanShowIt(t *testing.T) {
	slow, fast := []float64{100, 101, 102, 103, 104, 105}, []float64{120, 121, 122, 123, 124, 125}
	for name, tt := range map[string]struct {
		base, other []float64
		effect      compare.Effect
		interval    bool
	}{
		"one run each is two bare numbers": {slow[:1], fast[:1], compare.Untested, false},
		"three each cannot be significant": {slow[:3], fast[:3], compare.Untested, false}, // the least p is 2/20 = 0.1
		"four each can":                    {slow[:4], fast[:4], compare.Better, false},   // 2/70 = 0.029
		"two beside six can not":           {slow[:2], fast, compare.Untested, true},      // 2/28 = 0.071
		"two beside eight can":             {slow[:2], append(fast, 126, 127), compare.Better, true},
		"six each have intervals":          {slow, fast, compare.Better, true},
		"the other way it is worse":        {fast, slow, compare.Worse, true},
		"the same six":                     {slow, slow, compare.Unproven, true},
		"all of one value":                 {[]float64{7, 7, 7, 7, 7, 7}, []float64{7, 7, 7, 7, 7, 7}, compare.Unproven, true},
	} {
		t.Run(name, func(t *testing.T) {
			report, err := compare.Compare(append(runsOf("A100-80GB", "1", tt.base...), runsOf("H100-80GB", "1", tt.other...)...), compare.Options{By: []string{"gpuModel"}})
			if err != nil {
				t.Fatal(err)
			}
			cell := line(t, report, "outputThroughput").Cells[1]
			if cell.ToBase.Effect != tt.effect {
				t.Errorf("effect %s, want %s; %+v", cell.ToBase.Effect, tt.effect, cell.ToBase)
			}
			if (cell.Low != nil) != tt.interval || !tt.interval && cell.Note == "" {
				t.Errorf("interval %v to %v, note %q; want one: %v", cell.Low, cell.High, cell.Note, tt.interval)
			}
		})
	}
}

func TestACostIsPriceByThroughputAndLessIsBetter(t *testing.T) {
	report, err := compare.Compare(append(runsOf("A100-80GB", "1", 100, 100, 100, 101), runsOf("H100-80GB", "1", 200, 200, 200, 201)...), compare.Options{By: []string{"gpuModel"}})
	if err != nil {
		t.Fatal(err)
	}
	// $3.60 an hour is $0.001 a second: at 100 tokens/s, $10 per million.
	l := line(t, report, "usdPerMillionOutputTokens")
	if got := *l.Cells[0].Median; math.Abs(got-10) > 1e-9 {
		t.Errorf("cost %v, want 10", got)
	}
	if d := l.Cells[1].ToBase; d.Effect != compare.Better || math.Abs(*d.DeltaPercent+50) > 1e-9 {
		t.Errorf("half the cost is %+v, want better by 50 %%", d)
	}
}

func TestWhatCannotBeComparedIsSaidWithTheWayOut(t *testing.T) {
	many := []catalog.Detail{}
	for n := range 9 {
		many = append(many, runsOf(fmt.Sprintf("GPU-%d", n), "1", 100)...)
	}
	failed := runsOf("A100-80GB", "1", 100)
	failed[0].Validity.Verdict = catalog.Invalid
	for name, tt := range map[string]struct {
		runs []catalog.Detail
		o    compare.Options
		want []string
	}{
		"nothing":                {nil, compare.Options{}, []string{"no run", "/v1/runs"}},
		"a single configuration": {runsOf("A100-80GB", "1", 1, 2), compare.Options{By: []string{"gpuModel"}}, []string{"one configuration", "A100-80GB", "by"}},
		"nine configurations":    {many, compare.Options{By: []string{"gpuModel"}}, []string{"9 configurations", "at most 8"}},
		"a dimension":            {many, compare.Options{By: []string{"colour"}}, []string{`"colour"`, "engineVersion"}},
		"a base":                 {many[:2], compare.Options{Base: "x"}, []string{`"x"`, "gpu-0"}},
		"invalid runs":           {failed, compare.Options{}, []string{"1 runs", "invalid"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := compare.Compare(tt.runs, tt.o)
			if !errors.Is(err, catalog.ErrInvalid) {
				t.Fatalf("error %v, want ErrInvalid", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
		})
	}
}

func TestOtherWorkloadsAreNotedAndTheBaseCanBeChosen(t *testing.T) {
	runs := append(runsOf("A100-80GB", "1", 100), runsOf("H100-80GB", "1", 200)...)
	runs[1].Results[0].InputTokens *= 2
	report, err := compare.Compare(runs, compare.Options{By: []string{"gpuModel"}, Base: "H100-80GB"})
	if err != nil {
		t.Fatal(err)
	}
	if report.Configurations[0].Name != "H100-80GB" {
		t.Errorf("the base is %s", report.Configurations[0].Name)
	}
	if notes := strings.Join(report.Notes, " "); !strings.Contains(notes, "1000 to 2000 input tokens a request") || !strings.Contains(notes, "4 runs each") {
		t.Errorf("notes %q", notes)
	}
}

// TestSwappingTheBaseTurnsTheEffectAround: whatever was measured, worse one way is
// better the other way, with the same p.
func TestSwappingTheBaseTurnsTheEffectAround(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(1, 1000), 1, 9)
		a, b := runsOf("A", "1", values.Draw(t, "a")...), runsOf("B", "1", values.Draw(t, "b")...)
		effect := func(base string) compare.Difference {
			report, err := compare.Compare(append(a, b...), compare.Options{By: []string{"gpuModel"}, Base: base})
			if err != nil {
				t.Fatal(err)
			}
			return *report.Lines[0].Cells[1].ToBase
		}
		x, y := effect("A"), effect("B")
		opposite := map[compare.Effect]compare.Effect{compare.Better: compare.Worse, compare.Worse: compare.Better, compare.Unproven: compare.Unproven, compare.Untested: compare.Untested}
		if y.Effect != opposite[x.Effect] || (x.P == nil) != (y.P == nil) || x.P != nil && math.Abs(*x.P-*y.P) > 1e-9 {
			t.Fatalf("%+v and, swapped, %+v", x, y)
		}
	})
}

func TestARegressionIsASignificantLossAboveTheThresholdFromOneVersionToTheNext(t *testing.T) {
	runs := runsOf("H100-80GB", "0.9.2", 200, 201, 202, 203)
	runs = append(runs, runsOf("H100-80GB", "0.10.0", 150, 151, 152, 153)...) // 0.10 is newer than 0.9
	runs = append(runs, runsOf("H100-80GB", "0.10.1", 148, 149, 150, 151)...) // by 1.3 %: below the threshold
	runs = append(runs, runsOf("L4-24GB", "0.9.2", 50)...)
	runs = append(runs, runsOf("L4-24GB", "0.10.0", 20)...) // one run each tells nothing
	got, err := compare.Regress(runs, "engineVersion", 5)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Items) == 0 || got.Untested == 0 {
		t.Fatalf("%+v, want regressions and untested comparisons", got)
	}
	metrics := map[string]bool{}
	for _, c := range got.Items {
		metrics[c.Metric] = true
		if c.From != "0.9.2" || c.To != "0.10.0" || c.Of["gpuModel"] != "H100-80GB" || c.Effect != compare.Worse {
			t.Errorf("%+v, want only 0.9.2 to 0.10.0 on the H100", c)
		}
	}
	// From the medians 201.5 to 151.5: -24.8 %.
	if !metrics["outputThroughput"] || !metrics["ttftP99Ms"] || !metrics["usdPerMillionOutputTokens"] {
		t.Errorf("metrics %v, want throughput, latency and cost", metrics)
	}
	if _, err := compare.Regress(runs, "colour", 5); !errors.Is(err, catalog.ErrInvalid) {
		t.Errorf("error %v for a version that is none", err)
	}
}

func TestTheFrontierIsOfMediansAndOfWhatIsKnown(t *testing.T) {
	runs := append(runsOf("A100-80GB", "1", 100, 110, 120), runsOf("H100-80GB", "1", 200)...)
	unpriced := runsOf("B200-180GB", "1", 50)
	for n := range unpriced[0].Segments {
		unpriced[0].Segments[n].USDPerHour = 0
	}
	runs = append(runs, unpriced...)
	got, err := compare.FindFrontier(runs, compare.FrontierOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// Twice the throughput at the same price is cheaper, and its TTFT shorter.
	if len(got.Choices) != 3 || !got.Choices[0].Frontier || got.Choices[1].Frontier || *got.Choices[1].Throughput.Median != 110 || got.Incomplete != 1 || got.Choices[2].Complete {
		t.Errorf("%+v", got)
	}
	two, err := compare.FindFrontier(runs, compare.FrontierOptions{Objectives: []compare.Objective{compare.Throughput, compare.Latency}, Latency: "ttftP99Ms"})
	if err != nil || len(two.Choices) != 3 || two.Incomplete != 0 {
		t.Errorf("without cost: %+v, %v", two, err)
	}
	for _, o := range []compare.FrontierOptions{{Objectives: []compare.Objective{"cost"}}, {Objectives: []compare.Objective{"fun", "cost"}}, {Latency: "outputThroughput"}} {
		if _, err := compare.FindFrontier(runs, o); !errors.Is(err, catalog.ErrInvalid) {
			t.Errorf("%+v: error %v", o, err)
		}
	}
}

func TestPointsOfOneRunAtOneLoadAreRepetitionsOnlyWithTheSameSettings(t *testing.T) {
	point := func(hardware string, started string, v float64) catalog.Result {
		return catalog.Result{Concurrency: ptr(int64(4)), Requests: 200, Completed: 200, OutputThroughput: &v, Settings: map[string]string{"hw": hardware, "tp": "8", "start_time": started}}
	}
	run := catalog.Describe(catalog.Parts{Run: catalog.Run{Key: "lab/all", Status: catalog.Succeeded, GPUCount: 1},
		Results: []catalog.Result{point("b200", "1", 100), point("b200", "2", 102), point("h100", "3", 50)}}, noon)
	got, err := compare.FindFrontier([]catalog.Detail{run}, compare.FrontierOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Choices) != 2 || got.Choices[0].Load.Variant != "hw b200" || got.Choices[0].Throughput.N != 2 || got.Choices[1].Load.Variant != "hw h100" || got.Choices[1].Throughput.N != 1 {
		t.Errorf("%+v, want two points on b200 and one on h100", got.Choices)
	}
}

func TestAFrontierOfNothingIsAnEmptyListAndNoNull(t *testing.T) {
	got, err := compare.FindFrontier(nil, compare.FrontierOptions{})
	if err != nil || got.Choices == nil || len(got.Choices) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
