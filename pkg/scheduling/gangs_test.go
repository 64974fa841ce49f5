// SPDX-License-Identifier: Apache-2.0

package scheduling_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/scheduler-plugins/apis/scheduling/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/scheduling"
)

// a100s are nodes of eight GPUs each, alike but for their names.
func a100s(names ...string) []*v1.Node {
	var nodes []*v1.Node
	for _, name := range names {
		nodes = append(nodes, gpuNode(name, "NVIDIA-A100-SXM4-80GB", 81920, 8, "p4de.24xlarge", "spot", "us-east-1a"))
	}
	return nodes
}

// group creates a PodGroup and its pods, one for each number of GPUs.
func (c *realCluster) group(name string, gpus ...int) (pods []string) {
	c.t.Helper()
	c.apply(&v1alpha1.PodGroup{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: v1alpha1.PodGroupSpec{MinMember: int32(len(gpus))}})
	for i, n := range gpus {
		pod := benchPod(name+"-"+string(rune('a'+i)), n, map[string]string{"gpu-model": "A100-80GB"})
		pod.Labels = map[string]string{v1alpha1.PodGroupLabel: name}
		c.create(pod)
		pods = append(pods, pod.Name)
	}
	return pods
}

func (c *realCluster) remove(pods ...string) {
	c.t.Helper()
	now := int64(0)
	for _, name := range pods {
		if err := c.client.CoreV1().Pods("default").Delete(c.ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
			c.t.Fatal(err)
		}
	}
}

func TestGangsArePlacedWholeOrNotAtAll(t *testing.T) {
	c := startRealCluster(t, a100s("node-a", "node-b")...)
	bound := func(p *v1.Pod) bool { return p.Spec.NodeName != "" }

	// Four single GPUs, spread over both nodes, would leave 6 + 6: no room for 8.
	var singles []string
	for _, name := range []string{"single-a", "single-b", "single-c", "single-d"} {
		c.create(benchPod(name, 1, map[string]string{"gpu-model": "A100-80GB"}))
		c.placed(name, "node-a")
		singles = append(singles, name)
	}
	fits := c.group("fits", 4, 8)
	c.placed(fits[0], "node-a")
	c.placed(fits[1], "node-b")
	c.remove(append(singles, fits...)...)

	// 8 + 8 + 8 GPUs are more than there are: two pods would fit, none is bound, and
	// all say why.
	misfit := c.group("misfit", 8, 8, 8)
	for _, name := range misfit {
		c.refused(name, "PodGroup default/misfit does not fit as a whole: pod misfit-", "fits nowhere (Insufficient nvidia.com/gpu)")
	}
	for _, name := range misfit {
		if pod := c.pod(name); bound(pod) {
			t.Errorf("pod %s of a gang that does not fit is on %s", name, pod.Spec.NodeName)
		}
	}

	// The GPUs that were held for it are free, and others are not told of groups.
	c.create(benchPod("alone", 8, map[string]string{"gpu-model": "A100-80GB"}))
	c.eventually("alone", "placed", bound)
	c.create(benchPod("too-many", 16, map[string]string{"gpu-model": "A100-80GB"}))
	c.refused("too-many", "Insufficient nvidia.com/gpu")
	if text := unschedulable(c.pod("too-many")); strings.Contains(strings.ToLower(text), "group") {
		t.Errorf("a pod without a group is told: %s", text)
	}

	// A node more, and the gang is placed whole.
	c.remove("alone")
	c.addNode(a100s("node-c")[0])
	nodes := map[string]bool{}
	for _, name := range misfit {
		nodes[c.eventually(name, "placed", bound).Spec.NodeName] = true
	}
	if len(nodes) != 3 {
		t.Errorf("the three pods of 8 GPUs are on %v", nodes)
	}
}

func TestAPodWhoseGroupIsMissingWaitsForIt(t *testing.T) {
	c := startRealCluster(t, a100s("node-a")...)
	pod := benchPod("early", 1, nil)
	pod.Labels = map[string]string{v1alpha1.PodGroupLabel: "late"}
	c.create(pod)
	c.refused("early", "PodGroup not found")
	c.apply(&v1alpha1.PodGroup{ObjectMeta: metav1.ObjectMeta{Name: "late", Namespace: "default"}, Spec: v1alpha1.PodGroupSpec{MinMember: 1}})
	c.placed("early", "node-a")
}

func TestAllShippedProfilesSortTheQueueAsGangsNeedIt(t *testing.T) {
	for _, profile := range loadShipped(t).Profiles {
		sort := profile.Plugins.QueueSort
		if len(sort.Enabled) != 1 || sort.Enabled[0].Name != scheduling.GangsName || len(sort.Disabled) != 1 || sort.Disabled[0].Name != "*" {
			t.Errorf("profile %s sorts by %+v, want %s alone", profile.SchedulerName, sort, scheduling.GangsName)
		}
	}
}

func TestTheShippedPodGroupIsTheOneOfItsModule(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/scheduler-plugins").Output()
	if err != nil {
		t.Fatal(err)
	}
	read := func(file string) (object map[string]any) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(data, &object); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		return object
	}
	want := read(filepath.Join(strings.TrimSpace(string(dir)), "config/crd/bases/scheduling.x-k8s.io_podgroups.yaml"))
	if diff := cmp.Diff(want, read(manifests+"podgroup-crd.yaml")); diff != "" {
		t.Errorf("manifests/base/scheduler/podgroup-crd.yaml differs from the module's (-module +ours); copy it over:\n%s", diff)
	}
}
