// SPDX-License-Identifier: Apache-2.0

package workflow

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"github.com/spotbench/spotbench/pkg/apiserver"
)

// Keeper carries decisions out.
type Keeper struct {
	node      string
	namespace string // of the Lease
	workflows dynamic.NamespaceableResourceInterface
	metadata  metadata.Getter
	cluster   *apiserver.Client
	events    record.EventRecorder
	actions   *prometheus.CounterVec
	leading   prometheus.Gauge
	log       *slog.Logger
	sightings sightings
}

// Config of a Keeper.
type Config struct {
	// Node is the name of this agent's node.
	Node string
	// Namespace is where the agents' Lease is.
	Namespace string
	// Cluster is how the API server is reached.
	Cluster *rest.Config
	// Events takes the events on workflows.
	Events record.EventRecorder
	// Metrics takes the counts.
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// NewKeeper makes a keeper. Nothing is asked of the API server yet.
func NewKeeper(c Config) (*Keeper, error) {
	if err := CheckNode(c.Node); err != nil {
		return nil, err
	}
	workflows, err := dynamic.NewForConfig(c.Cluster)
	if err != nil {
		return nil, err
	}
	meta, err := metadata.NewForConfig(c.Cluster)
	if err != nil {
		return nil, err
	}
	cluster, err := apiserver.New(c.Cluster)
	if err != nil {
		return nil, err
	}
	k := &Keeper{
		node: c.Node, namespace: c.Namespace, workflows: workflows.Resource(Resource), metadata: meta.Resource(Resource), cluster: cluster,
		events: c.Events, log: c.Log, sightings: newSightings(),
		actions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spotbench_workflow_events_total",
			Help: "What this agent did about workflows of interrupted pods, by the reason of the event on the Workflow."}, []string{"reason"}),
		leading: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spotbench_workflow_leader",
			Help: "1 while this agent is the one that resumes workflows. None is while no workflow is suspended."}),
	}
	c.Metrics.MustRegister(k.actions, k.leading)
	return k, nil
}

// Suspend puts the node's hold on the workflow, as Suspend decides, and returns the
// names of the pods whose steps are started again.
func (k *Keeper) Suspend(ctx context.Context, namespace, name string, i Interruption) ([]string, error) {
	a, err := k.carryOut(ctx, namespace, name, func(s State) (Action, error) { return Suspend(s, i), nil })
	return a.Retried, err
}

// Release ends the node's hold on the workflow, as Release decides.
func (k *Keeper) Release(ctx context.Context, namespace, name, node, notice string, gone []string) error {
	_, err := k.carryOut(ctx, namespace, name, func(s State) (Action, error) { return Release(s, node, notice, gone), nil })
	return err
}

// Held are the suspended workflows with a hold of the node's for the notice that is
// not released: those of an agent that ran before this one.
func (k *Keeper) Held(ctx context.Context, node, notice string) (map[types.NamespacedName]Hold, error) {
	list, err := k.metadata.List(ctx, metav1.ListOptions{LabelSelector: Label})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the suspended workflows: %w", err)
	}
	held := map[types.NamespacedName]Hold{}
	for _, item := range list.Items {
		hold, err := ParseHold(item.Annotations[annotation(node)])
		if err == nil && hold.Notice == notice && !hold.Released {
			held[types.NamespacedName{Namespace: item.Namespace, Name: item.Name}] = hold
		}
	}
	return held, nil
}

// resume resumes the workflow if Resume decides so.
func (k *Keeper) resume(ctx context.Context, key types.NamespacedName) error {
	_, err := k.carryOut(ctx, key.Namespace, key.Name, func(s State) (Action, error) {
		pods, err := k.cluster.Pods(key.Namespace).List(ctx, metav1.ListOptions{LabelSelector: labelWorkflow + "=" + key.Name})
		if err != nil {
			return Action{}, fmt.Errorf("list the pods of workflow %s: %w", key, err)
		}
		return Resume(s, Observation{
			Present: func(node, name string) bool { return present(pods.Items, node, name) },
			Seen:    func(node string, hold Hold) time.Duration { return k.sightings.since(key, node, hold.Notice) },
		}), nil
	})
	return err
}

// present says whether a pod of that name is on the node and has not ended.
func present(pods []corev1.Pod, node, name string) bool {
	for i := range pods {
		p := &pods[i]
		if p.Name == name && p.Spec.NodeName == node && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			return true
		}
	}
	return false
}

// carryOut reads the workflow, decides, and writes, until nobody has written in
// between. A workflow that is not there needs nothing.
func (k *Keeper) carryOut(ctx context.Context, namespace, name string, decide func(State) (Action, error)) (Action, error) {
	workflows := k.workflows.Namespace(namespace)
	for {
		object, err := workflows.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return Action{}, nil
		}
		if err != nil {
			return Action{}, fmt.Errorf("read workflow %s/%s: %w", namespace, name, err)
		}
		s, err := Read(object)
		if err != nil {
			return Action{}, err
		}
		a, err := decide(s)
		if err != nil {
			return Action{}, err
		}
		if a.Change != nil {
			patch, err := a.Change.Patch(s)
			if err != nil {
				return Action{}, err
			}
			_, err = workflows.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: FieldManager})
			if apierrors.IsConflict(err) {
				continue
			}
			if err != nil && !apierrors.IsNotFound(err) {
				return Action{}, fmt.Errorf("patch workflow %s/%s: %w", namespace, name, err)
			}
		}
		k.say(s, a)
		return a, nil
	}
}

// say makes the events of an action that was carried out.
func (k *Keeper) say(s State, a Action) {
	about := &corev1.ObjectReference{APIVersion: Resource.GroupVersion().String(), Kind: "Workflow", Namespace: s.Namespace, Name: s.Name, UID: s.UID}
	for _, e := range a.Events {
		k.events.Event(about, e.Type, e.Reason, e.Message)
		k.actions.WithLabelValues(e.Reason).Inc()
		k.log.Info(e.Message, "workflow", s.Namespace+"/"+s.Name, "reason", e.Reason)
	}
}
