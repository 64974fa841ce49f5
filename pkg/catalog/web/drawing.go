// SPDX-License-Identifier: Apache-2.0

package web

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// The drawings use percentages across and pixels down, so that they follow the
// width of the page while their text keeps its size.

// timeline shows on which node a run was when: a lane for each node, a bar for each
// segment, a line for each interruption.
type timeline struct {
	Lanes   []lane
	Marks   []mark
	Ticks   []tick
	Height  int
	AxisY   int
	Summary string
}

type lane struct {
	Node, GPU, Capacity string
	LabelY, BarY        int
	Bars                []bar
}

type bar struct {
	X, Width string
	Running  bool
	Title    string
}

type mark struct {
	X, Title string
}

type tick struct {
	X, Anchor, Label string
	// Minor labels are left out where the page is narrow.
	Minor bool
}

const (
	laneHeight = 52
	laneLabel  = 16
	laneBar    = 24
	axisHeight = 26
)

func newTimeline(d catalog.Detail, now time.Time) timeline {
	from, to := extent(d, now)
	if from.IsZero() || !to.After(from) {
		return timeline{}
	}
	whole := to.Sub(from)
	x := func(t time.Time) string { return percentOf(float64(t.Sub(from)), float64(whole)) }

	var t timeline
	for _, s := range d.Segments {
		if s.StartedAt.IsZero() {
			continue
		}
		n := slices.IndexFunc(t.Lanes, func(l lane) bool { return l.Node == s.Node })
		if n < 0 {
			n = len(t.Lanes)
			gpu := s.GPUModel
			if len(s.GPUUUIDs) > 0 {
				gpu = strconv.Itoa(len(s.GPUUUIDs)) + "× " + gpu
			} else if d.GPUCount > 0 {
				gpu = strconv.Itoa(d.GPUCount) + "× " + gpu
			}
			t.Lanes = append(t.Lanes, lane{Node: s.Node, GPU: gpu, Capacity: s.CapacityType, LabelY: n*laneHeight + laneLabel, BarY: n*laneHeight + laneBar})
		}
		length := s.Duration(now)
		t.Lanes[n].Bars = append(t.Lanes[n].Bars, bar{
			X: x(s.StartedAt), Width: percentOf(float64(length), float64(whole)), Running: s.EndedAt.IsZero(),
			Title: s.Node + ", " + span(length.Seconds()) + " from " + clock(s.StartedAt) + " UTC",
		})
	}
	for n, i := range d.Interruptions {
		if !i.NoticeAt.IsZero() && !i.NoticeAt.Before(from) && !i.NoticeAt.After(to) {
			t.Marks = append(t.Marks, mark{X: x(i.NoticeAt), Title: "interruption " + strconv.Itoa(n+1) + ", " + clock(i.NoticeAt) + " UTC"})
		}
	}
	t.Ticks = ticks(from, whole)
	t.AxisY = len(t.Lanes) * laneHeight
	t.Height = t.AxisY + axisHeight
	var nodes []string
	for _, l := range t.Lanes {
		nodes = append(nodes, l.Node)
	}
	t.Summary = "The run over " + span(whole.Seconds()) + ", on " + strings.Join(nodes, ", then ")
	return t
}

// ticks are the start and round times after it, at most five.
func ticks(from time.Time, whole time.Duration) []tick {
	step := steps[len(steps)-1]
	for _, s := range steps {
		if whole/s <= mostTicks {
			step = s
			break
		}
	}
	out := []tick{{X: "0%", Anchor: "start", Label: clock(from) + " UTC"}}
	// The last stays clear of the edge, where its label would be cut off.
	for at := step; at <= whole*19/20 && len(out) <= mostTicks; at += step {
		label := strings.TrimSuffix(strings.TrimSuffix(span(at.Seconds()), " 00 s"), " 00 min")
		out = append(out, tick{X: percentOf(float64(at), float64(whole)), Anchor: "middle", Label: "+" + label, Minor: len(out)%2 == 1})
	}
	return out
}

// steps are the distances between ticks that people read easily.
var steps = []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour, 72 * time.Hour, 240 * time.Hour}

const mostTicks = 5

// chart is one figure by load. Points stand at even distances: loads are usually
// doubled from one to the next.
type chart struct {
	Title, Unit string
	Points      []chartPoint
	Lines       []chartLine
	Grid        []chartGrid
	Height      int
	BaseY       int
}

type chartPoint struct {
	X           string
	Y, TopY     float64
	Label, Load string
	// Range is set when TopY is a second figure above the first.
	Range bool
}

type chartLine struct {
	X1, X2 string
	Y1, Y2 float64
}

type chartGrid struct {
	Y     float64
	Label string
}

const (
	chartTop    = 26.0
	chartPlot   = 120.0
	chartBottom = 28
)

// plotted is a load with one figure, or two of which the second is the larger.
type plotted struct {
	load        string
	value, high float64
}

func newChart(title, unit string, values []plotted) chart {
	if len(values) < 2 {
		return chart{} // one point is no curve; the table has it
	}
	top := 0.0
	for n, v := range values {
		if n > 0 && v.load == values[n-1].load {
			return chart{} // several configurations in one run: no curve goes through them
		}
		top = max(top, v.value, v.high)
	}
	if top <= 0 {
		return chart{}
	}
	c := chart{Title: title, Unit: unit, Height: int(chartTop+chartPlot) + chartBottom, BaseY: int(chartTop + chartPlot)}
	y := func(v float64) float64 { return chartTop + chartPlot*(1-v/top) }
	for _, share := range []float64{0, 0.5, 1} {
		value := share * top
		c.Grid = append(c.Grid, chartGrid{Y: y(value), Label: ms(&value)})
	}
	for n, v := range values {
		// From 14 % on, so that the grid's labels at the left stay free.
		x := 14 + 80*float64(n)/float64(len(values)-1)
		p := chartPoint{X: strconv.FormatFloat(x, 'f', 2, 64) + "%", Y: y(v.value), Label: ms(&v.value), Load: v.load}
		if v.high > 0 {
			p.TopY, p.Range = y(v.high), true
			p.Label += " to " + ms(&v.high)
		}
		if n > 0 {
			last := c.Points[n-1]
			c.Lines = append(c.Lines, chartLine{X1: last.X, X2: p.X, Y1: last.Y, Y2: p.Y})
		}
		c.Points = append(c.Points, p)
	}
	return c
}

func throughputChart(points []point) chart {
	var values []plotted
	for _, p := range points {
		if p.OutputThroughput != nil {
			values = append(values, plotted{load: p.Load, value: *p.OutputThroughput})
		}
	}
	return newChart("Output throughput", "tokens/s", values)
}

func firstTokenChart(points []point) chart {
	var values []plotted
	for _, p := range points {
		if p.TTFT != nil && p.TTFT.MedianMs != nil && p.TTFT.P99Ms != nil {
			values = append(values, plotted{load: p.Load, value: *p.TTFT.MedianMs, high: *p.TTFT.P99Ms})
		}
	}
	return newChart("Time to first token, median to p99", "ms", values)
}
