// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/checkpoint"
	"github.com/spotbench/spotbench/pkg/interruption"
)

// Heed takes note of an event at once, so that events count in the order in which
// they came. What is to be done about it is done by HandleNotice and Withdraw, which
// come after it, in any order.
func (a *Agent) Heed(event interruption.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if event.Withdrawn {
		delete(a.inForce, event.ID)
		return
	}
	a.inForce[event.ID] = event.Notice
}

// HandleNotice acts on a notice and returns when every pod is off the node or the
// deadline has passed. The cluster is warned while the pods are being saved: what
// saves work waits for nothing that is not on this node. It reports whether nothing
// is left to do on the machine, so that the cloud need not wait.
func (a *Agent) HandleNotice(ctx context.Context, n interruption.Notice) bool {
	ctx, done := a.handle(ctx, n.ID)
	defer done()
	if ctx.Err() != nil {
		return false
	}
	log := a.log.With("notice", n.ID, "provider", n.Provider, "kind", n.Kind, "deadline", n.Deadline)
	log.Warn("notice", "phase", "notice", "action", n.Action, "cloudID", n.CloudID)
	a.metrics.notices.WithLabelValues(string(n.Provider), string(n.Kind)).Inc()
	a.noticed(n)
	if !n.Kind.TakesMachine() {
		// The machine stays: a checkpoint now makes a later notice cheap.
		a.nodeEvent(corev1.EventTypeWarning, staysReasons[n.Kind], "every benchmark is checkpointed and goes on: "+announcement(n))
		var all sync.WaitGroup
		if n.Kind == interruption.KindRebalance {
			all.Go(func() { a.raiseRisk(ctx) })
		}
		all.Go(func() { a.saveEach(ctx) })
		all.Wait()
		return false
	}
	if begin := n.Deadline.Add(-a.cfg.MaintenanceLead); time.Until(begin) > 0 && n.Kind != interruption.KindSpot {
		// Until then the machine is as good as any.
		a.nodeEvent(corev1.EventTypeWarning, takesReasons[n.Kind], fmt.Sprintf("%s; benchmarks stay until %s before that", announcement(n), a.cfg.MaintenanceLead))
		log.Info("the benchmarks stay until the time has come", "phase", "waiting", "until", begin)
		a.saveEach(ctx)
		select {
		case <-time.After(time.Until(begin)):
		case <-ctx.Done():
			return false
		}
		n.SeenAt = time.Now().UTC() // what follows is timed from here
	}
	if n.Deadline.Before(n.SeenAt) {
		// The cloud does not say when, this node's clock is wrong, or the cloud is late.
		// Who is still here may try.
		n.Deadline = n.SeenAt.Add(lateNotice)
	}
	var left atomic.Int32
	var all sync.WaitGroup
	all.Go(func() { a.warnCluster(ctx, n) })
	holds := a.holdWorkflows(ctx, n)
	all.Go(func() {
		a.eachWorkload(func(w *workload) {
			pod, _, _ := w.state()
			h := holds[pod.UID]
			if !w.interrupt(ctx, n, h) {
				left.Add(1)
			}
			h.left(ctx, pod.Name, w.currentNotice() == n.ID)
		})
	})
	all.Wait()
	if ctx.Err() != nil {
		return false
	}
	log.Info("every benchmark is off the node", "phase", "done", "notSaved", left.Load())
	return left.Load() == 0
}

// saveEach checkpoints every benchmark and lets it go on.
func (a *Agent) saveEach(ctx context.Context) {
	a.eachWorkload(func(w *workload) {
		if w.checkpointDir != "" {
			w.periodic(ctx)
		}
	})
}

// Reasons of the node's events.
var (
	staysReasons = map[interruption.Kind]string{
		interruption.KindRebalance: "RebalanceRecommendation",
		interruption.KindPause:     "PauseNotice",
	}
	takesReasons = map[interruption.Kind]string{
		interruption.KindSpot:        "SpotInterruptionNotice",
		interruption.KindMaintenance: "MaintenanceNotice",
		interruption.KindTermination: "TerminationNotice",
	}
)

