// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// shelf holds runs in memory, in the order in which they are listed.
type shelf struct {
	runs     []catalog.Detail
	machines []catalog.Instance
	next     string
	err      error
}

func (s *shelf) ListRuns(_ context.Context, q catalog.RunQuery) (catalog.Page[catalog.Summary], error) {
	page := catalog.Page[catalog.Summary]{NextPageToken: s.next}
	for _, d := range s.runs {
		if (q.Model == "" || q.Model == d.Model) && (q.Status == "" || q.Status == d.Status) {
			page.Items = append(page.Items, d.Summary)
		}
	}
	return page, s.err
}

func (s *shelf) GetRun(_ context.Context, key string) (catalog.Detail, error) {
	n := slices.IndexFunc(s.runs, func(d catalog.Detail) bool { return d.Key == key })
	if n < 0 {
		return catalog.Detail{}, fmt.Errorf("run %s: %w", key, catalog.ErrNotFound)
	}
	return s.runs[n], s.err
}

// GetTelemetry is the run's own; its lists of runs have it as well, which real ones do not.
func (s *shelf) GetTelemetry(ctx context.Context, key string) ([]catalog.Telemetry, error) {
	d, err := s.GetRun(ctx, key)
	return d.Telemetry, err
}

func (s *shelf) ListModels(context.Context) ([]catalog.Model, error) {
	var models []catalog.Model
	for _, d := range s.runs {
		if n := slices.IndexFunc(models, func(m catalog.Model) bool { return m.Name == d.Model }); n >= 0 {
			models[n].Runs++
			models[n].Results += len(d.Results)
			if d.GPUModel != "" && !slices.Contains(models[n].GPUModels, d.GPUModel) {
				models[n].GPUModels = append(models[n].GPUModels, d.GPUModel)
			}
			continue
		}
		models = append(models, catalog.Model{Name: d.Model, Runs: 1, Results: len(d.Results), GPUModels: []string{d.GPUModel}, LastRunAt: d.StartedAt})
	}
	return models, s.err
}

func (s *shelf) Measured(_ context.Context, keys []string, q catalog.RunQuery) ([]catalog.Detail, bool, error) {
	var runs []catalog.Detail
	for _, d := range s.runs {
		if len(keys) > 0 && slices.Contains(keys, d.Key) || len(keys) == 0 && len(d.Results) > 0 && (q.Model == "" || q.Model == d.Model) {
			runs = append(runs, d)
		}
	}
	return runs, false, s.err
}

func (s *shelf) ListInstances(context.Context, catalog.InstanceQuery) (catalog.Page[catalog.Instance], error) {
	return catalog.Page[catalog.Instance]{Items: s.machines}, s.err
}

func (s *shelf) Lives(context.Context, time.Time) ([]catalog.Instance, error) {
	return s.machines, s.err
}

