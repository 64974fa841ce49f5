// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/telemetry/health"
)

// gpus are a node's GPUs whose health can be changed.
type gpus struct {
	mu  sync.Mutex
	now health.Status
}

func (g *gpus) status() health.Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now
}

func (g *gpus) set(s health.Status) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = s
}

var (
	sound  = health.Status{Known: true, GPUs: 8, Watched: time.Hour}
	broken = health.Status{Known: true, GPUs: 8, Watched: time.Hour, Incidents: []health.Incident{
		{Kind: health.XID, GPU: "GPU-3", Index: 3, Message: "XID 79: the GPU has fallen off the bus"}}}
)

// watch runs the agent's watch of the GPUs until the test ends.
func (n *node) watch(g *gpus) {
	ctx, cancel := context.WithCancel(n.t.Context())
	done := make(chan struct{})
	go func() { n.agent.WatchGPUs(ctx, g.status); close(done) }()
	n.t.Cleanup(func() { cancel(); <-done })
}

// gpuHealth is the status and reason of the condition, and the value of the taint.
func (n *node) gpuHealth() (status corev1.ConditionStatus, reason, taint string) {
	n.t.Helper()
	object, err := n.client.CoreV1().Nodes().Get(n.t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	if i := slices.IndexFunc(object.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == benchspec.ConditionGPUHealthy }); i >= 0 {
		status, reason = object.Status.Conditions[i].Status, object.Status.Conditions[i].Reason
	}
	if i := slices.IndexFunc(object.Spec.Taints, func(t corev1.Taint) bool { return t.Key == benchspec.TaintGPUUnhealthy }); i >= 0 {
		taint = object.Spec.Taints[i].Value
	}
	return status, reason, taint
}

func (n *node) expectGPUs(status corev1.ConditionStatus, reason, taint string) {
	n.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s, r, v := n.gpuHealth()
		if s == status && r == reason && v == taint {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("condition %s (%s), taint %q; want %s (%s), %q", s, r, v, status, reason, taint)
		}
	}
}

func TestAGPUThatCannotBeReliedOnTaintsTheNodeUntilItRecovers(t *testing.T) {
	n, g := newNode(t, time.Hour), &gpus{now: sound}
	n.watch(g)
	n.expectGPUs(corev1.ConditionTrue, "GPUsHealthy", "")
	g.set(broken)
	n.expectGPUs(corev1.ConditionFalse, "XIDError", "XIDError")
	g.set(sound)
	n.expectGPUs(corev1.ConditionTrue, "GPUsHealthy", "")
}

func TestTheTaintOfANoticeAndThatOfAGPUDoNotReplaceEachOther(t *testing.T) {
	n, g := newNode(t, time.Hour), &gpus{now: broken}
	n.watch(g)
	n.expectGPUs(corev1.ConditionFalse, "XIDError", "XIDError")
	n.given(t.Context(), notice("spot", "spot", 2*time.Minute))
	if n.taint() == "" {
		t.Error("no taint of the notice")
	}
	g.set(sound)
	n.expectGPUs(corev1.ConditionTrue, "GPUsHealthy", "")
	if n.taint() == "" {
		t.Error("the notice's taint went with that of the GPU")
	}
}

func TestGPUsThatAreNotReadAreUnknownAndChangeNoTaint(t *testing.T) {
	n, g := newNode(t, time.Hour), &gpus{now: broken}
	n.watch(g)
	n.expectGPUs(corev1.ConditionFalse, "XIDError", "XIDError")
	g.set(health.Status{GPUs: 8, Watched: time.Hour})
	n.expectGPUs(corev1.ConditionUnknown, "GPUsNotRead", "XIDError")
}

func TestANodeWhoseGPUsWereNeverReadHasNoSuchCondition(t *testing.T) {
	n, g := newNode(t, time.Hour), &gpus{}
	n.watch(g)
	time.Sleep(1200 * time.Millisecond) // more than one round
	if status, reason, taint := n.gpuHealth(); status != "" || taint != "" {
		t.Errorf("condition %s (%s), taint %q", status, reason, taint)
	}
}

func TestAnAgentThatWasStartedAnewWatchesBeforeItTakesAnIncidentBack(t *testing.T) {
	n := newNode(t, time.Hour)
	first := &gpus{now: broken}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { n.agent.WatchGPUs(ctx, first.status); close(done) }()
	n.expectGPUs(corev1.ConditionFalse, "XIDError", "XIDError")
	cancel()
	<-done
	young := sound
	young.Watched = 4 * time.Minute
	second := &gpus{now: young}
	n.watch(second)
	time.Sleep(1200 * time.Millisecond)
	n.expectGPUs(corev1.ConditionFalse, "XIDError", "XIDError")
	second.set(sound) // watched for an hour
	n.expectGPUs(corev1.ConditionTrue, "GPUsHealthy", "")
}
