// SPDX-License-Identifier: Apache-2.0

package scheduling_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/spotbench/spotbench/pkg/benchspec"
)

func TestTheThreeBenchmarksOfTheReferencePlatformArePlaced(t *testing.T) {
	c := startCluster(t, reference()...)
	c.create(benchPod("llama", 1, map[string]string{"gpu-memory": "80Gi", "expected-duration": "45m", "checkpoint-path": "/checkpoint"}))
	llama := c.placed("llama", "a100-spot-0")
	c.create(benchPod("qwen", 4, map[string]string{"gpu-model": "H100-80GB, A100-80GB", "expected-duration": "30m", "checkpoint-path": "/checkpoint"}))
	qwen := c.placed("qwen", "h100-spot-0")
	c.create(benchPod("mistral", 1, map[string]string{"gpu-model": "L4"}))
	mistral := c.placed("mistral", "l4-spot-0")

	// An eighth of p4de.24xlarge: spot 9.6064675/8, on demand 27.44705/8.
	if math.Abs(llama.USDPerHour-9.6064675/8) > 1e-9 || math.Abs(llama.OnDemandCostUSD-27.44705/8*0.75) > 1e-9 {
		t.Errorf("llama: $%v an hour, on demand $%v for 45m", llama.USDPerHour, llama.OnDemandCostUSD)
	}
	if !strings.HasPrefix(llama.Reason, "cheapest of 3 feasible nodes: $0.90 vs $") {
		t.Errorf("llama: reason %q", llama.Reason)
	}
	if want := "has H100-80GB, the most preferred model among 3 feasible nodes"; !strings.HasPrefix(qwen.Reason, want) {
		t.Errorf("qwen: reason %q, want it to begin with %q", qwen.Reason, want)
	}
	// The Advisor's last band, -ln(0.4)/4 per hour, over half an hour: 1 - 0.4^(1/8).
	if want := 1 - math.Pow(0.4, 0.125); math.Abs(qwen.InterruptionRisk-want) > 1e-9 {
		t.Errorf("qwen: risk %v, want %v", qwen.InterruptionRisk, want)
	}
	want := map[string]string{
		"a100-spot-0": "has A100-80GB, wanted L4-24GB",
		"a100-od-0":   "has A100-80GB, wanted L4-24GB",
		"h100-spot-0": "has H100-80GB, wanted L4-24GB",
		"system-0":    "has no GPUs, wanted L4-24GB",
	}
	if diff := cmp.Diff(want, mistral.Refused); diff != "" {
		t.Errorf("mistral: refused nodes differ (-want +got):\n%s", diff)
	}
	if mistral.CapacityType != "spot" || mistral.Zone != "us-east-1c" || mistral.InstanceType != "g6.12xlarge" || mistral.Provider != "aws" || mistral.GPUModel != "L4-24GB" || mistral.GPUCount != 1 {
		t.Errorf("mistral: %+v", mistral)
	}
}

func TestARunGoesElsewhereWhenItsNodeHasANotice(t *testing.T) {
	for name, announce := range map[string]func(*v1.Node){
		"by condition": func(n *v1.Node) {
			n.Status.Conditions = append(n.Status.Conditions, v1.NodeCondition{Type: benchspec.ConditionSpotInterruption, Status: v1.ConditionTrue, Reason: "SpotInterruptionNotice"})
		},
		"by taint, which the pod even tolerates": func(n *v1.Node) {
			n.Spec.Taints = append(n.Spec.Taints, v1.Taint{Key: benchspec.TaintInterruption, Value: "spot", Effect: v1.TaintEffectNoSchedule})
		},
	} {
		t.Run(name, func(t *testing.T) {
			nodes := reference()
			announce(nodes[1])
			c := startCluster(t, nodes...)
			qwen := benchPod("qwen", 4, map[string]string{"gpu-model": "H100-80GB, A100-80GB", "checkpoint-path": "/checkpoint"})
			qwen.Spec.Tolerations = append(qwen.Spec.Tolerations, v1.Toleration{Operator: v1.TolerationOpExists})
			c.create(qwen)
			p := c.placed("qwen", "a100-spot-0")
			if !strings.HasPrefix(p.Refused["h100-spot-0"], "has an interruption notice (") {
				t.Errorf("refused: %v", p.Refused)
			}
		})
	}
}