func (s *shelf) Savings(_ context.Context, q catalog.SavingsQuery) (catalog.SavingsReport, error) {
	if err := q.Validate(); err != nil {
		return catalog.SavingsReport{}, fmt.Errorf("%w: %w", catalog.ErrInvalid, err)
	}
	var items []catalog.Spending
	for _, d := range s.runs {
		for _, segment := range d.Segments {
			items = append(items, catalog.Spending{RunKey: d.Key, Model: d.Model, Namespace: d.Namespace, Segment: segment})
		}
	}
	return catalog.Save(items, q, at(60)), s.err
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func at(minutes float64) time.Time {
	return noon.Add(time.Duration(minutes * float64(time.Minute)))
}

func ptr[T any](v T) *T { return &v }

func latency(median, p99 float64) *catalog.Latency {
	return &catalog.Latency{MeanMs: ptr(median * 1.1), MedianMs: &median, P99Ms: &p99}
}

func gpu(uuid, model string, watts, thermal float64) catalog.GPUTelemetry {
	return catalog.GPUTelemetry{UUID: uuid, Model: model, Samples: 900, EnergyJoules: watts * 1800,
		PowerWatts:       &catalog.Distribution{Mean: watts, P50: watts, P95: watts * 1.15, Max: watts * 1.2},
		SMClockMHz:       &catalog.Distribution{Mean: 1960, P50: 1980, P95: 1980, Max: 1980},
		TemperatureC:     &catalog.Distribution{Mean: 61, P50: 62, P95: 70, Max: 72},
		Utilization:      &catalog.Distribution{Mean: 93, P50: 97, P95: 100, Max: 100},
		MemoryUsedBytes:  &catalog.Distribution{Mean: 7.1e10, P50: 7.1e10, P95: 7.2e10, Max: 7.2e10},
		ThrottledSeconds: &catalog.Throttling{Thermal: thermal, Power: 12}}
}

// followed gives a GPU a course that leads to its summary: it warms up, its load comes in
// waves, and if heat held it down its clock sinks in the middle.
func followed(g catalog.GPUTelemetry, from, to time.Time) catalog.GPUTelemetry {
	const steps = 200
	s := &catalog.Series{From: from, StepSeconds: to.Sub(from).Seconds() / steps}
	for n := range steps {
		warm := 1 - math.Exp(-float64(n)/15)
		wave := 1 + 0.04*math.Sin(float64(n)/3) + 0.02*math.Sin(float64(n)*1.7)
		clock, held := g.SMClockMHz.P50, 0.0
		if g.ThrottledSeconds.Thermal > 0 && n > 90 && n < 120 {
			clock, held = 0.8*clock, 1
		}
		power, busy := g.PowerWatts.Mean*warm*wave*clock/g.SMClockMHz.P50, min(100, 98*wave)
		heat, memory := 34+(g.TemperatureC.Max-34)*warm*(0.97+0.03*wave), g.MemoryUsedBytes.Mean*min(1, float64(n)/8)
		if n%50 == 49 { // the benchmark loads its next point
			power, busy = 0.3*power, 4
		}
		for list, v := range map[*[]*float64]float64{&s.PowerWatts: power, &s.SMClockMHz: clock, &s.TemperatureC: heat, &s.Utilization: busy, &s.MemoryUsedBytes: memory, &s.Throttled: held} {
			*list = append(*list, &v)
		}
	}
	g.Series = s
	return g
}

// runs are like those of a day on the reference platform.
func runs() []catalog.Detail {
	qwen := catalog.Parts{
		Run: catalog.Run{Key: "gpu-workloads/qwen-sharegpt-5f0c21aa", Namespace: "gpu-workloads", PodName: "qwen-sharegpt-7xkqp", PodUID: "pod-2",
			Model: "Qwen/Qwen2.5-72B-Instruct", Benchmark: "sharegpt", Image: "spotbench.dev/bench-runner:dev",
			ImageDigest: "spotbench.dev/bench-runner@sha256:8d1d5f2c2b0f7a64c1e5a90d4c2b8e7f6a5d4c3b2a190807060504030201ffee", Status: catalog.Succeeded,
			GPUModel: "A100-80GB", GPUCount: 4, Node: "a100-spot-0", Zone: "us-east-1a", Region: "us-east-1", InstanceType: "p4de.24xlarge",
			CapacityType: "spot", USDPerHour: 7.9, OnDemandUSDPerHour: 20.48,
			PlacementReason: "cheapest of 2 feasible nodes: $6.10 expected to finish (risk 0.06 over 30m, 1 checkpoint restored); refused: h100-spot-0 has an interruption notice, l4-spot-0 has L4-24GB, wanted H100-80GB or A100-80GB",
			StartedAt:       at(0), FinishedAt: at(58)},
		Segments: []catalog.Segment{
			{PodUID: "pod-1", Node: "h100-spot-0", GPUModel: "H100-80GB", GPUUUIDs: []string{"GPU-1", "GPU-2", "GPU-3", "GPU-4"}, CapacityType: "spot", USDPerHour: 14.2, OnDemandUSDPerHour: 49.1, StartedAt: at(0), EndedAt: at(21)},
			{PodUID: "pod-2", Node: "a100-spot-0", GPUModel: "A100-80GB", GPUUUIDs: []string{"GPU-9", "GPU-10", "GPU-11", "GPU-12"}, CapacityType: "spot", USDPerHour: 7.9, OnDemandUSDPerHour: 20.48, StartedAt: at(22.4), EndedAt: at(58), RestoredGeneration: 7}},
		Interruptions: []catalog.Interruption{{NoticeID: "i-1", RunKey: "gpu-workloads/qwen-sharegpt-5f0c21aa", Kind: "spot", Node: "h100-spot-0", PodUID: "pod-1", NoticeAt: at(20),
			TaintedAt: at(20.005), CheckpointedAt: at(20.05), EvictedAt: at(20.06), RestoredAt: at(21.9), RunningAgainAt: at(22.4), CheckpointGeneration: 7, CheckpointBytes: 48_300_000, WorkLostSeconds: ptr(1.9), Outcome: "saved"}},
		Telemetry: []catalog.Telemetry{
			{PodUID: "pod-1", From: at(0), To: at(21), GPUs: []catalog.GPUTelemetry{followed(gpu("GPU-6b1c7a52-0d3f-4e7e-9c63-6f1f6b7f3a10", "NVIDIA H100 80GB HBM3", 612, 0), at(0), at(21)), followed(gpu("GPU-1f2e3d4c-5b6a-4978-8695-a4b3c2d1e0f9", "NVIDIA H100 80GB HBM3", 575, 0), at(0), at(21))}},
			{PodUID: "pod-2", From: at(22), To: at(58), GPUs: []catalog.GPUTelemetry{followed(gpu("GPU-0a9b8c7d-6e5f-4a3b-9c2d-1e0f9a8b7c6d", "NVIDIA A100-SXM4-80GB", 356, 40), at(22.5), at(58))}}},
		Results: []catalog.Result{
			{ID: "r3", File: "sharegpt-c16.json", Concurrency: ptr(int64(16)), Requests: 400, Completed: 400, InputTokens: 88_000, OutputTokens: 76_000, OutputThroughput: ptr(612.3), RequestThroughput: ptr(2.41), TTFT: latency(212, 801), ITL: latency(24.9, 88.1), E2EL: latency(6210, 11800),
				Spotbench: &catalog.Provenance{Resumed: true, MixedGPU: true, Segments: []catalog.MeasuredOn{{GPUModel: "H100-80GB", Completed: 130}, {GPUModel: "A100-80GB", Completed: 270}}}},
			{ID: "r1", File: "sharegpt-c1.json", Concurrency: ptr(int64(1)), Requests: 100, Completed: 100, InputTokens: 88_000, OutputTokens: 76_000, OutputThroughput: ptr(58.2), RequestThroughput: ptr(0.22), TTFT: latency(61.4, 120), ITL: latency(16.8, 19.2), E2EL: latency(4410, 6020), Spotbench: &catalog.Provenance{}},
			{ID: "r2", File: "sharegpt-c4.json", Concurrency: ptr(int64(4)), Requests: 200, Completed: 200, InputTokens: 88_000, OutputTokens: 76_000, OutputThroughput: ptr(214.9), RequestThroughput: ptr(0.83), TTFT: latency(88.0, 310), ITL: latency(18.1, 31.5), E2EL: latency(4790, 8100), Spotbench: &catalog.Provenance{}}},
	}
	llama := catalog.Parts{
		Run: catalog.Run{Key: "gpu-workloads/llama-70b-throughput-0b7d9e11", Namespace: "gpu-workloads", Model: "meta-llama/Llama-3.1-70B-Instruct", Benchmark: "throughput", Status: catalog.Running,
			GPUModel: "A100-80GB", GPUCount: 1, Node: "a100-od-0", CapacityType: "on-demand", StartedAt: at(40)},
		Segments: []catalog.Segment{{PodUID: "pod-4", Node: "a100-od-0", GPUModel: "A100-80GB", CapacityType: "on-demand", USDPerHour: 5.12, OnDemandUSDPerHour: 5.12, StartedAt: at(40)}},
	}
	mistral := catalog.Parts{
		Run: catalog.Run{Key: "gpu-workloads/mistral-7b-latency-c41d55e0", Namespace: "gpu-workloads", Model: "mistralai/Mistral-7B-Instruct-v0.3", Benchmark: "latency", Status: catalog.Succeeded,
			GPUModel: "L4-24GB", GPUCount: 1, Node: "l4-spot-0", CapacityType: "spot", StartedAt: at(-30), FinishedAt: at(-9)},
		Segments:  []catalog.Segment{{PodUID: "pod-5", Node: "l4-spot-0", GPUModel: "L4-24GB", CapacityType: "spot", USDPerHour: 0.42, OnDemandUSDPerHour: 1.15, StartedAt: at(-30), EndedAt: at(-9)}},
		Telemetry: []catalog.Telemetry{{PodUID: "pod-5", From: at(-30), To: at(-9), GPUs: []catalog.GPUTelemetry{gpu("GPU-5", "NVIDIA L4", 68, 0)}}},
		Results:   []catalog.Result{{ID: "r7", File: "latency-c1.json", Concurrency: ptr(int64(1)), Requests: 200, Completed: 200, InputTokens: 88_000, OutputTokens: 76_000, OutputThroughput: ptr(31.0), RequestThroughput: ptr(0.2), TTFT: latency(70.2, 99.4), ITL: latency(31.8, 35.0), E2EL: latency(5010, 5400), Spotbench: &catalog.Provenance{}}},
	}
	hot := catalog.Parts{
		Run: catalog.Run{Key: "gpu-workloads/llama-8b-long-context-77aa01bc", Namespace: "gpu-workloads", Model: "meta-llama/Llama-3.1-8B-Instruct", Benchmark: "long-context", Status: catalog.Interrupted,
			GPUModel: "H100-80GB", GPUCount: 2, Node: "h100-spot-0", CapacityType: "spot", StartedAt: at(35)},
		Segments:      []catalog.Segment{{PodUID: "pod-6", Node: "h100-spot-0", GPUModel: "H100-80GB", CapacityType: "spot", USDPerHour: 7.1, OnDemandUSDPerHour: 24.55, StartedAt: at(35), EndedAt: at(52)}},
		Interruptions: []catalog.Interruption{{NoticeID: "i-2", Kind: "spot", Node: "h100-spot-0", NoticeAt: at(50), TaintedAt: at(50.01)}},
	}
	failed := catalog.Parts{
		Run: catalog.Run{Key: "gpu-workloads/gemma-27b-burst-10ce9f02", Namespace: "gpu-workloads", Model: "google/gemma-2-27b-it", Benchmark: "burst", Status: catalog.Failed,
			GPUModel: "A100-80GB", GPUCount: 2, Node: "a100-spot-0", CapacityType: "spot", StartedAt: at(-200), FinishedAt: at(-196)},
		Segments: []catalog.Segment{{PodUID: "pod-7", Node: "a100-spot-0", GPUModel: "A100-80GB", CapacityType: "spot", USDPerHour: 3.9, OnDemandUSDPerHour: 10.24, StartedAt: at(-200), EndedAt: at(-196)}},
	}
	imported := catalog.Parts{Run: catalog.Run{Key: "reference/dsr1-fp4-b200", Namespace: "reference", Model: "nvidia/DeepSeek-R1-0528-FP4-V2", Benchmark: "1k1k", Status: catalog.Succeeded},
		Results: []catalog.Result{{ID: "r8", Concurrency: ptr(int64(4)), Requests: 40, Completed: 38, Failed: 2, OutputThroughput: ptr(327.7), TTFT: latency(1003, 1784), ITL: latency(83.5, 1017), E2EL: latency(10922, 13238)}}}
	var out []catalog.Detail
	for _, p := range []catalog.Parts{llama, hot, qwen, mistral, failed, imported} {
		out = append(out, catalog.Describe(p, at(60)))
	}
	return out
}
