// SPDX-License-Identifier: Apache-2.0

package advice_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement/snapshot"
)

// sevenths is a node of cards that are all cut in seven.
func sevenths(name, model string, count string) snapshot.Node {
	n := node(name, model, gpu.Spot, 0.01)
	n.TotalGPUs = 0
	n.Allocatable = n.Allocatable.DeepCopy()
	n.Allocatable["nvidia.com/mig-1g.10gb"] = resource.MustParse(count)
	return n
}

func slicePod(name, count string, annotations ...string) snapshot.Pod {
	p := pod(name, 0, annotations...)
	p.Requests = v1.ResourceList{"nvidia.com/mig-1g.10gb": resource.MustParse(count)}
	return p
}

func TestWhatWouldGetAPodSlices(t *testing.T) {
	cut := sevenths("cut", "A100-80GB", "14")
	for name, c := range map[string]struct {
		s    snapshot.Snapshot
		pod  snapshot.Pod
		want []string
	}{
		"slices that are taken until a pod's expected end": {
			cluster(cut).Place(slicePod("first", "14", "expected-duration", "25m"), "cut"), slicePod("p", "1"),
			[]string{"A100-80GB: free in about 25 min on cut, when bench/first ends. add an A100-80GB node of this pool."}},
		"more slices than a node has": {
			cluster(cut), slicePod("p", "15"),
			[]string{"A100-80GB: ask for at most 14 of nvidia.com/mig-1g.10gb."}},
		"the card's memory was asked of a slice": {
			cluster(cut), slicePod("p", "1", "gpu-memory", "80Gi"),
			[]string{"A100-80GB: lower gpu-memory to 10Gi."}},
		"another card, which the cluster does not have": {
			cluster(cut), slicePod("p", "1", "gpu-model", "H100-80GB-MIG-1g.10gb"),
			[]string{"A100-80GB: allow A100-80GB-MIG-1g.10gb in gpu-model.", "H100-80GB: add an H100-80GB node with nvidia.com/mig-1g.10gb: the cluster has none."}},
		"no node is cut": {
			cluster(node("whole", "A100-80GB", gpu.Spot, 0.01)), slicePod("p", "1"),
			[]string{"A100-80GB:"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, texts(t, c.s, c.pod)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
