// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"slices"
	"time"
)

// Summary is a run with what follows from its parts: cost, interruptions and
// whether its results may be believed.
type Summary struct {
	Run
	// Nodes are those of its segments in the order of their start, each once per stay.
	Nodes             []string  `json:"nodes" nullable:"false" doc:"Nodes it ran on, in order"`
	InterruptionCount int       `json:"interruptionCount" doc:"Interruptions it went through"`
	WorkLostSeconds   float64   `json:"workLostSeconds" doc:"Work done again because of them, seconds"`
	DurationSeconds   float64   `json:"durationSeconds" doc:"From the start of the first pod to the end of the last, or until now, seconds"`
	CostUSD           float64   `json:"costUSD" doc:"Σ over segments of hours × price, USD"`
	OnDemandCostUSD   float64   `json:"onDemandCostUSD" doc:"Σ (hours - work lost) × on-demand price, USD: the same work on capacity that is not interrupted"`
	CostKnown         bool      `json:"costKnown" doc:"Every segment has both prices; otherwise the sums are too low"`
	ResultCount       int       `json:"resultCount" doc:"Measured points"`
	EnergyJoules      float64   `json:"energyJoules,omitempty" doc:"Energy of its GPUs, joules"`
	Economics         Economics `json:"economics" doc:"Cost and energy per million tokens, and what they follow from"`
	Validity          Validity  `json:"validity" doc:"Whether its results may be believed, and why not"`
}

// Detail is a run with all its parts.
type Detail struct {
	Summary
	Segments      []Segment      `json:"segments" nullable:"false"`
	Interruptions []Interruption `json:"interruptions" nullable:"false"`
	Telemetry     []Telemetry    `json:"telemetry" nullable:"false"`
	Results       []Result       `json:"results" nullable:"false"`
}

// Parts is a run and everything that was told about it.
type Parts struct {
	Run           Run
	Segments      []Segment
	Interruptions []Interruption
	Telemetry     []Telemetry
	Results       []Result
}

// Describe sorts a run's parts by time and derives what follows from them.
func Describe(p Parts, now time.Time) Detail {
	segments := slices.SortedStableFunc(slices.Values(p.Segments), func(a, b Segment) int { return a.StartedAt.Compare(b.StartedAt) })
	interruptions := slices.SortedStableFunc(slices.Values(p.Interruptions), func(a, b Interruption) int { return a.NoticeAt.Compare(b.NoticeAt) })
	d := Detail{
		Summary:       Summary{Run: p.Run, Nodes: []string{}, InterruptionCount: len(interruptions), ResultCount: len(p.Results)},
		Segments:      nonNil(segments),
		Interruptions: nonNil(interruptions),
		Telemetry:     nonNil(p.Telemetry),
		Results:       nonNil(p.Results),
	}
	for _, s := range segments {
		if s.Node != "" && (len(d.Nodes) == 0 || d.Nodes[len(d.Nodes)-1] != s.Node) {
			d.Nodes = append(d.Nodes, s.Node)
		}
	}
	for _, i := range interruptions {
		if i.WorkLostSeconds != nil {
			d.WorkLostSeconds += *i.WorkLostSeconds
		}
	}
	for _, t := range p.Telemetry {
		d.EnergyJoules += t.EnergyJoules()
	}
	d.DurationSeconds = duration(p.Run, segments, now).Seconds()
	d.CostUSD, d.OnDemandCostUSD, d.CostKnown = Cost(segments, interruptions, now)
	if len(segments) == 0 {
		d.CostKnown = false
	}
	d.Economics = reckon(d, now)
	d.Validity = Judge(p)
	return d
}

// duration is wall time: a run's waiting between two pods counts.
func duration(run Run, segments []Segment, now time.Time) time.Duration {
	from, to := run.StartedAt, run.FinishedAt
	open := to.IsZero() && (run.Status == Running || run.Status == Interrupted)
	for _, s := range segments {
		if !s.StartedAt.IsZero() && (from.IsZero() || s.StartedAt.Before(from)) {
			from = s.StartedAt
		}
		if s.EndedAt.After(to) && run.FinishedAt.IsZero() {
			to = s.EndedAt
		}
	}
	if open {
		to = now
	}
	if from.IsZero() || to.Before(from) {
		return 0
	}
	return to.Sub(from)
}

func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// Page is one page of a list.
type Page[T any] struct {
	Items         []T    `json:"items" nullable:"false"`
	NextPageToken string `json:"nextPageToken" doc:"Give it as pageToken for the next page; empty on the last"`
}

// Model is a model with what the catalog has about it.
type Model struct {
	Name      string    `json:"name" doc:"Model, as its runs name it"`
	Runs      int       `json:"runs" doc:"Runs of it"`
	Results   int       `json:"results" doc:"Measured points"`
	GPUModels []string  `json:"gpuModels" nullable:"false" doc:"GPU models it ran on"`
	LastRunAt time.Time `json:"lastRunAt,omitzero" doc:"Start of its newest run"`
}
