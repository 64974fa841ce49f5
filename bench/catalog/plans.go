// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spotbench/spotbench/bench/catalog/internal/filling"
	"github.com/spotbench/spotbench/bench/catalog/internal/plan"
	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/postgres"
)

// question is a read of the catalog, and how many rows it may look at.
type question struct {
	name string
	ask  func(ctx context.Context, s *postgres.Store) error
	most int
}

const (
	// rowsOfAPage is what a page may look at: its rows, and some that a second filter
	// takes out again or a sort leaves over; a tenth of the tests' results, and nothing
	// beside ten million.
	rowsOfAPage = 6000
	// rowsOfParts is what the parts of a run may cost: a table that is as small as the
	// tests' of interruptions is best read whole.
	rowsOfParts = 400
)

// questions are all lists with each of their filters, in both orders and in the
// middle of the list, and the reads of one thing.
func questions(shape filling.Shape) []question {
	var out []question
	add := func(name string, most int, ask func(ctx context.Context, s *postgres.Store) error) {
		out = append(out, question{name, ask, most})
	}
	middle := shape.End.Add(-365 * 24 * time.Hour)
	eight := int64(8)
	results := map[string]catalog.ResultQuery{
		"all": {}, "of a run": {RunKey: filling.Key(shape.Runs / 2)}, "of a model": {Model: filling.Model(3)}, "of a rare model": {Model: filling.Model(55)},
		"on a GPU": {GPUModel: filling.GPUs[2]}, "of a model on a GPU": {Model: filling.Model(20), GPUModel: filling.GPUs[5]}, "of a format": {Format: filling.Formats[1]},
		"suspect": {Verdict: catalog.Suspect}, "invalid": {Verdict: catalog.Invalid}, "at a load": {Concurrency: &eight}, "of a model at a load": {Model: filling.Model(3), Concurrency: &eight},
		"valid on a GPU": {Verdict: catalog.Valid, GPUModel: filling.GPUs[0]}, "before a day": {Before: middle}, "since a day": {Since: middle},
		"of a model in a month":        {Model: filling.Model(1), Since: middle, Before: middle.Add(30 * 24 * time.Hour)},
		"of a model that is not there": {Model: "none"}, "on a GPU that is not there": {GPUModel: "none"}, "of a format that is not there": {Format: "none"},
	}
	for name, query := range results {
		for _, oldest := range []bool{false, true} {
			query.OldestFirst = oldest
			add(fmt.Sprintf("results %s, oldest first %t", name, oldest), rowsOfAPage, func(ctx context.Context, s *postgres.Store) error {
				page, err := s.ListResultsJSON(ctx, query)
				if err != nil || page.NextPageToken == "" {
					return err
				}
				next := query
				next.PageToken = page.NextPageToken
				_, err = s.ListResultsJSON(ctx, next)
				return err
			})
		}
	}
	// A run is listed with what follows from its results, so those are read too.
	ofRuns := rowsOfAPage + 51*shape.ResultsPerRun
	runs := map[string]catalog.RunQuery{
		"all": {}, "of a model": {Model: filling.Model(3)}, "on a GPU": {GPUModel: filling.GPUs[2]}, "of a namespace": {Namespace: "team-03"}, "on a node": {Node: "gpu-007"},
		"failed": {Status: catalog.Failed}, "suspect": {Verdict: catalog.Suspect}, "of an engine's version": {EngineVersion: "0.10.2"}, "under a driver": {DriverVersion: "580.95.05"},
		"of no benchmark there is": {Benchmark: "none"}, "in no region there is": {Region: "none"}, "of no type there is": {InstanceType: "none"}, "of no engine there is": {Engine: "none"},
		"before a day": {Before: middle}, "of a model before a day": {Model: filling.Model(0), Before: middle},
	}
	for name, query := range runs {
		for _, oldest := range []bool{false, true} {
			query.OldestFirst = oldest
			add(fmt.Sprintf("runs %s, oldest first %t", name, oldest), ofRuns, func(ctx context.Context, s *postgres.Store) error {
				_, err := s.ListRuns(ctx, query)
				return err
			})
		}
	}
	for name, query := range map[string]catalog.InterruptionQuery{"all": {}, "on a node": {Node: "gpu-007"}, "of a kind": {Kind: "spot"}, "before a day": {Before: middle}} {
		add("interruptions "+name, rowsOfAPage, func(ctx context.Context, s *postgres.Store) error {
			_, err := s.ListInterruptions(ctx, query)
			return err
		})
	}
	add("a result", 1, func(ctx context.Context, s *postgres.Store) error {
		_, err := s.ResultJSON(ctx, filling.ResultID(shape.Runs/2, 1).String())
		return err
	})
	add("a run", shape.ResultsPerRun+rowsOfParts, func(ctx context.Context, s *postgres.Store) error {
		_, err := s.GetRun(ctx, filling.Key(shape.Runs/2))
		return err
	})
	add("four runs to compare", 4*shape.ResultsPerRun+rowsOfParts, func(ctx context.Context, s *postgres.Store) error {
		_, _, err := s.Measured(ctx, []string{filling.Key(0), filling.Key(1), filling.Key(2), filling.Key(3)}, catalog.RunQuery{})
		return err
	})
	// The only one that grows with the catalog: with its runs, not its results.
	add("models", shape.Runs, func(ctx context.Context, s *postgres.Store) error {
		_, err := s.ListModels(ctx)
		return err
	})
	slices.SortFunc(out, func(a, b question) int { return cmp.Compare(a.name, b.name) })
	return out
}

