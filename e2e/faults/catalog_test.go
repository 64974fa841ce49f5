// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spotbench/spotbench/pkg/checkpoint"
	"github.com/spotbench/spotbench/pkg/demo"
)

// cutCatalog refuses every connection to the catalog until the end of the test, or until
// what it returns is called.
func cutCatalog(t *testing.T) (end func()) {
	t.Helper()
	rule := func(what string) []string {
		return []string{"iptables", what, "FORWARD", "-p", "tcp", "--dport", "8000", "-j", "REJECT", "--reject-with", "tcp-reset"}
	}
	if _, err := stage.Cluster.Exec(t.Context(), "system-0", rule("-I")...); err != nil {
		t.Fatal(err)
	}
	ended := false
	end = func() {
		if ended {
			return
		}
		ended = true
		if _, err := stage.Cluster.Exec(cleanupContext(t), "system-0", rule("-D")...); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(end)
	return end
}

func TestTheCatalogIsDownForTheWholeInterruption(t *testing.T) {
	t.Parallel()
	machine := pool.borrow(t, 1)[0]
	r := start(t, machine, job{name: "catalog-down", blob: "8Mi"})
	r.awaitSteps(1, 30)
	open(t, r.job.name, refuge)
	eventually(t, time.Minute, "the run to be known", func() bool { _, err := stage.Catalog.GetRun(t.Context(), r.key); return err == nil })
	back := cutCatalog(t)
	sent := notice(t, machine, 15*time.Second)
	r.awaitSteps(2, 1)
	time.Sleep(time.Until(sent.Add(15 * time.Second)))
	// The machine goes, and with it what it has not told yet.
	if err := stage.Cluster.Reclaim(t.Context(), machine); err != nil {
		t.Fatal(err)
	}
	did := r.finished(2)
	back()
	lost := lostBetween(did[0], did[1])
	if lost > 2 {
		t.Errorf("%.1f s of work were lost", lost)
	}
	got := r.recorded(lost)
	if len(got.Segments) != 2 || got.Interruptions[0].RestoredAt.IsZero() || got.Interruptions[0].RunningAgainAt.IsZero() || got.Interruptions[0].CheckpointBytes == 0 {
		t.Errorf("the record is not whole: %+v, %d segments", got.Interruptions[0], len(got.Segments))
	}
	findings.add(t, "the catalog is down for the whole interruption, and then the machine is gone", lost, "all: the next node's agent tells what the checkpoint knows, once")
}

// TestAHundredPodsAreSavedAtOnce runs alone: no other test has a machine for itself then.
func TestAHundredPodsAreSavedAtOnce(t *testing.T) {
	const pods, crowd = 100, "crowd"
	machine := pool.borrow(t, 1)[0]
	if err := demo.EnsureNamespace(t.Context(), stage.Client, crowd); err != nil {
		t.Fatal(err)
	}
	names := make([]string, pods)
	for i := range names {
		j := job{name: "hundred-" + string(rune('a'+i/26)) + string(rune('a'+i%26)), steps: 100_000, blob: "256Ki", grace: 5, interval: "10m"}
		names[i] = j.name
		template := j.object().Spec.Template
		// As little else as can be: each is started by two processors.
		template.Spec.InitContainers, template.Spec.NodeSelector, template.Spec.HostNetwork, template.Spec.NodeName = nil, nil, true, machine
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: crowd, Name: j.name, Labels: map[string]string{"hundred": ""}, Annotations: template.Annotations}, Spec: template.Spec}
		if _, err := stage.Client.CoreV1().Pods(crowd).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		none := int64(0)
		if err := stage.Client.CoreV1().Pods(crowd).DeleteCollection(cleanupContext(t), metav1.DeleteOptions{GracePeriodSeconds: &none}, metav1.ListOptions{LabelSelector: "hundred"}); err != nil {
			t.Error(err)
		}
	})
	eventually(t, 4*time.Minute, "100 pods to work", func() bool {
		for _, name := range names {
			if did := steps.of(name); len(did) != 1 || did[0].last < 5 {
				return false
			}
		}
		return true
	})
	const window = time.Minute
	sent := notice(t, machine, window)
	var first, last time.Duration
	saved := map[string]bool{}
	for deadline := sent.Add(window + 5*time.Second); len(saved) < pods && time.Now().Before(deadline); time.Sleep(5 * time.Second) {
		for _, name := range names {
			if saved[name] {
				continue
			}
			latest, found, err := checkpoints(t).Latest(t.Context(), crowd+"/"+name)
			if err != nil || !found || latest.Meta["final"] != "done" {
				continue
			}
			saved[name] = true
			after := latest.CreatedAt.Sub(sent)
			if first == 0 || after < first {
				first = after
			}
			last = max(last, after)
		}
	}
	worst := 0.0
	for _, name := range names {
		kept, err := restoredSteps(t, crowd+"/"+name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		worst = max(worst, float64(steps.of(name)[0].last-kept)*stepTime.Seconds())
	}
	// No periodic checkpoint is as young as the test: what is restored was made on the
	// notice. Where the kubelet removes a volume before it is held, what its pod did
	// between that checkpoint and its end is lost.
	if worst > 10 || last > window {
		t.Errorf("up to %.1f s of work were lost, the last checkpoint was whole %s after the notice", worst, last)
	}
	t.Logf("%d of %d pods have a last checkpoint, whole %.1f to %.1f s after the notice was sent", len(saved), pods, first.Seconds(), last.Seconds())
	findings.add(t, "100 pods of one node at once, a notice of 60 s", worst, "the last checkpoint of each; the last one was whole "+last.Round(100*time.Millisecond).String()+" after the notice")
}

// restoredSteps is how many steps the run's newest checkpoint holds.
func restoredSteps(t *testing.T, run string) (int, error) {
	into := t.TempDir()
	if _, _, err := checkpoints(t).Restore(t.Context(), run, into, checkpoint.RestoreOptions{}); err != nil {
		return 0, err
	}
	data, err := os.ReadFile(filepath.Join(into, "progress"))
	return bytes.Count(data, []byte("\n")), err
}
