// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/spotbench/spotbench/pkg/agent/spool"
	"github.com/spotbench/spotbench/pkg/checkpoint"
	"github.com/spotbench/spotbench/pkg/interruption"
	"github.com/spotbench/spotbench/pkg/workflow"
)

// diary is what happened, in order.
type diary struct {
	mu      sync.Mutex
	entries []string
}

func (j *diary) write(entry string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, entry)
}

func (j *diary) await(t *testing.T, entry string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		j.mu.Lock()
		found := slices.Contains(j.entries, entry)
		j.mu.Unlock()
		if found {
			return
		}
	}
	t.Fatalf("waited 10s for %q in %q", entry, j.entries)
}

// held is an API server's view of workflows, as slow and as unreachable as the test says.
type held struct {
	diary    *diary
	slow     time.Duration
	failures int
	retried  bool
	left     map[types.NamespacedName]workflow.Hold
}

func (h *held) Suspend(ctx context.Context, _, name string, i workflow.Interruption) ([]string, error) {
	select {
	case <-time.After(h.slow):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if h.failures--; h.failures >= 0 {
		return nil, errors.New("the API server is away")
	}
	h.diary.write("suspend " + name + " for " + i.Node)
	if !h.retried {
		return nil, nil
	}
	return []string{i.Pods[0].Name}, nil
}

func (h *held) Release(_ context.Context, _, name, node, _ string, gone []string) error {
	h.diary.write("release " + name + " of " + node + ", gone: " + slices.Concat(gone, []string{"-"})[0])
	return nil
}

func (h *held) Held(context.Context, string, string) (map[types.NamespacedName]workflow.Hold, error) {
	return h.left, nil
}

// saves notes the checkpoints in the diary.
type saves struct {
	*checkpoint.Store
	diary *diary
}

func (s saves) Save(ctx context.Context, run, dir string, o checkpoint.SaveOptions) (checkpoint.Saved, error) {
	saved, err := s.Store.Save(ctx, run, dir, o)
	s.diary.write("checkpoint " + o.Meta[metaFinal])
	return saved, err
}

// inWorkflow is an agent whose node runs one pod of a workflow.
func inWorkflow(t *testing.T, h *held) (*Agent, *fake.Clientset) {
	t.Helper()
	base := t.TempDir()
	store, err := checkpoint.Open(t.Context(), checkpoint.Options{URL: "file://" + filepath.Join(base, "store")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	queue, err := spool.Open(filepath.Join(base, "spool"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	grace := int64(1)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "sweep-1", Namespace: "default", UID: "uid-1", Labels: map[string]string{"workflows.argoproj.io/workflow": "nightly"},
		Annotations: map[string]string{"spotbench.dev/checkpoint-path": "/checkpoint", "kubectl.kubernetes.io/default-container": "main"}},
		Spec: corev1.PodSpec{NodeName: "n1", TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{Name: "wait"}, {Name: "main", VolumeMounts: []corev1.VolumeMount{{Name: "c", MountPath: "/checkpoint"}}}},
			Volumes:    []corev1.Volume{{Name: "c", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}}}
	client := fake.NewSimpleClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, pod)
	client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if action.GetSubresource() == "eviction" {
			h.diary.write("evict")
		}
		return false, nil, nil
	})
	a, err := New(Config{Node: "n1", KubeletRoot: base, HoldDir: filepath.Join(base, "hold"), JournalDir: filepath.Join(base, "journal"), Workflows: h}, FakeCluster{client},
		saves{store, h.diary}, stoppedContainers{}, nil, queue, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWorkload(a, pod)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(w.checkpointDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.checkpointDir, "progress"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.workloads[pod.UID] = w
	close(a.synced)
	return a, client
}

func noticeFor(a *Agent, left time.Duration) interruption.Notice {
	n := interruption.Notice{ID: "e-1", Kind: interruption.KindSpot, Action: "terminate", SeenAt: time.Now(), Deadline: time.Now().Add(left)}
	a.Heed(interruption.Event{Notice: n})
	return n
}

func TestAWorkflowIsSuspendedBeforeItsPodIsEvictedAndReleasedWhenAllIsSaved(t *testing.T) {
	h := &held{diary: &diary{}, retried: true, slow: 300 * time.Millisecond, failures: 1}
	a, _ := inWorkflow(t, h)
	if !a.HandleNotice(t.Context(), noticeFor(a, time.Minute)) {
		t.Error("something is left to do")
	}
	h.diary.await(t, "release nightly of n1, gone: sweep-1")
	want := []string{"checkpoint pending", "suspend nightly for n1", "evict", "checkpoint done", "release nightly of n1, gone: sweep-1"}
	if !slices.Equal(h.diary.entries, want) {
		t.Errorf("%q, want %q", h.diary.entries, want)
	}
}

func TestAnEvictionDoesNotWaitForAWorkflowThatCannotBeSuspended(t *testing.T) {
	h := &held{diary: &diary{}, failures: 1 << 30}
	a, _ := inWorkflow(t, h)
	start := time.Now()
	if !a.HandleNotice(t.Context(), noticeFor(a, time.Minute)) {
		t.Error("something is left to do")
	}
	if took := time.Since(start); took < holdWait || took > holdWait+2*time.Second {
		t.Errorf("it took %s, want the wait of %s and little more", took, holdWait)
	}
}

func TestAPodThatNothingStartsAgainStaysUntilItMustStop(t *testing.T) {
	h := &held{diary: &diary{}}
	a, _ := inWorkflow(t, h)
	// It must stop its grace period and 5 s before the end: after 8 - 1 - 5 = 2 s.
	start := time.Now()
	evicted := make(chan time.Duration, 1)
	go func() { h.diary.await(t, "evict"); evicted <- time.Since(start) }()
	a.HandleNotice(t.Context(), noticeFor(a, 8*time.Second))
	if took := <-evicted; took < 1900*time.Millisecond || took > 3*time.Second {
		t.Errorf("evicted after %s, want 2 s", took)
	}
}

func TestAPodThatFinishesWhileItStaysIsNotEvicted(t *testing.T) {
	h := &held{diary: &diary{}}
	a, _ := inWorkflow(t, h)
	w := a.workloads["uid-1"]
	done := make(chan bool)
	go func() { done <- a.HandleNotice(t.Context(), noticeFor(a, time.Minute)) }()
	h.diary.await(t, "suspend nightly for n1")
	finished := w.pod.DeepCopy()
	finished.Status.Phase = corev1.PodSucceeded
	w.update(finished, false)
	if !<-done {
		t.Error("something is left to do")
	}
	h.diary.await(t, "release nightly of n1, gone: sweep-1")
	if slices.Contains(h.diary.entries, "evict") {
		t.Errorf("evicted: %q", h.diary.entries)
	}
}

func TestAnAgentThatIsStartedAgainReleasesWhatItFindsNoPodsFor(t *testing.T) {
	nightly, other := types.NamespacedName{Namespace: "default", Name: "nightly"}, types.NamespacedName{Namespace: "default", Name: "other"}
	h := &held{diary: &diary{}, retried: true, left: map[types.NamespacedName]workflow.Hold{
		nightly: {Notice: "e-1", Pods: []string{"sweep-1"}}, other: {Notice: "e-1", Pods: []string{"sweep-9"}}}}
	a, _ := inWorkflow(t, h)
	a.HandleNotice(t.Context(), noticeFor(a, time.Minute))
	h.diary.await(t, "release other of n1, gone: sweep-9")
	h.diary.await(t, "release nightly of n1, gone: sweep-1")
}

func TestANodeIsThreatenedByNoticesThatTakeItsMachine(t *testing.T) {
	a, _ := inWorkflow(t, &held{diary: &diary{}})
	rebalance := interruption.Event{Notice: interruption.Notice{ID: "r", Kind: interruption.KindRebalance}}
	spot := interruption.Event{Notice: interruption.Notice{ID: "s", Kind: interruption.KindSpot}}
	a.Heed(rebalance)
	if a.Threatened() {
		t.Error("threatened by a rebalance recommendation")
	}
	a.Heed(spot)
	if !a.Threatened() {
		t.Error("not threatened by a spot notice")
	}
	spot.Withdrawn = true
	a.Heed(spot)
	if a.Threatened() {
		t.Error("threatened by a notice that was withdrawn")
	}
}
