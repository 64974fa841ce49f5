// SPDX-License-Identifier: Apache-2.0

package nvml_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/pkg/nvmlsim"
	"github.com/spotbench/spotbench/pkg/telemetry"
	"github.com/spotbench/spotbench/pkg/telemetry/nvml"
)

// library is built once per process: the dynamic linker knows it by its name.
var library string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "nvml")
	if err == nil {
		library, err = nvmlsim.Build(context.Background(), "../../..", dir)
	}
	if err != nil {
		fmt.Println("FAIL:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

var stamp = time.Now().Add(-time.Hour)

func describe(t *testing.T, config string) {
	t.Helper()
	path := filepath.Join(filepath.Dir(library), nvmlsim.Config)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	stamp = stamp.Add(time.Second)
	if err := os.Chtimes(path, stamp, stamp); err != nil {
		t.Fatal(err)
	}
}

func TestRead(t *testing.T) {
	const fixed = "memory_mib=1000 memory_used_mib=10 power_w=500.5 temp_c=60 sm_clock=1980 mem_clock=2619 util=99"
	base := telemetry.Reading{Model: "NVIDIA H100 80GB HBM3", PowerWatts: 500.5, TemperatureC: 60, SMClockMHz: 1980, MemClockMHz: 2619,
		UtilizationPercent: 99, MemoryUsedBytes: 10 << 20, MemoryTotalBytes: 1000 << 20}
	with := func(index int, throttle telemetry.Throttle) telemetry.Reading {
		r := base
		r.Index, r.UUID, r.Throttle = index, fmt.Sprintf("GPU-%d", index), throttle
		return r
	}
	line := func(index int, extra string) string {
		return fmt.Sprintf("gpu index=%d uuid=GPU-%d name=\"NVIDIA H100 80GB HBM3\" %s %s\n", index, index, fixed, extra)
	}
	tests := map[string]struct {
		config  string
		want    []telemetry.Reading
		wantErr string
	}{
		"a GPU at full clocks is not throttled":  {config: line(0, "throttle=none"), want: []telemetry.Reading{with(0, telemetry.Throttle{})}},
		"heat seen by hardware is thermal":       {config: line(0, "throttle=hw_thermal"), want: []telemetry.Reading{with(0, telemetry.Throttle{Thermal: true})}},
		"heat seen by software is thermal":       {config: line(0, "throttle=sw_thermal"), want: []telemetry.Reading{with(0, telemetry.Throttle{Thermal: true})}},
		"the power cap is power":                 {config: line(0, "throttle=sw_power"), want: []telemetry.Reading{with(0, telemetry.Throttle{Power: true})}},
		"the power brake is power":               {config: line(0, "throttle=power_brake"), want: []telemetry.Reading{with(0, telemetry.Throttle{Power: true})}},
		"a slowdown without a cause is neither":  {config: line(0, "throttle=hw_slowdown"), want: []telemetry.Reading{with(0, telemetry.Throttle{Other: true})}},
		"a lost GPU does not hide the others":    {config: line(0, "lost=1") + line(1, ""), want: []telemetry.Reading{with(1, telemetry.Throttle{})}, wantErr: "GPU 0"},
		"a node without GPUs has no readings":    {config: "driver version=1\n", want: []telemetry.Reading{}},
		"eight GPUs are read in index order too": {config: line(1, "") + line(0, ""), want: []telemetry.Reading{with(0, telemetry.Throttle{}), with(1, telemetry.Throttle{})}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			describe(t, tt.config)
			reader, err := nvml.Open(library)
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close()
			got, err := reader.Read()
			if (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
			for i := range got {
				got[i].EnergyJoules = 0 // depends on the time between readings; see the library's own test
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("readings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOpenSaysWhichLibraryIsMissing(t *testing.T) {
	_, err := nvml.Open("/nonexistent/libnvidia-ml.so.1")
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/libnvidia-ml.so.1") || !strings.Contains(err.Error(), "driver") {
		t.Errorf("error %v", err)
	}
}
