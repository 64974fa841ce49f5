// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spotbench/spotbench/pkg/agent/spool"
	"github.com/spotbench/spotbench/pkg/apiserver"
	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/interruption"
)

// Component is the source of the agent's events.
const Component = "spotbench-node-agent"

// Config is what the agent needs to know. Zero durations take their default.
type Config struct {
	// Node is this node's name.
	Node string
	// KubeletRoot is the kubelet's directory, usually /var/lib/kubelet.
	KubeletRoot string
	// HoldDir is a directory on the same file system as KubeletRoot's volumes.
	HoldDir string
	// JournalDir keeps what an agent that is started again needs to know.
	JournalDir string
	// DefaultCheckpointInterval (10 min) holds where a pod leaves it to the agent and
	// neither cost nor risk is known; LeastCheckpointInterval (30 s) bounds what is computed.
	DefaultCheckpointInterval, LeastCheckpointInterval time.Duration
	// SaveTimeout (5 min) bounds a periodic checkpoint, RestoreTimeout (5 min) a restore.
	SaveTimeout, RestoreTimeout time.Duration
	// SignalDelay (500 ms) is the time a workload gets to act on its checkpoint signal.
	SignalDelay time.Duration
	// FinalSaveWait (20 s) is how long a restore waits for the last checkpoint of
	// the pod before, counted from its announcement.
	FinalSaveWait time.Duration
	// MaintenanceLead (10 min) is how long before planned maintenance or removal of the
	// machine its pods are interrupted.
	MaintenanceLead time.Duration
	// TelemetryInterval (30 s) is the time between updates of a run's telemetry record.
	TelemetryInterval time.Duration
	// InstanceInterval (5 min) is the time between signs of life of this machine,
	// by which the catalog knows how long it lived.
	InstanceInterval time.Duration
	// Workflows suspends the workflows of interrupted pods; nil where none can be.
	Workflows Workflows
	// Memories makes checkpoints of whole containers on a notice; nil turns that off.
	Memories Memories
}

func (c *Config) setDefaults() {
	for value, fallback := range map[*time.Duration]time.Duration{
		&c.DefaultCheckpointInterval: 10 * time.Minute, &c.LeastCheckpointInterval: 30 * time.Second,
		&c.SaveTimeout: 5 * time.Minute, &c.RestoreTimeout: 5 * time.Minute, &c.SignalDelay: 500 * time.Millisecond,
		&c.FinalSaveWait: 20 * time.Second, &c.MaintenanceLead: 10 * time.Minute, &c.TelemetryInterval: 30 * time.Second, &c.InstanceInterval: 5 * time.Minute,
	} {
		if *value == 0 {
			*value = fallback
		}
	}
}

// Agent is the control loop of one node.
type Agent struct {
	cfg         Config
	client      Cluster
	checkpoints Checkpoints
	containers  Containers
	telemetry   Telemetry
	node        nodeObject
	records     records
	instance    instance
	queue       *spool.Spool
	events      record.EventRecorder
	broadcaster record.EventBroadcaster
	metrics     metrics
	turns       *turns
	evictions   *semaphore.Weighted
	awaited     atomic.Int32 // pods that are waited for to stop
	journal     journal
	memories    memories
	log         *slog.Logger

	mu        sync.Mutex
	workloads map[types.UID]*workload
	handling  map[string]handling            // by notice
	inForce   map[string]interruption.Notice // by ID
	taking    map[string]taking              // by ID of the notice
	synced    chan struct{}                  // closed when the node's pods are known
	living    sync.WaitGroup

	warning sync.Mutex                     // while the node's taint and condition are changed
	warned  map[string]interruption.Notice // those that the node is warned because of, by ID
}

