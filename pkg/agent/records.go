// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/spotbench/spotbench/pkg/agent/spool"
	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/telemetry"
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

func (r records) telemetry(key, podUID string, summary telemetry.Summary) {
	body := catalog.Telemetry{From: summary.From.UTC(), To: summary.To.UTC()}
	for _, g := range summary.GPUs {
		body.GPUs = append(body.GPUs, catalog.GPUTelemetry{
			UUID: g.UUID, Model: g.Model, Samples: int64(g.Samples), EnergyJoules: g.EnergyJoules,
			PowerWatts: distribution(g.PowerWatts), SMClockMHz: distribution(g.SMClockMHz), TemperatureC: distribution(g.TemperatureC),
			Utilization: distribution(g.Utilization), MemoryUsedBytes: distribution(g.MemoryUsedBytes),
			ThrottledSeconds: &catalog.Throttling{Thermal: g.ThrottledSeconds.Thermal, Power: g.ThrottledSeconds.Power, Other: g.ThrottledSeconds.Other},
			DoubleBitErrors:  g.DoubleBitErrors,
		})
	}
	r.put(runPath(key)+"/telemetry/"+url.PathEscape(podUID), body)
}

func distribution(d telemetry.Distribution) *catalog.Distribution {
	return &catalog.Distribution{Mean: d.Mean, P50: d.P50, P95: d.P95, Max: d.Max}
}

// results queues a result file for import.
func (r records) results(key, file string, data []byte) error {
	query := url.Values{"run": {key}, "file": {file}}
	return r.queue.Add(spool.Entry{Method: http.MethodPost, Path: "/v1/imports?" + query.Encode(), ContentType: "application/json", Body: data})
}
