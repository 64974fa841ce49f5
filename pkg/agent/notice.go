// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/spotbench/spotbench/pkg/catalog"
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
		if t, found := a.taking[event.ID]; found {
			t.withdraw(errWithdrawn)
			delete(a.taking, event.ID)
		}
		return
	}
	a.inForce[event.ID] = event.Notice
}

// HandleNotice acts on a notice and returns when every pod is off the node or the
// deadline has passed. The cluster is warned while the pods are being saved: what
// saves work waits for nothing that is not on this node. It reports whether nothing
// is left to do on the machine, so that the cloud need not wait.
func (a *Agent) HandleNotice(ctx context.Context, n interruption.Notice) bool {
	outer := ctx
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
	a.awaitPods(ctx)
	live := a.take(outer, n)
	holds := a.holdWorkflows(ctx, n)
	for _, w := range live {
		all.Go(func() {
			pod, _, _ := w.state()
			h := holds[pod.UID]
			if !w.interrupt(ctx, n, h) {
				left.Add(1)
			}
			h.left(ctx, pod.Name, w.currentNotice() == n.ID)
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return false
	}
	log.Info("every benchmark is off the node", "phase", "done", "notSaved", left.Load())
	return left.Load() == 0
}

// awaitPods waits until the node's pods are known, as an agent that was just started
// hears of the notice first. Without an API server it does not know them; those that
// it learns of later are dealt with then.
func (a *Agent) awaitPods(ctx context.Context) {
	select {
	case <-a.synced:
	case <-time.After(podsKnownWithin):
	case <-ctx.Done():
	}
}

// podsKnownWithin is how long a notice waits for the node's pods to be known.
const podsKnownWithin = 3 * time.Second

// taking is a notice that takes the machine and is being acted upon.
type taking struct {
	interrupt func(*workload) // for a pod that turns up
	withdraw  context.CancelCauseFunc
}

// take returns the pods that the notice is to interrupt, and has those interrupted that
// turn up as long as it is in force: a pod may be bound while the node is being tainted.
func (a *Agent) take(ctx context.Context, n interruption.Notice) []*workload {
	a.mu.Lock()
	defer a.mu.Unlock()
	ctx, withdraw := context.WithCancelCause(ctx)
	if _, found := a.inForce[n.ID]; !found {
		withdraw(errWithdrawn)
		return nil
	}
	a.taking[n.ID] = taking{withdraw: withdraw, interrupt: func(w *workload) {
		w.log.Info("the pod came when its machine was already to be taken", "notice", n.ID)
		late := n
		if time.Until(late.Deadline) < 0 {
			late.Deadline = time.Now().Add(lateNotice)
		}
		w.interrupt(ctx, late, nil)
	}}
	return a.live()
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
	live := a.live()
	a.mu.Unlock()
	var all sync.WaitGroup
	for _, w := range live {
		all.Go(func() { do(w) })
	}
	all.Wait()
}

// live are the pods that have not ended; the caller holds the lock.
func (a *Agent) live() []*workload {
	var live []*workload
	for _, w := range a.workloads {
		if pod, gone, _ := w.state(); !ended(pod, gone) {
			live = append(live, w)
		}
	}
	return live
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
		if a.Threatened() {
			return nil // the warning is this agent's
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
