// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/spotbench/spotbench/pkg/agent/spool"
	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/checkpoint"
	"github.com/spotbench/spotbench/pkg/telemetry"
	"github.com/spotbench/spotbench/pkg/telemetry/monitor"
)

// troubled is a store that is slow, away or behind the times, as the test says.
type troubled struct {
	*checkpoint.Store
	mu       sync.Mutex
	periodic time.Duration // how long a checkpoint takes that is not made on a notice
	away     int           // calls that fail yet
	hangs    bool          // Latest does not answer
	ahead    time.Duration // how far the clock of who saved is ahead
}

func (s *troubled) fails() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away--; s.away >= 0 {
		return errors.New("503 Service Unavailable")
	}
	return nil
}

func (s *troubled) Save(ctx context.Context, run, dir string, o checkpoint.SaveOptions) (checkpoint.Saved, error) {
	if !o.Urgent {
		select {
		case <-time.After(s.periodic):
		case <-ctx.Done():
			return checkpoint.Saved{}, context.Cause(ctx)
		}
	}
	if err := s.fails(); err != nil {
		return checkpoint.Saved{}, err
	}
	return s.Store.Save(ctx, run, dir, o)
}

func (s *troubled) Latest(ctx context.Context, run string) (checkpoint.Generation, bool, error) {
	if s.hangs {
		<-ctx.Done()
		return checkpoint.Generation{}, false, ctx.Err()
	}
	if err := s.fails(); err != nil {
		return checkpoint.Generation{}, false, err
	}
	g, found, err := s.Store.Latest(ctx, run)
	g.CreatedAt = g.CreatedAt.Add(s.ahead)
	return g, found, err
}

// noTelemetry is that of a node without GPUs.
type noTelemetry struct{}

func (noTelemetry) Summary(monitor.Pod) (telemetry.Summary, bool) { return telemetry.Summary{}, false }
func (noTelemetry) Forget(monitor.Pod)                            {}

// bench is an agent on a node of its own, and a benchmark pod there.
type bench struct {
	t          *testing.T
	base       string
	store      *troubled
	containers Containers
	client     *fake.Clientset
	agent      *Agent
	pod        *corev1.Pod
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, base: t.TempDir(), containers: stoppedContainers{}}
	opened, err := checkpoint.Open(t.Context(), checkpoint.Options{URL: "file://" + filepath.Join(b.base, "store")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = opened.Close() })
	b.store = &troubled{Store: opened}
	grace := int64(1)
	b.pod = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "bench", Namespace: "default", UID: "uid-1", Annotations: map[string]string{"spotbench.dev/run": "sweep", "spotbench.dev/checkpoint-path": "/checkpoint"}},
		Spec: corev1.PodSpec{NodeName: "n1", TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{Name: "main", VolumeMounts: []corev1.VolumeMount{{Name: "c", MountPath: "/checkpoint"}}}},
			Volumes:    []corev1.Volume{{Name: "c", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{
			{Name: "main", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(time.Now().Add(-time.Minute))}}}}}}
	b.client = fake.NewSimpleClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, b.pod)
	b.restart()
	return b
}

// restart makes a new agent on the same disk.
func (b *bench) restart() {
	b.t.Helper()
	queue, err := spool.Open(filepath.Join(b.base, "spool"), slog.New(slog.DiscardHandler))
	if err != nil {
		b.t.Fatal(err)
	}
	b.agent, err = New(Config{Node: "n1", KubeletRoot: b.base, HoldDir: filepath.Join(b.base, "hold"), JournalDir: filepath.Join(b.base, "journal"), FinalSaveWait: 300 * time.Millisecond},
		FakeCluster{b.client}, b.store, b.containers, noTelemetry{}, queue, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.t.Fatal(err)
	}
	// What it has begun is at an end before its disk is gone.
	b.t.Cleanup(b.agent.living.Wait)
}

// accompanied is the pod's workload, with a file in its volume.
func (b *bench) accompanied() *workload {
	b.t.Helper()
	w, err := newWorkload(b.agent, b.pod)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.MkdirAll(w.checkpointDir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.checkpointDir, "progress"), []byte("half"), 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.agent.workloads[b.pod.UID] = w
	return w
}

// told are the records that the catalog would get of something, merged as it does.
func told[T interface{ Merge(T) T }](b *bench, part string) (merged T, count int) {
	b.t.Helper()
	files, err := filepath.Glob(filepath.Join(b.base, "spool", "*.json"))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			b.t.Fatal(err)
		}
		var e spool.Entry
		if err := json.Unmarshal(data, &e); err != nil {
			b.t.Fatal(err)
		}
		if !strings.Contains(e.Path, part) {
			continue
		}
		var update T
		if err := json.Unmarshal(e.Body, &update); err != nil {
			b.t.Fatal(err)
		}
		merged = merged.Merge(update)
		count++
	}
	return merged, count
}

