// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"image/color"
	"math"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// firstDrawn is the load from which curves are drawn: below, all policies place all.
const firstDrawn = 60

// draw the curves of one trace into the files that the flags name.
func draw(s settings, trace string, several bool, results []result) error {
	for _, path := range []string{s.svg, s.png} {
		if path == "" {
			continue
		}
		if several {
			ext := filepath.Ext(path)
			path = strings.TrimSuffix(path, ext) + "-" + trace + ext
		}
		if err := drawTo(path, trace, s.whole, results); err != nil {
			return fmt.Errorf("curves of %s: %w", trace, err)
		}
	}
	return nil
}

func drawTo(path, trace, whole string, results []result) error {
	p := plot.New()
	p.Title.Text = "GPU allocation, " + trace
	if whole == "ceil" {
		p.Title.Text += ", whole GPUs"
	}
	p.X.Label.Text = "GPUs asked for (% of the cluster's)"
	p.Y.Label.Text = "GPUs allocated (% of the cluster's)"
	p.Add(plotter.NewGrid())
	p.Legend.YOffs = vg.Points(4) // bottom right, where no curve is
	// From the back, so that the first policy, ours, is on top.
	for i := len(results) - 1; i >= 0; i-- {
		var points plotter.XYs
		for load := firstDrawn; load < len(results[i].curve); load++ {
			if y := results[i].curve[load]; !math.IsNaN(y) {
				points = append(points, plotter.XY{X: float64(load), Y: y})
			}
		}
		if len(points) == 0 {
			continue
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			return err
		}
		line.Color, line.Dashes, line.Width = plotutil.Color(i), plotutil.Dashes(i), vg.Points(1)
		if i == 0 {
			line.Color, line.Dashes, line.Width = color.Black, nil, vg.Points(2)
		}
		p.Add(line)
		p.Legend.Add(results[i].Policy, line)
	}
	return p.Save(8*vg.Inch, 5*vg.Inch, path)
}
