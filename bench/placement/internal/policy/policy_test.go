// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/bench/placement/internal/openb"
	"github.com/spotbench/spotbench/bench/placement/internal/policy"
)

func node(name string, gpus int, model string) openb.Node {
	return openb.Node{Name: name, CPUMilli: 64_000, MemoryMiB: 256 << 10, GPUs: gpus, Model: model}
}

func pod(gpus int, milli int64, models ...string) openb.Pod {
	return openb.Pod{CPUMilli: 4000, MemoryMiB: 8 << 10, GPUs: gpus, GPUMilli: milli, Models: models}
}

// on is a pod that runs somewhere already.
type on struct {
	machine int
	gpus    []int
	pod     openb.Pod
}

func cluster(t testing.TB, nodes []openb.Node, running ...on) *policy.Cluster {
	t.Helper()
	rank := make([]int, len(nodes))
	for i := range rank {
		rank[i] = i
	}
	c, err := policy.NewCluster(nodes, rank)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range running {
		if err := c.Place(c.Class(r.pod), r.machine, r.gpus); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func TestEachPolicyTakesTheNodeItsRuleSays(t *testing.T) {
	two := []openb.Node{node("a", 8, "G"), node("b", 8, "G")}
	for name, test := range map[string]struct {
		policy  string
		nodes   []openb.Node
		running []on
		pod     openb.Pod
		trace   []openb.Pod
		machine int
		gpus    []int
	}{
		"first fit takes the first, used or not": {
			"FirstFit", two, []on{{1, []int{0}, pod(1, 1000)}}, pod(1, 1000), nil, 0, []int{0}},
		"a share goes to the tightest GPU of the node": {
			"FirstFit", two, []on{{0, []int{2}, pod(1, 300)}, {0, []int{3}, pod(1, 500)}}, pod(1, 400), nil, 0, []int{3}},
		// Left after the pod, in halves of 128 cores and 8 GPUs: a 60/128 and 7/8, b 56/128 and 5/8.
		"best fit takes the node with least left": {
			"BestFit", two, []on{{1, []int{0, 1}, pod(2, 1000)}}, pod(1, 1000), nil, 1, []int{2}},
		// The dot of what is free and asked is smaller where less is free.
		"dot product takes the node whose free resources match least": {
			"DotProd", two, []on{{1, []int{0, 1, 2, 3}, pod(4, 1000)}}, pod(2, 1000), nil, 1, []int{4, 5}},
		// a: 1/2 - 1 = 49 for one idle GPU on a node in use; b: 100 - 60/10 = 94 for a GPU in use.
		"packing prefers a GPU in use to an idle one": {
			"GpuPacking", two, []on{{0, []int{0}, pod(1, 1000)}, {1, []int{5}, pod(1, 400)}}, pod(1, 300), nil, 1, []int{5}},
		// a: 33 - 8 = 25 for an idle node; b: 50 - 1 = 49.
		"packing prefers a node in use to an idle one": {
			"GpuPacking", two, []on{{1, []int{5}, pod(1, 400)}}, pod(1, 1000), nil, 1, []int{0}},
		// b runs the same kind alone (75 + 25·1/8), a another kind (25·4/8).
		"clustering prefers its own kind": {
			"GpuClustering", two, []on{{0, []int{0, 1, 2, 3}, pod(4, 1000)}, {1, []int{0}, pod(1, 1000)}}, pod(1, 1000), nil, 1, []int{1}},
		// a: both kinds (50 + 25·2/8 = 56); b: idle (25).
		"clustering prefers company with its own kind to an idle node": {
			"GpuClustering", two, []on{{0, []int{0}, pod(1, 1000)}, {0, []int{1}, pod(1, 500)}}, pod(1, 500), nil, 0, []int{1}},
		// a: (8000-7500+1000)/8000 = 12 %; b: (2000-1000+1000... )/2000 = 50 %.
		"most allocated takes the fuller node by share": {
			"MostAllocated", []openb.Node{node("a", 8, "G"), node("b", 2, "G")}, []on{{0, []int{0}, pod(1, 500)}}, pod(1, 1000), nil, 1, []int{0}},
		"least allocated takes the node with most cores and memory free": {
			"LeastAllocated", two, []on{{0, []int{0}, pod(1, 1000)}}, pod(1, 1000), nil, 1, []int{0}},
		// Typical pods ask for 600. On a, 700 are left on GPU 0: 100 more leave 600, still
		// usable. On b, 600 are left on GPU 0: 100 more would leave 500, of use to nobody.
		"FGD leaves what typical pods can use": {
			"FGD", []openb.Node{node("b", 1, "G"), node("a", 1, "G")},
			[]on{{0, []int{0}, pod(1, 400)}, {1, []int{0}, pod(1, 300)}}, pod(1, 100), []openb.Pod{pod(1, 600)}, 1, []int{0}},
	} {
		t.Run(name, func(t *testing.T) {
			c := cluster(t, test.nodes, test.running...)
			p, err := policy.New(test.policy, c, append(test.trace, pod(0, 0)), policy.InOrder, nil)
			if err != nil {
				t.Fatal(err)
			}
			machine, gpus, ok, err := p.Choose(test.pod)
			if err != nil || !ok || machine != test.machine || !cmp.Equal(gpus, test.gpus) {
				t.Errorf("machine %d, GPUs %v, %v %v; want %d, %v", machine, gpus, ok, err, test.machine, test.gpus)
			}
		})
	}
}

func TestEqualNodesAreTakenInOrderOrAtRandom(t *testing.T) {
	nodes := []openb.Node{node("a", 1, "G"), node("b", 1, "G"), node("c", 1, "G")}
	c, err := policy.NewCluster(nodes, []int{2, 0, 1})
	if err != nil {
		t.Fatal(err)
	}
	inOrder, err := policy.New("FirstFit", c, nil, policy.InOrder, nil)
	if err != nil {
		t.Fatal(err)
	}
	if machine, _, _, _ := inOrder.Choose(pod(1, 1000)); machine != 1 {
		t.Errorf("machine %d, want 1, whose rank is 0", machine)
	}
	atRandom, err := policy.New("FirstFit", c, nil, policy.AtRandom, rand.New(rand.NewSource(1)))
	if err != nil {
		t.Fatal(err)
	}
	counts := make([]int, len(nodes))
	for range 300 {
		machine, _, _, _ := atRandom.Choose(pod(1, 1000))
		counts[machine]++
	}
	if slices.Min(counts) < 70 {
		t.Errorf("of 300 ties the nodes got %v, want about 100 each", counts)
	}
}

func TestTheLedgerRefusesWhatAMachineDoesNotHave(t *testing.T) {
	for want, test := range map[string]struct {
		pod  openb.Pod
		gpus []int
	}{
		"a: 64000 CPU milli left, the pod asks for 64001":       {openb.Pod{CPUMilli: 64_001}, nil},
		"a: 262144 MiB of memory left, the pod asks for 262145": {openb.Pod{MemoryMiB: 262_145}, nil},
		"a: G GPUs are not among the pod's models":              {pod(1, 1000, "T4"), []int{0}},
		"a: 1 GPUs given, the pod asks for 2":                   {pod(2, 1000), []int{0}},
		"a: GPU 1 given twice":                                  {pod(2, 1000), []int{1, 1}},
		"a: GPU 2 has not the 1000 milli the pod asks for":      {pod(1, 1000), []int{2}},
		"a: GPU 0 has not the 600 milli the pod asks for":       {pod(1, 600), []int{0}},
	} {
		c := cluster(t, []openb.Node{node("a", 2, "G")})
		half := pod(1, 500)
		half.CPUMilli, half.MemoryMiB = 0, 0
		if err := c.Place(c.Class(half), 0, []int{0}); err != nil {
			t.Fatal(err)
		}
		if err := c.Place(c.Class(test.pod), 0, test.gpus); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		if c.Allocated != 500 {
			t.Errorf("%d GPU milli allocated after a refusal, want 500", c.Allocated)
		}
	}
}

func TestAnUnknownPolicyIsNamed(t *testing.T) {
	_, err := policy.New("Best", cluster(t, nil), nil, policy.InOrder, nil)
	if err == nil || !strings.HasPrefix(err.Error(), `policy "Best" is not known, have FGD, BestFit`) {
		t.Errorf("got %v", err)
	}
}

func TestNoPolicyOvercommitsOrLeavesAPodOutThatFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := []openb.Node{
			{Name: "a", CPUMilli: 32_000, MemoryMiB: 64 << 10, GPUs: 8, Model: "G"},
			{Name: "b", CPUMilli: 16_000, MemoryMiB: 32 << 10, GPUs: 2, Model: "T"},
			{Name: "c", CPUMilli: 96_000, MemoryMiB: 16 << 10, GPUs: 1, Model: "G"},
		}
		var pods []openb.Pod
		for range rapid.IntRange(1, 40).Draw(t, "pods") {
			p := openb.Pod{CPUMilli: int64(rapid.IntRange(0, 16).Draw(t, "cores")) * 1000, MemoryMiB: int64(rapid.IntRange(0, 16).Draw(t, "GiB")) << 10}
			if gpus := rapid.SampledFrom([]int{0, 1, 1, 1, 2, 8}).Draw(t, "GPUs"); gpus > 0 {
				p.GPUs, p.GPUMilli = gpus, 1000
				if gpus == 1 {
					p.GPUMilli = int64(rapid.IntRange(1, 1000).Draw(t, "milli"))
				}
				p.Models = rapid.SampledFrom([][]string{nil, {"G"}, {"T"}, {"X"}}).Draw(t, "models")
			}
			pods = append(pods, p)
		}
		c, err := policy.NewCluster(nodes, []int{0, 1, 2})
		if err != nil {
			t.Fatal(err)
		}
		p, err := policy.New(rapid.SampledFrom(policy.Names()).Draw(t, "policy"), c, pods, policy.AtRandom, rand.New(rand.NewSource(1)))
		if err != nil {
			t.Fatal(err)
		}
		for _, pod := range pods {
			class := c.Class(pod)
			machine, gpus, ok, err := p.Choose(pod)
			if err != nil {
				t.Fatal(err)
			}
			fits := slices.ContainsFunc(c.Machines, func(m policy.Machine) bool { return m.Fits(class) })
			if ok != fits {
				t.Fatalf("placed %v, a node fits %v", ok, fits)
			}
			if ok {
				if err := c.Place(class, machine, gpus); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
