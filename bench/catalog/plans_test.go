// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/spotbench/spotbench/bench/catalog/internal/filling"
	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/localpg"
	"github.com/spotbench/spotbench/pkg/catalog/postgres"
)

var (
	server *localpg.Server
	filled = filling.Shape{Runs: 3000, ResultsPerRun: 20, End: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "catalog-bench-")
		if err != nil {
			panic(err)
		}
		ctx := context.Background()
		if server, err = localpg.Start(ctx, dir, slog.New(slog.DiscardHandler)); err != nil {
			panic(err)
		}
		store, err := postgres.Open(ctx, postgres.Options{URL: server.URL()})
		if err == nil {
			_, err = store.MigrateUp(ctx)
			store.Close()
		}
		if err = errors.Join(err, filling.Fill(ctx, server.URL(), filled, nil)); err != nil {
			panic(err)
		}
		code := m.Run()
		if err := errors.Join(server.Stop(ctx), os.RemoveAll(dir)); err != nil {
			panic(err)
		}
		return code
	}())
}

// TestEachListIsAnsweredByAnIndexWhateverItsFilter asks PostgreSQL what it did for
// the catalog's own statements, on 60,000 results. The benchmark does the same on
// ten million.
func TestEachListIsAnsweredByAnIndexWhateverItsFilter(t *testing.T) {
	answers, err := explain(t.Context(), server.URL(), filled, 7)
	if err != nil {
		t.Fatal(err)
	}
	if len(answers) < 60 {
		t.Errorf("only %d questions were asked", len(answers))
	}
	for _, a := range answers {
		if why := a.bad(); why != "" {
			t.Errorf("%s: %s (%v, %.1f ms)", a.Question, why, a.Indexes, a.Milliseconds)
		}
	}
}

func TestTheMadeUpRunsAreRunsAsTheCatalogKeepsThem(t *testing.T) {
	store, err := postgres.Open(t.Context(), postgres.Options{URL: server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	run, err := store.GetRun(t.Context(), filling.Key(7))
	if err != nil || len(run.Results) != filled.ResultsPerRun || len(run.Segments) != 1 || !run.CostKnown {
		t.Fatalf("%+v, %v", run, err)
	}
	if judged, err := store.Rejudge(t.Context()); err != nil || judged != 0 {
		t.Errorf("%d verdicts are of other rules, %v", judged, err)
	}
	page, err := store.ListResults(t.Context(), catalog.ResultQuery{RunKey: run.Key, Verdict: run.Validity.Verdict, GPUModel: run.GPUModel, Limit: 500})
	if err != nil || len(page.Items) != filled.ResultsPerRun {
		t.Errorf("%d results are filed with the run's own verdict, %v", len(page.Items), err)
	}
}
