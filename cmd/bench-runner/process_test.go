// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/bench/progress"
	"github.com/spotbench/spotbench/pkg/bench/report"
)

// binaries is where TestMain built the two programs.
var binaries string

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "bench-runner-test-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	binaries = dir
	if err := os.Chmod(dir, 0o755); err != nil { // one test runs them as another user
		return 1, err
	}
	if out, err := exec.Command("go", "build", "-o", dir, ".", "../sim-llm").CombinedOutput(); err != nil {
		return 1, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// simulated starts sim-llm and returns its address.
func simulated(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	cmd := exec.Command(filepath.Join(binaries, "sim-llm"), "--model=m", "--listen="+addr, "--ttft=20ms", "--itl=5ms")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("sim-llm: %v", err)
		}
	})
	return "http://" + addr
}

type life struct {
	cmd    *exec.Cmd
	output bytes.Buffer
}

type places struct{ server, checkpoint, results string }

func newPlaces(t *testing.T) places {
	return places{simulated(t), t.TempDir(), t.TempDir()}
}

// start begins a process: two levels of 30 requests of 20 + 9×5 = 65 ms, about 3 s in all.
func (p places) start(t *testing.T, node, gpuModel string, flags ...string) *life {
	t.Helper()
	return p.begin(t, node, gpuModel, nil, flags...)
}

// begin is start with attributes of the process.
func (p places) begin(t *testing.T, node, gpuModel string, attr *syscall.SysProcAttr, flags ...string) *life {
	t.Helper()
	args := append([]string{
		"--base-url=" + p.server, "--model=m", "--benchmark=b", "--concurrency=1,4", "--requests=30", "--warmup=2", "--input-tokens=8",
		"--output-tokens=10", "--checkpoint-dir=" + p.checkpoint, "--results-dir=" + p.results, "--metrics-addr=",
	}, flags...)
	l := &life{cmd: exec.Command(filepath.Join(binaries, "bench-runner"), args...)}
	l.cmd.Env = append(os.Environ(), "NODE_NAME="+node, "NVIDIA_VISIBLE_DEVICES=GPU-"+node,
		`SPOTBENCH_PLACEMENT={"node":"`+node+`","gpuModel":"`+gpuModel+`","gpuCount":1,"capacityType":"spot"}`)
	l.cmd.SysProcAttr = attr
	l.cmd.Stdout, l.cmd.Stderr = &l.output, &l.output
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return l
}

// code waits for the process to end and returns its exit code, -1 when a signal killed it.
func (l *life) code(t *testing.T) int {
	t.Helper()
	var exit *exec.ExitError
	if err := l.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return l.cmd.ProcessState.ExitCode()
}

// saved is the number of requests in the checkpoint.
func (p places) saved(t *testing.T) int {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(p.checkpoint, progress.FileName))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	state, _, err := progress.Read(content)
	if err != nil {
		t.Fatal(err)
	}
	return state.Completed()
}

func (p places) waitFor(t *testing.T, requests int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); p.saved(t) < requests; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d requests are saved after 30 s, want %d", p.saved(t), requests)
		}
	}
}

