// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/checkpoint"
	"github.com/spotbench/spotbench/pkg/interruption"
)

// Outcomes of an interruption, as the catalog has them.
const (
	outcomeSaved     = "saved"
	outcomeLost      = "lost"
	outcomeWithdrawn = "withdrawn"
)

// claim gives the pod to a notice, and ends a periodic checkpoint or a restore of it,
// which may take longer than is left. A pod that a sooner notice has already is left to
// that.
func (w *workload) claim(n interruption.Notice) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.notice != "" && !n.Deadline.Before(w.noticeDeadline) {
		return false
	}
	w.notice, w.noticeDeadline = n.ID, n.Deadline
	w.interrupting++
	if w.stopWork != nil {
		w.stopWork(errNoticeCame)
	}
	return true
}

// interrupt saves the pod, has it evicted, and saves what it wrote on its way out. It
// reports whether the pod has stopped with all that it wrote saved.
func (w *workload) interrupt(ctx context.Context, n interruption.Notice, h *hold) bool {
	if !w.claim(n) {
		w.log.Info("another notice takes the machine sooner; the pod is left to that", "notice", n.ID)
		return false
	}
	defer w.leave()
	ctx, cancel := context.WithDeadline(ctx, n.Deadline.Add(leastGrace))
	defer cancel()
	pod, _, _ := w.state()
	log := w.log.With("notice", n.ID)
	plan := Plan{Deadline: n.Deadline, Grace: grace(pod)}
	record := w.recorded(n.ID)
	if record.NoticeAt.IsZero() {
		record = catalog.Interruption{Kind: string(n.Kind), Node: w.a.cfg.Node, PodUID: string(pod.UID), NoticeAt: n.SeenAt.UTC()}
	}
	newest := w.newestGeneration(ctx)
	w.record(n.ID, record)

	var last checkpoint.Generation
	if w.checkpointDir != "" {
		saved, err := w.saveForNotice(ctx, plan, n.ID, record)
		switch {
		case errors.Is(err, checkpoint.ErrNothing):
			log.Info("there is nothing to save yet", "phase", "checkpoint")
		case err != nil:
			log.Error("the checkpoint failed; the one before it stays good", "phase", "checkpoint", "error", err)
			w.a.events.Eventf(pod, corev1.EventTypeWarning, "CheckpointFailed", "%v; the checkpoint before it stays good", err)
		default:
			last = saved.Generation
			record = w.checkpointed(n, record, saved, log)
		}
	}

	w.saveMemory(ctx, plan, n.ID)
	if !h.retries(ctx, pod.Name) && w.stay(ctx, plan) {
		record.WorkLostSeconds, record.Outcome = new(float64), outcomeSaved
		w.record(n.ID, record)
		log.Info("finished before the machine's end", "phase", "record", "outcome", record.Outcome)
		return true
	}
	granted, evicted := w.evict(ctx, plan, log.Info)
	if !evicted && errors.Is(context.Cause(ctx), errWithdrawn) {
		w.spared(n.ID)
		return false
	}
	// The pod is on its way out now, even if the notice is withdrawn or the agent stops.
	ctx, cancel = context.WithDeadline(context.WithoutCancel(ctx), plan.Deadline.Add(leastGrace))
	defer cancel()
	record.EvictedAt = time.Now().UTC()
	w.record(n.ID, record)
	stopped := w.awaitStopped(ctx, time.Now().Add(granted+stopSlack), func() { w.stop(ctx, plan) })
	whole := ctx.Err() == nil
	if w.checkpointDir != "" {
		if saved, err := w.saveAfterStop(ctx, w.noticeMeta(n.ID, "done", record, stopped)); err != nil {
			whole = whole && errors.Is(err, checkpoint.ErrNothing)
			log.Warn("what the workload wrote on its way out is not saved", "phase", "final checkpoint", "error", err)
		} else {
			last = saved.Generation
			record.CheckpointGeneration, record.CheckpointBytes = saved.Number, saved.Bytes
			log.Info("checkpointed what the workload wrote on its way out", "phase", "final checkpoint", "generation", saved.Number, "uploaded", saved.Uploaded)
		}
	}
	if last.Number == 0 {
		last = newest()
	}
	w.conclude(n.ID, record, stopped, last)
	return whole
}

// checkpointed tells everybody that the checkpoint on the notice is whole.
func (w *workload) checkpointed(n interruption.Notice, record catalog.Interruption, saved checkpoint.Saved, log *slog.Logger) catalog.Interruption {
	pod, _, _ := w.state()
	now := time.Now()
	took := now.Sub(n.SeenAt).Seconds()
	record.CheckpointedAt, record.CheckpointGeneration, record.CheckpointBytes = now.UTC(), saved.Number, saved.Bytes
	log.Info("checkpointed", "phase", "checkpoint", "generation", saved.Number, "files", saved.Files, "bytes", saved.Bytes, "uploaded", saved.Uploaded, "seconds", took)
	w.a.metrics.noticeToCheckpoint.Observe(took)
	w.a.events.Eventf(pod, corev1.EventTypeNormal, "Checkpointed", "checkpoint %d is whole, %.1f s after the notice: %d files, %d bytes",
		saved.Number, took, saved.Files, saved.Bytes)
	if age := n.SeenAt.Sub(saved.NewestFile); age > 0 && w.asks() {
		// It is whole, and newer than the notice, but what the workload put in is not.
		log.Warn("the workload wrote nothing when it was asked to save its state", "phase", "checkpoint", "newestFileSecondsBeforeNotice", age.Seconds())
		w.a.events.Eventf(pod, corev1.EventTypeWarning, "CheckpointStale", "checkpoint %d holds what was written %.1f s before the notice: the workload wrote nothing when it was asked to", saved.Number, age.Seconds())
	}
	w.record(n.ID, record)
	return record
}

