// SPDX-License-Identifier: Apache-2.0

package agent

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	notices            *prometheus.CounterVec
	noticeToTaint      prometheus.Histogram
	noticeToCheckpoint prometheus.Histogram
	checkpointSeconds  prometheus.Histogram
	checkpointBytes    prometheus.Counter
	checkpointFailures prometheus.Counter
	workLost           prometheus.Counter
}

func newMetrics(registry prometheus.Registerer, waiting func() float64) metrics {
	seconds := []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120}
	m := metrics{
		notices: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spotbench_notices_total", Help: "Notices received, by provider and kind."}, []string{"provider", "kind"}),
		noticeToTaint: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "spotbench_notice_to_taint_seconds",
			Help: "Time from seeing a notice to the node's taint and condition.", Buckets: seconds}),
		noticeToCheckpoint: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "spotbench_notice_to_checkpoint_seconds",
			Help: "Time from seeing a notice to a whole checkpoint of a pod.", Buckets: seconds}),
		checkpointSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "spotbench_checkpoint_seconds",
			Help: "Time to make a checkpoint, periodic ones included.", Buckets: seconds}),
		checkpointBytes:    prometheus.NewCounter(prometheus.CounterOpts{Name: "spotbench_checkpoint_uploaded_bytes_total", Help: "Bytes sent to the checkpoint store."}),
		checkpointFailures: prometheus.NewCounter(prometheus.CounterOpts{Name: "spotbench_checkpoint_failures_total", Help: "Checkpoints that did not become whole."}),
		workLost:           prometheus.NewCounter(prometheus.CounterOpts{Name: "spotbench_work_lost_seconds_total", Help: "Work done by interrupted pods that no checkpoint held."}),
	}
	registry.MustRegister(m.notices, m.noticeToTaint, m.noticeToCheckpoint, m.checkpointSeconds, m.checkpointBytes, m.checkpointFailures, m.workLost,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "spotbench_catalog_records_waiting", Help: "Records on this node's disk that the catalog does not have yet."}, waiting))
	return m
}
