// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/spotbench/spotbench/bench/catalog/internal/filling"
	"github.com/spotbench/spotbench/bench/internal/proc"
	"github.com/spotbench/spotbench/pkg/catalog"
)

// measurement is one subject at one workload and number of connections.
type measurement struct {
	Workload    string  `json:"workload"`
	Subject     string  `json:"subject"`
	Connections int     `json:"connections"`
	OfferedRate float64 `json:"offeredPerSecond,omitempty"`
	observed
	CPUPerK   float64 `json:"cpuSecondsPer1000Requests,omitempty"`
	MemoryMiB float64 `json:"peakMemoryMiB,omitempty"`
}

// bulk is how fast many results are taken in.
type bulk struct {
	How       string  `json:"how"`
	Results   int     `json:"results"`
	PerSecond float64 `json:"resultsPerSecond"`
	MemoryMiB float64 `json:"peakMemoryMiB,omitempty"`
}

// workload is a kind of request. Reads have the statement that answers them, for
// pgbench.
type workload struct {
	name  string
	write bool
	// text makes a request of a worker.
	text func(token string) func(worker, n int) []byte
	// sql, if any, is the statement with its parameters from the table bench_sample.
	sql string
}

// sampled is how many of the runs are asked for: few enough that a cache
// has most of them, and all are in the database's memory.
const sampled = 1000

func workloads(shape filling.Shape) []workload {
	draw := func(path func(r *rand.Rand) string) func(string) func(int, int) []byte {
		return func(string) func(int, int) []byte {
			return func(worker, n int) []byte {
				r := rand.New(rand.NewPCG(uint64(worker), uint64(n))) //nolint:gosec // which run is asked for is no secret
				return request("GET", path(r), "", "")
			}
		}
	}
	some := func(r *rand.Rand) int { return r.IntN(min(sampled, shape.Runs)) }
	writes := time.Now().UnixNano()
	return []workload{
		{name: "point", sql: `SELECT body, imported_at, id::text FROM results WHERE id = (SELECT id FROM bench_sample WHERE n = :n)`,
			text: draw(func(r *rand.Rand) string { return "/v1/results/" + filling.ResultID(some(r), 1).String() })},
		{name: "list", sql: `SELECT body, imported_at, id::text FROM results WHERE NOT superseded AND model = (SELECT model FROM bench_sample WHERE n = :n)
			AND gpu_model = (SELECT gpu_model FROM bench_sample WHERE n = :n) ORDER BY imported_at DESC, id DESC LIMIT 51`,
			text: draw(func(r *rand.Rand) string {
				return "/v1/results?model=" + url.QueryEscape(filling.Model(r.IntN(60))) + "&gpuModel=" + filling.GPUs[r.IntN(len(filling.GPUs))]
			})},
		{name: "run", text: draw(func(r *rand.Rand) string { return "/v1/runs/" + url.PathEscape(filling.Key(some(r))) })},
		{name: "compare", text: draw(func(r *rand.Rand) string {
			first := some(r)
			return fmt.Sprintf("/v1/compare?run=%s&run=%s", url.QueryEscape(filling.Key(first)), url.QueryEscape(filling.Key((first+1)%shape.Runs)))
		})},
		{name: "write", write: true, text: func(token string) func(int, int) []byte {
			writes++
			prefix := writes
			return func(worker, n int) []byte {
				return request("PUT", fmt.Sprintf("/v1/runs/bench%%2Fw%d-%d-%d", prefix, worker, n), token, `{"model":"bench/written","benchmark":"sharegpt","gpuModel":"L4","gpuCount":1,"status":"running"}`)
			}
		}},
	}
}

func size(ctx context.Context, url string) (bytes int64, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	return bytes, conn.QueryRow(ctx, "SELECT pg_database_size(current_database())").Scan(&bytes)
}

// half is where the 99th percentile is held against its goal: half the rate of so
// many connections.
const half = 64

