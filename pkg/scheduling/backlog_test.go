// SPDX-License-Identifier: Apache-2.0

package scheduling_test

import (
	"fmt"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/scheduling"
)

// tries is how often schedulers of this process have tried a pod, whatever came of it.
func tries(t *testing.T) int {
	t.Helper()
	return int(sum(t, "scheduler_schedule_attempts_total", nil))
}

// afterTries waits until so many tries were made since a count.
func afterTries(t *testing.T, since, want int) {
	t.Helper()
	for deadline := time.Now().Add(4 * time.Minute); tries(t)-since < want; time.Sleep(250 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d tries after 4m, want %d", tries(t)-since, want)
		}
	}
}

func TestFiftyThousandPodsThatFitNowhereHoldUpNobody(t *testing.T) {
	// A tenth of them name a model that is not there, the others ask for more than any
	// node has.
	naming := backlog / 10
	// The fake's watches hold all that it writes ahead of the scheduler.
	before := watch.DefaultChanSize
	watch.DefaultChanSize = 1 << 18
	t.Cleanup(func() { watch.DefaultChanSize = before })
	objects := make([]runtime.Object, 0, backlog+100)
	for _, n := range reference() {
		objects = append(objects, n)
	}
	// Room for those that fit.
	for _, name := range []string{"h100-a", "h100-b"} {
		objects = append(objects, gpuNode(name, "NVIDIA-H100-80GB-HBM3", 81559, 8, "p5.48xlarge", "spot", "us-east-1b"))
	}
	for i := range 95 {
		objects = append(objects, gpuNode(fmt.Sprintf("a10g-%02d", i), "NVIDIA-A10G", 23028, 4, "g5.12xlarge", "spot", "us-east-1a"))
	}
	for i := range backlog {
		if i < naming {
			objects = append(objects, benchPod(fmt.Sprintf("names-%05d", i), 1, map[string]string{"gpu-model": "H200", "expected-duration": "1h"}))
		} else {
			objects = append(objects, benchPod(fmt.Sprintf("large-%05d", i), 16, map[string]string{"max-interruption-risk": "0.9"}))
		}
	}
	start, tried := time.Now(), tries(t)
	// Without managed fields, of which each change takes the fake milliseconds.
	c := startClusterOver(t, scheduling.New, nil, fake.NewSimpleClientset(objects...))
	afterTries(t, tried, backlog)
	t.Logf("%d pods were tried in %s", backlog, time.Since(start).Round(time.Millisecond))

	placed := 0
	place := func(t *testing.T) string {
		t.Helper()
		name := fmt.Sprintf("fits-%d", placed)
		placed++
		start := time.Now()
		c.create(benchPod(name, 1, map[string]string{"gpu-model": "H100-80GB"}))
		c.in(t).eventually(name, "placed", func(p *v1.Pod) bool { return p.Spec.NodeName != "" })
		t.Logf("a pod that fits is placed after %s", time.Since(start).Round(time.Millisecond))
		return name
	}
	running := place(t)
	change := func(name string, change func(*v1.Node)) {
		n, err := c.client.CoreV1().Nodes().Get(c.ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		change(n)
		n.ResourceVersion += "+" // the fake leaves it alone
		if _, err := c.client.CoreV1().Nodes().Update(c.ctx, n, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	join := func(n *v1.Node) {
		if _, err := c.client.CoreV1().Nodes().Create(c.ctx, n, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, event := range []struct {
		name    string
		happens func()
	}{
		{"nothing", func() {}},
		{"a label of no matter", func() { change("a10g-00", func(n *v1.Node) { n.Labels["a"] = "b" }) }},
		{"a taint of no matter", func() {
			change("a10g-00", func(n *v1.Node) {
				n.Spec.Taints = append(n.Spec.Taints, v1.Taint{Key: "a", Effect: v1.TaintEffectPreferNoSchedule})
			})
		}},
		{"a notice", func() {
			change("a10g-01", func(n *v1.Node) {
				n.Spec.Taints = append(n.Spec.Taints, v1.Taint{Key: benchspec.TaintInterruption, Effect: v1.TaintEffectNoSchedule})
			})
		}},
		{"a heartbeat", func() {
			change("a10g-02", func(n *v1.Node) { n.Status.Conditions[0].LastHeartbeatTime = metav1.Now() })
		}},
		{"more CPUs", func() { change("a10g-03", func(n *v1.Node) { n.Status.Allocatable["cpu"] = resource.MustParse("97") }) }},
		{"a node of another model", func() { join(gpuNode("joins", "NVIDIA-A10G", 23028, 4, "g5.12xlarge", "spot", "us-east-1a")) }},
		{"a node's end", func() {
			if err := c.client.CoreV1().Nodes().Delete(c.ctx, "a10g-04", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}},
		{"a running pod's change", func() {
			pod := c.pod(running)
			pod.Status.Phase, pod.ResourceVersion = v1.PodRunning, "running"
			if _, err := c.client.CoreV1().Pods("default").Update(c.ctx, pod, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}},
		{"a running pod's end", func() {
			if err := c.client.CoreV1().Pods("default").Delete(c.ctx, running, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}},
		{"the end of one that waits", func() {
			if err := c.client.CoreV1().Pods("default").Delete(c.ctx, fmt.Sprintf("large-%05d", backlog-1), metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(event.name+" wakes nobody", func(t *testing.T) {
			tried := tries(t)
			event.happens()
			place(t)
			// The scheduler hears of pods and nodes separately.
			time.Sleep(300 * time.Millisecond)
			if woken := tries(t) - tried - 1; woken != 0 {
				t.Errorf("%d pods were tried again", woken)
			}
		})
	}
	t.Run("a node of the model wakes those that name it, once", func(t *testing.T) {
		tried := tries(t)
		join(gpuNode("h200", "NVIDIA-H200", 143771, 8, "p5en.48xlarge", "spot", "us-east-1a"))
		afterTries(t, tried, naming)
		place(t)
		if woken := tries(t) - tried - 1; woken != naming {
			t.Errorf("%d pods were tried again, want the %d that name it", woken, naming)
		}
		list, err := c.client.CoreV1().Pods("default").List(c.ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		on := 0
		for i := range list.Items {
			if list.Items[i].Spec.NodeName == "h200" {
				on++
			}
		}
		if on != 8 {
			t.Errorf("%d pods are on its eight GPUs", on)
		}
	})
}
