// SPDX-License-Identifier: Apache-2.0

package filling

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// What runs are drawn from. Models are named by Zipf's law, as people use them.
var (
	GPUs     = []string{"H100-80GB", "A100-80GB", "H200-141GB", "L40S", "B200-180GB", "A10G", "MI300X", "L4"}
	Formats  = []string{"vllm", "guidellm", "sglang", "aiperf", "inference-perf"}
	engines  = []string{"vllm", "sglang", "trtllm"}
	versions = []string{"0.9.2", "0.10.0", "0.10.2", "0.11.0", "0.11.1", "0.12.0"}
	drivers  = []string{"550.163.01", "570.133.20", "580.95.05"}
)

const (
	models           = 60
	namespaces       = 25
	importsOfRun     = 4
	span             = 2 * 365 * 24 * time.Hour
	requestsOfAPoint = 500
)

// Key is the key of a run.
func Key(n int) string {
	return fmt.Sprintf("team-%02d/sweep-%08x", n%namespaces, n*2654435761&0xffffffff)
}

// Model is the name of a model.
func Model(n int) string { return fmt.Sprintf("org-%d/model-%02d-%dB", n%7, n, 1<<(n%8)) }

// ResultID is the name of a result: that of the run, and its place in it.
func ResultID(run, n int) uuid.UUID { return uuid.NewSHA1(uuid.Nil, fmt.Appendf(nil, "%d/%d", run, n)) }

type table struct {
	name    string
	columns []string
	rows    [][]any
}

// tables are the rows of some runs.
type tables struct{ runs, imports, results, segments, telemetry, interruptions [][]any }

func (t *tables) all() []table {
	return []table{
		{"runs", []string{"key", "namespace", "pod_name", "pod_uid", "model", "benchmark", "status", "gpu_model", "gpu_count", "node", "zone", "region", "instance_type", "capacity_type",
			"usd_per_hour", "on_demand_usd_per_hour", "started_at", "finished_at", "listed_at", "engine", "engine_version", "driver_version", "price_source", "verdict", "verdict_rules", "results"}, t.runs},
		{"imports", []string{"id", "run_key", "file", "format", "sha256", "bytes", "imported_at"}, t.imports},
		{"results", []string{"id", "import_id", "position", "run_key", "model", "concurrency", "imported_at", "format", "gpu_model", "verdict", "body"}, t.results},
		{"segments", []string{"run_key", "pod_uid", "node", "gpu_model", "gpu_uuids", "capacity_type", "usd_per_hour", "on_demand_usd_per_hour", "started_at", "ended_at", "region", "zone", "instance_type"}, t.segments},
		{"telemetry", []string{"run_key", "pod_uid", "from_at", "to_at", "gpus"}, t.telemetry},
		{"interruptions", []string{"run_key", "notice_id", "kind", "node", "pod_uid", "notice_at", "work_lost_seconds", "outcome", "listed_at"}, t.interruptions},
	}
}

// zipf is a number below n, the small ones more often.
func zipf(r *rand.Rand, n int) int { return int(math.Pow(float64(n), r.Float64())) - 1 }

