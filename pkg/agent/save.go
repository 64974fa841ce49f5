// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"time"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

// errNoticeCame ends a periodic checkpoint: what it has sent is not sent again.
var errNoticeCame = errors.New("a notice came; what was sent stays for the checkpoint on the notice")

func (w *workload) periodic(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, w.a.cfg.SaveTimeout)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if !w.begin(stop) {
		return
	}
	w.prepare(ctx)
	saved, err := w.save(ctx, w.checkpointDir, checkpoint.SaveOptions{})
	if errors.Is(err, checkpoint.ErrNothing) {
		return
	}
	if err != nil {
		w.log.Warn("a periodic checkpoint failed; the one before it stays good", "error", err)
		return
	}
	w.log.Info("checkpointed", "generation", saved.Number, "files", saved.Files, "bytes", saved.Bytes, "uploaded", saved.Uploaded)
	if pruned, err := w.a.checkpoints.Prune(ctx, w.run, false); err != nil {
		w.log.Warn("old checkpoints could not be removed", "error", err)
	} else if len(pruned.Generations) > 0 || pruned.Chunks > 0 {
		w.log.Debug("old checkpoints are removed", "generations", pruned.Generations, "chunks", pruned.Chunks, "bytes", pruned.Bytes)
	}
	if w.a.cfg.Memories != nil {
		if _, err := w.a.checkpoints.Prune(ctx, MemoryRun(w.run), false); err != nil {
			w.log.Warn("old checkpoints of the container could not be removed", "error", err)
		}
	}
}

// begin says whether a periodic checkpoint or a restore may be made now, and keeps what
// ends it early.
func (w *workload) begin(stop context.CancelCauseFunc) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.notice != "" {
		return false
	}
	w.stopWork = stop
	return true
}

// prepare asks the workload for a consistent state, the way its annotations say.
// A workload that does not answer is checkpointed as it is.
func (w *workload) prepare(ctx context.Context) {
	pod, _, _ := w.state()
	uid, main := string(pod.UID), mainContainer(pod)
	var err error
	switch {
	case len(w.spec.CheckpointCommand) > 0:
		err = w.a.containers.Exec(ctx, uid, main, w.spec.CheckpointCommand)
	case w.spec.CheckpointSignal != "":
		if err = w.a.containers.Signal(ctx, uid, main, signalNumber(w.spec.CheckpointSignal)); err == nil {
			select { // a signal has no answer: the workload gets a moment to act on it
			case <-time.After(w.a.cfg.SignalDelay):
			case <-ctx.Done():
			}
		}
	}
	if err != nil {
		w.log.Warn("the workload could not be asked for a consistent state", "error", err)
	}
}

// asks says whether the workload is asked for a consistent state before it is saved.
func (w *workload) asks() bool {
	return len(w.spec.CheckpointCommand) > 0 || w.spec.CheckpointSignal != ""
}

// save makes a new generation from dir.
func (w *workload) save(ctx context.Context, dir string, o checkpoint.SaveOptions) (checkpoint.Saved, error) {
	select { // one checkpoint at a time
	case w.saving <- struct{}{}:
	case <-ctx.Done():
		return checkpoint.Saved{}, context.Cause(ctx)
	}
	defer func() { <-w.saving }()
	pod, _, _ := w.state()
	meta := map[string]string{metaNode: w.a.cfg.Node, metaPod: pod.Name}
	maps.Copy(meta, o.Meta)
	o.Meta, o.Writer = meta, string(pod.UID)
	start := time.Now()
	saved, err := w.a.checkpoints.Save(ctx, w.run, dir, o)
	if err != nil {
		if !errors.Is(err, checkpoint.ErrNothing) && !errors.Is(err, errNoticeCame) {
			w.a.metrics.checkpointFailures.Inc()
		}
		return checkpoint.Saved{}, err
	}
	took := time.Since(start)
	w.a.metrics.checkpointSeconds.Observe(took.Seconds())
	w.a.metrics.checkpointBytes.Add(float64(saved.Uploaded))
	w.a.memories.sent(saved.Uploaded, took)
	w.mu.Lock()
	w.lastSave, w.newest = took, saved.Generation
	w.mu.Unlock()
	return saved, nil
}

// savePause is the time between two tries to save on a notice.
const savePause = 500 * time.Millisecond

// insist saves until it succeeds, until it would fail again for the same reason, or
// until ctx ends: a store that is away for a moment must not cost the work.
func (w *workload) insist(ctx context.Context, dir string, o checkpoint.SaveOptions) (checkpoint.Saved, error) {
	o.Urgent = true
	if err := w.a.turns.acquire(ctx, w.atStake()); err != nil {
		return checkpoint.Saved{}, err
	}
	defer w.a.turns.release()
	var said error
	for {
		saved, err := w.save(ctx, dir, o)
		switch {
		case err == nil || hopeless(err):
			return saved, err
		case ctx.Err() != nil:
			return saved, errors.Join(said, err)
		case said == nil:
			w.log.Warn("the checkpoint failed; it is tried again", "phase", "checkpoint", "error", err)
		}
		said = err
		select {
		case <-time.After(savePause):
		case <-ctx.Done():
			return saved, said
		}
	}
}

// hopeless says that another try would end in the same way.
func hopeless(err error) bool {
	for _, final := range []error{fs.ErrNotExist, checkpoint.ErrNothing, checkpoint.ErrSuperseded, checkpoint.ErrHalfRestored, checkpoint.ErrRemoved, checkpoint.ErrKey} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}

// atStake is the work that is lost if the pod is not saved any more.
func (w *workload) atStake() time.Duration {
	pod, _, _ := w.state()
	w.mu.Lock()
	kept := w.newest.NewestFile
	w.mu.Unlock()
	if started := mainStartedAt(pod); started.After(kept) {
		kept = started
	}
	return time.Since(kept)
}
