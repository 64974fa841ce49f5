// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/spotbench/spotbench/pkg/agent/spool"
	"github.com/spotbench/spotbench/pkg/checkpoint"
	"github.com/spotbench/spotbench/pkg/interruption"
)

// store fails to save in the ways that the test says.
type store struct {
	*checkpoint.Store
	failing string // metaFinal of the checkpoints that fail
	saved   int
}

func (s *store) Save(ctx context.Context, run, dir string, o checkpoint.SaveOptions) (checkpoint.Saved, error) {
	if o.Meta[metaFinal] == s.failing {
		return checkpoint.Saved{}, errors.New("the store is full")
	}
	saved, err := s.Store.Save(ctx, run, dir, o)
	if err == nil {
		s.saved++
	}
	return saved, err
}

// stoppedContainers have stopped by the time anybody asks, or never do.
type stoppedContainers struct{ never bool }

func (c stoppedContainers) Stopped(context.Context, string, string) (time.Time, bool, error) {
	return time.Now(), !c.never, nil
}
func (stoppedContainers) Exec(context.Context, string, string, []string) error         { return nil }
func (stoppedContainers) Signal(context.Context, string, string, syscall.Signal) error { return nil }
func (stoppedContainers) Stop(context.Context, string, string, time.Duration) error    { return nil }

func TestTheCloudMayBeToldToGoAheadOnlyOnceAllIsSaved(t *testing.T) {
	tests := map[string]struct {
		failing    string
		containers stoppedContainers
		deadline   time.Duration
		want       bool
		saved      int // checkpoints that are whole: one on the notice, one of what was written on the way out
	}{
		"both checkpoints are whole":                     {deadline: time.Minute, want: true, saved: 2},
		"the one on the notice failed, but not the last": {failing: "pending", deadline: 6 * time.Second, want: true, saved: 1},
		"the last one failed":                            {failing: "done", deadline: 6 * time.Second, want: false, saved: 1},
		"the workload does not stop":                     {containers: stoppedContainers{never: true}, deadline: time.Second, want: false, saved: 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := t.TempDir()
			opened, err := checkpoint.Open(t.Context(), checkpoint.Options{URL: "file://" + filepath.Join(base, "store")})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = opened.Close() })
			queue, err := spool.Open(filepath.Join(base, "spool"), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			grace := int64(1)
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "bench", Namespace: "default", UID: "uid-1", Annotations: map[string]string{"spotbench.dev/checkpoint-path": "/checkpoint"}},
				Spec: corev1.PodSpec{NodeName: "n1", TerminationGracePeriodSeconds: &grace,
					Containers: []corev1.Container{{Name: "main", VolumeMounts: []corev1.VolumeMount{{Name: "c", MountPath: "/checkpoint"}}}},
					Volumes:    []corev1.Volume{{Name: "c", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}}}
			saves := &store{Store: opened, failing: tt.failing}
			if tt.failing == "" {
				saves.failing = "none"
			}
			a, err := New(Config{Node: "n1", KubeletRoot: base, HoldDir: filepath.Join(base, "hold"), JournalDir: filepath.Join(base, "journal")},
				FakeCluster{fake.NewSimpleClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, pod)},
				saves, tt.containers, nil, queue, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
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
			n := interruption.Notice{ID: "e-1", Kind: interruption.KindSpot, Action: "terminate", SeenAt: time.Now(), Deadline: time.Now().Add(tt.deadline)}
			a.Heed(interruption.Event{Notice: n})
			if got := a.HandleNotice(t.Context(), n); got != tt.want || saves.saved != tt.saved {
				t.Errorf("HandleNotice %t with %d whole checkpoints, want %t with %d", got, saves.saved, tt.want, tt.saved)
			}
		})
	}
}
