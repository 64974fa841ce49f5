// SPDX-License-Identifier: Apache-2.0

package placement_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/risk"
)

// due asks for eight GPUs for an hour until a deadline, with checkpoints every ten
// minutes of a minute each; a restart takes three minutes.
func due(in time.Duration, change func(*benchspec.Spec)) placement.Request {
	r := request(8, func(s *benchspec.Spec) {
		s.Deadline, s.CheckpointPath, s.CheckpointInterval = now.Add(in), "/c", benchspec.Interval{Every: 10 * time.Minute}
		if change != nil {
			change(s)
		}
	})
	r.Assumptions.RestartCost, r.Assumptions.CheckpointCost, r.Assumptions.NoticeSaves = 3*time.Minute, time.Minute, 0.9
	return r
}

func TestADeadlineThatAnInterruptionCouldCostPutsOnDemandFirst(t *testing.T) {
	cheap := node("spot", "A100-80GB", 80*gib, func(n *placement.Node) { spot(0.01)(n); n.USDPerHour = 2 })
	dear := node("od", "A100-80GB", 80*gib, nil)
	h100 := node("h100-spot", "H100-80GB", 80*gib, func(n *placement.Node) { spot(0.01)(n); n.USDPerHour = 2 })
	for name, c := range map[string]struct {
		request  placement.Request
		feasible []placement.Node
		first    string
		reason   string
	}{
		// At worst the hour, five checkpoints of a minute, the ten minutes and the
		// checkpoint since the last one, and a restart of three: 79 minutes.
		"with 79 minutes an interruption at the worst moment leaves on demand time enough": {
			due(79*time.Minute, nil), []placement.Node{cheap, dear}, "spot", "cheapest of 2"},
		"with 78 it does not": {
			due(78*time.Minute, nil), []placement.Node{cheap, dear}, "od",
			"safe for the deadline: $8.67; on spot, at $2.17, an interruption could miss it by 1m"},
		"where nothing else is free, a risk is better than to wait": {
			due(78*time.Minute, nil), []placement.Node{cheap}, "spot", "only feasible node"},
		// An interruption just before the end costs all of the hour: 60 + 60 + 3 minutes.
		"a run without checkpoints needs its time twice": {
			due(122*time.Minute, func(s *benchspec.Spec) { s.CheckpointPath = "" }), []placement.Node{cheap, dear}, "od", "could miss it by 1m"},
		"and has it then": {
			due(123*time.Minute, func(s *benchspec.Spec) { s.CheckpointPath = "" }), []placement.Node{cheap, dear}, "spot", "cheapest of 2"},
		"a model that is preferred does not make up for it": {
			due(78*time.Minute, func(s *benchspec.Spec) { s.GPUModels = []string{"H100-80GB", "A100-80GB"} }), []placement.Node{h100, dear}, "od", "safe for the deadline"},
		"who wants spot has it": {
			due(78*time.Minute, func(s *benchspec.Spec) { s.Capacity = benchspec.CapacitySpot }), []placement.Node{cheap}, "spot", "only feasible node"},
	} {
		t.Run(name, func(t *testing.T) {
			ranked := placement.Rank(c.request, c.feasible)
			reason := placement.Explain(c.request, ranked, placement.Count(ranked))
			if ranked[0].Node.Name != c.first || !strings.Contains(reason, c.reason) {
				t.Errorf("%s first: %q, want %s: %q", ranked[0].Node.Name, reason, c.first, c.reason)
			}
		})
	}
	ranked := placement.Rank(due(78*time.Minute, nil), []placement.Node{cheap, dear})
	if got := placement.Lost(due(78*time.Minute, nil), ranked[0], ranked[1]); got != "an interruption there could miss the deadline by 1m" {
		t.Errorf("spot lost by %q", got)
	}
}

func TestNobodyWaitsForSpotThatWouldNotBeTakenBeforeOnDemand(t *testing.T) {
	node := node("spot", "A100-80GB", 80*gib, spot(0.01))
	if !placement.SuitsWaiting(due(79*time.Minute, nil), node) || placement.SuitsWaiting(due(78*time.Minute, nil), node) {
		t.Error("want it to suit while an interruption leaves time enough, and not after")
	}
}