// add draws a run with everything about it. Its verdict is what the catalog's own
// rules find.
func (t *tables) add(shape Shape, n int) error {
	r := rand.New(rand.NewPCG(uint64(n), 1)) //nolint:gosec // made-up data are the same every time
	started := shape.End.Add(-time.Duration((float64(shape.Runs-n)-r.Float64())/float64(shape.Runs)*float64(span)) - 2*time.Hour).Truncate(time.Microsecond)
	ended := started.Add(time.Duration(20+r.IntN(80)) * time.Minute)
	gpu := r.IntN(len(GPUs))
	run := catalog.Run{Key: Key(n), Namespace: fmt.Sprintf("team-%02d", n%namespaces), PodName: "sweep-0", PodUID: "pod-1", Model: Model(zipf(r, models)), Benchmark: "sharegpt",
		Status: catalog.Succeeded, GPUModel: GPUs[gpu], GPUCount: 1 << r.IntN(4), Node: fmt.Sprintf("gpu-%03d", r.IntN(400)), Zone: "eu-1a", Region: "eu-1",
		InstanceType: fmt.Sprintf("gpu%d.xlarge", gpu), CapacityType: "spot", USDPerHour: 2 + float64(gpu), OnDemandUSDPerHour: 5 + 2*float64(gpu), StartedAt: started, FinishedAt: ended,
		Engine: engines[r.IntN(len(engines))], EngineVersion: versions[r.IntN(len(versions))], DriverVersion: drivers[r.IntN(len(drivers))], PriceSource: "made up"}
	if r.IntN(20) == 0 {
		run.Status = catalog.Failed
	}
	if r.IntN(4) == 0 {
		run.CapacityType = "on-demand"
	}
	uid := "GPU-" + uuid.NewSHA1(uuid.Nil, []byte(run.Node)).String()
	segment := catalog.Segment{PodUID: "pod-1", Node: run.Node, GPUModel: run.GPUModel, GPUUUIDs: []string{uid}, CapacityType: run.CapacityType, USDPerHour: run.USDPerHour,
		OnDemandUSDPerHour: run.OnDemandUSDPerHour, StartedAt: started, EndedAt: ended, Region: run.Region, Zone: run.Zone, InstanceType: run.InstanceType}
	telemetry := catalog.Telemetry{PodUID: "pod-1", From: started, To: ended, GPUs: []catalog.GPUTelemetry{{UUID: uid, Driver: run.DriverVersion,
		Samples: int64(ended.Sub(started).Seconds()), EnergyJoules: 300 * ended.Sub(started).Seconds(), PowerWatts: &catalog.Distribution{Mean: 300, P50: 310, P95: 390, Max: 400}}}}
	whole := catalog.Parts{Run: run, Segments: []catalog.Segment{segment}, Telemetry: []catalog.Telemetry{telemetry}}
	if r.IntN(10) == 0 {
		lost := 40 * r.Float64()
		i := catalog.Interruption{RunKey: run.Key, NoticeID: "notice-1", Kind: "spot", Node: run.Node, PodUID: "pod-1", NoticeAt: started.Add(10 * time.Minute), WorkLostSeconds: &lost, Outcome: "restored"}
		whole.Interruptions = append(whole.Interruptions, i)
		t.interruptions = append(t.interruptions, []any{run.Key, i.NoticeID, i.Kind, i.Node, i.PodUID, i.NoticeAt, lost, i.Outcome, i.NoticeAt})
	}
	format, perImport := Formats[zipf(r, len(Formats))], max(1, shape.ResultsPerRun/importsOfRun)
	importedAt := ended
	for p := range shape.ResultsPerRun {
		id, position := uuid.NewSHA1(uuid.Nil, fmt.Appendf(nil, "%d import %d", n, p/perImport)), p%perImport
		if position == 0 {
			importedAt = importedAt.Add(time.Duration(r.IntN(5000)) * time.Millisecond)
			t.imports = append(t.imports, []any{id, run.Key, fmt.Sprintf("points-%d.json", p/perImport), format, fmt.Sprintf("%064x", n<<8|p), 4096, importedAt})
		}
		result := point(r, run, 1<<(p%10), format)
		result.ID, result.ImportID, result.File = ResultID(n, p).String(), id.String(), fmt.Sprintf("points-%d.json", p/perImport)
		whole.Results = append(whole.Results, result)
		body, err := json.Marshal(result)
		if err != nil {
			return fmt.Errorf("result: %w", err)
		}
		t.results = append(t.results, []any{ResultID(n, p), id, position, run.Key, run.Model, *result.Concurrency, importedAt, format, run.GPUModel, "", json.RawMessage(body)})
	}
	verdict := catalog.Judge(whole)
	for _, row := range t.results[len(t.results)-shape.ResultsPerRun:] {
		row[9] = string(verdict.Verdict)
	}
	gpus, err := json.Marshal(telemetry.GPUs)
	if err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	t.telemetry = append(t.telemetry, []any{run.Key, telemetry.PodUID, started, ended, json.RawMessage(gpus)})
	t.segments = append(t.segments, []any{run.Key, segment.PodUID, segment.Node, segment.GPUModel, segment.GPUUUIDs, segment.CapacityType, segment.USDPerHour, segment.OnDemandUSDPerHour, started, ended, segment.Region, segment.Zone, segment.InstanceType})
	t.runs = append(t.runs, []any{run.Key, run.Namespace, run.PodName, run.PodUID, run.Model, run.Benchmark, string(run.Status), run.GPUModel, run.GPUCount, run.Node, run.Zone, run.Region, run.InstanceType, run.CapacityType,
		run.USDPerHour, run.OnDemandUSDPerHour, started, ended, started, run.Engine, run.EngineVersion, run.DriverVersion, run.PriceSource, string(verdict.Verdict), verdict.Rules, shape.ResultsPerRun})
	return nil
}

// point draws a measured point: throughput and latency grow with the load.
func point(r *rand.Rand, run catalog.Run, concurrency int64, format string) catalog.Result {
	noise := func(v float64) *float64 {
		v = math.Round(1000*v*(0.9+0.2*r.Float64())) / 1000
		return &v
	}
	load := float64(concurrency)
	latency := func(ms float64) *catalog.Latency {
		return &catalog.Latency{MeanMs: noise(ms * 1.1), MedianMs: noise(ms), StdMs: noise(ms / 3), P99Ms: noise(3 * ms)}
	}
	return catalog.Result{RunKey: run.Key, Format: format, Tool: format, Model: run.Model, Backend: run.Engine, Concurrency: &concurrency, Requests: requestsOfAPoint, Completed: requestsOfAPoint,
		DurationSeconds: *noise(100), InputTokens: 500_000, OutputTokens: 100_000, RequestThroughput: noise(5 * math.Sqrt(load)), OutputThroughput: noise(1000 * math.Sqrt(load)),
		TotalTokenThroughput: noise(6000 * math.Sqrt(load)), TTFT: latency(20 + load), TPOT: latency(8 + load/20), ITL: latency(8 + load/20), E2EL: latency(1500 + 40*load)}
}

// Point draws one measured point for a write.
func Point(seed uint64, run catalog.Run) catalog.Result {
	return point(rand.New(rand.NewPCG(seed, 2)), run, 8, "vllm") //nolint:gosec // made-up data
}
