// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/spotbench/spotbench/pkg/agent/rendezvous"
	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/checkpoint"
	"github.com/spotbench/spotbench/pkg/telemetry/monitor"
)

// restore writes the run's newest checkpoint into the pod's volume and tells its
// init container. A pod that was told already (the agent was restarted) is left alone.
// A notice ends it, as the pod is to leave; if that is withdrawn, it begins again.
func (w *workload) restore(ctx context.Context) {
	pod, _, _ := w.state()
	if told, ok := rendezvous.Announced(w.checkpointDir); ok && told.PodUID == string(pod.UID) && told.Error == "" {
		return
	}
	for w.awaitSpared(ctx) {
		restored, found, err := w.restoreOnce(ctx)
		if errors.Is(err, errNoticeCame) {
			w.log.Info("the restore is given up because of a notice")
			continue
		}
		w.announce(restored, found, err)
		return
	}
}

// awaitSpared waits until no notice is about to take the pod; false if it ends.
func (w *workload) awaitSpared(ctx context.Context) bool {
	for {
		pod, gone, changed := w.state()
		switch {
		case ended(pod, gone) || ctx.Err() != nil:
			return false
		case w.currentNotice() == "":
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (w *workload) restoreOnce(ctx context.Context) (checkpoint.Restored, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, w.a.cfg.RestoreTimeout)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	// What is half restored must not be saved.
	select {
	case w.saving <- struct{}{}:
	case <-ctx.Done():
		return checkpoint.Restored{}, false, context.Cause(ctx)
	}
	defer func() { <-w.saving }()
	if !w.begin(stop) {
		return checkpoint.Restored{}, false, errNoticeCame
	}
	restored, found, err := w.restoreNewest(ctx)
	if errors.Is(context.Cause(ctx), errNoticeCame) && err != nil {
		return restored, false, errNoticeCame
	}
	if err == nil && found {
		pod, _, _ := w.state()
		err = giveTo(w.checkpointDir, pod)
	}
	return restored, found, err
}

// announce tells everybody how the restore went.
func (w *workload) announce(restored checkpoint.Restored, found bool, err error) {
	pod, _, _ := w.state()
	outcome := rendezvous.Outcome{PodUID: string(pod.UID), Restored: found, Generation: restored.Number, Files: restored.Files,
		Bytes: restored.Bytes, FromNode: restored.Meta[metaNode], Damaged: restored.Damaged}
	if err != nil {
		outcome.Error = err.Error()
		w.log.Error("the checkpoint could not be restored", "error", err)
		w.a.events.Eventf(pod, corev1.EventTypeWarning, "RestoreFailed", "the checkpoint could not be restored: %v", err)
	}
	if err := rendezvous.Announce(w.checkpointDir, outcome); err != nil {
		w.log.Error("the init container could not be told of the restore", "error", err)
		return
	}
	for i, generation := range restored.Damaged {
		w.log.Error("a checkpoint is damaged and was passed over", "generation", generation, "error", restored.Reasons[i])
		w.a.events.Eventf(pod, corev1.EventTypeWarning, "CheckpointDamaged", "checkpoint %d is passed over: %v", generation, restored.Reasons[i])
	}
	if outcome.Error != "" || !found {
		return
	}
	w.mu.Lock()
	w.restored, w.newest = restored, restored.Generation
	w.mu.Unlock()
	w.log.Info("restored", "generation", restored.Number, "files", restored.Files, "bytes", restored.Bytes, "fromNode", outcome.FromNode, "damaged", restored.Damaged)
	w.a.events.Eventf(pod, corev1.EventTypeNormal, "Restored", "checkpoint %d made on %s is restored: %d files, %d bytes", restored.Number, outcome.FromNode, restored.Files, restored.Bytes)
	interruption, before, interrupted := handedOver(restored)
	if !interrupted {
		return
	}
	// First the run: a catalog that was down all the time knows it only from here.
	w.a.records.run(w.run, w.runRecord(catalog.Running))
	if interruption.PodUID != "" {
		w.a.records.segment(w.run, interruption.PodUID, before)
	}
	interruption.RestoredAt = time.Now().UTC()
	w.a.records.interruption(w.run, restored.Meta[metaNotice], interruption)
}

// restoreNewest restores the newest checkpoint, trying again while the store is away:
// the pod cannot start without it.
func (w *workload) restoreNewest(ctx context.Context) (checkpoint.Restored, bool, error) {
	began := time.Now()
	for said := false; ; said = true {
		restored, found, err := w.tryRestore(ctx, began)
		if err == nil || lasting(err) {
			return restored, found, err
		}
		if !said {
			w.log.Warn("the checkpoint cannot be restored yet; it is tried again", "error", err)
		}
		select {
		case <-time.After(restorePause):
		case <-ctx.Done():
			return restored, false, err
		}
	}
}

// restorePause is the time between two tries to restore.
const restorePause = time.Second

// lasting says that a restore would fail again: it is not the store that is away.
func lasting(err error) bool {
	for _, final := range []error{checkpoint.ErrDamaged, checkpoint.ErrKey, fs.ErrNotExist, syscall.ENOSPC} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}

// tryRestore waits a moment for a last checkpoint that was announced: the one that the
// other node makes once the workload there has stopped. That node's clock counts only
// as far as it does not make the wait longer.
func (w *workload) tryRestore(ctx context.Context, began time.Time) (checkpoint.Restored, bool, error) {
	for {
		latest, found, err := w.a.checkpoints.Latest(ctx, w.run)
		if err != nil || !found {
			return checkpoint.Restored{}, false, err
		}
		waited := max(time.Since(latest.CreatedAt), time.Since(began))
		if latest.Meta[metaFinal] != "pending" || waited > w.a.cfg.FinalSaveWait {
			pod, _, _ := w.state()
			return w.a.checkpoints.Restore(ctx, w.run, w.checkpointDir, checkpoint.RestoreOptions{Writer: string(pod.UID)})
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return checkpoint.Restored{}, false, context.Cause(ctx)
		}
	}
}

// giveTo makes the restored files the workload's own: the agent writes as root.
// Links are changed themselves and never followed.
func giveTo(dir string, pod *corev1.Pod) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("the owner of the volume is unknown")
	}
	uid, gid := int(stat.Uid), int(stat.Gid)
	if c := pod.Spec.SecurityContext; c != nil && c.RunAsUser != nil {
		uid = int(*c.RunAsUser)
	}
	if c := mainSpec(pod).SecurityContext; c != nil && c.RunAsUser != nil {
		uid = int(*c.RunAsUser)
	}
	// Below the root, because the pod may swap a directory for a link meanwhile.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		return root.Lchown(path, uid, gid)
	})
}

