// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/scheduler-plugins/apis/config"
	_ "sigs.k8s.io/scheduler-plugins/apis/config/scheme" // Coscheduling's arguments
	"sigs.k8s.io/scheduler-plugins/apis/scheduling/v1alpha1"
	"sigs.k8s.io/scheduler-plugins/pkg/coscheduling"
)

// GangsName is the name in KubeSchedulerConfiguration of the plugin that NewGangs
// makes: scheduler-plugins' own, as are its arguments.
const GangsName = coscheduling.Name

// defaultGangBackoff is the time from the failure of a gang to its next attempt
// where args.podGroupBackoffSeconds is 0.
const defaultGangBackoff = 5 * time.Second

// gangs is scheduler-plugins' Coscheduling, which holds the pods of a PodGroup back
// until all of them have a node. Ours is what happens to a gang that has failed: it
// rests, and all its pods say why. Upstream, the GPUs that its pods give up wake the
// one that had found none, at once and so for ever, and pods that a backoff turned
// away sleep through the end of it.
type gangs struct {
	*coscheduling.Coscheduling
	handle  gangHandle
	backoff time.Duration
}

var (
	_ framework.PreFilterPlugin  = gangs{}
	_ framework.PostFilterPlugin = gangs{}
	_ framework.PermitPlugin     = gangs{}
)

// NewGangs is the factory of Coscheduling.
func NewGangs(ctx context.Context, obj runtime.Object, handle framework.Handle) (framework.Plugin, error) {
	args, ok := obj.(*config.CoschedulingArgs)
	if !ok {
		return nil, fmt.Errorf("pluginConfig %s: args are a %T, want CoschedulingArgs", GangsName, obj)
	}
	backoff := time.Duration(args.PodGroupBackoffSeconds) * time.Second
	if backoff == 0 {
		backoff = defaultGangBackoff
	}
	args = args.DeepCopy()
	args.PodGroupBackoffSeconds = min(args.PodGroupBackoffSeconds, 0) // what is invalid stays so
	ctrllog.SetLogger(klog.FromContext(ctx))                          // of the client that reads PodGroups
	shared := gangHandle{handle, &failures{why: map[string]string{}}}
	plugin, err := coscheduling.New(ctx, args, shared)
	if err != nil {
		return nil, fmt.Errorf("pluginConfig %s: %w", GangsName, err)
	}
	upstream, ok := plugin.(*coscheduling.Coscheduling)
	if !ok {
		return nil, fmt.Errorf("plugin %s is a %T, want a *coscheduling.Coscheduling", GangsName, plugin)
	}
	return gangs{upstream, shared, backoff}, nil
}

// PreFilter turns away the pods of a gang that rests.
func (g gangs) PreFilter(ctx context.Context, state fwk.CycleState, pod *v1.Pod, nodes []fwk.NodeInfo) (*framework.PreFilterResult, *fwk.Status) {
	if why := g.handle.failures.of(pod); why != "" {
		return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, why)
	}
	result, status := g.Coscheduling.PreFilter(ctx, state, pod, nodes)
	if status.IsRejected() {
		state.Write(incompleteKey, incomplete{})
	}
	return result, status
}

// incompleteKey is where an attempt keeps that pods of the gang are yet to be created
// or ungated, which wakes those that are there.
const incompleteKey fwk.StateKey = GangsName + "/incomplete"

type incomplete struct{}

// Clone is the same.
func (i incomplete) Clone() fwk.StateData { return i }

// PostFilter gives up the gang of a pod that fits nowhere. It leaves pods without one
// alone: upstream adds to the event of each that its group cannot be found.
func (g gangs) PostFilter(ctx context.Context, state fwk.CycleState, pod *v1.Pod, statuses framework.NodeToStatusReader) (*framework.PostFilterResult, *fwk.Status) {
	if gangOf(pod) == "" {
		return nil, fwk.NewStatus(fwk.Unschedulable)
	}
	if g.handle.failures.of(pod) != "" {
		return nil, fwk.NewStatus(fwk.Unschedulable) // it rests, and PreFilter said why
	}
	// Upstream rejects the waiting pods within, and these are told why.
	g.handle.failures.set(pod, fmt.Sprintf("PodGroup %s does not fit as a whole: pod %s fits nowhere (%s)", gangOf(pod), pod.Name, g.reasons(statuses)))
	result, status := g.Coscheduling.PostFilter(ctx, state, pod, statuses)
	_, err := state.Read(incompleteKey)
	if enoughPlaced := len(status.Reasons()) == 0; enoughPlaced || err == nil {
		g.handle.failures.clear(pod) // no reason to rest
		return result, status
	}
	g.tryAgainLater(ctx, pod)
	return result, status
}

