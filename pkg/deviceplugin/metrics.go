// SPDX-License-Identifier: Apache-2.0

package deviceplugin

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	registry      *prometheus.Registry
	devices       *prometheus.GaugeVec
	registrations prometheus.Counter
	allocations   prometheus.Counter
}

func newMetrics() metrics {
	registry := prometheus.NewRegistry()
	factory := promauto.With(registry)
	return metrics{
		registry: registry,
		devices: factory.NewGaugeVec(prometheus.GaugeOpts{Name: "spotbench_deviceplugin_gpus", Help: "Simulated GPUs by health, Healthy or Unhealthy."},
			[]string{"health"}),
		registrations: factory.NewCounter(prometheus.CounterOpts{Name: "spotbench_deviceplugin_registrations_total", Help: "Registrations with a kubelet, one for each time it started."}),
		allocations:   factory.NewCounter(prometheus.CounterOpts{Name: "spotbench_deviceplugin_gpus_allocated_total", Help: "GPUs given to containers since the plugin started."}),
	}
}