// started records that the pod's main container runs.
func (w *workload) started() {
	pod, _, _ := w.state()
	w.mu.Lock()
	restored := w.restored
	w.mu.Unlock()
	at := startedAt(pod)
	w.a.records.run(w.run, w.runRecord(catalog.Running))
	w.a.records.segment(w.run, string(pod.UID), w.segmentRecord(at, time.Time{}, restored.Number))
	if id := restored.Meta[metaNotice]; id != "" {
		w.a.records.interruption(w.run, id, catalog.Interruption{RunningAgainAt: mainStartedAt(pod)})
	}
	w.remember()
	w.log.Info("running", "restoredGeneration", restored.Number)
}

// finish records how the pod ended.
func (w *workload) finish() {
	pod, gone, _ := w.state()
	if !ended(pod, gone) {
		return // the agent stops, not the pod
	}
	w.reportTelemetry(true)
	w.a.telemetry.Forget(monitor.Pod{Namespace: pod.Namespace, Name: pod.Name})
	w.a.checkpoints.Forget(w.run)
	w.mu.Lock()
	restored := w.restored
	w.mu.Unlock()
	end := endedAt(pod)
	if !w.stoppedAt.IsZero() {
		end = w.stoppedAt.UTC()
	}
	status := w.endStatus(pod)
	run := w.runRecord(status)
	if status == catalog.Succeeded || status == catalog.Failed {
		run.FinishedAt = end
	}
	w.a.records.segment(w.run, string(pod.UID), w.segmentRecord(startedAt(pod), end, restored.Number))
	w.a.records.run(w.run, run)
	w.log.Info("ended", "status", status)
	w.over()
}

