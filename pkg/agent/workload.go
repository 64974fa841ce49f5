// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/spotbench/spotbench/pkg/agent/podvolume"
	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/checkpoint"
	"github.com/spotbench/spotbench/pkg/risk"
	"github.com/spotbench/spotbench/pkg/telemetry/monitor"
)

// annotationDefaultContainer is kubectl's.
const annotationDefaultContainer = "kubectl.kubernetes.io/default-container"

// Keys of a checkpoint's metadata.
const (
	metaNode   = "node"
	metaPod    = "pod"
	metaNotice = "notice" // the notice during which it was made
	metaFinal  = "final"  // "pending": another one follows once the workload has stopped; "done": it has
	// metaHandover is what the next node's agent needs to complete the records.
	metaHandover = "handover"
)

// workload is one benchmark pod of this node.
type workload struct {
	a         *Agent
	run       string
	spec      benchspec.Spec
	placement benchspec.Placement
	// checkpointDir and resultsDir are on the node; "" where the pod has none.
	checkpointDir, resultsDir string
	log                       *slog.Logger

	mu      sync.Mutex
	pod     *corev1.Pod
	gone    bool
	changed chan struct{} // closed and replaced at each change of pod or gone
	notice  string        // the notice that interrupts it
	// noticeDeadline is that notice's.
	noticeDeadline time.Time
	restored       checkpoint.Restored
	newest         checkpoint.Generation // the newest that was saved or restored here
	lastSave       time.Duration
	stopWork       context.CancelCauseFunc // ends the periodic checkpoint or the restore that is being made
	// interruption is what was recorded of it, noticeBefore the notice that it was
	// recorded for by an agent before this one.
	interruption catalog.Interruption
	noticeBefore string
	seriesAt     time.Time // when the catalog was last told how the GPUs went over time
	stoppedAt    time.Time // where no agent saw it; zero otherwise
	known        bool      // that agent had seen it run
	// The journal keeps the pod until it has finished and no interruption is under way.
	interrupting int
	finished     bool

	saving chan struct{} // holds the turn: one checkpoint or restore at a time
}

// newWorkload reads the pod's contract. A pod whose annotations cannot be
// understood is an error: the admission policy refuses it, but it may be older.
func newWorkload(a *Agent, pod *corev1.Pod) (*workload, error) {
	spec, err := benchspec.Parse(pod.Annotations)
	if err != nil {
		return nil, err
	}
	w := &workload{a: a, spec: spec, pod: pod, changed: make(chan struct{}), saving: make(chan struct{}, 1),
		run: benchspec.RunKey(pod.Namespace, pod.Labels, pod.Annotations, pod.Name)}
	w.log = a.log.With("pod", pod.Namespace+"/"+pod.Name, "run", w.run)
	if value, ok := pod.Annotations[benchspec.AnnotationPlacement]; ok {
		if w.placement, err = benchspec.ParsePlacement(value); err != nil {
			w.log.Warn("the placement annotation cannot be read; price and GPU model are unknown", "error", err)
		}
	}
	if spec.CheckpointPath != "" {
		if w.checkpointDir, err = podvolume.Dir(a.cfg.KubeletRoot, pod, spec.CheckpointPath); err != nil {
			return nil, fmt.Errorf("%s: %w", benchspec.AnnotationCheckpointPath, err)
		}
	}
	if spec.ResultsPath != "" {
		if w.resultsDir, err = podvolume.Dir(a.cfg.KubeletRoot, pod, spec.ResultsPath); err != nil {
			return nil, fmt.Errorf("%s: %w", benchspec.AnnotationResultsPath, err)
		}
	}
	return w, nil
}

// recall takes in what an agent before this one knew of the pod.
func (w *workload) recall(e journalEntry) {
	w.newest, w.restored.Number = e.Newest, e.Restored
	w.noticeBefore, w.interruption = e.Notice, e.Interruption
	w.known = true
}

// update tells the workload what the API server now says of its pod.
func (w *workload) update(pod *corev1.Pod, gone bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pod, w.gone = pod, gone
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *workload) state() (pod *corev1.Pod, gone bool, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod, w.gone, w.changed
}

// mainContainer is the one whose state is the run's: the one that the annotation
// kubectl.kubernetes.io/default-container names, as it does where a controller puts
// containers of its own beside it, or else the first.
func mainContainer(pod *corev1.Pod) string { return mainSpec(pod).Name }

func mainSpec(pod *corev1.Pod) *corev1.Container {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == pod.Annotations[annotationDefaultContainer] {
			return &pod.Spec.Containers[i]
		}
	}
	return &pod.Spec.Containers[0]
}

func mainStatus(pod *corev1.Pod) *corev1.ContainerStatus {
	for i := range pod.Status.ContainerStatuses {
		if pod.Status.ContainerStatuses[i].Name == mainContainer(pod) {
			return &pod.Status.ContainerStatuses[i]
		}
	}
	return nil
}

