// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/spotbench/spotbench/bench/spot/internal/replay"
	"github.com/spotbench/spotbench/pkg/runpolicy"
)

// drawTimelines draws each window into its own figure, as SVG and PNG: when each
// zone had spot capacity, and below it where each policy ran, in the zone's colour.
// On-demand capacity is black, waiting is empty; the deadline is the right edge.
func drawTimelines(folder string, s *replay.Setting, starts []time.Duration, reports []Report) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("-draw: %w", err)
	}
	for n, start := range starts {
		p := timeline(s, start, n, reports)
		for _, ext := range []string{".svg", ".png"} {
			path := filepath.Join(folder, fmt.Sprintf("window-%03d%s", n+1, ext))
			rows := vg.Length(len(s.Traces) + len(reports))
			if err := save(p, 10*vg.Inch, 1.1*vg.Inch+rows*0.3*vg.Inch, path); err != nil {
				return fmt.Errorf("-draw: %s: %w", path, err)
			}
		}
	}
	return nil
}

// save writes a plot with a margin on the left, into which long labels reach.
func save(p *plot.Plot, width, height vg.Length, path string) error {
	canvas, err := draw.NewFormattedCanvas(width, height, strings.TrimPrefix(filepath.Ext(path), "."))
	if err != nil {
		return err
	}
	p.Draw(draw.Crop(draw.New(canvas), 4*vg.Millimeter, -4*vg.Millimeter, 0, -vg.Millimeter))
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(file); err != nil {
		_ = file.Close()
		return err
	}
	return file.Close()
}

// wholeHours are about ten ticks of a whole number of hours.
func wholeHours(from, to float64) []plot.Tick {
	step := 1.0
	for _, step = range []float64{1, 2, 3, 6, 12, 24, 48, 96, 168} {
		if (to-from)/step <= 12 {
			break
		}
	}
	var ticks []plot.Tick
	for at := math.Ceil(from/step) * step; at <= to; at += step {
		ticks = append(ticks, plot.Tick{Value: at, Label: fmt.Sprintf("%.0f", at)})
	}
	return ticks
}

// colours tells up to fourteen zones apart.
var colours = slices.Concat(plotutil.SoftColors, plotutil.DarkColors)

func timeline(s *replay.Setting, start time.Duration, n int, reports []Report) *plot.Plot {
	p := plot.New()
	p.Title.Text = fmt.Sprintf("From hour %.1f of the recording: spot capacity of each zone, and where each policy ran\n(black: on demand, empty: waiting)", start.Hours())
	p.Title.Padding = vg.Points(6)
	p.X.Label.Text = "hours since the start, to the deadline"
	p.X.Min, p.X.Max = 0, s.Job.Deadline.Hours()
	p.X.Tick.Marker = plot.TickerFunc(wholeHours)
	rows := len(s.Traces) + len(reports)
	labels := make([]string, rows)
	first := replay.First(start, s.Job.Step)
	for zone, trace := range s.Traces {
		row := rows - 1 - zone
		labels[row] = trace.Zone
		up := func(tick int) int {
			if first+tick < len(trace.Up) && trace.Up[first+tick] {
				return zone
			}
			return nothing
		}
		bars(p, s, row, int(s.Job.Deadline/s.Job.Step), up, 0.35)
	}
	for i, r := range reports {
		row := rows - 1 - len(s.Traces) - i
		labels[row] = fmt.Sprintf("%s $%.2f", r.Policy, r.results[n].CostUSD)
		schedule := r.results[n].Schedule
		bars(p, s, row, len(schedule), func(tick int) int {
			switch at := schedule[tick].Placement; at.Capacity {
			case runpolicy.Spot:
				return at.Zone
			case runpolicy.OnDemand:
				return onDemandBar
			default:
				return nothing
			}
		}, 0.42)
	}
	p.NominalY(labels...)
	between, err := plotter.NewLine(plotter.XYs{{X: 0, Y: float64(len(reports)) - 0.5}, {X: s.Job.Deadline.Hours(), Y: float64(len(reports)) - 0.5}})
	if err == nil { // it fails for coordinates that are no numbers only
		between.Color = color.Gray{Y: 160}
		p.Add(between)
	}
	p.Y.Min, p.Y.Max = -0.6, float64(rows)-0.4
	return p
}

// What a bar stands for, besides a zone.
const (
	nothing     = -1
	onDemandBar = -2
)

// bars draws a row: one bar for each stretch of ticks that are alike.
func bars(p *plot.Plot, s *replay.Setting, row, ticks int, is func(tick int) int, height float64) {
	for from := 0; from < ticks; {
		to := from + 1
		for to < ticks && is(to) == is(from) {
			to++
		}
		if kind := is(from); kind != nothing {
			left, right := (time.Duration(from) * s.Job.Step).Hours(), (time.Duration(to) * s.Job.Step).Hours()
			low, high := float64(row)-height, float64(row)+height
			bar, err := plotter.NewPolygon(plotter.XYs{{X: left, Y: low}, {X: right, Y: low}, {X: right, Y: high}, {X: left, Y: high}})
			if err == nil { // it fails for coordinates that are no numbers only
				bar.Color, bar.Width = color.Color(color.Black), 0
				if kind >= 0 {
					bar.Color = colours[kind%len(colours)]
				}
				p.Add(bar)
			}
		}
		from = to
	}
}
