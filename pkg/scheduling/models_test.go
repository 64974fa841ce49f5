// SPDX-License-Identifier: Apache-2.0

package scheduling_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes/fake"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/scheduling"
)

func TestPreFilterReturnsExactlyTheNodesWithOneOfTheModels(t *testing.T) {
	unknown := gpuNode("unknown", "NVIDIA-Z9-SHARED", 1024, 1, "z", "spot", "us-east-1a")
	broken := gpuNode("broken", "NVIDIA-H100-80GB-HBM3-MIG-INVALID", 0, 8, "p5.48xlarge", "spot", "us-east-1b")
	plugin, _ := newPlugin(t, fake.NewClientset(), nil, append(reference(), unknown, broken))
	for models, want := range map[string][]string{
		"A100-80GB":            {"a100-od-0", "a100-spot-0"},
		"L4, NVIDIA-A100-80GB": {"a100-od-0", "a100-spot-0", "l4-spot-0"},
		"H100-80GB":            {"h100-spot-0"}, // not the one whose MIG is invalid
		"NVIDIA-Z9-SHARED":     {"unknown"},     // as its label has it
		"NVIDIA-Z9":            {"unknown"},
		"H200":                 nil,
	} {
		t.Run(models, func(t *testing.T) {
			result, status := plugin.PreFilter(t.Context(), framework.NewCycleState(), withHostPort(benchPod("p", 1, map[string]string{"gpu-model": models})), nil)
			if want == nil {
				if status.Code() != fwk.UnschedulableAndUnresolvable {
					t.Fatalf("status %v, want a refusal", status)
				}
				return
			}
			if !status.IsSuccess() {
				t.Fatal(status.AsError())
			}
			if diff := cmp.Diff(want, sets.List(result.NodeNames)); diff != "" {
				t.Errorf("nodes differ (-want +got):\n%s", diff)
			}
		})
	}
	if result, status := plugin.PreFilter(t.Context(), framework.NewCycleState(), withHostPort(benchPod("any", 1, nil)), nil); !result.AllNodes() || !status.IsSuccess() {
		t.Errorf("a pod that names no model: %v, %v, want all nodes", result, status)
	}
}

// withHostPort gives a pod something that only the scheduler's own checks can judge.
func withHostPort(pod *v1.Pod) *v1.Pod {
	pod.Spec.Containers[0].Ports = []v1.ContainerPort{{ContainerPort: 80, HostPort: 80}}
	return pod
}

