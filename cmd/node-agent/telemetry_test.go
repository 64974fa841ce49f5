// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/spotbench/spotbench/pkg/gpusim"
	"github.com/spotbench/spotbench/pkg/telemetry/dcgm"
	"github.com/spotbench/spotbench/pkg/telemetry/exporter"
	"github.com/spotbench/spotbench/pkg/telemetry/health"
	"github.com/spotbench/spotbench/pkg/telemetry/monitor"
	"github.com/spotbench/spotbench/pkg/telemetry/podresources"
)

// simulated is the directory of both simulated libraries. They are built once per process:
// the dynamic linker knows them by their names.
var simulated string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "gpusim")
	for _, library := range []string{gpusim.NVML, gpusim.DCGM} {
		if err == nil {
			_, err = gpusim.Build(context.Background(), library, "../..", dir)
		}
	}
	if err != nil {
		fmt.Println("FAIL:", err)
		os.Exit(1)
	}
	simulated = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// libraries has them show so many GPUs, and gives their directory.
func libraries(t *testing.T, gpus int) string {
	t.Helper()
	var script strings.Builder
	for i := range gpus {
		fmt.Fprintf(&script, "gpu index=%d uuid=GPU-%d name=\"NVIDIA H100 80GB HBM3\" memory_mib=81559 nvlink_links=18\n", i, i)
	}
	if err := gpusim.Play(simulated, script.String(), 0); err != nil {
		t.Fatal(err)
	}
	return simulated
}

func TestTheLibraryThatIsThereIsUsedAndSaidOnce(t *testing.T) {
	dir := libraries(t, 1)
	tests := map[string]struct {
		setting, dcgm, nvml string
		samples             int
		said                string
	}{
		"DCGM where it is":                  {telemetryAuto, gpusim.DCGM, gpusim.NVML, 1, "reading GPUs through DCGM"},
		"NVML where DCGM is missing":        {telemetryAuto, "none.so", gpusim.NVML, 1, "reading GPUs through NVML"},
		"NVML when it is asked for":         {telemetryNVML, gpusim.DCGM, gpusim.NVML, 1, "reading GPUs through NVML"},
		"neither, on a node without GPUs":   {telemetryAuto, "none.so", "none.so", 0, "no GPU telemetry on this node"},
		"nothing else when DCGM is a must":  {telemetryDCGM, "none.so", gpusim.NVML, 0, "no GPU telemetry on this node"},
		"nothing when it is turned off":     {telemetryOff, gpusim.DCGM, gpusim.NVML, 0, ""},
		"DCGM without NVML, for MIG's sake": {telemetryDCGM, gpusim.DCGM, "none.so", 1, "reading GPUs through DCGM"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var log strings.Builder
			c := config{telemetry: tt.setting, dcgm: dcgm.Embedded, dcgmLibrary: filepath.Join(dir, tt.dcgm), nvmlLibrary: filepath.Join(dir, tt.nvml), sample: time.Second}
			reader := &nodeGPUs{c: c, log: slog.New(slog.NewTextHandler(&log, nil))}
			defer reader.Close()
			if _, err := reader.Read(); err != nil {
				t.Fatal(err)
			}
			reading, err := reader.Read()
			if err != nil || len(reading.Samples) != tt.samples || strings.Count(log.String(), "level=") != map[bool]int{true: 1}[tt.said != ""] || !strings.Contains(log.String(), tt.said) {
				t.Errorf("%d samples, %v; want %d and to be told once: %s\n%s", len(reading.Samples), err, tt.samples, tt.said, log.String())
			}
		})
	}
}

// kubelet says that nobody holds anything.
type kubelet struct{}

func (kubelet) Holders(context.Context) (map[string][]podresources.Holder, error) { return nil, nil }

func TestADriverThatIsInstalledLaterIsFound(t *testing.T) {
	dir := libraries(t, 1)
	late := filepath.Join(t.TempDir(), gpusim.NVML)
	reader := &nodeGPUs{c: config{telemetry: telemetryNVML, nvmlLibrary: late}, log: slog.New(slog.DiscardHandler)}
	defer reader.Close()
	if reading, err := reader.Read(); err != nil || len(reading.Samples) != 0 {
		t.Fatalf("%+v, %v", reading, err)
	}
	if err := os.Symlink(filepath.Join(dir, gpusim.NVML), late); err != nil {
		t.Fatal(err)
	}
	reader.next = time.Now() // a minute later
	if reading, err := reader.Read(); err != nil || len(reading.Samples) != 1 {
		t.Errorf("%d samples, %v", len(reading.Samples), err)
	}
}

