// SPDX-License-Identifier: Apache-2.0

// Command risk checks the hazard model against recordings of spot capacity: it
// learns from the first part of each and predicts the rest, beside an exponential
// fit and the band of the Spot Instance Advisor.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spotbench/spotbench/bench/internal/output"
	"github.com/spotbench/spotbench/bench/internal/trace"
	"github.com/spotbench/spotbench/bench/risk/internal/calibration"
	"github.com/spotbench/spotbench/pkg/risk"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "risk:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("risk", flag.ContinueOnError)
	fs.SetOutput(stderr)
	files := fs.String("traces", "", "traces (formats as in bench/spot) of pools that resemble each other, separated by commas; sets of them by semicolons")
	polarity := fs.String("polarity", string(trace.Auto), "what a 1 in a trace means: auto, available or preempted")
	instances := fs.Int("instances", 1, "instances needed at once, for traces with counts")
	part := fs.Float64("learn", 0.5, "part of each recording to learn from; the rest is predicted")
	band := fs.String("band", ">20%", "band of the Spot Instance Advisor that lists the pools")
	draw := fs.String("draw", "", "write the reliability plot to this file (.svg or .png)")
	file := fs.String("json", "", "write the scores to this file as JSON; - for the output")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *files == "" {
		return errors.New("-traces is missing; name one file per pool")
	}
	if !(*part > 0 && *part < 1) {
		return fmt.Errorf("-learn is %v; write a part between 0 and 1", *part)
	}
	hazard, err := risk.HazardOfBand(*band)
	if err != nil {
		return fmt.Errorf("-band: %w", err)
	}
	var scores []calibration.Score
	for set := range strings.SplitSeq(*files, ";") {
		var traces []trace.Trace
		for file := range strings.SplitSeq(set, ",") {
			data, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			t, err := trace.Parse(file, data, trace.Polarity(*polarity), *instances)
			if err != nil {
				return err
			}
			traces = append(traces, t)
		}
		scores = calibration.Merge(scores, calibration.Evaluate(traces, *part, calibration.Fit(traces, *part, hazard)))
	}
	if err := table(stdout, scores); err != nil {
		return err
	}
	if *file != "" {
		if err := writeJSON(*file, stdout, scores); err != nil {
			return err
		}
	}
	if *draw != "" {
		return plotReliability(*draw, scores)
	}
	return nil
}

// row is a score as JSON.
type row struct {
	HorizonHours float64 `json:"horizonHours"`
	Model        string  `json:"model"`
	Predictions  int     `json:"predictions"`
	Predicted    float64 `json:"predicted"`
	Observed     float64 `json:"observed"`
	Brier        float64 `json:"brier"`
	// ByAgeLess is the score by age less this one, StandardError that of the difference.
	ByAgeLess     float64 `json:"byAgeLess"`
	StandardError float64 `json:"standardError"`
}

func writeJSON(file string, stdout io.Writer, scores []calibration.Score) error {
	rows := make([]row, len(scores))
	for i, s := range scores {
		rows[i] = row{s.Horizon.Hours(), s.Predictor, s.N, s.Predicted, s.Observed, s.Brier, s.Against, s.StandardError}
		if math.IsInf(s.StandardError, 0) || math.IsNaN(s.StandardError) {
			return fmt.Errorf("%s at %s: all predictions lie in one day, which says nothing of how days differ; give longer recordings", s.Predictor, short(s.Horizon))
		}
	}
	return output.JSON(file, stdout, rows)
}

func table(w io.Writer, scores []calibration.Score) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "horizon\tmodel\tpredictions\tpredicted\tobserved\tBrier\tby age less this\tstandard error\t")
	for _, s := range scores {
		fmt.Fprintf(t, "%s\t%s\t%d\t%.3f\t%.3f\t%.4f\t%+.4f\t%.4f\t\n", short(s.Horizon), s.Predictor, s.N, s.Predicted, s.Observed, s.Brier, s.Against, s.StandardError)
	}
	return t.Flush()
}