// asked is what the database did for a question.
type asked struct {
	Question     string   `json:"question"`
	Rows         int      `json:"rowsRead"`
	Most         int      `json:"rowsAllowed"`
	Milliseconds float64  `json:"milliseconds"`
	Indexes      []string `json:"indexes"`
	Scanned      []string `json:"tablesScanned,omitempty"`
	plans        int
}

// bad says what is wrong with it, or nothing.
func (a asked) bad() string {
	switch {
	case slices.Contains(a.Scanned, "results"):
		return "all results were read"
	case a.Rows > a.Most:
		return fmt.Sprintf("%d rows were read, at most %d may be", a.Rows, a.Most)
	case a.plans == 0:
		return "no plan was seen"
	}
	return ""
}

// explain asks every question repeat times, so that plans for any parameters are
// among those seen, not only those for the first, and gives the worst of each.
func explain(ctx context.Context, url string, shape filling.Shape, repeat int) ([]asked, error) {
	address, err := plan.Traced(url)
	if err != nil {
		return nil, err
	}
	var recorder plan.Recorder
	// One connection of many statements is what a pool's become.
	store, err := postgres.Open(ctx, postgres.Options{URL: address, Connections: 1, Notice: recorder.Notice})
	if err != nil {
		return nil, err
	}
	defer store.Close()
	var out []asked
	for _, q := range questions(shape) {
		worst := asked{Question: q.name, Most: q.most}
		for range repeat {
			if err := q.ask(ctx, store); err != nil {
				return nil, fmt.Errorf("%s: %w", q.name, err)
			}
			plans, err := recorder.Take()
			if err != nil {
				return nil, err
			}
			one := asked{Question: q.name, Most: q.most, plans: len(plans)}
			for _, p := range plans {
				one.Milliseconds += p.Milliseconds
				one.Rows = max(one.Rows, int(p.Read)) // a page's second query is another page
				one.Indexes = append(one.Indexes, p.Indexes...)
				one.Scanned = append(one.Scanned, p.Scanned...)
			}
			slices.Sort(one.Indexes)
			one.Indexes = slices.Compact(one.Indexes)
			if worst.plans == 0 || one.Rows > worst.Rows || one.Milliseconds > worst.Milliseconds && one.Rows == worst.Rows || len(one.Scanned) > len(worst.Scanned) {
				worst = one
			}
		}
		out = append(out, worst)
	}
	return out, nil
}
