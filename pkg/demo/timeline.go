// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Timeline watches the cluster from outside and notes when things became
// visible, so that the figures do not rest on the word of the programs measured.
type Timeline struct {
	progress *Progress
	// agentTaint is the key of the taint the node agent sets on a notice.
	agentTaint string

	mu      sync.Mutex
	tainted map[string]time.Time // node → first seen with the agent's taint
	evicted map[string]time.Time // pod → first seen with a deletion timestamp
	running map[string]time.Time // pod → first seen with its main container running
	nodes   map[string]string    // pod → node
	seen    map[string]bool      // lines already printed
}

// WatchTimeline starts to watch the nodes and the pods of a namespace until ctx ends.
func WatchTimeline(ctx context.Context, client kubernetes.Interface, namespace, agentTaint string, progress *Progress) (*Timeline, error) {
	t := &Timeline{
		progress: progress, agentTaint: agentTaint,
		tainted: map[string]time.Time{}, evicted: map[string]time.Time{}, running: map[string]time.Time{},
		nodes: map[string]string{}, seen: map[string]bool{},
	}
	nodes := informers.NewSharedInformerFactory(client, 0)
	pods := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	watches := []struct {
		informer cache.SharedIndexInformer
		handle   func(any)
	}{
		{nodes.Core().V1().Nodes().Informer(), t.onNode},
		{pods.Core().V1().Pods().Informer(), t.onPod},
		{pods.Core().V1().Events().Informer(), t.onEvent},
	}
	for _, w := range watches {
		if _, err := w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    w.handle,
			UpdateFunc: func(_, now any) { w.handle(now) },
		}); err != nil {
			return nil, err
		}
	}
	nodes.Start(ctx.Done())
	pods.Start(ctx.Done())
	for _, w := range watches {
		if !cache.WaitForCacheSync(ctx.Done(), w.informer.HasSynced) {
			return nil, fmt.Errorf("watch the cluster: %w", context.Cause(ctx))
		}
	}
	return t, nil
}

func (t *Timeline) onNode(obj any) {
	node, ok := obj.(*corev1.Node)
	if !ok {
		return
	}
	if slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool { return taint.Key == t.agentTaint }) {
		t.note(t.tainted, node.Name, "node %s is tainted: no new pod will land there", node.Name)
	}
}

func (t *Timeline) onPod(obj any) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	if pod.Spec.NodeName != "" {
		t.mu.Lock()
		t.nodes[pod.Name] = pod.Spec.NodeName
		t.mu.Unlock()
	}
	if pod.DeletionTimestamp != nil {
		t.note(t.evicted, pod.Name, "pod %s is evicted from %s", pod.Name, pod.Spec.NodeName)
	}
	for _, s := range pod.Status.ContainerStatuses {
		if s.State.Running != nil {
			t.note(t.running, pod.Name, "pod %s is running on %s", pod.Name, pod.Spec.NodeName)
		}
	}
}

// onEvent prints what the scheduler and the agent said, once each.
func (t *Timeline) onEvent(obj any) {
	event, ok := obj.(*corev1.Event)
	if !ok || !strings.HasPrefix(source(event), "spotbench") && event.Reason != "FailedScheduling" {
		return
	}
	line := fmt.Sprintf("%s %s: %s", strings.ToLower(event.InvolvedObject.Kind), event.InvolvedObject.Name, event.Message)
	t.mu.Lock()
	fresh := !t.seen[line]
	t.seen[line] = true
	t.mu.Unlock()
	if fresh {
		t.progress.Step("  %s (%s)", line, event.Reason)
	}
}

func source(event *corev1.Event) string {
	if event.ReportingController != "" {
		return event.ReportingController
	}
	return event.Source.Component
}

func (t *Timeline) note(times map[string]time.Time, name, format string, args ...any) {
	now := time.Now()
	t.mu.Lock()
	_, known := times[name]
	if !known {
		times[name] = now
	}
	t.mu.Unlock()
	if !known {
		t.progress.Step(format, args...)
	}
}

// TaintedAt is when the node was first seen with the agent's taint, or zero.
func (t *Timeline) TaintedAt(node string) time.Time { return t.at(t.tainted, node) }

// EvictedAt is when the pod was first seen with a deletion timestamp, or zero.
func (t *Timeline) EvictedAt(pod string) time.Time { return t.at(t.evicted, pod) }

// RunningAt is when the pod's main container was first seen running, or zero.
func (t *Timeline) RunningAt(pod string) time.Time { return t.at(t.running, pod) }

// Node is where the pod was placed, or "".
func (t *Timeline) Node(pod string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.nodes[pod]
}

func (t *Timeline) at(times map[string]time.Time, name string) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return times[name]
}
