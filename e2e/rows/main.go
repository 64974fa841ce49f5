// SPDX-License-Identifier: Apache-2.0

// Command rows runs the tests that prove the parts of the reference platform, and prints
// a table with a verdict for each part. It fails if a part does.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
)

func main() {
	root := flag.String("root", ".", "root of the source tree")
	only := flag.String("only", "", "only the rows of these parts, separated by |")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *root, *only, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "rows:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root, only string, out io.Writer) error {
	wanted := rows
	if only != "" {
		parts := strings.Split(only, "|")
		wanted = slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return !slices.Contains(parts, r.part) })
		if len(wanted) == 0 {
			return fmt.Errorf("-only %q names no part", only)
		}
	}
	results := map[proof]string{}
	packages := byPackage(wanted)
	for _, pkg := range slices.Sorted(maps.Keys(packages)) {
		tests := packages[pkg]
		fmt.Fprintf(out, "\n== go test ./%s: %s\n", pkg, strings.Join(tests, ", "))
		got, err := test(ctx, root, pkg, tests, out)
		if err != nil {
			return err
		}
		for name, result := range got {
			results[proof{pkg: pkg, test: name}] = result
		}
	}
	return draw(out, judge(wanted, results))
}

// byPackage is which tests are to run in which package.
func byPackage(rows []row) map[string][]string {
	all := map[string][]string{}
	for _, r := range rows {
		for _, p := range r.proofs {
			if !slices.Contains(all[p.pkg], p.test) {
				all[p.pkg] = append(all[p.pkg], p.test)
			}
		}
	}
	return all
}

// test runs tests of one package and returns what became of each: pass, fail or skip.
func test(ctx context.Context, root, pkg string, tests []string, out io.Writer) (map[string]string, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-json", "-timeout", "40m", "-run", "^("+strings.Join(tests, "|")+")$", "./"+pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "SPOTBENCH_COMPLETE=1", "SPOTBENCH_E2E_UPSTREAM=1")
	cmd.Stderr = out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // the cluster is taken down
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("go test %s: %w", pkg, err)
	}
	results, readErr := read(stdout, out)
	// That a test failed is in the results.
	var failed *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &failed) {
		readErr = errors.Join(readErr, err)
	}
	return results, errors.Join(readErr, ctx.Err())
}

// read takes the events of `go test -json`, shows what the tests print, and returns the
// results of those that are not part of another one.
func read(events io.Reader, out io.Writer) (map[string]string, error) {
	results := map[string]string{}
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct{ Action, Test, Output string }
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(out, lines.Text()) // of the go command itself
			continue
		}
		switch {
		case e.Action == "output":
			fmt.Fprint(out, e.Output)
		case e.Test != "" && !strings.Contains(e.Test, "/") && slices.Contains([]string{"pass", "fail", "skip"}, e.Action):
			results[e.Test] = e.Action
		}
	}
	return results, lines.Err()
}

// verdict is what is said of a row.
type verdict struct {
	row
	passed  bool
	reasons []string
}

// judge says of each row whether all its proofs hold. One that did not run proves nothing.
func judge(rows []row, results map[proof]string) []verdict {
	var all []verdict
	for _, r := range rows {
		v := verdict{row: r, passed: len(r.proofs) > 0}
		for _, p := range r.proofs {
			switch results[proof{pkg: p.pkg, test: p.test}] {
			case "pass":
			case "fail":
				v.passed = false
				v.reasons = append(v.reasons, p.test+" failed")
			case "skip":
				v.passed = false
				v.reasons = append(v.reasons, p.test+" was skipped")
			default:
				v.passed = false
				v.reasons = append(v.reasons, p.test+" did not run")
			}
		}
		all = append(all, v)
	}
	return all
}

// draw prints the table; the error says how many rows did not pass.
func draw(out io.Writer, verdicts []verdict) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\npart\tverdict\tproven by\tnot proven")
	failed := 0
	for _, v := range verdicts {
		word := "pass"
		if !v.passed {
			word = "FAIL"
			failed++
		}
		for i, line := range v.lines() {
			if i > 0 {
				fmt.Fprintf(table, "\t\t%s\t\n", line)
				continue
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", v.part, word, line, v.lacks)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d rows are not proven", failed, len(verdicts))
	}
	return nil
}

// lines are what a row was proven by, a package and how far it goes each, or why not.
func (v verdict) lines() []string {
	if len(v.reasons) > 0 {
		return v.reasons
	}
	lines := map[string]bool{}
	for _, p := range v.proofs {
		lines[p.how+": "+p.pkg] = true
	}
	return slices.Sorted(maps.Keys(lines))
}
