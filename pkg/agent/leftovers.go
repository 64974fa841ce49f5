// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// settleLeftovers finishes the records of the pods that an earlier agent accompanied
// and that ended while none ran here. It is called when the node's pods are known.
func (a *Agent) settleLeftovers(ctx context.Context) {
	entries, err := a.journal.all()
	if err != nil {
		a.log.Error("not all that an earlier agent left can be read", "error", err)
	}
	for _, e := range entries {
		a.mu.Lock()
		_, lives := a.workloads[e.Pod.UID]
		a.mu.Unlock()
		if !lives {
			a.living.Go(func() { a.settle(ctx, e) })
		}
	}
}

// settle finishes the records of one pod.
func (a *Agent) settle(ctx context.Context, e journalEntry) {
	pod, gone := e.Pod, false
	if err := retry(ctx, time.Second, func() error {
		found, err := a.client.Pods(e.Pod.Namespace).Get(ctx, e.Pod.Name, metav1.GetOptions{})
		gone = apierrors.IsNotFound(err) || err == nil && found.UID != e.Pod.UID
		if gone {
			return nil
		}
		pod = found
		return err
	}); err != nil {
		return // ctx ended; the entry stays
	}
	w, err := newWorkload(a, pod)
	if err != nil {
		a.log.Error("the records of a pod that ended cannot be finished", "pod", pod.Namespace+"/"+pod.Name, "error", err)
		a.forget(pod)
		return
	}
	w.gone, w.notice, w.newest, w.interruption = gone, e.Notice, e.Newest, e.Interruption
	w.restored.Number = e.Restored
	if w.stoppedAt = w.awaitStopped(ctx, time.Time{}, nil); ctx.Err() != nil {
		return
	}
	if e.Notice != "" && e.Interruption.WorkLostSeconds == nil {
		last := e.Newest
		// A last checkpoint may have become whole in the moment the agent was killed.
		if latest, found, err := a.checkpoints.Latest(ctx, w.run); err == nil && found && latest.Number > last.Number && latest.Meta[metaPod] == pod.Name {
			last = latest
		}
		w.conclude(e.Notice, e.Interruption, w.stoppedAt, last)
	}
	w.finish()
}

// forget removes what the journal has of the pod.
func (a *Agent) forget(pod *corev1.Pod) {
	if err := a.journal.remove(pod.UID); err != nil {
		a.log.Warn("the journal keeps what is settled", "error", err)
	}
}

// remember writes down what an agent that is started after this one needs to know.
func (w *workload) remember() {
	w.mu.Lock()
	e := journalEntry{Pod: w.pod, Newest: w.newest, Restored: w.restored.Number, Notice: w.notice, Interruption: w.interruption}
	w.mu.Unlock()
	if err := w.a.journal.put(e); err != nil {
		w.log.Warn("an agent that is started again would not know of this pod", "error", err)
	}
}

// leave ends an interruption's part in the pod.
func (w *workload) leave() {
	w.mu.Lock()
	w.interrupting--
	over := w.finished && w.interrupting == 0
	w.mu.Unlock()
	if over {
		w.a.forget(w.pod)
	}
}

// over ends the accompanying of the pod.
func (w *workload) over() {
	w.mu.Lock()
	w.finished = true
	over := w.interrupting == 0
	w.mu.Unlock()
	if over {
		w.a.forget(w.pod)
	}
}