func TestANoticeDoesNotWaitForAPeriodicCheckpointThatTakesLong(t *testing.T) {
	b := newBench(t)
	close(b.agent.synced)
	b.store.periodic = time.Hour
	w := b.accompanied()
	periodic := make(chan struct{})
	go func() { defer close(periodic); w.periodic(t.Context()) }()
	time.Sleep(50 * time.Millisecond) // it is under way
	begun := time.Now()
	if !b.agent.HandleNotice(t.Context(), noticeFor(b.agent, 30*time.Second)) {
		t.Error("something is not saved")
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the notice took %s", took)
	}
	<-periodic
}

func TestAStoreThatIsAwayForAMomentCostsNothing(t *testing.T) {
	b := newBench(t)
	close(b.agent.synced)
	b.accompanied()
	b.store.away = 3
	if !b.agent.HandleNotice(t.Context(), noticeFor(b.agent, 30*time.Second)) {
		t.Error("something is not saved")
	}
	if i, _ := told[catalog.Interruption](b, "/interruptions/"); i.CheckpointedAt.IsZero() {
		t.Errorf("the checkpoint on the notice was not made: %+v", i)
	}
}

func TestAStoreThatHangsDoesNotKeepThePodFromBeingEvicted(t *testing.T) {
	b := newBench(t)
	close(b.agent.synced)
	b.accompanied()
	b.store.hangs = true
	b.store.away = 1 << 20
	n := noticeFor(b.agent, 3*time.Second)
	b.agent.HandleNotice(t.Context(), n)
	i, _ := told[catalog.Interruption](b, "/interruptions/")
	if i.EvictedAt.IsZero() || !i.EvictedAt.Before(n.Deadline) || i.Outcome != outcomeLost {
		t.Errorf("evicted at %s, deadline %s, outcome %q; want it before, and lost", i.EvictedAt, n.Deadline, i.Outcome)
	}
}

func TestAPodThatComesWhenItsMachineIsToBeTakenIsInterruptedToo(t *testing.T) {
	for name, after := range map[string]bool{"while the notice is acted upon": false, "after all others have gone": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			close(b.agent.synced)
			n := noticeFor(b.agent, 30*time.Second)
			handled := make(chan bool)
			go func() { handled <- b.agent.HandleNotice(t.Context(), n) }()
			if after {
				<-handled
			}
			b.agent.observe(t.Context(), b.pod, false)
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				if i, _ := told[catalog.Interruption](b, "/interruptions/"); !i.EvictedAt.IsZero() {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("the pod was left alone")
				}
			}
			if !after {
				<-handled
			}
		})
	}
}

// runsOn never stops by itself, only when the agent stops it.
type runsOn struct {
	stoppedContainers
	mu      sync.Mutex
	stopped bool
}

func (c *runsOn) Stopped(context.Context, string, string) (time.Time, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now(), c.stopped, nil
}

func (c *runsOn) Stop(context.Context, string, string, time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	return nil
}

func TestAContainerThatTheKubeletDoesNotStopIsStoppedByTheAgent(t *testing.T) {
	b := newBench(t)
	b.containers = &runsOn{}
	b.restart()
	close(b.agent.synced)
	b.accompanied()
	if !b.agent.HandleNotice(t.Context(), noticeFor(b.agent, 20*time.Second)) {
		t.Error("something is not saved")
	}
}

func TestALastCheckpointIsWaitedForNoLongerWhenTheClockOfWhoMadeItIsAhead(t *testing.T) {
	b := newBench(t)
	w := b.accompanied()
	if _, err := b.store.Store.Save(t.Context(), w.run, w.checkpointDir, checkpoint.SaveOptions{Meta: map[string]string{metaFinal: "pending"}}); err != nil {
		t.Fatal(err)
	}
	b.store.ahead = 10 * time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, found, err := w.restoreOnce(ctx); err != nil || !found {
		t.Errorf("restored %t, %v", found, err)
	}
}