func measure(ctx context.Context, s settings, connections []int, shape filling.Shape, address string, found *report, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "catalog-bench-run-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	subjects, stop, err := start(ctx, dir, address)
	defer stop()
	if err != nil {
		return err
	}
	if err := sample(ctx, address, shape); err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "workload\tsubject\tconnections\t1/s\tp50 ms\tp99 ms\tCPU s/1000\tmemory MiB\t")
	add := func(m measurement) {
		found.Points = append(found.Points, m)
		load := strconv.Itoa(m.Connections)
		if m.OfferedRate > 0 {
			load = "half"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%.0f\t%.2f\t%.2f\t%.2f\t%.0f\t\n", m.Workload, m.Subject, load, m.PerSecond, m.P50, m.P99, m.CPUPerK, m.MemoryMiB)
	}
	for _, w := range workloads(shape) {
		if s.only != "" && !slices.Contains(strings.Split(s.only, ","), w.name) {
			continue
		}
		for _, n := range connections {
			for _, subject := range subjects {
				m, err := subject.measure(ctx, w, n, s.duration, 0)
				if err != nil {
					return fmt.Errorf("%s of %s at %d connections: %w", w.name, subject.name, n, err)
				}
				add(m)
				if n == half {
					if m, err = subject.measure(ctx, w, n, s.duration, m.PerSecond/2); err != nil {
						return err
					}
					add(m)
				}
			}
			if w.sql != "" {
				m, err := pgbench(ctx, dir, address, w, n, s.duration)
				if err != nil {
					return err
				}
				add(m)
			}
		}
		if err := redisGet(ctx, w, connections, s.duration, add); err != nil {
			return err
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if s.only != "" && !slices.Contains(strings.Split(s.only, ","), "bulk") {
		return nil
	}
	if found.Bulk, err = bulks(ctx, address, subjects); err != nil {
		return err
	}
	for _, b := range found.Bulk {
		fmt.Fprintf(out, "bulk: %d results by %s: %.0f/s, memory %.0f MiB\n", b.Results, b.How, b.PerSecond, b.MemoryMiB)
	}
	return nil
}

// measure loads the subject and reads what its process used.
func (s subject) measure(ctx context.Context, w workload, connections int, duration time.Duration, rate float64) (measurement, error) {
	before, err := proc.CPUTime(s.pid)
	if err != nil {
		return measurement{}, err
	}
	address := s.reads
	if w.write {
		address = s.writes
	}
	seen, err := load(ctx, address, connections, duration, rate, w.text(s.token))
	if err != nil {
		return measurement{}, err
	}
	after, err := proc.CPUTime(s.pid)
	if err != nil {
		return measurement{}, err
	}
	memory, err := proc.PeakMemory(s.pid)
	if err != nil {
		return measurement{}, err
	}
	return measurement{Workload: w.name, Subject: s.name, Connections: connections, OfferedRate: rate, observed: seen,
		CPUPerK: (after - before).Seconds() / float64(max(1, seen.requests)) * 1000, MemoryMiB: float64(memory) / (1 << 20)}, nil
}

// sample has what pgbench cannot make up itself: the keys of what it asks for.
func sample(ctx context.Context, address string, shape filling.Shape) (err error) {
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if _, err := conn.Exec(ctx, "DROP TABLE IF EXISTS bench_sample; CREATE TABLE bench_sample (n int PRIMARY KEY, id uuid, model text, gpu_model text)"); err != nil {
		return err
	}
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"bench_sample"}, []string{"n", "id", "model", "gpu_model"}, pgx.CopyFromSlice(min(sampled, shape.Runs), func(n int) ([]any, error) {
		return []any{n, filling.ResultID(n, 1), filling.Model(n % 60), filling.GPUs[n%len(filling.GPUs)]}, nil
	}))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "ANALYZE bench_sample")
	return err
}

// bulkResults is how many results one file of the bulk imports has.
const bulkResults = 10_000

// bulks writes the same results as one import over HTTP, and by COPY into the same
// table: the file's lines are what COPY gets as bodies. Each is done three times;
// the median counts.
func bulks(ctx context.Context, address string, subjects []subject) (out []bulk, err error) {
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	speeds := map[string][]float64{}
	for round := range 3 {
		run := catalog.Run{Key: fmt.Sprintf("bench/copy-%d-%d", time.Now().UnixNano(), round), Model: "bench/bulk", GPUModel: "L4"}
		lines, rows, err := bulkRows(run, uint64(round))
		if err != nil {
			return nil, err
		}
		began := time.Now()
		err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "INSERT INTO runs (key) VALUES ($1)", run.Key); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "INSERT INTO imports (id, run_key, file, format, sha256, bytes, imported_at) VALUES ($1, $2, '', 'spotbench', $2, 0, now())", rows[0][1], run.Key); err != nil {
				return err
			}
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"results"}, []string{"id", "import_id", "position", "run_key", "model", "concurrency", "imported_at", "format", "gpu_model", "verdict", "body"}, pgx.CopyFromRows(rows))
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("bulk by COPY: %w", err)
		}
		speeds["COPY"] = append(speeds["COPY"], bulkResults/time.Since(began).Seconds())
		for _, s := range subjects {
			key := url.QueryEscape(fmt.Sprintf("bench/bulk-%d", time.Now().UnixNano()))
			c, err := dial(ctx, s.writes)
			if err != nil {
				return nil, err
			}
			if err := c.do(request("PUT", "/v1/runs/"+strings.ReplaceAll(key, "+", "%20"), s.token, `{"model":"bench/bulk","gpuModel":"L4"}`)); err != nil {
				return nil, err
			}
			text := request("POST", "/v1/imports?run="+key+"&file=bulk.ndjson", s.token, lines)
			began := time.Now()
			if err := c.do(text); err != nil {
				return nil, fmt.Errorf("bulk by %s: %w", s.name, err)
			}
			speeds[s.name] = append(speeds[s.name], bulkResults/time.Since(began).Seconds())
			if err := c.Close(); err != nil {
				return nil, err
			}
		}
	}
	add := func(how string, memory float64) {
		slices.Sort(speeds[how])
		out = append(out, bulk{How: how, Results: bulkResults, PerSecond: speeds[how][1], MemoryMiB: memory})
	}
	add("COPY", 0)
	for _, s := range subjects {
		memory, err := proc.PeakMemory(s.pid)
		if err != nil {
			return nil, err
		}
		add(s.name, float64(memory)/(1<<20))
	}
	return out, nil
}

func folder(dir, name string) (string, error) {
	path := filepath.Join(dir, name)
	return path, os.MkdirAll(path, 0o755)
}
