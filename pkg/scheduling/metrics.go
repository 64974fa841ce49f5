// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"sync"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

var (
	refusals = metrics.NewCounterVec(&metrics.CounterOpts{
		Name:           "spotbench_scheduler_refusals_total",
		Help:           "Refusals by the plugin, of nodes for a pod and of pods, by reason.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"reason"})
	placements = metrics.NewCounterVec(&metrics.CounterOpts{
		Name:           "spotbench_scheduler_placements_total",
		Help:           "Placements written to pods, by GPU model and capacity type.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"gpu_model", "capacity_type"})

	registerMetrics = sync.OnceFunc(func() { legacyregistry.MustRegister(refusals, placements) })
)
