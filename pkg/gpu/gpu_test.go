// SPDX-License-Identifier: Apache-2.0

package gpu_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/pkg/gpu"
)

const gib = int64(1) << 30

func TestFromLabelsReadsWhatDriversAndCloudsSay(t *testing.T) {
	gfd := func(product, memory, count string) map[string]string {
		return map[string]string{gpu.LabelProduct: product, gpu.LabelMemory: memory, gpu.LabelCount: count}
	}
	for name, test := range map[string]struct {
		labels map[string]string
		want   gpu.Node
	}{
		"an H100 has 80 GiB although its driver says 81559 MiB": {
			gfd("NVIDIA-H100-80GB-HBM3", "81559", "8"),
			gpu.Node{Model: "H100-80GB", Product: "NVIDIA-H100-80GB-HBM3", MemoryBytes: 80 * gib, Count: 8}},
		"an L40S has 48 GiB although ECC leaves 46068 MiB": {
			gfd("NVIDIA-L40S", "46068", "1"),
			gpu.Node{Model: "L40S-48GB", Product: "NVIDIA-L40S", MemoryBytes: 48 * gib, Count: 1}},
		"A100 in SXM form": {
			gfd("NVIDIA-A100-SXM4-80GB", "81920", "8"),
			gpu.Node{Model: "A100-80GB", Product: "NVIDIA-A100-SXM4-80GB", MemoryBytes: 80 * gib, Count: 8}},
		"A100 in PCIe form": {
			gfd("NVIDIA-A100-80GB-PCIe", "81920", "1"),
			gpu.Node{Model: "A100-80GB", Product: "NVIDIA-A100-80GB-PCIe", MemoryBytes: 80 * gib, Count: 1}},
		"an old driver leaves NVIDIA- out": {
			gfd("A100-SXM4-40GB", "40536", "8"),
			gpu.Node{Model: "A100-40GB", Product: "A100-SXM4-40GB", MemoryBytes: 40 * gib, Count: 8}},
		"Tesla names": {
			gfd("Tesla-V100-SXM2-16GB", "16160", "8"),
			gpu.Node{Model: "V100-16GB", Product: "Tesla-V100-SXM2-16GB", MemoryBytes: 16 * gib, Count: 8}},
		"no memory label does not matter for a known model": {
			map[string]string{gpu.LabelProduct: "NVIDIA-L4"},
			gpu.Node{Model: "L4-24GB", Product: "NVIDIA-L4", MemoryBytes: 24 * gib}},
		"time-slicing shows as suffix": {
			gfd("NVIDIA-A100-SXM4-80GB-SHARED", "81920", "8"),
			gpu.Node{Model: "A100-80GB", Product: "NVIDIA-A100-SXM4-80GB-SHARED", MemoryBytes: 80 * gib, Count: 8, Shared: true}},
		"time-slicing under a renamed resource shows as replicas": {
			map[string]string{gpu.LabelProduct: "Tesla-T4", gpu.LabelReplicas: "4", gpu.LabelCount: "1"},
			gpu.Node{Model: "T4-16GB", Product: "Tesla-T4", MemoryBytes: 16 * gib, Count: 1, Shared: true}},
		"one replica is not shared": {
			map[string]string{gpu.LabelProduct: "Tesla-T4", gpu.LabelReplicas: "1", gpu.LabelCount: "1"},
			gpu.Node{Model: "T4-16GB", Product: "Tesla-T4", MemoryBytes: 16 * gib, Count: 1}},
		"a MIG slice is a model of its own with its own memory": {
			gfd("A100-SXM4-40GB-MIG-1g.5gb", "4864", "56"),
			gpu.Node{Model: "A100-40GB-MIG-1g.5gb", Product: "A100-SXM4-40GB-MIG-1g.5gb", MemoryBytes: 5 * gib, Count: 56}},
		"a shared MIG slice with media engines": {
			gfd("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb.me-SHARED", "9856", "7"),
			gpu.Node{Model: "H100-80GB-MIG-1g.10gb.me", Product: "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb.me-SHARED", MemoryBytes: 10 * gib, Count: 7, Shared: true}},
		"an invalid MIG configuration cannot be used": {
			gfd("NVIDIA-A100-SXM4-40GB-MIG-INVALID", "0", "0"),
			gpu.Node{Model: "A100-40GB", Product: "NVIDIA-A100-SXM4-40GB-MIG-INVALID", MemoryBytes: 40 * gib,
				Invalid: "its MIG configuration is invalid (label nvidia.com/gpu.product=NVIDIA-A100-SXM4-40GB-MIG-INVALID)"}},
		"an unknown card has its driver's memory, up to the next GiB: 15500 MiB is 15.1 GiB": {
			gfd("NVIDIA-Imaginary", "15500", "2"),
			gpu.Node{Model: "NVIDIA-Imaginary", Product: "NVIDIA-Imaginary", MemoryBytes: 16 * gib, Count: 2}},
		"an unknown card without memory label has unknown memory": {
			gfd("NVIDIA-GB10", "", "1"),
			gpu.Node{Model: "NVIDIA-GB10", Product: "NVIDIA-GB10", Count: 1}},
		"nonsense in numbers is not said": {
			gfd("NVIDIA-L4", "-1", "99999999999999999999"),
			gpu.Node{Model: "L4-24GB", Product: "NVIDIA-L4", MemoryBytes: 24 * gib}},
		"GKE's label": {
			map[string]string{"cloud.google.com/gke-accelerator": "nvidia-h100-80gb", "cloud.google.com/gke-accelerator-count": "8"},
			gpu.Node{Model: "H100-80GB", Product: "nvidia-h100-80gb", MemoryBytes: 80 * gib, Count: 8}},
		"Karpenter's name and memory tell the two A100 apart": {
			map[string]string{"karpenter.k8s.aws/instance-gpu-name": "a100", "karpenter.k8s.aws/instance-gpu-memory": "81920", "karpenter.k8s.aws/instance-gpu-count": "8"},
			gpu.Node{Model: "A100-80GB", Product: "a100", MemoryBytes: 80 * gib, Count: 8}},
		"Karpenter's smaller A100": {
			map[string]string{"karpenter.k8s.aws/instance-gpu-name": "a100", "karpenter.k8s.aws/instance-gpu-memory": "40960"},
			gpu.Node{Model: "A100-40GB", Product: "a100", MemoryBytes: 40 * gib}},
		"Karpenter's L4 has its own figure of 22888 MiB": {
			map[string]string{"karpenter.k8s.aws/instance-gpu-name": "l4", "karpenter.k8s.aws/instance-gpu-memory": "22888"},
			gpu.Node{Model: "L4-24GB", Product: "l4", MemoryBytes: 24 * gib}},
		"Karpenter's H100 is not an H100 NVL": {
			map[string]string{"karpenter.k8s.aws/instance-gpu-name": "h100", "karpenter.k8s.aws/instance-gpu-memory": "81920"},
			gpu.Node{Model: "H100-80GB", Product: "h100", MemoryBytes: 80 * gib}},
		"GKE's time-sharing": {
			map[string]string{"cloud.google.com/gke-accelerator": "nvidia-tesla-t4", "cloud.google.com/gke-gpu-sharing-strategy": "time-sharing", "cloud.google.com/gke-max-shared-clients-per-gpu": "4"},
			gpu.Node{Model: "T4-16GB", Product: "nvidia-tesla-t4", MemoryBytes: 16 * gib, Shared: true}},
		"GKE's MIG partitions": {
			map[string]string{"cloud.google.com/gke-accelerator": "nvidia-tesla-a100", "cloud.google.com/gke-accelerator-count": "1", "cloud.google.com/gke-gpu-partition-size": "1g.5gb"},
			gpu.Node{Model: "A100-40GB-MIG-1g.5gb", Product: "nvidia-tesla-a100", MemoryBytes: 5 * gib}},
		"the driver and Karpenter agree": {
			map[string]string{gpu.LabelProduct: "NVIDIA-A100-SXM4-80GB", "karpenter.k8s.aws/instance-gpu-name": "a100", "karpenter.k8s.aws/instance-gpu-memory": "81920", "node.kubernetes.io/instance-type": "p4de.24xlarge"},
			gpu.Node{Model: "A100-80GB", Product: "NVIDIA-A100-SXM4-80GB", MemoryBytes: 80 * gib}},
		"the driver and Karpenter disagree": {
			map[string]string{gpu.LabelProduct: "NVIDIA-L4", "karpenter.k8s.aws/instance-gpu-name": "t4"},
			gpu.Node{Model: "L4-24GB", Product: "NVIDIA-L4", MemoryBytes: 24 * gib,
				Invalid: "label nvidia.com/gpu.product=NVIDIA-L4 says L4-24GB, but karpenter.k8s.aws/instance-gpu-name=t4 says T4-16GB"}},
		"they disagree on the size alone": {
			map[string]string{gpu.LabelProduct: "A100-SXM4-40GB", "karpenter.k8s.aws/instance-gpu-name": "a100", "karpenter.k8s.aws/instance-gpu-memory": "81920"},
			gpu.Node{Model: "A100-40GB", Product: "A100-SXM4-40GB", MemoryBytes: 40 * gib,
				Invalid: "label nvidia.com/gpu.product=A100-SXM4-40GB says A100-40GB, but karpenter.k8s.aws/instance-gpu-name=a100 says A100-80GB"}},
		"the driver and GKE disagree, about the card of a slice": {
			map[string]string{gpu.LabelProduct: "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", "cloud.google.com/gke-accelerator": "nvidia-tesla-a100"},
			gpu.Node{Model: "H100-80GB-MIG-1g.10gb", Product: "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", MemoryBytes: 10 * gib,
				Invalid: "label nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3-MIG-1g.10gb says H100-80GB, but cloud.google.com/gke-accelerator=nvidia-tesla-a100 says A100-40GB"}},
		"the driver and the instance type disagree": {
			map[string]string{gpu.LabelProduct: "NVIDIA-L4", "node.kubernetes.io/instance-type": "Standard_NC4as_T4_v3"},
			gpu.Node{Model: "L4-24GB", Product: "NVIDIA-L4", MemoryBytes: 24 * gib,
				Invalid: "label nvidia.com/gpu.product=NVIDIA-L4 says L4-24GB, but node.kubernetes.io/instance-type=Standard_NC4as_T4_v3 says T4-16GB"}},
		"a card or a type that is not known contradicts nothing": {
			map[string]string{gpu.LabelProduct: "NVIDIA-Imaginary", "karpenter.k8s.aws/instance-gpu-name": "t4g", "node.kubernetes.io/instance-type": "p5.48xlarge"},
			gpu.Node{Model: "NVIDIA-Imaginary", Product: "NVIDIA-Imaginary"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := gpu.FromLabels(test.labels)
			if !ok {
				t.Fatal("no GPUs found")
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("node differs (-want +got):\n%s", diff)
			}
		})
	}
	if got, ok := gpu.FromLabels(map[string]string{"kubernetes.io/hostname": "system-0"}); ok {
		t.Errorf("a node without GPU labels has %+v", got)
	}
}