// endStatus is what the end of this pod means for the run: an interrupted one
// goes on in another pod.
func (w *workload) endStatus(pod *corev1.Pod) catalog.Status {
	if pod.Status.Phase == corev1.PodSucceeded {
		return catalog.Succeeded
	}
	if w.currentNotice() != "" {
		return catalog.Interrupted
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue {
			return catalog.Interrupted
		}
	}
	return catalog.Failed
}

func (w *workload) runRecord(status catalog.Status) catalog.Run {
	pod, _, _ := w.state()
	p := w.placement
	run := catalog.Run{
		Namespace: pod.Namespace, PodName: pod.Name, PodUID: string(pod.UID),
		Model: w.spec.Model, Benchmark: w.spec.Benchmark, Image: mainSpec(pod).Image, Status: status,
		GPUModel: p.GPUModel, GPUCount: p.GPUCount, Node: w.a.cfg.Node, Zone: p.Zone, Region: p.Region, InstanceType: p.InstanceType,
		CapacityType: p.CapacityType, USDPerHour: p.USDPerHour, OnDemandUSDPerHour: p.OnDemandUSDPerHour,
		PlacementReason: p.Reason, StartedAt: startedAt(pod),
	}
	if p.USDPerHour > 0 {
		run.PriceSource = "the scheduler's price book, at placement"
	}
	if s := mainStatus(pod); s != nil {
		run.ImageDigest = s.ImageID
	}
	return run
}

func (w *workload) segmentRecord(start, end time.Time, generation int64) catalog.Segment {
	pod, _, _ := w.state()
	segment := catalog.Segment{
		Node: w.a.cfg.Node, GPUModel: w.placement.GPUModel,
		Region: w.placement.Region, Zone: w.placement.Zone, InstanceType: w.placement.InstanceType, CapacityType: w.placement.CapacityType,
		USDPerHour: w.placement.USDPerHour, OnDemandUSDPerHour: w.placement.OnDemandUSDPerHour,
		StartedAt: start, EndedAt: end, RestoredGeneration: generation,
	}
	if summary, ok := w.a.telemetry.Summary(monitor.Pod{Namespace: pod.Namespace, Name: pod.Name}); ok {
		for _, g := range summary.GPUs {
			segment.GPUUUIDs = append(segment.GPUUUIDs, g.UUID)
		}
	}
	return segment
}

// startedAt is when the pod began to hold its GPUs.
func startedAt(pod *corev1.Pod) time.Time {
	if pod.Status.StartTime != nil {
		return pod.Status.StartTime.UTC()
	}
	return pod.CreationTimestamp.UTC()
}

func mainStartedAt(pod *corev1.Pod) time.Time {
	if s := mainStatus(pod); s != nil {
		if s.State.Running != nil {
			return s.State.Running.StartedAt.UTC()
		}
		if s.State.Terminated != nil {
			return s.State.Terminated.StartedAt.UTC()
		}
	}
	return time.Now().UTC()
}

func endedAt(pod *corev1.Pod) time.Time {
	if s := mainStatus(pod); s != nil && s.State.Terminated != nil && !s.State.Terminated.FinishedAt.IsZero() {
		return s.State.Terminated.FinishedAt.UTC()
	}
	return time.Now().UTC()
}

// signalNumber is the number of a signal that benchspec has accepted.
func signalNumber(name string) syscall.Signal { return unix.SignalNum(name) }
