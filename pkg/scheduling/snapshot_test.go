// SPDX-License-Identifier: Apache-2.0

package scheduling_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spotbench/spotbench/pkg/placement/snapshot"
	"github.com/spotbench/spotbench/pkg/scheduling"
)

// startObserved is a cluster of which snapshots are taken.
func startObserved(t *testing.T, args []string, nodes ...*v1.Node) (*cluster, *httptest.Server) {
	t.Helper()
	snapshots := &scheduling.Snapshots{}
	c := startClusterOf(t, snapshots.New, args, nodes...)
	snapshots.Follow(c.scheduler)
	server := httptest.NewServer(snapshots)
	t.Cleanup(server.Close)
	return c, server
}

func take(t *testing.T, server *httptest.Server) snapshot.Snapshot {
	t.Helper()
	response, err := http.Get(server.URL + snapshot.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	s, err := snapshot.Read(body)
	if err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
	return s
}

// takeWith takes snapshots until a pod is in one, pending or on a node.
func takeWith(t *testing.T, server *httptest.Server, name string) (snapshot.Snapshot, snapshot.Pod) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s := take(t, server)
		if p, _, ok := s.Find("default", name); ok {
			return s, p
		}
		if time.Now().After(deadline) {
			t.Fatalf("pod %s is in no snapshot after 15s", name)
		}
	}
}

// gated is a pod that the scheduler holds until its gate is gone.
func gated(pod *v1.Pod) *v1.Pod {
	pod.Spec.SchedulingGates = []v1.PodSchedulingGate{{Name: "test/hold"}}
	return pod
}

