// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Verdict is how far a run's results may be believed.
type Verdict string

// The verdicts, from bad to good; Pending is for runs that go on.
const (
	Invalid Verdict = "invalid"
	Suspect Verdict = "suspect"
	Pending Verdict = "pending"
	Valid   Verdict = "valid"
)

// Validity is a verdict with its reasons; a valid run may have none.
type Validity struct {
	Verdict Verdict  `json:"verdict" enum:"valid,suspect,invalid,pending"`
	Reasons []Reason `json:"reasons" nullable:"false"`
}

// Reason is one finding that led to a verdict.
type Reason struct {
	Code    string  `json:"code" doc:"Stable name of the finding" example:"mixed-gpu"`
	Verdict Verdict `json:"verdict" enum:"suspect,invalid" doc:"The verdict it calls for"`
	Message string  `json:"message" doc:"One sentence for people"`
}

// throttledShare is the share of a GPU's time below its clocks above which its
// numbers are suspect. Short dips are normal at the start of a load.
const throttledShare = 0.01

// neighbourShare is the share of the time with another pod on the GPU above which its
// numbers are suspect.
const neighbourShare = 0.01

// leastSteadiness is the clock steadiness below which numbers are suspect: one sample in
// ten was taken at another clock.
const leastSteadiness = 0.9

// minRequests is the fewest requests that a 99th percentile can be told from: of
// fewer than 100 it is just the slowest one.
const minRequests = 100

// Judge says whether a run's results may be believed.
//
// Invalid: the run failed, finished without any result, or has a point measured
// on GPUs of more than one model. Suspect: requests failed, a point was
// continued on another GPU, a point has too few requests for its percentiles or
// does not tell how many, GPUs were throttled, had unsteady clocks, were shared with
// another pod or reported an error, or nothing is known about them.
// Memory errors of a GPU that could not be corrected, and errors of the hardware that
// its driver reported, are invalid too.
func Judge(p Parts) Validity {
	var reasons []Reason
	find := func(v Verdict, code, format string, args ...any) {
		reasons = append(reasons, Reason{Code: code, Verdict: v, Message: fmt.Sprintf(format, args...)})
	}
	ended := p.Run.Status == Succeeded || p.Run.Status == Failed
	if p.Run.Status == Failed {
		find(Invalid, "failed", "The run failed.")
	}
	if p.Run.Status == Succeeded && len(p.Results) == 0 {
		find(Invalid, "no-results", "The run finished, but no result of it was imported.")
	}
	judgeResults(p, find)
	judgeGPUs(p.Telemetry, find)
	if ended && len(p.Segments) > 0 && len(p.Telemetry) == 0 {
		find(Suspect, "no-telemetry", "No GPU telemetry was recorded, so the state of the hardware is not known.")
	}
	v := Validity{Verdict: Valid, Reasons: nonNil(reasons)}
	if !ended {
		v.Verdict = Pending
	}
	for _, r := range reasons {
		if r.Verdict == Invalid || v.Verdict == Valid {
			v.Verdict = r.Verdict
		}
	}
	return v
}

func judgeGPUs(telemetry []Telemetry, find func(Verdict, string, string, ...any)) {
	throttled, unsteady, shared := 0, 0, 0
	for _, t := range telemetry {
		span := t.To.Sub(t.From).Seconds()
		for _, g := range t.GPUs {
			if g.DoubleBitErrors > 0 {
				find(Invalid, "memory-errors", "%s had %d memory errors that could not be corrected.", g.UUID, g.DoubleBitErrors)
			}
			for _, x := range g.XIDs {
				verdict := Suspect
				if x.Cause == "hardware" {
					verdict = Invalid
				}
				find(verdict, "gpu-error", "The driver reported XID %d (cause: %s) %d times for %s.", x.Code, cmp.Or(x.Cause, "unknown"), x.Count, g.UUID)
			}
			if g.ThrottledSeconds != nil && span > 0 &&
				g.ThrottledSeconds.Thermal+g.ThrottledSeconds.Power+g.ThrottledSeconds.Other > throttledShare*span {
				throttled++
			}
			if g.ClockSteadiness != nil && *g.ClockSteadiness < leastSteadiness {
				unsteady++
			}
			if span > 0 && g.NeighbourSeconds > neighbourShare*span {
				shared++
			}
		}
	}
	if throttled > 0 {
		find(Suspect, "throttled", "%d GPU summaries show reduced clocks for more than %.0f %% of the time.", throttled, 100*throttledShare)
	}
	if unsteady > 0 {
		find(Suspect, "unsteady-clocks", "%d GPU summaries show clocks away from their median in more than %.0f %% of the busy samples.", unsteady, 100*(1-leastSteadiness))
	}
	if shared > 0 {
		find(Suspect, "neighbour", "%d GPUs were shared with another pod for more than %.0f %% of the time; their power and energy are those of both.", shared, 100*neighbourShare)
	}
}

