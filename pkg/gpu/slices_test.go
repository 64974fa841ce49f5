// SPDX-License-Identifier: Apache-2.0

package gpu_test

import (
	"maps"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/pkg/gpu"
)

func TestParseProfileReadsWhatASliceHas(t *testing.T) {
	for name, test := range map[string]struct {
		in   string
		want gpu.Profile // the zero value is an error
	}{
		"one of seven":                         {"1g.10gb", gpu.Profile{Name: "1g.10gb", Compute: 1, MemoryBytes: 10 * gib}},
		"three of seven with half the memory":  {"3g.40gb", gpu.Profile{Name: "3g.40gb", Compute: 3, MemoryBytes: 40 * gib}},
		"media engines, as programs spell it":  {"1g.10gb+me", gpu.Profile{Name: "1g.10gb.me", Compute: 1, MemoryBytes: 10 * gib}},
		"media engines, as labels spell it":    {"1g.10gb.me", gpu.Profile{Name: "1g.10gb.me", Compute: 1, MemoryBytes: 10 * gib}},
		"all media engines":                    {"1g.24gb+me.all", gpu.Profile{Name: "1g.24gb.me.all", Compute: 1, MemoryBytes: 24 * gib}},
		"without media engines":                {"2g.48gb-me", gpu.Profile{Name: "2g.48gb-me", Compute: 2, MemoryBytes: 48 * gib}},
		"a compute instance of a GPU instance": {"1c.3g.20gb", gpu.Profile{Name: "1c.3g.20gb", Compute: 1, MemoryBytes: 20 * gib}},
		"no memory":                            {"1g", gpu.Profile{}},
		"no slices":                            {"0g.10gb", gpu.Profile{}},
		"upper case":                           {"1G.10GB", gpu.Profile{}},
		"empty":                                {"", gpu.Profile{}},
		"more than a number holds":             {"1g.99999999999999999999gb", gpu.Profile{}},
		"an attribute without a name":          {"1g.10gb.", gpu.Profile{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := gpu.ParseProfile(test.in)
			if got != test.want || (err == nil) != (test.want != gpu.Profile{}) {
				t.Errorf("ParseProfile(%q) = %+v, %v; want %+v", test.in, got, err, test.want)
			}
			if err != nil && !strings.Contains(err.Error(), "write one such as 1g.10gb") {
				t.Errorf("error %v helps nobody", err)
			}
		})
	}
}

func TestParseResourceTellsGPUsFromOtherResources(t *testing.T) {
	for name, test := range map[string]struct {
		want    gpu.Resource
		is      bool
		problem string
	}{
		"nvidia.com/gpu":                {gpu.Resource{}, true, ""},
		"nvidia.com/gpu.shared":         {gpu.Resource{Shared: true}, true, ""},
		"nvidia.com/mig-1g.10gb":        {gpu.Resource{Profile: "1g.10gb"}, true, ""},
		"nvidia.com/mig-1g.10gb.me":     {gpu.Resource{Profile: "1g.10gb.me"}, true, ""},
		"nvidia.com/mig-1g.10gb.shared": {gpu.Resource{Profile: "1g.10gb", Shared: true}, true, ""},
		"nvidia.com/mig-small":          {gpu.Resource{}, true, "nvidia.com/mig-small, which names no MIG profile; write one such as nvidia.com/mig-1g.10gb"},
		"nvidia.com/rdma":               {gpu.Resource{}, false, ""},
		"amd.com/gpu":                   {gpu.Resource{}, false, ""},
		"cpu":                           {gpu.Resource{}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, is, err := gpu.ParseResource(name)
			if got != test.want || is != test.is || (test.problem == "") != (err == nil) || err != nil && err.Error() != test.problem {
				t.Errorf("%+v, %v, %v; want %+v, %v, %q", got, is, err, test.want, test.is, test.problem)
			}
			if is && err == nil && got.Name() != name {
				t.Errorf("its name is %s", got.Name())
			}
		})
	}
}

