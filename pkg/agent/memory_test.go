// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/tools/record"

	"github.com/spotbench/spotbench/pkg/agent/transparent"
	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/checkpoint"
)

// runtimeWithCRIU is a container runtime that can checkpoint, as the test says.
type runtimeWithCRIU struct {
	node   transparent.Node
	memory int64
	err    error
	hangs  bool
}

func (r *runtimeWithCRIU) Node(context.Context) (transparent.Node, error) { return r.node, nil }

func (r *runtimeWithCRIU) Memory(context.Context, string, string) (int64, error) {
	return r.memory, nil
}

func (r *runtimeWithCRIU) Checkpoint(ctx context.Context, _, _, to string) error {
	if r.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	if r.err != nil {
		return r.err
	}
	return os.WriteFile(to, []byte("all its memory"), 0o600)
}

// interrupted is what a notice does to a pod whose container has so much in memory.
func (b *bench) interrupted(memories Memories, window time.Duration, change func(*bench)) (events []string, i catalog.Interruption, deadline time.Time) {
	b.t.Helper()
	b.agent.cfg.Memories = memories
	recorder := record.NewFakeRecorder(100)
	b.agent.events = recorder
	close(b.agent.synced)
	w := b.accompanied()
	if memories != nil {
		b.agent.lookForMemories(b.t.Context())
		// A checkpoint that was made before tells how fast the store is.
		random := make([]byte, leastMeasured)
		_, _ = rand.Read(random)
		if err := os.WriteFile(filepath.Join(w.checkpointDir, "weights"), random, 0o600); err != nil {
			b.t.Fatal(err)
		}
		w.periodic(b.t.Context())
	}
	if change != nil {
		change(b)
	}
	n := noticeFor(b.agent, window)
	b.agent.HandleNotice(b.t.Context(), n)
	close(recorder.Events)
	for e := range recorder.Events {
		events = append(events, e)
	}
	i, _ = told[catalog.Interruption](b, "/interruptions/")
	return events, i, n.Deadline
}

func TestOnANoticeTheContainerIsCheckpointedWhereTheNodeCanAndTimeIsEnough(t *testing.T) {
	able := transparent.Node{Runtime: "containerd", Version: "2.1.5", CRIU: "4.1.1"}
	for name, c := range map[string]struct {
		runtime *runtimeWithCRIU // nil: turned off
		window  time.Duration
		change  func(*bench)
		want    string // in the event
		saved   bool
	}{
		"it is off unless it is turned on": {window: 30 * time.Second},
		"all is there":                     {runtime: &runtimeWithCRIU{node: able, memory: 1 << 20}, window: 30 * time.Second, want: "Normal ContainerCheckpointed 14 bytes of the container main are checkpoint 1 of default/sweep/container", saved: true},
		"the node cannot": {
			runtime: &runtimeWithCRIU{node: transparent.Node{Runtime: "containerd", Version: "1.6.20~ds1"}, memory: 1 << 20}, window: 30 * time.Second,
			want: "Warning ContainerNotCheckpointed containerd 1.6.20~ds1 cannot checkpoint a container, 2.0 can\nthe node has no criu"},
		"the window is too small for what is in memory": {
			runtime: &runtimeWithCRIU{node: able, memory: 1 << 40}, window: 30 * time.Second,
			change: func(b *bench) { b.agent.memories.dump, b.agent.memories.send = 1<<30, 1<<30 },
			want:   "Warning ContainerNotCheckpointed it needs 4096.0 GiB of disk"},
		"the store is too slow for what is in memory": {
			runtime: &runtimeWithCRIU{node: able, memory: 100 << 20}, window: 30 * time.Second,
			change: func(b *bench) { b.agent.memories.send = 1 << 20 },
			want:   "Warning ContainerNotCheckpointed 100 MiB of memory would take"},
		"nothing has been sent before": {
			runtime: &runtimeWithCRIU{node: able, memory: 1 << 20}, window: 30 * time.Second,
			change: func(b *bench) { b.agent.memories.send = 0 },
			want:   "Warning ContainerNotCheckpointed how fast the disk and the store are has not been measured yet"},
		"a GPU that nobody reads": {
			runtime: &runtimeWithCRIU{node: able, memory: 1 << 20}, window: 30 * time.Second,
			change: func(b *bench) {
				b.pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("1")}
			},
			want: "Warning ContainerNotCheckpointed criu has no plugin for CUDA (cuda_plugin.so)\nthe node has no cuda-checkpoint\nthe memory in use is known of 0 of its 1 GPUs"},
		"the runtime fails": {
			runtime: &runtimeWithCRIU{node: able, memory: 1 << 20, err: errors.New("criu failed: type NOTIFY errno 0")}, window: 30 * time.Second,
			want: "Warning ContainerNotCheckpointed criu failed: type NOTIFY errno 0"},
		"the runtime hangs": {
			runtime: &runtimeWithCRIU{node: able, memory: 1 << 20, hangs: true}, window: 10 * time.Second,
			want: "Warning ContainerNotCheckpointed context deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			var memories Memories
			if c.runtime != nil {
				memories = c.runtime
			}
			events, i, deadline := b.interrupted(memories, c.window, c.change)
			var about []string
			for _, e := range events {
				if strings.Contains(e, " Container") {
					about = append(about, e)
				}
			}
			if got := strings.Join(about, "; "); !strings.HasPrefix(got, c.want) || (got == "") != (c.want == "") {
				t.Errorf("the pod's events are %q, want %q", got, c.want)
			}
			// Whatever becomes of the container's, the directory's checkpoint is made before
			// and the pod leaves in time.
			if i.CheckpointedAt.IsZero() || i.Outcome != outcomeSaved || i.EvictedAt.After(deadline) {
				t.Errorf("the directory was saved at %s and the pod evicted at %s, by %s; outcome %q", i.CheckpointedAt, i.EvictedAt, deadline, i.Outcome)
			}
			into := t.TempDir()
			_, found, err := b.store.Restore(t.Context(), MemoryRun("default/sweep"), into, checkpoint.RestoreOptions{})
			if err != nil || found != c.saved {
				t.Fatalf("the store has a checkpoint of the container: %t (%v), want %t", found, err, c.saved)
			}
			if content, err := os.ReadFile(filepath.Join(into, "checkpoint.tar")); c.saved && string(content) != "all its memory" {
				t.Errorf("the store has %q (%v)", content, err)
			}
			if left, err := filepath.Glob(filepath.Join(b.base, "hold", "container-*")); err != nil || len(left) > 0 {
				t.Errorf("on the disk is left %v (%v)", left, err)
			}
		})
	}
}
