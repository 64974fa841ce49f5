// SPDX-License-Identifier: Apache-2.0

package packing_test

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/pkg/placement/packing"
)

const gib = int64(1) << 30

// node has eight idle GPUs, 12 cores and 48 GiB for each.
func node(name, model string, change func(*packing.Node)) packing.Node {
	n := packing.Node{Name: name, Model: model, GPUMemoryBytes: 80 * gib, GPUs: 8, CPUMilli: 96_000, MemoryBytes: 384 * gib}
	if change != nil {
		change(&n)
	}
	return n
}

// whole GPUs with 4 cores and 16 GiB each.
func whole(gpus int, models ...string) packing.Request {
	n := int64(gpus)
	return packing.Request{Models: models, GPUs: gpus, GPUMilli: 1000, CPUMilli: 4000 * n, MemoryBytes: 16 * gib * n}
}

func share(milli int64) packing.Request {
	return packing.Request{GPUs: 1, GPUMilli: milli, CPUMilli: 4000, MemoryBytes: 16 * gib}
}

func engine(t *testing.T, nodes ...packing.Node) *packing.Engine {
	t.Helper()
	e, err := packing.New(packing.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if err := e.SetNode(n); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

func observe(t *testing.T, e *packing.Engine, times int, r packing.Request) {
	t.Helper()
	for range times {
		if err := e.Observe(r); err != nil {
			t.Fatal(err)
		}
	}
}

func assign(t *testing.T, e *packing.Engine, pod string, r packing.Request, node string, gpus ...int) packing.Assignment {
	t.Helper()
	a, err := e.Assign(pod, r, node, gpus)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func best(t *testing.T, e *packing.Engine, r packing.Request) packing.Candidate {
	t.Helper()
	c, ok, err := e.Best(r, nil)
	if err != nil || !ok {
		t.Fatalf("no node for %+v: %v", r, err)
	}
	return c
}

func TestANodeIsRefusedWithTheFiguresFoundAndWanted(t *testing.T) {
	for name, test := range map[string]struct {
		node      packing.Node
		request   packing.Request
		reason    packing.Reason // "" accepts
		text      string
		temporary bool
	}{
		"room for all":             {node("n", "A100", nil), whole(8), "", "", false},
		"one of the models":        {node("n", "A100", nil), whole(8, "H100", "A100"), "", "", false},
		"no GPUs":                  {packing.Node{Name: "n", CPUMilli: 8000, MemoryBytes: 32 * gib}, whole(1), packing.ReasonNoGPUs, "n has no GPUs", false},
		"no GPUs, none asked for":  {packing.Node{Name: "n", CPUMilli: 8000, MemoryBytes: 32 * gib}, packing.Request{CPUMilli: 8000}, "", "", false},
		"another model":            {node("n", "A100", nil), whole(1, "H100", "H200"), packing.ReasonModel, "n has A100, wanted H100 or H200", false},
		"too little GPU memory":    {node("n", "A100", nil), packing.Request{GPUs: 1, GPUMilli: 1000, GPUMemoryBytes: 81 * gib}, packing.ReasonGPUMemory, "n has 85899345920 bytes of memory per GPU, wanted 86973087744", false},
		"more GPUs than there are": {node("n", "A100", nil), whole(9), packing.ReasonGPUs, "n has 8 of 8 GPUs with 1000 milli free, wanted 9", false},
		"more cores than there are": {node("n", "A100", nil), packing.Request{CPUMilli: 96_001},
			packing.ReasonCPU, "n has 96000 of 96000 CPU milli free, wanted 96001", false},
		"more memory than there is": {node("n", "A100", nil), packing.Request{MemoryBytes: 384*gib + 1},
			packing.ReasonMemory, "n has 412316860416 of 412316860416 bytes of memory free, wanted 412316860417", false},
		"MIG slices that are not there": {node("n", "A100", nil), packing.Request{MIG: map[string]int{"1g.10gb": 1}},
			packing.ReasonMIG, "n has 0 of 0 slices 1g.10gb free, wanted 1", false},
		"MIG slices that are": {node("n", "A100", func(n *packing.Node) { n.GPUs, n.MIG = 0, map[string]int{"1g.10gb": 7} }),
			packing.Request{MIG: map[string]int{"1g.10gb": 7}}, "", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			refusal, err := engine(t, test.node).Check(test.request, "n")
			if err != nil {
				t.Fatal(err)
			}
			if test.reason == "" {
				if refusal != nil {
					t.Fatalf("refused: %v", refusal)
				}
				return
			}
			if refusal == nil || refusal.Reason != test.reason || refusal.String() != test.text || refusal.Temporary != test.temporary {
				t.Errorf("got %+v, want %s %q", refusal, test.reason, test.text)
			}
		})
	}
}

func TestARefusalIsTemporaryWhenPodsAreInTheWay(t *testing.T) {
	e := engine(t, node("n", "A100", nil))
	assign(t, e, "first", whole(6), "n")
	refusals, err := e.Refusals(whole(4))
	if err != nil {
		t.Fatal(err)
	}
	want := []packing.Refusal{{Node: "n", Reason: packing.ReasonGPUs, Detail: "2 of 8 GPUs with 1000 milli free, wanted 4", Temporary: true}}
	if diff := cmp.Diff(want, refusals); diff != "" {
		t.Error(diff)
	}
	if !e.Release("first") || e.Release("first") {
		t.Error("a pod is released once")
	}
	if refusals, _ := e.Refusals(whole(4)); len(refusals) != 0 {
		t.Errorf("refused after the release: %v", refusals)
	}
}

func TestAModelThatOthersNeedIsSparedEvenWhenItsNodeIsFirst(t *testing.T) {
	nodes := []packing.Node{node("a-scarce", "T4", nil)}
	for i := range 4 {
		nodes = append(nodes, node("b-"+strconv.Itoa(i), "G2", nil))
	}
	e := engine(t, nodes...)
	observe(t, e, 20, whole(1, "T4")) // a third of all demand is for a fifth of the GPUs
	observe(t, e, 40, whole(1))
	pressure := e.Pressure()
	if pressure["T4"] <= 1 || pressure["G2"] >= pressure["T4"]/2 {
		t.Errorf("pressure is %v: 8 T4 are asked for by a third of what 40 GPUs hold, G2 by nobody in particular", pressure)
	}
	if c := best(t, e, whole(1)); c.Node != "b-0" {
		t.Errorf("a pod that may run anywhere is sent to %s, want b-0", c.Node)
	}
	if c := best(t, e, whole(1, "T4")); c.Node != "a-scarce" {
		t.Errorf("a pod for T4 is sent to %s", c.Node)
	}
	cost, refusal, err := e.OpportunityCost(whole(1), "a-scarce")
	if err != nil || refusal != nil || cost.Scarcity <= 0.3 {
		t.Errorf("%+v %v %v: with pressure above 1 a T4 costs at least a third of a GPU more", cost, refusal, err)
	}
}

func TestModelsOfWhichThereAreFewAreSparedBeforeAnythingIsKnown(t *testing.T) {
	nodes := []packing.Node{node("a", "few", nil)}
	for i := range 20 {
		nodes = append(nodes, node("b-"+strconv.Itoa(i), "many", nil))
	}
	e := engine(t, nodes...)
	observe(t, e, 1, whole(1))
	if c := best(t, e, whole(1)); c.Node != "b-0" {
		t.Errorf("the first pod goes to %s, want b-0", c.Node)
	}
}

func TestANodeThatOnlyHugePodsCanNotDoWithoutIsSpared(t *testing.T) {
	huge := packing.Request{GPUs: 8, GPUMilli: 1000, CPUMilli: 120_000}
	nodes := []packing.Node{node("a-large", "G", func(n *packing.Node) { n.CPUMilli = 128_000 })}
	for i := range 4 {
		nodes = append(nodes, node("b-"+strconv.Itoa(i), "G", nil))
	}
	e := engine(t, nodes...)
	observe(t, e, 10, huge)
	observe(t, e, 100, whole(1))
	if c := best(t, e, whole(8)); c.Node != "b-0" {
		t.Errorf("a pod that fits everywhere goes to %s, want b-0", c.Node)
	}
	if c := best(t, e, huge); c.Node != "a-large" {
		t.Errorf("the huge pod goes to %s", c.Node)
	}
}

func TestAShareFillsAGPUInUseBeforeItOpensAnother(t *testing.T) {
	e := engine(t, node("a", "G", nil), node("b", "G", nil))
	observe(t, e, 100, share(500))
	observe(t, e, 100, whole(1))
	assign(t, e, "half", share(500), "b", 3)
	c := best(t, e, share(500))
	if c.Node != "b" || !cmp.Equal(c.GPUs, []int{3}) {
		t.Errorf("got %s %v, want the other half of b's GPU 3", c.Node, c.GPUs)
	}
}

func TestAShareLeavesWhatAnotherSizeNeeds(t *testing.T) {
	// Demand is for 700 and 300, which fill a GPU together. 300 left on one GPU and 350
	// on another both take a 300: the first is its match.
	e := engine(t, node("a", "G", nil))
	observe(t, e, 50, share(700))
	observe(t, e, 50, share(300))
	observe(t, e, 50, share(350))
	assign(t, e, "650", share(650), "a", 0)
	assign(t, e, "700", share(700), "a", 1)
	if c := best(t, e, share(300)); !cmp.Equal(c.GPUs, []int{1}) {
		t.Errorf("got GPU %v, want 1: 350 stay for who needs 350", c.GPUs)
	}
}

func TestAPodWithoutGPUsGoesWhereItStrandsNone(t *testing.T) {
	lean := node("a-lean", "G", func(n *packing.Node) { n.CPUMilli = 32_000 }) // 4 cores for each GPU, as pods take
	rich := node("b-rich", "G", func(n *packing.Node) { n.CPUMilli = 200_000 })
	cpuOnly := packing.Request{CPUMilli: 32_000}
	e := engine(t, lean, rich)
	observe(t, e, 100, whole(1))
	observe(t, e, 5, cpuOnly)
	if c := best(t, e, cpuOnly); c.Node != "b-rich" {
		t.Errorf("it goes to %s, want b-rich: on a-lean eight GPUs would be left without cores", c.Node)
	}
	if err := e.SetNode(packing.Node{Name: "c-plain", Order: 9, CPUMilli: 64_000}); err != nil {
		t.Fatal(err)
	}
	if c := best(t, e, cpuOnly); c.Node != "c-plain" {
		t.Errorf("it goes to %s, want c-plain, which has no GPUs to strand", c.Node)
	}
}

func TestMIGSlicesComeFromTheNodeWithFewestLeft(t *testing.T) {
	slice := packing.Request{MIG: map[string]int{"1g.10gb": 1}, CPUMilli: 1000}
	mig := func(name string) packing.Node {
		return node(name, "A100", func(n *packing.Node) { n.GPUs, n.MIG = 0, map[string]int{"1g.10gb": 7} })
	}
	e := engine(t, mig("a"), mig("b"))
	assign(t, e, "first", slice, "b")
	if c := best(t, e, slice); c.Node != "b" {
		t.Errorf("it goes to %s, want b", c.Node)
	}
	if free, _ := e.Free("b"); free.MIG["1g.10gb"] != 6 {
		t.Errorf("%v slices left, want 6 of 7", free.MIG)
	}
}

func TestWhatTheCallerAddsDecidesAtFullPrecision(t *testing.T) {
	e := engine(t, node("a", "G", nil), node("b", "G", nil))
	observe(t, e, 10, whole(1))
	price := map[string]float64{"a": 1e-9}
	c, _, err := e.Best(whole(1), func(node string) float64 { return price[node] })
	if err != nil || c.Node != "b" {
		t.Errorf("%s %v, want b, which costs a billionth less", c.Node, err)
	}
	price["b"] = math.Inf(1)
	extra := func(node string) float64 { return price[node] }
	all, err := e.Rank(whole(1), extra)
	if err != nil || len(all) != 1 || all[0].Node != "a" {
		t.Errorf("%+v %v, want a alone: an infinite cost leaves a node out", all, err)
	}
	price["a"] = math.Inf(1)
	if c, ok, err := e.Best(whole(1), extra); err != nil || ok {
		t.Errorf("%+v %v, want no node", c, err)
	}
}

func TestWhatIsWaitingCountsAsDemand(t *testing.T) {
	nodes := []packing.Node{node("a", "T4", nil), node("b", "G2", nil)}
	e := engine(t, nodes...)
	observe(t, e, 100, whole(1))
	before := e.Pressure()["T4"]
	// Eight GPUs wait for eight T4: the pressure rises by 1, in whatever portions.
	for _, waiting := range [][]packing.Waiting{
		{{Request: whole(8, "T4"), Pods: 1}},
		{{Request: whole(2, "T4"), Pods: 4}},
		{{Request: whole(2, "T4"), Pods: 1}, {Request: whole(2, "T4"), Pods: 3}},
	} {
		if err := e.Pending(waiting); err != nil {
			t.Fatal(err)
		}
		e.Reprice()
		if after := e.Pressure()["T4"]; math.Abs(after-before-1) > 0.01 {
			t.Errorf("with %+v pressure went from %v to %v, want 1 more", waiting, before, after)
		}
	}
	if err := e.Pending([]packing.Waiting{{Request: whole(1), Pods: -1}}); err == nil || !strings.Contains(err.Error(), "Pods is -1, want 0 or more") {
		t.Errorf("error %v", err)
	}
}

func TestNewerPodsCountMore(t *testing.T) {
	e, err := packing.New(packing.Options{HalfLife: 10, PriorGPUs: 0.01})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []packing.Node{node("a", "T4", nil), node("b", "P100", nil), node("c", "G2", nil)} {
		if err := e.SetNode(n); err != nil {
			t.Fatal(err)
		}
	}
	observe(t, e, 100, whole(1, "T4"))
	observe(t, e, 40, whole(1, "P100")) // four half-lives: T4 counts 1/16
	e.Reprice()
	if p := e.Pressure(); p["P100"] < 10*p["T4"] {
		t.Errorf("pressure is %v, want 15 times as much for P100", p)
	}
}

func TestAssignRefusesWhatIsNotThere(t *testing.T) {
	for name, test := range map[string]struct {
		pod     string
		request packing.Request
		node    string
		gpus    []int
		want    string
	}{
		"an unknown node":     {"p", whole(1), "x", nil, `pod p: node "x" is not known`},
		"a pod twice":         {"q", whole(1), "n", nil, "pod q: assigned to n already, release it first"},
		"too few GPUs given":  {"p", whole(2), "n", []int{1}, "pod p: 1 GPUs given, it asks for 2"},
		"a GPU twice":         {"p", whole(2), "n", []int{1, 1}, "pod p: GPU 1 given twice"},
		"a GPU out of range":  {"p", whole(1), "n", []int{8}, "pod p: GPU 8 given, n has 0 to 7"},
		"a GPU in use":        {"p", whole(1), "n", []int{0}, "pod p: GPU 0 of n has 0 milli left, it asks for 1000"},
		"no room":             {"p", whole(8), "n", nil, "pod p: n has 7 of 8 GPUs with 1000 milli free, wanted 8"},
		"half a request":      {"p", packing.Request{GPUs: 1}, "n", nil, "pod p: GPUMilli is 0, want 1 to 1000 for a pod with GPUs"},
		"a share of no GPU":   {"p", packing.Request{GPUMilli: 5}, "n", nil, "pod p: GPUMilli is 5, want 0 for a pod without GPUs"},
		"less than nothing":   {"p", packing.Request{CPUMilli: -1}, "n", nil, "pod p: CPUMilli is -1, want 0 to 4503599627370496"},
		"no slices of a kind": {"p", packing.Request{MIG: map[string]int{"1g": 0}}, "n", nil, "pod p: MIG[1g] is 0, want 1 to 1048576"},
	} {
		t.Run(name, func(t *testing.T) {
			e := engine(t, node("n", "A100", nil))
			assign(t, e, "q", whole(1), "n", 0)
			_, err := e.Assign(test.pod, test.request, test.node, test.gpus)
			if err == nil || err.Error() != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestANodeThatShrinksKeepsItsPods(t *testing.T) {
	e := engine(t, node("n", "A100", nil))
	assign(t, e, "p", whole(2), "n", 0, 7)
	if err := e.SetNode(node("n", "A100", func(n *packing.Node) { n.GPUs = 4 })); err != nil {
		t.Fatal(err)
	}
	free, _ := e.Free("n")
	if diff := cmp.Diff([]int64{0, 1000, 1000, 1000}, free.GPUMilli); diff != "" {
		t.Error(diff)
	}
	if a, ok := e.Assigned("p"); !ok || a.Node != "n" {
		t.Errorf("the pod is at %v", a)
	}
	if !e.RemoveNode("n") || e.RemoveNode("n") {
		t.Error("a node is removed once")
	}
	if _, ok := e.Assigned("p"); ok {
		t.Error("the pod outlived its node")
	}
}

func TestOptionsAndNodesOutOfRangeAreNamed(t *testing.T) {
	for want, options := range map[string]packing.Options{
		"options of placement: Horizon is -1, want 0 to 10, 0 for the default":                                          {Horizon: -1},
		"options of placement: Step is NaN, want 0 to 1, 0 for the default":                                             {Step: math.NaN()},
		"options of placement: option Softness is 0.001, want at least 0.01: worths are weighed by exp(worth/Softness)": {Softness: 0.001},
		"options of placement: RepriceEvery is -5, want 0 to 1e+09, 0 for the default":                                  {RepriceEvery: -5},
		"options of placement: ScarcityWeight is 101, want 0 to 100, 0 for the default":                                 {ScarcityWeight: 101},
	} {
		if _, err := packing.New(options); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	for want, n := range map[string]packing.Node{
		"node without a Name":                                       {},
		"node n: GPUs is 65, want 0 to 64":                          {Name: "n", GPUs: 65},
		"node n: MemoryBytes is -1, want 0 to 4503599627370496":     {Name: "n", MemoryBytes: -1},
		"node n: MIG[1g.10gb] is -7, want 1 to 1048576":             {Name: "n", MIG: map[string]int{"1g.10gb": -7}},
		"node n: GPUMemoryBytes is -80, want 0 to 4503599627370496": {Name: "n", GPUMemoryBytes: -80},
	} {
		if err := engine(t).SetNode(n); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
