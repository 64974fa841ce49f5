// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

const (
	// disturbedShare is the share of a GPU's time below its clocks, or beside a
	// neighbour, above which its numbers are suspect. Short dips are normal at the
	// start of a load.
	disturbedShare = 0.01
	// minRequests is the fewest requests that a 99th percentile can be told from:
	// of fewer than 100 it is just the slowest one.
	minRequests = 100
	// leastSteadiness is the least share of busy samples with the clock near its
	// median: below it, one sample in ten was taken at another clock.
	leastSteadiness = 0.9
	// leastMeanClock is the least mean clock of a busy GPU beside its 95th
	// percentile, where nobody counted the steady samples.
	leastMeanClock = 0.95
	// busyPercent is the utilisation from which a GPU's clock is that of its load:
	// an idle GPU lowers its clock, which is no finding.
	busyPercent = 90
	// coveredShare is the least share of a pod's time that its telemetry covers.
	// Pods of less than a minute are too short to ask it of.
	coveredShare     = 0.8
	leastCoveredTime = time.Minute
)

// Rules are all rules, in the order in which their findings are told.
func Rules() []Rule {
	const again = "Run the points again"
	return []Rule{
		{"failed", Invalid, "the run failed", "See the pod's log, and run it again.", func(p Parts) []finding {
			return when(p.Run.Status == Failed, "The run failed.")
		}},
		{"no-results", Invalid, "the run finished and filed no result", "See that the pod writes its files under the path that its annotation results-path names, and run it again.", func(p Parts) []finding {
			return when(p.Run.Status == Succeeded && len(p.Results) == 0, "The run finished, but no result of it was imported.")
		}},
		{"mixed-gpu", Invalid, "a point was measured partly on one GPU model and partly on another, or does not tell on which", again + " on one GPU model: name a single one in the annotation gpu-model.", mixedGPU},
		{"no-requests", Invalid, "a point has not one request that succeeded", again + " when the server answers.", func(p Parts) []finding {
			points := pointsOf(p, func(r Result) bool { return r.States("completed") && r.Completed == 0 })
			return about(points, "Without a single request that succeeded")
		}},
		{"memory-errors", Invalid, "a GPU had memory errors that could not be corrected", "Have the GPU reset or replaced, and run it again on another.", func(p Parts) []finding {
			return ofGPUs(p, func(g GPUTelemetry, _ float64) string {
				return sentence(g.DoubleBitErrors > 0, "%s had %d memory errors that could not be corrected.", g.UUID, g.DoubleBitErrors)
			})
		}},
		{"gpu-error", Invalid, "the driver reported an error (XID) after which the GPU cannot be relied on", "Drain the node, look the XID up in NVIDIA's table, and run it again on another GPU.", func(p Parts) []finding {
			return ofGPUs(p, func(g GPUTelemetry, _ float64) string { return xids(g, true) })
		}},
		{"gpu-error", Suspect, "the driver reported another error (XID), of a program or of unclear cause", "See the pod's log for the error's cause, and run it again.", func(p Parts) []finding {
			return ofGPUs(p, func(g GPUTelemetry, _ float64) string { return xids(g, false) })
		}},
		{"rows-remapped", Suspect, "a GPU replaced rows of its memory meanwhile", "Have the GPU reset when it is idle, and run it again.", func(p Parts) []finding {
			return ofGPUs(p, func(g GPUTelemetry, _ float64) string {
				return sentence(g.RemappedRows > 0, "%s replaced %d rows of its memory while it was measured.", g.UUID, g.RemappedRows)
			})
		}},
		{"throttled-thermal", Suspect, "heat held a GPU's clocks down for more than 1 % of the time", "Run it again on a node that is cooled better, or after the GPUs next to it are idle.", throttled("by heat", func(t Throttling) float64 { return t.Thermal })},
		{"throttled-power", Suspect, "the power limit held a GPU's clocks down for more than 1 % of the time", "Compare it only with runs at the same power limit, or raise the limit (nvidia-smi -pl) and run it again.", throttled("by the power limit", func(t Throttling) float64 { return t.Power })},
		{"throttled", Suspect, "something else held a GPU's clocks down for more than 1 % of the time", "Ask the driver for the reason (nvidia-smi -q -d PERFORMANCE) while it runs again.", throttled("for a reason that the driver does not tell", func(t Throttling) float64 { return t.Other })},
		{"unsteady-clocks", Suspect, "a busy GPU's clock was more than 5 % away from its median in more than 10 % of the samples", "Lock the clocks (nvidia-smi -lgc) and run it again.", unsteady},
		{"neighbour", Suspect, "another pod held a part of a GPU for more than 1 % of the time", "Run it again alone: annotation isolation: node.", func(p Parts) []finding {
			return ofGPUs(p, func(g GPUTelemetry, span float64) string {
				return sentence(span > 0 && g.NeighbourSeconds > disturbedShare*span, "%s was shared with other pods for %.0f of %.0f s.", g.UUID, g.NeighbourSeconds, span)
			})
		}},
		{"resumed", Suspect, "a point was continued, after an interruption, on other GPUs of the same model", again + " where no interruption is to be expected: annotation capacity: on-demand, or a lower max-interruption-risk.", func(p Parts) []finding {
			points := pointsOf(p, func(r Result) bool {
				return !isMixed(r) && r.Spotbench != nil && r.Spotbench.Resumed && len(r.Spotbench.Segments) > 1
			})
			return about(points, "Continued after an interruption on other GPUs of the same model")
		}},
		{"interrupted", Suspect, "the run was interrupted, and a point does not tell whether it was being measured", again + ", by bench-runner or on capacity that is not interrupted.", func(p Parts) []finding {
			if len(p.Interruptions) == 0 || len(p.Segments) < 2 || len(gpuModels(p.Segments)) > 1 {
				return nil
			}
			return about(pointsOf(p, func(r Result) bool { return r.Spotbench == nil }), "The run was interrupted, and these do not tell whether they were being measured")
		}},
		{"few-requests", Suspect, "a point has fewer than 100 requests, too few to tell a 99th percentile", again + " with at least 100 requests.", func(p Parts) []finding {
			points := pointsOf(p, func(r Result) bool { return r.States("completed") && r.Completed > 0 && r.Completed < minRequests })
			return about(points, fmt.Sprintf("Fewer than %d requests, too few to tell a 99th percentile", minRequests))
		}},
		{"requests-unknown", Suspect, "a file does not tell how many requests were measured", "Import the file that has the counts, if the benchmark writes one.", func(p Parts) []finding {
			return about(pointsOf(p, func(r Result) bool { return !r.States("completed") }), "The file does not tell how many requests were measured")
		}},
		{"refused-by-tool", Suspect, "the benchmark itself calls its result invalid", "See the benchmark's own log for what it misses, and run it again.", func(p Parts) []finding {
			return about(pointsOf(p, func(r Result) bool { return r.Settings["validity"] == "INVALID" }), "The benchmark itself calls its result invalid")
		}},
		{"failed-requests", Suspect, "requests failed; the figures are those of the others", again + " at a load that the server takes.", func(p Parts) []finding {
			count := int64(0)
			for _, r := range p.Results {
				count += r.Failed
			}
			points := pointsOf(p, func(r Result) bool { return r.Failed > 0 })
			if count == 0 {
				return nil
			}
			return []finding{{fmt.Sprintf("%d requests failed; throughput and latency are those of the others.", count), points}}
		}},
		{"no-telemetry", Suspect, "nothing is known about the GPUs", "See that the node's agent reaches NVML, and run it again.", func(p Parts) []finding {
			return when(ended(p.Run) && len(p.Segments) > 0 && len(p.Telemetry) == 0, "No GPU telemetry was recorded, so the state of the hardware is not known.")
		}},
		{"telemetry-gap", Suspect, "telemetry covers less than 80 % of a pod's time", "See the agent's log of that node, and run it again.", gaps},
	}
}

