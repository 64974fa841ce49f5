// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"github.com/spotbench/spotbench/bench/catalog/internal/filling"
	"github.com/spotbench/spotbench/bench/internal/proc"
	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/auth"
)

// subject is a server that is measured.
type subject struct {
	name          string
	reads, writes string
	token         string
	pid           int
	// stores are the processes of the database and of Redis that it uses.
	stores []int
}

// ours are the ways in which catalog-api is measured, by their flags.
var ours = []struct {
	name  string
	flags []string
}{{"ours", []string{"--rate-limit", "0"}}, {"ours cached", []string{"--rate-limit", "0", "--redis-url", "redis://127.0.0.1:" + redisPort}}}

// redisPort is where the benchmark's Redis listens.
const redisPort = "16379"

// start starts every server on the database, whose process is given. stop ends those that run, also after
// an error.
func start(ctx context.Context, dir, address string, database int) (subjects []subject, stop func(), err error) {
	var running []*exec.Cmd
	stop = func() {
		for _, cmd := range running {
			_ = cmd.Process.Kill() // it has ended if this fails
			_ = cmd.Wait()
		}
	}
	launch := func(out io.Writer, name string, args ...string) (*exec.Cmd, error) {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.SysProcAttr, cmd.Stderr = proc.DiesWithParent(), out
		if out == nil {
			cmd.Stderr = os.Stderr
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		running = append(running, cmd)
		return cmd, nil
	}
	program := filepath.Join(dir, "catalog-api")
	if text, err := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/spotbench/spotbench/cmd/catalog-api").CombinedOutput(); err != nil {
		return nil, stop, fmt.Errorf("build catalog-api: %w: %s", err, text)
	}
	token, line, err := auth.NewToken("bench")
	if err != nil {
		return nil, stop, err
	}
	tokens := filepath.Join(dir, "tokens")
	if err := os.WriteFile(tokens, []byte(line+"\n"), 0o600); err != nil {
		return nil, stop, err
	}
	redis, err := launch(io.Discard, "redis-server", "--port", redisPort, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", filepath.Join(dir, "redis.log"))
	if err != nil {
		return nil, stop, fmt.Errorf("redis-server (Debian: apt-get install redis-server): %w", err)
	}
	for _, way := range ours {
		name, flags := way.name, way.flags
		log, into := io.Pipe()
		data, err := folder(dir, strings.ReplaceAll(name, " ", "-"))
		if err != nil {
			return nil, stop, err
		}
		cmd, err := launch(into, program, append([]string{"serve", "--database-url", address, "--data-dir", data, "--listen", "127.0.0.1:0", "--listen-read-only", "127.0.0.1:0", "--writer-tokens", tokens}, flags...)...)
		if err != nil {
			return nil, stop, err
		}
		s := subject{name: name, token: token, pid: cmd.Process.Pid, stores: []int{database, redis.Process.Pid}}
		lines := bufio.NewScanner(log)
		for (s.reads == "" || s.writes == "") && lines.Scan() {
			var told struct {
				Msg, Address string
				TLS          bool
			}
			if json.Unmarshal(lines.Bytes(), &told) == nil && told.Msg == "listening" {
				if told.TLS {
					s.writes = "tls:" + told.Address
				} else {
					s.reads = told.Address
				}
			}
		}
		go func() { _, _ = io.Copy(io.Discard, log) }() // its log must not fill the pipe
		subjects = append(subjects, s)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, stop, err
	}
	cmd := exec.CommandContext(ctx, self, "-serve-bare", address)
	cmd.SysProcAttr, cmd.Stderr = proc.DiesWithParent(), os.Stderr
	told, err := cmd.StdoutPipe()
	if err != nil {
		return nil, stop, err
	}
	if err := cmd.Start(); err != nil {
		return nil, stop, err
	}
	running = append(running, cmd)
	first, err := bufio.NewReader(told).ReadString('\n')
	if err != nil {
		return nil, stop, fmt.Errorf("the bare handler did not start: %w", err)
	}
	first = strings.TrimSpace(first)
	return append(subjects, subject{name: "bare", reads: first, writes: first, pid: cmd.Process.Pid, stores: []int{database}}), stop, nil
}

// bulkRows are results as lines of a file, and as rows for COPY.
func bulkRows(run catalog.Run, seed uint64) (string, [][]any, error) {
	var lines strings.Builder
	rows, importID := make([][]any, bulkResults), uuid.New()
	for n := range rows {
		r := filling.Point(seed<<32|uint64(n), run)
		r.RunKey, r.ImportID, r.File = run.Key, importID.String(), "bulk.ndjson"
		r.ID = uuid.New().String()
		body, err := json.Marshal(r)
		if err != nil {
			return "", nil, err
		}
		lines.Write(append(body, '\n'))
		rows[n] = []any{r.ID, importID, n, run.Key, r.Model, *r.Concurrency, time.Now(), "spotbench", run.GPUModel, "valid", json.RawMessage(body)}
	}
	return lines.String(), rows, nil
}

func printPlans(out io.Writer, plans []asked) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "question\trows read\tms\tindexes")
	var errs []error
	for _, p := range plans {
		fmt.Fprintf(table, "%s\t%d\t%.1f\t%s\n", p.Question, p.Rows, p.Milliseconds, strings.Join(p.Indexes, " "))
		if why := p.bad(); why != "" {
			errs = append(errs, fmt.Errorf("%s: %s", p.Question, why))
		}
	}
	return errors.Join(append(errs, table.Flush())...)
}

// host is an address without the mark of TLS.
func host(address string) (hostPort string, secure bool) {
	rest, secure := strings.CutPrefix(address, "tls:")
	return rest, secure
}
