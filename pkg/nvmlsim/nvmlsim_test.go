// SPDX-License-Identifier: Apache-2.0

package nvmlsim_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/spotbench/spotbench/pkg/nvmlsim"
)

// library is built once: the dynamic linker knows a library by its name, so a
// second copy in the same process would be the first one.
var library string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "nvmlsim")
	if err == nil {
		library, err = nvmlsim.Build(context.Background(), "../..", dir)
	}
	if err != nil {
		fmt.Println("FAIL:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// stamp makes every rewrite a change, also within the clock's resolution.
var stamp = time.Now().Add(-time.Hour)

// rewrite describes other GPUs.
func rewrite(t *testing.T, config string) {
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

// load describes the GPUs and opens the library with the real go-nvml.
func load(t *testing.T, config string) nvml.Interface {
	t.Helper()
	rewrite(t, config)
	lib := nvml.New(nvml.WithLibraryPath(library))
	if ret := lib.Init(); ret != nvml.SUCCESS {
		t.Fatalf("Init: %v", lib.ErrorString(ret))
	}
	t.Cleanup(func() { _ = lib.Shutdown() })
	return lib
}

func TestTheRealBindingsReadWhatTheFileDescribes(t *testing.T) {
	lib := load(t, `# two GPUs
driver version=555.42
gpu index=0 uuid=GPU-aa name="NVIDIA H100 80GB HBM3" memory_mib=81559 compute=9.0 power_w=650.5 temp_c=71 sm_clock=1755 util=99 memory_used_mib=1000
gpu index=1 uuid=GPU-bb name="NVIDIA L4" memory_mib=23034 compute=8.9 throttle=hw_thermal ecc_dbe=3
`)
	if got, _ := lib.SystemGetDriverVersion(); got != "555.42" {
		t.Errorf("driver version %q, want 555.42", got)
	}
	if n, _ := lib.DeviceGetCount(); n != 2 {
		t.Fatalf("%d GPUs, want 2", n)
	}
	first, ret := lib.DeviceGetHandleByIndex(0)
	if ret != nvml.SUCCESS {
		t.Fatal(lib.ErrorString(ret))
	}
	name, _ := first.GetName()
	uuid, _ := first.GetUUID()
	if name != "NVIDIA H100 80GB HBM3" || uuid != "GPU-aa" {
		t.Errorf("GPU 0 is %q %q", name, uuid)
	}
	power, _ := first.GetPowerUsage() // milliwatts
	temp, _ := first.GetTemperature(nvml.TEMPERATURE_GPU)
	clock, _ := first.GetClockInfo(nvml.CLOCK_SM)
	util, _ := first.GetUtilizationRates()
	memory, _ := first.GetMemoryInfo()
	if power != 650500 || temp != 71 || clock != 1755 || util.Gpu != 99 || memory.Total != 81559<<20 || memory.Used != 1000<<20 {
		t.Errorf("power %d mW, %d °C, %d MHz, %d %%, memory %+v", power, temp, clock, util.Gpu, memory)
	}
	second, ret := lib.DeviceGetHandleByUUID("GPU-bb")
	if ret != nvml.SUCCESS {
		t.Fatal(lib.ErrorString(ret))
	}
	reasons, _ := second.GetCurrentClocksEventReasons()
	ecc, _ := second.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC)
	if reasons != nvml.ClocksThrottleReasonHwThermalSlowdown || ecc != 3 {
		t.Errorf("throttle reasons %#x, want %#x; double bit errors %d, want 3", reasons, nvml.ClocksThrottleReasonHwThermalSlowdown, ecc)
	}
	if _, ret := lib.DeviceGetHandleByUUID("GPU-cc"); ret != nvml.ERROR_NOT_FOUND {
		t.Errorf("a GPU that is not there: %v", lib.ErrorString(ret))
	}

	rewrite(t, "gpu index=0 uuid=GPU-aa name=X memory_mib=1 lost=1\n")
	if _, ret := first.GetPowerUsage(); ret != nvml.ERROR_GPU_IS_LOST {
		t.Errorf("after the file says lost=1: %v, want GPU is lost", lib.ErrorString(ret))
	}
}

func TestTheEnergyCounterIsThePowerOverTime(t *testing.T) {
	lib := load(t, "gpu index=0 uuid=GPU-aa name=X memory_mib=1 power_w=1000\n")
	device, ret := lib.DeviceGetHandleByIndex(0)
	if ret != nvml.SUCCESS {
		t.Fatal(lib.ErrorString(ret))
	}
	before, _ := device.GetTotalEnergyConsumption()
	start := time.Now()
	time.Sleep(200 * time.Millisecond)
	after, _ := device.GetTotalEnergyConsumption()
	// 1000 W over t seconds are 1000·t J = 1e6·t mJ.
	want := 1e6 * time.Since(start).Seconds()
	if got := float64(after - before); got < 0.8*want || got > 1.2*want {
		t.Errorf("%.0f mJ, want about %.0f", got, want)
	}
}
