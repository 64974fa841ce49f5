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
		Help:           "Refusals by the plugin, of nodes for a pod and of pods, by reason and the node's GPU model (\"\" of pods).",
		StabilityLevel: metrics.ALPHA,
	}, []string{"reason", "gpu_model"})
	placements = metrics.NewCounterVec(&metrics.CounterOpts{
		Name:           "spotbench_scheduler_placements_total",
		Help:           "Placements written to pods, by GPU model and capacity type.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"gpu_model", "capacity_type"})

	risksRefreshed = metrics.NewGauge(&metrics.GaugeOpts{
		Name:           "spotbench_scheduler_risks_refreshed_timestamp_seconds",
		Help:           "When the catalog last told the risks it has learned, Unix time; 0 before it ever did.",
		StabilityLevel: metrics.ALPHA,
	})

	oldestPrice = metrics.NewGauge(&metrics.GaugeOpts{
		Name:           "spotbench_scheduler_oldest_price_timestamp_seconds",
		Help:           "When the oldest price of the price book was true, Unix time; 0 without a price book.",
		StabilityLevel: metrics.ALPHA,
	})
	oldPrices = metrics.NewGauge(&metrics.GaugeOpts{
		Name:           "spotbench_scheduler_old_prices",
		Help:           "Prices of the price book that are older than args.priceMaxAge now.",
		StabilityLevel: metrics.ALPHA,
	})

	gpuGauges gpuCollector

	registerMetrics = sync.OnceFunc(func() {
		legacyregistry.MustRegister(refusals, placements, risksRefreshed, oldestPrice, oldPrices)
		legacyregistry.CustomMustRegister(&gpuGauges)
	})
)
