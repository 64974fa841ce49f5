// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"slices"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/telemetry"
	"github.com/spotbench/spotbench/pkg/telemetry/health"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func second(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }

type values map[telemetry.Metric]float64

func sample(v values) telemetry.Reading {
	s := telemetry.Sample{Device: telemetry.Device{UUID: "GPU-0"}}
	s.Set(telemetry.GPUTemp, 60)
	for m, value := range v {
		s.Set(m, value)
	}
	return telemetry.Reading{Samples: []telemetry.Sample{s}}
}

func xid(code int) telemetry.Reading {
	r := sample(nil)
	r.XIDs = []telemetry.XID{{GPU: "GPU-0", Code: code}}
	return r
}

var (
	fine    = sample(nil)
	lost    = telemetry.Reading{Lost: []telemetry.Lost{{UUID: "GPU-0", Cause: "the driver has lost it"}}}
	nothing = telemetry.Reading{}
	hot     = sample(values{telemetry.ClockEvents: float64(telemetry.ReasonHWThermal)})
	cool    = sample(values{telemetry.ClockEvents: 0})
	brake   = sample(values{telemetry.ClockEvents: float64(telemetry.ReasonHWPowerBrake)})
	capped  = sample(values{telemetry.ClockEvents: float64(telemetry.ReasonSWPowerCap)})
)

// span is the same reading every second, from the second from up to and with to.
type span struct {
	from, to int
	reading  telemetry.Reading
}

func TestIncidents(t *testing.T) {
	tests := map[string]struct {
		spans []span
		at    int
		want  []health.Kind
	}{
		"a GPU that reads well":               {spans: []span{{0, 100, fine}}, at: 100},
		"XID 79 and then the loss":            {spans: []span{{0, 10, fine}, {11, 11, xid(79)}, {12, 20, lost}}, at: 20, want: []health.Kind{health.XID, health.Lost}},
		"a lost GPU that answers again":       {spans: []span{{0, 10, fine}, {11, 20, lost}, {21, 22, fine}}, at: 22},
		"its XID takes 5 min more":            {spans: []span{{0, 10, fine}, {11, 11, xid(79)}, {12, 310, fine}}, at: 310, want: []health.Kind{health.XID}},
		"and is over then":                    {spans: []span{{0, 10, fine}, {11, 11, xid(79)}, {12, 311, fine}}, at: 311},
		"another XID begins the 5 min anew":   {spans: []span{{0, 0, xid(48)}, {1, 200, fine}, {201, 201, xid(48)}, {202, 310, fine}}, at: 310, want: []health.Kind{health.XID}},
		"XID 13, 31, 43, 45 are a program's":  {spans: []span{{0, 0, xid(13)}, {1, 1, xid(31)}, {2, 2, xid(43)}, {3, 3, xid(45)}}, at: 3},
		"an unknown XID is none of ours":      {spans: []span{{0, 0, xid(999)}}, at: 0},
		"a GPU missing for 9 s":               {spans: []span{{0, 10, fine}}, at: 19},
		"a library that does not answer":      {spans: []span{{0, 10, fine}, {11, 40, nothing}}, at: 40},
		"an uncorrectable memory error":       {spans: []span{{0, 10, sample(values{telemetry.ECCDoubleBit: 1})}}, at: 10, want: []health.Kind{health.DoubleBit}},
		"until the driver is loaded again":    {spans: []span{{0, 10, sample(values{telemetry.ECCDoubleBit: 1})}, {11, 11, sample(values{telemetry.ECCDoubleBit: 0})}}, at: 11},
		"a GPU that says nothing of it":       {spans: []span{{0, 10, sample(values{telemetry.ECCDoubleBit: 1})}, {11, 11, fine}}, at: 11, want: []health.Kind{health.DoubleBit}},
		"corrected errors are no incident":    {spans: []span{{0, 10, sample(values{telemetry.ECCSingleBit: 1e6})}}, at: 10},
		"a row that cannot be remapped":       {spans: []span{{0, 0, sample(values{telemetry.RowRemapFailure: 1})}}, at: 0, want: []health.Kind{health.RowRemap}},
		"59 s of heat":                        {spans: []span{{0, 0, cool}, {1, 59, hot}}, at: 59},
		"60 s of heat":                        {spans: []span{{0, 0, cool}, {1, 60, hot}}, at: 60, want: []health.Kind{health.Thermal}},
		"60 s of heat within 5 min":           {spans: []span{{0, 0, cool}, {1, 30, hot}, {31, 260, cool}, {261, 290, hot}}, at: 290, want: []health.Kind{health.Thermal}},
		"60 s of heat in more than 5 min":     {spans: []span{{0, 0, cool}, {1, 30, hot}, {31, 330, cool}, {331, 360, hot}}, at: 360},
		"heat is over when half of it is old": {spans: []span{{0, 0, cool}, {1, 60, hot}, {61, 331, cool}}, at: 331},
		"the power brake for 60 s":            {spans: []span{{0, 0, cool}, {1, 60, brake}}, at: 60, want: []health.Kind{health.PowerBrake}},
		"the power cap is normal operation":   {spans: []span{{0, 0, cool}, {1, 200, capped}}, at: 200},
		"a link down for 9 s":                 {spans: []span{{0, 5, sample(values{telemetry.NVLinksUp: 18})}, {6, 15, sample(values{telemetry.NVLinksUp: 17})}}, at: 15},
		"a link down for 10 s":                {spans: []span{{0, 5, sample(values{telemetry.NVLinksUp: 18})}, {6, 16, sample(values{telemetry.NVLinksUp: 17})}}, at: 16, want: []health.Kind{health.NVLink}},
		"links that never were up":            {spans: []span{{0, 60, sample(values{telemetry.NVLinksUp: 0, telemetry.NVLinksDown: 12})}}, at: 60},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tracker := health.New(health.Limits{}, start)
			for _, s := range tt.spans {
				for n := s.from; n <= s.to; n++ {
					tracker.Observe(second(n), s.reading)
					s.reading.XIDs = nil
				}
			}
			var got []health.Kind
			for _, i := range tracker.Status(second(tt.at)).Incidents {
				got = append(got, i.Kind)
				if i.GPU != "GPU-0" || i.Message == "" {
					t.Errorf("incident %+v", i)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("incidents %v, want %v", got, tt.want)
			}
		})
	}
}

