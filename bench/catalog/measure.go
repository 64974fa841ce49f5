// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
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
	"golang.org/x/sync/errgroup"

	"github.com/spotbench/spotbench/bench/catalog/internal/filling"
	"github.com/spotbench/spotbench/bench/internal/proc"
	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/postgres"
)

// measurement is one subject at one workload and number of connections.
type measurement struct {
	Workload    string  `json:"workload"`
	Subject     string  `json:"subject"`
	Connections int     `json:"connections"`
	OfferedRate float64 `json:"offeredPerSecond,omitempty"`
	observed
	CPUPerK   float64 `json:"cpuSecondsPer1000Requests,omitempty"`
	AllPerK   float64 `json:"cpuSecondsWithStoresPer1000Requests,omitempty"`
	MemoryMiB float64 `json:"peakMemoryMiB,omitempty"`
}

// bulk is how fast many results are taken in.
type bulk struct {
	How       string  `json:"how"`
	Results   int     `json:"results"`
	PerSecond float64 `json:"resultsPerSecond"`
	MemoryMiB float64 `json:"peakMemoryMiB,omitempty"`
}

// workload is a kind of request.
type workload struct {
	name  string
	write bool
	// requests is how many different ones there are, drawn from at random; path is the
	// address of one.
	requests int
	path     func(n int) string
	// text, for a write, is a request that was not made before.
	text func(token string, worker, n int) []byte
	// ask has the store send the statements of a request, which pgbench then sends too;
	// script makes pgbench's script of them.
	ask    func(ctx context.Context, s *postgres.Store) error
	script func(statements []string) string
}

// draw makes the requests of a load.
func (w workload) draw(token string) func(worker, n int) []byte {
	if w.write {
		return func(worker, n int) []byte { return w.text(token, worker, n) }
	}
	texts := make([][]byte, w.requests)
	for n := range texts {
		texts[n] = request("GET", w.path(n), "", "")
	}
	return func(int, int) []byte { return texts[rand.IntN(len(texts))] } //nolint:gosec // which run is asked for is no secret
}

// models is how many models the runs are of.
const models = 60

// sampled is how many of the runs are asked for: few enough that a cache
// has most of them, and all are in the database's memory.
const sampled = 1000

func workloads(shape filling.Shape) []workload {
	runs := min(sampled, shape.Runs)
	combinations := models * len(filling.GPUs)
	writes := time.Now().UnixNano()
	return []workload{
		{name: "point", requests: runs, path: func(n int) string { return "/v1/results/" + filling.ResultID(n, 1).String() },
			ask: func(ctx context.Context, s *postgres.Store) error {
				_, err := s.ResultJSON(ctx, filling.ResultID(0, 1).String())
				return err
			},
			script: func(statements []string) string {
				return piped(statements, "", "(SELECT id FROM bench_sample WHERE n = :n)")
			}},
		{name: "list", requests: combinations, path: func(n int) string {
			return "/v1/results?model=" + url.QueryEscape(filling.Model(n%models)) + "&gpuModel=" + filling.GPUs[n/models]
		},
			ask: func(ctx context.Context, s *postgres.Store) error {
				_, err := s.ListResultsJSON(ctx, catalog.ResultQuery{Model: filling.Model(0), GPUModel: filling.GPUs[0]})
				return err
			},
			script: func(statements []string) string {
				return piped(statements, "", "(SELECT model FROM bench_sample WHERE n = :n)", "(SELECT gpu_model FROM bench_sample WHERE n = :n)")
			}},
		{name: "run", requests: runs, path: func(n int) string { return "/v1/runs/" + url.PathEscape(filling.Key(n)) },
			ask: func(ctx context.Context, s *postgres.Store) error {
				_, err := s.GetRun(ctx, filling.Key(0))
				return err
			},
			script: func(statements []string) string {
				const key = "(SELECT key FROM bench_sample WHERE n = :n)"
				for n, sql := range statements {
					statements[n] = strings.ReplaceAll(sql, "ANY($1)", "ANY(ARRAY["+key+"])")
				}
				return piped(statements, snapshot, key)
			}},
		{name: "compare", requests: runs, path: func(n int) string {
			return fmt.Sprintf("/v1/compare?run=%s&run=%s", url.QueryEscape(filling.Key(n)), url.QueryEscape(filling.Key((n+1)%shape.Runs)))
		},
			ask: func(ctx context.Context, s *postgres.Store) error {
				_, _, err := s.Measured(ctx, []string{filling.Key(0), filling.Key(1)}, catalog.RunQuery{})
				return err
			},
			script: func(statements []string) string {
				return piped(statements, snapshot, "ARRAY[(SELECT key FROM bench_sample WHERE n = :n), (SELECT key FROM bench_sample WHERE n = (:n + 1) % 1000)]")
			}},
		{name: "write", write: true, text: func(token string, worker, n int) []byte {
			if n == 0 && worker == 0 {
				writes++
			}
			return request("PUT", fmt.Sprintf("/v1/runs/bench%%2Fw%d-%d-%d", writes, worker, n), token, `{"model":"bench/written","benchmark":"sharegpt","gpuModel":"L4","gpuCount":1,"status":"running"}`)
		},
			ask: func(ctx context.Context, s *postgres.Store) error {
				_, _, err := s.PutRun(filed(ctx, "PUT", "/v1/runs/asked"), fmt.Sprintf("bench/asked-%d", writes), catalog.Run{Model: "bench/written"}, 0)
				return err
			},
			script: written},
	}
}

