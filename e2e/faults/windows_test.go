// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

// checkpoints reaches the store without the proxy.
func checkpoints(t *testing.T) *checkpoint.Store {
	t.Helper()
	s, err := openCheckpoints()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var openCheckpoints = sync.OnceValues(func() (*checkpoint.Store, error) {
	return checkpoint.Open(stageContext, checkpoint.Options{URL: storeURL(store.backend.Host)})
})

// interruptOnce plays the plain case: a notice on the node, and the run goes on in the
// refuge. It returns the work lost.
func interruptOnce(t *testing.T, r *run, node string, window time.Duration) float64 {
	t.Helper()
	r.awaitSteps(1, 30)
	open(t, r.job.name, refuge)
	notice(t, node, window)
	did := r.finished(2)
	lost := lostBetween(did[0], did[1])
	r.recorded(lost)
	return lost
}

// Two minutes, as AWS gives, are the demo's.
func TestAWindowOf30SecondsIsEnough(t *testing.T) { windowIsEnough(t, 30*time.Second) }

func TestAWindowOf15SecondsIsEnough(t *testing.T) { windowIsEnough(t, 15*time.Second) }

func windowIsEnough(t *testing.T, window time.Duration) {
	t.Parallel()
	node := pool.borrow(t, 1)[0]
	// As the pods of most people: half a minute to stop, all of which no cloud but AWS gives.
	r := start(t, node, job{name: fmt.Sprintf("window-%.0f", window.Seconds()), blob: "32Mi", grace: 30})
	lost := interruptOnce(t, r, node, window)
	if lost > 2 {
		t.Errorf("%.1f s of work were lost", lost)
	}
	saysWhyTheContainerWasNotCheckpointed(t, r)
	findings.add(t, fmt.Sprintf("a notice of %s, 32 MiB to save", window), lost, "the checkpoint on the notice, and the one after SIGTERM")
}

// saysWhyTheContainerWasNotCheckpointed looks at what an agent says that was told to
// checkpoint containers, but not given the rights over its node that this takes.
func saysWhyTheContainerWasNotCheckpointed(t *testing.T, r *run) {
	t.Helper()
	var said []string
	eventually(t, 10*time.Second, "the event that says why", func() bool {
		events, err := stage.Client.CoreV1().Events(workloads).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=ContainerNotCheckpointed"})
		if err != nil {
			return false
		}
		for _, e := range events.Items {
			if strings.HasPrefix(e.InvolvedObject.Name, r.job.name+"-") {
				said = append(said, e.Message)
			}
		}
		return len(said) > 0
	})
	if !strings.Contains(said[0], "node-agent-privileged") {
		t.Errorf("the event says %q, without the component that gives the rights", said[0])
	}
	t.Logf("the container was not checkpointed: %s", said[0])
}

func TestTwoOfThreeNodesAreTakenAtOnce(t *testing.T) {
	t.Parallel()
	nodes := pool.borrow(t, 2)
	var runs []*run
	for i, node := range nodes {
		r := start(t, node, job{name: fmt.Sprintf("two-of-three-%d", i), blob: "16Mi"})
		open(t, r.job.name, nodes[1-i]) // which must not be taken for a refuge
		runs = append(runs, r)
	}
	for _, r := range runs {
		r.awaitSteps(1, 30)
		open(t, r.job.name, refuge)
	}
	for _, node := range nodes {
		notice(t, node, 30*time.Second)
	}
	lost := 0.0
	for _, r := range runs {
		did := r.finished(2)
		mine := lostBetween(did[0], did[1])
		r.recorded(mine)
		lost = max(lost, mine)
	}
	if lost > 2 {
		t.Errorf("%.1f s of work were lost", lost)
	}
	findings.add(t, "two of three nodes get a notice of 30 s at once", lost, "both runs, which go on on the third node")
}

func TestTheAPIServerIsAwayFromTheMomentOfTheNotice(t *testing.T) {
	t.Parallel()
	node := pool.borrow(t, 1)[0]
	r := start(t, node, job{name: "api-away", blob: "16Mi", replaceAtOnce: true, steps: 400})
	r.awaitSteps(1, 30)
	cutAPI(t, node)
	deadline := notice(t, node, 30*time.Second).Add(30 * time.Second)
	// The worker is stopped on the node, and all that it did is in the store.
	eventually(t, time.Until(deadline), "the last checkpoint before the machine's end", func() bool {
		latest, found, err := checkpoints(t).Latest(t.Context(), r.key)
		return err == nil && found && latest.Meta["final"] == "done"
	})
	time.Sleep(time.Until(deadline))
	if err := stage.Cluster.Reclaim(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	open(t, r.job.name, refuge)
	r.awaitSteps(2, 1)
	// What a cloud's controller does with the node of a machine that is gone.
	if err := stage.Client.CoreV1().Nodes().Delete(t.Context(), node, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	did := r.finished(2)
	lost := lostBetween(did[0], did[1])
	if lost > 2 {
		t.Errorf("%.1f s of work were lost", lost)
	}
	r.recorded(lost)
	findings.add(t, "the API server is away from the notice (30 s) on, and then the machine is gone", lost,
		"the checkpoint after the agent stopped the container; the record, by the checkpoint's own account")
}
