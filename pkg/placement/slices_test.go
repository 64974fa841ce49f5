// SPDX-License-Identifier: Apache-2.0

package placement_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/packing"
)

// sevenths is a node as a pod finds it that asks for sevenths of an A100: 14 of them, on
// two of its eight cards.
func sevenths(change func(*placement.Node)) placement.Node {
	return node("n", "A100-80GB-MIG-1g.10gb", 10*gib, func(n *placement.Node) {
		n.GPUs.Card, n.GPUs.Share, n.TotalGPUs, n.FreeGPUs = "A100-80GB", 1./56, 14, 14
		if change != nil {
			change(n)
		}
	})
}

func asksFor(resource gpu.Resource, n int, change func(*benchspec.Spec)) placement.Request {
	r := request(n, change)
	r.Resource = resource
	return r
}

func TestSlicesAreCheckedAsWhatTheyAre(t *testing.T) {
	seventh, share := gpu.Resource{Profile: "1g.10gb"}, gpu.Resource{Shared: true}
	for name, test := range map[string]struct {
		request placement.Request
		node    placement.Node
		reason  placement.Reason // "" accepts
		text    string
	}{
		"the card that they are cut from": {
			asksFor(seventh, 1, func(s *benchspec.Spec) { s.GPUModels = []string{"A100-80GB"} }), sevenths(nil), "", ""},
		"the slice by its name": {
			asksFor(seventh, 1, func(s *benchspec.Spec) { s.GPUModels = []string{"A100-80GB-MIG-1g.10gb"} }), sevenths(nil), "", ""},
		"another card": {
			asksFor(seventh, 1, func(s *benchspec.Spec) { s.GPUModels = []string{"H100-80GB"} }), sevenths(nil),
			placement.ReasonModel, "has A100-80GB-MIG-1g.10gb, wanted H100-80GB"},
		"the card's memory is not a slice's": {
			asksFor(seventh, 1, func(s *benchspec.Spec) { s.GPUMemoryBytes = 20 * gib }), sevenths(nil),
			placement.ReasonMemory, "has A100-80GB-MIG-1g.10gb with 10 GiB per slice, wanted 20 GiB"},
		"none of them": {
			asksFor(seventh, 2, nil), sevenths(func(n *placement.Node) { n.TotalGPUs = 0 }),
			placement.ReasonNoGPUs, "has no nvidia.com/mig-1g.10gb, wanted 2"},
		"isolation on a share": {
			asksFor(share, 1, func(s *benchspec.Spec) { s.Isolation = benchspec.IsolationNode }), node("n", "L4-24GB", 24*gib, func(n *placement.Node) { n.GPUs.Shared = true }),
			placement.ReasonShared, "has nvidia.com/gpu.shared that pods share, wanted isolation"},
	} {
		t.Run(name, func(t *testing.T) {
			refusal := placement.Check(test.request, test.node)
			switch {
			case test.reason == "" && refusal != nil:
				t.Errorf("refused: %s", refusal)
			case test.reason != "" && (refusal == nil || refusal.Reason != test.reason || refusal.String() != test.text || refusal.Temporary):
				t.Errorf("refusal %+v, want %s: %s", refusal, test.reason, test.text)
			}
		})
	}
	if got := placement.CheckRoom(asksFor(seventh, 3, nil), sevenths(func(n *placement.Node) { n.FreeGPUs = 2 })); got == nil || got.String() != "has 2 of 14 nvidia.com/mig-1g.10gb free, wanted 3" || !got.Temporary {
		t.Errorf("too few slices: %v", got)
	}
}

