// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spotbench/spotbench/bench/spot/internal/replay"
	"github.com/spotbench/spotbench/pkg/runpolicy"
)

// Report is what a policy did over all windows.
type Report struct {
	Policy       string    `json:"policy"`
	Windows      int       `json:"windows"`
	MeanCostUSD  float64   `json:"meanCostUSD"`
	CostsUSD     []float64 `json:"costsUSD"`
	SavedPercent float64   `json:"savedPercent"`
	// BoundPercent is what the spot discount allows at most: all of the run at the
	// lowest price that any zone had during the window, available or not.
	BoundPercent   float64 `json:"boundPercent"`
	DeadlineMisses int     `json:"deadlineMisses"`
	// Interruptions and WorkLostHours are totals over the windows.
	Interruptions int     `json:"interruptions"`
	WorkLostHours float64 `json:"workLostHours"`

	restarting, onDemand time.Duration
	moves                int
	results              []replay.Result
}

// entry makes a policy for one window.
type entry struct {
	name string
	make func(s *replay.Setting, start, history time.Duration) (runpolicy.Policy, error)
}

var entries = []entry{
	{"ours", ours},
	{"on-demand", func(s *replay.Setting, _, _ time.Duration) (runpolicy.Policy, error) {
		return replay.AlwaysOnDemand{Job: s.Job}, nil
	}},
	{"greedy", func(s *replay.Setting, _, _ time.Duration) (runpolicy.Policy, error) {
		return replay.Greedy{Job: s.Job}, nil
	}},
	{"uniform-progress", func(s *replay.Setting, _, _ time.Duration) (runpolicy.Policy, error) {
		return &replay.UniformProgress{Job: s.Job}, nil
	}},
	{"optimum", func(s *replay.Setting, start, _ time.Duration) (runpolicy.Policy, error) {
		return replay.Optimum(s, start)
	}},
}

// ours has watched the zones for some time before the window.
func ours(s *replay.Setting, start, history time.Duration) (runpolicy.Policy, error) {
	planner, err := runpolicy.New(s.Job)
	if err != nil {
		return nil, err
	}
	for tick := replay.First(max(0, start-history), s.Job.Step); tick < replay.First(start, s.Job.Step); tick++ {
		planner.Learn(s.Zones(tick))
	}
	return planner, nil
}

func names() []string {
	var out []string
	for _, e := range entries {
		out = append(out, e.name)
	}
	return out
}

// measure plays a policy over all windows.
func measure(name string, s *replay.Setting, starts []time.Duration, history time.Duration) (Report, error) {
	r := Report{Policy: name, Windows: len(starts)}
	var total, onDemand, bound float64
	for _, start := range starts {
		var policy runpolicy.Policy
		var err error
		for _, e := range entries {
			if e.name == name {
				policy, err = e.make(s, start, history)
			}
		}
		if err != nil {
			return r, err
		}
		result, err := replay.Run(s, policy, start)
		if err != nil {
			return r, fmt.Errorf("policy %s from hour %.4f: %w", name, start.Hours(), err)
		}
		baseline, err := replay.Run(s, replay.AlwaysOnDemand{Job: s.Job}, start)
		if err != nil {
			return r, err
		}
		r.results = append(r.results, result)
		r.CostsUSD = append(r.CostsUSD, result.CostUSD)
		total += result.CostUSD
		r.Interruptions += result.Interruptions
		r.WorkLostHours += result.Lost.Hours()
		r.restarting += result.Restarting
		r.onDemand += result.OnDemand
		r.moves += result.Moves
		if result.Missed {
			r.DeadlineMisses++
		}
		onDemand += baseline.CostUSD
		bound += baseline.CostUSD * discount(s, start)
	}
	r.MeanCostUSD = total / float64(len(starts))
	r.SavedPercent = 100 * (onDemand - total) / onDemand
	r.BoundPercent = 100 * bound / onDemand
	return r, nil
}

// discount is the largest there was, from 0 to 1, in any zone and tick of a window; 0
// where spot capacity was never cheaper.
func discount(s *replay.Setting, start time.Duration) float64 {
	first := replay.First(start, s.Job.Step)
	last := first + int(s.Job.Deadline/s.Job.Step)
	least, onDemand := s.Traces[0].SpotUSDPerHour[first], s.OnDemandUSDPerHour[0]
	for i, t := range s.Traces {
		onDemand = min(onDemand, s.OnDemandUSDPerHour[i])
		for _, p := range t.SpotUSDPerHour[first:min(last, len(t.SpotUSDPerHour))] {
			least = min(least, p)
		}
	}
	return max(0, 1-least/onDemand)
}

func print(w io.Writer, s *replay.Setting, starts []time.Duration, reports []Report) error {
	fmt.Fprintf(w, "%d windows, %d zones, work %v, deadline %v, restart %v, %g USD per move between regions\n\n",
		len(starts), len(s.Traces), s.Job.Work.Round(time.Second), s.Job.Deadline.Round(time.Second), s.Job.Restart, s.Job.MoveUSD)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "policy\tmean USD\tsaved %\tbound %\tmisses\tinterruptions\twork lost h\trestarting h\ton demand h\tmoves\t")
	for _, r := range reports {
		fmt.Fprintf(t, "%s\t%.2f\t%.1f\t%.1f\t%d\t%d\t%.1f\t%.1f\t%.1f\t%d\t\n", r.Policy, r.MeanCostUSD, r.SavedPercent, r.BoundPercent,
			r.DeadlineMisses, r.Interruptions, r.WorkLostHours, r.restarting.Hours(), r.onDemand.Hours(), r.moves)
	}
	return t.Flush()
}