func (c *cluster) release(name string) {
	c.t.Helper()
	pod := c.pod(name)
	pod.Spec.SchedulingGates = nil
	pod.ResourceVersion = "released" // the fake leaves it alone, and the scheduler drops updates without a new one
	if _, err := c.client.CoreV1().Pods("default").Update(c.ctx, pod, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func TestASnapshotDecidesWhatTheSchedulerThenDoes(t *testing.T) {
	for name, test := range map[string]struct {
		pod *v1.Pod
	}{
		"a slice":             {partPod("p", map[string]string{"gpu-model": "H100-80GB, A100-80GB"}, "nvidia.com/mig-1g.10gb", "2")},
		"a slice by memory":   {partPod("p", map[string]string{"gpu-memory": "40Gi"}, "nvidia.com/mig-3g.40gb", "1")},
		"a share":             {partPod("p", map[string]string{"gpu-model": "L4"}, "nvidia.com/gpu.shared", "3")},
		"memory alone":        {benchPod("p", 1, map[string]string{"gpu-memory": "80Gi", "expected-duration": "45m"})},
		"preferred models":    {benchPod("p", 4, map[string]string{"gpu-model": "H100-80GB, A100-80GB"})},
		"a whole node":        {benchPod("p", 8, map[string]string{"isolation": "node"})},
		"a limit on the risk": {benchPod("p", 1, map[string]string{"max-interruption-risk": "0.05", "checkpoint-path": "/c"})},
		"on demand":           {benchPod("p", 2, map[string]string{"capacity": "on-demand", "gpu-memory": "40Gi"})},
		"anything":            {benchPod("p", 1, nil)},
		"no GPU":              {benchPod("p", 0, nil)},
	} {
		t.Run(name, func(t *testing.T) {
			nodes := reference()
			nodes = append(nodes, parts()[:3]...)
			c, server := startObserved(t, nil, nodes...)
			for _, other := range []*v1.Pod{benchPod("first", 1, map[string]string{"expected-duration": "25m", "gpu-model": "A100-80GB"}), benchPod("second", 3, map[string]string{"gpu-model": "L4"}),
				partPod("third", map[string]string{"expected-duration": "10m"}, "nvidia.com/mig-1g.10gb", "1"), partPod("fourth", nil, "nvidia.com/gpu.shared", "2")} {
				c.create(other)
				c.eventually(other.Name, "placed", func(p *v1.Pod) bool { return p.Spec.NodeName != "" })
			}
			c.create(gated(test.pod))
			s, p := takeWith(t, server, "p")
			if want := []string{"test/hold"}; !cmp.Equal(p.Gates, want) {
				t.Errorf("gates %v, want %v", p.Gates, want)
			}
			d := s.Decide(p)
			c.release("p")
			placed := c.placed("p", d.Node)

			if placed.Reason != d.Reason {
				t.Errorf("the scheduler's reason is %q, the snapshot's %q", placed.Reason, d.Reason)
			}
			for i, a := range placed.Alternatives {
				if got := d.Candidates[i+1]; got.Node != a.Node || got.Lost != a.Lost || got.ExpectedCostUSD != a.ExpectedCostUSD {
					t.Errorf("alternative %d is %+v, the snapshot's %+v", i, a, got)
				}
			}
			for _, r := range d.Refused {
				if got := placed.Refused[r.Node]; got != "has "+r.Detail && !strings.Contains(got, "other checks") {
					t.Errorf("%s: the scheduler says %q, the snapshot %q", r.Node, got, r.Detail)
				}
			}
		})
	}
}

func TestASnapshotHasWhatTheSchedulerLearnedFromPodsThatAreGone(t *testing.T) {
	// GPUs so dear to pods to come that prices are nothing beside it.
	c, server := startObserved(t, []string{"gpuHourUSD: 1000"}, reference()...)
	// Pods that only H100s will do for, all ended by now: a scheduler that had not seen
	// them would think H100s no scarcer than A100s.
	for i := range 30 {
		name := fmt.Sprint("gone-", i)
		c.create(benchPod(name, 4, map[string]string{"gpu-model": "H100-80GB"}))
		c.eventually(name, "placed", func(p *v1.Pod) bool { return p.Spec.NodeName != "" })
		if err := c.client.CoreV1().Pods("default").Delete(c.ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	c.create(gated(benchPod("p", 2, nil)))
	s, p := takeWith(t, server, "p")
	d := s.Decide(p)
	var differs bool
	ignorant := s
	ignorant.Packing = nil
	for i, candidate := range ignorant.Decide(p).Candidates {
		differs = differs || !cmp.Equal(candidate, d.Candidates[i])
	}
	if !differs {
		t.Error("without what was learned the candidates are the same; the test shows nothing")
	}
	c.release("p")
	placed := c.placed("p", d.Node)
	if placed.Reason != d.Reason {
		t.Errorf("the scheduler's reason is %q, the snapshot's %q", placed.Reason, d.Reason)
	}
	for i, a := range placed.Alternatives {
		if got := d.Candidates[i+1]; got.Node != a.Node || got.Lost != a.Lost {
			t.Errorf("alternative %d is %+v, the snapshot's %+v", i, a, got)
		}
	}
}

func TestASnapshotHasTheSchedulersState(t *testing.T) {
	nodes := reference()
	nodes[1].Spec.Unschedulable = true
	c, server := startObserved(t, nil, nodes...)
	c.create(benchPod("runs", 2, map[string]string{"gpu-model": "A100-80GB", "capacity": "spot", "expected-duration": "30m"}))
	c.placed("runs", "a100-spot-0")
	c.create(benchPod("waits", 1, map[string]string{"gpu-model": "B200"}))
	c.refused("waits", "wanted B200-180GB")
	s, p := takeWith(t, server, "waits")
	if p.SchedulerName != "spotbench" || p.GPUs != 1 {
		t.Errorf("the pending pod is %+v", p)
	}
	runs, on, ok := s.Find("default", "runs")
	if !ok || on != "a100-spot-0" || runs.ExpectedEnd.Sub(runs.Started) != 30*time.Minute || runs.Annotations["spotbench.dev/placement"] == "" {
		t.Errorf("the running pod is on %q: %+v", on, runs)
	}
	if s.Assumptions.ExpectedDuration.Duration != time.Hour || s.Assumptions.NoticeSaves != 0.9 || time.Since(s.Time) > time.Minute {
		t.Errorf("time %s, assumptions %+v", s.Time, s.Assumptions)
	}
	for _, n := range s.Nodes {
		switch n.Name {
		case "h100-spot-0":
			if !n.Unschedulable || n.TotalGPUs != 8 || n.USDPerHour != 26.4192 || n.GPU.Model != "H100-80GB" || n.HazardPerHour == 0 || len(n.Taints) != 1 {
				t.Errorf("%+v", n)
			}
		case "a100-spot-0":
			if cpu := n.Allocatable["cpu"]; cpu.String() != "96" || len(n.Pods) != 1 {
				t.Errorf("%+v", n)
			}
		}
	}
}

func TestASchedulerThatHasNotStartedSaysSo(t *testing.T) {
	server := httptest.NewServer(&scheduling.Snapshots{})
	defer server.Close()
	response, err := http.Get(server.URL + snapshot.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "has not started") {
		t.Errorf("%s: %s, %v", response.Status, body, err)
	}
}
