// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/placement"
)

// indexByWait is the informer's index of pods that have no node yet. What they ask
// for is read once, when the informer hears of them: tens of thousands may wait.
const indexByWait = "spotbench.dev/waiting"

// What pods without a node are indexed under.
const (
	// waitsRefused begins the keys of pods that were refused; what they ask for
	// follows.
	waitsRefused   = "refused "
	waitsNominated = "nominated"
)

// waitingPods finds them without looking at every pod.
type waitingPods struct{ pods cache.Indexer }

func openWaitingPods(factory informers.SharedInformerFactory) (waitingPods, error) {
	informer := factory.Core().V1().Pods().Informer()
	if _, exists := informer.GetIndexer().GetIndexers()[indexByWait]; !exists {
		if err := informer.AddIndexers(cache.Indexers{indexByWait: waitKeys}); err != nil {
			return waitingPods{}, fmt.Errorf("indexing pods without a node: %w", err)
		}
	}
	return waitingPods{informer.GetIndexer()}, nil
}

// waitKeys is the index function. Refused pods under one key ask for the same, as far
// as the demand counts it.
func waitKeys(obj any) ([]string, error) {
	pod, ok := obj.(*v1.Pod)
	if !ok || pod.Spec.NodeName != "" {
		return nil, nil
	}
	var keys []string
	if pod.Status.NominatedNodeName != "" {
		keys = append(keys, waitsNominated)
	}
	if pod.Spec.SchedulerName == benchspec.SchedulerName && refused(pod) {
		if r, err := asks(pod); err == nil && r.GPUs > 0 {
			keys = append(keys, fmt.Sprintf("%s%s %q %d %d %d %d", waitsRefused, r.Resource.Name(), r.Spec.GPUModels, r.Spec.GPUMemoryBytes, r.GPUs, r.CPUMilli, r.MemoryBytes))
		}
	}
	return keys, nil
}

func refused(pod *v1.Pod) bool {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == v1.PodScheduled {
			return c.Status == v1.ConditionFalse && c.Reason == v1.PodReasonUnschedulable
		}
	}
	return false
}

// anyNominated says whether room is kept for a pod that others were evicted for.
func (w waitingPods) anyNominated() bool {
	keys, err := w.pods.IndexKeys(indexByWait, waitsNominated)
	return err == nil && len(keys) > 0
}

// waitingRequests is what the pods ask for that were refused and wait.
func (p *Plugin) waitingRequests() []placement.Waiting {
	var waiting []placement.Waiting
	for _, key := range p.waiting.pods.ListIndexFuncValues(indexByWait) {
		if !strings.HasPrefix(key, waitsRefused) {
			continue
		}
		// One stands for all under the key, which may be gone since.
		same, err := p.waiting.pods.ByIndex(indexByWait, key)
		if err != nil || len(same) == 0 {
			continue
		}
		pod, ok := same[0].(*v1.Pod)
		if !ok {
			continue
		}
		if request, err := p.request(pod); err == nil {
			waiting = append(waiting, placement.Waiting{Request: request, Pods: len(same)})
		}
	}
	return waiting
}
