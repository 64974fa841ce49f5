// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/pareto"
)

// Choice is one configuration at one load, as somebody who has to choose sees it.
type Choice struct {
	Configuration string   `json:"configuration"`
	Load          Load     `json:"load"`
	Runs          []string `json:"runs" nullable:"false"`
	Throughput    Sample   `json:"throughput" doc:"Output tokens per second and GPU; more is better"`
	Latency       Sample   `json:"latency" doc:"In the metric asked for, ms; less is better"`
	Cost          Sample   `json:"cost" doc:"USD per million output tokens; less is better"`
	Complete      bool     `json:"complete" doc:"Every objective is known"`
	Frontier      bool     `json:"frontier" doc:"No other complete choice is at least as good in every objective and better in one"`
}

// Objective is what a frontier is of.
type Objective string

// The objectives.
const (
	Throughput Objective = "throughput"
	Latency    Objective = "latency"
	Cost       Objective = "cost"
)

func (c Choice) sample(o Objective) Sample {
	switch o {
	case Throughput:
		return c.Throughput
	case Latency:
		return c.Latency
	case Cost:
	}
	return c.Cost
}

// Frontier is the choices between throughput, latency and cost, by medians.
type Frontier struct {
	Objectives    []Objective `json:"objectives" nullable:"false" enum:"throughput,latency,cost" doc:"What the frontier is of"`
	LatencyMetric string      `json:"latencyMetric"`
	LatencyTitle  string      `json:"latencyTitle" doc:"That metric, for people"`
	Choices       []Choice    `json:"choices" nullable:"false" doc:"By throughput, the highest first"`
	Incomplete    int         `json:"incomplete" doc:"Choices of which an objective is not known; they are on no frontier"`
	LeftOut       int         `json:"leftOut" doc:"Runs that match and are not used, because they go on or are invalid"`
	Notes         []string    `json:"notes,omitempty" nullable:"false"`
}

// FrontierOptions say what the frontier is of.
type FrontierOptions struct {
	// By are the dimensions of a configuration; none is by model, GPUs and engine.
	By []string
	// Objectives are at least two; none is all that some choice has.
	Objectives []Objective
	// Latency is the name of a metric in milliseconds; "" is ttftP99Ms.
	Latency string
	Invalid bool
}

// DefaultLatency is the latency of a frontier unless another is asked for.
const DefaultLatency = "ttftP99Ms"

// LatencyMetrics are the names of the metrics that can be a frontier's latency.
func LatencyMetrics() []string {
	var names []string
	for _, m := range catalog.Metrics() {
		if m.Unit == "ms" {
			names = append(names, m.Name)
		}
	}
	return names
}

// FindFrontier makes a choice of each configuration at each load, and says which
// of them no other beats in everything.
func FindFrontier(runs []catalog.Detail, o FrontierOptions) (Frontier, error) {
	latency, ok := catalog.MetricNamed(cmp.Or(o.Latency, DefaultLatency))
	if !ok || latency.Unit != "ms" {
		return Frontier{}, fmt.Errorf("%w: latency %q is unknown; use one of %s", catalog.ErrInvalid, o.Latency, strings.Join(LatencyMetrics(), ", "))
	}
	by := o.By
	if len(by) == 0 {
		by = []string{"model", "gpuCount", "gpuModel", "engine", "engineVersion"}
	}
	groups, leftOut, err := group(runs, by, o.Invalid)
	if err != nil {
		return Frontier{}, err
	}
	throughput, _ := catalog.MetricNamed("outputThroughputPerGPU")
	cost, _ := catalog.MetricNamed("usdPerMillionOutputTokens")
	out := Frontier{LatencyMetric: latency.Name, LatencyTitle: latency.Title, LeftOut: leftOut, Choices: []Choice{}}
	var all []Choice
	for _, g := range groups {
		seen := map[string]bool{}
		for _, p := range g.points {
			if seen[p.at] {
				continue
			}
			seen[p.at] = true
			choice := Choice{Configuration: g.told, Load: p.load, Throughput: summarise(g.values(p.at, throughput)), Latency: summarise(g.values(p.at, latency)), Cost: summarise(g.values(p.at, cost))}
			for _, q := range g.at[p.at] {
				if !slices.Contains(choice.Runs, q.run.Key) {
					choice.Runs = append(choice.Runs, q.run.Key)
				}
			}
			all = append(all, choice)
		}
	}
	out.Objectives, err = objectives(o.Objectives, all)
	if err != nil {
		return Frontier{}, err
	}
	var wanted []pareto.Objective[Choice]
	for _, objective := range out.Objectives {
		wanted = append(wanted, pareto.Objective[Choice]{Of: func(c Choice) float64 { return *c.sample(objective).Median }, Higher: objective == Throughput})
	}
	single := 0
	var complete []Choice
	for n, c := range all {
		all[n].Complete = !slices.ContainsFunc(out.Objectives, func(o Objective) bool { return c.sample(o).Median == nil })
		if !all[n].Complete {
			out.Incomplete++
			out.Choices = append(out.Choices, all[n])
			continue
		}
		if c.Throughput.N == 1 || c.Latency.N == 1 {
			single++
		}
		complete = append(complete, all[n])
	}
	for _, n := range pareto.Frontier(complete, wanted) {
		complete[n].Frontier = true
	}
	out.Choices = slices.Concat(complete, out.Choices)
	if out.Choices == nil {
		out.Choices = []Choice{}
	}
	slices.SortStableFunc(out.Choices, func(a, b Choice) int {
		return cmp.Compare(b.Throughput.known(), a.Throughput.known())
	})
	if single > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("%d of %d choices are of one run only: how far they vary is not known.", single, len(complete)))
	}
	if len(o.Objectives) == 0 && len(all) > 0 && !slices.Contains(out.Objectives, Cost) {
		out.Notes = append(out.Notes, "No run has a price, so cost is no objective.")
	}
	return out, nil
}

// known is the median, below all others where there is none.
func (s Sample) known() float64 {
	if s.Median == nil {
		return -1
	}
	return *s.Median
}

// objectives are those asked for, or those that some choice has.
func objectives(asked []Objective, choices []Choice) ([]Objective, error) {
	known := []Objective{Throughput, Latency, Cost}
	for _, a := range asked {
		if !slices.Contains(known, a) {
			return nil, fmt.Errorf("%w: objective %q is unknown; use throughput, latency and cost", catalog.ErrInvalid, a)
		}
	}
	if len(asked) > 0 {
		out := slices.DeleteFunc(known, func(o Objective) bool { return !slices.Contains(asked, o) })
		if len(out) < 2 {
			return nil, fmt.Errorf("%w: one objective has no frontier; give at least two of throughput, latency and cost", catalog.ErrInvalid)
		}
		return out, nil
	}
	if !slices.ContainsFunc(choices, func(c Choice) bool { return c.Cost.Median != nil }) {
		return known[:2], nil
	}
	return known, nil
}
