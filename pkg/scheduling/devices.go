// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"strings"

	v1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/claims"
)

// gpusOfNode is what a node's labels and its kubelet say of its GPUs.
func gpusOfNode(node *v1.Node) (gpu.Node, bool) {
	return gpu.FromNode(node.Labels, offeredBy(node))
}

// offeredBy is how many of each of NVIDIA's resources the node's kubelet offers.
func offeredBy(node *v1.Node) map[string]int {
	offered := map[string]int{}
	for name, quantity := range node.Status.Allocatable {
		if strings.HasPrefix(string(name), gpu.ResourcePrefix) {
			offered[string(name)] = int(quantity.Value())
		}
	}
	return offered
}

// gpusAsked is what GPUs are asked for, and how many. An error says what is wrong with
// that.
func gpusAsked(requests v1.ResourceList) (gpu.Resource, int, error) {
	return gpu.Asked(func(yield func(string, int64) bool) {
		for name, quantity := range requests {
			if !yield(string(name), quantity.Value()) {
				return
			}
		}
	})
}

// usesGPUs says whether a pod has GPUs of its node, whole ones, parts, or by claims.
func (p *Plugin) usesGPUs(pod *v1.Pod) bool {
	_, n, err := gpusAsked(requestsOf(pod))
	return n > 0 || err != nil || p.devices.usesGPUs(pod)
}

// mayUseGPUs is usesGPUs without asking what claims are for.
func mayUseGPUs(pod *v1.Pod) bool {
	_, n, err := gpusAsked(requestsOf(pod))
	return n > 0 || err != nil || len(pod.Spec.ResourceClaims) > 0
}

// anyGPUs says whether any of some extended resources are GPUs.
func anyGPUs(scalars map[v1.ResourceName]int64) bool {
	for name, n := range scalars {
		if n > 0 && strings.HasPrefix(string(name), gpu.ResourcePrefix) {
			return true
		}
	}
	return false
}

// as is a node as the pod of a request finds it; c is what its claims come to, nil for
// one without.
func (p *Plugin) as(r placement.Request, c *claimed, n placement.Node, node *v1.Node) placement.Node {
	switch {
	case r.Resource.Whole():
		return n
	case c != nil:
		return claims.See(r, n, c.asks, p.devices.seenBy(c, node.Name))
	}
	offered := offeredBy(node)
	n.GPUs = n.GPUs.As(r.Resource, node.Labels, offered)
	n.TotalGPUs = offered[r.Resource.Name()]
	n.FreeGPUs = n.TotalGPUs
	return n
}

// asWithPods is as for a node with the pods that are on it.
func (p *Plugin) asWithPods(a *attempt, n placement.Node, info fwk.NodeInfo) placement.Node {
	r := a.request
	if r.Resource.Whole() {
		return n
	}
	if a.claimed != nil {
		// What it takes to see one is more than a look at labels.
		if g, ok := a.seen.Load(n.Name); ok {
			if seen, ok := g.(placement.Node); ok {
				n.GPUs, n.HasGPUs, n.TotalGPUs, n.FreeGPUs = seen.GPUs, seen.HasGPUs, seen.TotalGPUs, seen.FreeGPUs
				return n
			}
		}
		n = p.as(r, a.claimed, n, info.Node())
		a.seen.Store(n.Name, n)
		return n
	}
	n = p.as(r, nil, n, info.Node())
	n.FreeGPUs -= int(info.GetRequested().GetScalarResources()[v1.ResourceName(r.Resource.Name())])
	return n
}

// slicesIn is how many MIG slices there are of each profile among extended resources;
// nil for none.
func slicesIn(scalars map[v1.ResourceName]int64) map[string]int {
	var slices map[string]int
	for name, n := range scalars {
		if r, is, err := gpu.ParseResource(string(name)); is && err == nil && n > 0 && r.Profile != "" && !r.Shared {
			if slices == nil {
				slices = map[string]int{}
			}
			slices[r.Profile] = int(n)
		}
	}
	return slices
}