func TestARestoreWaitsForAStoreThatIsAway(t *testing.T) {
	b := newBench(t)
	w := b.accompanied()
	if _, err := b.store.Store.Save(t.Context(), w.run, w.checkpointDir, checkpoint.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	b.store.away = 2
	if _, found, err := w.restoreOnce(t.Context()); err != nil || !found {
		t.Errorf("restored %t, %v", found, err)
	}
}

func TestTheNextNodesAgentTellsOfAnInterruptionWhatTheMachineThatIsGoneCouldNot(t *testing.T) {
	b := newBench(t)
	close(b.agent.synced)
	b.accompanied()
	b.agent.HandleNotice(t.Context(), noticeFor(b.agent, 30*time.Second))
	want, _ := told[catalog.Interruption](b, "/interruptions/")
	if want.WorkLostSeconds == nil {
		t.Fatalf("%+v", want)
	}
	// Another machine, with nothing on its disk, and the pod that goes on there.
	if err := os.RemoveAll(filepath.Join(b.base, "spool")); err != nil {
		t.Fatal(err)
	}
	b.pod = b.pod.DeepCopy()
	b.pod.UID, b.pod.Name = "uid-2", "bench-2"
	b.restart()
	b.accompanied().restore(t.Context())
	got, _ := told[catalog.Interruption](b, "/interruptions/e-1")
	if got.RestoredAt.IsZero() {
		t.Error("it is not told that the checkpoint was restored")
	}
	got.RestoredAt = time.Time{}
	want.TaintedAt = time.Time{} // the one thing that no checkpoint knows
	gotJSON, _ := json.Marshal(got)
	wantJSON, _ := json.Marshal(want)
	if string(gotJSON) != string(wantJSON) {
		t.Errorf("told\n%s, want\n%s", gotJSON, wantJSON)
	}
	if segment, _ := told[catalog.Segment](b, "/segments/uid-1"); segment.EndedAt.IsZero() || segment.Node != "n1" {
		t.Errorf("segment of the pod that was interrupted: %+v", segment)
	}
}

func TestAnAgentThatWasKilledHasItsRecordsFinishedByTheNext(t *testing.T) {
	b := newBench(t)
	close(b.agent.synced)
	w := b.accompanied()
	w.started()
	n := noticeFor(b.agent, time.Minute)
	if !w.claim(n) {
		t.Fatal("not claimed")
	}
	saved, err := w.saveForNotice(t.Context(), Plan{Deadline: n.Deadline, Grace: time.Second}, n.ID, catalog.Interruption{})
	if err != nil {
		t.Fatal(err)
	}
	noticeAt := time.Now().UTC().Add(-5 * time.Second)
	w.record(n.ID, catalog.Interruption{Kind: "spot", Node: "n1", PodUID: "uid-1", NoticeAt: noticeAt, CheckpointGeneration: saved.Number})
	// Here it is killed; the pod is evicted and gone when the next agent comes.
	if err := b.client.CoreV1().Pods("default").Delete(t.Context(), "bench", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	b.restart()
	b.agent.settleLeftovers(t.Context())
	b.agent.living.Wait()
	i, _ := told[catalog.Interruption](b, "/interruptions/e-1")
	if i.WorkLostSeconds == nil || *i.WorkLostSeconds > 1 || i.Outcome != outcomeSaved || !i.NoticeAt.Equal(noticeAt) {
		t.Errorf("interruption %+v, want it saved with less than a second lost", i)
	}
	if segment, _ := told[catalog.Segment](b, "/segments/uid-1"); segment.EndedAt.IsZero() {
		t.Errorf("segment %+v has no end", segment)
	}
	if run, _ := told[catalog.Run](b, "/runs/default%2Fsweep"); run.Status != catalog.Interrupted {
		t.Errorf("the run is %s", run.Status)
	}
	if left, err := b.agent.journal.all(); err != nil || len(left) != 0 {
		t.Errorf("the journal still has %v, %v", left, err)
	}
}

func TestAnAgentThatIsStartedAgainGoesOnWithTheInterruptionAsItWasFirstSeen(t *testing.T) {
	b := newBench(t)
	w := b.accompanied()
	w.started()
	n := noticeFor(b.agent, time.Minute)
	w.claim(n)
	first := n.SeenAt.Add(-3 * time.Second).UTC()
	w.record(n.ID, catalog.Interruption{Kind: "spot", Node: "n1", PodUID: "uid-1", NoticeAt: first})
	b.restart()
	b.agent.observe(t.Context(), b.pod, false)
	close(b.agent.synced)
	b.agent.HandleNotice(t.Context(), noticeFor(b.agent, 30*time.Second))
	if i, _ := told[catalog.Interruption](b, "/interruptions/e-1"); !i.NoticeAt.Equal(first) || i.Outcome == "" {
		t.Errorf("%+v, want it from %s on", i, first)
	}
}

func TestWhatCannotBeReadOfTheJournalHidesNothingElse(t *testing.T) {
	j := journal{t.TempDir()}
	if err := j.put(journalEntry{Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "good"}}}); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"torn.json": `{"pod":`, "other.json": `{"pod":{"metadata":{"uid":"good"}}}`, "empty.json": "", "good.json.new": "{"} {
		if err := os.WriteFile(filepath.Join(j.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := j.all()
	if len(entries) != 1 || entries[0].Pod.UID != "good" {
		t.Errorf("%+v", entries)
	}
	for _, name := range []string{"torn", "other", "empty"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("the error does not name %s: %v", name, err)
		}
	}
	if _, found, err := j.get("unknown"); found || err != nil {
		t.Errorf("%t, %v", found, err)
	}
}

func TestWhoHasMostAtStakeIsSavedNext(t *testing.T) {
	turns := newTurns()
	for range savesAtOnce {
		if err := turns.acquire(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	var order []time.Duration
	var all sync.WaitGroup
	given, cancel := context.WithCancel(t.Context())
	all.Go(func() {
		if err := turns.acquire(given, time.Hour); err == nil {
			t.Error("a turn was given to one that had given up")
		}
	})
	for _, stake := range []time.Duration{3 * time.Second, time.Minute, 10 * time.Second} {
		all.Go(func() {
			if err := turns.acquire(t.Context(), stake); err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			order = append(order, stake)
			mu.Unlock()
			turns.release()
		})
	}
	for waiting := 0; waiting < 4; time.Sleep(time.Millisecond) {
		turns.mu.Lock()
		waiting = len(turns.waiting)
		turns.mu.Unlock()
	}
	cancel()
	for waiting := 4; waiting > 3; time.Sleep(time.Millisecond) {
		turns.mu.Lock()
		waiting = len(turns.waiting)
		turns.mu.Unlock()
	}
	turns.release()
	all.Wait()
	if want := []time.Duration{time.Minute, 10 * time.Second, 3 * time.Second}; !slices.Equal(order, want) {
		t.Errorf("saved in the order %v, want %v", order, want)
	}
}

func TestAPodWhoseEvictionTakesTooLongIsDeletedAndMarkedAsDisrupted(t *testing.T) {
	b := newBench(t)
	close(b.agent.synced)
	b.accompanied()
	marked := false
	b.client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		return action.GetSubresource() == "eviction", nil, context.DeadlineExceeded
	})
	b.client.PrependReactor("patch", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		patch, ok := action.(clienttesting.PatchAction)
		marked = ok && action.GetSubresource() == "status" && strings.Contains(string(patch.GetPatch()), string(corev1.DisruptionTarget))
		return true, b.pod, nil
	})
	if !b.agent.HandleNotice(t.Context(), noticeFor(b.agent, 30*time.Second)) {
		t.Error("something is not saved")
	}
	if _, err := b.client.CoreV1().Pods("default").Get(t.Context(), "bench", metav1.GetOptions{}); err == nil || !marked {
		t.Errorf("deleted %t, marked %t", err != nil, marked)
	}
}