// announcement is a notice in words.
func announcement(n interruption.Notice) string {
	if n.Kind == interruption.KindRebalance {
		return "the cloud sees a raised risk of interruption"
	}
	if n.Deadline.IsZero() {
		return fmt.Sprintf("the cloud will %s this machine", n.Action)
	}
	return fmt.Sprintf("the cloud will %s this machine at %s", n.Action, n.Deadline.UTC().Format(time.RFC3339))
}

// raiseRisk tells the scheduler of a rebalance recommendation.
func (a *Agent) raiseRisk(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, raiseRiskWithin)
	defer cancel()
	if err := retry(ctx, time.Second, func() error { return a.node.RaiseRisk(ctx) }); err != nil {
		a.log.Error("the node's raised risk could not be told", "error", err)
	}
}

// raiseRiskWithin bounds the telling: later, a notice has come or the risk is past.
const raiseRiskWithin = 10 * time.Minute

// lateNotice is the time that is assumed to be left where the deadline has passed.
const lateNotice = 30 * time.Second

// handling is work for a notice under way.
type handling struct {
	cancel context.CancelCauseFunc
	done   chan struct{}
}

// errWithdrawn ends the work for a notice that the cloud took back.
var errWithdrawn = errors.New("the notice was withdrawn")

// handle registers work for a notice, so that Withdraw can end it.
func (a *Agent) handle(ctx context.Context, notice string) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	h := handling{cancel: cancel, done: make(chan struct{})}
	a.mu.Lock()
	a.handling[notice] = h
	if _, found := a.inForce[notice]; !found {
		cancel(errWithdrawn) // before this began
	}
	a.mu.Unlock()
	return ctx, func() {
		cancel(nil)
		a.mu.Lock()
		delete(a.handling, notice)
		a.mu.Unlock()
		close(h.done)
	}
}

// warnCluster taints the node and sets its condition, trying until the deadline.
func (a *Agent) warnCluster(ctx context.Context, n interruption.Notice) {
	ctx, cancel := context.WithDeadline(ctx, n.Deadline)
	defer cancel()
	err := retry(ctx, 100*time.Millisecond, func() error {
		a.warning.Lock()
		defer a.warning.Unlock()
		if err := a.node.Warn(ctx, n); err != nil {
			return err
		}
		a.warned[n.ID] = n
		return nil
	})
	if err != nil {
		a.log.Error("the node could not be tainted", "notice", n.ID, "error", err)
		return
	}
	now := time.Now()
	a.metrics.noticeToTaint.Observe(now.Sub(n.SeenAt).Seconds())
	a.log.Info("tainted", "notice", n.ID, "phase", "tainted", "seconds", now.Sub(n.SeenAt).Seconds())
	a.nodeEvent(corev1.EventTypeWarning, takesReasons[n.Kind], announcement(n))
	a.eachWorkload(func(w *workload) {
		a.records.interruption(w.run, n.ID, catalog.Interruption{TaintedAt: now.UTC()})
	})
}

// eachWorkload calls do for every pod that has not ended, in parallel.
func (a *Agent) eachWorkload(do func(*workload)) {
	a.mu.Lock()
	var live []*workload
	for _, w := range a.workloads {
		if pod, gone, _ := w.state(); !ended(pod, gone) {
			live = append(live, w)
		}
	}
	a.mu.Unlock()
	var all sync.WaitGroup
	for _, w := range live {
		all.Go(func() { do(w) })
	}
	all.Wait()
}

// claim gives the pod to a notice. One that a sooner notice has already is left to it.
func (w *workload) claim(n interruption.Notice) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.notice != "" && !n.Deadline.Before(w.noticeDeadline) {
		return false
	}
	w.notice, w.noticeDeadline = n.ID, n.Deadline
	return true
}

