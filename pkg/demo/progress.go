// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"sync"
	"time"
)

// Progress prints one line per step, prefixed with the seconds since the start,
// so that a person watching always knows what is going on and for how long.
type Progress struct {
	mu    sync.Mutex
	w     io.Writer
	start time.Time
}

// NewProgress returns a Progress that writes to w and counts from now.
func NewProgress(w io.Writer) *Progress {
	return &Progress{w: w, start: time.Now()}
}

// Step prints a line.
func (p *Progress) Step(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "[%4.0fs] %s\n", time.Since(p.start).Seconds(), fmt.Sprintf(format, args...))
}

// Headline prints a line set off from the ones before it, for the start of an act.
func (p *Progress) Headline(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "\n[%4.0fs] ── %s\n", time.Since(p.start).Seconds(), fmt.Sprintf(format, args...))
}

// Writer is a Progress as an io.Writer, for programs that print lines with a clock
// of their own: theirs is replaced by ours.
func (p *Progress) Writer() io.Writer { return &progressWriter{progress: p} }

type progressWriter struct {
	progress *Progress
	rest     []byte
}

var ownClock = regexp.MustCompile(`^\[ *\d+s\] `)

func (w *progressWriter) Write(data []byte) (int, error) {
	w.rest = append(w.rest, data...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok {
			return len(data), nil
		}
		w.rest = rest
		w.progress.Step("  %s", ownClock.ReplaceAll(line, nil))
	}
}
