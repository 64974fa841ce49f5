// SPDX-License-Identifier: Apache-2.0

package scheduling_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// card is what GPU Feature Discovery and the cloud label a node with, and what the
// refusal of a pod that wants another one says.
type card struct {
	product   string
	memoryMiB int
	instance  string
	// model that pods name; "" for none that any may have.
	model, refusal string
}

var relabelled = []card{
	{"NVIDIA-A100-SXM4-80GB", 81920, "p4de.24xlarge", "A100-80GB", "A100-80GB"},
	{"NVIDIA-H100-80GB-HBM3", 81559, "p5.48xlarge", "H100-80GB", "H100-80GB"},
	{"NVIDIA-L4", 23034, "g6.12xlarge", "L4-24GB", "L4-24GB"},
	{"NVIDIA-A100-SXM4-80GB-MIG-INVALID", 0, "p4de.24xlarge", "",
		"GPUs that cannot be used: its MIG configuration is invalid (label nvidia.com/gpu.product=NVIDIA-A100-SXM4-80GB-MIG-INVALID)"},
	{"", 0, "m7i.2xlarge", "", "GPUs without a label nvidia.com/gpu.product"},
}

func (c *cluster) relabel(name string, to card, step int) {
	c.t.Helper()
	n, err := c.client.CoreV1().Nodes().Get(c.ctx, name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	n = n.DeepCopy()
	for label, value := range map[string]string{"nvidia.com/gpu.product": to.product, "nvidia.com/gpu.memory": strconv.Itoa(to.memoryMiB)} {
		if n.Labels[label] = value; to.product == "" {
			delete(n.Labels, label)
		}
	}
	n.Labels["node.kubernetes.io/instance-type"] = to.instance
	n.ResourceVersion = "relabelled-" + strconv.Itoa(step) // the fake leaves it alone
	if _, err := c.client.CoreV1().Nodes().Update(c.ctx, n, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	// It hears of pods and of nodes separately, and would refuse a pod that is first by
	// what the node was.
	for deadline := time.Now().Add(15 * time.Second); c.scheduler.Cache.Dump().Nodes[name].Node().ResourceVersion != n.ResourceVersion; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("the scheduler has not heard of %s after 15s", name)
		}
	}
}

func (c *cluster) remove(name string) {
	c.t.Helper()
	if err := c.client.CoreV1().Pods("default").Delete(c.ctx, name, metav1.DeleteOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// TestNodesThatAreRelabelledAtRandomAreAlwaysSeenAsTheyAre changes the cards of five
// nodes under a running scheduler. After each change what it does and says must be what
// the labels of that moment ask for.
func TestNodesThatAreRelabelledAtRandomAreAlwaysSeenAsTheyAre(t *testing.T) {
	const nodes, steps = 5, 60
	random := rand.New(rand.NewPCG(1, 2))
	has := make([]card, nodes)
	var objects []*v1.Node
	name := func(i int) string { return fmt.Sprintf("node-%d", i) }
	for i := range nodes {
		has[i] = relabelled[0]
		objects = append(objects, gpuNode(name(i), relabelled[0].product, relabelled[0].memoryMiB, 8, relabelled[0].instance, "spot", "us-east-1a"))
	}
	c := startCluster(t, objects...)
	running := map[string]*v1.Pod{}
	for i := range nodes {
		pod := benchPod(fmt.Sprintf("runs-%d", i), 1, map[string]string{"gpu-model": "A100-80GB"})
		pod.Spec.NodeSelector = map[string]string{"kubernetes.io/hostname": name(i)}
		c.create(pod)
		c.placed(pod.Name, name(i))
		running[pod.Name] = c.pod(pod.Name)
	}
	on := func(model string) (names map[string]bool) {
		names = map[string]bool{}
		for i := range nodes {
			if has[i].model == model {
				names[name(i)] = true
			}
		}
		return names
	}
	// expect waits for a pod to be where its model is, or to be refused where that is
	// nowhere.
	expect := func(step int, pod, model string) (placed bool) {
		t.Helper()
		suits := on(model)
		if len(suits) > 0 {
			node := c.eventually(pod, "placed", func(p *v1.Pod) bool { return p.Spec.NodeName != "" }).Spec.NodeName
			if !suits[node] {
				t.Fatalf("step %d: pod %s is on %s, %s is on %v", step, pod, node, model, suits)
			}
			return true
		}
		counts := map[string]int{}
		for i := range nodes {
			counts[has[i].refusal]++
		}
		var texts []string
		for refusal, n := range counts {
			texts = append(texts, fmt.Sprintf("%d node(s) have %s, wanted %s", n, refusal, model))
			if refusal == relabelled[3].refusal {
				texts[len(texts)-1] = fmt.Sprintf("%d node(s) have %s", n, refusal)
			}
		}
		c.refused(pod, texts...)
		return false
	}
	waiting := map[string]string{} // by model
	for step := range steps {
		i, to := random.IntN(nodes), relabelled[random.IntN(len(relabelled))]
		c.relabel(name(i), to, step)
		has[i] = to
		for _, card := range relabelled[:3] {
			// One that waited is woken by nothing but the new label.
			if pod, waits := waiting[card.model]; waits && len(on(card.model)) > 0 {
				if expect(step, pod, card.model) {
					c.remove(pod)
					delete(waiting, card.model)
				}
			}
			// One that comes now is judged by the labels of now.
			pod := fmt.Sprintf("comes-%d-%s", step, card.instance)
			c.create(benchPod(pod, 1, map[string]string{"gpu-model": card.model}))
			if expect(step, pod, card.model) || waiting[card.model] != "" {
				c.remove(pod)
			} else {
				waiting[card.model] = pod
			}
		}
	}
	for model, pod := range waiting {
		if node := c.pod(pod).Spec.NodeName; node != "" {
			t.Errorf("pod %s that wants %s, which is nowhere, is on %s", pod, model, node)
		}
	}
	for name, was := range running {
		if diff := cmp.Diff(was, c.pod(name)); diff != "" {
			t.Errorf("the running pod %s changed:\n%s", name, diff)
		}
	}
}
