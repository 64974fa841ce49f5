// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"sync/atomic"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement/snapshot"
)

// Snapshots takes snapshots of what a scheduler decides from. It makes the plugin
// (New) and follows the scheduler that runs it.
type Snapshots struct {
	// plugin is the newest: profiles differ in their arguments, and a process mostly
	// has one.
	plugin    atomic.Pointer[Plugin]
	scheduler atomic.Pointer[scheduler.Scheduler]
}

// New is the plugin's factory, in place of the function New.
func (s *Snapshots) New(ctx context.Context, obj runtime.Object, handle framework.Handle) (framework.Plugin, error) {
	plugin, err := New(ctx, obj, handle)
	if p, ok := plugin.(*Plugin); ok {
		s.plugin.Store(p)
	}
	return plugin, err
}

// Follow says which scheduler's state is meant.
func (s *Snapshots) Follow(of *scheduler.Scheduler) { s.scheduler.Store(of) }

var errNotStarted = errors.New("the scheduler has not started yet, or no profile has the plugin " + Name + "; try again in a moment")

// Take is the present state, with the pods that were given a node and are on their
// way there. A pod that is being decided upon at that moment is not in it.
func (s *Snapshots) Take() (snapshot.Snapshot, error) {
	p, of := s.plugin.Load(), s.scheduler.Load()
	if p == nil || of == nil {
		return snapshot.Snapshot{}, errNotStarted
	}
	// The queue first: a pod that gets its node in between is then in both, and not in
	// neither.
	pending, _ := of.SchedulingQueue.PendingPods()
	out := snapshot.Snapshot{Time: p.now().UTC(), Assumptions: snapshot.AssumptionsOf(p.assumptions)}
	learned, observed := p.fleet.learned()
	out.Packing = &learned
	podOf := func(pod *v1.Pod) snapshot.Pod {
		one := p.snapshotPod(pod)
		one.Observed = observed(pod.UID)
		return one
	}
	placed := map[string]bool{}
	holders := p.devices.holders()
	for _, info := range of.Cache.Dump().Nodes {
		if info.Node() == nil {
			continue // gone, but for its pods
		}
		n := p.snapshotNode(info)
		n.Devices = p.devices.heldBy(holders, n.Name)
		for _, pod := range info.GetPods() {
			one := podOf(pod.GetPod())
			placed[one.Key()] = true
			if !one.UsesGPUs() {
				continue
			}
			if one.Started.IsZero() {
				one = one.StartedAt(out.Time)
			}
			n.Pods = append(n.Pods, one)
		}
		out.Nodes = append(out.Nodes, n)
	}
	for _, pod := range pending {
		if one := podOf(pod); !placed[one.Key()] {
			placed[one.Key()] = true
			out.Pending = append(out.Pending, one)
		}
	}
	return out, nil
}

// snapshotPod is a pod with what its claims ask for.
func (p *Plugin) snapshotPod(pod *v1.Pod) snapshot.Pod {
	one := snapshot.PodOf(pod)
	if len(pod.Spec.ResourceClaims) == 0 {
		return one
	}
	asks, all, err := p.devices.asks(pod)
	requests, constraints := 0, 0
	for _, claim := range all {
		requests += len(claim.Spec.Devices.Requests)
		constraints += len(claim.Spec.Devices.Constraints)
	}
	return one.WithClaims(asks, requests == len(asks) && constraints == 0, err)
}

// snapshotNode is a node without its pods.
func (p *Plugin) snapshotNode(info fwk.NodeInfo) snapshot.Node {
	node := info.Node()
	n := snapshot.NodeOf(p.node(node))
	n.Labels, n.Taints, n.Unschedulable = node.Labels, node.Spec.Taints, node.Spec.Unschedulable
	n.Allocatable = resources(info.GetAllocatable(), info.GetAllocatable().GetAllowedPodNumber())
	n.Requested = resources(info.GetRequested(), len(info.GetPods()))
	return n
}

func resources(of fwk.Resource, pods int) v1.ResourceList {
	out := v1.ResourceList{
		v1.ResourceCPU:    *resource.NewMilliQuantity(of.GetMilliCPU(), resource.DecimalSI),
		v1.ResourceMemory: *resource.NewQuantity(of.GetMemory(), resource.BinarySI),
		v1.ResourcePods:   *resource.NewQuantity(int64(pods), resource.DecimalSI),
	}
	if q := of.GetEphemeralStorage(); q > 0 {
		out[v1.ResourceEphemeralStorage] = *resource.NewQuantity(q, resource.BinarySI)
	}
	for name, q := range of.GetScalarResources() {
		if name != gpu.ResourceName {
			out[name] = *resource.NewQuantity(q, resource.DecimalSI)
		}
	}
	return out
}

// ServeHTTP answers with the present state. Whoever may ask is decided before.
func (s *Snapshots) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	taken, err := s.Take()
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	var document bytes.Buffer
	if err := taken.Write(&document); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(document.Bytes())
}
