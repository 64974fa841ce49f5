// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/agent"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }

func TestPlan(t *testing.T) {
	tests := map[string]struct {
		deadline, grace, now                 float64 // seconds
		wantPrepare, wantSave, wantGraceLeft float64
		wantMustStop                         bool
	}{
		"AWS, two minutes, 30 s grace: 30 s to get consistent, saved by 120-(30+5) = 85 s": {
			deadline: 120, grace: 30, now: 0, wantPrepare: 30, wantSave: 85, wantGraceLeft: 30},
		"GCP, 30 s, 30 s grace: the pod is told to stop at 15 s and gets 30-15-5 = 10 s then": {
			deadline: 30, grace: 30, now: 0, wantPrepare: 7.5, wantSave: 15, wantGraceLeft: 25, wantMustStop: true},
		"at the half of 30 s, 10 s of grace are left": {
			deadline: 30, grace: 30, now: 15, wantPrepare: 18.75, wantSave: 22.5, wantGraceLeft: 10, wantMustStop: true},
		"after the deadline the workload still gets a second": {
			deadline: 30, grace: 30, now: 40, wantPrepare: 40, wantSave: 30, wantGraceLeft: 1, wantMustStop: true},
		"a pod without grace is asked to go until 5 s before the end": {
			deadline: 120, grace: 0, now: 114, wantPrepare: 115.5, wantSave: 117, wantGraceLeft: 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := agent.Plan{Deadline: at(tt.deadline), Grace: time.Duration(tt.grace * float64(time.Second))}
			now := at(tt.now)
			if got := p.PrepareUntil(now); !got.Equal(at(tt.wantPrepare)) {
				t.Errorf("PrepareUntil = %s, want %s", got.Sub(noon), at(tt.wantPrepare).Sub(noon))
			}
			if got := p.SaveUntil(now); !got.Equal(at(tt.wantSave)) {
				t.Errorf("SaveUntil = %s, want %s", got.Sub(noon), at(tt.wantSave).Sub(noon))
			}
			if got := p.GraceAt(now).Seconds(); got != tt.wantGraceLeft {
				t.Errorf("GraceAt = %g s, want %g s", got, tt.wantGraceLeft)
			}
			if got := p.MustStop(now); got != tt.wantMustStop {
				t.Errorf("MustStop = %v, want %v", got, tt.wantMustStop)
			}
		})
	}
}

func TestAnEvictionIsGivenUpBeforeThePodMustBeStopped(t *testing.T) {
	// 30 s of grace and 5 s for the last checkpoint: it must stop at 85 s of 120.
	p := agent.Plan{Deadline: at(120), Grace: 30 * time.Second}
	for asked, want := range map[float64]float64{0: 5, 79: 84, 82: 85, 84: 86, 100: 102} {
		if got := p.AskUntil(at(asked)); !got.Equal(at(want)) {
			t.Errorf("asked for at %g s it is given up at %g s, want %g s", asked, got.Sub(noon).Seconds(), want)
		}
	}
}

func TestAPlanKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := agent.Plan{Deadline: at(rapid.Float64Range(15, 600).Draw(t, "deadline")),
			Grace: time.Duration(rapid.Float64Range(0, 300).Draw(t, "grace") * float64(time.Second))}
		now := at(rapid.Float64Range(0, 15).Draw(t, "now"))
		if save := p.SaveUntil(now); save.After(p.Deadline) || save.Before(now) {
			t.Fatalf("the checkpoint may run until %s, which is not between now and the deadline", save)
		}
		if grace := p.GraceAt(now); grace > max(p.Grace, time.Second) {
			t.Fatalf("grace of %s is more than the pod's own %s", grace, p.Grace)
		}
		if grace := p.GraceAt(now); grace > time.Second && now.Add(grace).After(p.Deadline) {
			t.Fatalf("grace of %s at %s passes the deadline", grace, now)
		}
	})
}