// interrupt saves the pod, has it evicted, and saves what it wrote on its way out. It
// reports whether the pod has stopped with all that it wrote saved.
func (w *workload) interrupt(ctx context.Context, n interruption.Notice, h *hold) bool {
	if !w.claim(n) {
		w.log.Info("another notice takes the machine sooner; the pod is left to that", "notice", n.ID)
		return false
	}
	ctx, cancel := context.WithDeadline(ctx, n.Deadline.Add(leastGrace))
	defer cancel()
	pod, _, _ := w.state()
	log := w.log.With("notice", n.ID)
	plan := Plan{Deadline: n.Deadline, Grace: grace(pod)}
	record := catalog.Interruption{Kind: string(n.Kind), Node: w.a.cfg.Node, PodUID: string(pod.UID), NoticeAt: n.SeenAt.UTC()}
	w.a.records.interruption(w.run, n.ID, record)
	last := w.newestGeneration(ctx)

	if w.checkpointDir != "" {
		saved, err := w.saveForNotice(ctx, plan, n.ID)
		switch {
		case errors.Is(err, checkpoint.ErrNothing):
			log.Info("there is nothing to save yet", "phase", "checkpoint")
		case err != nil:
			log.Error("the checkpoint failed; the one before it stays good", "phase", "checkpoint", "error", err)
			w.a.events.Eventf(pod, corev1.EventTypeWarning, "CheckpointFailed", "%v; checkpoint %d stays good", err, last.Number)
		default:
			now := time.Now()
			last = saved.Generation
			record.CheckpointedAt, record.CheckpointGeneration, record.CheckpointBytes = now.UTC(), saved.Number, saved.Bytes
			log.Info("checkpointed", "phase", "checkpoint", "generation", saved.Number, "files", saved.Files, "bytes", saved.Bytes,
				"uploaded", saved.Uploaded, "seconds", now.Sub(n.SeenAt).Seconds())
			w.a.metrics.noticeToCheckpoint.Observe(now.Sub(n.SeenAt).Seconds())
			w.a.events.Eventf(pod, corev1.EventTypeNormal, "Checkpointed", "checkpoint %d is whole, %.1f s after the notice: %d files, %d bytes",
				saved.Number, now.Sub(n.SeenAt).Seconds(), saved.Files, saved.Bytes)
			if age := n.SeenAt.Sub(saved.NewestFile); age > 0 && w.asks() {
				// It is whole, and newer than the notice, but what the workload put in is not.
				log.Warn("the workload wrote nothing when it was asked to save its state", "phase", "checkpoint", "newestFileSecondsBeforeNotice", age.Seconds())
				w.a.events.Eventf(pod, corev1.EventTypeWarning, "CheckpointStale", "checkpoint %d holds what was written %.1f s before the notice: the workload wrote nothing when it was asked to", saved.Number, age.Seconds())
			}
			w.a.records.interruption(w.run, n.ID, record)
		}
	}

	if !h.retries(ctx, pod.Name) && w.stay(ctx, plan) {
		record.WorkLostSeconds, record.Outcome = new(float64), "saved"
		w.a.records.interruption(w.run, n.ID, record)
		log.Info("finished before the machine's end", "phase", "record", "outcome", record.Outcome)
		return true
	}
	if !w.evict(ctx, plan, log.Info) && errors.Is(context.Cause(ctx), errWithdrawn) {
		w.spared(n.ID)
		return false
	}
	// The pod is on its way out now, even if the notice is withdrawn or the agent stops.
	ctx, cancel = context.WithDeadline(context.WithoutCancel(ctx), plan.Deadline.Add(leastGrace))
	defer cancel()
	record.EvictedAt = time.Now().UTC()
	w.a.records.interruption(w.run, n.ID, record)
	stopped := w.awaitStopped(ctx)
	whole := ctx.Err() == nil
	if w.checkpointDir != "" {
		if saved, err := w.saveAfterStop(ctx, n.ID); err != nil {
			whole = whole && errors.Is(err, checkpoint.ErrNothing)
			log.Warn("what the workload wrote on its way out is not saved", "phase", "final checkpoint", "error", err)
		} else {
			last = saved.Generation
			record.CheckpointGeneration, record.CheckpointBytes = saved.Number, saved.Bytes
			log.Info("checkpointed what the workload wrote on its way out", "phase", "final checkpoint", "generation", saved.Number, "uploaded", saved.Uploaded)
		}
	}
	lost := w.workLost(stopped, last)
	record.WorkLostSeconds, record.Outcome = &lost, "saved"
	if last.Number == 0 {
		record.Outcome = "lost"
	}
	w.a.metrics.workLost.Add(lost)
	w.a.records.interruption(w.run, n.ID, record)
	log.Info("interruption recorded", "phase", "record", "outcome", record.Outcome, "workLostSeconds", lost)
	return whole
}

