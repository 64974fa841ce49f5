// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"

	"github.com/spotbench/spotbench/pkg/agent/spool"
	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/telemetry"
	"github.com/spotbench/spotbench/pkg/telemetry/health"
)

// records turns what happened into requests to the catalog and queues them. A
// record that cannot even be queued (the node's disk is full) is logged with its
// content, which is the last place left to keep it.
type records struct {
	queue *spool.Spool
	a     *Agent
}

func (r records) put(path string, body any) {
	data, err := json.Marshal(body)
	if err == nil {
		err = r.queue.Add(spool.Entry{Method: http.MethodPut, Path: path, ContentType: "application/json", Body: data})
	}
	if err != nil {
		r.a.log.Error("a record for the catalog could not be kept", "path", path, "body", string(data), "error", err)
	}
}

func runPath(run string) string { return "/v1/runs/" + url.PathEscape(run) }

func (r records) run(key string, run catalog.Run) { r.put(runPath(key), run) }

func (r records) segment(key, podUID string, segment catalog.Segment) {
	r.put(runPath(key)+"/segments/"+url.PathEscape(podUID), segment)
}

func (r records) interruption(key, noticeID string, interruption catalog.Interruption) {
	r.put(runPath(key)+"/interruptions/"+url.PathEscape(noticeID), interruption)
}

// telemetry tells what a pod's GPUs did, with how it went over time if series is set: that
// is most of the record.
func (r records) telemetry(key, podUID string, summary telemetry.Summary, series bool) {
	body := catalog.Telemetry{From: summary.From.UTC(), To: summary.To.UTC()}
	for _, g := range summary.GPUs {
		one := gpuTelemetry(g)
		if series {
			one.Series = seriesOf(g.Series)
		}
		body.GPUs = append(body.GPUs, one)
	}
	r.put(runPath(key)+"/telemetry/"+url.PathEscape(podUID), body)
}

func gpuTelemetry(g telemetry.GPUSummary) catalog.GPUTelemetry {
	t := catalog.GPUTelemetry{
		UUID: g.UUID, Model: g.Model, Driver: g.Driver, Samples: int64(g.Samples),
		EnergyJoules: g.EnergyJoules, EnergySource: string(g.EnergySource), ClockSteadiness: g.ClockSteadiness,
		PowerWatts: distribution(g.PowerWatts), SMClockMHz: distribution(g.SMClockMHz), MemClockMHz: distribution(g.MemClockMHz),
		TemperatureC: distribution(g.TemperatureC), MemoryTemperatureC: distribution(g.MemoryTemperatureC),
		Utilization: distribution(g.Utilization), MemoryUsedBytes: distribution(g.MemoryUsedBytes),
		GREngineActive: distribution(g.GREngineActive), SMActive: distribution(g.SMActive),
		PipeTensorActive: distribution(g.PipeTensorActive), DRAMActive: distribution(g.DRAMActive),
		ThrottledSeconds: &catalog.Throttling{Thermal: g.ThrottledSeconds.Thermal, Power: g.ThrottledSeconds.Power, Other: g.ThrottledSeconds.Other},
		ThrottleReasons:  g.ReasonSeconds,
		SingleBitErrors:  g.SingleBitErrors, DoubleBitErrors: g.DoubleBitErrors, RemappedRows: g.RemappedRows, PCIeReplays: g.PCIeReplays,
		Neighbours: int64(g.Neighbours), NeighbourSeconds: g.NeighbourSeconds,
	}
	if g.MIG != nil {
		t.MIGProfile, t.GPUUUID = g.MIG.Profile, g.MIG.Parent
	}
	for _, code := range slices.Sorted(maps.Keys(g.XIDs)) {
		t.XIDs = append(t.XIDs, catalog.XIDCount{Code: int64(code), Count: int64(g.XIDs[code]), Cause: health.Cause(code)})
	}
	return t
}

// seriesOf rounds to what a plot shows, which is a third of the digits.
func seriesOf(s telemetry.Series) *catalog.Series {
	// rounded keeps multiples of one part of a unit.
	rounded := func(values []float64, parts float64) []*float64 {
		var out []*float64
		for _, v := range values {
			if math.IsNaN(v) {
				out = append(out, nil)
				continue
			}
			v = math.Round(v*parts) / parts
			out = append(out, &v)
		}
		return out
	}
	return &catalog.Series{From: s.From.UTC(), StepSeconds: s.Step.Seconds(),
		PowerWatts: rounded(s.PowerWatts, 10), SMClockMHz: rounded(s.SMClockMHz, 1), TemperatureC: rounded(s.TemperatureC, 10),
		Utilization: rounded(s.Utilization, 10), MemoryUsedBytes: rounded(s.MemoryUsedBytes, 1.0/(1<<20)), Throttled: rounded(s.Throttled, 100)}
}

func distribution(d *telemetry.Distribution) *catalog.Distribution {
	if d == nil {
		return nil
	}
	p5 := d.P5
	return &catalog.Distribution{Mean: d.Mean, P5: &p5, P50: d.P50, P95: d.P95, Max: d.Max}
}

// results queues a result file for import.
func (r records) results(key, file string, data []byte) error {
	query := url.Values{"run": {key}, "file": {file}}
	return r.queue.Add(spool.Entry{Method: http.MethodPost, Path: "/v1/imports?" + query.Encode(), ContentType: "application/json", Body: data})
}