func when(is bool, message string) []finding {
	if !is {
		return nil
	}
	return []finding{{message: message}}
}

func about(points []string, what string) []finding {
	if len(points) == 0 {
		return nil
	}
	return []finding{{what + ": " + strings.Join(points, ", ") + ".", points}}
}

func pointsOf(p Parts, is func(Result) bool) []string {
	var points []string
	for _, r := range p.Results {
		if is(r) {
			points = append(points, label(r))
		}
	}
	return points
}

// ofGPUs asks about each GPU's summary and the seconds that it covers.
func ofGPUs(p Parts, ask func(g GPUTelemetry, span float64) string) []finding {
	var all []finding
	for _, t := range p.Telemetry {
		for _, g := range t.GPUs {
			if message := ask(g, t.To.Sub(t.From).Seconds()); message != "" {
				all = append(all, finding{message: message})
			}
		}
	}
	return all
}

func sentence(is bool, format string, args ...any) string {
	if !is {
		return ""
	}
	return fmt.Sprintf(format, args...)
}

// throttled makes one finding of all GPUs: those of a node get hot together.
func throttled(why string, seconds func(Throttling) float64) func(Parts) []finding {
	return func(p Parts) []finding {
		count, worst := 0, 0.0
		for _, t := range p.Telemetry {
			span := t.To.Sub(t.From).Seconds()
			for _, g := range t.GPUs {
				if g.ThrottledSeconds != nil && span > 0 && seconds(*g.ThrottledSeconds) > disturbedShare*span {
					count++
					worst = max(worst, seconds(*g.ThrottledSeconds)/span)
				}
			}
		}
		gpus := "GPUs"
		if count == 1 {
			gpus = "GPU"
		}
		return when(count > 0, fmt.Sprintf("The clocks of %d %s were held down %s, for up to %.1f %% of the time.", count, gpus, why, 100*worst))
	}
}

