// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestTheSummaryOfReadings(t *testing.T) {
	// 50, 52, 54, 52 MiB at 0, 1, 2 and 3 min. Least squares: x̄ = 1.5, ȳ = 52,
	// Σ(x-x̄)(y-ȳ) = 3+0+1+0 = 4, Σ(x-x̄)² = 5: 0.8 MiB a minute, 48 an hour.
	var r result
	r.summarise([]reading{{0, 50, 20, 30, 10 * time.Second}, {time.Minute, 52, 21, 31, 11 * time.Second}, {2 * time.Minute, 54, 23, 31, 11 * time.Second}, {3 * time.Minute, 52, 22, 30, 13 * time.Second}})
	if r.RSSP50MiB != 52 || r.RSSMaxMiB != 54 || r.AnonP50MiB != 21 || r.FileP50MiB != 30 || math.Abs(r.RSSGrowthMiBPerHour-48) > 1e-9 {
		t.Errorf("%+v", r)
	}
	if want := 100 * 3.0 / 180; math.Abs(r.CPUPercent-want) > 1e-9 {
		t.Errorf("CPU %g %%, want %g", r.CPUPercent, want)
	}
}

func TestTheCourseOfTheReadings(t *testing.T) {
	// Thirty minutes: the process grows by 1 MiB and takes 3 s more every five.
	var readings []reading
	for second := range 1801 {
		readings = append(readings, reading{at: time.Duration(second) * time.Second, rss: 50 + math.Floor(float64(second)/300), cpu: time.Duration(second) * 10 * time.Millisecond})
	}
	var r result
	r.summarise(readings)
	if len(r.Course) != parts {
		t.Fatalf("%d parts", len(r.Course))
	}
	for i, p := range r.Course {
		if p.UntilSeconds != float64(300*(i+1)) || p.RSSP50MiB != float64(50+i) || math.Abs(p.CPUPercent-1) > 1e-9 {
			t.Errorf("part %d: %+v", i, p)
		}
	}
}

func TestOneReadingDoesNotGrow(t *testing.T) {
	if got := slope([]reading{{at: time.Minute, rss: 50}}); got != 0 {
		t.Errorf("%g", got)
	}
}

func TestSettingsAreRefusedWithTheirNameAndARightValue(t *testing.T) {
	good := settings{gpus: 8, pods: 30, sample: time.Second, duration: time.Minute, telemetry: "dcgm,nvml", notices: 200, noticePods: 4, stateMiB: 8, poll: time.Second}
	tests := map[string]struct {
		change func(*settings)
		want   []string
	}{
		"no GPUs":             {func(s *settings) { s.gpus = 0 }, []string{"-gpus", "0", "1 to 32"}},
		"too many pods":       {func(s *settings) { s.pods = 1000 }, []string{"-pods", "1000", "250"}},
		"an unknown library":  {func(s *settings) { s.telemetry = "cuda" }, []string{"-telemetry", "cuda", "dcgm"}},
		"no time to measure":  {func(s *settings) { s.duration = time.Second }, []string{"-duration", "10s"}},
		"no pod for a notice": {func(s *settings) { s.noticePods = 0 }, []string{"-notice-pods", "0", "1 to 100"}},
		"a look every minute": {func(s *settings) { s.poll = time.Minute }, []string{"-poll", "1m0s", "5s"}},
		"a sample every hour": {func(s *settings) { s.sample = time.Hour }, []string{"-sample", "1h0m0s"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := good
			tt.change(&s)
			_, err := s.modes()
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want %q in it", err, want)
				}
			}
		})
	}
	if modes, err := good.modes(); err != nil || len(modes) != 2 {
		t.Errorf("%v, %v", modes, err)
	}
}

func TestPercentilesAreByNearestRank(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for p, want := range map[int]float64{50: 50, 99: 99, 100: 100} {
		if got := percentile(hundred, p); got != want {
			t.Errorf("p%d of 1 to 100 is %g, want %g", p, got, want)
		}
	}
	if percentile(nil, 50) != 0 || percentile([]float64{3}, 99) != 3 {
		t.Error("none is 0, and one is all")
	}
}
