// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"fmt"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// sweepModel has runs of two engine versions and two GPUs, seven each, so that
// differences and intervals can be shown.
const sweepModel = "meta-llama/Llama-3.1-8B-Instruct"

// furnished is the shelf with repeated sweeps and machines beside the runs.
func furnished() *shelf {
	s := &shelf{runs: runs()}
	for n := range 7 {
		jitter := 1 + 0.004*float64(n%5)
		s.runs = append(s.runs,
			sweep(fmt.Sprintf("h100-0-10-%d", n), "H100-80GB", "0.10.2", 3.6, 9.8, 1.0*jitter),
			sweep(fmt.Sprintf("h100-0-11-%d", n), "H100-80GB", "0.11.0", 3.6, 9.8, 0.88*jitter),
			sweep(fmt.Sprintf("a100-0-11-%d", n), "A100-80GB", "0.11.0", 1.4, 3.7, 0.52*jitter))
	}
	for n, m := range []catalog.Instance{
		{Node: "h100-spot-0", InstanceType: "p5.48xlarge", StartedAt: at(-600), SeenAt: at(20), NoticeAt: at(20)},
		{Node: "a100-spot-0", InstanceType: "p4de.24xlarge", StartedAt: at(-300), SeenAt: at(58), RebalanceAt: at(50)},
		{Node: "l4-spot-0", InstanceType: "g6.xlarge", StartedAt: at(-900), SeenAt: at(59)},
	} {
		m.UID, m.Provider, m.Region, m.Zone, m.CapacityType = fmt.Sprintf("uid-%d", n), "aws", "us-east-1", "us-east-1a", "spot"
		s.machines = append(s.machines, m)
	}
	return s
}

// sweep is a run over six loads; speed scales what it measured.
func sweep(name, gpuModel, version string, price, onDemand, speed float64) catalog.Detail {
	p := catalog.Parts{
		Run: catalog.Run{Key: "gpu-workloads/llama-8b-" + name, Namespace: "gpu-workloads", Model: sweepModel, Benchmark: "sharegpt", Status: catalog.Succeeded,
			GPUModel: gpuModel, GPUCount: 1, CapacityType: "spot", Engine: "vllm", EngineVersion: version, DriverVersion: "570.133.20", StartedAt: at(-90), FinishedAt: at(-30), PriceSource: "price book, 2026-11-01"},
		Segments:  []catalog.Segment{{PodUID: name, Node: "spot-0", GPUModel: gpuModel, GPUUUIDs: []string{"GPU-1"}, CapacityType: "spot", USDPerHour: price, OnDemandUSDPerHour: onDemand, StartedAt: at(-90), EndedAt: at(-30)}},
		Telemetry: []catalog.Telemetry{{PodUID: name, From: at(-90), To: at(-30), GPUs: []catalog.GPUTelemetry{gpu("GPU-1", gpuModel, 480, 0)}}},
	}
	for load := int64(1); load <= 32; load *= 2 {
		throughput := speed * 3200 * float64(load) / (float64(load) + 12)
		first := (24 + 5.5*float64(load)) / speed
		p.Results = append(p.Results, catalog.Result{ID: fmt.Sprint(name, load), Concurrency: ptr(load), Requests: 400, Completed: 400, InputTokens: 400 * 220, OutputTokens: 400 * 190, DurationSeconds: 300,
			OutputThroughput: &throughput, TTFT: latency(first, 2.6*first), TPOT: latency(1000*float64(load)/throughput, 1300*float64(load)/throughput), Spotbench: &catalog.Provenance{}})
	}
	return catalog.Describe(p, at(60))
}