func TestFromNodeHoldsLabelsAgainstWhatTheKubeletOffers(t *testing.T) {
	gfd := func(product, count, replicas string) map[string]string {
		return map[string]string{gpu.LabelProduct: product, gpu.LabelCount: count, gpu.LabelReplicas: replicas}
	}
	for name, test := range map[string]struct {
		labels  map[string]string
		offered int
		shared  bool
		invalid string
	}{
		"as many as the label says":             {gfd("NVIDIA-L4", "4", "1"), 4, false, ""},
		"one failed":                            {gfd("NVIDIA-L4", "4", "1"), 3, false, ""},
		"none yet":                              {gfd("NVIDIA-L4", "4", "1"), 0, false, ""},
		"MIG of some takes no part in sharing":  {gfd("NVIDIA-A100-SXM4-80GB", "8", "0"), 4, false, ""},
		"four replicas of each":                 {gfd("NVIDIA-L4-SHARED", "4", "4"), 16, true, ""},
		"the label does not count":              {gfd("NVIDIA-L4", "", ""), 4, false, ""},
		"two models, of which one is labelled":  {gfd("NVIDIA-L4", "4", "1"), 6, false, "it offers 6 nvidia.com/gpu, but label nvidia.com/gpu.count says 4: GPU Feature Discovery counts those of one model only, or its labels are old"},
		"two models shared":                     {gfd("NVIDIA-L4-SHARED", "4", "2"), 12, true, "it offers 12 nvidia.com/gpu, but label nvidia.com/gpu.count says 4 shared by 2 each"},
		"more than Karpenter's machine has":     {map[string]string{"karpenter.k8s.aws/instance-gpu-name": "t4", "karpenter.k8s.aws/instance-gpu-count": "1"}, 4, true, ""},
		"as many as Karpenter's machine has":    {map[string]string{"karpenter.k8s.aws/instance-gpu-name": "t4", "karpenter.k8s.aws/instance-gpu-count": "1"}, 1, false, ""},
		"seven slices of GKE's card":            {map[string]string{"cloud.google.com/gke-accelerator": "nvidia-tesla-a100", "cloud.google.com/gke-accelerator-count": "1", "cloud.google.com/gke-gpu-partition-size": "1g.5gb"}, 7, false, ""},
		"labels that disagree are said instead": {map[string]string{gpu.LabelProduct: "NVIDIA-L4", gpu.LabelCount: "1", "node.kubernetes.io/instance-type": "p5.48xlarge"}, 8, false, "label nvidia.com/gpu.product=NVIDIA-L4 says L4-24GB, but node.kubernetes.io/instance-type=p5.48xlarge says H100-80GB"},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := gpu.FromNode(test.labels, map[string]int{gpu.ResourceName: test.offered})
			if !ok || got.Shared != test.shared || got.Invalid != test.invalid {
				t.Errorf("found %v, shared %v, invalid %q; want shared %v, invalid %q", ok, got.Shared, got.Invalid, test.shared, test.invalid)
			}
		})
	}
	if got, ok := gpu.FromNode(nil, map[string]int{gpu.ResourceName: 8}); ok {
		t.Errorf("a node without labels has %+v", got)
	}
}