func TestEveryRefusalIsInThePodsEventWithItsFigures(t *testing.T) {
	c := startCluster(t, reference()...)
	for name, test := range map[string]struct {
		pod  *v1.Pod
		want []string
	}{
		"no node of a model": {benchPod("model", 1, map[string]string{"gpu-model": "H200"}),
			[]string{"0/5 nodes are available", "2 node(s) have A100-80GB, wanted H200-141GB", "1 node(s) have H100-80GB, wanted H200-141GB", "1 node(s) have no GPUs, wanted H200-141GB"}},
		"too little memory": {benchPod("memory", 1, map[string]string{"gpu-memory": "141Gi"}),
			[]string{"2 node(s) have A100-80GB with 80 GiB per GPU, wanted 141 GiB", "1 node(s) have L4-24GB with 24 GiB per GPU, wanted 141 GiB"}},
		"capacity": {benchPod("capacity", 1, map[string]string{"gpu-model": "H100-80GB", "capacity": "on-demand"}),
			[]string{"1 node(s) have spot capacity, wanted on-demand"}},
		"risk": {benchPod("risk", 1, map[string]string{"gpu-model": "H100-80GB, L4", "max-interruption-risk": "0.10", "expected-duration": "45m"}),
			[]string{"2 node(s) have interruption risk 0.16 over 45m, limit 0.10"}},
		"deadline": {benchPod("deadline", 1, map[string]string{"deadline": "2020-01-01T00:00:00Z"}),
			[]string{"4 node(s) have no time left, deadline was 2020-01-01T00:00:00Z"}},
		"more GPUs than a node has": {benchPod("room", 16, map[string]string{"gpu-model": "H100-80GB"}),
			[]string{"1 Insufficient nvidia.com/gpu"}},
		"annotations that cannot be read": {benchPod("malformed", 1, map[string]string{"gpu-memory": "80 GB", "capacity": "cheap"}),
			[]string{"the pod's annotations are malformed", `spotbench.dev/capacity: "cheap"`, `spotbench.dev/gpu-memory: "80 GB"`, "example of a right one: 80Gi"}},
		"a model but no GPU": {benchPod("forgot", 0, map[string]string{"gpu-model": "L4"}),
			[]string{"asks for no nvidia.com/gpu; add it to resources.limits"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := c.in(t)
			c.create(test.pod)
			c.refused(test.pod.Name, test.want...)
			if got := c.pod(test.pod.Name).Annotations[benchspec.AnnotationPlacement]; got != "" {
				t.Errorf("a refused pod has the placement %s", got)
			}
		})
	}
}

func TestPodsOfOtherSchedulersAreNotTouched(t *testing.T) {
	c := startCluster(t, reference()...)
	other := benchPod("other", 1, map[string]string{"gpu-model": "L4"})
	other.Spec.SchedulerName = v1.DefaultSchedulerName
	c.create(other)
	created := c.pod("other")
	// A pod of ours that comes later and is placed shows that the first was passed by.
	c.create(benchPod("ours", 1, map[string]string{"gpu-model": "L4"}))
	c.placed("ours", "l4-spot-0")
	if diff := cmp.Diff(created, c.pod("other")); diff != "" {
		t.Errorf("the pod changed:\n%s", diff)
	}
	for _, action := range c.client.(*fake.Clientset).Actions() {
		if verb := action.GetVerb(); verb == "delete" || verb == "update" {
			t.Errorf("unexpected %s of %s", verb, action.GetResource().Resource)
		}
	}
}