func TestAPodAsksForOneKindOfGPU(t *testing.T) {
	for name, test := range map[string]struct {
		requests map[string]int64
		want     gpu.Resource
		count    int
		problem  string
	}{
		"none":                     {map[string]int64{"cpu": 4}, gpu.Resource{}, 0, ""},
		"whole ones":               {map[string]int64{"cpu": 4, "nvidia.com/gpu": 2}, gpu.Resource{}, 2, ""},
		"slices":                   {map[string]int64{"nvidia.com/mig-3g.40gb": 1}, gpu.Resource{Profile: "3g.40gb"}, 1, ""},
		"none of one of two kinds": {map[string]int64{"nvidia.com/gpu": 0, "nvidia.com/gpu.shared": 1}, gpu.Resource{Shared: true}, 1, ""},
		"a card and a slice": {map[string]int64{"nvidia.com/gpu": 1, "nvidia.com/mig-1g.10gb": 1}, gpu.Resource{}, 0,
			"the pod asks for several kinds of GPUs, nvidia.com/gpu and nvidia.com/mig-1g.10gb; leave one of them in resources.limits"},
		"two profiles": {map[string]int64{"nvidia.com/mig-2g.20gb": 1, "nvidia.com/mig-1g.10gb": 1}, gpu.Resource{}, 0,
			"the pod asks for several kinds of GPUs, nvidia.com/mig-1g.10gb and nvidia.com/mig-2g.20gb; leave one of them in resources.limits"},
		"no profile": {map[string]int64{"nvidia.com/mig-half": 1}, gpu.Resource{}, 0,
			"the pod asks for nvidia.com/mig-half, which names no MIG profile; write one such as nvidia.com/mig-1g.10gb"},
	} {
		t.Run(name, func(t *testing.T) {
			got, count, err := gpu.Asked(maps.All(test.requests))
			if got != test.want || count != test.count || (test.problem == "") != (err == nil) || err != nil && err.Error() != test.problem {
				t.Errorf("%+v, %d, %v; want %+v, %d, %q", got, count, err, test.want, test.count, test.problem)
			}
		})
	}
}

// mixed is a node of eight A100-80GB under the strategy "mixed": four of them are
// whole, two are cut in seven, two in a half of four slices and one of three.
func mixed() (labels map[string]string, offered map[string]int) {
	const card = "NVIDIA-A100-SXM4-80GB"
	labels = map[string]string{
		gpu.LabelProduct: card, gpu.LabelMemory: "81920", gpu.LabelCount: "8", gpu.LabelReplicas: "1", gpu.LabelMIGStrategy: "mixed",
		"nvidia.com/mig-1g.10gb.product": card + "-MIG-1g.10gb", "nvidia.com/mig-1g.10gb.count": "14", "nvidia.com/mig-1g.10gb.replicas": "1", "nvidia.com/mig-1g.10gb.memory": "9728",
		"nvidia.com/mig-3g.40gb.product": card + "-MIG-3g.40gb", "nvidia.com/mig-3g.40gb.count": "2", "nvidia.com/mig-3g.40gb.replicas": "1", "nvidia.com/mig-3g.40gb.memory": "40192",
		"nvidia.com/mig-4g.40gb.product": card + "-MIG-4g.40gb", "nvidia.com/mig-4g.40gb.count": "2", "nvidia.com/mig-4g.40gb.replicas": "1", "nvidia.com/mig-4g.40gb.memory": "40192",
	}
	return labels, map[string]int{"nvidia.com/gpu": 4, "nvidia.com/mig-1g.10gb": 14, "nvidia.com/mig-3g.40gb": 2, "nvidia.com/mig-4g.40gb": 2}
}

