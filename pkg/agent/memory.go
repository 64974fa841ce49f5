// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	corev1 "k8s.io/api/core/v1"

	"github.com/spotbench/spotbench/pkg/agent/transparent"
	"github.com/spotbench/spotbench/pkg/checkpoint"
	"github.com/spotbench/spotbench/pkg/telemetry/monitor"
)

// memories is what is known of checkpoints of whole containers on this node.
type memories struct {
	// one has them made one after the other: each is held against the room that is left.
	one        *semaphore.Weighted
	mu         sync.Mutex
	node       transparent.Node
	err        error // why the node is unknown
	looked     bool
	dump, send float64 // bytes a second, see transparent.Room
}

// leastMeasured is how much must have been sent for the time to say how fast the store
// is: less is mostly waiting.
const leastMeasured = 8 << 20

// sent takes in how long a checkpoint took to reach the store.
func (m *memories) sent(bytes int64, took time.Duration) {
	if bytes < leastMeasured || took <= 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.send = float64(bytes) / took.Seconds()
}

// askMemory is the time that the runtime gets to say what a container has in memory: one
// that does not answer that will not checkpoint it either.
const askMemory = 2 * time.Second

func (m *memories) dumped(bytes int64, took time.Duration) {
	if bytes <= 0 || took <= 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dump = float64(bytes) / took.Seconds()
}

// lookForMemories finds out what the node has and how fast its disk is, before there is
// no time for it.
func (a *Agent) lookForMemories(ctx context.Context) {
	node, err := a.cfg.Memories.Node(ctx)
	rate, diskErr := transparent.MeasureDisk(a.cfg.HoldDir)
	a.memories.mu.Lock()
	a.memories.node, a.memories.err, a.memories.looked = node, errors.Join(err, diskErr), true
	a.memories.dump = rate / transparent.Copies
	a.memories.mu.Unlock()
	log := a.log.With("runtime", node.Runtime, "version", node.Version, "criu", node.CRIU, "diskBytesPerSecond", int64(rate))
	switch missing := node.Missing(transparent.Container{}); {
	case err != nil || diskErr != nil:
		log.Warn("containers cannot be checkpointed", "error", errors.Join(err, diskErr))
	case missing != nil:
		log.Warn("containers cannot be checkpointed", "error", missing)
	default:
		log.Info("containers can be checkpointed", "cudaPlugin", node.CUDAPlugin, "cudaCheckpoint", node.CUDACheckpoint)
	}
}

// MemoryRun is the run under which the checkpoints of a run's container are kept, apart
// from those of its directory. No pod can name it: a run's key has one slash.
func MemoryRun(run string) string { return run + "/container" }

// saveMemory makes a checkpoint of the whole container, where that is turned on, if the
// node can do it and if it fits into the time before the pod must be told to stop. The
// checkpoint of the directory has been made before: nothing else depends on this one.
func (w *workload) saveMemory(ctx context.Context, plan Plan, notice string) {
	if w.a.cfg.Memories == nil {
		return
	}
	pod, _, _ := w.state()
	ctx, cancel := context.WithDeadline(ctx, plan.SaveUntil(time.Now()))
	defer cancel()
	saved, took, err := w.trySaveMemory(ctx, pod, notice)
	if err != nil {
		w.log.Warn("the container was not checkpointed", "notice", notice, "phase", "container checkpoint", "error", err)
		w.a.events.Eventf(pod, corev1.EventTypeWarning, "ContainerNotCheckpointed", "%v", err)
		return
	}
	run := MemoryRun(w.run)
	w.log.Info("the container was checkpointed", "notice", notice, "phase", "container checkpoint", "generation", saved.Number, "bytes", saved.Bytes, "uploaded", saved.Uploaded, "seconds", took.Seconds())
	w.a.events.Eventf(pod, corev1.EventTypeNormal, "ContainerCheckpointed", "%d bytes of the container %s are checkpoint %d of %s", saved.Bytes, mainContainer(pod), saved.Number, run)
}

func (w *workload) trySaveMemory(ctx context.Context, pod *corev1.Pod, notice string) (checkpoint.Saved, time.Duration, error) {
	none := func(err error) (checkpoint.Saved, time.Duration, error) { return checkpoint.Saved{}, 0, err }
	start := time.Now()
	m := &w.a.memories
	m.mu.Lock()
	node, looked, unknown := m.node, m.looked, m.err
	room := transparent.Room{Dump: m.dump, Send: m.send}
	m.mu.Unlock()
	switch {
	case !looked:
		return none(errors.New("what the node has for it is not known yet"))
	case unknown != nil:
		return none(unknown)
	}
	container, err := w.inMemory(ctx, pod)
	if missing := node.Missing(container); missing != nil {
		return none(missing)
	}
	if err != nil {
		return none(err)
	}
	if err := m.one.Acquire(ctx, 1); err != nil {
		return none(errors.New("the checkpoints of other containers took all the time there was"))
	}
	defer m.one.Release(1)
	if room.Disk, room.Memory, err = transparent.Free(w.a.cfg.HoldDir); err != nil {
		return none(err)
	}
	deadline, _ := ctx.Deadline()
	room.Time = time.Until(deadline)
	if err := room.Fits(container); err != nil {
		return none(err)
	}
	// On the node under the same path: it is the runtime that writes there.
	dir, err := os.MkdirTemp(w.a.cfg.HoldDir, "container-*")
	if err != nil {
		return none(err)
	}
	defer os.RemoveAll(dir)
	dumping := time.Now()
	if err := w.a.cfg.Memories.Checkpoint(ctx, string(pod.UID), mainContainer(pod), filepath.Join(dir, "checkpoint.tar")); err != nil {
		return none(err)
	}
	m.dumped(container.Bytes(), time.Since(dumping))
	// After the directories that still wait: nothing else depends on this one.
	if err := w.a.turns.acquire(ctx, 0); err != nil {
		return none(err)
	}
	defer w.a.turns.release()
	saved, err := w.a.checkpoints.Save(ctx, MemoryRun(w.run), dir, checkpoint.SaveOptions{Urgent: true,
		Meta: map[string]string{metaNode: w.a.cfg.Node, metaPod: pod.Name, metaNotice: notice}})
	w.a.checkpoints.Forget(MemoryRun(w.run))
	if err != nil {
		return none(fmt.Errorf("its checkpoint did not reach the store: %w", err))
	}
	return saved, time.Since(start), nil
}

// inMemory is what the pod's main container has in memory, its GPUs' included.
func (w *workload) inMemory(ctx context.Context, pod *corev1.Pod) (transparent.Container, error) {
	c := transparent.Container{Wanted: gpusOf(mainSpec(pod))}
	if summary, ok := w.a.telemetry.Summary(monitor.Pod{Namespace: pod.Namespace, Name: pod.Name}); ok {
		for _, g := range summary.GPUs {
			if g.MemoryUsedBytes != nil {
				c.GPUs = append(c.GPUs, transparent.GPU{Driver: g.Driver, MIG: g.MIG != nil, Memory: int64(g.MemoryUsedBytes.Max)})
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, askMemory)
	defer cancel()
	var err error
	c.Memory, err = w.a.cfg.Memories.Memory(ctx, string(pod.UID), mainContainer(pod))
	return c, err
}

// gpusOf is how many GPUs, or parts of one, a container asks for.
func gpusOf(c *corev1.Container) int64 {
	var total int64
	for name, quantity := range c.Resources.Limits {
		if strings.HasPrefix(string(name), "nvidia.com/") {
			total += quantity.Value()
		}
	}
	return total
}
