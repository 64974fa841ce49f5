// SPDX-License-Identifier: Apache-2.0

package monitor_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/spotbench/spotbench/pkg/telemetry"
	"github.com/spotbench/spotbench/pkg/telemetry/monitor"
	"github.com/spotbench/spotbench/pkg/telemetry/podresources"
)

// node stands for the hardware and the kubelet: what they say can be changed.
type node struct {
	mu       sync.Mutex
	readings []telemetry.Reading
	holders  map[string]podresources.Holder
	err      error
}

func (n *node) Read() ([]telemetry.Reading, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.readings, n.err
}

func (n *node) Holders(context.Context) (map[string]podresources.Holder, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.holders, nil
}

func (n *node) set(change func(*node)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n)
}

func run(t *testing.T, n *node, log *slog.Logger) *monitor.Monitor {
	t.Helper()
	m := monitor.New(n, n, "l4-spot-0", 5*time.Millisecond, log)
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

var qwen = podresources.Holder{Namespace: "gpu-workloads", Pod: "qwen", Container: "main"}

func TestASummaryHasTheGPUsOfItsPodOnly(t *testing.T) {
	n := &node{readings: []telemetry.Reading{{UUID: "GPU-0", Index: 0}, {UUID: "GPU-1", Index: 1}}, holders: map[string]podresources.Holder{"GPU-1": qwen}}
	m := run(t, n, slog.New(slog.DiscardHandler))
	pod := monitor.Pod{Namespace: "gpu-workloads", Name: "qwen"}
	eventually(t, "a summary", func() bool { s, ok := m.Summary(pod); return ok && s.GPUs[0].Samples >= 3 })
	s, _ := m.Summary(pod)
	if len(s.GPUs) != 1 || s.GPUs[0].UUID != "GPU-1" {
		t.Errorf("GPUs %+v, want GPU-1 alone", s.GPUs)
	}
	if _, ok := m.Summary(monitor.Pod{Namespace: "gpu-workloads", Name: "nobody"}); ok {
		t.Error("a pod without GPUs has a summary")
	}
	n.set(func(n *node) { n.holders = nil })
	m.Forget(pod)
	eventually(t, "the pod to be forgotten", func() bool { m.Forget(pod); _, ok := m.Summary(pod); return !ok })
}

func TestMetricsCarryDCGMNamesAndThePod(t *testing.T) {
	n := &node{readings: []telemetry.Reading{{UUID: "GPU-0", Model: "NVIDIA L4", PowerWatts: 71.5}}, holders: map[string]podresources.Holder{"GPU-0": qwen}}
	m := run(t, n, slog.New(slog.DiscardHandler))
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	expect := func(pod, container, namespace string) string {
		return `# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).
# TYPE DCGM_FI_DEV_POWER_USAGE gauge
DCGM_FI_DEV_POWER_USAGE{Hostname="l4-spot-0",UUID="GPU-0",container="` + container + `",device="nvidia0",gpu="0",modelName="NVIDIA L4",namespace="` + namespace + `",pod="` + pod + `"} 71.5
`
	}
	matches := func(want string) func() bool {
		return func() bool {
			return testutil.GatherAndCompare(registry, strings.NewReader(want), "DCGM_FI_DEV_POWER_USAGE") == nil
		}
	}
	eventually(t, "the pod's label", matches(expect("qwen", "main", "gpu-workloads")))
	n.set(func(n *node) { n.holders = nil })
	eventually(t, "the label to go with the pod", matches(expect("", "", "")))
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
