// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/catalog"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func after(d time.Duration) time.Time { return noon.Add(d) }

func ptr[T any](v T) *T { return &v }

func TestWhatAnOlderNodeAgentSendsAboutGPUsIsTaken(t *testing.T) {
	sent := `{"from":"2026-11-23T12:00:00Z","to":"2026-11-23T12:01:00Z","gpus":[{"uuid":"GPU-1","model":"NVIDIA L4","samples":60,
		"powerWatts":{"mean":70,"p50":70,"p95":72,"max":72},"energyJoules":4200,"throttledSeconds":{"thermal":1,"power":2,"other":3},"doubleBitErrors":4}]}`
	strict := json.NewDecoder(strings.NewReader(sent))
	strict.DisallowUnknownFields() // as the API does
	var got catalog.Telemetry
	if err := strict.Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := catalog.GPUTelemetry{UUID: "GPU-1", Model: "NVIDIA L4", Samples: 60, EnergyJoules: 4200, DoubleBitErrors: 4,
		PowerWatts: &catalog.Distribution{Mean: 70, P50: 70, P95: 72, Max: 72}, ThrottledSeconds: &catalog.Throttling{Thermal: 1, Power: 2, Other: 3}}
	if diff := cmp.Diff([]catalog.GPUTelemetry{want}, got.GPUs); diff != "" {
		t.Errorf("the catalog reads it differently (-sent +read)\n%s", diff)
	}
}

func TestARunCostsTheHoursOfItsSegmentsAtTheirPrices(t *testing.T) {
	tests := map[string]struct {
		segments      []catalog.Segment
		usd, onDemand float64
		known         bool
	}{
		"two nodes, half an hour at $14 and a quarter at $8": { // 7 + 2 = 9; on demand 25 + 5 = 30
			[]catalog.Segment{
				{USDPerHour: 14, OnDemandUSDPerHour: 50, StartedAt: noon, EndedAt: after(30 * time.Minute)},
				{USDPerHour: 8, OnDemandUSDPerHour: 20, StartedAt: after(40 * time.Minute), EndedAt: after(55 * time.Minute)}}, 9, 30, true},
		"one that still runs counts until now": { // 2 h at $3 and $10
			[]catalog.Segment{{USDPerHour: 3, OnDemandUSDPerHour: 10, StartedAt: noon}}, 6, 20, true},
		"on demand compares with itself": {
			[]catalog.Segment{{CapacityType: "on-demand", USDPerHour: 5, StartedAt: noon, EndedAt: after(time.Hour)}}, 5, 5, true},
		"a segment without a price makes the sum unknown": {
			[]catalog.Segment{{USDPerHour: 5, OnDemandUSDPerHour: 6, StartedAt: noon, EndedAt: after(time.Hour)}, {StartedAt: noon, EndedAt: after(time.Hour)}}, 5, 6, false},
		"a clock that went backwards is no negative cost": {
			[]catalog.Segment{{USDPerHour: 5, OnDemandUSDPerHour: 6, StartedAt: noon, EndedAt: after(-time.Hour)}}, 0, 0, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			usd, onDemand, known := catalog.Cost(tt.segments, nil, after(2*time.Hour))
			if math.Abs(usd-tt.usd) > 1e-9 || math.Abs(onDemand-tt.onDemand) > 1e-9 || known != tt.known {
				t.Errorf("cost %v, on demand %v, known %v; want %v, %v, %v", usd, onDemand, known, tt.usd, tt.onDemand, tt.known)
			}
		})
	}
}