// spared records that the notice was withdrawn before the pod was told to stop.
func (w *workload) spared(notice string) {
	w.mu.Lock()
	if w.notice == notice {
		w.notice, w.noticeDeadline = "", time.Time{}
	}
	w.mu.Unlock()
	w.a.records.interruption(w.run, notice, catalog.Interruption{Outcome: "withdrawn"})
	w.log.Info("the notice was withdrawn; the benchmark stays", "notice", notice)
}

func grace(pod *corev1.Pod) time.Duration {
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return corev1.DefaultTerminationGracePeriodSeconds * time.Second
}

func (w *workload) newestGeneration(ctx context.Context) checkpoint.Generation {
	if w.checkpointDir == "" {
		return checkpoint.Generation{}
	}
	latest, _, err := w.a.checkpoints.Latest(ctx, w.run)
	if err != nil {
		w.log.Warn("the newest checkpoint is unknown", "error", err)
	}
	return latest
}

func (w *workload) saveForNotice(ctx context.Context, plan Plan, notice string) (checkpoint.Saved, error) {
	prepare, cancel := context.WithDeadline(ctx, plan.PrepareUntil(time.Now()))
	w.prepare(prepare)
	cancel()
	ctx, cancel = context.WithDeadline(ctx, plan.SaveUntil(time.Now()))
	defer cancel()
	return w.save(ctx, w.checkpointDir, checkpoint.SaveOptions{Urgent: true, Meta: map[string]string{metaNotice: notice, metaFinal: "pending"}})
}

// evict asks the API server to evict the pod, deletes it when a disruption budget
// would eat the time that is left, and stops its containers when the API server
// cannot be reached. It reports whether the pod ends.
func (w *workload) evict(ctx context.Context, plan Plan, log func(string, ...any)) bool {
	pod, _, _ := w.state()
	pods := w.a.client.CoreV1().Pods(pod.Namespace)
	uid := metav1.NewUIDPreconditions(string(pod.UID))
	for said := ""; ; {
		now := time.Now()
		seconds := int64(plan.GraceAt(now).Seconds())
		options := metav1.DeleteOptions{GracePeriodSeconds: &seconds, Preconditions: uid}
		call, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := w.a.client.PolicyV1().Evictions(pod.Namespace).Evict(call, &policyv1.Eviction{
			ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}, DeleteOptions: &options})
		how := "evicted"
		if err != nil && plan.MustStop(now) && apierrors.IsTooManyRequests(err) {
			how = "deleted: a disruption budget refuses the eviction and the time is up"
			if err := w.markDisrupted(call); err != nil {
				w.log.Warn("the pod is not marked as disrupted; its Job may count a failure", "error", err)
			}
			err = pods.Delete(call, pod.Name, options)
		}
		cancel()
		switch {
		case err == nil:
			log(how, "phase", "evict", "graceSeconds", seconds)
			w.a.events.Eventf(pod, corev1.EventTypeNormal, "Evicted", "%s, with %d s to stop", how, seconds)
			return true
		case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
			log("gone already", "phase", "evict")
			return true
		case plan.MustStop(now) && !apierrors.IsTooManyRequests(err):
			w.log.Warn("the API server cannot evict the pod; its container is stopped here", "error", err)
			if err := w.a.containers.Stop(ctx, string(pod.UID), mainContainer(pod), plan.GraceAt(now)); err != nil {
				w.log.Error("the container could not be stopped", "error", err)
			}
			return true
		}
		if err.Error() != said {
			said = err.Error()
			w.log.Warn("the eviction is tried again until it must stop", "error", said)
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return false
		}
	}
}

// markDisrupted gives the pod the condition that an eviction would have given it,
// by which a Job's podFailurePolicy tells an interruption from a failure.
func (w *workload) markDisrupted(ctx context.Context) error {
	pod, _, _ := w.state()
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID}, // another pod of that name is not meant
		"status": map[string]any{"conditions": []corev1.PodCondition{{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "SpotInterruption",
			Message: "the cloud takes the node's machine", LastTransitionTime: metav1.Now()}}},
	})
	if err != nil {
		return err
	}
	_, err = w.a.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// awaitStopped returns when the main container has stopped, and the moment of it.
