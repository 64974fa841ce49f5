// SPDX-License-Identifier: Apache-2.0

package calibration_test

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spotbench/spotbench/bench/internal/trace"
	"github.com/spotbench/spotbench/bench/risk/internal/calibration"
	"github.com/spotbench/spotbench/pkg/risk"
)

// score is that of a model at a horizon.
func score(t *testing.T, scores []calibration.Score, predictor string, horizon time.Duration) calibration.Score {
	t.Helper()
	for _, s := range scores {
		if s.Predictor == predictor && s.Horizon == horizon {
			return s
		}
	}
	t.Fatalf("no score of %s within %s", predictor, horizon)
	return calibration.Score{}
}

func TestTheHazardByAgePredictsHeldBackRecordingsBetterThanARateAndThanTheAdvisor(t *testing.T) {
	dir := os.Getenv("SPOTBENCH_DATA")
	if dir == "" {
		t.Skip("needs the public spot traces: set SPOTBENCH_DATA to a folder with spot-traces (github.com/skypilot-org/spot-traces)")
	}
	files, err := filepath.Glob(filepath.Join(dir, "spot-traces/availability/1-node/aws-02-15-2023/*.json"))
	if err != nil || len(files) != 9 {
		t.Fatalf("%d recordings, %v, want the nine of February 2023", len(files), err)
	}
	var traces []trace.Trace
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := trace.Parse(file, data, trace.Auto, 1)
		if err != nil {
			t.Fatal(err)
		}
		traces = append(traces, tr)
	}
	band, err := risk.HazardOfBand(">20%") // in which the Advisor lists all nine
	if err != nil {
		t.Fatal(err)
	}
	scores := calibration.Evaluate(traces, 0.5, calibration.Fit(traces, 0.5, band))
	for _, horizon := range calibration.Horizons {
		age := score(t, scores, "by age", horizon)
		for _, other := range []string{"exponential", "Advisor band"} {
			if o := score(t, scores, other, horizon); age.Brier >= o.Brier {
				t.Errorf("within %s: Brier score %.4f by age, %.4f by the %s", horizon, age.Brier, o.Brier, other)
			}
		}
		if math.Abs(age.Predicted-age.Observed) > 0.05 {
			t.Errorf("within %s: predicted %.3f, observed %.3f", horizon, age.Predicted, age.Observed)
		}
	}
}

func TestAScoreIsTheMeanSquaredDifferenceAndBinsKeepTheirMeans(t *testing.T) {
	// Up for four hours, then gone, at one tick an hour, learned from nothing.
	up := []bool{false, true, true, true, true, false, false}
	tr := trace.Trace{Gap: time.Hour, Up: up}
	half := calibration.Predictor{Name: "half", Probability: func(int, time.Duration, time.Duration) float64 { return 0.5 }}
	s := score(t, calibration.Evaluate([]trace.Trace{tr}, 0, []calibration.Predictor{half}), "half", time.Hour)
	// At ticks 1 to 4 there is capacity; it is gone an hour after tick 4 only.
	if s.N != 4 || s.Observed != 0.25 || s.Brier != 0.25 {
		t.Errorf("%d predictions, observed %v, Brier %v, want 4, 1/4 and (1/2)²", s.N, s.Observed, s.Brier)
	}
	if b := s.Bin[5]; b.N != 4 || b.Predicted != 0.5 || b.Observed != 0.25 {
		t.Errorf("the bin from 0.5: %+v, want all four predictions", b)
	}
}