func judgeResults(p Parts, find func(Verdict, string, string, ...any)) {
	models := gpuModels(p.Segments)
	var mixed, moved, untraced, empty, few, uncounted, refused []string
	failed := int64(0)
	for _, r := range p.Results {
		switch {
		case r.Spotbench == nil && len(models) > 1:
			untraced = append(untraced, label(r))
		case r.Spotbench != nil && (r.Spotbench.MixedGPU || len(measuredModels(r.Spotbench.Segments)) > 1):
			mixed = append(mixed, label(r))
		case r.Spotbench != nil && r.Spotbench.Resumed && len(r.Spotbench.Segments) > 1:
			moved = append(moved, label(r))
		}
		switch {
		case !r.States("completed"):
			uncounted = append(uncounted, label(r))
		case r.Completed == 0:
			empty = append(empty, label(r))
		case r.Completed < minRequests:
			few = append(few, label(r))
		}
		if r.Settings["validity"] == "INVALID" {
			refused = append(refused, label(r))
		}
		failed += r.Failed
	}
	if len(mixed) > 0 {
		find(Invalid, "mixed-gpu", "Measured on GPUs of more than one model: %s.", strings.Join(mixed, ", "))
	}
	if len(untraced) > 0 {
		find(Invalid, "mixed-gpu", "The run used %s, and these results do not tell which: %s.", strings.Join(models, " and "), strings.Join(untraced, ", "))
	}
	if len(empty) > 0 {
		find(Invalid, "no-requests", "Without a single request that succeeded: %s.", strings.Join(empty, ", "))
	}
	if len(moved) > 0 {
		find(Suspect, "resumed", "Continued after an interruption on other GPUs of the same model: %s.", strings.Join(moved, ", "))
	}
	if len(few) > 0 {
		find(Suspect, "few-requests", "Fewer than %d requests, too few to tell a 99th percentile: %s.", minRequests, strings.Join(few, ", "))
	}
	if len(uncounted) > 0 {
		find(Suspect, "requests-unknown", "The file does not tell how many requests were measured: %s.", strings.Join(uncounted, ", "))
	}
	if len(refused) > 0 {
		find(Suspect, "refused-by-tool", "The benchmark itself calls its result invalid: %s.", strings.Join(refused, ", "))
	}
	if failed > 0 {
		find(Suspect, "failed-requests", "%d requests failed; throughput and latency are those of the others.", failed)
	}
}

func label(r Result) string {
	if r.Concurrency != nil {
		return fmt.Sprintf("concurrency %d", *r.Concurrency)
	}
	if r.File != "" {
		return r.File
	}
	return r.ID
}

func gpuModels(segments []Segment) []string {
	var models []string
	for _, s := range segments {
		if s.GPUModel != "" {
			models = append(models, s.GPUModel)
		}
	}
	slices.Sort(models)
	return slices.Compact(models)
}

func measuredModels(segments []MeasuredOn) []string {
	var models []string
	for _, s := range segments {
		if s.GPUModel != "" && s.Completed > 0 {
			models = append(models, s.GPUModel)
		}
	}
	slices.Sort(models)
	return slices.Compact(models)
}
