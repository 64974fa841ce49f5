// SPDX-License-Identifier: Apache-2.0

package scheduling_test

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/spotbench/spotbench/pkg/scheduling"
)

// nodeOf is a node with some labels and extended resources.
func nodeOf(name string, labels map[string]string, resources map[v1.ResourceName]int64) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Status: v1.NodeStatus{Allocatable: v1.ResourceList{}}}
	for resourceName, count := range resources {
		n.Status.Allocatable[resourceName] = *resource.NewQuantity(count, resource.DecimalSI)
	}
	return n
}

// verdict is what the plugin says to a pod on the only node there is, "" for yes.
func verdict(t *testing.T, pod *v1.Pod, node *v1.Node) string {
	t.Helper()
	plugin, handle := newPlugin(t, fake.NewClientset(), nil, []*v1.Node{node})
	state := framework.NewCycleState()
	if _, status := plugin.PreFilter(t.Context(), state, pod, nil); !status.IsSuccess() {
		return status.Message()
	}
	info, err := handle.SnapshotSharedLister().NodeInfos().Get(node.Name)
	if err != nil {
		t.Fatal(err)
	}
	return plugin.Filter(t.Context(), state, pod, info).Message()
}

func TestOddLabelsAreUnderstoodOrRefusedWithAReason(t *testing.T) {
	const refused = scheduling.ErrReasonPrefix
	gfd := func(product, memory, count string) map[string]string {
		return map[string]string{"nvidia.com/gpu.product": product, "nvidia.com/gpu.memory": memory, "nvidia.com/gpu.count": count}
	}
	with := func(labels map[string]string, key, value string) map[string]string {
		labels[key] = value
		return labels
	}
	v100 := map[string]string{"gpu-model": "V100-16GB", "gpu-memory": "16Gi"}
	a100 := map[string]string{"gpu-model": "A100-40GB", "gpu-memory": "40Gi"}
	for name, test := range map[string]struct {
		labels  map[string]string
		gpus    int64
		wanted  map[string]string
		verdict string
	}{
		"an old driver's Tesla":          {gfd("Tesla-V100-SXM2-16GB", "16160", "8"), 8, v100, ""},
		"an old driver without NVIDIA-":  {gfd("A100-SXM4-40GB", "40536", "8"), 8, a100, ""},
		"a time-sliced GPU":              {gfd("A100-SXM4-40GB-SHARED", "40536", "8"), 8, a100, ""},
		"a time-sliced GPU, and peace":   {gfd("A100-SXM4-40GB-SHARED", "40536", "8"), 8, map[string]string{"isolation": "node"}, refused + "time-sliced GPUs, wanted isolation"},
		"MIG that is invalid":            {gfd("NVIDIA-A100-SXM4-40GB-MIG-INVALID", "0", "0"), 8, a100, "1 " + refused + "GPUs that cannot be used: its MIG configuration is invalid (label nvidia.com/gpu.product=NVIDIA-A100-SXM4-40GB-MIG-INVALID)"},
		"MIG slices are not the card":    {gfd("A100-SXM4-40GB-MIG-1g.5gb", "4864", "7"), 7, a100, "1 " + refused + "A100-40GB-MIG-1g.5gb, wanted A100-40GB"},
		"no memory label, a known card":  {map[string]string{"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"}, 8, a100, ""},
		"no memory label, and unknown":   {map[string]string{"nvidia.com/gpu.product": "NVIDIA-GB10"}, 1, map[string]string{"gpu-memory": "40Gi"}, refused + "NVIDIA-GB10 of unknown memory, wanted 40 GiB per GPU"},
		"an unknown card by its product": {map[string]string{"nvidia.com/gpu.product": "NVIDIA-GB10"}, 1, map[string]string{"gpu-model": "NVIDIA-GB10"}, ""},
		"two models, one labelled":       {gfd("NVIDIA-A100-SXM4-40GB", "40960", "4"), 6, a100, "1 " + refused + "GPUs that cannot be used: it offers 6 nvidia.com/gpu, but label nvidia.com/gpu.count says 4: GPU Feature Discovery counts those of one model only, or its labels are old"},
		"two models, none asked for":     {gfd("NVIDIA-A100-SXM4-40GB", "40960", "4"), 6, nil, refused + "GPUs that cannot be used: it offers 6 nvidia.com/gpu, but label nvidia.com/gpu.count says 4: GPU Feature Discovery counts those of one model only, or its labels are old"},
		"a failed GPU is no other model": {gfd("NVIDIA-A100-SXM4-40GB", "40960", "8"), 7, a100, ""},
		"Karpenter without a size":       {with(gfd("NVIDIA-A100-SXM4-40GB", "40960", "8"), "karpenter.k8s.aws/instance-gpu-name", "h100"), 8, a100, ""},
		"the driver against Karpenter": {with(with(gfd("NVIDIA-A100-SXM4-40GB", "40960", "8"), "karpenter.k8s.aws/instance-gpu-name", "h100"), "karpenter.k8s.aws/instance-gpu-memory", "81920"), 8, a100,
			"1 " + refused + "GPUs that cannot be used: label nvidia.com/gpu.product=NVIDIA-A100-SXM4-40GB says A100-40GB, but karpenter.k8s.aws/instance-gpu-name=h100 says H100-80GB"},
		"the driver against GKE": {with(gfd("NVIDIA-A100-SXM4-40GB", "40960", "8"), "cloud.google.com/gke-accelerator", "nvidia-l4"), 8, a100,
			"1 " + refused + "GPUs that cannot be used: label nvidia.com/gpu.product=NVIDIA-A100-SXM4-40GB says A100-40GB, but cloud.google.com/gke-accelerator=nvidia-l4 says L4-24GB"},
		"the driver against the instance type": {with(gfd("NVIDIA-A100-SXM4-40GB", "40960", "8"), "node.kubernetes.io/instance-type", "p5.48xlarge"), 8, a100,
			"1 " + refused + "GPUs that cannot be used: label nvidia.com/gpu.product=NVIDIA-A100-SXM4-40GB says A100-40GB, but node.kubernetes.io/instance-type=p5.48xlarge says H100-80GB"},
		"Karpenter's labels alone":           {map[string]string{"karpenter.k8s.aws/instance-gpu-name": "a100", "karpenter.k8s.aws/instance-gpu-memory": "40960", "karpenter.k8s.aws/instance-gpu-count": "8"}, 8, a100, ""},
		"Karpenter's, and shared":            {map[string]string{"karpenter.k8s.aws/instance-gpu-name": "t4", "karpenter.k8s.aws/instance-gpu-count": "1"}, 4, map[string]string{"isolation": "node"}, refused + "time-sliced GPUs, wanted isolation"},
		"GKE's labels alone":                 {map[string]string{"cloud.google.com/gke-accelerator": "nvidia-tesla-a100", "cloud.google.com/gke-accelerator-count": "8"}, 8, a100, ""},
		"GKE's partitions are not the card":  {map[string]string{"cloud.google.com/gke-accelerator": "nvidia-tesla-a100", "cloud.google.com/gke-gpu-partition-size": "1g.5gb"}, 7, a100, "1 " + refused + "A100-40GB-MIG-1g.5gb, wanted A100-40GB"},
		"GPUs without a label":               {nil, 8, a100, "1 " + refused + "GPUs without a label nvidia.com/gpu.product, wanted A100-40GB"},
		"GPUs without a label, no wish":      {nil, 8, nil, ""},
		"a label before the device plugin":   {gfd("NVIDIA-A100-SXM4-40GB", "40960", "8"), 0, a100, ""}, // NodeResourcesFit waits for it
		"neither label nor GPUs, memory set": {nil, 0, map[string]string{"gpu-memory": "40Gi"}, refused + "no GPUs, wanted 1 with 40 GiB each"},
	} {
		t.Run(name, func(t *testing.T) {
			node := nodeOf("node", test.labels, map[v1.ResourceName]int64{"nvidia.com/gpu": test.gpus})
			if got := verdict(t, benchPod("p", 1, test.wanted), node); got != test.verdict {
				t.Errorf("verdict %q, want %q", got, test.verdict)
			}
		})
	}
}
