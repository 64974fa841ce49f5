// SPDX-License-Identifier: Apache-2.0

package dcgm_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/gpusim"
	"github.com/spotbench/spotbench/pkg/telemetry"
	"github.com/spotbench/spotbench/pkg/telemetry/dcgm"
)

// library is built once per process: the dynamic linker knows it by its name.
var library string

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "nv-hostengine" {
		hostEngine(os.Args[1:])
		return
	}
	// The test of a library that is too old needs a process of its own.
	if old := os.Getenv("TEST_OLD_LIBRARY"); old != "" {
		_, err := dcgm.Open(dcgm.Options{Engine: dcgm.Embedded, Library: old, Interval: time.Second, Log: slog.New(slog.DiscardHandler)})
		fmt.Print(err)
		os.Exit(0)
	}
	dir, err := os.MkdirTemp("", "dcgm")
	if err == nil {
		library, err = gpusim.Build(context.Background(), gpusim.DCGM, "../../..", dir)
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

func open(t *testing.T, change func(*dcgm.Options)) *dcgm.Reader {
	t.Helper()
	opts := dcgm.Options{Engine: dcgm.Embedded, Library: library, Interval: time.Second, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&opts)
	}
	r, err := dcgm.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func line(index int, extra string) string {
	return fmt.Sprintf("gpu index=%d uuid=GPU-%d name=\"NVIDIA H100 80GB HBM3\" compute=9.0 memory_mib=81559 %s\n", index, index, extra)
}

const full = "memory_used_mib=1000 reserved_mib=500 power_w=500.5 temp_c=60 mem_temp_c=71 sm_clock=1980 mem_clock=2619 util=99 mem_util=40 enc_util=1 dec_util=2 " +
	"gr_active=0.99 sm_active=0.9 sm_occupancy=0.3 tensor_active=0.5 dram_active=0.6 pcie_tx=1e9 pcie_rx=2e9 nvlink_tx=3e9 nvlink_rx=4e9 " +
	"ecc_sbe=4 ecc_dbe=0 pcie_replay=3 remap_correctable=1 remap_uncorrectable=2 nvlink_links=18"

var fullValues = map[telemetry.Metric]float64{telemetry.PowerUsage: 500.5, telemetry.GPUTemp: 60, telemetry.MemoryTemp: 71, telemetry.SMClock: 1980, telemetry.MemClock: 2619,
	telemetry.GPUUtil: 99, telemetry.MemCopyUtil: 40, telemetry.EncUtil: 1, telemetry.DecUtil: 2, telemetry.FBTotal: 81559, telemetry.FBUsed: 1000,
	telemetry.FBReserved: 500, telemetry.FBFree: 80059, telemetry.ECCSingleBit: 4, telemetry.ECCDoubleBit: 0, telemetry.PCIeReplays: 3,
	telemetry.RemappedCorrectable: 1, telemetry.RemappedUncorrectable: 2, telemetry.RowRemapPending: 0, telemetry.RowRemapFailure: 0,
	telemetry.ClockEvents: 0, telemetry.NVLinksUp: 18, telemetry.NVLinksDown: 0, telemetry.NVLinkBandwidth: 3000,
	telemetry.ProfGREngineActive: 0.99, telemetry.ProfSMActive: 0.9, telemetry.ProfSMOccupancy: 0.3, telemetry.ProfPipeTensorActive: 0.5, telemetry.ProfDRAMActive: 0.6,
	telemetry.ProfPCIeTxBytes: 1e9, telemetry.ProfPCIeRxBytes: 2e9, telemetry.ProfNVLinkTxBytes: 3e9, telemetry.ProfNVLinkRxBytes: 4e9}

func checkFull(t *testing.T, s telemetry.Sample) {
	t.Helper()
	for _, info := range telemetry.Metrics {
		got, there := s.Value(info.Metric)
		expected, wanted := fullValues[info.Metric]
		if info.Metric == telemetry.TotalEnergy {
			if !there {
				t.Error("no energy")
			}
		} else if there != wanted || got != expected {
			t.Errorf("%s is %g (%t), want %g (%t)", info.Name, got, there, expected, wanted)
		}
	}
}

func TestAWholeGPU(t *testing.T) {
	play(t, "driver version=570.133.20\n"+line(0, full), 0)
	r := open(t, nil)
	reading, err := r.Read()
	if err != nil || len(reading.Samples) != 1 || !r.Profiling() || r.Driver() != "570.133.20" {
		t.Fatalf("%+v, %v", reading, err)
	}
	if want := (telemetry.Device{UUID: "GPU-0", Model: "NVIDIA H100 80GB HBM3", PCIBusID: "00000000:10:00.0", Driver: "570.133.20"}); reading.Samples[0].Device != want {
		t.Errorf("device %+v, want %+v", reading.Samples[0].Device, want)
	}
	checkFull(t, reading.Samples[0])
}

func TestScenarios(t *testing.T) {
	value := func(s telemetry.Sample, m telemetry.Metric) string {
		v, ok := s.Value(m)
		if !ok {
			return "absent"
		}
		return fmt.Sprint(v)
	}
	absent := func(t *testing.T, s telemetry.Sample, metrics ...telemetry.Metric) {
		t.Helper()
		for _, m := range metrics {
			if value(s, m) != "absent" {
				t.Errorf("%s is %s", telemetry.Metrics[m].Name, value(s, m))
			}
		}
	}
	tests := map[string]struct {
		script string
		into   time.Duration
		check  func(t *testing.T, r telemetry.Reading)
		err    string
	}{
		"throttling by heat and power after a minute": {script: line(0, "") + "at 60 gpu=0 throttle=sw_power+hw_thermal", into: 61 * time.Second,
			check: func(t *testing.T, r telemetry.Reading) {
				if reasons := r.Samples[0].Reasons; !reasons.Thermal() || !reasons.Power() {
					t.Errorf("reasons %b", reasons)
				}
			}},
		"an ECC storm": {script: line(0, "ecc_sbe_rate=1000 ecc_dbe=2"), into: 2 * time.Second, check: func(t *testing.T, r telemetry.Reading) {
			if v, _ := r.Samples[0].Value(telemetry.ECCSingleBit); v < 2000 || v > 12000 || value(r.Samples[0], telemetry.ECCDoubleBit) != "2" {
				t.Errorf("%g corrected and %s uncorrected errors", v, value(r.Samples[0], telemetry.ECCDoubleBit))
			}
		}},
		"a lost GPU among eight": {
			script: line(0, "") + line(1, "") + line(2, "") + line(3, "lost=1") + line(4, "") + line(5, "") + line(6, "") + line(7, ""), err: "GPU 3",
			check: func(t *testing.T, r telemetry.Reading) {
				if len(r.Samples) != 7 || len(r.Lost) != 1 || r.Lost[0].Index != 3 {
					t.Errorf("samples of %d GPUs, lost %+v", len(r.Samples), r.Lost)
				}
			}},
		"a lost GPU at which whole calls fail": {script: line(0, "") + line(1, "lost=2") + line(2, ""), err: "GPU 1", check: func(t *testing.T, r telemetry.Reading) {
			if len(r.Samples) != 2 || len(r.Lost) != 1 || r.Lost[0].Index != 1 {
				t.Errorf("samples of %d GPUs, lost %+v", len(r.Samples), r.Lost)
			}
		}},
		"every sentinel is an absent value": {
			script: line(0, "blank=power_w,energy,temp_c sentinel=blank") + line(1, "blank=power_w,energy,temp_c sentinel=not_found") +
				line(2, "blank=power_w,energy,temp_c sentinel=not_supported") + line(3, "blank=power_w,energy,temp_c sentinel=not_permissioned"),
			check: func(t *testing.T, r telemetry.Reading) {
				for _, s := range r.Samples {
					absent(t, s, telemetry.PowerUsage, telemetry.TotalEnergy, telemetry.GPUTemp)
				}
			}},
		"what is not supported is an absent value": {script: line(0, "unsupported=mem_temp_c,nvlink_tx,ecc_sbe"), check: func(t *testing.T, r telemetry.Reading) {
			absent(t, r.Samples[0], telemetry.MemoryTemp, telemetry.NVLinkBandwidth, telemetry.ECCSingleBit)
		}},
		"without profiling the rest is read": {script: line(0, "profiling=0 power_w=300"), check: func(t *testing.T, r telemetry.Reading) {
			absent(t, r.Samples[0], telemetry.ProfGREngineActive, telemetry.ProfPCIeTxBytes)
			if value(r.Samples[0], telemetry.PowerUsage) != "300" {
				t.Errorf("power %s", value(r.Samples[0], telemetry.PowerUsage))
			}
		}},
		"NVLinks that are down": {script: line(0, "nvlink_links=18 nvlink_down=2"), check: func(t *testing.T, r telemetry.Reading) {
			if value(r.Samples[0], telemetry.NVLinksUp) != "16" || value(r.Samples[0], telemetry.NVLinksDown) != "2" {
				t.Errorf("%s up, %s down", value(r.Samples[0], telemetry.NVLinksUp), value(r.Samples[0], telemetry.NVLinksDown))
			}
		}},
		"a node without GPUs": {script: "driver version=1\n", check: func(t *testing.T, r telemetry.Reading) {
			if len(r.Samples)+len(r.Lost) != 0 {
				t.Errorf("%+v", r)
			}
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			play(t, tt.script, tt.into)
			reading, err := open(t, nil).Read()
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			tt.check(t, reading)
		})
	}
}

func TestMIGInstancesHaveTheirOwnMemoryAndActivity(t *testing.T) {
	play(t, line(0, full)+"mig gpu=0 gi=7 uuid=MIG-a profile=1g.10gb memory_mib=9856 memory_used_mib=100 sm_active=0.4\nmig gpu=0 gi=9 uuid=MIG-b profile=1g.10gb memory_mib=9856\n", 0)
	instance := telemetry.Device{UUID: "MIG-a", MIG: &telemetry.MIG{Parent: "GPU-0", GPUInstance: 7, Profile: "1g.10gb"}}
	r := open(t, func(o *dcgm.Options) { o.Instances = func() []telemetry.Device { return []telemetry.Device{instance} } })
	reading, err := r.Read()
	if err != nil || len(reading.Samples) != 2 {
		t.Fatalf("%d samples, %v; want the GPU's and that of the instance whose UUID is known", len(reading.Samples), err)
	}
	s := reading.Samples[1]
	used, _ := s.Value(telemetry.FBUsed)
	active, _ := s.Value(telemetry.ProfSMActive)
	if s.UUID != "MIG-a" || s.Model != "NVIDIA H100 80GB HBM3" || used != 100 || active != 0.4 {
		t.Errorf("%+v uses %g MiB, SM active %g", s.Device, used, active)
	}
}

func TestEachXIDIsToldOnceAlsoBetweenTwoReadings(t *testing.T) {
	play(t, line(0, "")+line(1, ""), 0)
	r := open(t, nil)
	if _, err := r.Read(); err != nil {
		t.Fatal(err)
	}
	play(t, line(0, "")+line(1, "")+"at 0 gpu=1 xid=31\nat 0.01 gpu=1 xid=31\nat 0.02 gpu=1 xid=79 lost=1\n", 0)
	time.Sleep(50 * time.Millisecond)
	var got []telemetry.XID
	for range 3 {
		reading, _ := r.Read()
		got = append(got, reading.XIDs...)
	}
	if codes := xids(got); !slices.Equal(codes, []int{31, 31, 79}) || got[0].GPU != "GPU-1" {
		t.Errorf("XIDs %v of %+v, want 31 twice and 79 once", codes, got)
	}
}

func xids(of []telemetry.XID) []int {
	var codes []int
	for _, x := range of {
		codes = append(codes, x.Code)
	}
	return codes
}

func TestReadingMakesNoGroups(t *testing.T) {
	play(t, line(0, full), 0)
	r := open(t, nil)
	for range 200 { // DCGM has room for 64
		if _, err := r.Read(); err != nil {
			t.Fatal(err)
		}
	}
	if n := runtime.NumGoroutine(); n > 10 {
		t.Errorf("%d goroutines", n)
	}
}

// engine listens as an nv-hostengine does, and can be ended.
func engine(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestAHostEngineIsReachedByTCPAndUnixSocket(t *testing.T) {
	play(t, line(0, full), 0)
	tcp := engine(t, "tcp", "127.0.0.1:0").Addr().String()
	socket := filepath.Join(t.TempDir(), "hostengine.sock")
	engine(t, "unix", socket)
	for _, address := range []string{tcp, "tcp://" + tcp, "unix://" + socket} {
		r := open(t, func(o *dcgm.Options) { o.Engine = address })
		reading, err := r.Read()
		if err != nil || len(reading.Samples) != 1 {
			t.Errorf("%s: %d samples, %v", address, len(reading.Samples), err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// hostEngine is this program when it is called by the name of nv-hostengine: it listens
// where it is told to, and --term is answered for it.
func hostEngine(args []string) {
	if len(args) != 2 || args[0] != "--domain-socket" {
		return
	}
	_ = os.Remove(args[1]) // the bindings made a file of that name
	l, err := new(net.ListenConfig).Listen(context.Background(), "unix", args[1])
	if err != nil {
		os.Exit(1)
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if _, err := l.Accept(); err != nil {
			return
		}
	}
}

func TestAHostEngineOfOurOwnIsStartedAndEnded(t *testing.T) {
	play(t, line(0, full), 0)
	bin := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "nv-hostengine")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	r := open(t, func(o *dcgm.Options) { o.Engine = dcgm.Start })
	if reading, err := r.Read(); err != nil || len(reading.Samples) != 1 {
		t.Errorf("%d samples, %v", len(reading.Samples), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestAnEngineThatIsNotThereIsAnErrorThatNamesIt(t *testing.T) {
	_, err := dcgm.Open(dcgm.Options{Engine: "tcp://127.0.0.1:1", Library: library, Interval: time.Second, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "tcp://127.0.0.1:1") {
		t.Errorf("error %v", err)
	}
}

func TestAnEngineThatGoesAwayIsConnectedToAgain(t *testing.T) {
	play(t, line(0, full), 0)
	l := engine(t, "tcp", "127.0.0.1:0")
	address := l.Addr().String()
	r := open(t, func(o *dcgm.Options) { o.Engine = address })
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if _, err := r.Read(); err == nil {
		t.Error("no error from an engine that is gone")
	}
	recovered := false
	for deadline := time.Now().Add(10 * time.Second); !recovered && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		reading, err := r.Read()
		recovered = err == nil && len(reading.Samples) == 1
	}
	if !recovered {
		t.Error("not connected again")
	}
}

func TestOpenSaysWhichLibraryIsMissing(t *testing.T) {
	_, err := dcgm.Open(dcgm.Options{Engine: dcgm.Embedded, Library: "/nonexistent/libdcgm.so.4"})
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/libdcgm.so.4") || !strings.Contains(err.Error(), "NVML") {
		t.Errorf("error %v", err)
	}
}

func TestALibraryThatLacksAFunctionIsRefusedAndDoesNotEndTheProcess(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, gpusim.DCGM)
	source := filepath.Join(dir, "old.c")
	if err := os.WriteFile(source, []byte("int dcgmInit(void) { return 0; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "cc", "-shared", "-fPIC", "-Wl,-soname,"+gpusim.DCGM, "-o", old, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "TEST_OLD_LIBRARY="+old)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "lacks errorString") || !strings.Contains(string(out), "dcgmWatchFields") {
		t.Errorf("%v: %s", err, out)
	}
}
