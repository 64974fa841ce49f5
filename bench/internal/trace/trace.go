// SPDX-License-Identifier: Apache-2.0

// Package trace reads recordings of spot availability and spot prices.
//
// Two public families exist, and they disagree on what a 1 means:
//
//   - skypilot-org/spot-traces: {"metadata":{"gap_seconds":195},"data":[1,0,...]},
//     where data[i] is how many instances were up, or could be launched, at tick i:
//     1 is available. Some files carry "prices" (USD per hour) of the same length.
//   - the traces of the simulators built on them (sky_spot, SkyNomad): the same
//     layout with data[i] = 1 for preempted, and metadata.price_info
//     {"price": spot, "on_demand_price": USD per hour}.
package trace

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Polarity says what a 1 in a trace means.
type Polarity string

// Polarities. Auto is Preempted for traces with metadata.price_info, which only
// the simulators' family has, else Available.
const (
	Auto      Polarity = "auto"
	Available Polarity = "available"
	Preempted Polarity = "preempted"
)

// Trace is what happened in one pool.
type Trace struct {
	// Name is the file's, such as us-east-1a_v100_1: prices are found by it.
	Name string
	// Zone and Region are read from the metadata or the name.
	Zone, Region string
	// Gap is the time between ticks.
	Gap time.Duration
	// Up is whether the instances asked for could run during a tick.
	Up []bool
	// SpotUSDPerHour has a price per tick; nil when the trace has none.
	SpotUSDPerHour []float64
	// OnDemandUSDPerHour is 0 when the trace does not say it.
	OnDemandUSDPerHour float64
}

type document struct {
	Metadata struct {
		GapSeconds float64 `json:"gap_seconds"`
		Zone       string  `json:"zone"`
		PriceInfo  *struct {
			Price         float64 `json:"price"`
			OnDemandPrice float64 `json:"on_demand_price"`
		} `json:"price_info"`
	} `json:"metadata"`
	// Pointers, because null is neither 0 nor a price.
	Data   []*float64 `json:"data"`
	Prices []*float64 `json:"prices"`
}

// Parse reads a trace. file names it; instances is how many must be up at once
// where the trace has counts (at least 1).
func Parse(file string, data []byte, polarity Polarity, instances int) (Trace, error) {
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		return Trace{}, fmt.Errorf(`trace %s is not as expected ({"metadata":{"gap_seconds":…},"data":[…]}): %w`, file, err)
	}
	gap := doc.Metadata.GapSeconds
	switch {
	case !(gap > 0) || gap > 86400:
		return Trace{}, fmt.Errorf("trace %s: field metadata.gap_seconds is %v; write the seconds between two ticks, above 0 and at most 86400", file, gap)
	case len(doc.Data) == 0:
		return Trace{}, fmt.Errorf("trace %s: field data is empty; write one value per tick", file)
	case doc.Prices != nil && len(doc.Prices) != len(doc.Data):
		return Trace{}, fmt.Errorf("trace %s: field prices has %d values and field data %d; write one price per tick", file, len(doc.Prices), len(doc.Data))
	case instances < 1:
		return Trace{}, fmt.Errorf("trace %s: %d instances wanted; ask for at least 1", file, instances)
	}
	t := Trace{Name: nameOf(file), Zone: doc.Metadata.Zone, Gap: time.Duration(gap * float64(time.Second))}
	if t.Zone == "" {
		t.Zone, _, _ = strings.Cut(t.Name, "_")
	}
	t.Region = RegionOf(t.Zone)
	if polarity == Auto {
		polarity = Available
		if doc.Metadata.PriceInfo != nil {
			polarity = Preempted
		}
	}
	// Counts mean available instances in both families; only a plain 0 or 1 is inverted.
	counts := slices.ContainsFunc(doc.Data, func(v *float64) bool { return v != nil && *v > 1 })
	t.Up = make([]bool, len(doc.Data))
	for i, v := range doc.Data {
		switch {
		case v == nil:
			return Trace{}, fmt.Errorf("trace %s: field data[%d] is null; write 0 where nothing is known to be available", file, i)
		case *v < 0 || *v != math.Trunc(*v):
			return Trace{}, fmt.Errorf("trace %s: field data[%d] is %v; write a whole number of instances, 0 or more", file, i, *v)
		case polarity == Preempted && !counts:
			t.Up[i] = *v == 0
		default:
			t.Up[i] = *v >= float64(instances)
		}
	}
	var err error
	if t.SpotUSDPerHour, err = usd(doc.Prices); err != nil {
		return Trace{}, fmt.Errorf("trace %s: field prices: %w", file, err)
	}
	if info := doc.Metadata.PriceInfo; info != nil {
		t.OnDemandUSDPerHour = info.OnDemandPrice
		if t.SpotUSDPerHour == nil && info.Price > 0 {
			t.SpotUSDPerHour = slices.Repeat([]float64{info.Price}, len(t.Up))
		}
	}
	if p := t.OnDemandUSDPerHour; !(p >= 0) || math.IsInf(p, 0) {
		return Trace{}, fmt.Errorf("trace %s: field metadata.price_info.on_demand_price is %v; write USD per hour", file, p)
	}
	return t, nil
}