func TestSlicesAndSharesAreSeenByTheirPods(t *testing.T) {
	const a100 = "A100-80GB"
	slice := func(profile string) gpu.Resource { return gpu.Resource{Profile: profile} }
	share := gpu.Resource{Shared: true}
	for name, test := range map[string]struct {
		change   func(labels map[string]string, offered map[string]int)
		resource gpu.Resource
		want     gpu.Node
	}{
		"a whole card of a node with slices is one of eight, not of the four that are whole": {
			nil, gpu.Resource{},
			gpu.Node{Model: a100, Product: "NVIDIA-A100-SXM4-80GB", MemoryBytes: 80 * gib, Count: 8, Share: 1. / 8}},
		"a whole card that is time-sliced by two, beside slices": {
			func(l map[string]string, o map[string]int) {
				l[gpu.LabelProduct], l[gpu.LabelReplicas], o["nvidia.com/gpu"] = "NVIDIA-A100-SXM4-80GB-SHARED", "2", 8
			}, gpu.Resource{},
			gpu.Node{Model: a100, Product: "NVIDIA-A100-SXM4-80GB-SHARED", MemoryBytes: 80 * gib, Count: 8, Shared: true, Share: 1. / (8 * 2)}},
		"a seventh of one of eight cards": {
			nil, slice("1g.10gb"),
			gpu.Node{Model: a100 + "-MIG-1g.10gb", Product: "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", MemoryBytes: 10 * gib, Count: 14, Card: a100, Share: 1. / 7 / 8}},
		"three sevenths": {
			nil, slice("3g.40gb"),
			gpu.Node{Model: a100 + "-MIG-3g.40gb", Product: "NVIDIA-A100-SXM4-80GB-MIG-3g.40gb", MemoryBytes: 40 * gib, Count: 2, Card: a100, Share: 3. / 7 / 8}},
		"slices that are time-sliced by two, under their own name": {
			func(l map[string]string, o map[string]int) {
				l["nvidia.com/mig-1g.10gb.replicas"], o["nvidia.com/mig-1g.10gb"] = "2", 28
				l["nvidia.com/mig-1g.10gb.product"] += "-SHARED"
			}, slice("1g.10gb"),
			gpu.Node{Model: a100 + "-MIG-1g.10gb", Product: "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb-SHARED", MemoryBytes: 10 * gib, Count: 14, Shared: true, Card: a100, Share: 1. / 7 / 16}},
		"slices that are time-sliced by two, renamed": {
			func(l map[string]string, o map[string]int) {
				l["nvidia.com/mig-1g.10gb.replicas"], o["nvidia.com/mig-1g.10gb"], o["nvidia.com/mig-1g.10gb.shared"] = "2", 0, 28
			}, gpu.Resource{Profile: "1g.10gb", Shared: true},
			gpu.Node{Model: a100 + "-MIG-1g.10gb", Product: "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", MemoryBytes: 10 * gib, Count: 14, Shared: true, Card: a100, Share: 1. / 7 / 16}},
		"without a count of cards there are as many as it takes: 4 whole, and (14+6+8)/7 = 4 for the slices": {
			func(l map[string]string, _ map[string]int) { delete(l, gpu.LabelCount) }, slice("1g.10gb"),
			gpu.Node{Model: a100 + "-MIG-1g.10gb", Product: "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", MemoryBytes: 10 * gib, Count: 14, Card: a100, Share: 1. / 7 / 8}},
		"an A30 has four compute slices": {
			func(l map[string]string, o map[string]int) {
				clear(l)
				clear(o)
				l[gpu.LabelProduct], l[gpu.LabelCount], l[gpu.LabelMIGStrategy], o["nvidia.com/mig-1g.6gb"] = "NVIDIA-A30", "2", "mixed", 8
			}, slice("1g.6gb"),
			gpu.Node{Model: "A30-24GB-MIG-1g.6gb", MemoryBytes: 6 * gib, Card: "A30-24GB", Share: 1. / 4 / 2}},
		"slices before any label have no model, but memory": {
			func(l map[string]string, _ map[string]int) { clear(l) }, slice("1g.10gb"),
			gpu.Node{MemoryBytes: 10 * gib, Share: 1. / 7 / 8}},
		"two models of which one is labelled: 28 compute slices and 4 cards need 8": {
			func(l map[string]string, _ map[string]int) { l[gpu.LabelCount] = "6" }, slice("1g.10gb"),
			gpu.Node{Model: a100, Product: "NVIDIA-A100-SXM4-80GB", MemoryBytes: 80 * gib, Count: 6,
				Invalid: "it offers more slices and GPUs than the 6 cards of label nvidia.com/gpu.count hold: GPU Feature Discovery counts those of one model only, or its labels are old"}},
		"slices of another card than the label of the node's": {
			func(l map[string]string, _ map[string]int) {
				l["nvidia.com/mig-1g.10gb.product"] = "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"
			}, slice("1g.10gb"),
			gpu.Node{Model: a100, Product: "NVIDIA-A100-SXM4-80GB", MemoryBytes: 80 * gib, Count: 8,
				Invalid: "label nvidia.com/gpu.product=NVIDIA-A100-SXM4-80GB says A100-80GB, but nvidia.com/mig-1g.10gb.product=NVIDIA-H100-80GB-HBM3-MIG-1g.10gb says H100-80GB"}},
		"more slices than their label says": {
			func(l map[string]string, _ map[string]int) { l["nvidia.com/mig-3g.40gb.count"] = "1" }, slice("3g.40gb"),
			gpu.Node{Model: a100 + "-MIG-3g.40gb", Product: "NVIDIA-A100-SXM4-80GB-MIG-3g.40gb", MemoryBytes: 40 * gib, Count: 1, Card: a100, Share: 3. / 7 / 8,
				Invalid: "it offers 2 nvidia.com/mig-3g.40gb, but label nvidia.com/mig-3g.40gb.count says 1: its labels are old"}},
		"a share of a card that is time-sliced by four sees all of its memory": {
			func(l map[string]string, o map[string]int) {
				clear(o)
				l[gpu.LabelReplicas], l["nvidia.com/gpu.sharing-strategy"], o["nvidia.com/gpu.shared"] = "4", "time-slicing", 32
			}, share,
			gpu.Node{Model: a100, Product: "NVIDIA-A100-SXM4-80GB", MemoryBytes: 80 * gib, Count: 8, Shared: true, Share: 1. / (8 * 4)}},
		"a share under MPS has a quarter of the memory": {
			func(l map[string]string, o map[string]int) {
				clear(o)
				l[gpu.LabelReplicas], l["nvidia.com/gpu.sharing-strategy"], o["nvidia.com/gpu.shared"] = "4", "mps", 32
			}, share,
			gpu.Node{Model: a100, Product: "NVIDIA-A100-SXM4-80GB", MemoryBytes: 20 * gib, Count: 8, Shared: true, Share: 1. / (8 * 4)}},
		"shares whose number no label tells are equal parts of the node": {
			func(l map[string]string, o map[string]int) {
				clear(o)
				delete(l, gpu.LabelReplicas)
				o["nvidia.com/gpu.shared"] = 8
			}, share,
			gpu.Node{Model: a100, Product: "NVIDIA-A100-SXM4-80GB", MemoryBytes: 80 * gib, Count: 8, Shared: true}},
		"more shares than labels say": {
			func(l map[string]string, o map[string]int) {
				clear(o)
				l[gpu.LabelReplicas], o["nvidia.com/gpu.shared"] = "2", 32
			}, share,
			gpu.Node{Model: a100, Product: "NVIDIA-A100-SXM4-80GB", MemoryBytes: 80 * gib, Count: 8, Shared: true,
				Invalid: "it offers 32 nvidia.com/gpu.shared, but label nvidia.com/gpu.count says 8 shared by 2 each"}},
		"cards beside renamed shares are whole": {
			func(l map[string]string, o map[string]int) {
				clear(o)
				l[gpu.LabelReplicas], o["nvidia.com/gpu.shared"], o["nvidia.com/gpu"] = "4", 16, 4
			}, gpu.Resource{},
			gpu.Node{Model: a100, Product: "NVIDIA-A100-SXM4-80GB", MemoryBytes: 80 * gib, Count: 8, Share: 1. / 8}},
	} {
		t.Run(name, func(t *testing.T) {
			labels, offered := mixed()
			if test.change != nil {
				test.change(labels, offered)
			}
			n, _ := gpu.FromNode(labels, offered)
			if diff := cmp.Diff(test.want, n.As(test.resource, labels, offered)); diff != "" {
				t.Errorf("seen (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEverySelectorOfASliceFindsIt(t *testing.T) {
	const want = "A100-40GB-MIG-1g.5gb"
	selectors := gpu.Selectors(want)
	if len(selectors) != 3 {
		t.Fatalf("%d selectors, want those of the strategies single and mixed, and GKE's: %v", len(selectors), selectors)
	}
	for _, selector := range selectors {
		for _, value := range selector[0].Values {
			labels := map[string]string{selector[0].Key: value}
			for _, r := range selector[1:] {
				labels[r.Key] = r.Values[0]
			}
			offered := map[string]int{}
			var resource gpu.Resource
			if strings.HasPrefix(selector[0].Key, "nvidia.com/mig-") {
				labels[gpu.LabelProduct], labels[gpu.LabelMIGStrategy] = "NVIDIA-A100-SXM4-40GB", "mixed"
				resource, offered["nvidia.com/mig-1g.5gb"] = gpu.Resource{Profile: "1g.5gb"}, 7
			}
			n, _ := gpu.FromNode(labels, offered)
			if got := n.As(resource, labels, offered); got.Model != want || got.Invalid != "" {
				t.Errorf("labels %v are of %+v, selected for %s", labels, got, want)
			}
		}
	}
	unknown := [][]gpu.Requirement{
		{{Key: gpu.LabelProduct, Operator: "In", Values: []string{"NVIDIA-X-MIG-1g.5gb", "NVIDIA-X-MIG-1g.5gb-SHARED"}}},
		{{Key: "nvidia.com/mig-1g.5gb.product", Operator: "In", Values: []string{"NVIDIA-X-MIG-1g.5gb", "NVIDIA-X-MIG-1g.5gb-SHARED"}}},
	}
	if diff := cmp.Diff(unknown, gpu.Selectors("NVIDIA-X-MIG-1g.5gb")); diff != "" {
		t.Errorf("a card that the catalogue lacks (-want +got):\n%s", diff)
	}
}

func FuzzParseProfile(f *testing.F) {
	for _, seed := range []string{"1g.10gb", "1c.3g.20gb+me", "7g.80gb-me.all", "1g.", "g.gb", "1g.10gb..me"} {
		f.Add(seed)
	}
	spelling := regexp.MustCompile("^" + gpu.ProfilePattern + "$")
	f.Fuzz(func(t *testing.T, name string) {
		p, err := gpu.ParseProfile(name)
		if err != nil {
			return
		}
		if p.Compute < 1 || p.Compute > 9 || p.MemoryBytes < gib || !spelling.MatchString(p.Name) {
			t.Errorf("%q is %+v", name, p)
		}
		if again, err := gpu.ParseProfile(p.Name); again != p || err != nil {
			t.Errorf("%q is %+v, and its name is %+v, %v", name, p, again, err)
		}
	})
}

func FuzzSlicesOfANode(f *testing.F) {
	f.Add("nvidia.com/mig-1g.10gb", 14, "8", "1", "NVIDIA-A100-SXM4-80GB")
	f.Add("nvidia.com/gpu.shared", 1<<40, "-1", "99999999", "")
	f.Add("nvidia.com/mig-8g.1gb", 1, "1", "0", "0") // more slices than a card has
	f.Add("nvidia.com/mig-9g.9999gb.shared", -1, "1", "0", "NVIDIA-A30-MIG-INVALID")
	f.Fuzz(func(t *testing.T, resource string, has int, count, replicas, product string) {
		r, is, err := gpu.ParseResource(resource)
		if !is || err != nil {
			return
		}
		if r.Name() != resource {
			t.Errorf("%q is read as %q", resource, r.Name())
		}
		labels := map[string]string{gpu.LabelProduct: product, gpu.LabelCount: count, gpu.LabelReplicas: replicas, gpu.LabelMIGStrategy: "mixed"}
		base := strings.TrimSuffix(resource, ".shared")
		labels[base+".count"], labels[base+".replicas"] = count, replicas
		offered := map[string]int{resource: has}
		n, _ := gpu.FromNode(labels, offered)
		if n = n.As(r, labels, offered); !(n.Share >= 0 && n.Share <= 1) || n.MemoryBytes < 0 || n.Count < 0 {
			t.Errorf("%s of %v: %+v", resource, labels, n)
		}
	})
}

func TestDevicesOfDynamicResourceAllocationAreReadLikeLabels(t *testing.T) {
	for name, test := range map[string]struct {
		product, profile string
		memory           int64
		want             gpu.Node
	}{
		"a card as NVML names it":                   {"NVIDIA A100-SXM4-80GB", "", 81920 << 20, gpu.Node{Model: "A100-80GB", Product: "NVIDIA-A100-SXM4-80GB", MemoryBytes: 80 * gib}},
		"memory is nominal, whatever is left of it": {"NVIDIA H100 80GB HBM3", "", 81559 << 20, gpu.Node{Model: "H100-80GB", Product: "NVIDIA-H100-80GB-HBM3", MemoryBytes: 80 * gib}},
		"an old driver's name":                      {"Tesla V100-SXM2-16GB", "", 16160 << 20, gpu.Node{Model: "V100-16GB", Product: "Tesla-V100-SXM2-16GB", MemoryBytes: 16 * gib}},
		"a card that the catalogue lacks":           {"NVIDIA GB10", "", 15500 << 20, gpu.Node{Model: "NVIDIA-GB10", Product: "NVIDIA-GB10", MemoryBytes: 16 * gib}},
		"of unknown memory":                         {"NVIDIA GB10", "", 0, gpu.Node{Model: "NVIDIA-GB10", Product: "NVIDIA-GB10"}},
		"a slice":                                   {"NVIDIA A100-SXM4-80GB", "1g.10gb+me", 9728 << 20, gpu.Node{Model: "A100-80GB-MIG-1g.10gb.me", Product: "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb.me", MemoryBytes: 10 * gib, Card: "A100-80GB"}},
		"a slice of no profile":                     {"NVIDIA A100-SXM4-80GB", "small", 0, gpu.Node{Model: "A100-80GB", Product: "NVIDIA-A100-SXM4-80GB", MemoryBytes: 80 * gib, Card: "A100-80GB", Invalid: `"small" is no MIG profile: write one such as 1g.10gb`}},
		"nothing":                                   {"", "", -1, gpu.Node{}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, gpu.FromDevice(test.product, test.profile, test.memory)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzFromDevice(f *testing.F) {
	f.Add("NVIDIA A100-SXM4-80GB", "1g.10gb+me", int64(81920<<20), 8)
	f.Add("", "9g.9999gb", int64(-1), 0)
	f.Add("Mock NVIDIA A100", "", int64(1<<62), 1<<30)
	f.Fuzz(func(t *testing.T, product, profile string, memory int64, cards int) {
		n := gpu.FromDevice(product, profile, memory)
		if part := n.PartOf(cards); n.MemoryBytes < 0 || !(part >= 0) || strings.Contains(n.Model, " ") {
			t.Errorf("%q %q %d of %d cards: %+v, part %v", product, profile, memory, cards, n, part)
		}
	})
}
