// SPDX-License-Identifier: Apache-2.0

package monitor_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/telemetry"
	"github.com/spotbench/spotbench/pkg/telemetry/health"
	"github.com/spotbench/spotbench/pkg/telemetry/monitor"
	"github.com/spotbench/spotbench/pkg/telemetry/podresources"
)

// node stands for the hardware and the kubelet: what they say can be changed.
type node struct {
	mu      sync.Mutex
	reading telemetry.Reading
	holders map[string][]podresources.Holder
	err     error
	silent  error // the kubelet's
}

func (n *node) Read() (telemetry.Reading, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.reading
	n.reading.XIDs = nil // each is told once
	return r, n.err
}

func (n *node) Holders(context.Context) (map[string][]podresources.Holder, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.holders, n.silent
}

func (n *node) set(change func(*node)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n)
}

func run(t *testing.T, n *node, log *slog.Logger) *monitor.Monitor {
	t.Helper()
	m := monitor.New(n, n, health.Limits{}, 5*time.Millisecond, log)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { m.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return m
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain for " + what)
		}
	}
}

func holder(pod string) []podresources.Holder {
	return []podresources.Holder{{Namespace: "gpu-workloads", Pod: pod, Container: "main"}}
}

func gpu(index int) telemetry.Sample {
	s := telemetry.Sample{Device: telemetry.Device{UUID: fmt.Sprintf("GPU-%d", index), Index: index, Minor: index}}
	s.Set(telemetry.PowerUsage, 100)
	return s
}

func mig(parent, instance int) telemetry.Sample {
	s := telemetry.Sample{Device: telemetry.Device{UUID: fmt.Sprintf("MIG-%d-%d", parent, instance), Index: parent, Minor: parent,
		MIG: &telemetry.MIG{Parent: fmt.Sprintf("GPU-%d", parent), GPUInstance: instance, Profile: "1g.10gb"}}}
	s.Set(telemetry.FBUsed, 10)
	return s
}

func pod(name string) monitor.Pod { return monitor.Pod{Namespace: "gpu-workloads", Name: name} }

// summarised waits for the pod's summary to have three samples of its first GPU.
func summarised(t *testing.T, m *monitor.Monitor, name string) telemetry.Summary {
	t.Helper()
	eventually(t, "a summary of "+name, func() bool { s, ok := m.Summary(pod(name)); return ok && s.GPUs[0].Samples >= 3 })
	s, _ := m.Summary(pod(name))
	return s
}

func TestASummaryHasTheGPUsOfItsPodOnly(t *testing.T) {
	n := &node{reading: telemetry.Reading{Samples: []telemetry.Sample{gpu(0), gpu(1)}}, holders: map[string][]podresources.Holder{"GPU-1": holder("qwen")}}
	m := run(t, n, slog.New(slog.DiscardHandler))
	if s := summarised(t, m, "qwen"); len(s.GPUs) != 1 || s.GPUs[0].UUID != "GPU-1" || s.GPUs[0].Neighbours != 0 {
		t.Errorf("GPUs %+v, want GPU-1 alone", s.GPUs)
	}
	if _, ok := m.Summary(pod("nobody")); ok {
		t.Error("a pod without GPUs has a summary")
	}
	n.set(func(n *node) { n.holders = nil })
	m.Forget(pod("qwen"))
	eventually(t, "the pod to be forgotten", func() bool { m.Forget(pod("qwen")); _, ok := m.Summary(pod("qwen")); return !ok })
}

func TestAKubeletThatIsRestartedDoesNotCostThePodsTheirGPUs(t *testing.T) {
	n := &node{reading: telemetry.Reading{Samples: []telemetry.Sample{gpu(0)}}, holders: map[string][]podresources.Holder{"GPU-0": holder("qwen")}}
	m := run(t, n, slog.New(slog.DiscardHandler))
	before := summarised(t, m, "qwen").GPUs[0].Samples
	n.set(func(n *node) { n.holders, n.silent = nil, errors.New("connection refused") })
	eventually(t, "more samples of the pod", func() bool { s, _ := m.Summary(pod("qwen")); return s.GPUs[0].Samples > before+5 })
}