// usd are prices of which each is one.
func usd(series []*float64) ([]float64, error) {
	if series == nil {
		return nil, nil
	}
	out, bad, first := make([]float64, len(series)), 0, 0
	for i, p := range series {
		if p == nil || !(*p > 0) || math.IsInf(*p, 0) {
			if bad++; bad == 1 {
				first = i
			}
			continue
		}
		out[i] = *p
	}
	if bad == 0 {
		return out, nil
	}
	what := "missing"
	if p := series[first]; p != nil {
		what = fmt.Sprint(*p)
	}
	return nil, fmt.Errorf("%d of %d are no prices, the first at tick %d, which is %s; write USD per hour above 0, or leave these ticks out of the trace", bad, len(series), first, what)
}

// nameOf is the file's name without its extension, or its folder's where files
// are only numbered windows of a folder's trace (us-east-1a_v100_1/full.json).
func nameOf(file string) string {
	name := strings.TrimSuffix(path.Base(file), ".json")
	if dir := path.Base(path.Dir(file)); numbered.MatchString(name) && dir != "." && dir != "/" {
		return dir
	}
	return name
}

var (
	numbered = regexp.MustCompile(`^(full|\d+)$`)
	gcpZone  = regexp.MustCompile(`^(.+\d)-[a-z]$`)
	awsZone  = regexp.MustCompile(`^(.+-\d+)[a-z]$`)
)

// RegionOf is the region of an AWS or GCP zone; any other name is a region of its
// own.
func RegionOf(zone string) string {
	for _, form := range []*regexp.Regexp{gcpZone, awsZone} {
		if m := form.FindStringSubmatch(zone); m != nil {
			return m[1]
		}
	}
	return zone
}

// Prices are spot prices per tick, in USD per hour, by trace name.
type Prices map[string][]float64

// ParsePrices reads {"us-east-1a_v100_1":[1.67, …], …}: a price per tick and trace.
// A single number stands for a price that never changes.
func ParsePrices(data []byte) (Prices, error) {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf(`the prices are not as expected ({"TRACE":[USD per hour, …]}): %w`, err)
	}
	prices := Prices{}
	for name, raw := range doc {
		var series []*float64
		var flat *float64
		if json.Unmarshal(raw, &flat) == nil {
			series = []*float64{flat}
		} else if err := json.Unmarshal(raw, &series); err != nil {
			return nil, fmt.Errorf("the prices of %q are neither a number nor a list of numbers: %w", name, err)
		}
		if len(series) == 0 {
			return nil, fmt.Errorf("the prices of %q are empty; write USD per hour", name)
		}
		checked, err := usd(series)
		if err != nil {
			return nil, fmt.Errorf("the prices of %q: %w", name, err)
		}
		prices[name] = checked
	}
	return prices, nil
}

// Price gives the trace its prices: those of the file for its name or zone, else
// its own. A trace without any is an error: prices are never invented. doubt says what
// may be wrong with them, "" for nothing.
func (t *Trace) Price(prices Prices) (doubt string, err error) {
	series, ok := prices[t.Name]
	if !ok {
		series, ok = prices[t.Zone]
	}
	switch {
	case !ok && t.SpotUSDPerHour != nil:
	case !ok:
		return "", fmt.Errorf("no spot prices for trace %s; name a file with -prices that has %q or %q", t.Name, t.Name, t.Zone)
	case len(series) == 1:
		t.SpotUSDPerHour = slices.Repeat(series, len(t.Up))
	case len(series) < len(t.Up):
		return "", fmt.Errorf("trace %s has %d ticks but only %d prices; write one per tick, or a single number", t.Name, len(t.Up), len(series))
	default:
		if len(series) > len(t.Up) {
			doubt = fmt.Sprintf("trace %s has %d ticks and %d prices, of which the first are taken: are they of the same recording?", t.Name, len(t.Up), len(series))
		}
		t.SpotUSDPerHour = series[:len(t.Up)]
	}
	return doubt, nil
}

// ErrDifferentGaps is the error for traces that cannot be replayed together.
var ErrDifferentGaps = errors.New("the traces have different times between ticks; replay those of one recording together")

// Align cuts traces that are to be replayed together to the shortest; cut is the number
// of ticks that are left if one was longer, else 0.
func Align(traces []Trace) (cut int, err error) {
	ticks := len(traces[0].Up)
	for _, t := range traces {
		if t.Gap != traces[0].Gap {
			return 0, fmt.Errorf("%s has %v, %s has %v: %w", traces[0].Name, traces[0].Gap, t.Name, t.Gap, ErrDifferentGaps)
		}
		if len(t.Up) != ticks {
			ticks = min(ticks, len(t.Up))
			cut = ticks
		}
	}
	for i := range traces {
		traces[i].Up, traces[i].SpotUSDPerHour = traces[i].Up[:ticks], traces[i].SpotUSDPerHour[:ticks]
	}
	return cut, nil
}
