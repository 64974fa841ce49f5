// SPDX-License-Identifier: Apache-2.0

package replay_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/bench/internal/trace"
	"github.com/spotbench/spotbench/bench/spot/internal/replay"
	"github.com/spotbench/spotbench/pkg/runpolicy"
)

// watched is our policy after it saw the recording up to the start.
func watched(t testing.TB, s *replay.Setting, start time.Duration) *runpolicy.Planner {
	t.Helper()
	p, err := runpolicy.New(s.Job)
	if err != nil {
		t.Fatal(err)
	}
	for tick := range replay.First(start, s.Job.Step) {
		p.Learn(s.Zones(tick))
	}
	return p
}

func TestOursIsCheaperThanThePublishedPoliciesOverThreeZones(t *testing.T) {
	s := v100(t, 59.908333, 0.2, 1, "us-east-1c", "us-east-2b", "us-west-2a")
	total := 0.0
	for _, start := range published {
		r, err := replay.Run(s, watched(t, s, hours(start)), hours(start))
		if err != nil || r.Missed {
			t.Fatalf("from hour %v: missed %v, %v", start, r.Missed, err)
		}
		total += r.CostUSD
	}
	// Published: 41.73 USD by the best online policy, 47.02 by eager failover.
	if mean := total / 5; mean > 40 {
		t.Errorf("mean %.2f USD, want 40.00 at most", mean)
	}
}

func TestOursIsCheaperThanUniformProgressWhereCapacityOfOneRegionFlickers(t *testing.T) {
	s := v100(t, 36, 0.05, 0, "us-east-1a", "us-east-1c", "us-east-1d", "us-east-1f")
	s.Job.Work = hours(24)
	ours, uniform := 0.0, 0.0
	for start := time.Duration(0); s.Fits(start); start += hours(60) {
		for policy, total := range map[runpolicy.Policy]*float64{watched(t, s, start): &ours, &replay.UniformProgress{Job: s.Job}: &uniform} {
			r, err := replay.Run(s, policy, start)
			if err != nil || r.Missed {
				t.Fatalf("from %v: missed %v, %v", start, r.Missed, err)
			}
			*total += r.CostUSD
		}
	}
	if ours >= uniform {
		t.Errorf("%.2f USD in all, Uniform Progress %.2f", ours, uniform)
	}
}

func TestNoDeadlineThatOnDemandCapacityCouldMeetIsMissed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const ticks = 400
		step := time.Duration(rapid.IntRange(1, 30).Draw(t, "minutes per tick")) * time.Minute
		s := &replay.Setting{Job: runpolicy.Job{
			Step: step, Work: step * time.Duration(rapid.IntRange(1, 60).Draw(t, "work, ticks")), Restart: step * time.Duration(rapid.IntRange(0, 40).Draw(t, "restart, tenths of a tick")) / 10,
			MoveUSD: rapid.Float64Range(0, 5).Draw(t, "move"), Checkpoint: step * time.Duration(rapid.IntRange(0, 8).Draw(t, "checkpoint, ticks")),
		}}
		// From nothing to spare on, and not in whole ticks.
		s.Job.Deadline = s.Job.Work + s.Job.Restart + step*time.Duration(rapid.IntRange(0, 800).Draw(t, "slack, tenths of a tick"))/10
		for zone := range rapid.IntRange(1, 3).Draw(t, "zones") {
			tr := trace.Trace{Name: fmt.Sprintf("r-%da", zone), Zone: fmt.Sprintf("r-%da", zone), Region: fmt.Sprintf("r-%d", zone), Gap: step}
			for up := rapid.Bool().Draw(t, "first"); len(tr.Up) < ticks; up = !up {
				price := rapid.Float64Range(0.1, 6).Draw(t, "spot") // now and then above on demand
				for range rapid.IntRange(1, 40).Draw(t, "spell") {
					tr.Up = append(tr.Up, up)
					tr.SpotUSDPerHour = append(tr.SpotUSDPerHour, price)
				}
			}
			tr.Up, tr.SpotUSDPerHour = tr.Up[:ticks], tr.SpotUSDPerHour[:ticks]
			s.Traces = append(s.Traces, tr)
			s.OnDemandUSDPerHour = append(s.OnDemandUSDPerHour, rapid.Float64Range(0.5, 4).Draw(t, "on demand"))
		}
		start := step * time.Duration(rapid.IntRange(0, 100).Draw(t, "watched, ticks"))
		if r, err := replay.Run(s, replay.AlwaysOnDemand{Job: s.Job}, start); err != nil || r.Missed {
			t.Fatalf("on demand alone misses it: %v", err)
		}
		planner, err := runpolicy.New(s.Job)
		if err != nil {
			t.Fatal(err)
		}
		for tick := range replay.First(start, step) {
			planner.Learn(s.Zones(tick))
		}
		r, err := replay.Run(s, planner, start)
		if err != nil || r.Missed {
			t.Errorf("finished after %v of %v, missed %v, %v", r.Finish, s.Job.Deadline, r.Missed, err)
		}
	})
}