// conclude records what became of an interrupted pod's work.
func (w *workload) conclude(notice string, record catalog.Interruption, stopped time.Time, last checkpoint.Generation) {
	lost := w.workLost(stopped, last)
	record.WorkLostSeconds, record.Outcome = &lost, outcomeSaved
	if last.Number == 0 {
		record.Outcome = outcomeLost
	}
	w.a.metrics.workLost.Add(lost)
	w.record(notice, record)
	w.log.Info("interruption recorded", "notice", notice, "phase", "record", "outcome", record.Outcome, "workLostSeconds", lost)
}

// record tells the catalog what is known of the interruption, and the journal.
func (w *workload) record(notice string, record catalog.Interruption) {
	w.a.records.interruption(w.run, notice, record)
	w.mu.Lock()
	w.interruption = record
	w.mu.Unlock()
	w.remember()
}

// recorded is what was recorded of the interruption by an agent before this one.
func (w *workload) recorded(notice string) catalog.Interruption {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.noticeBefore != notice {
		return catalog.Interruption{}
	}
	return w.interruption
}

// spared records that the notice was withdrawn before the pod was told to stop.
func (w *workload) spared(notice string) {
	w.mu.Lock()
	if w.notice == notice {
		w.notice, w.noticeDeadline = "", time.Time{}
	}
	close(w.changed)
	w.changed = make(chan struct{})
	w.mu.Unlock()
	w.record(notice, catalog.Interruption{Outcome: outcomeWithdrawn})
	w.log.Info("the notice was withdrawn; the benchmark stays", "notice", notice)
}

func grace(pod *corev1.Pod) time.Duration {
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return corev1.DefaultTerminationGracePeriodSeconds * time.Second
}

// newestGeneration finds the run's newest checkpoint. What this agent has saved or
// restored it knows; otherwise the store is asked meanwhile, as it may hang.
func (w *workload) newestGeneration(ctx context.Context) func() checkpoint.Generation {
	w.mu.Lock()
	known := w.newest
	w.mu.Unlock()
	if w.checkpointDir == "" || known.Number != 0 {
		return func() checkpoint.Generation { return known }
	}
	asked := make(chan checkpoint.Generation, 1)
	go func() {
		latest, _, err := w.a.checkpoints.Latest(ctx, w.run)
		if err != nil {
			w.log.Warn("the newest checkpoint is unknown", "error", err)
		}
		asked <- latest
	}()
	return func() checkpoint.Generation {
		select {
		case latest := <-asked:
			return latest
		case <-ctx.Done():
			return checkpoint.Generation{}
		}
	}
}

func (w *workload) saveForNotice(ctx context.Context, plan Plan, notice string, record catalog.Interruption) (checkpoint.Saved, error) {
	prepare, cancel := context.WithDeadline(ctx, plan.PrepareUntil(time.Now()))
	w.prepare(prepare)
	cancel()
	ctx, cancel = context.WithDeadline(ctx, plan.SaveUntil(time.Now()))
	defer cancel()
	return w.insist(ctx, w.checkpointDir, checkpoint.SaveOptions{Meta: w.noticeMeta(notice, "pending", record, time.Time{})})
}

// saveAfterStop saves what the workload wrote between the checkpoint and its end.
// The kubelet removes the volume now, so its files are first held by links of
// their own.
func (w *workload) saveAfterStop(ctx context.Context, meta map[string]string) (checkpoint.Saved, error) {
	held, err := os.MkdirTemp(w.a.cfg.HoldDir, "final-*")
	if err != nil {
		return checkpoint.Saved{}, err
	}
	defer os.RemoveAll(held)
	if err := w.a.checkpoints.Hold(w.run, w.checkpointDir, held); err != nil {
		return checkpoint.Saved{}, err
	}
	return w.insist(ctx, held, checkpoint.SaveOptions{Meta: meta})
}

// workLost is the time between the newest progress that a whole checkpoint holds
// and the moment the workload stopped; without any, all the time it ran.
func (w *workload) workLost(stopped time.Time, last checkpoint.Generation) float64 {
	pod, _, _ := w.state()
	kept := mainStartedAt(pod)
	if last.Number != 0 && last.NewestFile.After(kept) {
		kept = last.NewestFile
	}
	return max(0, stopped.Sub(kept).Seconds())
}
