// SPDX-License-Identifier: Apache-2.0

// Package health tells from a node's readings which of its GPUs cannot be relied on.
// It is pure: readings and times go in, incidents come out.
package health

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spotbench/spotbench/pkg/telemetry"
)

// Kind is what is wrong. It is a valid reason of a node's condition and a valid
// value of a taint.
type Kind string

// The kinds.
const (
	// Lost is a GPU that the driver can no longer reach, or no longer lists.
	Lost Kind = "GPULost"
	// XID is an error that the driver reported and after which the GPU cannot be
	// relied on; see OfHardware.
	XID Kind = "XIDError"
	// DoubleBit is memory that had an error which could not be corrected since the
	// driver was loaded.
	DoubleBit Kind = "UncorrectableMemoryError"
	// RowRemap is memory whose faulty rows cannot be remapped any more.
	RowRemap Kind = "RowRemapFailure"
	// Thermal is a GPU slowed down by heat for longer than the limit.
	Thermal Kind = "ThermalViolation"
	// PowerBrake is a GPU slowed down by the external power brake (the power supply
	// cannot keep up) for longer than the limit. Its own power cap is normal operation.
	PowerBrake Kind = "PowerViolation"
	// NVLink is a GPU with fewer links up than it had.
	NVLink Kind = "NVLinkDown"
)

// Limits say when a state is an incident. Zero values take their default.
type Limits struct {
	// Throttled (60 s) is how long a GPU may be held down by heat or by the power brake
	// within Window (5 min). It is over when it is less than half of that.
	Throttled, Window time.Duration
	// Settle (10 s) is how long a GPU must be missing from the driver's list, or a link
	// be down, to count.
	Settle time.Duration
	// Recovery (5 min) is how long after its last XID a GPU that answers is sound again.
	Recovery time.Duration
}

func (l *Limits) setDefaults() {
	for value, fallback := range map[*time.Duration]time.Duration{
		&l.Throttled: time.Minute, &l.Window: 5 * time.Minute, &l.Settle: 10 * time.Second, &l.Recovery: 5 * time.Minute,
	} {
		if *value == 0 {
			*value = fallback
		}
	}
}

// Incident is one thing that is wrong with one GPU.
type Incident struct {
	Kind  Kind
	GPU   string
	Index int
	Since time.Time
	// Message is one sentence for people.
	Message string
}

// Status is what is wrong at a moment.
type Status struct {
	// Known is false until the GPUs have been read once, and when they have not been
	// read for a minute.
	Known bool
	// GPUs is how many the node is known to have.
	GPUs int
	// Incidents are in the order of the GPUs' indices.
	Incidents []Incident
	// Watched is how long the GPUs have been watched.
	Watched time.Duration
}

// unread is how long without a reading nothing is known.
const unread = time.Minute

// Tracker follows the GPUs of one node.
type Tracker struct {
	limits  Limits
	started time.Time
	last    time.Time
	gpus    map[string]*gpu
}

// gpu is what is known of one.
type gpu struct {
	index          int
	read           time.Time // when it was last read
	open           map[Kind]Incident
	xidAt          time.Time
	thermal, brake window
	mostLinks      float64
	linksDownSince time.Time
}

// New starts a Tracker at the moment now.
func New(limits Limits, now time.Time) *Tracker {
	limits.setDefaults()
	return &Tracker{limits: limits, started: now, gpus: map[string]*gpu{}}
}

// Limits are those in force.
func (t *Tracker) Limits() Limits { return t.limits }

// Observe takes in one reading. An empty one, with neither samples nor lost GPUs,
// says nothing: the library itself did not answer.
func (t *Tracker) Observe(now time.Time, r telemetry.Reading) {
	for _, x := range r.XIDs {
		g := t.gpu(x.GPU, -1)
		if OfHardware(x.Code) {
			g.xidAt = now
			g.raise(XID, x.GPU, now, fmt.Sprintf("XID %d: %s", x.Code, Meaning(x.Code)))
		}
	}
	if len(r.Samples) == 0 && len(r.Lost) == 0 {
		return
	}
	t.last = now
	for i := range r.Samples {
		if s := &r.Samples[i]; s.MIG == nil && !s.Empty() {
			t.observe(now, s)
		}
	}
	for _, lost := range r.Lost {
		uuid := lost.UUID
		if uuid == "" {
			uuid = fmt.Sprintf("GPU %d", lost.Index)
		}
		t.gpu(uuid, lost.Index).raise(Lost, uuid, now, lost.Cause)
	}
	for uuid, g := range t.gpus {
		if !g.read.IsZero() && now.Sub(g.read) >= t.limits.Settle {
			g.raise(Lost, uuid, now, "the driver no longer lists it")
		}
		if _, lost := g.open[Lost]; !lost && now.Sub(g.xidAt) >= t.limits.Recovery && g.read.Equal(now) {
			delete(g.open, XID)
		}
	}
}