func TestAPodPaysForItsPartOfTheNode(t *testing.T) {
	// The node costs $8 an hour.
	for name, test := range map[string]struct {
		resource gpu.Resource
		gpus     int
		node     placement.Node
		want     float64
	}{
		"two of eight cards":                                 {gpu.Resource{}, 2, node("n", "A100-80GB", 80*gib, nil), 2},
		"a card beside four that are cut, of eight":          {gpu.Resource{}, 1, node("n", "A100-80GB", 80*gib, func(n *placement.Node) { n.TotalGPUs, n.GPUs.Share = 4, 1./8 }), 1},
		"three of seven compute slices of each of 8 cards":   {gpu.Resource{Profile: "1g.10gb"}, 3, sevenths(nil), 8 * 3. / 56},
		"one of 4 shares of each of 8 cards":                 {gpu.Resource{Shared: true}, 1, node("n", "A100-80GB", 80*gib, func(n *placement.Node) { n.TotalGPUs, n.GPUs.Share = 32, 1./32 }), 0.25},
		"shares whose cards no label counts, 16 of them":     {gpu.Resource{Shared: true}, 1, node("n", "A100-80GB", 80*gib, func(n *placement.Node) { n.TotalGPUs = 16 }), 0.5},
		"never more than the node, whatever the labels say":  {gpu.Resource{Profile: "7g.80gb"}, 9, node("n", "A100-80GB", 80*gib, func(n *placement.Node) { n.GPUs.Share = 1. / 8 }), 8},
		"a node that has none of them costs nothing to know": {gpu.Resource{Shared: true}, 1, node("n", "A100-80GB", 80*gib, func(n *placement.Node) { n.TotalGPUs = 0 }), 0},
	} {
		t.Run(name, func(t *testing.T) {
			e := placement.Reckon(asksFor(test.resource, test.gpus, nil), test.node)
			if math.Abs(e.USDPerHour-test.want) > 1e-12 || math.Abs(e.OnDemandUSDPerHour-test.want) > 1e-12 {
				t.Errorf("$%v an hour, $%v on demand, want %v", e.USDPerHour, e.OnDemandUSDPerHour, test.want)
			}
		})
	}
}

func TestAFleetKnowsWhichSlicesAreTaken(t *testing.T) {
	f := newFleet(t)
	for name, used := range map[string]int{"empty": 0, "half": 7, "full": 14} {
		n := placement.FleetNode{Node: node(name, "A100-80GB", 80*gib, nil), CPUMilli: 96_000, MemoryBytes: 400 * gib, Slices: map[string]int{"1g.10gb": 14}}
		if used > 0 {
			n.Used = packing.Used{MIG: map[string]int{"1g.10gb": used}}
		}
		if err := f.Set(n); err != nil {
			t.Fatal(err)
		}
	}
	r := asksFor(gpu.Resource{Profile: "1g.10gb"}, 2, nil)
	takes := f.Opportunities(r)
	// Of nodes that take the same from the pods to come, the fuller goes first: 5 slices
	// are left after the pod, not 12.
	if half, empty := takes("half"), takes("empty"); half.Leaning != 5 || empty.Leaning != 12 || half.GPUs != empty.GPUs {
		t.Errorf("half full %+v, empty %+v", half, empty)
	}
	if full := takes("full"); full != (placement.Opportunity{}) {
		t.Errorf("a full node: %+v", full)
	}
	if _, ok := f.Shortlist(r, placement.Search{Best: 4, Allowed: anywhere}); ok {
		t.Error("a fleet that sees whole GPUs made a list for slices")
	}
}

func TestSlicesOfAnEngineAreNeverOvercommittedByProfile(t *testing.T) {
	profiles := []string{"1g.10gb", "2g.20gb", "3g.40gb"}
	rapid.Check(t, func(t *rapid.T) {
		e, err := packing.New(packing.Options{})
		if err != nil {
			t.Fatal(err)
		}
		n := packing.Node{Name: "n", Model: "A", GPUs: 1, MIG: map[string]int{}, CPUMilli: 64_000, MemoryBytes: gib}
		left := map[string]int{}
		used := map[string]int{}
		for _, p := range profiles {
			if has := rapid.IntRange(0, 7).Draw(t, p); has > 0 {
				n.MIG[p], left[p] = has, has
				if u := rapid.IntRange(0, 8).Draw(t, "used "+p); u > 0 {
					used[p] = u
					left[p] -= u
				}
			}
		}
		if err := e.SetNode(n); err != nil {
			t.Fatal(err)
		}
		if err := e.SetUsed("n", packing.Used{MIG: used}); err != nil {
			t.Fatal(err)
		}
		for i := range rapid.IntRange(1, 20).Draw(t, "pods") {
			p, count := rapid.SampledFrom(profiles).Draw(t, "profile"), rapid.IntRange(1, 3).Draw(t, "count")
			r := packing.Request{MIG: map[string]int{p: count}, CPUMilli: 1000}
			_, ok, err := e.Best(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if ok != (left[p] >= count) {
				t.Fatalf("%d of %s are left, %d wanted, and the node will do: %v", left[p], p, count, ok)
			}
			if !ok {
				continue
			}
			if _, err := e.Assign(string(rune('a'+i)), r, "n", nil); err != nil {
				t.Fatal(err)
			}
			left[p] -= count
		}
	})
}
