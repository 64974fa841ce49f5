// SPDX-License-Identifier: Apache-2.0

package web

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// plot is one quantity of a run's GPUs over the run's time: a line for each GPU of each
// pod, or where they are many the mean of a pod's GPUs in a band from the least to the
// greatest.
type plot struct {
	Title, Unit string
	Lines       []plotLine
	Marks       []plotMark
	Grid        []plotGrid
	Ticks       []tick
	Summary     string
}

type plotLine struct {
	// Path is in a box of plotWidth by plotHeight, which the page stretches.
	Path   string
	Colour int
	Band   bool
	Title  string
}

// plotMark is an interruption: a line at the notice, and the time until it ran again.
type plotMark struct {
	X, Width, Title string
}

type plotGrid struct {
	Y     float64
	Label string
}

const (
	plotWidth  = 1000
	plotHeight = 100
	// mostLines are drawn one by one; with more, each pod has a band and a mean.
	mostLines = 16
	// mostPods are drawn, the newest.
	mostPods = 24
	// mostPoints bounds the points of all plots together, and so the page.
	mostPoints = 5000
	// unsampled is the gap, in steps, that a line still crosses: samples may be rarer than
	// steps are short.
	unsampled = time.Minute
)

// quantities are what is plotted.
var quantities = []struct {
	title, unit string
	of          func(*catalog.Series) []*float64
	// per is what a unit of the series is in the plot's; zero says that the scale begins at 0.
	per  float64
	zero bool
}{
	{"Power", "W", func(s *catalog.Series) []*float64 { return s.PowerWatts }, 1, true},
	{"SM clock", "MHz", func(s *catalog.Series) []*float64 { return s.SMClockMHz }, 1, false},
	{"Temperature", "°C", func(s *catalog.Series) []*float64 { return s.TemperatureC }, 1, false},
	{"Busy", "%", func(s *catalog.Series) []*float64 { return s.Utilization }, 1, true},
	{"Memory used", "GiB", func(s *catalog.Series) []*float64 { return s.MemoryUsedBytes }, 1.0 / (1 << 30), true},
	{"Clocks held down", "% of samples", func(s *catalog.Series) []*float64 { return s.Throttled }, 100, true},
}

// course is the series of one GPU of a pod.
type course struct {
	pod    int
	name   string
	series *catalog.Series
}

// newPlots draws what the telemetry has over the whole run, so that plots and timeline
// show the same time at the same place.
func newPlots(d catalog.Detail, telemetry []catalog.Telemetry, now time.Time) []plot {
	from, to := extent(d, now)
	var courses []course
	pods := telemetry[max(0, len(telemetry)-mostPods):]
	for n, t := range pods {
		for _, g := range t.GPUs {
			if g.Series == nil || len(g.Series.PowerWatts)+len(g.Series.Utilization)+len(g.Series.SMClockMHz) == 0 {
				continue
			}
			courses = append(courses, course{n, g.UUID, g.Series})
			if from.IsZero() || g.Series.From.Before(from) {
				from = g.Series.From
			}
			if t.To.After(to) {
				to = t.To
			}
		}
	}
	if len(courses) == 0 || !to.After(from) {
		return nil
	}
	axis := axis{from, to.Sub(from)}
	var plots []plot
	for _, q := range quantities {
		p := plot{Title: q.title, Unit: q.unit, Marks: axis.marks(d.Interruptions, to), Ticks: axis.ticks()}
		low, high := math.Inf(1), math.Inf(-1)
		for _, c := range courses {
			for _, v := range q.of(c.series) {
				if v != nil {
					low, high = min(low, *v*q.per), max(high, *v*q.per)
				}
			}
		}
		if math.IsInf(low, 1) || q.title == "Clocks held down" && high == 0 {
			continue
		}
		bottom, top := scale(low, high, q.zero)
		p.Grid = []plotGrid{{0, tickLabel(top)}, {plotHeight / 2, tickLabel((bottom + top) / 2)}, {plotHeight, tickLabel(bottom)}}
		y := func(v float64) float64 { return plotHeight * (1 - (v*q.per-bottom)/(top-bottom)) }
		p.Lines = axis.lines(courses, q.of, y)
		p.Summary = q.title + " over " + span(axis.whole.Seconds()) + ", from " + tickLabel(low) + " to " + tickLabel(high) + " " + q.unit
		plots = append(plots, p)
	}
	return plots
}