func (t *Tracker) gpu(uuid string, index int) *gpu {
	g := t.gpus[uuid]
	if g == nil {
		g = &gpu{index: index, open: map[Kind]Incident{}}
		t.gpus[uuid] = g
	}
	if index >= 0 {
		g.index = index
	}
	return g
}

func (t *Tracker) observe(now time.Time, s *telemetry.Sample) {
	g := t.gpu(s.UUID, s.Index)
	// A GPU that was lost before it was ever read is known by its number only.
	delete(t.gpus, fmt.Sprintf("GPU %d", s.Index))
	elapsed := now.Sub(g.read)
	if g.read.IsZero() || elapsed > t.limits.Settle {
		elapsed = 0
	}
	g.read = now
	delete(g.open, Lost)
	n, there := s.Value(telemetry.ECCDoubleBit)
	g.set(DoubleBit, s.UUID, now, there && n > 0, there, fmt.Sprintf("%.0f memory errors that could not be corrected", n))
	failed, there := s.Value(telemetry.RowRemapFailure)
	g.set(RowRemap, s.UUID, now, there && failed > 0, there, "a faulty memory row could not be remapped")
	if _, there := s.Value(telemetry.ClockEvents); there {
		t.throttled(g, s, now, elapsed, Thermal, &g.thermal, s.Reasons.Thermal(), "heat")
		t.throttled(g, s, now, elapsed, PowerBrake, &g.brake, s.Reasons&telemetry.ReasonHWPowerBrake != 0, "the power brake")
	}
	t.links(g, s, now)
}

func (t *Tracker) throttled(g *gpu, s *telemetry.Sample, now time.Time, elapsed time.Duration, kind Kind, w *window, held bool, by string) {
	if held {
		w.add(now, elapsed)
	}
	sum := w.since(now.Add(-t.limits.Window))
	switch {
	case sum >= t.limits.Throttled:
		g.raise(kind, s.UUID, now, fmt.Sprintf("slowed down by %s for at least %s within %s", by, t.limits.Throttled, t.limits.Window))
	case sum < t.limits.Throttled/2:
		delete(g.open, kind)
	}
}

func (t *Tracker) links(g *gpu, s *telemetry.Sample, now time.Time) {
	up, there := s.Value(telemetry.NVLinksUp)
	if !there {
		return
	}
	g.mostLinks = max(g.mostLinks, up)
	if up == g.mostLinks {
		g.linksDownSince = time.Time{}
		delete(g.open, NVLink)
		return
	}
	if g.linksDownSince.IsZero() {
		g.linksDownSince = now
	}
	if now.Sub(g.linksDownSince) >= t.limits.Settle {
		g.raise(NVLink, s.UUID, now, fmt.Sprintf("%.0f of %.0f NVLinks are up", up, g.mostLinks))
	}
}

// raise opens an incident, or keeps the one that is open.
func (g *gpu) raise(kind Kind, uuid string, now time.Time, message string) {
	since := now
	if open, ok := g.open[kind]; ok {
		since = open.Since
	}
	g.open[kind] = Incident{Kind: kind, GPU: uuid, Index: g.index, Since: since, Message: message}
}

// set opens or closes an incident by what the GPU says; it stays as it is when the
// GPU says nothing.
func (g *gpu) set(kind Kind, uuid string, now time.Time, bad, known bool, message string) {
	switch {
	case bad:
		g.raise(kind, uuid, now, message)
	case known:
		delete(g.open, kind)
	}
}

// Status is what is wrong at the moment now.
func (t *Tracker) Status(now time.Time) Status {
	s := Status{Known: !t.last.IsZero() && now.Sub(t.last) < unread, GPUs: len(t.gpus), Watched: now.Sub(t.started)}
	for _, g := range t.gpus {
		s.Incidents = slices.AppendSeq(s.Incidents, maps.Values(g.open))
	}
	slices.SortFunc(s.Incidents, func(x, y Incident) int {
		return cmp.Or(cmp.Compare(x.Index, y.Index), x.Since.Compare(y.Since), cmp.Compare(x.Kind, y.Kind))
	})
	return s
}

// window sums durations over the recent past, to the second.
type window struct {
	spans []span
}

type span struct {
	second int64
	held   time.Duration
}

func (w *window) add(at time.Time, held time.Duration) {
	second := at.Unix()
	if n := len(w.spans); n > 0 && w.spans[n-1].second == second {
		w.spans[n-1].held += held
		return
	}
	w.spans = append(w.spans, span{second, held})
}

// since is the sum of what was added after from; what is older is dropped.
func (w *window) since(from time.Time) time.Duration {
	keep := slices.IndexFunc(w.spans, func(s span) bool { return s.second > from.Unix() })
	if keep < 0 {
		keep = len(w.spans)
	}
	w.spans = slices.Delete(w.spans, 0, keep)
	sum := time.Duration(0)
	for _, s := range w.spans {
		sum += s.held
	}
	return sum
}
