// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strconv"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
)

// machine is a kind of GPU node.
type machine struct{ instanceType, product string }

// machines are as many kinds as make each a tenth of the nodes. The first is the one
// that constrained pods name.
var machines = []machine{
	{"p5.48xlarge", "NVIDIA-H100-80GB-HBM3"},
	{"p5en.48xlarge", "NVIDIA-H200"},
	{"p4de.24xlarge", "NVIDIA-A100-SXM4-80GB"},
	{"p4d.24xlarge", "NVIDIA-A100-SXM4-40GB"},
	{"g6e.xlarge", "NVIDIA-L40S"},
	{"g6.12xlarge", "NVIDIA-L4"},
	{"g5.12xlarge", "NVIDIA-A10G"},
	{"g4dn.xlarge", "Tesla-T4"},
	{"p3.16xlarge", "Tesla-V100-SXM2-16GB"},
	{"p2.16xlarge", "Tesla-K80"},
}

// gpusPerNode is more than most machines have: a tenth of 1,000 nodes must hold all
// constrained pods.
const gpusPerNode = 16

// writers is how many requests that make nodes and pods are under way at a time.
const writers = 32

// gpuTaint is what operators put on GPU nodes; both kinds of pods tolerate it.
const gpuTaint = "nvidia.com/gpu"

// node is the i-th node, labelled as GPU Feature Discovery and Karpenter do.
func node(i int) *v1.Node {
	m := machines[i%len(machines)]
	zone := "us-east-1" + string(rune('a'+i/len(machines)%4))
	capacity := gpu.Spot
	if i/len(machines)%5 == 4 {
		capacity = gpu.OnDemand
	}
	name := fmt.Sprintf("node-%05d", i)
	resources := v1.ResourceList{
		v1.ResourceCPU: resource.MustParse("96"), v1.ResourceMemory: resource.MustParse("1000Gi"), v1.ResourcePods: resource.MustParse("110"),
		gpu.ResourceName: resource.MustParse(strconv.Itoa(gpusPerNode)),
	}
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			v1.LabelHostname:             name,
			v1.LabelArchStable:           "amd64",
			v1.LabelOSStable:             "linux",
			v1.LabelTopologyRegion:       "us-east-1",
			v1.LabelTopologyZone:         zone,
			v1.LabelInstanceTypeStable:   m.instanceType,
			"karpenter.sh/capacity-type": capacity,
			gpu.LabelProduct:             m.product,
			gpu.LabelCount:               strconv.Itoa(gpusPerNode),
		}},
		Spec: v1.NodeSpec{
			ProviderID: "aws:///" + zone + "/i-" + name,
			Taints:     []v1.Taint{{Key: gpuTaint, Value: "present", Effect: v1.TaintEffectNoSchedule}},
		},
		Status: v1.NodeStatus{
			Capacity: resources, Allocatable: resources,
			Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady"}},
		},
	}
}

// namespace of the pods.
const namespace = metav1.NamespaceDefault

// workload is what kind of pods are scheduled.
type workload string

const (
	// unconstrained pods ask for a GPU, whichever.
	unconstrained workload = "unconstrained"
	// constrained pods name the model of a tenth of the nodes.
	constrained workload = "model"
)

// pod is the i-th pod of a workload for a scheduler: the same resources for both, and
// the model as each has it named.
func pod(i int, w workload, s contender) *v1.Pod {
	one := resource.MustParse("1")
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pod-%06d", i), Namespace: namespace},
		Spec: v1.PodSpec{
			SchedulerName: s.profile,
			Tolerations:   []v1.Toleration{{Key: gpuTaint, Operator: v1.TolerationOpExists}},
			Containers: []v1.Container{{Name: "bench", Image: "bench", Resources: v1.ResourceRequirements{
				Requests: v1.ResourceList{v1.ResourceCPU: one, v1.ResourceMemory: resource.MustParse("1Gi"), gpu.ResourceName: one},
				Limits:   v1.ResourceList{gpu.ResourceName: one},
			}}},
		},
	}
	switch {
	case w == unconstrained:
	case s.annotates:
		model, _ := gpu.Lookup(machines[0].product)
		p.Annotations = map[string]string{benchspec.AnnotationGPUModel: model.Name}
	default:
		p.Spec.Affinity = &v1.Affinity{NodeAffinity: &v1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &v1.NodeSelector{
			NodeSelectorTerms: []v1.NodeSelectorTerm{{MatchExpressions: []v1.NodeSelectorRequirement{
				{Key: gpu.LabelProduct, Operator: v1.NodeSelectorOpIn, Values: []string{machines[0].product}},
			}}},
		}}}
	}
	return p
}

// createNodes makes the nodes.
func createNodes(ctx context.Context, client kubernetes.Interface, n int) error {
	return inParallel(ctx, n, func(ctx context.Context, i int) error {
		_, err := client.CoreV1().Nodes().Create(ctx, node(i), metav1.CreateOptions{})
		return err
	})
}

// createPods makes pods from first up to but without last.
func createPods(ctx context.Context, client kubernetes.Interface, first, last int, w workload, s contender) error {
	return inParallel(ctx, last-first, func(ctx context.Context, i int) error {
		_, err := client.CoreV1().Pods(namespace).Create(ctx, pod(first+i, w, s), metav1.CreateOptions{})
		return err
	})
}

func inParallel(ctx context.Context, n int, do func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}
