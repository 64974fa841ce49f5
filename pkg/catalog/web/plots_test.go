// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
)

func TestARunsPagePlotsItsGPUsOverTheRunWithItsInterruptions(t *testing.T) {
	_, _, body := get(t, &shelf{runs: runs()}, "/runs/gpu-workloads%2Fqwen-sharegpt-5f0c21aa")
	for _, want := range []string{"Power <", "SM clock <", "Temperature <", "Busy <", "Memory used <", "Clocks held down <", "<title>GPU-0a9b8c7d-6e5f-4a3b-9c2d-1e0f9a8b7c6d</title>"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	// The notice is at minute 20 of 58, 34.48 %, and the run went on 2 min 24 s later, 4.14 %:
	// in each of the six plots, and in the timeline, which has a tick there as well.
	if marks, down := strings.Count(body, `x1="34.48%"`), strings.Count(body, `x="34.48%" width="4.14%"`); marks != 8 || down != 6 {
		t.Errorf("%d marks of the notice and %d of the time it was down, want 8 and 6", marks, down)
	}
	if !strings.Contains(body, "Power over 58 min 00 s, from ") || !strings.Contains(body, "running again after 2 min 24 s") {
		t.Error("a plot does not say in words what it shows")
	}
}

// TestAPlotIsInItsBoxAndBreaksWhereNothingWasSampled: two steps with power, a gap of ten
// minutes, and two more.
func TestAPlotIsInItsBoxAndBreaksWhereNothingWasSampled(t *testing.T) {
	watts := make([]*float64, 40)
	for n, v := range map[int]float64{0: 100, 1: 200, 38: 400, 39: 0} {
		watts[n] = &v
	}
	d := catalog.Describe(catalog.Parts{
		Run:       catalog.Run{Key: "ns/gap", Status: catalog.Succeeded, StartedAt: at(0), FinishedAt: at(20)},
		Segments:  []catalog.Segment{{PodUID: "u", Node: "n", StartedAt: at(0), EndedAt: at(20)}},
		Telemetry: []catalog.Telemetry{{PodUID: "u", From: at(0), To: at(20), GPUs: []catalog.GPUTelemetry{{UUID: "GPU-1", Series: &catalog.Series{From: at(0), StepSeconds: 30, PowerWatts: watts}}}}},
	}, at(20))
	_, _, body := get(t, &shelf{runs: []catalog.Detail{d}}, "/runs/ns%2Fgap")
	// 40 steps are the whole width of 1000: their middles are at 12.5, 37.5, …, 962.5 and
	// 987.5. The scale is from 0 to 400.
	if want := `d="M12.5 75L37.5 50M962.5 0L987.5 100"`; !strings.Contains(body, want) {
		t.Errorf("the page lacks %s", want)
	}
	if strings.Contains(body, "SM clock <") {
		t.Error("a quantity that was never given is plotted")
	}
}

func TestAPageWithManyGPUsAndPodsStaysShort(t *testing.T) {
	for _, size := range []struct{ pods, gpus int }{{1, 8}, {2, 8}, {20, 8}, {3, 72}, {300, 1}, {200, 16}} {
		t.Run(fmt.Sprintf("%d pods of %d GPUs", size.pods, size.gpus), func(t *testing.T) {
			parts := catalog.Parts{Run: catalog.Run{Key: "ns/many", Status: catalog.Succeeded, StartedAt: at(0)}}
			for n := range size.pods {
				from, to := at(float64(10*n)), at(float64(10*n+9))
				pod := strconv.Itoa(n)
				parts.Segments = append(parts.Segments, catalog.Segment{PodUID: pod, Node: "n", StartedAt: from, EndedAt: to})
				telemetry := catalog.Telemetry{PodUID: pod, From: from, To: to}
				for g := range size.gpus {
					telemetry.GPUs = append(telemetry.GPUs, followed(gpu(fmt.Sprintf("GPU-%d-%d", n, g), "NVIDIA H100 80GB HBM3", 500+float64(g), 40), from, to))
				}
				parts.Telemetry = append(parts.Telemetry, telemetry)
			}
			start := time.Now()
			status, _, body := get(t, &shelf{runs: []catalog.Detail{catalog.Describe(parts, at(1e4))}}, "/runs/ns%2Fmany")
			// Bands are named by how many GPUs they are of.
			if banded := strings.Contains(body, fmt.Sprintf("%d GPUs, mean", size.gpus)); status != http.StatusOK || banded != (size.gpus > 1 && size.pods*size.gpus > 16) {
				t.Errorf("status %d, bands %v", status, banded)
			}
			if len(body) > 150<<10 {
				t.Errorf("%d bytes, want at most 150 KiB", len(body))
			}
			t.Logf("%d KiB in %v", len(body)>>10, time.Since(start).Round(time.Millisecond))
		})
	}
}