func TestAGPUThatTheDriverNoLongerListsIsLostAfterAMoment(t *testing.T) {
	tracker := health.New(health.Limits{}, start)
	other := telemetry.Reading{Samples: []telemetry.Sample{{Device: telemetry.Device{UUID: "GPU-1", Index: 1}}}}
	other.Samples[0].Set(telemetry.GPUTemp, 50)
	both := telemetry.Reading{Samples: append(slices.Clone(fine.Samples), other.Samples...)}
	tracker.Observe(second(0), both)
	for n := 1; n <= 10; n++ {
		if got := tracker.Status(second(n)); len(got.Incidents) != 0 {
			t.Fatalf("after %d s: %+v", n, got.Incidents)
		}
		tracker.Observe(second(n), other)
	}
	if got := tracker.Status(second(10)); len(got.Incidents) != 1 || got.Incidents[0].Kind != health.Lost || got.GPUs != 2 {
		t.Errorf("after 10 s: %+v", got)
	}
}

func TestAGPUThatWasLostBeforeItWasEverReadIsKnownByItsNumber(t *testing.T) {
	tracker := health.New(health.Limits{}, start)
	tracker.Observe(second(0), telemetry.Reading{Lost: []telemetry.Lost{{Index: 0, Cause: "the driver has lost it"}}})
	if got := tracker.Status(second(0)).Incidents; len(got) != 1 || got[0].GPU != "GPU 0" {
		t.Errorf("incidents %+v", got)
	}
	tracker.Observe(second(1), fine)
	if got := tracker.Status(second(1)); len(got.Incidents) != 0 || got.GPUs != 1 {
		t.Errorf("after it was read: %+v", got)
	}
}

func TestNothingIsKnownBeforeTheFirstReadingAndAMinuteAfterTheLast(t *testing.T) {
	tracker := health.New(health.Limits{}, start)
	tracker.Observe(second(0), nothing)
	if tracker.Status(second(0)).Known {
		t.Error("known without a reading")
	}
	tracker.Observe(second(1), fine)
	if !tracker.Status(second(60)).Known || tracker.Status(second(61)).Known {
		t.Error("want it known for 59 s and not for 60 s")
	}
}
