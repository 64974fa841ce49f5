// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"sync/atomic"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/component-base/metrics"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement/claims"
)

var (
	freeGPUs = metrics.NewDesc("spotbench_scheduler_gpus_free",
		"GPUs, MIG slices and shares that no pod has, by model, those of no use now left out.", []string{"gpu_model"}, nil, metrics.ALPHA, "")
	unusableGPUs = metrics.NewDesc("spotbench_scheduler_gpus_unusable",
		"GPUs, MIG slices and shares that no pod has and none can get now, by model: their node is cordoned, about to be interrupted, or misconfigured.", []string{"gpu_model"}, nil, metrics.ALPHA, "")
	fragmentedGPUs = metrics.NewDesc("spotbench_scheduler_gpus_fragmented",
		"GPUs that are free but that a pod of those asked for of late, which may run on the model, could not use on average: too few together, or too little CPU or memory beside them.", []string{"gpu_model"}, nil, metrics.ALPHA, "")
	scarcity = metrics.NewDesc("spotbench_scheduler_gpu_scarcity",
		"Demand expected that only this GPU model can meet, over what is free of it: from 0 to 3. Half of it is charged to pods that could run elsewhere.", []string{"gpu_model"}, nil, metrics.ALPHA, "")
	runningCost = metrics.NewDesc("spotbench_scheduler_running_expected_cost_usd",
		"Sum of what the pods that are placed and not over are expected to cost, by GPU model.", []string{"gpu_model"}, nil, metrics.ALPHA, "")
)

// gpuCollector reckons the cluster's gauges when it is asked, from the informers:
// the scheduler's snapshot belongs to its scheduling cycle.
type gpuCollector struct {
	metrics.BaseStableCollector
	// source is that of the newest plugin: a process has one registry, however many
	// profiles.
	source atomic.Pointer[gpuSource]
}

type gpuSource struct {
	nodes listers.NodeLister
	pods  listers.PodLister
	fleet *fleet
	// devices are GPUs of dynamic resource allocation; nil without it.
	devices *devices
}

func (c *gpuCollector) follow(factory informers.SharedInformerFactory, fleet *fleet, devices *devices) {
	c.source.Store(&gpuSource{factory.Core().V1().Nodes().Lister(), factory.Core().V1().Pods().Lister(), fleet, devices})
}

// DescribeWithStability names the gauges.
func (*gpuCollector) DescribeWithStability(ch chan<- *metrics.Desc) {
	ch <- freeGPUs
	ch <- unusableGPUs
	ch <- fragmentedGPUs
	ch <- scarcity
	ch <- runningCost
}

// CollectWithStability reckons them.
func (c *gpuCollector) CollectWithStability(ch chan<- metrics.Metric) {
	s := c.source.Load()
	if s == nil {
		return
	}
	nodes, err := s.nodes.List(labels.Everything())
	if err != nil {
		return
	}
	pods, err := s.pods.List(labels.Everything())
	if err != nil {
		return
	}
	type key struct {
		node     string
		resource gpu.Resource
	}
	used, cost := map[key]int{}, map[string]float64{}
	for _, pod := range pods {
		if pod.Spec.NodeName == "" || pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed {
			continue
		}
		if r, n, err := gpusAsked(requestsOf(pod)); err == nil {
			used[key{pod.Spec.NodeName, r}] += n
		}
		if text := pod.Annotations[benchspec.AnnotationPlacement]; text != "" {
			if placement, err := benchspec.ParsePlacement(text); err == nil {
				cost[placement.GPUModel] += placement.ExpectedCostUSD
			}
		}
	}
	free, unusable := map[string]int{}, map[string]int{}
	// Both gauges of every model are there, so that none is mistaken for no answer.
	count := func(node *v1.Node, model string, left int, invalid string) {
		if node.Spec.Unschedulable || invalid != "" || notice(node) != "" {
			free[model] += 0
			unusable[model] += left
			return
		}
		free[model] += left
		unusable[model] += 0
	}
	holders := s.devices.holders()
	for _, node := range nodes {
		for _, d := range claims.WithoutParts(s.devices.heldBy(holders, node.Name)) {
			left := 0
			if d.Claim == "" {
				left = 1
			}
			gpus := d.GPU()
			count(node, gpus.Model, left, gpus.Invalid)
		}
		offered := offeredBy(node)
		whole, _ := gpu.FromNode(node.Labels, offered)
		for name, n := range offered {
			r, is, err := gpu.ParseResource(name)
			if !is || err != nil || n == 0 {
				continue
			}
			gpus := whole.As(r, node.Labels, offered)
			model := gpus.Model
			if r.Shared {
				model += "-SHARED" // as GPU Feature Discovery names what it shares
			}
			count(node, model, max(0, n-used[key{node.Name, r}]), gpus.Invalid)
		}
	}
	for model, n := range free {
		ch <- metrics.NewLazyConstMetric(freeGPUs, metrics.GaugeValue, float64(n), model)
		ch <- metrics.NewLazyConstMetric(unusableGPUs, metrics.GaugeValue, float64(unusable[model]), model)
	}
	pressure, fragmentation := s.fleet.markets()
	for model, price := range pressure {
		ch <- metrics.NewLazyConstMetric(scarcity, metrics.GaugeValue, price, model)
	}
	for model, gpus := range fragmentation {
		ch <- metrics.NewLazyConstMetric(fragmentedGPUs, metrics.GaugeValue, gpus, model)
	}
	for model, usd := range cost {
		ch <- metrics.NewLazyConstMetric(runningCost, metrics.GaugeValue, usd, model)
	}
}
