// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// live is what is going on, for the progress line and the metrics.
type live struct {
	concurrency, completed, requests atomic.Int64
	// windowStart is when measuring began, as Unix nanoseconds; 0 while nothing is
	// measured. tokens counts the chunks since then, of all requests.
	windowStart, tokens atomic.Int64
	failures            prometheus.Counter
	ttft, latency       prometheus.Histogram
}

func newLive(reg prometheus.Registerer) *live {
	l := &live{}
	f := promauto.With(reg)
	gauge := func(name, help string, v *atomic.Int64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(v.Load()) })
	}
	gauge("spotbench_bench_concurrency", "Concurrency level that is being measured.", &l.concurrency)
	gauge("spotbench_bench_requests_completed", "Measured requests of the sweep, those before an interruption included.", &l.completed)
	gauge("spotbench_bench_requests", "Requests of the whole sweep.", &l.requests)
	l.failures = f.NewCounter(prometheus.CounterOpts{Name: "spotbench_bench_request_failures_total", Help: "Attempts that failed and are made again."})
	l.ttft = f.NewHistogram(prometheus.HistogramOpts{Name: "spotbench_bench_time_to_first_token_seconds", Help: "Time to first token of measured requests.",
		Buckets: prometheus.ExponentialBuckets(0.01, 2, 14)})
	l.latency = f.NewHistogram(prometheus.HistogramOpts{Name: "spotbench_bench_request_latency_seconds", Help: "Time to last token of measured requests.",
		Buckets: prometheus.ExponentialBuckets(0.05, 2, 16)})
	return l
}

// begin starts the count of a window.
func (l *live) begin(start time.Time) {
	l.tokens.Store(0)
	l.windowStart.Store(start.UnixNano())
}

// throughput is tokens per second since the window began, 0 outside of one.
func (l *live) throughput(now time.Time) float64 {
	start := l.windowStart.Load()
	if elapsed := now.Sub(time.Unix(0, start)); start != 0 && elapsed > 0 {
		return float64(l.tokens.Load()) / elapsed.Seconds()
	}
	return 0
}
