// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"strings"

	v1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
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

// usesGPUs says whether a pod has GPUs of its node, whole ones or parts.
func usesGPUs(pod *v1.Pod) bool {
	_, n, err := gpusAsked(requestsOf(pod))
	return n > 0 || err != nil
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

// as is a node as the pod of a request finds it.
func as(r placement.Request, n placement.Node, node *v1.Node) placement.Node {
	if r.Resource.Whole() {
		return n
	}
	offered := offeredBy(node)
	n.GPUs = n.GPUs.As(r.Resource, node.Labels, offered)
	n.TotalGPUs = offered[r.Resource.Name()]
	n.FreeGPUs = n.TotalGPUs
	return n
}

// asWithPods is as for a node with the pods that are on it.
func asWithPods(r placement.Request, n placement.Node, info fwk.NodeInfo) placement.Node {
	if r.Resource.Whole() {
		return n
	}
	n = as(r, n, info.Node())
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