func TestPodsThatShareAGPUAreNeighbours(t *testing.T) {
	shares := append(holder("qwen"), holder("llama")...)
	shares[0].Replica, shares[1].Replica = "0", "1"
	n := &node{reading: telemetry.Reading{Samples: []telemetry.Sample{gpu(0)}}, holders: map[string][]podresources.Holder{"GPU-0": shares}}
	m := run(t, n, slog.New(slog.DiscardHandler))
	for _, name := range []string{"qwen", "llama"} {
		if s := summarised(t, m, name); s.GPUs[0].Neighbours != 1 {
			t.Errorf("%s has %d neighbours, want 1", name, s.GPUs[0].Neighbours)
		}
	}
}

func TestAPodWithTwoSharesOfAGPUIsNotItsOwnNeighbour(t *testing.T) {
	shares := append(holder("qwen"), holder("qwen")...)
	shares[0].Replica, shares[1].Replica = "0", "1"
	n := &node{reading: telemetry.Reading{Samples: []telemetry.Sample{gpu(0)}}, holders: map[string][]podresources.Holder{"GPU-0": shares}}
	s := summarised(t, run(t, n, slog.New(slog.DiscardHandler)), "qwen")
	if len(s.GPUs) != 1 || s.GPUs[0].Neighbours != 0 {
		t.Errorf("GPUs %+v, want one without neighbours", s.GPUs)
	}
}

func TestAMIGInstanceHasItsOwnMemoryAndItsGPUsPower(t *testing.T) {
	board := gpu(0)
	board.Set(telemetry.FBUsed, 500)
	n := &node{reading: telemetry.Reading{Samples: []telemetry.Sample{board, mig(0, 7), mig(0, 8)}},
		holders: map[string][]podresources.Holder{"MIG-0-7": holder("qwen"), "nvidia0/gi8": holder("llama")}}
	m := run(t, n, slog.New(slog.DiscardHandler))
	for _, name := range []string{"qwen", "llama"} {
		g := summarised(t, m, name).GPUs[0]
		// Memory is counted in 16 MiB: 10 MiB is one of them.
		if g.MIG == nil || g.MemoryUsedBytes.Max != 16<<20 || g.PowerWatts == nil || g.PowerWatts.P50 != 100 || g.Neighbours != 1 {
			t.Errorf("%s: %+v", name, g)
		}
	}
}

func TestXIDsAreCountedAndGoToThePodOfTheirGPUAlsoWhenItIsLost(t *testing.T) {
	n := &node{reading: telemetry.Reading{Samples: []telemetry.Sample{gpu(0), gpu(1)}},
		holders: map[string][]podresources.Holder{"GPU-0": holder("qwen"), "GPU-1": holder("llama")}}
	m := run(t, n, slog.New(slog.DiscardHandler))
	summarised(t, m, "qwen")
	n.set(func(n *node) {
		n.reading = telemetry.Reading{Samples: []telemetry.Sample{gpu(1)}, Lost: []telemetry.Lost{{UUID: "GPU-0", Cause: "the driver has lost it"}},
			XIDs: []telemetry.XID{{GPU: "GPU-0", Code: 79}}}
	})
	eventually(t, "the XID in the summary", func() bool { s, _ := m.Summary(pod("qwen")); return s.GPUs[0].XIDs[79] == 1 })
	if s, _ := m.Summary(pod("llama")); len(s.GPUs[0].XIDs) != 0 {
		t.Errorf("the XID of another pod's GPU is in the summary: %v", s.GPUs[0].XIDs)
	}
	s := m.Snapshot()
	if c := s.GPUs["GPU-0"]; c.LastXID != 79 || c.XIDs[79] != 1 {
		t.Errorf("counted %+v", c)
	}
	lost := s.Devices[len(s.Devices)-1]
	if lost.UUID != "GPU-0" || !lost.Empty() || len(lost.Holders) != 1 {
		t.Errorf("the lost GPU: %+v", lost)
	}
	if h := m.Health(); len(h.Incidents) != 2 {
		t.Errorf("incidents %+v, want the XID and the loss", h.Incidents)
	}
}

