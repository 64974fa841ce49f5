// SPDX-License-Identifier: Apache-2.0

package scheduling_test

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
)

func TestDecisionsWaitWhileAHundredBindingsAreUnderWay(t *testing.T) {
	client := fake.NewClientset()
	release := make(chan struct{})
	client.PrependReactor("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		<-release
		return true, nil, nil
	})
	plugin, _ := newPlugin(t, client, nil, reference())
	pod := benchPod("p", 1, nil)
	decided := make(chan fwk.CycleState)
	bound := make(chan *fwk.Status, 1000)
	underWay := 0
	// One decision after another, as the scheduler makes them; each is bound beside.
	go func() {
		for range 150 {
			state := framework.NewCycleState()
			_, _ = plugin.PreFilter(t.Context(), state, pod, nil)
			_ = plugin.Reserve(t.Context(), state, pod, "l4-spot-0")
			decided <- state
		}
		close(decided)
	}()
	start := func(state fwk.CycleState) {
		underWay++
		go func() { bound <- plugin.Bind(t.Context(), state, pod, "l4-spot-0") }()
	}
	for blocked := false; !blocked; {
		select {
		case state, more := <-decided:
			if !more {
				t.Fatal("150 decisions were made while no binding ended")
			}
			start(state)
		case <-time.After(2 * time.Second):
			blocked = true
		}
	}
	if underWay < 100 {
		t.Errorf("decisions wait with %d bindings under way, want 100 or a few more that had not begun to bind", underWay)
	}
	close(release)
	for state := range decided {
		start(state)
	}
	for range underWay {
		if status := <-bound; !status.IsSuccess() {
			t.Fatal(status.AsError())
		}
	}
}
