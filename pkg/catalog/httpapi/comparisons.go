// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/compare"
	"github.com/spotbench/spotbench/pkg/catalog/filter"
)

func (a *api) registerComparisons() {
	op := conditional("compare", "/v1/compare", "Two to eight runs or configurations beside each other", http.StatusNotFound)
	op.Description = "At the same benchmark and load: the median over the runs of each configuration with its 95 % interval, and its difference to the base, " +
		"with the p of a two-sided Mann-Whitney U test. Where there are too few runs, the interval is absent and the effect untested; a note says so."
	huma.Register(a.huma, op, func(ctx context.Context, in *filter.Comparison) (*body[compare.Report], error) {
		runs, more, err := a.store.Measured(ctx, in.Run, in.Query())
		if err != nil {
			return nil, a.problem(err)
		}
		report, err := compare.Compare(runs, compare.Options{By: in.By, Base: in.Base, Invalid: in.All || len(in.Run) > 0})
		report.Notes = noteMore(report.Notes, more)
		return &body[compare.Report]{report}, a.problem(err)
	})
	op = conditional("find-frontier", "/v1/pareto", "The choices between throughput, latency and cost, and which of them no other beats", http.StatusNotFound)
	op.Description = "A choice is a configuration at a load, by the medians over its runs."
	huma.Register(a.huma, op, func(ctx context.Context, in *filter.Pareto) (*body[compare.Frontier], error) {
		runs, more, err := a.store.Measured(ctx, in.Run, in.Query())
		if err != nil {
			return nil, a.problem(err)
		}
		options := compare.FrontierOptions{By: in.By, Latency: in.Latency, Invalid: in.All}
		for _, o := range in.Objectives {
			options.Objectives = append(options.Objectives, compare.Objective(o))
		}
		frontier, err := compare.FindFrontier(runs, options)
		frontier.Notes = noteMore(frontier.Notes, more)
		return &body[compare.Frontier]{frontier}, a.problem(err)
	})
	op = conditional("list-regressions", "/v1/regressions", "What newer engine or driver versions made significantly worse")
	op.Description = "Each version is compared with the one before it, for the same model, benchmark, GPUs, engine and load. " +
		"What is worse by more than the threshold and significantly so is listed."
	huma.Register(a.huma, op, func(ctx context.Context, in *filter.Regressions) (*body[compare.Regressions], error) {
		runs, more, err := a.store.Measured(ctx, nil, in.Query())
		if err != nil {
			return nil, a.problem(err)
		}
		found, err := compare.Regress(runs, in.Between, in.Threshold)
		found.Notes = noteMore(found.Notes, more)
		return &body[compare.Regressions]{found}, a.problem(err)
	})
}

func noteMore(notes []string, more bool) []string {
	if !more {
		return notes
	}
	return append(notes, fmt.Sprintf("More than %d runs match; these are the newest of them. Filter more for the others.", catalog.MaxMeasured))
}