func ended(pod *corev1.Pod, gone bool) bool {
	return gone || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// live accompanies the pod from its volumes to its end.
func (w *workload) live(ctx context.Context) {
	if !w.awaitVolumes(ctx) {
		if w.known { // the kubelet has removed them already
			w.finish()
		}
		return
	}
	if w.resultsDir != "" {
		watch, err := watchResults(w.resultsDir, w.keepResult, w.log)
		if err != nil {
			w.log.Error("results are not imported", "error", err)
		} else {
			watchCtx, stop := context.WithCancel(ctx)
			done := make(chan struct{})
			go func() { watch.run(watchCtx); close(done) }()
			defer func() { stop(); <-done; watch.close() }()
		}
	}
	if w.checkpointDir != "" {
		w.restore(ctx)
	}
	if !w.awaitRunning(ctx) {
		w.finish()
		return
	}
	w.started()
	w.accompany(ctx)
	w.finish()
}

// awaitVolumes waits until the kubelet has made the pod's directories.
func (w *workload) awaitVolumes(ctx context.Context) bool {
	for {
		missing := false
		for _, dir := range []string{w.checkpointDir, w.resultsDir} {
			if dir == "" {
				continue
			}
			if _, err := os.Stat(dir); err != nil {
				missing = true
			}
		}
		if !missing {
			return true
		}
		pod, gone, _ := w.state()
		if ended(pod, gone) {
			return false
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return false
		}
	}
}

// awaitRunning waits until the main container has started; false if it never did.
func (w *workload) awaitRunning(ctx context.Context) bool {
	for {
		pod, gone, changed := w.state()
		if s := mainStatus(pod); s != nil && (s.State.Running != nil || s.State.Terminated != nil) {
			return true
		}
		if ended(pod, gone) {
			return false
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// accompany takes periodic checkpoints and refreshes the telemetry record until
// the pod has ended.
func (w *workload) accompany(ctx context.Context) {
	nextSave := time.NewTimer(w.interval())
	defer nextSave.Stop()
	report := time.NewTicker(w.a.cfg.TelemetryInterval)
	defer report.Stop()
	for {
		pod, gone, changed := w.state()
		if ended(pod, gone) {
			return
		}
		select {
		case <-changed:
		case <-report.C:
			w.reportTelemetry(time.Since(w.seriesAt) >= seriesInterval)
		case <-nextSave.C:
			if w.checkpointDir != "" && w.currentNotice() == "" {
				w.periodic(ctx)
			}
			nextSave.Reset(w.interval())
		case <-ctx.Done():
			return
		}
	}
}

// interval is the time to the next periodic checkpoint: the pod's own, or by Young
// and Daly from what a checkpoint has cost and the risk the scheduler saw.
func (w *workload) interval() time.Duration {
	if !w.spec.CheckpointInterval.Auto && w.spec.CheckpointInterval.Every > 0 {
		return w.spec.CheckpointInterval.Every
	}
	w.mu.Lock()
	cost := w.lastSave
	w.mu.Unlock()
	p, hours := w.placement.InterruptionRisk, w.placement.ExpectedHours
	if cost == 0 || p <= 0 || p >= 1 || hours <= 0 {
		return w.a.cfg.DefaultCheckpointInterval
	}
	// The risk p is over the work that the pod said; if it said none, the expected time
	// is near the scheduler's assumption.
	if w.spec.ExpectedDuration > 0 {
		hours = w.spec.ExpectedDuration.Hours()
	}
	// Over h hours it is that of the hazard -ln(1-p)/h per hour.
	hazard := risk.Hazard(-math.Log1p(-p) / hours)
	return max(w.a.cfg.LeastCheckpointInterval, risk.DalyInterval(hazard, cost))
}

func (w *workload) currentNotice() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.notice
}

// keepResult queues a result file for the catalog.
func (w *workload) keepResult(file string, data []byte) error {
	if err := w.a.records.results(w.run, file, data); err != nil {
		return err
	}
	w.log.Info("result file queued for import", "file", file, "bytes", len(data))
	pod, _, _ := w.state()
	w.a.events.Eventf(pod, corev1.EventTypeNormal, "ResultImported", "%s is kept for the catalog", file)
	return nil
}

// seriesInterval is how often a record has the whole course of the pod's GPUs: of a node
// that is lost, at most that much is missing.
const seriesInterval = 5 * time.Minute

func (w *workload) reportTelemetry(series bool) {
	pod, _, _ := w.state()
	if summary, ok := w.a.telemetry.Summary(monitor.Pod{Namespace: pod.Namespace, Name: pod.Name}); ok {
		if series {
			w.seriesAt = time.Now()
		}
		w.a.records.telemetry(w.run, string(pod.UID), summary, series)
	}
}
