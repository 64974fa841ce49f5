// SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/spotbench/spotbench/pkg/interruption"
)

// recovered is how long there must be no error before a service counts as well
// again, so that one that fails every other time is reported once.
const recovered = time.Minute

// Metrics of all endpoints.
type Metrics struct {
	lastSuccess *prometheus.GaugeVec
	errors      *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		lastSuccess: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "spotbench_metadata_last_success_timestamp_seconds",
			Help: "When the cloud last answered a question about notices, in seconds since 1970."}, []string{"provider"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spotbench_metadata_errors_total",
			Help: "Questions about notices without a usable answer, by reason."}, []string{"provider", "reason"}),
	}
	registry.MustRegister(m.lastSuccess, m.errors)
	return m
}

// Health keeps account of how a service does, and says so: once when it begins to
// fail and once when it is well again, however long that takes and however the
// failure changes.
type Health struct {
	provider interruption.Provider
	metrics  *Metrics // may be nil
	log      *slog.Logger

	mu        sync.Mutex
	ailing    bool
	since     time.Time
	lastError time.Time
	errors    int
}

// NewHealth makes the account of one service. Metrics may be nil.
func NewHealth(provider interruption.Provider, metrics *Metrics, log *slog.Logger) *Health {
	return &Health{provider: provider, metrics: metrics, log: log}
}

// Succeeded takes note of a usable answer.
func (h *Health) Succeeded() {
	now := time.Now()
	if h.metrics != nil {
		h.metrics.lastSuccess.WithLabelValues(string(h.provider)).Set(float64(now.UnixMilli()) / 1000)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ailing || now.Sub(h.lastError) < recovered {
		return
	}
	h.log.Info("the instance metadata is read again", "provider", h.provider, "errors", h.errors, "ailedFor", h.lastError.Sub(h.since).Round(time.Second).String())
	h.ailing, h.errors = false, 0
}

// Failed takes note of a question without a usable answer.
func (h *Health) Failed(err error) {
	reason := ReasonOf(err)
	if h.metrics != nil {
		h.metrics.errors.WithLabelValues(string(h.provider), string(reason)).Inc()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lastError = time.Now()
	h.errors++
	if h.ailing {
		h.log.Debug("the instance metadata still cannot be read", "provider", h.provider, "reason", reason, "error", err)
		return
	}
	h.ailing, h.since = true, h.lastError
	h.log.Warn("the instance metadata cannot be read; notices may be missed, and it is asked again until it answers",
		"provider", h.provider, "reason", reason, "error", err)
}

// The pause after an error grows from the ordinary one to longestPause, to which up
// to 30 % are added by chance: 5 s in all.
const (
	longestPause = 3846 * time.Millisecond
	jitter       = 0.3
)

// Poll asks again and again until ctx ends. Look returns how long to wait before the
// next look, or an error; errors make the pauses longer, up to 5 s.
func Poll(ctx context.Context, interval time.Duration, look func(context.Context) (time.Duration, error)) {
	backoff := newBackoff(interval)
	for ctx.Err() == nil {
		pause, err := look(ctx)
		if err != nil {
			pause = backoff.Step()
		} else {
			backoff = newBackoff(interval)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func newBackoff(interval time.Duration) *wait.Backoff {
	return &wait.Backoff{Duration: min(interval, longestPause), Factor: 1.5, Jitter: jitter, Steps: 20, Cap: longestPause}
}