// unsteady goes by the share of steady samples, and where nobody counted that, by
// a mean clock of a busy GPU that is far below what the GPU can do.
func unsteady(p Parts) []finding {
	return ofGPUs(p, func(g GPUTelemetry, _ float64) string {
		if s := g.ClockSteadiness; s != nil {
			return sentence(*s < leastSteadiness, "The clock of %s was within 5 %% of its median in only %.0f %% of the samples.", g.UUID, 100**s)
		}
		if c := g.SMClockMHz; c != nil && g.Utilization != nil && g.Utilization.Mean >= busyPercent {
			return sentence(c.Mean < leastMeanClock*c.P95, "The clock of %s was %.0f MHz in the mean and %.0f MHz at its 95th percentile, while it was busy.", g.UUID, c.Mean, c.P95)
		}
		return ""
	})
}

func xids(g GPUTelemetry, hardware bool) string {
	var told []string
	for _, x := range g.XIDs {
		if (x.Cause == "hardware") == hardware {
			told = append(told, fmt.Sprintf("XID %d %d× (cause: %s)", x.Code, x.Count, cmp.Or(x.Cause, "unknown")))
		}
	}
	return sentence(len(told) > 0, "The driver reported of %s: %s.", g.UUID, strings.Join(told, ", "))
}

func isMixed(r Result) bool {
	return r.Spotbench != nil && (r.Spotbench.MixedGPU || len(measuredModels(r.Spotbench.Segments)) > 1)
}

func mixedGPU(p Parts) []finding {
	all := about(pointsOf(p, isMixed), "Measured on GPUs of more than one model")
	if models := gpuModels(p.Segments); len(models) > 1 {
		untraced := pointsOf(p, func(r Result) bool { return r.Spotbench == nil })
		all = append(all, about(untraced, "The run used "+strings.Join(models, " and ")+", and these results do not tell which")...)
	}
	return all
}

// gaps are pods whose GPUs nobody watched for a part of their time.
func gaps(p Parts) []finding {
	if !ended(p.Run) || len(p.Telemetry) == 0 {
		return nil
	}
	watched := map[string]time.Duration{}
	for _, t := range p.Telemetry {
		watched[t.PodUID] += t.To.Sub(t.From)
	}
	var all []finding
	for _, s := range p.Segments {
		if s.StartedAt.IsZero() || s.EndedAt.IsZero() {
			continue
		}
		whole := s.EndedAt.Sub(s.StartedAt)
		if covered := watched[s.PodUID]; whole >= leastCoveredTime && float64(covered) < coveredShare*float64(whole) {
			all = append(all, finding{message: fmt.Sprintf("Telemetry of the pod on %s covers %.0f of %.0f s.", s.Node, covered.Seconds(), whole.Seconds())})
		}
	}
	return all
}
