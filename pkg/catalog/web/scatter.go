// SPDX-License-Identifier: Apache-2.0

package web

import (
	"math"
	"slices"
	"strconv"

	"github.com/spotbench/spotbench/pkg/catalog/compare"
)

// scatter is the choices as points: latency across on a logarithmic scale,
// throughput up. Configurations are told apart by a letter as well as a colour.
type scatter struct {
	Title, XLabel, YLabel string
	Points                []scatterPoint
	Series                []scatterSeries
	XTicks                []scatterTick
	YTicks                []scatterTick
	Height, PlotBottom    int
	PlotTop               int
}

type scatterPoint struct {
	X        string
	Y        float64
	Series   int
	Letter   string
	Frontier bool
	Title    string
}

type scatterSeries struct {
	Number       int
	Letter, Name string
}

type scatterTick struct {
	X     string
	Y     float64
	Label string
}

const (
	scatterTop   = 14
	scatterPlot  = 300
	scatterAxis  = 44
	scatterLeft  = 9.0
	scatterRight = 96.0
	// colours is how many the style has; more configurations share them, and are
	// told apart by their letter.
	colours = 8
)

func newScatter(f compare.Frontier) scatter {
	var shown []compare.Choice
	lowX, highX, highY := math.Inf(1), 0.0, 0.0
	for _, c := range f.Choices {
		if c.Latency.Median == nil || c.Throughput.Median == nil || *c.Latency.Median <= 0 || !c.Complete {
			continue
		}
		shown = append(shown, c)
		lowX, highX, highY = min(lowX, *c.Latency.Median), max(highX, *c.Latency.Median), max(highY, *c.Throughput.Median)
	}
	if len(shown) < 2 || highY <= 0 {
		return scatter{}
	}
	s := scatter{Title: "Throughput by latency", XLabel: f.LatencyTitle + ", ms (logarithmic)", YLabel: "output tokens/s per GPU",
		PlotTop: scatterTop, PlotBottom: scatterTop + scatterPlot, Height: scatterTop + scatterPlot + scatterAxis}
	from, to := math.Log10(lowX)-0.08, math.Log10(highX)+0.08
	x := func(v float64) string {
		return strconv.FormatFloat(scatterLeft+(scatterRight-scatterLeft)*(math.Log10(v)-from)/(to-from), 'f', 2, 64) + "%"
	}
	y := func(v float64) float64 { return math.Round(10*(scatterTop+scatterPlot*(1-v/(1.06*highY)))) / 10 }
	for _, v := range roundSteps(highY) {
		s.YTicks = append(s.YTicks, scatterTick{Y: y(v), Label: tickLabel(v)})
	}
	for power := math.Floor(from); power <= to; power++ {
		for _, digit := range []float64{1, 2, 5} {
			v := digit * math.Pow(10, power)
			if l := math.Log10(v); l >= from && l <= to {
				s.XTicks = append(s.XTicks, scatterTick{X: x(v), Label: tickLabel(v)})
			}
		}
	}
	for _, c := range shown {
		n := slices.IndexFunc(s.Series, func(e scatterSeries) bool { return e.Name == c.Configuration })
		if n < 0 {
			n = len(s.Series)
			s.Series = append(s.Series, scatterSeries{Number: n%colours + 1, Letter: letter(n), Name: c.Configuration})
		}
		title := c.Configuration + ", " + c.Load.String() + ": " + ms(c.Throughput.Median) + " tokens/s per GPU at " + ms(c.Latency.Median) + " ms"
		if c.Cost.Median != nil {
			title += ", " + usd(*c.Cost.Median) + " per million tokens"
		}
		s.Points = append(s.Points, scatterPoint{X: x(*c.Latency.Median), Y: y(*c.Throughput.Median), Series: s.Series[n].Number, Letter: s.Series[n].Letter, Frontier: c.Frontier, Title: title})
	}
	return s
}

// letter is A to Z, then A2 and so on.
func letter(n int) string {
	l := string(rune('A' + n%26))
	if n >= 26 {
		l += strconv.Itoa(n/26 + 1)
	}
	return l
}

// roundSteps are about four round values up to a greatest.
func roundSteps(most float64) []float64 {
	step := math.Pow(10, math.Floor(math.Log10(most/2)))
	for _, times := range []float64{1, 2, 5, 10} {
		if most/(step*times) <= 5 {
			step *= times
			break
		}
	}
	var out []float64
	for v := 0.0; v <= most*1.03; v += step {
		out = append(out, v)
	}
	return out
}

func tickLabel(v float64) string {
	if v >= 10_000 {
		return strconv.FormatFloat(v/1000, 'g', 4, 64) + " k"
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