// snapshot begins the transaction of a read that has several statements.
const snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

// filed is a context as the catalog has it for a write: who wrote is filed with it, and
// its place in the database's log is asked for.
func filed(ctx context.Context, operation, target string) context.Context {
	return catalog.Writing(catalog.WithSession(ctx, &catalog.Session{}), catalog.AuditEntry{Caller: "bench", Operation: operation, Target: target, Remote: "127.0.0.1"})
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

func measure(ctx context.Context, s settings, connections []int, shape filling.Shape, address string, database int, found *report, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "catalog-bench-run-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	subjects, stop, err := start(ctx, dir, address, database)
	defer stop()
	if err != nil {
		return err
	}
	if err := sample(ctx, address, shape); err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "workload\tsubject\tconnections\t1/s\tp50 ms\tp99 ms\tCPU ms\twith stores\tmemory MiB\t")
	add := func(m measurement) {
		found.Points = append(found.Points, m)
		load := strconv.Itoa(m.Connections)
		if m.OfferedRate > 0 {
			load = "half"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%.0f\t%.2f\t%.2f\t%.3f\t%.3f\t%.0f\t\n", m.Workload, m.Subject, load, m.PerSecond, m.P50, m.P99, m.CPUPerK, m.AllPerK, m.MemoryMiB)
	}
	for _, w := range workloads(shape) {
		if s.only != "" && !slices.Contains(strings.Split(s.only, ","), w.name) {
			continue
		}
		if err := same(ctx, subjects, w); err != nil {
			return err
		}
		for _, subject := range subjects {
			if err := subject.warm(ctx, w); err != nil {
				return err
			}
			for _, n := range connections {
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
		}
		if err := pgbench(ctx, dir, address, w, connections, s.duration, add); err != nil {
			return err
		}
		if err := redisGet(ctx, w, subjects[0].reads, connections, s.duration, add); err != nil {
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

// get is the content of an answer.
func get(ctx context.Context, server, path string) (content []byte, err error) {
	c, err := dial(ctx, server)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	var out bytes.Buffer
	_, err = c.exchange(request("GET", path, "", ""), &out)
	return out.Bytes(), err
}

// same makes sure that all subjects answer alike: else nothing is compared.
func same(ctx context.Context, subjects []subject, w workload) error {
	for n := range min(w.requests, 20) {
		var first []byte
		for _, s := range subjects {
			answer, err := get(ctx, s.reads, w.path(n))
			if err != nil {
				return fmt.Errorf("%s of %s: %w", w.name, s.name, err)
			}
			if first == nil {
				first = answer
			}
			if !bytes.Equal(first, answer) {
				return fmt.Errorf("%s: %s answers %.300s\n%s answers %.300s", w.name, subjects[0].name, first, s.name, answer)
			}
		}
	}
	return nil
}

// warm asks for everything once that will be asked for.
func (s subject) warm(ctx context.Context, w workload) error {
	const workers = 4
	group, ctx := errgroup.WithContext(ctx)
	for worker := range workers {
		group.Go(func() (err error) {
			c, err := dial(ctx, s.reads)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.Close()) }()
			for n := worker; n < w.requests; n += workers {
				if err := c.do(request("GET", w.path(n), "", "")); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// used is the CPU time of the server's process, and with that of the database and of
// Redis.
func (s subject) used() (own, all time.Duration, err error) {
	if own, err = proc.CPUTime(s.pid); err != nil {
		return 0, 0, err
	}
	all = own
	for _, store := range s.stores {
		family, err := proc.FamilyCPUTime(store)
		if err != nil {
			return 0, 0, err
		}
		all += family
	}
	return own, all, nil
}

// measure loads the subject and reads what it used.
func (s subject) measure(ctx context.Context, w workload, connections int, duration time.Duration, rate float64) (measurement, error) {
	own, all, err := s.used()
	if err != nil {
		return measurement{}, err
	}
	address := s.reads
	if w.write {
		address = s.writes
	}
	seen, err := load(ctx, address, connections, duration, rate, w.draw(s.token))
	if err != nil {
		return measurement{}, err
	}
	ownAfter, allAfter, err := s.used()
	if err != nil {
		return measurement{}, err
	}
	memory, err := proc.PeakMemory(s.pid)
	if err != nil {
		return measurement{}, err
	}
	each := func(used time.Duration) float64 { return used.Seconds() / float64(max(1, seen.requests)) * 1000 }
	return measurement{Workload: w.name, Subject: s.name, Connections: connections, OfferedRate: rate, observed: seen,
		CPUPerK: each(ownAfter - own), AllPerK: each(allAfter - all), MemoryMiB: float64(memory) / (1 << 20)}, nil
}

// sample has what pgbench cannot make up itself: the keys of what it asks for.
func sample(ctx context.Context, address string, shape filling.Shape) (err error) {
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if _, err := conn.Exec(ctx, "DROP TABLE IF EXISTS bench_sample; CREATE TABLE bench_sample (n int PRIMARY KEY, key text, id uuid, model text, gpu_model text)"); err != nil {
		return err
	}
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"bench_sample"}, []string{"n", "key", "id", "model", "gpu_model"}, pgx.CopyFromSlice(min(sampled, shape.Runs), func(n int) ([]any, error) {
		return []any{n, filling.Key(n), filling.ResultID(n, 1), filling.Model(n % models), filling.GPUs[n%len(filling.GPUs)]}, nil
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