func TestADisruptionBudgetCannotEatTheWindow(t *testing.T) {
	b := newBench(t)
	close(b.agent.synced)
	b.accompanied()
	var asked []time.Time
	var marked atomic.Bool
	var mu sync.Mutex
	b.client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if action.GetSubresource() != "eviction" {
			return false, nil, nil
		}
		mu.Lock()
		asked = append(asked, time.Now())
		mu.Unlock()
		return true, nil, apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 10)
	})
	b.client.PrependReactor("patch", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		patch, ok := action.(clienttesting.PatchAction)
		marked.Store(ok && action.GetSubresource() == "status" && strings.Contains(string(patch.GetPatch()), string(corev1.DisruptionTarget)))
		return true, b.pod, nil
	})
	var deleted time.Time
	var grace int64
	b.client.PrependReactor("delete", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		deleted = time.Now()
		grace = *action.(clienttesting.DeleteAction).GetDeleteOptions().GracePeriodSeconds
		return false, nil, nil
	})
	n := noticeFor(b.agent, 15*time.Second)
	if !b.agent.HandleNotice(t.Context(), n) {
		t.Error("something is not saved")
	}
	if len(asked) < 3 || !marked.Load() {
		t.Errorf("asked %d times, marked %t", len(asked), marked.Load())
	}
	if left := n.Deadline.Sub(deleted); deleted.IsZero() || left < 5*time.Second || left > 8*time.Second || grace != 1 {
		t.Errorf("deleted %s before the machine's end with a grace of %d s", left, grace)
	}
}