func TestTheVerdictHasAReasonForEverythingThatSpeaksAgainstTheResults(t *testing.T) {
	point := func(change func(*catalog.Result)) catalog.Result {
		r := catalog.Result{Concurrency: ptr(int64(4)), Requests: 200, Completed: 200, Spotbench: &catalog.Provenance{}}
		change(&r)
		return r
	}
	gpu := func(change func(*catalog.GPUTelemetry)) catalog.Parts {
		g := catalog.GPUTelemetry{UUID: "GPU-1", ThrottledSeconds: &catalog.Throttling{}}
		change(&g)
		return catalog.Parts{Run: catalog.Run{Status: catalog.Succeeded}, Results: []catalog.Result{point(func(*catalog.Result) {})},
			Telemetry: []catalog.Telemetry{{From: noon, To: after(1000 * time.Second), GPUs: []catalog.GPUTelemetry{g}}}}
	}
	results := func(r ...catalog.Result) catalog.Parts {
		return catalog.Parts{Run: catalog.Run{Status: catalog.Succeeded}, Results: r}
	}
	tests := map[string]struct {
		parts   catalog.Parts
		verdict catalog.Verdict
		codes   []string
	}{
		"nothing known against it":                {results(point(func(*catalog.Result) {})), catalog.Valid, nil},
		"a run that goes on":                      {catalog.Parts{Run: catalog.Run{Status: catalog.Running}}, catalog.Pending, nil},
		"a run that failed":                       {catalog.Parts{Run: catalog.Run{Status: catalog.Failed}}, catalog.Invalid, []string{"failed"}},
		"finished without a result":               {results(), catalog.Invalid, []string{"no-results"}},
		"99 requests are too few":                 {results(point(func(r *catalog.Result) { r.Completed = 99 })), catalog.Suspect, []string{"few-requests"}},
		"100 requests are enough":                 {results(point(func(r *catalog.Result) { r.Completed = 100 })), catalog.Valid, nil},
		"not one request":                         {results(point(func(r *catalog.Result) { r.Completed = 0 })), catalog.Invalid, []string{"no-requests"}},
		"a request failed":                        {results(point(func(r *catalog.Result) { r.Failed = 1 })), catalog.Suspect, []string{"failed-requests"}},
		"a point on two GPU models":               {results(point(func(r *catalog.Result) { r.Spotbench.MixedGPU = true })), catalog.Invalid, []string{"mixed-gpu"}},
		"11 of 1000 s throttled by heat":          {gpu(func(g *catalog.GPUTelemetry) { g.ThrottledSeconds.Thermal = 11 }), catalog.Suspect, []string{"throttled-thermal"}},
		"10 of 1000 s are still usual":            {gpu(func(g *catalog.GPUTelemetry) { g.ThrottledSeconds.Power = 10 }), catalog.Valid, nil},
		"a memory error":                          {gpu(func(g *catalog.GPUTelemetry) { g.DoubleBitErrors = 1 }), catalog.Invalid, []string{"memory-errors"}},
		"11 of 1000 s at the power limit":         {gpu(func(g *catalog.GPUTelemetry) { g.ThrottledSeconds.Power = 11 }), catalog.Suspect, []string{"throttled-power"}},
		"11 of 1000 s for no reason told":         {gpu(func(g *catalog.GPUTelemetry) { g.ThrottledSeconds.Other = 11 }), catalog.Suspect, []string{"throttled"}},
		"89 % of the samples at the median clock": {gpu(func(g *catalog.GPUTelemetry) { g.ClockSteadiness = ptr(0.89) }), catalog.Suspect, []string{"unsteady-clocks"}},
		"90 % of them are still usual":            {gpu(func(g *catalog.GPUTelemetry) { g.ClockSteadiness = ptr(0.9) }), catalog.Valid, nil},
		// 1700 MHz is 94.4 % of 1800 MHz.
		"a busy GPU below its clock in the mean": {gpu(func(g *catalog.GPUTelemetry) {
			g.SMClockMHz, g.Utilization = &catalog.Distribution{Mean: 1700, P95: 1800}, &catalog.Distribution{Mean: 90}
		}), catalog.Suspect, []string{"unsteady-clocks"}},
		"an idle GPU lowers its clock": {gpu(func(g *catalog.GPUTelemetry) {
			g.SMClockMHz, g.Utilization = &catalog.Distribution{Mean: 700, P95: 1800}, &catalog.Distribution{Mean: 89}
		}), catalog.Valid, nil},
		"an error of the hardware":        {gpu(func(g *catalog.GPUTelemetry) { g.XIDs = []catalog.XIDCount{{Code: 79, Count: 1, Cause: "hardware"}} }), catalog.Invalid, []string{"gpu-error"}},
		"an error of the program":         {gpu(func(g *catalog.GPUTelemetry) { g.XIDs = []catalog.XIDCount{{Code: 31, Count: 2, Cause: "application"}} }), catalog.Suspect, []string{"gpu-error"}},
		"a row of memory replaced":        {gpu(func(g *catalog.GPUTelemetry) { g.RemappedRows = 1 }), catalog.Suspect, []string{"rows-remapped"}},
		"11 of 1000 s beside another pod": {gpu(func(g *catalog.GPUTelemetry) { g.NeighbourSeconds = 11 }), catalog.Suspect, []string{"neighbour"}},
		"a neighbour for 10 of 1000 s":    {gpu(func(g *catalog.GPUTelemetry) { g.NeighbourSeconds = 10 }), catalog.Valid, nil},
		"interrupted, and a file that does not tell when it was measured": {catalog.Parts{Run: catalog.Run{Status: catalog.Succeeded},
			Segments:      []catalog.Segment{{GPUModel: "H100-80GB"}, {GPUModel: "H100-80GB"}},
			Interruptions: []catalog.Interruption{{}},
			Telemetry:     []catalog.Telemetry{{}}, Results: []catalog.Result{{Requests: 200, Completed: 200}}}, catalog.Suspect, []string{"interrupted"}},
		// 79 of 100 s are less than 80 %.
		"telemetry of 79 of 100 s": {catalog.Parts{Run: catalog.Run{Status: catalog.Succeeded},
			Segments:  []catalog.Segment{{PodUID: "p", StartedAt: noon, EndedAt: after(100 * time.Second)}},
			Telemetry: []catalog.Telemetry{{PodUID: "p", From: noon, To: after(79 * time.Second)}}, Results: []catalog.Result{point(func(*catalog.Result) {})}}, catalog.Suspect, []string{"telemetry-gap"}},
		"the worst reason decides": {results(point(func(r *catalog.Result) { r.Failed = 1 }), point(func(r *catalog.Result) { r.Completed = 0 })),
			catalog.Invalid, []string{"failed-requests", "no-requests"}},
		"two GPU models and a file that does not tell which": {catalog.Parts{Run: catalog.Run{Status: catalog.Succeeded},
			Segments:  []catalog.Segment{{GPUModel: "H100-80GB"}, {GPUModel: "A100-80GB"}},
			Telemetry: []catalog.Telemetry{{}}, Results: []catalog.Result{{Requests: 200, Completed: 200}}}, catalog.Invalid, []string{"mixed-gpu"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := catalog.Judge(tt.parts)
			var codes []string
			for _, r := range got.Reasons {
				codes = append(codes, r.Code)
				for _, text := range []string{r.Message, r.Suggestion} {
					if !strings.HasSuffix(text, ".") {
						t.Errorf("%q is no sentence", text)
					}
				}
			}
			slices.Sort(codes)
			if diff := cmp.Diff(tt.codes, codes); got.Verdict != tt.verdict || diff != "" {
				t.Errorf("verdict %s, want %s; reasons (-want +got)\n%s", got.Verdict, tt.verdict, diff)
			}
		})
	}
}