// Permit holds a pod until its gang is complete. A pod that comes before its PodGroup
// is tried again: the event of the PodGroup may be here before the plugin's own cache
// has it.
func (g gangs) Permit(ctx context.Context, state fwk.CycleState, pod *v1.Pod, node string) (*fwk.Status, time.Duration) {
	status, wait := g.Coscheduling.Permit(ctx, state, pod, node)
	if status.IsRejected() {
		g.tryAgainLater(ctx, pod)
	}
	return status, wait
}

// tryAgainLater ends the rest of a pod's gang when it is over.
func (g gangs) tryAgainLater(ctx context.Context, pod *v1.Pod) {
	logger := klog.FromContext(ctx)
	time.AfterFunc(g.backoff, func() {
		g.handle.failures.clear(pod)
		group := labels.SelectorFromSet(labels.Set{v1alpha1.PodGroupLabel: pod.Labels[v1alpha1.PodGroupLabel]})
		pods, err := g.handle.SharedInformerFactory().Core().V1().Pods().Lister().Pods(pod.Namespace).List(group)
		if err != nil {
			return // the cache never fails
		}
		pending := map[string]*v1.Pod{}
		for _, p := range pods {
			if p.Spec.NodeName == "" {
				pending[p.Namespace+"/"+p.Name] = p
			}
		}
		// The queue ignores pods that it does not have pending.
		g.handle.Activate(logger, pending)
	})
}

// reasons are why the nodes refused a pod, each once.
func (g gangs) reasons(statuses framework.NodeToStatusReader) string {
	nodes, err := g.handle.SnapshotSharedLister().NodeInfos().List()
	if err != nil || len(nodes) == 0 {
		return ErrReasonNoNodes
	}
	var reasons []string
	for _, node := range nodes {
		reasons = append(reasons, statuses.Get(node.Node().Name).Reasons()...)
	}
	slices.Sort(reasons)
	return strings.Join(slices.Compact(reasons), ", ")
}

// gangOf is the PodGroup of a pod, NAMESPACE/NAME, "" when it has none.
func gangOf(pod *v1.Pod) string {
	if name := pod.Labels[v1alpha1.PodGroupLabel]; name != "" {
		return pod.Namespace + "/" + name
	}
	return ""
}

// failures says of gangs that rest why they failed.
type failures struct {
	mu  sync.Mutex
	why map[string]string
}

func (f *failures) set(pod *v1.Pod, why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.why[gangOf(pod)] = why
}

func (f *failures) clear(pod *v1.Pod) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.why, gangOf(pod))
}

func (f *failures) of(pod *v1.Pod) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.why[gangOf(pod)]
}

// gangHandle is the framework as Coscheduling sees it: its rejections of waiting
// pods say why.
type gangHandle struct {
	framework.Handle
	failures *failures
}

// IterateOverWaitingPods calls back with the pods of groups that are not complete.
func (h gangHandle) IterateOverWaitingPods(callback func(framework.WaitingPod)) {
	h.Handle.IterateOverWaitingPods(func(pod framework.WaitingPod) { callback(gangMember{pod, h.failures}) })
}

// gangMember is a pod that has a node and waits for the rest of its gang.
type gangMember struct {
	framework.WaitingPod
	failures *failures
}

// Reject gives up the pod's node.
func (m gangMember) Reject(plugin, because string) {
	why := m.failures.of(m.GetPod())
	if why == "" {
		why = fmt.Sprintf("PodGroup %s was given up: see the events of its other pods (%s)", gangOf(m.GetPod()), because)
	}
	m.WaitingPod.Reject(plugin, why)
}
