// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
)

// table collects what the tests found: one line for each fault.
type table struct {
	mu    sync.Mutex
	lines []string
}

// add notes what was done, how much work that cost, and what was kept.
func (f *table) add(t *testing.T, done string, lost float64, kept string) {
	t.Helper()
	line := fmt.Sprintf("%s\t%.1f s\t%s", done, lost, kept)
	t.Log(strings.ReplaceAll(line, "\t", " | "))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines = append(f.lines, line)
}

func (f *table) print(w io.Writer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.lines) == 0 {
		return
	}
	slices.Sort(f.lines)
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "fault\twork lost\tkept")
	for _, line := range f.lines {
		fmt.Fprintln(out, line)
	}
	_ = out.Flush()
}
