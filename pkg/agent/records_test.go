// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/telemetry"
)

func TestWhatTheCatalogIsToldOfAGPU(t *testing.T) {
	d := &telemetry.Distribution{Mean: 2, P5: 1, P50: 2, P95: 3, Max: 4}
	p5, steady := 1.0, 0.98
	filed := &catalog.Distribution{Mean: 2, P5: &p5, P50: 2, P95: 3, Max: 4}
	got := gpuTelemetry(telemetry.GPUSummary{
		Device:  telemetry.Device{UUID: "MIG-a", Model: "NVIDIA H100 80GB HBM3", Driver: "570.133.20", MIG: &telemetry.MIG{Parent: "GPU-0", Profile: "1g.10gb"}},
		Samples: 60, PowerWatts: d, SMActive: d, EnergyJoules: 4200, EnergySource: telemetry.EnergyMixed, ClockSteadiness: &steady,
		ThrottledSeconds: telemetry.ThrottledSeconds{Thermal: 1, Power: 2, Other: 3}, ReasonSeconds: map[string]float64{"hw_thermal": 1},
		SingleBitErrors: 5, DoubleBitErrors: 6, RemappedRows: 7, PCIeReplays: 8, XIDs: map[int]int{79: 1, 31: 2, 63: 1}, Neighbours: 3, NeighbourSeconds: 9,
	})
	want := catalog.GPUTelemetry{UUID: "MIG-a", Model: "NVIDIA H100 80GB HBM3", Driver: "570.133.20", MIGProfile: "1g.10gb", GPUUUID: "GPU-0",
		Samples: 60, PowerWatts: filed, SMActive: filed, EnergyJoules: 4200, EnergySource: "mixed", ClockSteadiness: &steady,
		ThrottledSeconds: &catalog.Throttling{Thermal: 1, Power: 2, Other: 3}, ThrottleReasons: map[string]float64{"hw_thermal": 1},
		SingleBitErrors: 5, DoubleBitErrors: 6, RemappedRows: 7, PCIeReplays: 8, Neighbours: 3, NeighbourSeconds: 9,
		XIDs: []catalog.XIDCount{{Code: 31, Count: 2, Cause: "application"}, {Code: 63, Count: 1, Cause: "other"}, {Code: 79, Count: 1, Cause: "hardware"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestHowAGPUWentOverTimeIsToldRoundedAndWithItsGaps(t *testing.T) {
	nan := math.NaN()
	got, err := json.Marshal(seriesOf(telemetry.Series{
		From: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), Step: 500 * time.Millisecond,
		PowerWatts: []float64{612.3456, nan, 0}, SMClockMHz: []float64{1979.6, nan, nan}, MemoryUsedBytes: []float64{3 << 20, nan, 1<<20 + 1}, Throttled: []float64{0.333, nan, 1},
	}))
	const want = `{"from":"2026-11-01T12:00:00Z","stepSeconds":0.5,"powerWatts":[612.3,null,0],"smClockMHz":[1980,null,null],"memoryUsedBytes":[3145728,null,1048576],"throttled":[0.33,null,1]}`
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s, want\n%s", err, got, want)
	}
}