// New makes an agent; Run starts it. The queue holds what the catalog must get.
func New(cfg Config, client Cluster, checkpoints Checkpoints, containers Containers, telemetry Telemetry,
	queue *spool.Spool, registry prometheus.Registerer, log *slog.Logger) (*Agent, error) {
	if cfg.Node == "" {
		return nil, errors.New("the name of the node is empty; set NODE_NAME from spec.nodeName")
	}
	cfg.setDefaults()
	if err := os.MkdirAll(cfg.HoldDir, 0o700); err != nil {
		return nil, fmt.Errorf("directory to hold files while they are saved: %w", err)
	}
	if err := os.MkdirAll(cfg.JournalDir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of the journal: %w", err)
	}
	a := &Agent{
		cfg: cfg, client: client, checkpoints: checkpoints, containers: containers, telemetry: telemetry,
		node: nodeObject{client: client, name: cfg.Node}, queue: queue, log: log,
		turns: newTurns(), memories: memories{one: semaphore.NewWeighted(1)}, evictions: semaphore.NewWeighted(evictionsAtOnce), journal: journal{cfg.JournalDir}, taking: map[string]taking{}, synced: make(chan struct{}),
		workloads: map[types.UID]*workload{}, handling: map[string]handling{},
		inForce: map[string]interruption.Notice{}, warned: map[string]interruption.Notice{},
		broadcaster: record.NewBroadcaster(),
		metrics:     newMetrics(registry, func() float64 { return float64(queue.Len()) }),
	}
	a.records = records{queue: queue, a: a}
	a.events = a.broadcaster.NewRecorder(apiserver.Scheme, corev1.EventSource{Component: Component, Host: cfg.Node})
	return a, nil
}

// Run watches the node's pods and accompanies each benchmark until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	a.broadcaster.StartRecordingToSink(a.client.Events())
	defer a.broadcaster.Shutdown()
	pods, here := a.client.Pods(metav1.NamespaceAll), fields.OneTermEqualSelector("spec.nodeName", a.cfg.Node).String()
	informer := cache.NewSharedInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = here
			return pods.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = here
			return pods.Watch(ctx, o)
		},
	}, &corev1.Pod{}, 0)
	if err := informer.SetTransform(withoutManagedFields); err != nil {
		return err
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { a.observe(ctx, obj, false) },
		UpdateFunc: func(_, obj any) { a.observe(ctx, obj, false) },
		DeleteFunc: func(obj any) { a.observe(ctx, obj, true) },
	}); err != nil {
		return err
	}
	go informer.RunWithContext(ctx)
	if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		close(a.synced)
		a.log.Info("watching the pods of this node")
		a.settleLeftovers(ctx)
	}
	if a.cfg.Memories != nil {
		a.living.Go(func() { a.lookForMemories(ctx) })
	}
	a.reportInstance(ctx)
	<-ctx.Done()
	a.living.Wait()
	return nil
}

// Ready says whether the agent knows its node's pods.
func (a *Agent) Ready() error {
	select {
	case <-a.synced:
		return nil
	default:
		return errors.New("the pods of this node are not known yet; is the API server reachable?")
	}
}

// observe takes in what the API server says of a pod.
func (a *Agent) observe(ctx context.Context, obj any, gone bool) {
	if last, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = last.Obj
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok || !benchspec.Ours(pod.Spec.SchedulerName, pod.Annotations) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.workloads[pod.UID]; w != nil {
		w.update(pod, gone)
		return
	}
	if ended(pod, gone) {
		return
	}
	w, err := newWorkload(a, pod)
	if err != nil {
		a.log.Error("the pod is left alone", "pod", pod.Namespace+"/"+pod.Name, "error", err)
		a.events.Eventf(pod, corev1.EventTypeWarning, "NotSaved", "this pod will not be checkpointed and its results are not imported: %v", err)
		return
	}
	if before, found, err := a.journal.get(pod.UID); err != nil {
		a.log.Warn("what an earlier agent knew of the pod is lost", "pod", pod.Namespace+"/"+pod.Name, "error", err)
	} else if found {
		w.recall(before)
	}
	a.workloads[pod.UID] = w
	a.living.Go(func() {
		w.live(ctx)
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.workloads, pod.UID)
	})
	for _, t := range a.taking {
		a.living.Go(func() { t.interrupt(w) })
	}
}

// withoutManagedFields drops half of a pod, which nobody here reads.
func withoutManagedFields(obj any) (any, error) {
	if pod, ok := obj.(*corev1.Pod); ok {
		pod.ManagedFields = nil
	}
	return obj, nil
}
