// SPDX-License-Identifier: Apache-2.0

package shape_test

import (
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/spotbench/spotbench/pkg/localcluster/shape"
)

func TestTheDefaultShapeIsTheReferencePlatform(t *testing.T) {
	s := shape.Default()
	var got []string
	for _, n := range s.Nodes {
		gpu := "no GPU"
		if n.GPU != nil {
			gpu = s.GPUModels[n.GPU.Model].Product
		}
		got = append(got, strings.Join([]string{n.Name, n.CapacityType, n.Zone, gpu}, " "))
	}
	want := []string{
		"a100-spot-0 spot us-east-1a NVIDIA-A100-SXM4-80GB",
		"h100-spot-0 spot us-east-1b NVIDIA-H100-80GB-HBM3",
		"l4-spot-0 spot us-east-1c NVIDIA-L4",
		"a100-od-0 on-demand us-east-1d NVIDIA-A100-SXM4-80GB",
		"system-0 on-demand us-east-1a no GPU",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("nodes:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if s.KwokNodes() != 0 {
		t.Errorf("%d simulated nodes, want none unless asked for", s.KwokNodes())
	}
}

const valid = `
gpuModels:
  l4: {product: NVIDIA-L4, name: NVIDIA L4, memoryMiB: 23034, family: ada-lovelace, compute: "8.9"}
nodes:
- {name: gpu-0, instanceType: g6.12xlarge, zone: us-east-1c, capacityType: spot, gpu: {model: l4, count: 2}, labels: {team: a}, taints: ["dedicated=x:NoExecute"]}
kwok:
- {name: sim, count: 1, weight: 2, instanceType: g6.12xlarge, zone: us-east-1b, capacityType: spot, gpu: {model: l4, count: 4}}
- {name: idle, instanceType: g6.12xlarge, zone: us-east-1b, capacityType: on-demand}
- {name: other, weight: 1, instanceType: g6.12xlarge, zone: us-east-1b, capacityType: on-demand, capacity: {cpu: "8"}}
`

func TestErrorsNameTheFieldTheValueAndWhatWouldBeRight(t *testing.T) {
	for _, c := range []struct {
		name, replace, with string
		want                []string
	}{
		{"an unknown field is not ignored", "zone: us-east-1c", "zonne: us-east-1c", []string{"zonne"}},
		{"a capacity type of another vocabulary", "capacityType: spot, gpu: {model: l4, count: 2}", "capacityType: SPOT", []string{"nodes[0].capacityType", `"SPOT"`, "spot or on-demand"}},
		{"a GPU model that is not described", "model: l4, count: 2", "model: h100, count: 2", []string{"nodes[0].gpu.model", `"h100"`, "gpuModels"}},
		{"no GPU is no gpu at all", "count: 2", "count: 0", []string{"nodes[0].gpu.count", "0", "no gpu at all"}},
		{"more GPUs than the simulated driver knows", "count: 2", "count: 33", []string{"nodes[0].gpu.count", "33", "1 to 32"}},
		{"a region is not a zone", "zone: us-east-1c", "zone: us-east-1", []string{"nodes[0].zone", `"us-east-1"`, "us-east-1a"}},
		{"a name that is no host name", "name: gpu-0", "name: GPU_0", []string{"nodes[0].name", `"GPU_0"`}},
		{"two nodes of one name", "name: sim", "name: gpu-0", []string{"kwok[0].name", `"gpu-0"`, "twice"}},
		{"a taint without effect", "dedicated=x:NoExecute", "dedicated=x", []string{"nodes[0].taints", `"dedicated=x"`, "NoSchedule"}},
		{"a label that is none", "team: a", `"team/a/b": c`, []string{"nodes[0].labels", "team/a/b"}},
		{"a compute capability without minor", `compute: "8.9"`, `compute: "8"`, []string{"gpuModels.l4.compute", `"8"`, "8.0"}},
		{"memory that is nothing", "memoryMiB: 23034", "memoryMiB: 0", []string{"gpuModels.l4.memoryMiB", "0", "81920"}},
		{"a driver's name that would break its file", "name: NVIDIA L4", `name: 'NVIDIA "L4"'`, []string{"gpuModels.l4.name", "quotes"}},
		{"a capacity that is no quantity", `cpu: "8"`, `cpu: "eight"`, []string{"kwok[2].capacity.cpu", `"eight"`, "96"}},
		{"a negative count", "count: 1, weight: 2", "count: -1, weight: 2", []string{"kwok[0]", "-1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(valid, c.replace) {
				t.Fatalf("the valid file has no %q to replace", c.replace)
			}
			_, err := shape.Parse([]byte(strings.Replace(valid, c.replace, c.with, 1)))
			if err == nil {
				t.Fatal("the file is accepted")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error %q does not mention %q", err, want)
				}
			}
		})
	}
	if _, err := shape.Parse([]byte(valid)); err != nil {
		t.Errorf("the valid file: %v", err)
	}
}

func TestAShapeWithoutRealNodesIsRefused(t *testing.T) {
	if _, err := shape.Parse([]byte("kwok: []")); err == nil || !strings.Contains(err.Error(), "nodes is empty") {
		t.Errorf("error %v, want one about nodes", err)
	}
}

