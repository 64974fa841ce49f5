// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"image/color"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/spotbench/spotbench/bench/risk/internal/calibration"
)

// plotReliability draws predicted against observed probability, a panel per horizon
// and a line per model. A model that keeps its word lies on the diagonal.
func plotReliability(path string, scores []calibration.Score) error {
	const size = 4 * vg.Inch
	columns := len(calibration.Horizons)
	width := size * vg.Length(columns)
	var canvas vg.CanvasSizer
	var write io.WriterTo
	switch filepath.Ext(path) {
	case ".svg":
		c := vgsvg.New(width, size)
		canvas, write = c, c
	case ".png":
		c := vgimg.PngCanvas{Canvas: vgimg.New(width, size)}
		canvas, write = c, c
	default:
		return fmt.Errorf("-draw is %q; write a file that ends in .svg or .png", path)
	}
	panels := [][]*plot.Plot{make([]*plot.Plot, columns)}
	for i, horizon := range calibration.Horizons {
		p := plot.New()
		p.Title.Text = "within " + short(horizon)
		p.X.Label.Text, p.Y.Label.Text = "predicted probability", "observed frequency"
		p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, 1, 0, 1
		diagonal, err := plotter.NewLine(plotter.XYs{{X: 0, Y: 0}, {X: 1, Y: 1}})
		if err != nil {
			return err
		}
		diagonal.Color, diagonal.Dashes = color.Gray{Y: 160}, plotutil.Dashes(1)
		p.Add(plotter.NewGrid(), diagonal)
		p.Legend.Top, p.Legend.Left, p.Legend.YOffs, p.Legend.XOffs = true, true, -vg.Millimeter, vg.Millimeter
		n := 0
		for _, s := range scores {
			if s.Horizon != horizon {
				continue
			}
			var points plotter.XYs
			for _, bin := range s.Bin {
				if bin.N > 0 {
					points = append(points, plotter.XY{X: bin.Predicted, Y: bin.Observed})
				}
			}
			line, dots, err := plotter.NewLinePoints(points)
			if err != nil {
				return fmt.Errorf("%s within %s: %w", s.Predictor, horizon, err)
			}
			line.Color, dots.Color, dots.Shape = plotutil.Color(n), plotutil.Color(n), plotutil.Shape(n)
			p.Add(line, dots)
			p.Legend.Add(fmt.Sprintf("%s (Brier %.3f)", s.Predictor, s.Brier), line, dots)
			n++
		}
		panels[0][i] = p
	}
	tiles := draw.Tiles{Rows: 1, Cols: columns, PadX: vg.Millimeter * 4, PadTop: vg.Millimeter * 2, PadBottom: vg.Millimeter * 2, PadLeft: vg.Millimeter * 2, PadRight: vg.Millimeter * 2}
	for i, c := range slices.Concat(plot.Align(panels, tiles, draw.New(canvas))...) {
		panels[0][i].Draw(c)
	}
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("-draw: %w", err)
	}
	if _, err := write.WriteTo(file); err != nil {
		_ = file.Close()
		return fmt.Errorf("-draw: %s: %w", path, err)
	}
	return file.Close()
}

// short is a whole number of hours or minutes.
func short(d time.Duration) string {
	if d%time.Hour == 0 {
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d min", d/time.Minute)
}