func TestEveryInstanceTypeHasACardOfTheCatalogue(t *testing.T) {
	for instanceType, card := range map[string]string{
		"p5.48xlarge": "H100-80GB", "p5e.48xlarge": "H200-141GB", "p4d.24xlarge": "A100-40GB", "p4de.24xlarge": "A100-80GB", "p3.2xlarge": "V100-16GB",
		"p6-b200.48xlarge": "B200-180GB", "g6.xlarge": "L4-24GB", "g6e.xlarge": "L40S-48GB", "g5.xlarge": "A10G-24GB", "g4dn.xlarge": "T4-16GB",
		"a2-highgpu-1g": "A100-40GB", "a3-highgpu-8g": "H100-80GB", "a4-highgpu-8g": "B200-180GB", "g2-standard-4": "L4-24GB",
		"Standard_NC24ads_A100_v4": "A100-80GB", "Standard_ND96asr_v4": "A100-40GB", "Standard_NC40ads_H100_v5": "H100-NVL-94GB",
	} {
		for _, m := range gpu.Models() {
			got, _ := gpu.FromLabels(map[string]string{gpu.LabelProduct: "NVIDIA-" + m.Name, "node.kubernetes.io/instance-type": instanceType})
			if agrees := m.Name == card; agrees != (got.Invalid == "") {
				t.Errorf("%s with %s: invalid %q", instanceType, m.Name, got.Invalid)
			}
		}
	}
}

