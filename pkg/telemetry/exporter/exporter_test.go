// SPDX-License-Identifier: Apache-2.0

package exporter_test

import (
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/spotbench/spotbench/pkg/telemetry"
	"github.com/spotbench/spotbench/pkg/telemetry/exporter"
	"github.com/spotbench/spotbench/pkg/telemetry/monitor"
	"github.com/spotbench/spotbench/pkg/telemetry/podresources"
)

var update = flag.Bool("update", false, "write testdata/metrics.txt anew")

// source is a snapshot that the test makes.
type source struct{ now monitor.Snapshot }

func (s *source) Snapshot() monitor.Snapshot { return s.now }
func (*source) Interval() time.Duration      { return time.Second }

func gpu(index int, values map[telemetry.Metric]float64, holders ...podresources.Holder) monitor.Device {
	s := telemetry.Sample{Device: telemetry.Device{UUID: fmt.Sprintf("GPU-%d", index), Index: index, Minor: index,
		Model: "NVIDIA H100 80GB HBM3", PCIBusID: fmt.Sprintf("00000000:1%d:00.0", index), Driver: "570.133.20"}}
	for m, v := range values {
		s.Set(m, v)
	}
	return monitor.Device{Sample: s, Holders: holders}
}

func instance(of monitor.Device, id int, values map[telemetry.Metric]float64, holders ...podresources.Holder) monitor.Device {
	d := gpu(of.Index, values, holders...)
	d.UUID, d.MIG = fmt.Sprintf("MIG-%d", id), &telemetry.MIG{Parent: of.UUID, GPUInstance: id, Profile: "1g.10gb"}
	return d
}

func held(pod, replica string) podresources.Holder {
	return podresources.Holder{Namespace: "gpu-workloads", Pod: pod, Container: "main", Replica: replica}
}

// everything is a whole GPU's values, each another number.
func everything() map[telemetry.Metric]float64 {
	values := map[telemetry.Metric]float64{}
	for i, info := range telemetry.Metrics {
		values[info.Metric] = float64(i + 1)
	}
	return values
}

func TestTheTextIsDCGMExporters(t *testing.T) {
	divided := gpu(3, map[telemetry.Metric]float64{telemetry.PowerUsage: 300, telemetry.FBUsed: 40000})
	s := &source{}
	s.now.At = time.Now()
	s.now.Devices = []monitor.Device{
		gpu(0, everything(), held("qwen", "")),
		gpu(1, map[telemetry.Metric]float64{telemetry.PowerUsage: 71.5, telemetry.GPUUtil: 0}),
		gpu(2, map[telemetry.Metric]float64{telemetry.GPUUtil: 99}, held("llama", "0"), held("mistral", "1")),
		divided,
		instance(divided, 7, map[telemetry.Metric]float64{telemetry.FBUsed: 100, telemetry.ProfSMActive: 0.25}, held("phi", "")),
		gpu(4, nil, held("gone", "")), // lost
	}
	s.now.GPUs = map[string]monitor.Counted{
		"GPU-0": {XIDs: map[int]int{31: 2, 45: 1}, LastXID: 45, ClockEvents: [16]int{2: 7, 6: 1}},
		"GPU-4": {XIDs: map[int]int{79: 1}, LastXID: 79},
	}
	var lines []string
	for _, line := range strings.Split(scrape(t, s), "\n") {
		if !strings.Contains(line, exporter.LastReading) { // it has the time in it
			lines = append(lines, line)
		}
	}
	text := strings.Join(lines, "\n")
	golden := filepath.Join("testdata", "metrics.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("run with -update if that is right (-golden +got)\n%s", diff)
	}
}