func TestARunThatSucceededStaysSoWhateverArrivesLate(t *testing.T) {
	first := catalog.Run{Status: catalog.Running, Node: "h100-spot-0", StartedAt: after(time.Minute)}
	done := first.Merge(catalog.Run{Status: catalog.Succeeded, Node: "a100-spot-0", FinishedAt: after(time.Hour)})
	late := done.Merge(catalog.Run{Status: catalog.Interrupted, Node: "h100-spot-0", Model: "m", StartedAt: noon})
	want := catalog.Run{Status: catalog.Succeeded, Node: "a100-spot-0", Model: "m", StartedAt: noon, FinishedAt: after(time.Hour)}
	if diff := cmp.Diff(want, late); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if again := done.Merge(catalog.Run{}); !cmp.Equal(again, done) {
		t.Error("an update that says nothing changed the run")
	}
}

func TestAnInterruptionIsTheSameInWhateverOrderItsPhasesAreTold(t *testing.T) {
	told := []catalog.Interruption{
		{Kind: "spot", Node: "h100-spot-0", NoticeAt: noon},
		{TaintedAt: after(time.Second)},
		{CheckpointedAt: after(3 * time.Second), CheckpointGeneration: 7, CheckpointBytes: 100},
		{EvictedAt: after(4 * time.Second), WorkLostSeconds: ptr(0.5), Outcome: "saved"},
		{RestoredAt: after(60 * time.Second)},
		{RunningAgainAt: after(70 * time.Second)},
	}
	var want catalog.Interruption
	for _, part := range told {
		want = want.Merge(part)
	}
	if n := len(want.Phases()); n != 5 {
		t.Fatalf("%d phases, want 5", n)
	}
	rapid.Check(t, func(r *rapid.T) {
		var got catalog.Interruption
		for _, part := range rapid.Permutation(told).Draw(r, "order") {
			got = got.Merge(part).Merge(part) // a retry tells it twice
		}
		if diff := cmp.Diff(want, got); diff != "" {
			r.Errorf("-want +got\n%s", diff)
		}
	})
}