func TestAReasonForLowClocksIsCountedWhenItBegins(t *testing.T) {
	with := func(r telemetry.ClocksEventReasons) telemetry.Reading {
		s := gpu(0)
		s.Set(telemetry.ClockEvents, float64(r))
		return telemetry.Reading{Samples: []telemetry.Sample{s}}
	}
	n := &node{reading: with(telemetry.ReasonSWPowerCap)}
	m := run(t, n, slog.New(slog.DiscardHandler))
	thermal := func() int { return m.Snapshot().GPUs["GPU-0"].ClockEvents[6] } // hw_thermal
	eventually(t, "a first reading", func() bool { return !m.Snapshot().At.IsZero() })
	for i := range 2 {
		n.set(func(n *node) { n.reading = with(telemetry.ReasonSWPowerCap | telemetry.ReasonHWThermal) })
		eventually(t, "the heat", func() bool { return thermal() == i+1 })
		time.Sleep(30 * time.Millisecond) // some more samples of the same heat
		n.set(func(n *node) { n.reading = with(telemetry.ReasonSWPowerCap) })
		eventually(t, "its end", func() bool { return m.Snapshot().Devices[0].Reasons == telemetry.ReasonSWPowerCap })
	}
	if c := m.Snapshot().GPUs["GPU-0"]; thermal() != 2 || c.ClockEvents[2] != 0 {
		t.Errorf("counted %v, want the heat twice and the power cap, which was there from the start, never", c.ClockEvents)
	}
}

// hung is a driver that never answers.
type hung struct{ node }

func (*hung) Read() (telemetry.Reading, error) { select {} }

func TestADriverThatHangsIsNotWaitedForInTheEnd(t *testing.T) {
	h := &hung{}
	m := monitor.New(h, h, health.Limits{}, 5*time.Millisecond, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	idle := make(chan bool, 1)
	go func() { idle <- m.Run(ctx) }()
	cancel()
	select {
	case done := <-idle:
		if done {
			t.Error("Run says that nothing is being read")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run has not returned")
	}
	if m.Health().Known {
		t.Error("the GPUs' health is known without a reading")
	}
}

func TestAReadingThatFailsWholeMakesTheLastOneOldAndDoesNotReplaceIt(t *testing.T) {
	n := &node{reading: telemetry.Reading{Samples: []telemetry.Sample{gpu(0)}}}
	m := run(t, n, slog.New(slog.DiscardHandler))
	eventually(t, "a reading", func() bool { return len(m.Snapshot().Devices) == 1 })
	n.set(func(n *node) {
		n.reading, n.err = telemetry.Reading{}, errors.New("the connection to the host engine is not valid")
	})
	time.Sleep(30 * time.Millisecond)
	before := m.Snapshot()
	time.Sleep(30 * time.Millisecond)
	if after := m.Snapshot(); !after.At.Equal(before.At) || len(after.Devices) != 1 {
		t.Errorf("the snapshot moved from %s to %s with %d devices", before.At, after.At, len(after.Devices))
	}
}

func TestAFailureIsSaidOncePerChange(t *testing.T) {
	var mu sync.Mutex
	var log strings.Builder
	n := &node{err: errors.New("GPU 3: GPU is lost")}
	run(t, n, slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(p)
	}), nil)))
	said := func(what string) int {
		mu.Lock()
		defer mu.Unlock()
		return strings.Count(log.String(), what)
	}
	eventually(t, "the failure in the log", func() bool { return said("GPU is lost") == 1 })
	time.Sleep(50 * time.Millisecond) // ten more samples that fail the same way
	n.set(func(n *node) { n.err = nil })
	eventually(t, "the recovery in the log", func() bool { return said("complete again") == 1 })
	if got := said("GPU is lost"); got != 1 {
		t.Errorf("said %d times", got)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
