// SPDX-License-Identifier: Apache-2.0

// Package exporter serves the newest samples of a node's GPUs as Prometheus metrics,
// under the names and labels of NVIDIA's dcgm-exporter, so that its dashboards and
// alerts work. A quantity that the GPU does not give has no series, and neither has
// a pod that is gone or a reading that is old.
package exporter

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/spotbench/spotbench/pkg/telemetry"
	"github.com/spotbench/spotbench/pkg/telemetry/health"
	"github.com/spotbench/spotbench/pkg/telemetry/monitor"
	"github.com/spotbench/spotbench/pkg/telemetry/podresources"
)

// Source has the newest samples; monitor.Monitor is one.
type Source interface {
	Snapshot() monitor.Snapshot
	Interval() time.Duration
}

// Collector is a prometheus.Collector. It holds no series of its own: each scrape
// sees the devices and pods of the moment.
type Collector struct {
	source Source
	node   string
	now    func() time.Time
	descs  map[descKey]*prometheus.Desc
}

// Names of what DCGM has no field for. The first two are dcgm-exporter's own.
const (
	XIDErrors   = "DCGM_EXP_XID_ERRORS_TOTAL"
	ClockEvents = "DCGM_EXP_CLOCK_EVENTS_TOTAL"
	LastXID     = "DCGM_FI_DEV_XID_ERRORS"
	LastReading = "spotbench_gpu_last_reading_timestamp_seconds"
)

// shape is which labels a series has beside those that all have.
type shape struct {
	mig, shared bool
	extra       string // names of further labels
}

type descKey struct {
	name string
	shape
}

var extraLabels = map[string][]string{"": nil, "xid": {"xid"}, "clock_event": {"clock_event"}, "err": {"err_code", "err_msg"}}

// labelNames are dcgm-exporter's. A device that nobody holds has no namespace, pod and
// container: an empty label is to Prometheus one that is not there.
func (s shape) labelNames() []string {
	names := []string{"gpu", "UUID", "pci_bus_id", "device", "modelName", "Hostname", "DCGM_FI_DRIVER_VERSION", "container", "namespace", "pod"}
	if s.mig {
		names = append(names, "GPU_I_PROFILE", "GPU_I_ID")
	}
	if s.shared {
		names = append(names, "vgpu")
	}
	return append(names, extraLabels[s.extra]...)
}

// New makes a Collector for the GPUs of a node.
func New(source Source, node string) *Collector {
	c := &Collector{source: source, node: node, now: time.Now, descs: map[descKey]*prometheus.Desc{}}
	describe := func(name, help, extra string) {
		for _, mig := range []bool{false, true} {
			for _, shared := range []bool{false, true} {
				s := shape{mig, shared, extra}
				c.descs[descKey{name, s}] = prometheus.NewDesc(name, help, s.labelNames(), nil)
			}
		}
	}
	for _, info := range telemetry.Metrics {
		describe(info.Name, info.Help, "")
	}
	describe(LastXID, "Newest XID error since the agent started (0: none).", "err")
	describe(XIDErrors, "XID errors reported since the agent started.", "xid")
	describe(ClockEvents, "Times that a reason for low clocks began since the agent started.", "clock_event")
	c.descs[descKey{name: LastReading}] = prometheus.NewDesc(LastReading, "When the GPUs were last read.", nil, nil)
	return c
}

// Describe sends nothing: the set of series follows the GPUs and pods of the moment.
func (c *Collector) Describe(chan<- *prometheus.Desc) {}

// stale is how old a reading may be and still be served: three that failed.
func (c *Collector) stale() time.Duration { return max(3*c.source.Interval(), 5*time.Second) }

// Collect serves the newest samples.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	snapshot := c.source.Snapshot()
	if snapshot.At.IsZero() {
		return
	}
	ch <- prometheus.MustNewConstMetric(c.descs[descKey{name: LastReading}], prometheus.GaugeValue, float64(snapshot.At.UnixMilli())/1000)
	if c.now().Sub(snapshot.At) > c.stale() {
		return
	}
	divided := map[string]bool{} // GPUs that have MIG instances
	for _, d := range snapshot.Devices {
		if d.MIG != nil {
			divided[d.MIG.Parent] = true
		}
	}
	for i := range snapshot.Devices {
		d := &snapshot.Devices[i]
		holders := d.Holders
		if len(holders) == 0 {
			holders = []podresources.Holder{{}}
		}
		for _, h := range holders {
			c.device(ch, d, h, divided[d.UUID])
			if d.MIG == nil {
				c.events(ch, d, h, snapshot.GPUs[d.UUID])
			}
		}
	}
}

// device sends a device's sample. What an instance has of its own is told of the
// instances and not of their GPU, and the rest of the GPU alone: so a sum over all
// series of a metric counts nothing twice.
func (c *Collector) device(ch chan<- prometheus.Metric, d *monitor.Device, h podresources.Holder, divided bool) {
	s := shape{mig: d.MIG != nil, shared: h.Replica != ""}
	labels := c.labels(d, h)
	for _, info := range telemetry.Metrics {
		value, ok := d.Value(info.Metric)
		if !ok || d.MIG != nil && !info.PerInstance || divided && info.PerInstance {
			continue
		}
		kind := prometheus.GaugeValue
		if info.Counter {
			kind = prometheus.CounterValue
		}
		ch <- prometheus.MustNewConstMetric(c.descs[descKey{info.Name, s}], kind, value, labels...)
	}
}

func (c *Collector) labels(d *monitor.Device, h podresources.Holder) []string {
	// dcgm-exporter labels an instance with its GPU's UUID, too.
	labels := []string{strconv.Itoa(d.Index), d.GPUUUID(), d.PCIBusID, "nvidia" + strconv.Itoa(d.Minor), d.Model, c.node, d.Driver, h.Container, h.Namespace, h.Pod}
	if d.MIG != nil {
		labels = append(labels, d.MIG.Profile, strconv.Itoa(d.MIG.GPUInstance))
	}
	if h.Replica != "" {
		labels = append(labels, h.Replica)
	}
	return labels
}

// events sends what was counted of a GPU.
func (c *Collector) events(ch chan<- prometheus.Metric, d *monitor.Device, h podresources.Holder, counted monitor.Counted) {
	send := func(name, extra string, kind prometheus.ValueType, value float64, more ...string) {
		s := shape{shared: h.Replica != "", extra: extra}
		ch <- prometheus.MustNewConstMetric(c.descs[descKey{name, s}], kind, value, append(c.labels(d, h), more...)...)
	}
	send(LastXID, "err", prometheus.GaugeValue, float64(counted.LastXID), strconv.Itoa(counted.LastXID), health.Meaning(counted.LastXID))
	for _, code := range slices.Sorted(maps.Keys(counted.XIDs)) {
		send(XIDErrors, "xid", prometheus.CounterValue, float64(counted.XIDs[code]), strconv.Itoa(code))
	}
	for i, reason := range telemetry.Reasons {
		if counted.ClockEvents[i] > 0 {
			send(ClockEvents, "clock_event", prometheus.CounterValue, float64(counted.ClockEvents[i]), reason.Name)
		}
	}
}
