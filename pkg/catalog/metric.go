// SPDX-License-Identifier: Apache-2.0

package catalog

// Metric is a figure of a measured point that points are compared by.
type Metric struct {
	Name, Title, Unit string
	// HigherIsBetter is false for times and costs.
	HigherIsBetter bool
	// Of is the figure of a run's point, unless it is not known.
	Of func(Detail, Result) (float64, bool)
}

// Metrics are all metrics, in the order in which they are shown.
func Metrics() []Metric {
	return []Metric{
		{"outputThroughput", "Output throughput", "tokens/s", true, figure(func(r Result) *float64 { return r.OutputThroughput })},
		{"outputThroughputPerGPU", "Output throughput per GPU", "tokens/s", true, perGPU},
		{"totalTokenThroughput", "Input and output throughput", "tokens/s", true, figure(func(r Result) *float64 { return r.TotalTokenThroughput })},
		{"requestThroughput", "Requests", "1/s", true, figure(func(r Result) *float64 { return r.RequestThroughput })},
		{"ttftMedianMs", "Time to first token, median", "ms", false, median(func(r Result) *Latency { return r.TTFT })},
		{"ttftP99Ms", "Time to first token, p99", "ms", false, p99(func(r Result) *Latency { return r.TTFT })},
		{"tpotMedianMs", "Time per output token, median", "ms", false, median(func(r Result) *Latency { return r.TPOT })},
		{"tpotP99Ms", "Time per output token, p99", "ms", false, p99(func(r Result) *Latency { return r.TPOT })},
		{"itlMedianMs", "Between chunks, median", "ms", false, median(func(r Result) *Latency { return r.ITL })},
		{"itlP99Ms", "Between chunks, p99", "ms", false, p99(func(r Result) *Latency { return r.ITL })},
		{"e2elMedianMs", "Whole request, median", "ms", false, median(func(r Result) *Latency { return r.E2EL })},
		{"e2elP99Ms", "Whole request, p99", "ms", false, p99(func(r Result) *Latency { return r.E2EL })},
		{"usdPerMillionOutputTokens", "Cost per million output tokens", "USD", false, Detail.PointCost},
	}
}

// MetricNamed is the metric of a name.
func MetricNamed(name string) (Metric, bool) {
	for _, m := range Metrics() {
		if m.Name == name {
			return m, true
		}
	}
	return Metric{}, false
}

func figure(of func(Result) *float64) func(Detail, Result) (float64, bool) {
	return func(_ Detail, r Result) (float64, bool) {
		if v := of(r); v != nil {
			return *v, true
		}
		return 0, false
	}
}

func median(of func(Result) *Latency) func(Detail, Result) (float64, bool) {
	return figure(func(r Result) *float64 {
		if l := of(r); l != nil {
			return l.MedianMs
		}
		return nil
	})
}

func p99(of func(Result) *Latency) func(Detail, Result) (float64, bool) {
	return figure(func(r Result) *float64 {
		if l := of(r); l != nil {
			return l.P99Ms
		}
		return nil
	})
}

// perGPU is the throughput by the run's number of GPUs, or as the tool tells it.
func perGPU(d Detail, r Result) (float64, bool) {
	if v, ok := r.Metrics["output_tokens_per_second_per_gpu"]; ok {
		return v, true
	}
	if r.OutputThroughput == nil || d.GPUCount <= 0 {
		return 0, false
	}
	return *r.OutputThroughput / float64(d.GPUCount), true
}