func TestCanonicalNameHelpsThoseWhoMistype(t *testing.T) {
	for name, test := range map[string]struct{ in, want, problem string }{
		"canonical":                 {"H100-80GB", "H100-80GB", ""},
		"lower case":                {"h100-80gb", "H100-80GB", ""},
		"product":                   {"NVIDIA-H100-80GB-HBM3", "H100-80GB", ""},
		"NVL is another card":       {"NVIDIA-H100-NVL", "H100-NVL-94GB", ""},
		"H200 needs no size":        {"H200", "H200-141GB", ""},
		"B200 by its package":       {"B200-192GB", "B200-180GB", ""},
		"MIG slice":                 {"A100-SXM4-40GB-MIG-1g.5gb", "A100-40GB-MIG-1g.5gb", ""},
		"unknown product":           {"NVIDIA-Imaginary-9000", "NVIDIA-Imaginary-9000", ""},
		"two sizes":                 {"A100", "", "write A100-80GB or A100-40GB"},
		"two kinds":                 {"H100", "", "write H100-80GB or H100-NVL-94GB"},
		"one letter short":          {"H100-80G", "", "did you mean H100-80GB?"},
		"letters swapped":           {"A100-08GB", "", "did you mean A100-80GB?"},
		"nothing like a GPU":        {"pony", "", "is not a known GPU model: write a canonical name"},
		"empty":                     {"", "", "is not a known GPU model"},
		"blank in a product's name": {"NVIDIA-My Card", "", "is not a known GPU model"},
		"too long for a label":      {"NVIDIA-" + strings.Repeat("x", 57), "", "is not a known GPU model"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := gpu.CanonicalName(test.in)
			if got != test.want {
				t.Errorf("CanonicalName(%q) = %q, want %q", test.in, got, test.want)
			}
			if (test.problem == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), test.problem)) {
				t.Errorf("error %v, want one with %q", err, test.problem)
			}
		})
	}
}

func TestEveryNameAndAliasFindsItsModel(t *testing.T) {
	for _, m := range gpu.Models() {
		for _, name := range append([]string{m.Name}, m.Aliases...) {
			for _, spelling := range []string{name, "NVIDIA-" + strings.TrimPrefix(name, "nvidia-"), strings.ToLower(name), strings.ReplaceAll(name, "-", " ")} {
				if got, ok := gpu.Lookup(spelling); !ok || got.Name != m.Name {
					t.Errorf("Lookup(%q) = %q, %v; want %s", spelling, got.Name, ok, m.Name)
				}
			}
		}
	}
}

