// SPDX-License-Identifier: Apache-2.0

package gpusim_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/spotbench/spotbench/pkg/gpusim"
)

// library is built once: the dynamic linker knows a library by its name, so a
// second copy in the same process would be the first one.
var library string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "gpusim")
	if err == nil {
		library, err = gpusim.Build(context.Background(), gpusim.NVML, "../..", dir)
	}
	if err != nil {
		fmt.Println("FAIL:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// load plays the script and opens the library with the real go-nvml.
func load(t testing.TB, script string) nvml.Interface {
	t.Helper()
	if err := gpusim.Play(filepath.Dir(library), script, 0); err != nil {
		t.Fatal(err)
	}
	lib := nvml.New(nvml.WithLibraryPath(library))
	if ret := lib.Init(); ret != nvml.SUCCESS {
		t.Fatalf("Init: %v", lib.ErrorString(ret))
	}
	t.Cleanup(func() { _ = lib.Shutdown() })
	return lib
}

func TestTheRealBindingsSeeTheScript(t *testing.T) {
	lib := load(t, `# two GPUs
driver version=555.42
gpu index=0 uuid=GPU-aa name="NVIDIA H100 80GB HBM3" memory_mib=81559 compute=9.0 power_w=650.5
gpu index=1 uuid=GPU-bb name="NVIDIA L4" memory_mib=23034 compute=8.9 throttle=hw_thermal ecc_dbe=3
`)
	if got, _ := lib.SystemGetDriverVersion(); got != "555.42" {
		t.Errorf("driver version %q, want 555.42", got)
	}
	if n, _ := lib.DeviceGetCount(); n != 2 {
		t.Fatalf("%d GPUs, want 2", n)
	}
	first, ret := lib.DeviceGetHandleByUUID("GPU-aa")
	if ret != nvml.SUCCESS {
		t.Fatal(lib.ErrorString(ret))
	}
	name, _ := first.GetName()
	major, minor, _ := first.GetCudaComputeCapability()
	power, _ := first.GetPowerUsage() // milliwatts
	if name != "NVIDIA H100 80GB HBM3" || major != 9 || minor != 0 || power != 650500 {
		t.Errorf("GPU-aa is %q, compute %d.%d, %d mW", name, major, minor, power)
	}
	if _, ret := lib.DeviceGetHandleByUUID("GPU-cc"); ret != nvml.ERROR_NOT_FOUND {
		t.Errorf("a GPU that is not there: %v", lib.ErrorString(ret))
	}
	if err := gpusim.Play(filepath.Dir(library), "gpu index=0 uuid=GPU-aa name=X memory_mib=1 lost=1\n", 0); err != nil {
		t.Fatal(err)
	}
	if _, ret := first.GetPowerUsage(); ret != nvml.ERROR_GPU_IS_LOST {
		t.Errorf("after the script says lost=1: %v, want GPU is lost", lib.ErrorString(ret))
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

func TestBuildSaysWhatItCanBuild(t *testing.T) {
	if _, err := gpusim.Build(t.Context(), "libcuda.so.1", "../..", t.TempDir()); err == nil || !strings.Contains(err.Error(), gpusim.DCGM) {
		t.Errorf("error %v", err)
	}
}

// FuzzScript plays whatever is in the file: the library must neither crash nor show
// more than it has room for.
func FuzzScript(f *testing.F) {
	f.Add("gpu index=0 uuid=GPU-1 name=\"NVIDIA L4\" memory_mib=23034 throttle=sw_power+hw_thermal\nat 0 gpu=0 xid=79 lost=1\n")
	f.Add("mig gpu=0 gi=7 uuid=MIG-1 profile=1g.10gb\nmig gpu=31 gi=-1\ngpu index=31 blank=power_w,energy unsupported=,\n")
	f.Add("gpu index=99999999999 =\nat at at\nat -1e308 gpu=-1 gi=-1 ecc_sbe_rate=inf\ngpu \"\" \x00 ecc_sbe=nan")
	f.Fuzz(func(t *testing.T, script string) {
		lib := load(t, script)
		n, ret := lib.DeviceGetCount()
		if ret != nvml.SUCCESS || n < 0 || n > 32 {
			t.Fatalf("%d GPUs, %v", n, lib.ErrorString(ret))
		}
		for i := range n {
			device, ret := lib.DeviceGetHandleByIndex(i)
			if ret != nvml.SUCCESS {
				t.Fatalf("GPU %d of %d: %v", i, n, lib.ErrorString(ret))
			}
			_, _ = device.GetPowerUsage()
			_, _ = device.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_CORRECTED, nvml.VOLATILE_ECC)
			_, _ = device.GetMemoryInfo()
			for j := range 7 {
				if mig, ret := device.GetMigDeviceHandleByIndex(j); ret == nvml.SUCCESS {
					_, _ = mig.GetUUID()
				}
			}
		}
	})
}
