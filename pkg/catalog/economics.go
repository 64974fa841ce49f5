// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"fmt"
	"time"
)

// Economics is what a run's tokens cost in money and energy, with everything the
// figures follow from. It is of the whole run: starts, pauses between points and
// work lost to interruptions are paid for too.
type Economics struct {
	OutputTokens int64   `json:"outputTokens" doc:"Output tokens of all its points"`
	InputTokens  int64   `json:"inputTokens" doc:"Input tokens of all its points"`
	GPUHours     float64 `json:"gpuHours" doc:"Σ over segments of hours × GPUs; 0 where the number of GPUs is not known"`

	USDPerMillionOutputTokens         *float64 `json:"usdPerMillionOutputTokens,omitempty" doc:"costUSD ÷ outputTokens × 1000000; absent where missing says why"`
	OnDemandUSDPerMillionOutputTokens *float64 `json:"onDemandUSDPerMillionOutputTokens,omitempty" doc:"The same with the on-demand prices"`
	USDPerMillionTokens               *float64 `json:"usdPerMillionTokens,omitempty" doc:"costUSD ÷ (inputTokens + outputTokens) × 1000000"`
	KWhPerMillionOutputTokens         *float64 `json:"kWhPerMillionOutputTokens,omitempty" doc:"energyJoules ÷ 3600000 ÷ outputTokens × 1000000"`

	PriceSource string      `json:"priceSource,omitempty" doc:"Where the prices are from, as whoever told of the run says"`
	Prices      []PricePaid `json:"prices" nullable:"false" doc:"Hours and price of each segment"`
	Missing     []string    `json:"missing,omitempty" nullable:"false" doc:"Why a figure is absent"`
}

// PricePaid is what one segment was paid for.
type PricePaid struct {
	PodUID             string  `json:"podUID,omitempty"`
	Node               string  `json:"node,omitempty"`
	CapacityType       string  `json:"capacityType,omitempty"`
	GPUs               int     `json:"gpus,omitempty" doc:"GPUs of the pod; absent where not known"`
	Hours              float64 `json:"hours"`
	USDPerHour         float64 `json:"usdPerHour,omitempty" doc:"Price of the pod's share of the node; absent where not known"`
	OnDemandUSDPerHour float64 `json:"onDemandUSDPerHour,omitempty"`
}

const million = 1e6

func reckon(d Detail, now time.Time) Economics {
	e := Economics{PriceSource: d.PriceSource, Prices: []PricePaid{}}
	gpusKnown := true
	for _, s := range d.Segments {
		gpus := len(s.GPUUUIDs)
		if gpus == 0 {
			gpus = d.GPUCount
		}
		gpusKnown = gpusKnown && gpus > 0
		hours := s.Duration(now).Hours()
		e.GPUHours += hours * float64(gpus)
		e.Prices = append(e.Prices, PricePaid{PodUID: s.PodUID, Node: s.Node, CapacityType: s.CapacityType, GPUs: gpus, Hours: hours, USDPerHour: s.USDPerHour, OnDemandUSDPerHour: s.OnDemandUSDPerHour})
	}
	if !gpusKnown {
		e.GPUHours = 0
	}
	uncounted, noInput := 0, false
	for _, r := range d.Results {
		e.OutputTokens += r.OutputTokens
		e.InputTokens += r.InputTokens
		if !r.States("outputTokens") {
			uncounted++
		}
		noInput = noInput || !r.States("inputTokens")
	}
	priced := false
	for _, p := range e.Prices {
		priced = priced || p.USDPerHour > 0
	}
	switch {
	case len(d.Results) == 0:
		e.Missing = append(e.Missing, "There is no result, so no tokens are known.")
	case uncounted > 0:
		e.Missing = append(e.Missing, fmt.Sprintf("%d of %d points do not tell their output tokens.", uncounted, len(d.Results)))
	case e.OutputTokens == 0:
		e.Missing = append(e.Missing, "No output token was made.")
	}
	switch {
	case len(d.Segments) == 0:
		e.Missing = append(e.Missing, "Nobody told where and how long it ran, so there is no cost.")
	case !d.CostKnown || !priced:
		e.Missing = append(e.Missing, "A segment has no price.")
	}
	if d.EnergyJoules == 0 {
		e.Missing = append(e.Missing, "No GPU telemetry with an energy was recorded.")
	}
	if e.OutputTokens == 0 || uncounted > 0 {
		return e
	}
	perMillion := func(v float64, tokens int64) *float64 { v = v / float64(tokens) * million; return &v }
	if d.CostKnown && priced {
		e.USDPerMillionOutputTokens = perMillion(d.CostUSD, e.OutputTokens)
		e.OnDemandUSDPerMillionOutputTokens = perMillion(d.OnDemandCostUSD, e.OutputTokens)
		if !noInput {
			e.USDPerMillionTokens = perMillion(d.CostUSD, e.InputTokens+e.OutputTokens)
		}
	}
	if d.EnergyJoules > 0 {
		e.KWhPerMillionOutputTokens = perMillion(d.EnergyJoules/3.6e6, e.OutputTokens)
	}
	return e
}

// PriceAt is the price at which a point was measured, USD per hour: where the
// point tells its nodes and times, theirs weighed by time; else the one price of
// the run. It is not known where the run paid several and the point does not tell.
func (d Detail) PriceAt(r Result) (usdPerHour float64, known bool) {
	if r.Spotbench != nil && len(r.Spotbench.Segments) > 0 {
		sum, hours := 0.0, 0.0
		for _, m := range r.Spotbench.Segments {
			price, ok := d.priceOn(m.Node, m.Start)
			if !ok || !m.End.After(m.Start) {
				hours = 0
				break
			}
			sum += price * m.End.Sub(m.Start).Hours()
			hours += m.End.Sub(m.Start).Hours()
		}
		if hours > 0 {
			return sum / hours, true
		}
	}
	if len(d.Segments) == 0 {
		return d.USDPerHour, d.USDPerHour > 0
	}
	price := d.Segments[0].USDPerHour
	for _, s := range d.Segments {
		if s.USDPerHour != price {
			return 0, false
		}
	}
	return price, price > 0
}

// priceOn is the price of the segment on a node that had begun by then, the
// newest of them.
func (d Detail) priceOn(node string, at time.Time) (float64, bool) {
	price := 0.0
	for _, s := range d.Segments { // by start
		if s.Node == node && !s.StartedAt.After(at) {
			price = s.USDPerHour
		}
	}
	return price, price > 0
}

// PointCost is what a million output tokens of one point cost while it was
// measured, USD: price ÷ throughput. Unlike the run's own figure it has no pauses
// in it.
func (d Detail) PointCost(r Result) (usdPerMillionOutputTokens float64, known bool) {
	price, ok := d.PriceAt(r)
	if !ok || r.OutputThroughput == nil || *r.OutputThroughput <= 0 {
		return 0, false
	}
	return price / 3600 / *r.OutputThroughput * million, true
}
