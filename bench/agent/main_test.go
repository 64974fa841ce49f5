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
	r.summarise([]reading{{0, 50, 20}, {time.Minute, 52, 21}, {2 * time.Minute, 54, 23}, {3 * time.Minute, 52, 22}})
	if r.RSSP50MiB != 52 || r.RSSMaxMiB != 54 || r.AnonP50MiB != 21 || math.Abs(r.RSSGrowthMiBPerHour-48) > 1e-9 {
		t.Errorf("%+v", r)
	}
}

func TestOneReadingDoesNotGrow(t *testing.T) {
	if got := slope([]reading{{time.Minute, 50, 20}}); got != 0 {
		t.Errorf("%g", got)
	}
}

func TestSettingsAreRefusedWithTheirNameAndARightValue(t *testing.T) {
	good := settings{gpus: 8, pods: 30, sample: time.Second, duration: time.Minute, telemetry: "dcgm,nvml"}
	tests := map[string]struct {
		change func(*settings)
		want   []string
	}{
		"no GPUs":             {func(s *settings) { s.gpus = 0 }, []string{"-gpus", "0", "1 to 32"}},
		"too many pods":       {func(s *settings) { s.pods = 1000 }, []string{"-pods", "1000", "250"}},
		"an unknown library":  {func(s *settings) { s.telemetry = "cuda" }, []string{"-telemetry", "cuda", "dcgm"}},
		"no time to measure":  {func(s *settings) { s.duration = 0 }, []string{"-duration", "10s"}},
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