func TestIsolationKeepsNeighboursApartFromBothSides(t *testing.T) {
	c := startCluster(t, gpuNode("only", "NVIDIA-L4", 23034, 4, "g6.12xlarge", "spot", "us-east-1c"))
	c.create(benchPod("first", 1, nil))
	c.placed("first", "only")
	c.create(benchPod("alone", 1, map[string]string{"isolation": "node"}))
	c.refused("alone", "1 node(s) have other pods on their GPUs, wanted isolation")

	remove := func(name string) {
		if err := c.client.CoreV1().Pods("default").Delete(c.ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	remove("first")
	c.placed("alone", "only")
	c.create(benchPod("next", 1, nil))
	c.refused("next", "1 node(s) have a pod that is isolated on its GPUs")
	remove("alone")
	c.placed("next", "only")
}

func TestPendingPodsAreWokenByWhatChangesTheirRefusal(t *testing.T) {
	c := startCluster(t, gpuNode("node", "NVIDIA-L4", 23034, 4, "g6.12xlarge", "spot", "us-east-1c"))
	c.create(benchPod("h100", 1, map[string]string{"gpu-model": "H100-80GB"}))
	c.refused("h100", "1 node(s) have L4-24GB, wanted H100-80GB")
	c.create(benchPod("careful", 1, map[string]string{"max-interruption-risk": "0.01"}))
	c.refused("careful", "limit 0.01")

	t.Run("a node of the model joins", func(t *testing.T) {
		c := c.in(t)
		n := gpuNode("new", "NVIDIA-H100-80GB-HBM3", 81559, 8, "p5.48xlarge", "spot", "us-east-1b")
		if _, err := c.client.CoreV1().Nodes().Create(c.ctx, n, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.placed("h100", "new")
	})
	t.Run("the pod's own limit is raised", func(t *testing.T) {
		c := c.in(t)
		pod := c.pod("careful")
		pod.Annotations[benchspec.AnnotationMaxInterruptionRisk] = "0.5"
		pod.ResourceVersion = "raised" // the fake leaves it alone, and the scheduler drops updates without a new one
		if _, err := c.client.CoreV1().Pods("default").Update(c.ctx, pod, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.placed("careful", "node")
	})
}

func TestTheSameClusterAlwaysGivesTheSamePlacement(t *testing.T) {
	for range 5 {
		nodes := reference()
		for _, name := range []string{"twin-b", "twin-a", "twin-c"} {
			nodes = append(nodes, gpuNode(name, "NVIDIA-A100-SXM4-80GB", 81920, 8, "p4de.24xlarge", "spot", "us-east-1a"))
		}
		c := startCluster(t, nodes...)
		c.create(benchPod("p", 1, map[string]string{"gpu-memory": "80Gi"}))
		if p := c.placed("p", "a100-spot-0"); !strings.HasPrefix(p.Reason, "as cheap as any of 6 feasible nodes") {
			t.Errorf("reason %q", p.Reason)
		}
	}
}

func TestDeadlinePushesARunToOnDemand(t *testing.T) {
	// Without checkpoints and at the Advisor's last band four hours of work are
	// expected to take (exp(4·0.229)-1)/0.229·exp(0.229/20) = 6.6 h on spot.
	c := startCluster(t,
		gpuNode("spot", "NVIDIA-H100-80GB-HBM3", 81559, 8, "p5.48xlarge", "spot", "us-east-1b"),
		gpuNode("od", "NVIDIA-H100-80GB-HBM3", 81559, 8, "p5.48xlarge", "on-demand", "us-east-1b"))
	c.create(benchPod("relaxed", 1, map[string]string{"expected-duration": "4h", "deadline": time.Now().Add(10 * time.Hour).UTC().Format(time.RFC3339)}))
	c.placed("relaxed", "spot")
	c.create(benchPod("pressed", 1, map[string]string{"expected-duration": "4h", "deadline": time.Now().Add(5 * time.Hour).UTC().Format(time.RFC3339)}))
	p := c.placed("pressed", "od")
	if !strings.Contains(p.Refused["spot"], "to finish, deadline in") {
		t.Errorf("refused: %v", p.Refused)
	}
}