func (w *workload) awaitStopped(ctx context.Context) time.Time {
	for {
		pod, gone, _ := w.state()
		call, cancel := context.WithTimeout(ctx, time.Second)
		at, stopped, err := w.a.containers.Stopped(call, string(pod.UID), mainContainer(pod))
		cancel()
		switch {
		case err == nil && stopped && !at.IsZero():
			return at
		case err == nil && stopped, ended(pod, gone):
			return time.Now()
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return time.Now()
		}
	}
}

// saveAfterStop saves what the workload wrote between the checkpoint and its end.
// The kubelet removes the volume now, so its files are first held by links of
// their own.
func (w *workload) saveAfterStop(ctx context.Context, notice string) (checkpoint.Saved, error) {
	held, err := os.MkdirTemp(w.a.cfg.HoldDir, "final-*")
	if err != nil {
		return checkpoint.Saved{}, err
	}
	defer os.RemoveAll(held)
	if err := w.a.checkpoints.Hold(w.run, w.checkpointDir, held); err != nil {
		return checkpoint.Saved{}, err
	}
	return w.save(ctx, held, checkpoint.SaveOptions{Urgent: true, Meta: map[string]string{metaNotice: notice, metaFinal: "done"}})
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

// Withdraw ends what is done because of a notice that the cloud took back, and
// undoes the warning. A pod that was told to stop already stops all the same.
func (a *Agent) Withdraw(ctx context.Context, n interruption.Notice) {
	a.mu.Lock()
	h, ok := a.handling[n.ID]
	a.mu.Unlock()
	if ok {
		h.cancel(errWithdrawn)
		<-h.done // else its taint could be set after it was removed here
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if n.Kind == interruption.KindRebalance {
		if err := retry(ctx, time.Second, func() error { return a.node.LowerRisk(ctx) }); err != nil {
			a.log.Error("the end of the node's raised risk could not be told", "notice", n.ID, "error", err)
		}
	}
	if !n.Kind.TakesMachine() {
		a.log.Info("the notice is over", "notice", n.ID, "kind", n.Kind)
		return
	}
	var warned bool
	if err := retry(ctx, time.Second, func() (err error) {
		warned, err = a.unwarn(ctx, n)
		return err
	}); err != nil {
		a.log.Error("the taint of a withdrawn notice could not be removed", "notice", n.ID, "error", err)
		return
	}
	if warned {
		a.log.Info("the notice was withdrawn; the node stays warned because of another", "notice", n.ID)
		return
	}
	a.log.Info("the notice was withdrawn; the node takes pods again", "notice", n.ID)
	a.nodeEvent(corev1.EventTypeNormal, "SpotInterruptionWithdrawn", "the cloud took its notice back")
}

// unwarn undoes the warning because of a notice, and reports whether there is one
// still: that of another notice in force.
func (a *Agent) unwarn(ctx context.Context, n interruption.Notice) (bool, error) {
	a.warning.Lock()
	defer a.warning.Unlock()
	delete(a.warned, n.ID)
	a.mu.Lock()
	maps.DeleteFunc(a.warned, func(id string, _ interruption.Notice) bool { _, found := a.inForce[id]; return !found })
	a.mu.Unlock()
	for _, other := range a.warned {
		return true, a.node.Warn(ctx, other)
	}
	return false, a.node.Clear(ctx)
}

// ClearStale removes the warning of a notice that was withdrawn while no agent ran
// on the node, once quiet says that the cloud has no notice. Else nothing would
// ever be scheduled here again.
func (a *Agent) ClearStale(ctx context.Context, quiet func() bool) {
	_ = retry(ctx, time.Second, func() error {
		if !quiet() {
			return errors.New("the cloud has not said that there is no notice")
		}
		warned, err := a.node.Warned(ctx)
		if err != nil || !warned {
			return err
		}
		if err := a.node.Clear(ctx); err != nil {
			return err
		}
		a.log.Info("the warning of an earlier notice is removed: the cloud took it back while no agent ran here")
		a.nodeEvent(corev1.EventTypeNormal, "SpotInterruptionWithdrawn", "the cloud took its notice back while the agent was not running")
		return nil
	})
}

// nodeEvent records an event about this node.
func (a *Agent) nodeEvent(kind, reason, message string) {
	a.events.Event(&corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: a.cfg.Node}, kind, reason, message)
}