// extent is the time of the run's segments.
func extent(d catalog.Detail, now time.Time) (from, to time.Time) {
	for _, s := range d.Segments {
		if s.StartedAt.IsZero() {
			continue
		}
		if from.IsZero() || s.StartedAt.Before(from) {
			from = s.StartedAt
		}
		if end := s.StartedAt.Add(s.Duration(now)); end.After(to) {
			to = end
		}
	}
	return from, to
}

// scale is a range of round numbers around values.
func scale(low, high float64, zero bool) (bottom, top float64) {
	if zero {
		low = 0
	}
	if high <= low {
		high = low + 1
	}
	step := math.Pow(10, math.Floor(math.Log10((high-low)/2)))
	for _, times := range []float64{1, 2, 5, 10} {
		if (high-low)/(step*times) <= 4 {
			step *= times
			break
		}
	}
	// Twice the step, so that the middle is round too.
	bottom = math.Floor(low/step) * step
	return bottom, bottom + math.Ceil((high-bottom)/(2*step))*2*step
}

// axis is the time of all plots.
type axis struct {
	from  time.Time
	whole time.Duration
}

// ticks are those of the timeline, with a shorter start: a plot is narrow.
func (a axis) ticks() []tick {
	all := ticks(a.from, a.whole)
	all[0].Label = a.from.UTC().Format("15:04")
	return all
}

func (a axis) x(t time.Time) string { return percentOf(float64(t.Sub(a.from)), float64(a.whole)) }

func (a axis) marks(interruptions []catalog.Interruption, end time.Time) []plotMark {
	var marks []plotMark
	for n, i := range interruptions {
		if i.NoticeAt.IsZero() || i.NoticeAt.Before(a.from) || i.NoticeAt.After(end) {
			continue
		}
		again := i.RunningAgainAt
		if again.IsZero() || again.After(end) {
			again = i.NoticeAt // how long it was down is not known
		}
		title := "interruption " + strconv.Itoa(n+1) + ", notice " + clock(i.NoticeAt) + " UTC"
		if again.After(i.NoticeAt) {
			title += ", running again after " + span(again.Sub(i.NoticeAt).Seconds())
		}
		marks = append(marks, plotMark{X: a.x(i.NoticeAt), Width: percentOf(float64(again.Sub(i.NoticeAt)), float64(a.whole)), Title: title})
	}
	return marks
}

// lines draws one quantity.
func (a axis) lines(courses []course, of func(*catalog.Series) []*float64, y func(float64) float64) []plotLine {
	each := max(8, mostPoints/len(quantities)/max(1, min(len(courses), 3*mostPods)))
	if len(courses) > mostLines {
		return a.bands(courses, of, y, each)
	}
	var lines []plotLine
	for n, c := range courses {
		if path := a.path(c.series, thin(of(c.series), each), y); path != "" {
			lines = append(lines, plotLine{Path: path, Colour: n%colours + 1, Title: c.name})
		}
	}
	return lines
}