// defaults are the metrics that dcgm-exporter 4.8 serves by default (its file
// etc/default-counters.csv), with their types, but for the vGPU licence.
var defaults = map[string]string{
	"DCGM_FI_DEV_SM_CLOCK": "gauge", "DCGM_FI_DEV_MEM_CLOCK": "gauge",
	"DCGM_FI_DEV_MEMORY_TEMP": "gauge", "DCGM_FI_DEV_GPU_TEMP": "gauge",
	"DCGM_FI_DEV_POWER_USAGE": "gauge", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": "counter",
	"DCGM_FI_DEV_PCIE_REPLAY_COUNTER": "counter",
	"DCGM_FI_DEV_GPU_UTIL":            "gauge", "DCGM_FI_DEV_MEM_COPY_UTIL": "gauge",
	"DCGM_FI_DEV_ENC_UTIL": "gauge", "DCGM_FI_DEV_DEC_UTIL": "gauge",
	"DCGM_FI_DEV_XID_ERRORS": "gauge",
	"DCGM_FI_DEV_FB_FREE":    "gauge", "DCGM_FI_DEV_FB_USED": "gauge", "DCGM_FI_DEV_FB_RESERVED": "gauge",
	"DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": "counter", "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS": "counter",
	"DCGM_FI_DEV_ROW_REMAP_FAILURE": "gauge",
	"DCGM_FI_PROF_GR_ENGINE_ACTIVE": "gauge", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": "gauge", "DCGM_FI_PROF_DRAM_ACTIVE": "gauge",
	"DCGM_FI_PROF_PCIE_TX_BYTES": "gauge", "DCGM_FI_PROF_PCIE_RX_BYTES": "gauge",
}

// scrape is what Prometheus is answered.
func scrape(t *testing.T, s *source) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(exporter.New(s, "h100-spot-0"))
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	if answer.Code != http.StatusOK {
		t.Fatalf("%d: %s", answer.Code, answer.Body)
	}
	return answer.Body.String()
}

func TestEveryDefaultMetricOfDCGMExporterIsThereWithItsLabels(t *testing.T) {
	s := &source{monitor.Snapshot{At: time.Now(), Devices: []monitor.Device{gpu(0, everything(), held("qwen", ""))}}}
	text := scrape(t, s)
	for name, kind := range defaults {
		if !strings.Contains(text, "# TYPE "+name+" "+kind+"\n") {
			t.Errorf("%s is missing or no %s", name, kind)
			continue
		}
		_, series, _ := strings.Cut(text, "\n"+name+"{")
		series, _, _ = strings.Cut(series, "\n")
		for _, label := range []string{`gpu="0"`, `UUID="GPU-0"`, `pci_bus_id="00000000:10:00.0"`, `device="nvidia0"`, `modelName="NVIDIA H100 80GB HBM3"`,
			`Hostname="h100-spot-0"`, `DCGM_FI_DRIVER_VERSION="570.133.20"`, `container="main"`, `namespace="gpu-workloads"`, `pod="qwen"`} {
			if !strings.Contains(series, label) {
				t.Errorf("%s lacks %s: %s", name, label, series)
			}
		}
	}
}

func TestAReadingThatIsOldIsNotServed(t *testing.T) {
	text := scrape(t, &source{monitor.Snapshot{At: time.Now().Add(-time.Minute), Devices: []monitor.Device{gpu(0, everything())}}})
	if !strings.Contains(text, exporter.LastReading) || strings.Contains(text, "DCGM_") {
		t.Errorf("of a reading a minute old, want its time and nothing else:\n%s", text)
	}
}

func TestNothingIsServedBeforeTheFirstReading(t *testing.T) {
	if text := scrape(t, &source{}); text != "" {
		t.Errorf("served:\n%s", text)
	}
}

func TestSeriesOfPodsThatAreGoneAreGone(t *testing.T) {
	s := &source{monitor.Snapshot{At: time.Now()}}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(exporter.New(s, "h100-spot-0"))
	first := 0
	for i := range 1000 {
		s.now.Devices = []monitor.Device{gpu(0, everything(), held(fmt.Sprintf("pod-%d", i), ""))}
		n, err := testutil.GatherAndCount(registry)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = n
		}
		if n != first {
			t.Fatalf("%d series at the pod number %d, %d at the first", n, i, first)
		}
	}
}
