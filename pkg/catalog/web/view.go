// SPDX-License-Identifier: Apache-2.0

package web

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// runsView is the list of runs.
type runsView struct {
	page
	Query    catalog.RunQuery
	Models   []catalog.Model
	Statuses []catalog.Status
	Runs     []runRow
	Totals   totals
	Filtered bool
	// Older is the address of the next page; empty on the last.
	Older string
	// Later is set on every page but the first.
	Later bool
}

// totals add up the runs that are listed.
type totals struct {
	Runs, Running, Succeeded, Failed, Interruptions int
	WorkLostSeconds, BusySeconds                    float64
	Cost                                            money
}

// money compares what was paid with what it would have cost on demand.
type money struct {
	USD, OnDemandUSD float64
	// Known is false when a price is missing; then nothing is compared.
	Known bool
}

// SavedPercent is the part of the on-demand cost that was not paid.
func (m money) SavedPercent() float64 {
	if !m.Known || m.OnDemandUSD <= 0 {
		return 0
	}
	return 100 * (1 - m.USD/m.OnDemandUSD)
}

// Share is the paid part as a width, "38.2%".
func (m money) Share() string {
	if m.OnDemandUSD <= 0 {
		return "0%"
	}
	return percentOf(m.USD, m.OnDemandUSD)
}

type runRow struct {
	catalog.Summary
	Name string
	Cost money
}

func newRunsView(query catalog.RunQuery, list catalog.Page[catalog.Summary], models []catalog.Model) runsView {
	v := runsView{page: page{"Runs", "runs"}, Query: query, Models: models, Filtered: query.Model != "" || query.Status != "", Later: query.PageToken != "",
		Statuses: []catalog.Status{catalog.Running, catalog.Interrupted, catalog.Succeeded, catalog.Failed}}
	v.Totals.Cost.Known = true
	for _, run := range list.Items {
		row := runRow{Summary: run, Name: nameOf(run.Key), Cost: money{run.CostUSD, run.OnDemandCostUSD, run.CostKnown}}
		v.Runs = append(v.Runs, row)
		t := &v.Totals
		t.Runs++
		switch run.Status {
		case catalog.Running, catalog.Interrupted:
			t.Running++
		case catalog.Succeeded:
			t.Succeeded++
		case catalog.Failed:
			t.Failed++
		}
		t.Interruptions += run.InterruptionCount
		t.WorkLostSeconds += run.WorkLostSeconds
		t.BusySeconds += run.DurationSeconds
		if run.CostKnown {
			t.Cost.USD += run.CostUSD
			t.Cost.OnDemandUSD += run.OnDemandCostUSD
		}
	}
	if list.NextPageToken != "" {
		next := url.Values{"pageToken": {list.NextPageToken}}
		if query.Model != "" {
			next.Set("model", query.Model)
		}
		if query.Status != "" {
			next.Set("status", string(query.Status))
		}
		v.Older = "/?" + next.Encode()
	}
	return v
}

// nameOf is the key without its namespace.
func nameOf(key string) string {
	_, name, ok := strings.Cut(key, "/")
	if !ok {
		return key
	}
	return name
}

// runView is one run.
type runView struct {
	page
	catalog.Detail
	Name          string
	Cost          money
	Timeline      timeline
	Interruptions []interruptionView
	Points        []point
	Throughput    chart
	FirstToken    chart
	Telemetry     []gpuRow
	Plots         []plot
	// Hardware are the segments whose GPUs are known by their UUIDs.
	Hardware []catalog.Segment
	// Left are those that a page has no room for.
	Left struct{ Interruptions, Points, GPUs int }
}

// Bounds that keep the page of a run short.
const (
	mostInterruptions = 24
	mostRows          = 64
)

// firstOf is what a page has room for, and the number of the others.
func firstOf[T any](all []T, most int) ([]T, int) {
	shown := all[:min(len(all), most)]
	return shown, len(all) - len(shown)
}

type interruptionView struct {
	catalog.Interruption
	Number int
	Steps  []catalog.Phase
}

// Down is the time from the notice until the run went on, in seconds; 0 if it has not.
func (i interruptionView) Down() float64 {
	if i.NoticeAt.IsZero() || i.RunningAgainAt.IsZero() {
		return 0
	}
	return i.RunningAgainAt.Sub(i.NoticeAt).Seconds()
}