// bands are, of each pod, the mean of its GPUs and what they lie between. The GPUs of a
// pod are sampled together, so their series have the same steps.
func (a axis) bands(courses []course, of func(*catalog.Series) []*float64, y func(float64) float64, each int) []plotLine {
	var lines []plotLine
	for first := 0; first < len(courses); {
		last := first
		for last < len(courses) && courses[last].pod == courses[first].pod {
			last++
		}
		gpus := courses[first:last]
		first = last
		longest := 0
		for _, c := range gpus {
			longest = max(longest, len(of(c.series)))
		}
		low, mean, high := make([]*float64, longest), make([]*float64, longest), make([]*float64, longest)
		for n := range longest {
			sum, count, least, most := 0.0, 0.0, math.Inf(1), math.Inf(-1)
			for _, c := range gpus {
				if values := of(c.series); n < len(values) && values[n] != nil {
					sum, count, least, most = sum+*values[n], count+1, min(least, *values[n]), max(most, *values[n])
				}
			}
			if count > 0 {
				sum /= count
				low[n], mean[n], high[n] = &least, &sum, &most
			}
		}
		series, colour := gpus[0].series, gpus[0].pod%colours+1
		if len(gpus) == 1 {
			if path := a.path(series, thin(of(series), each), y); path != "" {
				lines = append(lines, plotLine{Path: path, Colour: colour, Title: gpus[0].name})
			}
			continue
		}
		name := strconv.Itoa(len(gpus)) + " GPUs"
		if area := a.area(series, thin(low, each/2), thin(high, each/2), y); area != "" {
			lines = append(lines, plotLine{Path: area, Colour: colour, Band: true, Title: name + ", from the least to the greatest"})
		}
		if path := a.path(series, thin(mean, each), y); path != "" {
			lines = append(lines, plotLine{Path: path, Colour: colour, Title: name + ", mean"})
		}
	}
	return lines
}

// thinned are means over several steps of a series.
type thinned struct {
	values []*float64
	steps  int
}

// thin joins steps until there are at most so many.
func thin(values []*float64, most int) thinned {
	steps := max(1, (len(values)+most-1)/max(1, most))
	t := thinned{steps: steps}
	for n := 0; n < len(values); n += steps {
		sum, count := 0.0, 0.0
		for _, v := range values[n:min(n+steps, len(values))] {
			if v != nil {
				sum, count = sum+*v, count+1
			}
		}
		if count == 0 {
			t.values = append(t.values, nil)
			continue
		}
		sum /= count
		t.values = append(t.values, &sum)
	}
	return t
}

// at is where the middle of a step is, in the box.
func (a axis) at(s *catalog.Series, t thinned, n int) float64 {
	step := s.StepSeconds * float64(t.steps)
	seconds := s.From.Sub(a.from).Seconds() + (float64(n)+0.5)*step
	return plotWidth * max(0, min(1, seconds/a.whole.Seconds()))
}

func (a axis) path(s *catalog.Series, t thinned, y func(float64) float64) string {
	var b strings.Builder
	last := -1
	crossed := max(2, int(unsampled.Seconds()/(s.StepSeconds*float64(t.steps))))
	for n, v := range t.values {
		if v == nil {
			continue
		}
		command := byte('L')
		if last < 0 || n-last > crossed {
			command = 'M'
		}
		b.WriteByte(command)
		place(&b, a.at(s, t, n), y(*v))
		if next := n + 1; command == 'M' && (next == len(t.values) || t.values[next] == nil) {
			b.WriteString("h1") // one alone would not be seen
		}
		last = n
	}
	return b.String()
}

// area is from the lower values on and back along the upper ones.
func (a axis) area(s *catalog.Series, low, high thinned, y func(float64) float64) string {
	var b strings.Builder
	command := byte('M')
	for n, v := range low.values {
		if v != nil {
			b.WriteByte(command)
			place(&b, a.at(s, low, n), y(*v))
			command = 'L'
		}
	}
	for n := len(high.values) - 1; n >= 0; n-- {
		if v := high.values[n]; v != nil {
			b.WriteByte(command)
			place(&b, a.at(s, high, n), y(*v))
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return b.String() + "Z"
}

// place writes a place in the box, to a tenth of its units.
func place(b *strings.Builder, x, y float64) {
	b.WriteString(strconv.FormatFloat(math.Round(10*x)/10, 'f', -1, 64))
	b.WriteByte(' ')
	b.WriteString(strconv.FormatFloat(math.Round(10*y)/10, 'f', -1, 64))
}
