// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/spotbench/spotbench/pkg/gpu"
)

// gpusOfNode is what a node's labels and its kubelet say of its GPUs.
func gpusOfNode(node *v1.Node) (gpu.Node, bool) {
	offered := map[string]int{}
	for name, quantity := range node.Status.Allocatable {
		if strings.HasPrefix(string(name), gpu.ResourcePrefix) {
			offered[string(name)] = int(quantity.Value())
		}
	}
	return gpu.FromNode(node.Labels, offered)
}
