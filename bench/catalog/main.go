// SPDX-License-Identifier: Apache-2.0

// Catalog measures catalog-api on ten million results beside a bare handler,
// PostgreSQL's own pgbench and Redis, in one run.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spotbench/spotbench/bench/catalog/internal/filling"
	"github.com/spotbench/spotbench/pkg/catalog/localpg"
	"github.com/spotbench/spotbench/pkg/catalog/postgres"
)

const usage = `Usage: catalog [flags]

Fills a PostgreSQL of its own with made-up runs and results (by COPY), asks it by
EXPLAIN what it does for each list, and measures

  ours     cmd/catalog-api, built from this tree, without and with Redis
  bare     net/http and pgx with the same statements and the same answers, byte for byte
           (which is checked), and nothing else: no checks of parameters, no metrics, no
           ETag, no problem documents, no TLS
  pgbench  the statements that the catalog sends, from PostgreSQL's own load generator
  redis    GET of a value as long as the answer

Reads are warm: all that is asked for has been asked for once. A cache keeps it ten seconds.

at several numbers of connections. Load generator, server and database share the
machine's processors.

  1/s      answers per second; those with another status than 2xx end the benchmark
  p50 p99  from the request to the end of the answer. At "half" requests come at half
           of the rate just reached at 64 connections, at set times, and latency counts
           from those: waiting for a slow answer does not hide it
  CPU      of the server's process, per request; "with stores" is with PostgreSQL's and
           Redis' processes. The load generator's is in neither, and yet it takes its
           share of the processors, and with it of the rates
  memory   peak resident set of the server's process

Flags:
`

type settings struct {
	dir, json, only       string
	runs, resultsPerRun   int
	connections           string
	duration              time.Duration
	fillOnly, explainOnly bool
	bare                  string
}

func main() {
	var s settings
	flags := flag.NewFlagSet("catalog", flag.ContinueOnError)
	flags.StringVar(&s.dir, "dir", "", "folder of the database; kept, and filled only once (default: a temporary one)")
	flags.IntVar(&s.runs, "runs", 250_000, "runs to make up")
	flags.IntVar(&s.resultsPerRun, "results-per-run", 40, "results of each")
	flags.StringVar(&s.connections, "connections", "1,4,16,64,256", "numbers of connections, separated by commas")
	flags.DurationVar(&s.duration, "duration", 2*time.Second, "how long each measurement takes")
	flags.StringVar(&s.only, "only", "", "workloads to measure, separated by commas (default: all)")
	flags.BoolVar(&s.fillOnly, "fill-only", false, "end when the database is filled")
	flags.BoolVar(&s.explainOnly, "explain-only", false, "end after EXPLAIN")
	flags.StringVar(&s.json, "json", "", "write the results to this file as well")
	flags.StringVar(&s.bare, "serve-bare", "", "be the bare handler for the database of this URL")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	switch err := flags.Parse(os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if s.bare != "" {
		err = serveBare(ctx, s.bare, os.Stdout)
	} else {
		err = run(ctx, s, os.Stdout)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "catalog:", err)
		os.Exit(1)
	}
}

// report is everything that was found.
type report struct {
	Runs    int           `json:"runs"`
	Results int           `json:"results"`
	Bytes   int64         `json:"databaseBytes"`
	Plans   []asked       `json:"plans,omitempty"`
	Points  []measurement `json:"measurements,omitempty"`
	Bulk    []bulk        `json:"bulk,omitempty"`
}

func run(ctx context.Context, s settings, out io.Writer) (err error) {
	if s.runs < 1000 || s.resultsPerRun < 4 {
		return errors.New("-runs must be at least 1000, -results-per-run at least 4")
	}
	connections, err := parseConnections(s.connections)
	if err != nil {
		return err
	}
	dir := s.dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "catalog-bench-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	server, err := localpg.Start(ctx, dir, slog.New(slog.DiscardHandler), "shared_buffers=2GB", "max_connections=400", "max_wal_size=2GB", "checkpoint_timeout=30min", "effective_cache_size=12GB")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop(context.WithoutCancel(ctx))) }()
	shape, err := filledAs(ctx, s, dir, server.URL(), out)
	if err != nil || s.fillOnly {
		return err
	}
	found := report{Runs: shape.Runs, Results: shape.Results()}
	if found.Bytes, err = size(ctx, server.URL()); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d results of %d runs, %.1f GiB with indexes\n", found.Results, found.Runs, float64(found.Bytes)/(1<<30))
	if s.only == "" || s.explainOnly {
		if found.Plans, err = explain(ctx, server.URL(), shape, 7); err != nil {
			return err
		}
		if err := printPlans(out, found.Plans); err != nil {
			return err
		}
	}
	if !s.explainOnly {
		postmaster, err := processOf(dir)
		if err != nil {
			return err
		}
		if err := measure(ctx, s, connections, shape, server.URL(), postmaster, &found, out); err != nil {
			return err
		}
	}
	if s.json == "" {
		return nil
	}
	text, err := json.MarshalIndent(found, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(s.json, append(text, '\n'), 0o644)
}

// processOf is PostgreSQL's process that all others of it are children of.
func processOf(dir string) (int, error) {
	text, err := os.ReadFile(filepath.Join(dir, "postgresql", "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(strings.TrimSpace(first))
}

// filledAs fills the database unless the folder says that it is.
func filledAs(ctx context.Context, s settings, dir, url string, out io.Writer) (filling.Shape, error) {
	mark := filepath.Join(dir, "filled.json")
	var shape filling.Shape
	if text, err := os.ReadFile(mark); err == nil {
		err = json.Unmarshal(text, &shape)
		return shape, err
	}
	shape = filling.Shape{Runs: s.runs, ResultsPerRun: s.resultsPerRun, End: time.Now().UTC().Truncate(time.Hour)}
	store, err := postgres.Open(ctx, postgres.Options{URL: url})
	if err != nil {
		return shape, err
	}
	defer store.Close()
	if _, err := store.MigrateUp(ctx); err != nil {
		return shape, err
	}
	if err := filling.Fill(ctx, url, shape, func(step string) { fmt.Fprintln(out, step) }); err != nil {
		return shape, err
	}
	text, err := json.Marshal(shape)
	if err != nil {
		return shape, err
	}
	return shape, os.WriteFile(mark, text, 0o600)
}
