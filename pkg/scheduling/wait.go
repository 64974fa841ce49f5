// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
)

// check is placement's, with the waiting for spot.
func (a *attempt) check(n placement.Node) *placement.Refusal {
	if refusal := placement.Check(a.request, n); refusal != nil {
		return refusal
	}
	if a.spotSuits {
		return placement.CheckWait(a.request, n)
	}
	return nil
}

// waitForSpot says whether the pod waits for spot nodes that suit it, and sees to it
// that it is tried again once it must start on demand: no event of the cluster
// tells that the time has come.
func (p *Plugin) waitForSpot(pod *v1.Pod, a *attempt, nodes []fwk.NodeInfo) bool {
	request := a.request
	if !placement.WaitsForSpot(request) {
		return false
	}
	suits := false
	var urgent time.Time
	p.kinds(a, nodes, func(n placement.Node) {
		if n.Pool.CapacityType == gpu.Spot {
			suits = suits || placement.SuitsWaiting(request, n)
			return
		}
		if refusal := placement.Check(request, n); refusal != nil {
			return
		}
		if latest := placement.LatestStart(request, n); latest.After(request.Now) && (urgent.IsZero() || latest.Before(urgent)) {
			urgent = latest
		}
	})
	if suits && !urgent.IsZero() {
		p.wakeAt(pod, urgent)
	}
	return suits
}

// kinds visits the nodes as the pod finds them if they are empty, where it can one of
// each kind.
func (p *Plugin) kinds(a *attempt, nodes []fwk.NodeInfo, visit func(placement.Node)) {
	if a.request.Resource.Whole() {
		p.fleet.nodes.Kinds(func(n placement.Node, _ int) { visit(n) })
		return
	}
	for _, info := range nodes {
		visit(p.as(a.request, a.claimed, p.node(info.Node()), info.Node()))
	}
}

// alarm is when a pod is to be tried again.
type alarm struct {
	at    time.Time
	timer *time.Timer
}

// wakeAt tries the pod again at a time; the newest call for a pod holds.
func (p *Plugin) wakeAt(pod *v1.Pod, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a, ok := p.alarms[pod.UID]; ok {
		if a.at.Equal(at) {
			return
		}
		a.timer.Stop()
	}
	// A moment later than just before the time.
	p.alarms[pod.UID] = alarm{at: at, timer: time.AfterFunc(at.Sub(p.now())+time.Second, func() { p.wake(pod, at) })}
}

func (p *Plugin) wake(pod *v1.Pod, at time.Time) {
	p.mu.Lock()
	if p.alarms[pod.UID].at.Equal(at) {
		delete(p.alarms, pod.UID)
	}
	p.mu.Unlock()
	// The queue ignores pods that it does not have pending.
	p.handle.Activate(p.logger, map[string]*v1.Pod{pod.Namespace + "/" + pod.Name: pod})
}

// stopAlarms ends all timers once ctx ends.
func (p *Plugin) stopAlarms(ctx context.Context) {
	context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for uid, a := range p.alarms {
			a.timer.Stop()
			delete(p.alarms, uid)
		}
	})
}