func TestAPodThatTheFleetCanJudgeIsShownTheFourBestNodes(t *testing.T) {
	var nodes []*v1.Node
	for i := range 20 {
		nodes = append(nodes, gpuNode(fmt.Sprintf("n%02d", i), "NVIDIA-L4", 23034, 4, "g6.12xlarge", "spot", "us-east-1c"))
	}
	nodes[0].Spec.Unschedulable = true
	nodes[1].Spec.Taints = []v1.Taint{{Key: "k", Effect: v1.TaintEffectNoSchedule}}
	nodes[2].Status.Conditions = []v1.NodeCondition{{Type: benchspec.ConditionSpotInterruption, Status: v1.ConditionTrue}}
	nodes[3].Status.Allocatable[v1.ResourcePods] = resource.MustParse("0")
	neighbour := benchPod("neighbour", 1, map[string]string{"isolation": "node"})
	neighbour.Spec.NodeName = "n04"
	full := benchPod("full", 4, nil)
	full.Spec.NodeName = "n05"
	plugin, _ := newPlugin(t, fake.NewClientset(), []*v1.Pod{neighbour, full}, nodes)
	for name, test := range map[string]struct {
		change func(*v1.Pod)
		want   []string // nil for all nodes
	}{
		"nothing but GPUs": {func(*v1.Pod) {}, []string{"n06", "n07", "n08", "n09"}},
		"tolerates the taint": {func(p *v1.Pod) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, v1.Toleration{Key: "k", Operator: v1.TolerationOpExists})
		}, []string{"n01", "n06", "n07", "n08"}},
		"a node by name": {func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{"kubernetes.io/hostname": "n17"} }, []string{"n17"}},
		"a volume claim": {func(p *v1.Pod) {
			p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}
		}, nil},
		"a device of others": {func(p *v1.Pod) { p.Spec.Containers[0].Resources.Limits["rdma/hca"] = resource.MustParse("1") }, nil},
		"spread over zones": {func(p *v1.Pod) {
			p.Spec.TopologySpreadConstraints = []v1.TopologySpreadConstraint{{TopologyKey: "zone"}}
		}, nil},
		"nothing that any node has": {func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{"no": "such"} }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			pod := benchPod("p", 1, nil)
			pod.Spec.Containers[0].Resources.Requests = pod.Spec.Containers[0].Resources.Limits
			test.change(pod)
			result, status := plugin.PreFilter(t.Context(), framework.NewCycleState(), pod, nil)
			if !status.IsSuccess() {
				t.Fatal(status.AsError())
			}
			var got []string
			if !result.AllNodes() {
				got = sets.List(result.NodeNames)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("nodes differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAPodIsShownEveryNodeAfterOtherChecksRefusedTheBest(t *testing.T) {
	plugin, _ := newPlugin(t, fake.NewClientset(), nil, reference())
	pod := benchPod("p", 1, nil)
	state := framework.NewCycleState()
	if result, _ := plugin.PreFilter(t.Context(), state, pod, nil); result.AllNodes() {
		t.Fatal("the first attempt sees all nodes")
	}
	if _, status := plugin.PostFilter(t.Context(), state, pod, nil); status.Code() != fwk.Unschedulable || !strings.Contains(status.Message(), "tries again with every node") {
		t.Errorf("status %v", status)
	}
	if result, _ := plugin.PreFilter(t.Context(), framework.NewCycleState(), pod, nil); !result.AllNodes() {
		t.Errorf("the second attempt sees only %v", result.NodeNames)
	}
}

func TestNodesThatPreFilterLeavesOutKeepTheirReasons(t *testing.T) {
	c := startCluster(t, append(reference(),
		gpuNode("broken", "NVIDIA-H100-80GB-HBM3-MIG-INVALID", 0, 8, "p5.48xlarge", "spot", "us-east-1b"))...)
	c.create(benchPod("p", 1, map[string]string{"gpu-model": "H100-80GB", "capacity": "on-demand"}))
	c.refused("p", "0/6 nodes are available",
		"1 node(s) have spot capacity, wanted on-demand",
		"2 node(s) have A100-80GB, wanted H100-80GB",
		"1 node(s) have L4-24GB, wanted H100-80GB",
		"1 node(s) have no GPUs, wanted H100-80GB",
		"1 node(s) have GPUs that cannot be used: its MIG configuration is invalid")
}

func TestAPodThatNamesAModelWhereThereAreNoNodesIsToldSo(t *testing.T) {
	plugin, _ := newPlugin(t, fake.NewClientset(), nil, nil)
	_, status := plugin.PreFilter(t.Context(), framework.NewCycleState(), benchPod("p", 1, map[string]string{"gpu-model": "L4"}), nil)
	if status.Message() != scheduling.ErrReasonNoNodes {
		t.Errorf("status %v", status)
	}
}

func TestANodeThatGetsAnotherModelIsFoundUnderItAndNotUnderTheOld(t *testing.T) {
	c := startCluster(t, gpuNode("node", "NVIDIA-L4", 23034, 4, "g6.12xlarge", "spot", "us-east-1c"))
	c.create(benchPod("l4", 1, map[string]string{"gpu-model": "L4"}))
	c.placed("l4", "node")
	c.create(benchPod("t4", 1, map[string]string{"gpu-model": "T4"}))
	c.refused("t4", "1 node(s) have L4-24GB, wanted T4-16GB")
	node, err := c.client.CoreV1().Nodes().Get(c.ctx, "node", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node.Labels["nvidia.com/gpu.product"], node.Labels["node.kubernetes.io/instance-type"] = "Tesla-T4", "g4dn.12xlarge"
	node.ResourceVersion = "relabelled"
	if _, err := c.client.CoreV1().Nodes().Update(c.ctx, node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.placed("t4", "node")
	c.create(benchPod("late", 1, map[string]string{"gpu-model": "L4"}))
	c.refused("late", "1 node(s) have T4-16GB, wanted L4-24GB")
}

func TestAPlacementHasTheThreeBestAlternativesWithWhatTheyLostBy(t *testing.T) {
	nodes := reference()
	for _, name := range []string{"twin-b", "twin-a", "twin-c"} {
		nodes = append(nodes, gpuNode(name, "NVIDIA-A100-SXM4-80GB", 81920, 8, "p4de.24xlarge", "spot", "us-east-1a"))
	}
	c := startCluster(t, nodes...)
	c.create(benchPod("twins", 1, map[string]string{"gpu-model": "A100-80GB"}))
	p := c.placed("twins", "a100-spot-0")
	lost := func(wants ...string) {
		t.Helper()
		var got []string
		for _, a := range p.Alternatives {
			got = append(got, a.Node+": "+a.Lost)
		}
		if !slices.EqualFunc(got, wants, strings.HasPrefix) {
			t.Errorf("alternatives %q, want %q", got, wants)
		}
	}
	// Five nodes would do; the fourth alternative, on demand, is not listed.
	lost("twin-a: nothing but the order of names", "twin-b: nothing but the order of names", "twin-c: nothing but the order of names")

	c.create(benchPod("listed", 4, map[string]string{"gpu-model": "H100-80GB, A100-80GB", "capacity": "on-demand"}))
	if p = c.placed("listed", "a100-od-0"); len(p.Alternatives) != 0 {
		t.Errorf("the only feasible node has the alternatives %v", p.Alternatives)
	}
	c.create(benchPod("preferred", 1, map[string]string{"gpu-model": "L4, H100-80GB"}))
	p = c.placed("preferred", "l4-spot-0")
	lost("h100-spot-0: H100-80GB is less preferred than L4-24GB")
	if a := p.Alternatives[0]; a.GPUModel != "H100-80GB" || a.CapacityType != "spot" || a.InstanceType != "p5.48xlarge" || a.USDPerHour <= 0 || a.InterruptionRisk <= 0 || a.ExpectedCostUSD <= 0 {
		t.Errorf("alternative %+v", a)
	}
}

// attempts counts how often a pod is tried.
type attempts struct {
	*scheduling.Plugin
	n *atomic.Int64
}

func (a attempts) PreFilter(ctx context.Context, state fwk.CycleState, pod *v1.Pod, nodes []fwk.NodeInfo) (*framework.PreFilterResult, *fwk.Status) {
	if strings.HasPrefix(pod.Name, "waiting") {
		a.n.Add(1)
	}
	return a.Plugin.PreFilter(ctx, state, pod, nodes)
}

func TestEventsThatChangeNothingForAPendingPodNeverWakeIt(t *testing.T) {
	var n atomic.Int64
	c := startClusterOf(t, func(ctx context.Context, obj runtime.Object, handle framework.Handle) (framework.Plugin, error) {
		plugin, err := scheduling.New(ctx, obj, handle)
		if err != nil {
			return nil, err
		}
		return attempts{plugin.(*scheduling.Plugin), &n}, nil
	}, nil, gpuNode("l4", "NVIDIA-L4", 23034, 8, "g6.48xlarge", "spot", "us-east-1c"))
	c.create(benchPod("waiting", 1, map[string]string{"gpu-model": "H100-80GB"}))
	c.refused("waiting", "wanted H100-80GB")

	for i := range 20 {
		name := "unrelated-" + string(rune('a'+i))
		if _, err := c.client.CoreV1().Nodes().Create(c.ctx, gpuNode(name, "Tesla-T4", 15360, 1, "g4dn.xlarge", "spot", "us-east-1c"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		node, err := c.client.CoreV1().Nodes().Get(c.ctx, "l4", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		node.Labels["round"], node.ResourceVersion = name, name
		if _, err := c.client.CoreV1().Nodes().Update(c.ctx, node, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.create(benchPod(name, 1, map[string]string{"gpu-model": "L4"}))
		c.placed(name, "l4")
		if err := c.client.CoreV1().Pods("default").Delete(c.ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	// Placed once all those events are through the queue, and so after any wrongly
	// woken attempt: it came later.
	c.create(benchPod("last", 1, map[string]string{"gpu-model": "T4"}))
	c.eventually("last", "placed", func(p *v1.Pod) bool { return p.Spec.NodeName != "" })
	if got := n.Load(); got != 1 {
		t.Errorf("tried %d times, want once: 20 nodes of other models, 20 labels, 20 placements and 20 deletions are not its business", got)
	}

	if _, err := c.client.CoreV1().Nodes().Create(c.ctx, gpuNode("h100", "NVIDIA-H100-80GB-HBM3", 81559, 8, "p5.48xlarge", "spot", "us-east-1b"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.placed("waiting", "h100")
	if got := n.Load(); got != 2 {
		t.Errorf("tried %d times, want twice: a node of its model woke it once", got)
	}
}
