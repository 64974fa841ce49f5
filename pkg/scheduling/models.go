// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"context"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
)

// indexByModel is the informer's index of nodes by what they are to a pod that
// names models. The informer updates it before it tells anybody of the change, so
// it is never older than the scheduler's own view: a pod that a new node wakes
// finds the node in it.
const indexByModel = "spotbench.dev/gpu-model"

// nodeModels finds nodes by GPU model without looking at every node.
type nodeModels struct{ nodes cache.Indexer }

// openNodeModels adds the index to the informer, once for all profiles.
func openNodeModels(factory informers.SharedInformerFactory) (nodeModels, error) {
	informer := factory.Core().V1().Nodes().Informer()
	if _, exists := informer.GetIndexer().GetIndexers()[indexByModel]; !exists {
		if err := informer.AddIndexers(cache.Indexers{indexByModel: modelKeys}); err != nil {
			return nodeModels{}, fmt.Errorf("indexing nodes by GPU model: %w", err)
		}
	}
	return nodeModels{informer.GetIndexer()}, nil
}

// Kinds of keys. The parts of a key are separated by a character that no label's
// value has.
const (
	keySeparator = "/"
	kindNone     = "none"
	kindNoLabel  = "unlabelled"
	kindUnusable = "unusable"
	kindModel    = "model"
)

// modelKeys is the index function. All nodes under one key are refused for the same
// reason, or none is, as far as models go.
func modelKeys(obj any) ([]string, error) {
	node, ok := obj.(*v1.Node)
	if !ok {
		return nil, nil
	}
	gpus, labelled := gpusOfNode(node)
	offered := node.Status.Allocatable[gpu.ResourceName]
	switch {
	case gpus.Invalid != "":
		return []string{strings.Join([]string{kindUnusable, gpus.Invalid}, keySeparator)}, nil
	case labelled:
		return []string{strings.Join([]string{kindModel, gpus.Model, gpus.Product}, keySeparator)}, nil
	case offered.IsZero():
		return []string{kindNone}, nil
	}
	return []string{kindNoLabel}, nil
}

// of is the names of the nodes that have one of the models.
func (m nodeModels) of(models []string) sets.Set[string] {
	names := sets.New[string]()
	for _, key := range m.nodes.ListIndexFuncValues(indexByModel) {
		if !hasOneOf(key, models) {
			continue
		}
		// Nodes have no namespace: their key is their name. A key may be gone since.
		if keys, err := m.nodes.IndexKeys(indexByModel, key); err == nil {
			names.Insert(keys...)
		}
	}
	return names
}

// hasOneOf says whether the nodes under a key have one of the models, which may be
// named by the product as the label has it.
func hasOneOf(key string, models []string) bool {
	parts := strings.Split(key, keySeparator)
	return parts[0] == kindModel && (slices.Contains(models, parts[1]) || slices.Contains(models, parts[2]))
}

// excluded counts, by what the pod's event says, the nodes that have none of the
// models.
func (p *Plugin) excluded(r placement.Request) map[string]int {
	counts := map[string]int{}
	for _, key := range p.models.nodes.ListIndexFuncValues(indexByModel) {
		if hasOneOf(key, r.Spec.GPUModels) {
			continue
		}
		// One stands for all under the key.
		same, err := p.models.nodes.ByIndex(indexByModel, key)
		if err != nil || len(same) == 0 {
			continue
		}
		one, ok := same[0].(*v1.Node)
		if !ok {
			continue
		}
		n := p.node(one)
		if refusal := placement.CheckGPUs(r, n); refusal != nil {
			counts[ErrReasonPrefix+refusal.Detail] += len(same)
			refusals.WithLabelValues(string(refusal.Reason), n.GPUs.Model).Add(float64(len(same)))
		}
	}
	return counts
}

// enumerate writes counted reasons the way the scheduler writes those of Filter.
func enumerate(counts map[string]int) string {
	lines := make([]string, 0, len(counts))
	for reason, n := range counts {
		lines = append(lines, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(lines)
	return strings.Join(lines, ", ")
}

// PostFilter makes nothing schedulable. It adds to the pod's event why the nodes
// that PreFilter left out were: the scheduler names reasons only of nodes that
// Filter saw.
func (p *Plugin) PostFilter(_ context.Context, state fwk.CycleState, pod *v1.Pod, _ framework.NodeToStatusReader) (*framework.PostFilterResult, *fwk.Status) {
	a, err := attemptOf(state)
	if err == nil && a.shortlisted {
		// Other checks know more than the fleet: next time they see every node.
		p.fleet.lookAtAll(pod.UID)
		p.wakeAt(pod, p.now())
		return nil, fwk.NewStatus(fwk.Unschedulable, Name+" tries again with every node.")
	}
	if err != nil || !a.narrowed {
		// PreFilter refused the pod and said why, or left nothing out.
		return nil, fwk.NewStatus(fwk.Unschedulable)
	}
	if text := enumerate(p.excluded(a.request)); text != "" {
		return nil, fwk.NewStatus(fwk.Unschedulable, Name+" left out: "+text+".")
	}
	return nil, fwk.NewStatus(fwk.Unschedulable)
}
