// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spotbench/spotbench/bench/catalog/internal/plan"
	"github.com/spotbench/spotbench/pkg/catalog/postgres"
)

// statements are those that the catalog itself sends for a request, but for the
// transaction's: no copy of them can differ.
func statements(ctx context.Context, address string, ask func(ctx context.Context, s *postgres.Store) error) ([]string, error) {
	traced, err := plan.Traced(address)
	if err != nil {
		return nil, err
	}
	var recorder plan.Recorder
	store, err := postgres.Open(ctx, postgres.Options{URL: traced, Connections: 1, Notice: recorder.Notice})
	if err != nil {
		return nil, err
	}
	defer store.Close()
	if err := ask(ctx, store); err != nil {
		return nil, err
	}
	plans, err := recorder.Take()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range plans {
		out = append(out, strings.Join(strings.Fields(p.Query), " "))
	}
	return out, nil
}

// piped is a script that sends statements as the catalog does: in one round trip, and in
// one transaction where begin begins one. values take the place of their parameters.
func piped(statements []string, begin string, values ...string) string {
	lines := []string{"\\set n random(0, 999)"}
	if begin != "" {
		statements = append(append([]string{begin}, statements...), "COMMIT")
	}
	if len(statements) > 1 {
		lines = append(lines, "\\startpipeline")
	}
	for _, sql := range statements {
		lines = append(lines, inlined(sql, values)+";")
	}
	if len(statements) > 1 {
		lines = append(lines, "\\endpipeline")
	}
	return strings.Join(lines, "\n") + "\n"
}

// inlined is a statement with values for its parameters.
func inlined(sql string, values []string) string {
	for n := len(values); n > 0; n-- { // $12 before $1
		sql = strings.ReplaceAll(sql, "$"+strconv.Itoa(n), values[n-1])
	}
	return sql
}

// written is the script of a new run: the questions about it in one round trip, and what
// is written in the next.
func written(statements []string) string {
	const key = "'bench/' || :client_id || '-' || :n"
	run := []string{key, "1", "''", "''", "''", "'bench/written'", "'sharegpt'", "''", "''", "'running'", "'L4'", "1", "''", "''", "''", "''", "''", "0", "0", "''", "NULL", "NULL", "''", "''", "''", "''", "'pending'", "1"}
	lines := []string{"\\set n random(0, 1000000000000000)", "\\startpipeline", "BEGIN;"}
	between := false
	for _, sql := range statements {
		switch {
		case strings.HasPrefix(sql, "INSERT INTO runs"):
			sql, between = inlined(sql, run), true
			lines = append(lines, "\\endpipeline", "\\startpipeline")
		case strings.HasPrefix(sql, "INSERT INTO audit"):
			sql = inlined(sql, []string{"'bench'", "'put-run'", "'/v1/runs/' || :n", "'127.0.0.1'"})
		case !between:
			sql = inlined(strings.ReplaceAll(sql, "ANY($1)", "ANY(ARRAY["+key+"])"), []string{key})
		default: // where the write is in the log: after the commit
			lines = append(lines, "COMMIT;")
		}
		lines = append(lines, sql+";")
	}
	return strings.Join(append(lines, "\\endpipeline"), "\n") + "\n"
}

// pgbench sends the workload's statements from PostgreSQL's own load generator.
func pgbench(ctx context.Context, dir, address string, w workload, connections []int, duration time.Duration, add func(measurement)) error {
	sent, err := statements(ctx, address, w.ask)
	if err != nil {
		return err
	}
	script := filepath.Join(dir, w.name+".sql")
	if err := os.WriteFile(script, []byte(w.script(sent)), 0o644); err != nil {
		return err
	}
	for _, n := range connections {
		m, err := pgbenchAt(ctx, script, filepath.Join(dir, "pgbench"), address, n, duration)
		if err != nil {
			return err
		}
		m.Workload = w.name
		add(m)
	}
	return nil
}

func pgbenchAt(ctx context.Context, script, logs, address string, connections int, duration time.Duration) (measurement, error) {
	seconds := strconv.Itoa(max(1, int(duration.Seconds())))
	text, err := exec.CommandContext(ctx, "pgbench", "-n", "-M", "prepared", "-f", script, "-c", strconv.Itoa(connections), "-j", strconv.Itoa(min(2, connections)), "-T", seconds,
		"-l", "--log-prefix", logs, address).CombinedOutput()
	if err != nil {
		return measurement{}, fmt.Errorf("pgbench (Debian: apt-get install postgresql): %w: %s", err, text)
	}
	files, err := filepath.Glob(logs + ".*")
	if err != nil {
		return measurement{}, err
	}
	var latencies []time.Duration
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return measurement{}, err
		}
		for line := range strings.Lines(string(content)) {
			fields := strings.Fields(line) // client, transaction, microseconds, …
			if len(fields) < 3 {
				continue
			}
			us, err := strconv.ParseInt(fields[2], 10, 64)
			if err != nil {
				return measurement{}, fmt.Errorf("pgbench's log has %q: %w", line, err)
			}
			latencies = append(latencies, time.Duration(us)*time.Microsecond)
		}
		if err := os.Remove(file); err != nil {
			return measurement{}, err
		}
	}
	m := measurement{Subject: "pgbench", Connections: connections, observed: summarize(latencies, duration)}
	// Its own rate is without the time in which it made its connections.
	_, rate, _ := strings.Cut(string(text), "tps = ")
	rate, _, _ = strings.Cut(rate, " ")
	m.PerSecond, err = strconv.ParseFloat(rate, 64)
	if err != nil {
		return m, fmt.Errorf("pgbench printed %q", text)
	}
	return m, nil
}

// redisGet is what Redis needs for a value as long as an answer of the workload.
func redisGet(ctx context.Context, w workload, server string, connections []int, duration time.Duration, add func(measurement)) error {
	if w.write {
		return nil
	}
	answer, err := get(ctx, server, w.path(0))
	if err != nil {
		return err
	}
	for _, n := range connections {
		requests := int(duration.Seconds() * 20_000)
		text, err := exec.CommandContext(ctx, "redis-benchmark", "-p", redisPort, "-t", "set,get", "-d", strconv.Itoa(len(answer)), "-c", strconv.Itoa(n), "-n", strconv.Itoa(requests), "--csv").Output()
		if err != nil {
			return fmt.Errorf("redis-benchmark (Debian: apt-get install redis-tools): %w", err)
		}
		records, err := csv.NewReader(strings.NewReader(string(text))).ReadAll()
		if err != nil {
			return fmt.Errorf("redis-benchmark: %w", err)
		}
		for _, r := range records {
			if r[0] != "GET" || len(r) < 7 {
				continue
			}
			m := measurement{Workload: w.name, Subject: "redis GET", Connections: n}
			for at, to := range map[int]*float64{1: &m.PerSecond, 4: &m.P50, 6: &m.P99} {
				if *to, err = strconv.ParseFloat(r[at], 64); err != nil {
					return fmt.Errorf("redis-benchmark printed %q: %w", r, err)
				}
			}
			add(m)
		}
	}
	return nil
}
