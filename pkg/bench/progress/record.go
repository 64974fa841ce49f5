// SPDX-License-Identifier: Apache-2.0

// Package progress is a benchmark's checkpoint: an append-only file with one
// checksummed JSON line per finished request. Any prefix of it is a valid
// checkpoint, so a copy made at any moment can be resumed from.
package progress

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// formatVersion is of the file's lines.
const formatVersion = 1

// Config is what decides the measurement. Two runs with the same Config measure
// the same requests, so one can go on where the other stopped.
type Config struct {
	Model       string `json:"model"`
	Benchmark   string `json:"benchmark"`
	Endpoint    string `json:"endpoint"`
	Concurrency []int  `json:"concurrency"`
	// Requests are measured per concurrency level, after Warmup that are not.
	Requests     int    `json:"requests"`
	Warmup       int    `json:"warmup"`
	InputTokens  int    `json:"inputTokens"`
	OutputTokens int    `json:"outputTokens"`
	IgnoreEOS    bool   `json:"ignoreEOS"`
	Seed         uint64 `json:"seed"`
}

// Difference is the flags in which two configurations differ, "" if in none.
func (c Config) Difference(now Config) string {
	var diffs []string
	add := func(flag string, was, is any, differ bool) {
		if differ {
			diffs = append(diffs, fmt.Sprintf("--%s was %v and is %v", flag, was, is))
		}
	}
	add("model", c.Model, now.Model, c.Model != now.Model)
	add("benchmark", c.Benchmark, now.Benchmark, c.Benchmark != now.Benchmark)
	add("endpoint", c.Endpoint, now.Endpoint, c.Endpoint != now.Endpoint)
	add("concurrency", c.Concurrency, now.Concurrency, !slices.Equal(c.Concurrency, now.Concurrency))
	add("requests", c.Requests, now.Requests, c.Requests != now.Requests)
	add("warmup", c.Warmup, now.Warmup, c.Warmup != now.Warmup)
	add("input-tokens", c.InputTokens, now.InputTokens, c.InputTokens != now.InputTokens)
	add("output-tokens", c.OutputTokens, now.OutputTokens, c.OutputTokens != now.OutputTokens)
	add("ignore-eos", c.IgnoreEOS, now.IgnoreEOS, c.IgnoreEOS != now.IgnoreEOS)
	add("seed", c.Seed, now.Seed, c.Seed != now.Seed)
	return strings.Join(diffs, ", ")
}

// Window is a stretch of measuring one concurrency level on one node, without a
// break. It starts after the warm-up and ends with its last finished request.
type Window struct {
	Concurrency int       `json:"concurrency"`
	Start       time.Time `json:"start"`
	Node        string    `json:"node,omitempty"`
	GPUModel    string    `json:"gpuModel,omitempty"`
	GPUUUIDs    []string  `json:"gpuUUIDs,omitempty"`
}

// Request is a finished, measured request of the window before it in the file.
// Times are nanoseconds.
type Request struct {
	// ID is from 0 to Requests-1 within the concurrency level.
	ID int `json:"id"`
	// EndedNS is since the start of the window.
	EndedNS     int64   `json:"ended"`
	TTFTNS      int64   `json:"ttft"`
	LatencyNS   int64   `json:"latency"`
	ITLNS       []int64 `json:"itl"`
	Input       int     `json:"in"`
	Output      int     `json:"out"`
	Fingerprint string  `json:"fp,omitempty"`
}

// Failure is an attempt that failed; its request is sent again.
type Failure struct {
	ID    int    `json:"id"`
	Error string `json:"error"`
}

// line is one line of the file: exactly one field is set.
type line struct {
	Header  *header  `json:"header,omitempty"`
	Window  *Window  `json:"window,omitempty"`
	Request *Request `json:"request,omitempty"`
	Failure *Failure `json:"failure,omitempty"`
}

type header struct {
	Version int    `json:"version"`
	Config  Config `json:"config"`
}

// Segment is a window with the requests that finished in it.
type Segment struct {
	Window
	Requests []Request
}

// Active is how long the window lasted: to its last finished request.
func (s Segment) Active() time.Duration {
	var last int64
	for _, r := range s.Requests {
		last = max(last, r.EndedNS)
	}
	return time.Duration(last)
}

// State is what a file says.
type State struct {
	Config   Config
	Segments []Segment
	// Failures counts failed attempts by concurrency level.
	Failures map[int]int
	done     map[key]bool
}

type key struct{ concurrency, id int }

// Done reports whether a request is measured.
func (s *State) Done(concurrency, id int) bool { return s.done[key{concurrency, id}] }

// Completed is the number of measured requests, of all concurrency levels.
func (s *State) Completed() int { return len(s.done) }

// Point is the segments of one concurrency level in which a request finished.
func (s *State) Point(concurrency int) []Segment {
	var out []Segment
	for _, seg := range s.Segments {
		if seg.Concurrency == concurrency && len(seg.Requests) > 0 {
			out = append(out, seg)
		}
	}
	return out
}

var errHeader = errors.New("the first line, and no other, must be the header")

// apply adds a line; the error says why it does not follow from those before it.
func (s *State) apply(l line, first bool) error {
	if (l.Header != nil) != first {
		return errHeader
	}
	switch {
	case l.Header != nil:
		if l.Header.Version != formatVersion {
			return fmt.Errorf("format version %d: this program reads version %d; resume with the program that wrote it", l.Header.Version, formatVersion)
		}
		s.Config = l.Header.Config
		return nil
	case l.Window != nil:
		if !slices.Contains(s.Config.Concurrency, l.Window.Concurrency) {
			return fmt.Errorf("window of concurrency %d, which is not in the sweep %v", l.Window.Concurrency, s.Config.Concurrency)
		}
		s.Segments = append(s.Segments, Segment{Window: *l.Window})
		return nil
	}
	if len(s.Segments) == 0 {
		return errors.New("a request before the first window")
	}
	seg := &s.Segments[len(s.Segments)-1]
	switch {
	case l.Failure != nil:
		s.Failures[seg.Concurrency]++
		return nil
	case l.Request != nil:
		k := key{seg.Concurrency, l.Request.ID}
		if k.id < 0 || k.id >= s.Config.Requests {
			return fmt.Errorf("request %d of concurrency %d: ids go from 0 to %d", k.id, k.concurrency, s.Config.Requests-1)
		}
		if s.done[k] {
			return fmt.Errorf("request %d of concurrency %d is there twice", k.id, k.concurrency)
		}
		s.done[k] = true
		seg.Requests = append(seg.Requests, *l.Request)
		return nil
	}
	return errors.New("a line of an unknown kind")
}

func newState(c Config) *State {
	return &State{Config: c, Failures: map[int]int{}, done: map[key]bool{}}
}

func decode(b []byte) (line, error) {
	var l line
	err := json.Unmarshal(b, &l)
	return l, err
}
