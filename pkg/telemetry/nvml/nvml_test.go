// SPDX-License-Identifier: Apache-2.0

package nvml_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/gpusim"
	"github.com/spotbench/spotbench/pkg/telemetry"
	"github.com/spotbench/spotbench/pkg/telemetry/nvml"
)

// library is built once per process: the dynamic linker knows it by its name.
var library string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "nvml")
	if err == nil {
		library, err = gpusim.Build(context.Background(), gpusim.NVML, "../../..", dir)
	}
	if err != nil {
		fmt.Println("FAIL:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func play(t *testing.T, script string, into time.Duration) {
	t.Helper()
	if err := gpusim.Play(filepath.Dir(library), script, into); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T) *nvml.Reader {
	t.Helper()
	r, err := nvml.Open(library)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

const h100 = `gpu index=0 uuid=GPU-0 name="NVIDIA H100 80GB HBM3" compute=9.0 memory_mib=81559 memory_used_mib=1000 reserved_mib=500 ` +
	`power_w=500.5 temp_c=60 mem_temp_c=71 sm_clock=1980 mem_clock=2619 util=99 mem_util=40 enc_util=1 dec_util=2 ` +
	`ecc_sbe=4 ecc_dbe=0 pcie_replay=3 remap_correctable=1 remap_uncorrectable=2 nvlink_links=18`

func TestAWholeGPU(t *testing.T) {
	play(t, "driver version=570.133.20\n"+h100, 0)
	reading, err := open(t).Read()
	if err != nil || len(reading.Samples) != 1 || len(reading.Lost) != 0 {
		t.Fatalf("%+v, %v", reading, err)
	}
	s := reading.Samples[0]
	if want := (telemetry.Device{UUID: "GPU-0", Model: "NVIDIA H100 80GB HBM3", PCIBusID: "00000000:10:00.0", Driver: "570.133.20"}); s.Device != want {
		t.Errorf("device %+v, want %+v", s.Device, want)
	}
	want := map[telemetry.Metric]float64{telemetry.PowerUsage: 500.5, telemetry.GPUTemp: 60, telemetry.MemoryTemp: 71, telemetry.SMClock: 1980, telemetry.MemClock: 2619,
		telemetry.GPUUtil: 99, telemetry.MemCopyUtil: 40, telemetry.EncUtil: 1, telemetry.DecUtil: 2, telemetry.FBTotal: 81559, telemetry.FBUsed: 1000,
		telemetry.FBReserved: 500, telemetry.FBFree: 80059, telemetry.ECCSingleBit: 4, telemetry.ECCDoubleBit: 0, telemetry.PCIeReplays: 3,
		telemetry.RemappedCorrectable: 1, telemetry.RemappedUncorrectable: 2, telemetry.RowRemapPending: 0, telemetry.RowRemapFailure: 0,
		telemetry.ClockEvents: 0, telemetry.NVLinksUp: 18, telemetry.NVLinksDown: 0}
	for _, info := range telemetry.Metrics {
		got, there := s.Value(info.Metric)
		expected, wanted := want[info.Metric]
		if info.Metric == telemetry.TotalEnergy {
			if !there {
				t.Error("no energy")
			}
		} else if there != wanted || got != expected {
			t.Errorf("%s is %g (%t), want %g (%t)", info.Name, got, there, expected, wanted)
		}
	}
}

func TestScenarios(t *testing.T) {
	line := func(index int, extra string) string {
		return fmt.Sprintf("gpu index=%d uuid=GPU-%d name=\"NVIDIA L4\" memory_mib=23034 compute=8.9 %s\n", index, index, extra)
	}
	value := func(r telemetry.Reading, m telemetry.Metric) string {
		v, ok := r.Samples[0].Value(m)
		if !ok {
			return "absent"
		}
		return fmt.Sprint(v)
	}
	tests := map[string]struct {
		script string
		into   time.Duration
		check  func(t *testing.T, r telemetry.Reading)
		err    string
	}{
		"a GPU at full clocks is not throttled": {script: line(0, "throttle=none"), check: func(t *testing.T, r telemetry.Reading) {
			if r.Samples[0].Reasons != 0 {
				t.Errorf("reasons %b", r.Samples[0].Reasons)
			}
		}},
		"heat seen by hardware begins after 30 s": {script: line(0, "throttle=none") + "at 30 gpu=0 throttle=hw_slowdown+hw_thermal temp_c=91", into: 31 * time.Second,
			check: func(t *testing.T, r telemetry.Reading) {
				if reasons := r.Samples[0].Reasons; !reasons.Thermal() || reasons.Power() || reasons.Other() || value(r, telemetry.GPUTemp) != "91" {
					t.Errorf("reasons %b at %s °C, want heat at 91", reasons, value(r, telemetry.GPUTemp))
				}
			}},
		"and not before": {script: line(0, "throttle=none temp_c=60") + "at 30 gpu=0 throttle=hw_slowdown+hw_thermal temp_c=91", into: 20 * time.Second,
			check: func(t *testing.T, r telemetry.Reading) {
				if r.Samples[0].Reasons != 0 || value(r, telemetry.GPUTemp) != "60" {
					t.Errorf("reasons %b at %s °C, want none at 60", r.Samples[0].Reasons, value(r, telemetry.GPUTemp))
				}
			}},
		"an ECC storm counts up": {script: line(0, "ecc_sbe=10 ecc_sbe_rate=1000"), into: 2 * time.Second, check: func(t *testing.T, r telemetry.Reading) {
			// 10 and 1000 a second for a little over 2 s.
			if v, _ := r.Samples[0].Value(telemetry.ECCSingleBit); v < 2010 || v > 12010 {
				t.Errorf("%g corrected errors, want 2010 and what the test took", v)
			}
		}},
		"a lost GPU does not hide the others": {script: line(0, "lost=1") + line(1, ""), err: "GPU 0", check: func(t *testing.T, r telemetry.Reading) {
			if len(r.Samples) != 1 || r.Samples[0].UUID != "GPU-1" || len(r.Lost) != 1 || r.Lost[0].Index != 0 {
				t.Errorf("samples of %d GPUs, lost %+v", len(r.Samples), r.Lost)
			}
		}},
		"what is blank or not supported is absent": {script: line(0, "blank=power_w unsupported=energy,ecc_sbe"), check: func(t *testing.T, r telemetry.Reading) {
			for _, m := range []telemetry.Metric{telemetry.PowerUsage, telemetry.TotalEnergy, telemetry.ECCSingleBit} {
				if value(r, m) != "absent" {
					t.Errorf("%s is %s", telemetry.Metrics[m].Name, value(r, m))
				}
			}
			if value(r, telemetry.ECCDoubleBit) != "0" {
				t.Errorf("%s uncorrected errors, want 0", value(r, telemetry.ECCDoubleBit))
			}
		}},
		"MIG instances have their own memory": {
			script: line(0, "util=50") + "mig gpu=0 gi=7 uuid=MIG-a profile=1g.10gb memory_mib=9856 memory_used_mib=100\nmig gpu=0 gi=9 uuid=MIG-b profile=2g.20gb memory_mib=19968\n",
			check: func(t *testing.T, r telemetry.Reading) {
				if len(r.Samples) != 3 {
					t.Fatalf("%d samples, want the GPU's and two instances'", len(r.Samples))
				}
				mig := r.Samples[1]
				used, _ := mig.Value(telemetry.FBUsed)
				if _, power := mig.Value(telemetry.PowerUsage); mig.UUID != "MIG-a" || *mig.MIG != (telemetry.MIG{Parent: "GPU-0", GPUInstance: 7, Profile: "1g.10gb"}) || used != 100 || power {
					t.Errorf("instance %+v uses %g MiB, power known: %t", mig.Device, used, power)
				}
			}},
		"a node without GPUs has no samples": {script: "driver version=1\n", check: func(t *testing.T, r telemetry.Reading) {
			if len(r.Samples)+len(r.Lost) != 0 {
				t.Errorf("%+v", r)
			}
		}},
		"eight GPUs are read in the order of their index": {
			script: line(3, "") + line(1, "") + line(0, "") + line(2, "") + line(7, "") + line(6, "") + line(5, "") + line(4, ""),
			check: func(t *testing.T, r telemetry.Reading) {
				if len(r.Samples) != 8 || !slices.IsSortedFunc(r.Samples, func(x, y telemetry.Sample) int { return x.Index - y.Index }) {
					t.Errorf("%d samples", len(r.Samples))
				}
			}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			play(t, tt.script, tt.into)
			reading, err := open(t).Read()
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			tt.check(t, reading)
		})
	}
}

func TestAnXIDIsToldOnceAlsoWhenItsGPUIsGone(t *testing.T) {
	play(t, h100, 0)
	r := open(t)
	if _, err := r.Read(); err != nil {
		t.Fatal(err)
	}
	play(t, h100+"\nat 0 gpu=0 xid=31\nat 0.05 gpu=0 xid=79 lost=1\n", 0)
	var xids []int
	lost := 0
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		reading, _ := r.Read()
		for _, x := range reading.XIDs {
			if x.GPU != "GPU-0" {
				t.Errorf("an XID of GPU %q", x.GPU)
			}
			xids = append(xids, x.Code)
		}
		if len(reading.Lost) == 1 && reading.Lost[0].UUID == "GPU-0" {
			lost++
		}
	}
	if !slices.Equal(xids, []int{31, 79}) || lost == 0 {
		t.Errorf("XIDs %v, lost in %d readings; want 31 and 79 once each, and a loss", xids, lost)
	}
}

func TestASlowDriverIsWaitedFor(t *testing.T) {
	play(t, h100+" slow_ms=5", 0)
	r := open(t)
	start := time.Now()
	reading, err := r.Read()
	if err != nil || len(reading.Samples) != 1 || time.Since(start) < 50*time.Millisecond {
		t.Errorf("%d samples after %s, %v; want one after more than ten calls of 5 ms", len(reading.Samples), time.Since(start), err)
	}
}

func TestOpenSaysWhichLibraryIsMissing(t *testing.T) {
	_, err := nvml.Open("/nonexistent/libnvidia-ml.so.1")
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/libnvidia-ml.so.1") || !strings.Contains(err.Error(), "driver") {
		t.Errorf("error %v", err)
	}
}