func TestOnlyKeysThatBenchspecMakesAreRunKeys(t *testing.T) {
	for key, good := range map[string]bool{
		"gpu-workloads/llama-sweep-1a2b3c4d": true, "ns/a.b_c": true, "plain": true,
		"": false, "/x": false, "x/": false, "ns//x": false, "ns/../x": false, "NS/x": false, "ns/x y": false, "ns/" + strings.Repeat("x", 512): false,
	} {
		if err := catalog.ValidateKey(key); (err == nil) != good {
			t.Errorf("key %.40q: error %v, want good %v", key, err, good)
		}
	}
}

func TestWhatAFileDoesNotTellIsSuspectAndNotTakenForZero(t *testing.T) {
	tests := map[string]struct {
		result catalog.Result
		code   string
	}{
		"no count of requests":                  {catalog.Result{Unknown: []string{"requests", "completed"}}, "requests-unknown"},
		"a count that is zero":                  {catalog.Result{}, "no-requests"},
		"LoadGen's own verdict that it is none": {catalog.Result{Requests: 200, Completed: 200, Settings: map[string]string{"validity": "INVALID"}}, "refused-by-tool"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v := catalog.Judge(catalog.Parts{Run: catalog.Run{Status: catalog.Succeeded}, Results: []catalog.Result{tt.result}})
			if len(v.Reasons) != 1 || v.Reasons[0].Code != tt.code {
				t.Errorf("reasons %+v, want %s alone", v.Reasons, tt.code)
			}
		})
	}
}

func TestTheEnergyOfAGPUThatTwoInstancesTellCountsOnce(t *testing.T) {
	got := catalog.Telemetry{GPUs: []catalog.GPUTelemetry{
		{UUID: "MIG-a", GPUUUID: "GPU-1", EnergyJoules: 100}, {UUID: "MIG-b", GPUUUID: "GPU-1", EnergyJoules: 100},
		{UUID: "GPU-2", EnergyJoules: 7}, {UUID: "GPU-3", EnergyJoules: 7},
	}}.EnergyJoules()
	if got != 114 {
		t.Errorf("%g J, want 100 + 7 + 7", got)
	}
}