// point is a result as a row.
type point struct {
	catalog.Result
	Load string
	// Source is the file, where the load alone does not tell the points apart.
	Source string
	// Share is its output throughput beside the best one's, "72.5%".
	Share string
}

type gpuRow struct {
	catalog.GPUTelemetry
	Node    string
	Seconds float64
}

func newRunView(d catalog.Detail, telemetry []catalog.Telemetry, now time.Time) runView {
	v := runView{page: page{Title: nameOf(d.Key)}, Detail: d, Name: nameOf(d.Key), Cost: money{d.CostUSD, d.OnDemandCostUSD, d.CostKnown},
		Timeline: newTimeline(d, now)}
	for n, i := range d.Interruptions {
		v.Interruptions = append(v.Interruptions, interruptionView{Interruption: i, Number: n + 1, Steps: i.Phases()})
	}
	v.Points = points(d.Results)
	v.Plots = newPlots(d, telemetry, now)
	v.Throughput, v.FirstToken = throughputChart(v.Points), firstTokenChart(v.Points)
	nodes := map[string]string{}
	for _, s := range d.Segments {
		nodes[s.PodUID] = s.Node
	}
	for _, t := range d.Telemetry {
		for _, g := range t.GPUs {
			v.Telemetry = append(v.Telemetry, gpuRow{GPUTelemetry: g, Node: nodes[t.PodUID], Seconds: max(0, t.To.Sub(t.From).Seconds())})
		}
	}
	for _, s := range d.Segments {
		if len(s.GPUUUIDs) > 0 && len(v.Hardware) < mostInterruptions {
			s.GPUUUIDs, _ = firstOf(s.GPUUUIDs, 16)
			v.Hardware = append(v.Hardware, s)
		}
	}
	v.Interruptions, v.Left.Interruptions = firstOf(v.Interruptions, mostInterruptions)
	v.Points, v.Left.Points = firstOf(v.Points, mostRows)
	v.Telemetry, v.Left.GPUs = firstOf(v.Telemetry, mostRows)
	return v
}

// points are the results by load, the lightest first.
func points(results []catalog.Result) []point {
	best := 0.0
	loads := map[string]int{}
	var out []point
	for _, r := range results {
		p := point{Result: r}
		switch {
		case r.Concurrency != nil:
			p.Load = strconv.FormatInt(*r.Concurrency, 10)
		case r.RequestRate != nil:
			p.Load = strconv.FormatFloat(*r.RequestRate, 'g', 4, 64) + " /s"
		default:
			p.Load = "unlimited"
		}
		if r.OutputThroughput != nil {
			best = max(best, *r.OutputThroughput)
		}
		loads[p.Load]++
		out = append(out, p)
	}
	for i := range out {
		if loads[out[i].Load] > 1 {
			out[i].Source = out[i].File
		}
		if t := out[i].OutputThroughput; t != nil && best > 0 {
			out[i].Share = percentOf(*t, best)
		}
	}
	slices.SortStableFunc(out, func(a, b point) int {
		return cmp.Or(cmp.Compare(loadOf(a), loadOf(b)), cmp.Compare(a.File, b.File))
	})
	return out
}

func loadOf(p point) float64 {
	switch {
	case p.Concurrency != nil:
		return float64(*p.Concurrency)
	case p.RequestRate != nil:
		return *p.RequestRate
	}
	return 1e18
}

func percentOf(part, whole float64) string {
	return strconv.FormatFloat(100*min(1, max(0, part/whole)), 'f', 2, 64) + "%"
}

// Latencies repeats the two columns of a latency in the table's head.
func (runView) Latencies() [3]struct{} { return [3]struct{}{} }

// EnergyKWh is the energy of the run's GPUs.
func (v runView) EnergyKWh() float64 { return v.EnergyJoules / 3.6e6 }

// APIPath is where the run is as JSON.
func (v runView) APIPath() string { return "/v1/runs/" + url.PathEscape(v.Key) }

// CheckpointFloat is the checkpoint's size in bytes.
func (i interruptionView) CheckpointFloat() float64 { return float64(i.CheckpointBytes) }

// Kilojoules is the energy of the GPU.
func (g gpuRow) Kilojoules() float64 { return g.EnergyJoules / 1000 }