func TestEightyGigabyteCardsSatisfyEightyGibibytes(t *testing.T) {
	for _, name := range []string{"A100-80GB", "H100-80GB", "H800-80GB", "A800-80GB"} {
		if m, _ := gpu.Lookup(name); m.MemoryBytes < 80<<30 {
			t.Errorf("%s has %d bytes, fewer than 80Gi", name, m.MemoryBytes)
		}
	}
}

func TestNodePoolReadsEveryCloudsCapacityLabel(t *testing.T) {
	for name, test := range map[string]struct {
		labels map[string]string
		want   string
	}{
		"Karpenter spot":       {map[string]string{"karpenter.sh/capacity-type": "spot"}, gpu.Spot},
		"Karpenter on demand":  {map[string]string{"karpenter.sh/capacity-type": "on-demand"}, gpu.OnDemand},
		"Karpenter reserved":   {map[string]string{"karpenter.sh/capacity-type": "reserved"}, gpu.OnDemand},
		"EKS spot":             {map[string]string{"eks.amazonaws.com/capacityType": "SPOT"}, gpu.Spot},
		"EKS on demand":        {map[string]string{"eks.amazonaws.com/capacityType": "ON_DEMAND"}, gpu.OnDemand},
		"EKS capacity block":   {map[string]string{"eks.amazonaws.com/capacityType": "CAPACITY_BLOCK"}, gpu.OnDemand},
		"GKE spot":             {map[string]string{"cloud.google.com/gke-spot": "true"}, gpu.Spot},
		"GKE provisioning":     {map[string]string{"cloud.google.com/gke-provisioning": "spot"}, gpu.Spot},
		"GKE preemptible":      {map[string]string{"cloud.google.com/gke-preemptible": "true"}, gpu.Spot},
		"AKS spot":             {map[string]string{"kubernetes.azure.com/scalesetpriority": "spot"}, gpu.Spot},
		"AKS regular":          {map[string]string{"kubernetes.azure.com/scalesetpriority": "regular"}, gpu.OnDemand},
		"nothing is on demand": {nil, gpu.OnDemand},
	} {
		t.Run(name, func(t *testing.T) {
			if got := gpu.NodePool(test.labels, "").CapacityType; got != test.want {
				t.Errorf("capacity type %q, want %q", got, test.want)
			}
		})
	}
}

func TestNodePoolReadsWhereANodeIs(t *testing.T) {
	labels := map[string]string{
		"topology.kubernetes.io/region": "us-east-1", "topology.kubernetes.io/zone": "us-east-1b",
		"node.kubernetes.io/instance-type": "p5.48xlarge", "karpenter.sh/capacity-type": "spot",
	}
	for providerID, provider := range map[string]string{
		"aws:///us-east-1b/i-0abc": "aws", "gce://project/zone/name": "gcp", "azure:///subscriptions/x": "azure", "kind://docker/x": "", "": "",
	} {
		want := gpu.Pool{Provider: provider, Region: "us-east-1", Zone: "us-east-1b", InstanceType: "p5.48xlarge", CapacityType: gpu.Spot}
		if got := gpu.NodePool(labels, providerID); got != want {
			t.Errorf("NodePool(%q) = %+v, want %+v", providerID, got, want)
		}
	}
	p := gpu.NodePool(labels, "aws:///us-east-1b/i-0abc")
	var wider []string
	for _, w := range p.Wider() {
		wider = append(wider, w.String())
	}
	want := []string{"aws/us-east-1/us-east-1b/p5.48xlarge/spot", "aws/us-east-1/?/p5.48xlarge/spot", "aws/?/?/p5.48xlarge/spot"}
	if diff := cmp.Diff(want, wider); diff != "" {
		t.Errorf("wider pools differ (-want +got):\n%s", diff)
	}
}

func FuzzFromLabels(f *testing.F) {
	f.Add("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb-SHARED", "81559", "8", "a100")
	f.Add("-MIG-", "x", "-1", "")
	f.Add("", "9223372036854775807", "", "h100")
	f.Fuzz(func(t *testing.T, product, memory, count, karpenter string) {
		n, ok := gpu.FromLabels(map[string]string{
			gpu.LabelProduct: product, gpu.LabelMemory: memory, gpu.LabelCount: count,
			"karpenter.k8s.aws/instance-gpu-name": karpenter, "karpenter.k8s.aws/instance-gpu-memory": memory,
		})
		if n.MemoryBytes < 0 || n.Count < 0 {
			t.Errorf("negative: %+v", n)
		}
		if !ok && (product != "" || karpenter != "") {
			t.Error("labels were there, but no GPUs found")
		}
	})
}
