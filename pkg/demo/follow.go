// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bufio"
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
)

// follower reads the logs of benchmark pods and shows their progress.
type follower struct {
	client    kubernetes.Interface
	namespace string
	progress  *Progress

	mu       sync.Mutex
	followed map[string]bool
	done     map[string]int // pod → measured requests, over all points of its sweep
}

func newFollower(client kubernetes.Interface, namespace string, progress *Progress) *follower {
	return &follower{client: client, namespace: namespace, progress: progress, followed: map[string]bool{}, done: map[string]int{}}
}

// follow starts to read the pod's log once its main container runs; later calls
// for the same pod do nothing.
func (f *follower) follow(ctx context.Context, pod *corev1.Pod) {
	started := false
	for _, s := range pod.Status.ContainerStatuses {
		started = started || s.Name == runnerContainer && (s.State.Running != nil || s.State.Terminated != nil)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !started || f.followed[pod.Name] {
		return
	}
	f.followed[pod.Name] = true
	go f.read(ctx, pod.Name)
}

func (f *follower) read(ctx context.Context, pod string) {
	stream, err := f.client.CoreV1().Pods(f.namespace).GetLogs(pod, &corev1.PodLogOptions{Container: runnerContainer, Follow: true}).Stream(ctx)
	if err != nil {
		f.mu.Lock()
		delete(f.followed, pod) // tried again on the next sight of the pod
		f.mu.Unlock()
		return
	}
	defer stream.Close()
	lines := bufio.NewScanner(stream)
	for lines.Scan() {
		l, ok := parseRunnerLog(lines.Bytes())
		if !ok {
			continue
		}
		f.mu.Lock()
		f.done[pod] = max(f.done[pod], l.Completed)
		f.mu.Unlock()
		f.progress.Step("  %s: concurrency %d, %d of %d requests, %.0f tokens/s", pod, l.Concurrency, l.Completed, l.Requests, l.Throughput)
	}
}

// completed is the number of requests the pod's log last reported as measured.
func (f *follower) completed(pod string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done[pod]
}
