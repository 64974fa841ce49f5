// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/spotbench/spotbench/pkg/benchspec"
)

const (
	// workloadNamespace is where the benchmark Jobs run.
	workloadNamespace = "gpu-workloads"
	// interruptedJob is the benchmark whose node receives the notice.
	interruptedJob = "qwen2-5-72b"
	// jobsTimeout bounds the whole play; it takes some four minutes.
	jobsTimeout = 15 * time.Minute
	// progressBeforeNotice is how many requests must have been measured before the
	// notice: one point of the sweep is done and the next is in its middle.
	progressBeforeNotice = 75
)

// Play submits the three benchmark Jobs, sends a notice to the node that runs one
// of them, takes the machine away when its time is up, and reports what happened: with
// an error, what happened up to it.
func (s *Stage) Play(ctx context.Context, notice time.Duration) (*Report, error) {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, jobsTimeout)
	defer cancel()
	watchCtx, stopWatch := context.WithCancel(ctx)
	defer stopWatch()
	timeline, err := WatchTimeline(watchCtx, s.Client, workloadNamespace, benchspec.TaintInterruption, s.progress)
	if err != nil {
		return nil, err
	}

	s.progress.Headline("Three benchmarks are submitted")
	if err := s.Kubectl.ApplyKustomization(ctx, s.path("manifests/demo")); err != nil {
		return nil, fmt.Errorf("submit the benchmarks: %w", err)
	}
	jobs, err := s.Client.BatchV1().Jobs(workloadNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	follower := newFollower(s.Client, workloadNamespace, s.progress)

	report := &Report{CatalogURL: s.CatalogURL}
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return s.interrupt(groupCtx, timeline, follower, notice, &report.Notice)
	})
	for _, job := range jobs.Items {
		group.Go(func() error { return s.awaitJob(groupCtx, job.Name, follower) })
	}
	if err := group.Wait(); err != nil {
		if outer.Err() == nil {
			err = errors.Join(err, s.collect(outer, jobs.Items, report))
		}
		return report, err
	}
	s.progress.Headline("All benchmarks are finished; the catalog is asked what it has")
	return report, s.collect(ctx, jobs.Items, report)
}

// awaitJob returns when the Job is complete, following the pods it makes.
func (s *Stage) awaitJob(ctx context.Context, name string, follower *follower) error {
	err := wait.PollUntilContextCancel(ctx, 250*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		pods, err := s.Client.CoreV1().Pods(workloadNamespace).List(ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + name})
		if err != nil {
			return false, nil //nolint:nilerr // a busy API server is asked again until the timeout
		}
		for _, pod := range pods.Items {
			follower.follow(ctx, &pod)
		}
		job, err := s.Client.BatchV1().Jobs(workloadNamespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, nil //nolint:nilerr // as above
		}
		return finished(job)
	})
	if err != nil {
		return fmt.Errorf("wait for job %s: %w\n%s", name, err, unreadyPods(context.WithoutCancel(ctx), s.Client, []string{workloadNamespace}))
	}
	s.progress.Step("job %s is complete", name)
	return nil
}

// interrupt sends the notice once the benchmark has something to lose, notes when
// each phase became visible, and takes the machine away at the end of the notice.
func (s *Stage) interrupt(ctx context.Context, timeline *Timeline, follower *follower, notice time.Duration, report *NoticeReport) error {
	victim, err := s.awaitProgress(ctx, follower)
	if err != nil {
		return err
	}
	report.Node = victim.Spec.NodeName
	s.progress.Headline("A spot notice for %s: %s left to save what runs there", report.Node, notice)
	report.SentAt = time.Now()
	deadline := report.SentAt.Add(notice)
	if err := s.Cluster.Notice(ctx, report.Node, deadline, "terminate"); err != nil {
		return fmt.Errorf("send the notice: %w", err)
	}
	err = wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		report.TaintedAt = timeline.TaintedAt(report.Node)
		report.EvictedAt = timeline.EvictedAt(victim.Name)
		if report.EvictedAt.IsZero() {
			return false, nil
		}
		pods, err := s.Client.CoreV1().Pods(workloadNamespace).List(ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + interruptedJob})
		if err != nil {
			return false, nil //nolint:nilerr // a busy API server is asked again until the timeout
		}
		for _, pod := range pods.Items {
			if pod.Name != victim.Name {
				report.RunningAgainAt = timeline.RunningAt(pod.Name)
			}
		}
		return !report.RunningAgainAt.IsZero(), nil
	})
	if err != nil {
		return fmt.Errorf("wait for %s to run again after the notice: %w", interruptedJob, err)
	}
	s.progress.Step("%s runs again, %s after the notice", interruptedJob, after(report.SentAt, report.RunningAgainAt))
	select {
	case <-time.After(time.Until(deadline)):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.Cluster.Reclaim(ctx, report.Node); err != nil {
		return fmt.Errorf("take the machine away: %w", err)
	}
	report.ReclaimedAt = time.Now()
	s.progress.Step("the cloud has taken %s away", report.Node)
	return nil
}

// awaitProgress waits until the benchmark to interrupt has measured enough
// requests, and returns its pod.
func (s *Stage) awaitProgress(ctx context.Context, follower *follower) (*corev1.Pod, error) {
	var victim *corev1.Pod
	err := wait.PollUntilContextCancel(ctx, 200*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		pods, err := s.Client.CoreV1().Pods(workloadNamespace).List(ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + interruptedJob})
		if err != nil || len(pods.Items) == 0 {
			return false, nil //nolint:nilerr // a busy API server is asked again until the timeout
		}
		victim = &pods.Items[0]
		return follower.completed(victim.Name) >= progressBeforeNotice, nil
	})
	if err != nil {
		return nil, fmt.Errorf("wait for %s to have measured %d requests: %w\n%s", interruptedJob, progressBeforeNotice, err,
			unreadyPods(context.WithoutCancel(ctx), s.Client, []string{workloadNamespace}))
	}
	return victim, nil
}

// placementOf is the scheduler's decision on the pod that finished the Job.
func (s *Stage) placementOf(ctx context.Context, job string) (*corev1.Pod, benchspec.Placement, error) {
	pods, err := s.Client.CoreV1().Pods(workloadNamespace).List(ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + job})
	if err != nil {
		return nil, benchspec.Placement{}, err
	}
	i := slices.IndexFunc(pods.Items, func(pod corev1.Pod) bool { return pod.Status.Phase == corev1.PodSucceeded })
	if i < 0 {
		return nil, benchspec.Placement{}, fmt.Errorf("job %s has no pod that succeeded", job)
	}
	pod := &pods.Items[i]
	placement, err := benchspec.ParsePlacement(pod.Annotations[benchspec.AnnotationPlacement])
	if err != nil {
		return nil, benchspec.Placement{}, fmt.Errorf("pod %s: %w", pod.Name, err)
	}
	return pod, placement, nil
}

// runnerLog is the part of bench-runner's log lines that the demo shows.
type runnerLog struct {
	Msg         string  `json:"msg"`
	Concurrency int     `json:"concurrency"`
	Completed   int     `json:"completed"`
	Requests    int     `json:"requests"`
	Throughput  float64 `json:"output_throughput"`
}

func parseRunnerLog(line []byte) (runnerLog, bool) {
	var l runnerLog
	if err := json.Unmarshal(line, &l); err != nil || l.Msg != "progress" {
		return runnerLog{}, false
	}
	return l, true
}
