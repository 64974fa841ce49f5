// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/spotbench/spotbench/pkg/interruption"
	"github.com/spotbench/spotbench/pkg/workflow"
)

// Workflows suspends the workflow of pods that are interrupted; workflow.Keeper is one.
type Workflows interface {
	// Suspend returns the names of the pods whose steps are started again.
	Suspend(ctx context.Context, namespace, name string, i workflow.Interruption) (retried []string, err error)
	Release(ctx context.Context, namespace, name, node, notice string, gone []string) error
	Held(ctx context.Context, node, notice string) (map[types.NamespacedName]workflow.Hold, error)
}

const (
	// holdWait is how long an eviction waits for its workflow to be suspended.
	holdWait = 2 * time.Second
	// releaseFor is how long the release of a workflow is tried. The others give the
	// hold up after workflow.GiveUpAfter.
	releaseFor = time.Minute
)

// hold is what this node has to do with one workflow because of a notice.
type hold struct {
	a      *Agent
	key    types.NamespacedName
	notice interruption.Notice
	// decided is closed when it is known which pods are started again, or will not be.
	decided chan struct{}
	retried []string
	known   bool

	mu      sync.Mutex
	pending int // pods that are being interrupted
	gone    []string
}

// holdWorkflows begins to suspend the workflows of the node's pods, and returns the
// hold on each pod's. A pod without a workflow has none.
func (a *Agent) holdWorkflows(ctx context.Context, n interruption.Notice) map[types.UID]*hold {
	if a.cfg.Workflows == nil {
		return nil
	}
	holds := map[types.NamespacedName]*hold{}
	byPod := map[types.UID]*hold{}
	pods := map[types.NamespacedName][]workflow.Pod{}
	a.mu.Lock()
	for uid, w := range a.workloads {
		pod, gone, _ := w.state()
		if ended(pod, gone) || workflow.Of(pod) == "" {
			continue
		}
		key := types.NamespacedName{Namespace: pod.Namespace, Name: workflow.Of(pod)}
		if holds[key] == nil {
			holds[key] = &hold{a: a, key: key, notice: n, decided: make(chan struct{})}
		}
		holds[key].pending++
		byPod[uid] = holds[key]
		pods[key] = append(pods[key], workflow.PodOf(pod))
	}
	a.mu.Unlock()
	for key, h := range holds {
		go h.suspend(ctx, pods[key])
	}
	go a.releaseLeftovers(ctx, n, holds)
	return byPod
}

// suspend tries until the machine's end.
func (h *hold) suspend(ctx context.Context, pods []workflow.Pod) {
	defer close(h.decided)
	ctx, cancel := context.WithDeadline(ctx, h.notice.Deadline)
	defer cancel()
	i := workflow.Interruption{Node: h.a.cfg.Node, Notice: h.notice.ID, NoticeAt: h.notice.SeenAt, Window: h.notice.Deadline.Sub(h.notice.SeenAt), Pods: pods}
	err := retry(ctx, 200*time.Millisecond, func() (err error) {
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		h.retried, err = h.a.cfg.Workflows.Suspend(call, h.key.Namespace, h.key.Name, i)
		return err
	})
	if err != nil {
		h.a.log.Error("the workflow could not be suspended", "workflow", h.key, "notice", h.notice.ID, "error", err)
		return
	}
	h.known = true
	h.a.log.Info("the workflow is told of the interruption", "workflow", h.key, "notice", h.notice.ID, "phase", "suspended", "seconds", time.Since(h.notice.SeenAt).Seconds())
}

// retries says whether the pod's step is started again once the pod is gone. It waits
// a moment for the answer, and without one assumes that it is.
func (h *hold) retries(ctx context.Context, pod string) bool {
	if h == nil {
		return true
	}
	select {
	case <-h.decided:
		return !h.known || slices.Contains(h.retried, pod)
	case <-time.After(holdWait):
	case <-ctx.Done():
	}
	return true
}

// left says that the notice has no more to do with the pod: it is on its way out and
// all is recorded, or it stays. With the last pod the hold is released.
func (h *hold) left(ctx context.Context, pod string, gone bool) {
	if h == nil {
		return
	}
	h.mu.Lock()
	h.pending--
	if gone {
		h.gone = append(h.gone, pod)
	}
	last, names := h.pending == 0, slices.Sorted(slices.Values(h.gone))
	h.mu.Unlock()
	if !last {
		return
	}
	go func() {
		<-h.decided
		h.a.release(context.WithoutCancel(ctx), h.key, h.notice.ID, names)
	}()
}

// release tells the others that this node has done what it could.
func (a *Agent) release(ctx context.Context, key types.NamespacedName, notice string, gone []string) {
	ctx, cancel := context.WithTimeout(ctx, releaseFor)
	defer cancel()
	if err := retry(ctx, 500*time.Millisecond, func() error {
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return a.cfg.Workflows.Release(call, key.Namespace, key.Name, a.cfg.Node, notice, gone)
	}); err != nil {
		a.log.Error("the workflow's hold could not be released; the others give it up after a while", "workflow", key, "notice", notice, "error", err)
		return
	}
	a.log.Info("the workflow may go on as far as this node is concerned", "workflow", key, "notice", notice, "phase", "released")
}

// releaseLeftovers releases what an agent that ran before this one held for the same
// notice, where none of the workflow's pods is left here to be interrupted.
func (a *Agent) releaseLeftovers(ctx context.Context, n interruption.Notice, holds map[types.NamespacedName]*hold) {
	var held map[types.NamespacedName]workflow.Hold
	err := retry(ctx, time.Second, func() (err error) {
		if err := a.Ready(); err != nil {
			return err // which pods are here is not known yet
		}
		held, err = a.cfg.Workflows.Held(ctx, a.cfg.Node, n.ID)
		return err
	})
	if err != nil {
		return // the notice was withdrawn, or the node is gone: the others give up
	}
	for key, h := range held {
		if holds[key] == nil && !a.runs(key, h.Pods) {
			a.release(context.WithoutCancel(ctx), key, n.ID, h.Pods)
		}
	}
}

// runs says whether one of the workflow's pods of these names is on the node.
func (a *Agent) runs(key types.NamespacedName, names []string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.workloads {
		if pod, gone, _ := w.state(); !ended(pod, gone) && pod.Namespace == key.Namespace && slices.Contains(names, pod.Name) {
			return true
		}
	}
	return false
}

// stay lets a pod that nothing starts again run as long as it still can be saved. It
// reports whether it has finished its work.
func (w *workload) stay(ctx context.Context, plan Plan) bool {
	w.log.Info("nothing starts this pod again: it may run until it must stop", "phase", "stay", "deadline", plan.Deadline)
	stop := time.NewTimer(time.Until(plan.Deadline.Add(-plan.Grace - finalSave)))
	defer stop.Stop()
	for {
		pod, gone, changed := w.state()
		if ended(pod, gone) {
			return pod.Status.Phase == corev1.PodSucceeded
		}
		select {
		case <-changed:
		case <-stop.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// Threatened says whether a notice in force takes this node's machine.
func (a *Agent) Threatened() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range a.inForce {
		if n.Kind.TakesMachine() {
			return true
		}
	}
	return false
}