func (p places) result(t *testing.T, concurrency int) report.Result {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(p.results, report.Name("b", concurrency)))
	if err != nil {
		t.Fatal(err)
	}
	var r report.Result
	if err := json.Unmarshal(content, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestABenchmarkThatIsTerminatedAndKilledGoesOnElsewhereAndFinishes(t *testing.T) {
	p := newPlaces(t)

	first := p.start(t, "a", "H100-80GB")
	p.waitFor(t, 5)
	if err := first.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	p.waitFor(t, 10)
	asked := time.Now()
	if err := first.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := first.code(t); code != exitInterrupted {
		t.Fatalf("exit code %d after SIGTERM, want %d\n%s", code, exitInterrupted, first.output.String())
	}
	if took := time.Since(asked); took > 2*time.Second {
		t.Errorf("took %v to end after SIGTERM, want 2 s at most", took)
	}
	if !strings.Contains(first.output.String(), "checkpoint flushed") {
		t.Errorf("SIGUSR1 flushed nothing:\n%s", first.output.String())
	}
	kept := p.saved(t)

	second := p.start(t, "a", "H100-80GB")
	p.waitFor(t, 35) // the first level is finished and the second has begun
	if err := second.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if code := second.code(t); code != -1 {
		t.Fatalf("exit code %d after SIGKILL, want a death by signal", code)
	}
	p.results = t.TempDir() // the next pod is on another node

	third := p.start(t, "b", "A100-80GB")
	if code := third.code(t); code != 0 {
		t.Fatalf("exit code %d, want 0\n%s", code, third.output.String())
	}
	one, four := p.result(t, 1), p.result(t, 4)
	if one.Completed != 30 || four.Completed != 30 || len(one.TTFTs) != 30 || len(four.TTFTs) != 30 {
		t.Errorf("completed %d and %d, want 30 each", one.Completed, four.Completed)
	}
	if s := one.Spotbench; len(s.Segments) != 2 || s.Segments[0].Completed != kept || !s.Resumed || s.MixedGPU {
		t.Errorf("level 1: %+v, want two segments on one model of GPU, the first of %d requests", s, kept)
	}
	s := four.Spotbench
	if len(s.Segments) != 2 || !s.Resumed || !s.MixedGPU || s.PerGPU["H100-80GB"].Completed+s.PerGPU["A100-80GB"].Completed != 30 {
		t.Fatalf("level 4: %+v, want two segments on two models of GPU", s)
	}
	if a, b := s.Segments[0], s.Segments[1]; a.Node != "a" || b.Node != "b" || b.GPUUUIDs[0] != "GPU-b" {
		t.Errorf("level 4 was measured on %+v and %+v", a, b)
	}
	// Gaps between the processes are not measuring: active time is the segments' own.
	var active time.Duration
	for _, seg := range s.Segments {
		active += seg.End.Sub(seg.Start)
	}
	if diff := active.Seconds() - four.Duration; diff > 1e-6 || diff < -1e-6 {
		t.Errorf("duration %v s, segments %v", four.Duration, active)
	}
}

func TestAnotherConfigurationIsRefusedWithExitCodeOne(t *testing.T) {
	p := newPlaces(t)
	first := p.start(t, "a", "H100-80GB")
	p.waitFor(t, 1)
	if err := first.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := first.code(t); code != exitInterrupted {
		t.Fatalf("exit code %d after SIGINT, want %d", code, exitInterrupted)
	}
	second := p.start(t, "a", "H100-80GB", "--output-tokens=11")
	if code := second.code(t); code != 1 || !strings.Contains(second.output.String(), "--output-tokens was 10 and is 11") {
		t.Errorf("exit code %d:\n%s", code, second.output.String())
	}
}

func TestProgressIsLoggedEveryTwoSeconds(t *testing.T) {
	p := newPlaces(t)
	l := p.start(t, "a", "H100-80GB")
	if code := l.code(t); code != 0 {
		t.Fatalf("exit code %d\n%s", code, l.output.String())
	}
	lines := 0
	for text := range strings.Lines(l.output.String()) {
		var line struct {
			Msg                              string
			Concurrency, Completed, Requests int
			OutputThroughput                 float64 `json:"output_throughput"`
		}
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Errorf("not JSON: %s", text)
		}
		if line.Msg != "progress" {
			continue
		}
		lines++
		if line.Requests != 60 || line.Completed < 1 || line.Completed > 60 || line.Concurrency == 0 {
			t.Errorf("progress line %s", text)
		}
	}
	if lines == 0 {
		t.Errorf("no progress in\n%s", l.output.String())
	}
}

func TestAFullDiskEndsTheRunWithAClearErrorAndLosesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	p := newPlaces(t)
	if err := syscall.Mount("tmpfs", p.checkpoint, "tmpfs", 0, "size=4k"); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(p.checkpoint, 0); err != nil {
			t.Error(err)
		}
	})
	full := p.start(t, "a", "H100-80GB")
	if code := full.code(t); code != 1 || !strings.Contains(full.output.String(), "no space left on device; give the checkpoint volume more room") {
		t.Fatalf("exit code %d:\n%s", code, full.output.String())
	}
	kept := p.saved(t)
	content, err := os.ReadFile(filepath.Join(p.checkpoint, progress.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if _, whole, _ := progress.Read(content); kept == 0 || whole != len(content) {
		t.Errorf("%d requests kept, %d of %d bytes whole", kept, whole, len(content))
	}
	if err := syscall.Mount("tmpfs", p.checkpoint, "tmpfs", syscall.MS_REMOUNT, "size=4m"); err != nil {
		t.Fatal(err)
	}
	again := p.start(t, "a", "H100-80GB")
	if code := again.code(t); code != 0 {
		t.Fatalf("exit code %d with room again:\n%s", code, again.output.String())
	}
	if r := p.result(t, 1); r.Completed != 30 || r.Spotbench.Segments[0].Completed != kept {
		t.Errorf("completed %d, the first segment %+v; want 30 and %d", r.Completed, r.Spotbench.Segments[0], kept)
	}
}

func TestACheckpointThatRootRestoredIsGoneOnWithByTheContainersUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("changing the user needs root")
	}
	p := newPlaces(t)
	first := p.start(t, "a", "H100-80GB")
	p.waitFor(t, 3)
	if err := first.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := first.code(t); code != exitInterrupted {
		t.Fatalf("exit code %d", code)
	}
	kept := p.saved(t)
	// The volumes as an emptyDir is, and a way to them.
	for _, dir := range []string{p.checkpoint, p.results, filepath.Dir(p.checkpoint)} {
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	second := p.begin(t, "a", "H100-80GB", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65532, Gid: 65532}})
	if code := second.code(t); code != 0 {
		t.Fatalf("exit code %d\n%s", code, second.output.String())
	}
	if s := p.result(t, 1).Spotbench.Segments; len(s) != 2 || s[0].Completed != kept {
		t.Errorf("segments %+v, want two, the first with %d requests", s, kept)
	}
}

func TestHealthReadinessAndMetricsAreServed(t *testing.T) {
	p := newPlaces(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	runner := p.start(t, "a", "H100-80GB", "--metrics-addr="+addr)
	p.waitFor(t, 2)
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ok", "/metrics": "spotbench_bench_requests 60"} {
		resp, err := http.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		_, err = body.ReadFrom(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(body.String(), want) {
			t.Errorf("GET %s: %s, %v, lacks %q", path, resp.Status, err, want)
		}
	}
	if err := runner.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := runner.code(t); code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
}