// TestNoDeadlineIsMissedWhereverTheSpotNodeIsTakenBack plays against an opponent who
// takes the spot node back, without a notice, at the moment of his choice, as often as
// the run goes there again. On demand alone would have met the deadline.
func TestHowProbablyADeadlineIsMetIsWhatTheHazardLeaves(t *testing.T) {
	at := func(hazard risk.Hazard) placement.Node { return node("spot", "A100-80GB", 80*gib, spot(hazard)) }
	onDemand := node("od", "A100-80GB", 80*gib, nil)
	whole := func(s *benchspec.Spec) { s.CheckpointPath = "" }
	for name, c := range map[string]struct {
		request placement.Request
		node    placement.Node
		want    float64
	}{
		// A minute to spare and a restart of three: one interruption is too late.
		"an hour in 61 minutes at one interruption in two hours: exp(-1/2)": {due(61*time.Minute, whole), at(0.5), math.Exp(-0.5)},
		"on demand, which is never interrupted, with a minute to spare":     {due(61*time.Minute, whole), onDemand, 1},
		"less time than work, on demand too":                                {due(59*time.Minute, whole), onDemand, 0},
		"an hour in a day at one interruption in two hours":                 {due(24*time.Hour, nil), at(0.5), 1},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := placement.InTime(c.request, c.node)
			if !ok || math.Abs(got-c.want) > 0.005 {
				t.Errorf("probability %.4f (%v), want %.4f", got, ok, c.want)
			}
		})
	}
	none := due(time.Hour, func(s *benchspec.Spec) { s.Deadline = time.Time{} })
	if p, ok := placement.InTime(none, onDemand); ok {
		t.Errorf("without a deadline: probability %v, want none", p)
	}
}

func TestNoDeadlineIsMissedWhereverTheSpotNodeIsTakenBack(t *testing.T) {
	cheap := node("spot", "A100-80GB", 80*gib, func(n *placement.Node) { n.USDPerHour = 1 })
	dear := node("od", "A100-80GB", 80*gib, nil)
	rapid.Check(t, func(t *rapid.T) {
		minutes := func(name string, least, most int) time.Duration {
			return time.Duration(rapid.IntRange(least, most).Draw(t, name)) * time.Minute
		}
		work := minutes("work", 1, 600)
		r := due(work+minutes("spare", 0, 900), func(s *benchspec.Spec) {
			s.ExpectedDuration = work
			s.CheckpointInterval = benchspec.Interval{Every: minutes("interval", 1, 90)}
			if rapid.Bool().Draw(t, "no checkpoints") {
				s.CheckpointPath = ""
			}
		})
		r.Assumptions.CheckpointCost, r.Assumptions.RestartCost = minutes("checkpoint", 0, 5), minutes("restart", 0, 15)
		spotNode := cheap
		spot(risk.Hazard(rapid.Float64Range(0, 0.3).Draw(t, "hazard")))(&spotNode)
		every, cost := r.Spec.CheckpointInterval.Every, r.Assumptions.CheckpointCost
		for tries := 0; ; tries++ {
			// A node at which finishing is expected too late is refused.
			feasible := []placement.Node{dear}
			if placement.Check(r, spotNode) == nil {
				feasible = append(feasible, spotNode)
			}
			if placement.Rank(r, feasible)[0].Node.Name == "od" {
				break
			}
			if tries == 30 {
				return // never taken back again
			}
			// Whole stretches of work and checkpoint are kept, what came after is lost.
			left, kept, total := r.Spec.ExpectedDuration, time.Duration(0), r.Spec.ExpectedDuration
			if r.Spec.Resumable() {
				total += time.Duration(int64((left+every-1)/every)-1) * cost
			}
			ran := minutes("ran", 0, int(total/time.Minute))
			if r.Spec.Resumable() {
				kept = min(time.Duration(int64(ran/(every+cost)))*every, left)
			}
			r.Now = r.Now.Add(ran + r.Assumptions.RestartCost)
			r.Spec.ExpectedDuration = left - kept
			if r.Spec.ExpectedDuration <= 0 {
				return
			}
		}
		if finish := r.Now.Add(r.Spec.ExpectedDuration); finish.After(r.Spec.Deadline) {
			t.Fatalf("finished %v after the deadline", finish.Sub(r.Spec.Deadline))
		}
	})
}