func TestTheGPUsMetricsAreServedWhereScrapersOfDCGMExporterLook(t *testing.T) {
	dir := libraries(t, 1)
	log := slog.New(slog.DiscardHandler)
	reader := &nodeGPUs{c: config{telemetry: telemetryDCGM, dcgm: dcgm.Embedded, dcgmLibrary: filepath.Join(dir, gpusim.DCGM), nvmlLibrary: filepath.Join(dir, gpusim.NVML), sample: time.Second}, log: log}
	defer reader.Close()
	gpus := monitor.New(reader, kubelet{}, health.Limits{}, 10*time.Millisecond, log)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { gpus.Run(ctx) })
	running.Go(func() { serveGPUs(ctx, address, exporter.New(gpus, "l4-spot-0"), log) })
	defer running.Wait()
	defer cancel()
	var text string
	for deadline := time.Now().Add(5 * time.Second); !strings.Contains(text, "DCGM_FI_DEV_POWER_USAGE{") && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/metrics", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			continue // not listening yet
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		text = string(body)
	}
	for _, want := range []string{"DCGM_FI_DEV_POWER_USAGE{", "DCGM_FI_PROF_SM_ACTIVE{", `UUID="GPU-0"`, `Hostname="l4-spot-0"`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// churn says that each GPU is held by a pod of a new name at every look.
type churn struct{ looks atomic.Int64 }

func (c *churn) Holders(context.Context) (map[string][]podresources.Holder, error) {
	look := c.looks.Add(1)
	holders := map[string][]podresources.Holder{}
	for i := range 8 {
		holders[fmt.Sprintf("GPU-%d", i)] = []podresources.Holder{{Namespace: "ns", Pod: fmt.Sprintf("pod-%d-%d", i, look), Container: "main"}}
	}
	return holders, nil
}

func TestManySamplesOfManyPodsLeaveNothingBehind(t *testing.T) {
	dir := libraries(t, 8)
	log := slog.New(slog.DiscardHandler)
	reader := &nodeGPUs{c: config{telemetry: telemetryDCGM, dcgm: dcgm.Embedded, dcgmLibrary: filepath.Join(dir, gpusim.DCGM), nvmlLibrary: filepath.Join(dir, gpusim.NVML), sample: time.Second}, log: log}
	defer reader.Close()
	pods := &churn{}
	gpus := monitor.New(reader, pods, health.Limits{}, time.Millisecond, log)
	registry := prometheus.NewRegistry()
	registry.MustRegister(exporter.New(gpus, "h100-spot-0"))
	forgotten := int64(0)
	after := func(samples int64) (heap uint64, goroutines, series int) {
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { gpus.Run(ctx) })
		for deadline := time.Now().Add(2 * time.Minute); pods.looks.Load() < samples; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d samples in 2 min", pods.looks.Load())
			}
			for newest := pods.looks.Load() - 1; forgotten < newest; forgotten++ { // as the agent does when a pod has ended
				for i := range 8 {
					gpus.Forget(monitor.Pod{Namespace: "ns", Name: fmt.Sprintf("pod-%d-%d", i, forgotten)})
				}
			}
		}
		cancel()
		running.Wait() // so that no sample is under way when it is measured
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			series += len(f.GetMetric())
		}
		for range 2 { // pools are emptied by the second
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc, runtime.NumGoroutine(), series
	}
	heap, goroutines, series := after(100)
	heapThen, goroutinesThen, seriesThen := after(1000)
	if heapThen > heap+2<<20 || goroutinesThen > goroutines || seriesThen != series || series < 200 {
		t.Errorf("after 100 samples of 8 new pods each: %d KiB of heap, %d goroutines, %d series; after 1000: %d KiB, %d, %d",
			heap>>10, goroutines, series, heapThen>>10, goroutinesThen, seriesThen)
	}
}

func TestWrongTelemetrySettingsAreNamedWithARightOne(t *testing.T) {
	for flag, want := range map[string]string{
		"--telemetry=cuda":      "auto, dcgm, nvml, off",
		"--dcgm=5555":           "tcp://host:port",
		"--dcgm=unix://run/x":   "unix:///run",
		"--dcgm=tcp://somehost": "5555",
	} {
		var c config
		f := pflag.NewFlagSet("test", pflag.ContinueOnError)
		c.flags(f)
		if err := f.Parse([]string{"--node=n", "--store=file:///tmp/x", flag}); err != nil {
			t.Fatal(err)
		}
		name, value, _ := strings.Cut(flag, "=")
		if err := c.validate(); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), value) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", flag, err, want)
		}
	}
}