func TestLabelsAreThoseOfTheCloudAndOfGPUFeatureDiscovery(t *testing.T) {
	s, err := shape.Parse([]byte(valid))
	if err != nil {
		t.Fatal(err)
	}
	got := s.NodeLabels(s.Nodes[0].Machine)
	for k, want := range map[string]string{
		"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "23034", "nvidia.com/gpu.count": "2", "nvidia.com/gpu.present": "true",
		"nvidia.com/gpu.family": "ada-lovelace", "nvidia.com/gpu.compute.major": "8", "nvidia.com/gpu.compute.minor": "9", "nvidia.com/mig.capable": "false",
		"topology.kubernetes.io/region": "us-east-1", "topology.kubernetes.io/zone": "us-east-1c", "node.kubernetes.io/instance-type": "g6.12xlarge",
		"karpenter.sh/capacity-type": "spot", "eks.amazonaws.com/capacityType": "SPOT", "kubernetes.io/hostname": "gpu-0", "team": "a",
	} {
		if got[k] != want {
			t.Errorf("label %s is %q, want %q", k, got[k], want)
		}
	}
	for k := range s.NodeLabels(s.Kwok[1].Machine) {
		if strings.HasPrefix(k, "nvidia.com/") {
			t.Errorf("a node without GPUs has the label %s", k)
		}
	}
	taints := s.Nodes[0].NodeTaints()
	want := []corev1.Taint{{Key: "nvidia.com/gpu", Value: "present", Effect: corev1.TaintEffectNoSchedule}, {Key: "dedicated", Value: "x", Effect: corev1.TaintEffectNoExecute}}
	if len(taints) != 2 || taints[0] != want[0] || taints[1] != want[1] {
		t.Errorf("taints %v, want %v", taints, want)
	}
}

func TestIdentitiesAreStableAndDiffer(t *testing.T) {
	s, err := shape.Parse([]byte(valid))
	if err != nil {
		t.Fatal(err)
	}
	m := s.Nodes[0].Machine
	first, again, other := m.GPUUUIDs("a"), m.GPUUUIDs("a"), m.GPUUUIDs("b")
	pattern := regexp.MustCompile(`^GPU-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	for i := range first {
		if !pattern.MatchString(first[i]) {
			t.Errorf("UUID %q does not look like a GPU's", first[i])
		}
		if first[i] != again[i] || first[i] == other[i] {
			t.Errorf("GPU %d: %s and %s in one cluster, %s in another", i, first[i], again[i], other[i])
		}
	}
	if first[0] == first[1] {
		t.Errorf("two GPUs of one node have the UUID %s", first[0])
	}
	if got := m.ProviderID("a"); !regexp.MustCompile(`^aws:///us-east-1c/i-[0-9a-f]{17}$`).MatchString(got) {
		t.Errorf("providerID %q, want aws:///us-east-1c/i- and 17 digits", got)
	}
	config := s.DriverConfig(m, "a")
	for i, uuid := range first {
		if want := "uuid=" + uuid + ` name="NVIDIA L4" memory_mib=23034 compute=8.9`; !strings.Contains(config, want) {
			t.Errorf("the driver's file does not have %q for GPU %d:\n%s", want, i, config)
		}
	}
}

func TestSimulatedNodesAreSpreadByWeight(t *testing.T) {
	s, err := shape.Parse([]byte(valid))
	if err != nil {
		t.Fatal(err)
	}
	// Weights 2, 0 and 1: of 10, 10×2/3 = 6 and 10×1/3 = 3; the one left goes first.
	got, err := s.WithKwokNodes(10)
	if err != nil {
		t.Fatal(err)
	}
	if got.Kwok[0].Count != 7 || got.Kwok[1].Count != 0 || got.Kwok[2].Count != 3 || got.KwokNodes() != 10 {
		t.Errorf("counts %d, %d, %d, want 7, 0, 3", got.Kwok[0].Count, got.Kwok[1].Count, got.Kwok[2].Count)
	}
	if s.Kwok[0].Count != 1 {
		t.Errorf("the original shape changed to %d", s.Kwok[0].Count)
	}
	s.Kwok = nil
	if _, err := s.WithKwokNodes(1); err == nil {
		t.Error("simulated nodes without a group to take them from are accepted")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(valid))
	f.Add(shape.DefaultFile())
	f.Add([]byte("nodes: [{name: a}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := shape.Parse(data)
		if err != nil {
			return
		}
		// What is accepted can be turned into nodes.
		for _, n := range s.Nodes {
			if n.GPU != nil && len(n.GPUUUIDs("c")) != n.GPU.Count {
				t.Errorf("node %s has %d GPUs and %d UUIDs", n.Name, n.GPU.Count, len(n.GPUUUIDs("c")))
			}
			if want := len(n.Taints); n.GPU != nil && len(n.NodeTaints()) != want+1 || n.GPU == nil && len(n.NodeTaints()) != want {
				t.Errorf("node %s lost a taint: %v of %v", n.Name, n.NodeTaints(), n.Taints)
			}
			lines := strings.Count(s.DriverConfig(n.Machine, "c"), "\n")
			if n.GPU != nil && lines != n.GPU.Count+2 {
				t.Errorf("node %s: driver's file has %d lines for %d GPUs", n.Name, lines, n.GPU.Count)
			}
		}
	})
}
