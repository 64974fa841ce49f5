// SPDX-License-Identifier: Apache-2.0

// Package monitor samples a node's GPUs at a fixed interval, attributes each to
// the pod that holds it, and serves the newest values as Prometheus metrics
// under the names and labels of dcgm-exporter.
package monitor

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/spotbench/spotbench/pkg/telemetry"
	"github.com/spotbench/spotbench/pkg/telemetry/podresources"
)

// Reader reads every GPU of the node.
type Reader interface {
	Read() ([]telemetry.Reading, error)
}

// Holders says which container holds which GPU.
type Holders interface {
	Holders(ctx context.Context) (map[string]podresources.Holder, error)
}

// Pod names a pod of this node.
type Pod struct{ Namespace, Name string }

// Monitor is one node's sampler. Its methods may be called from any goroutine.
type Monitor struct {
	reader   Reader
	holders  Holders
	node     string
	interval time.Duration
	log      *slog.Logger

	mu      sync.Mutex
	pods    map[Pod]*telemetry.Accumulator
	current []attributed
}

type attributed struct {
	telemetry.Reading
	holder podresources.Holder
}

// New makes a Monitor for the node's GPUs; Run starts it.
func New(reader Reader, holders Holders, node string, interval time.Duration, log *slog.Logger) *Monitor {
	return &Monitor{reader: reader, holders: holders, node: node, interval: interval, log: log, pods: map[Pod]*telemetry.Accumulator{}}
}

// Run samples until ctx ends. A GPU or a kubelet that cannot be asked is logged
// once per change, and asked again.
func (m *Monitor) Run(ctx context.Context) {
	ticker := time.NewTicker(m.interval)
	defer ticker.Stop()
	said := ""
	for {
		err := m.sample(ctx)
		switch {
		case err != nil && err.Error() != said:
			said = err.Error()
			m.log.Warn("GPU telemetry is incomplete", "error", said)
		case err == nil && said != "":
			said = ""
			m.log.Info("GPU telemetry is complete again")
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (m *Monitor) sample(ctx context.Context) error {
	readings, err := m.reader.Read()
	ctx, cancel := context.WithTimeout(ctx, m.interval)
	defer cancel()
	holders, holdersErr := m.holders.Holders(ctx)
	if err == nil {
		err = holdersErr
	}
	now := time.Now()

	m.mu.Lock()
	defer m.mu.Unlock()
	m.current = m.current[:0]
	byPod := map[Pod][]telemetry.Reading{}
	for _, r := range readings {
		holder := holders[r.UUID]
		m.current = append(m.current, attributed{r, holder})
		if holder.Pod != "" {
			pod := Pod{holder.Namespace, holder.Pod}
			byPod[pod] = append(byPod[pod], r)
		}
	}
	for pod, readings := range byPod {
		if m.pods[pod] == nil {
			m.pods[pod] = &telemetry.Accumulator{}
		}
		m.pods[pod].Add(now, readings)
	}
	return err
}

// Summary is what the pod's GPUs did so far; false if none of its GPUs was seen.
func (m *Monitor) Summary(pod Pod) (telemetry.Summary, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.pods[pod]
	if !ok {
		return telemetry.Summary{}, false
	}
	return a.Summary(), true
}

// Forget drops what is kept about a pod that is gone.
func (m *Monitor) Forget(pod Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pods, pod)
}

// metric is one of dcgm-exporter's, computed from a Reading.
type metric struct {
	name, help string
	kind       prometheus.ValueType
	value      func(telemetry.Reading) float64
}

var metrics = []metric{
	{"DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %).", prometheus.GaugeValue, func(r telemetry.Reading) float64 { return float64(r.UtilizationPercent) }},
	{"DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C).", prometheus.GaugeValue, func(r telemetry.Reading) float64 { return float64(r.TemperatureC) }},
	{"DCGM_FI_DEV_POWER_USAGE", "Power draw (in W).", prometheus.GaugeValue, func(r telemetry.Reading) float64 { return r.PowerWatts }},
	{"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "Total energy consumption since the driver was loaded (in mJ).", prometheus.CounterValue, func(r telemetry.Reading) float64 { return r.EnergyJoules * 1000 }},
	{"DCGM_FI_DEV_SM_CLOCK", "SM clock frequency (in MHz).", prometheus.GaugeValue, func(r telemetry.Reading) float64 { return float64(r.SMClockMHz) }},
	{"DCGM_FI_DEV_MEM_CLOCK", "Memory clock frequency (in MHz).", prometheus.GaugeValue, func(r telemetry.Reading) float64 { return float64(r.MemClockMHz) }},
	{"DCGM_FI_DEV_FB_USED", "Frame buffer memory used (in MiB).", prometheus.GaugeValue, func(r telemetry.Reading) float64 { return float64(r.MemoryUsedBytes >> 20) }},
	{"DCGM_FI_DEV_FB_FREE", "Frame buffer memory free (in MiB).", prometheus.GaugeValue, func(r telemetry.Reading) float64 { return float64((r.MemoryTotalBytes - r.MemoryUsedBytes) >> 20) }},
	{"DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "Volatile double-bit ECC errors.", prometheus.CounterValue, func(r telemetry.Reading) float64 { return float64(r.DoubleBitErrors) }},
}

var labels = []string{"gpu", "UUID", "device", "modelName", "Hostname", "namespace", "pod", "container"}

// Describe sends nothing: the set of series follows the GPUs and pods of the moment.
func (m *Monitor) Describe(chan<- *prometheus.Desc) {}

// Collect serves the newest sample. Series of pods that are gone are gone with it.
func (m *Monitor) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	current := append([]attributed(nil), m.current...)
	m.mu.Unlock()
	for _, metric := range metrics {
		desc := prometheus.NewDesc(metric.name, metric.help, labels, nil)
		for _, r := range current {
			index := strconv.Itoa(r.Index)
			ch <- prometheus.MustNewConstMetric(desc, metric.kind, metric.value(r.Reading),
				index, r.UUID, "nvidia"+index, r.Model, m.node, r.holder.Namespace, r.holder.Pod, r.holder.Container)
		}
	}
}
