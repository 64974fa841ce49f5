// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// stopSlack is how much longer than its grace period a pod may take to stop before the
// agent stops its container itself: a kubelet that works has killed it by then.
const stopSlack = 2 * time.Second

// evict asks the API server to evict the pod, deletes it when that takes too long or a
// disruption budget would eat the time that is left, and stops its containers when the API server
// cannot be reached. It reports whether the pod ends, and the time it was given to stop.
func (w *workload) evict(ctx context.Context, plan Plan, log func(string, ...any)) (granted time.Duration, ends bool) {
	pod, _, _ := w.state()
	uid := metav1.NewUIDPreconditions(string(pod.UID))
	slow := false
	for said := ""; ; {
		now := time.Now()
		granted = plan.GraceAt(now).Truncate(time.Second)
		seconds := int64(granted.Seconds())
		options := metav1.DeleteOptions{GracePeriodSeconds: &seconds, Preconditions: uid}
		call, cancel := context.WithDeadline(ctx, plan.AskUntil(now))
		how := "evicted"
		var err error
		if !slow {
			err = w.askEviction(call, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}, DeleteOptions: &options})
		}
		switch {
		case slow:
			how = "deleted: the API server takes too long over the eviction"
			err = w.remove(call, options)
		case plan.MustStop(now) && apierrors.IsTooManyRequests(err):
			how = "deleted: a disruption budget refuses the eviction and the time is up"
			err = w.remove(call, options)
		case errors.Is(err, context.DeadlineExceeded):
			// For each eviction the API server looks at all pods of the namespace, so
			// that those of a full node take it long; a deletion it does at once.
			slow = true
		}
		cancel()
		switch {
		case err == nil:
			log(how, "phase", "evict", "graceSeconds", seconds)
			w.a.events.Eventf(pod, corev1.EventTypeNormal, "Evicted", "%s, with %d s to stop", how, seconds)
			return granted, true
		case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
			log("gone already", "phase", "evict")
			return granted, true
		case plan.MustStop(now) && !apierrors.IsTooManyRequests(err):
			w.log.Warn("the API server cannot evict the pod; its container is stopped here", "phase", "evict", "error", err)
			w.stop(ctx, plan)
			return granted, true
		}
		if err.Error() != said {
			said = err.Error()
			w.log.Warn("the eviction is tried again until it must stop", "error", said)
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return 0, false
		}
	}
}

// evictionsAtOnce is how many evictions the API server is asked for at once: more would
// only make each of them slower.
const evictionsAtOnce = 8

func (w *workload) askEviction(ctx context.Context, e *policyv1.Eviction) error {
	if err := w.a.evictions.Acquire(ctx, 1); err != nil {
		return err
	}
	defer w.a.evictions.Release(1)
	return w.a.client.Evict(ctx, e)
}

// remove deletes the pod as an eviction would, without asking a disruption budget.
func (w *workload) remove(ctx context.Context, options metav1.DeleteOptions) error {
	pod, _, _ := w.state()
	if err := w.markDisrupted(ctx); err != nil { // within half of the time: the pod is to be deleted all the same
		w.log.Warn("the pod is not marked as disrupted; its Job may count a failure", "error", err)
	}
	return w.a.client.Pods(pod.Namespace).Delete(ctx, pod.Name, options)
}

// stop stops the pod's main container without the API server and the kubelet.
func (w *workload) stop(ctx context.Context, plan Plan) {
	pod, _, _ := w.state()
	if err := w.a.containers.Stop(ctx, string(pod.UID), mainContainer(pod), plan.GraceAt(time.Now())); err != nil {
		w.log.Error("the container could not be stopped", "error", err)
	}
}

const (
	// leastLook is the time between two looks whether a container has stopped, and
	// lookTogether that between any two of all pods.
	leastLook, lookTogether = 20 * time.Millisecond, 5 * time.Millisecond
)

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
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
		defer cancel()
	}
	_, err = w.a.client.Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// awaitStopped returns when the main container has stopped, and the moment of it. If it
// has not by the time it is due, overdue is called once: the kubelet may be dead.
func (w *workload) awaitStopped(ctx context.Context, due time.Time, overdue func()) time.Time {
	w.a.awaited.Add(1)
	defer w.a.awaited.Add(-1)
	for {
		pod, gone, _ := w.state()
		call, cancel := context.WithTimeout(ctx, time.Second)
		at, stopped, err := w.a.containers.Stopped(call, string(pod.UID), mainContainer(pod))
		cancel()
		switch {
		case err == nil && stopped && !at.IsZero():
			return at
		case err == nil && stopped, ended(pod, gone):
			return endedAt(pod)
		case overdue != nil && time.Now().After(due):
			w.log.Warn("the container was told to stop and runs on; it is stopped here", "phase", "evict")
			overdue()
			overdue = nil
			continue
		}
		select {
		// The runtime has better things to do when a hundred containers are stopped.
		case <-time.After(max(leastLook, time.Duration(w.a.awaited.Load())*lookTogether)):
		case <-ctx.Done():
			return time.Now()
		}
	}
}
