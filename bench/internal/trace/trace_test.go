// SPDX-License-Identifier: Apache-2.0

package trace_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spotbench/spotbench/bench/internal/trace"
)

func TestBothFamiliesSayTheSameWithOppositeOnes(t *testing.T) {
	for name, test := range map[string]struct {
		text      string
		polarity  trace.Polarity
		instances int
		up        []bool
	}{
		"a recording: 1 is available":                 {`{"metadata":{"gap_seconds":195},"data":[1,0,1]}`, trace.Auto, 1, []bool{true, false, true}},
		"a simulator's trace has a price_info":        {`{"metadata":{"gap_seconds":600,"price_info":{"price":2}},"data":[0,1,0]}`, trace.Auto, 1, []bool{true, false, true}},
		"a simulator's trace without it must be told": {`{"metadata":{"gap_seconds":600},"data":[0,1,0]}`, trace.Preempted, 1, []bool{true, false, true}},
		"counts are of available instances":           {`{"metadata":{"gap_seconds":300},"data":[4,3,0]}`, trace.Auto, 4, []bool{true, false, false}},
		"counts in the simulators' family too":        {`{"metadata":{"gap_seconds":600,"price_info":{"price":2}},"data":[16,1,0]}`, trace.Auto, 1, []bool{true, true, false}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := trace.Parse("us-east-1a_v100_1.json", []byte(test.text), test.polarity, test.instances)
			if err != nil || !slices.Equal(got.Up, test.up) {
				t.Errorf("Parse = %v (%v), want %v", got.Up, err, test.up)
			}
		})
	}
}

func TestNamesZonesAndPrices(t *testing.T) {
	got, err := trace.Parse("x/us-central1-a_h100_16/full.json", []byte(`{"metadata":{"gap_seconds":600,"price_info":{"price":18.98,"on_demand_price":82.53}},"data":[0,0]}`), trace.Auto, 1)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "us-central1-a_h100_16" || got.Zone != "us-central1-a" || got.Region != "us-central1" || got.Gap != 10*time.Minute {
		t.Errorf("name %s, zone %s, region %s, gap %v", got.Name, got.Zone, got.Region, got.Gap)
	}
	if got.OnDemandUSDPerHour != 82.53 || !slices.Equal(got.SpotUSDPerHour, []float64{18.98, 18.98}) {
		t.Errorf("prices %v, on demand %v", got.SpotUSDPerHour, got.OnDemandUSDPerHour)
	}
	for zone, region := range map[string]string{"us-east-1a": "us-east-1", "ap-northeast-1c": "ap-northeast-1", "europe-west3-c": "europe-west3", "somewhere": "somewhere"} {
		if got := trace.RegionOf(zone); got != region {
			t.Errorf("RegionOf(%s) = %s, want %s", zone, got, region)
		}
	}
	prices, err := trace.ParsePrices([]byte(`{"us-central1-a":[1,2,3],"flat":4}`))
	if err != nil {
		t.Fatal(err)
	}
	doubt, err := got.Price(prices)
	if err != nil || !slices.Equal(got.SpotUSDPerHour, []float64{1, 2}) {
		t.Errorf("prices %v (%v), want those of the file for the zone", got.SpotUSDPerHour, err)
	}
	if !strings.Contains(doubt, "2 ticks and 3 prices") {
		t.Errorf("doubt %q, want one that three prices for two ticks are odd", doubt)
	}
	bare := trace.Trace{Name: "nowhere", Zone: "nowhere", Up: []bool{true}}
	if _, err := bare.Price(prices); err == nil || !strings.Contains(err.Error(), "no spot prices for trace nowhere") {
		t.Errorf("error %v, want one that says the prices are missing", err)
	}
}

func TestWrongTracesNameFieldValueAndFix(t *testing.T) {
	for want, text := range map[string]string{
		"field metadata.gap_seconds is 0":                             `{"data":[1]}`,
		"field data is empty":                                         `{"metadata":{"gap_seconds":1},"data":[]}`,
		"field prices has 1 values":                                   `{"metadata":{"gap_seconds":1},"data":[1,1],"prices":[1]}`,
		"field data[1] is 0.5":                                        `{"metadata":{"gap_seconds":1},"data":[1,0.5]}`,
		"field data[1] is null":                                       `{"metadata":{"gap_seconds":1},"data":[1,null]}`,
		"first at tick 0, which is -1":                                `{"metadata":{"gap_seconds":1},"data":[1],"prices":[-1]}`,
		"2 of 3 are no prices, the first at tick 1, which is missing": `{"metadata":{"gap_seconds":1},"data":[1,1,1],"prices":[1,null,0]}`,
		"field metadata.gap_seconds is 1e+06":                         `{"metadata":{"gap_seconds":1e6},"data":[1]}`,
		"is not as expected":                                          `[]`,
	} {
		if _, err := trace.Parse("t.json", []byte(text), trace.Auto, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
	}
}

func TestWrongPricesNameTheTraceAndTheTick(t *testing.T) {
	for want, text := range map[string]string{
		"are not as expected":                `[1,2]`,
		`the prices of "a" are neither`:      `{"a":"cheap"}`,
		`the prices of "a" are empty`:        `{"a":[]}`,
		`the prices of "a": 1 of 2 are no`:   `{"a":[1,null]}`,
		`"a": 1 of 1 are no prices`:          `{"a":null}`,
		"the first at tick 1, which is -0.5": `{"a":[1,-0.5]}`,
	} {
		if _, err := trace.ParsePrices([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
	}
}

func TestTracesAreReplayedAsLongAsTheShortestLasts(t *testing.T) {
	of := func(gap time.Duration, ticks int) trace.Trace {
		return trace.Trace{Name: "t", Gap: gap, Up: make([]bool, ticks), SpotUSDPerHour: make([]float64, ticks)}
	}
	traces := []trace.Trace{of(time.Minute, 5), of(time.Minute, 3), of(time.Minute, 4)}
	cut, err := trace.Align(traces)
	if err != nil || cut != 3 {
		t.Errorf("cut to %d, %v, want 3 ticks", cut, err)
	}
	for _, tr := range traces {
		if len(tr.Up) != 3 || len(tr.SpotUSDPerHour) != 3 {
			t.Errorf("%d ticks and %d prices, want 3", len(tr.Up), len(tr.SpotUSDPerHour))
		}
	}
	if cut, err := trace.Align([]trace.Trace{of(time.Minute, 2), of(time.Minute, 2)}); cut != 0 || err != nil {
		t.Errorf("of one length: cut %d, %v", cut, err)
	}
	if _, err := trace.Align([]trace.Trace{of(time.Minute, 2), of(time.Hour, 2)}); !errors.Is(err, trace.ErrDifferentGaps) {
		t.Errorf("error %v, want ErrDifferentGaps", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"metadata":{"gap_seconds":195},"data":[1,0,1],"prices":[1,1,1]}`))
	f.Add([]byte(`{"metadata":{"gap_seconds":600,"price_info":{"price":2}},"data":[0,1,0]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := trace.Parse("t.json", data, trace.Auto, 1)
		if err == nil && (len(got.Up) == 0 || got.SpotUSDPerHour != nil && len(got.SpotUSDPerHour) != len(got.Up)) {
			t.Errorf("%d ticks, %d prices", len(got.Up), len(got.SpotUSDPerHour))
		}
	})
}

func FuzzParsePrices(f *testing.F) {
	f.Add([]byte(`{"a":[1,2],"b":3}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		prices, err := trace.ParsePrices(data)
		for name, series := range prices {
			if err == nil && len(series) == 0 {
				t.Errorf("%s has no prices", name)
			}
		}
	})
}
