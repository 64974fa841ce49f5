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

func TestTheDifferenceOfTwoScoresHasAStandardErrorOverDaysAndNotOverHours(t *testing.T) {
	// Up for two days and away for one, again and again, at one tick an hour.
	var up []bool
	for hour := range 100 * 24 {
		up = append(up, hour > 0 && hour/24%3 != 2)
	}
	tr := trace.Trace{Gap: time.Hour, Up: up}
	fixed := func(name string, p float64) calibration.Predictor {
		return calibration.Predictor{Name: name, Probability: func(int, time.Duration, time.Duration) float64 { return p }}
	}
	scores := calibration.Evaluate([]trace.Trace{tr}, 0, []calibration.Predictor{fixed("first", 0.1), fixed("same", 0.1), fixed("worse", 0.9)})
	if s := score(t, scores, "same", time.Hour); s.Against != 0 || s.StandardError != 0 {
		t.Errorf("against one that says the same: %v ± %v, want 0 ± 0", s.Against, s.StandardError)
	}
	first, worse := score(t, scores, "first", 24*time.Hour), score(t, scores, "worse", 24*time.Hour)
	if math.Abs(worse.Against-(first.Brier-worse.Brier)) > 1e-12 {
		t.Errorf("difference %v of scores %v and %v", worse.Against, first.Brier, worse.Brier)
	}
	// Hours of a day have about the same outcome, so that a day counts as one draw:
	// errors differ by (0.1-y)²-(0.9-y)², -0.8 or 0.8 as y is 0 or 1.
	naive := 0.8 / math.Sqrt(float64(worse.N))
	if worse.StandardError < 3*naive || worse.StandardError > 0.8/math.Sqrt(30) {
		t.Errorf("standard error %v; over hours it would be %v, over 66 days at most %v", worse.StandardError, naive, 0.8/math.Sqrt(30))
	}
}
