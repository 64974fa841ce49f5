// SPDX-License-Identifier: Apache-2.0

package placement_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/packing"
	"github.com/spotbench/spotbench/pkg/risk"
)

func newFleet(t interface{ Fatal(...any) }) *placement.Fleet {
	f, err := placement.NewFleet(packing.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func anywhere(int) bool { return true }

func TestAFleetDecidesAsCheckAndRankDoOverAllNodes(t *testing.T) {
	models := []string{"A100-80GB", "H100-80GB", "L4-24GB"}
	rapid.Check(t, func(t *rapid.T) {
		f := newFleet(t)
		known := map[string]placement.FleetNode{}
		ages := risk.ByAge{0.4, 0.2, 0.1}
		for step := range rapid.IntRange(1, 30).Draw(t, "steps") {
			name := "n" + strconv.Itoa(rapid.IntRange(0, 9).Draw(t, "node"))
			if rapid.IntRange(0, 5).Draw(t, "gone") == 0 {
				f.Remove(name)
				delete(known, name)
				continue
			}
			used := rapid.IntRange(0, 8).Draw(t, "used")
			n := placement.FleetNode{CPUMilli: 96_000, MemoryBytes: 400 * gib, Used: packing.Used{GPUs: used, CPUMilli: int64(used) * 4000}}
			n.Node = node(name, rapid.SampledFrom(models).Draw(t, "model"), 80*gib, func(n *placement.Node) {
				n.Pool.CapacityType = rapid.SampledFrom([]string{"spot", "on-demand"}).Draw(t, "capacity")
				n.Hazard = risk.Hazard(rapid.SampledFrom([]float64{0, 0.1, 0.5}).Draw(t, "hazard"))
				n.USDPerHour = rapid.SampledFrom([]float64{0, 8, 27.44}).Draw(t, "price")
				n.TotalGPUs, n.FreeGPUs = 8, 8-used
				n.GPUPods = min(used, 1)
				if used > 4 && rapid.Bool().Draw(t, "isolated") {
					n.IsolatedPods = 1
				}
				if rapid.Bool().Draw(t, "aged") {
					n.Ages, n.Age = &ages, time.Duration(rapid.IntRange(0, 3).Draw(t, "age"))*time.Hour
				}
			})
			if err := f.Set(n); err != nil {
				t.Fatal(err)
			}
			known[name] = n
			r := request(rapid.IntRange(0, 8).Draw(t, "gpus"), func(s *benchspec.Spec) {
				s.GPUModels = rapid.SampledFrom([][]string{nil, {"A100-80GB"}, {"H100-80GB", "A100-80GB"}}).Draw(t, "models")
				s.Capacity = rapid.SampledFrom([]benchspec.Capacity{benchspec.CapacityAny, benchspec.CapacitySpot}).Draw(t, "wanted")
				s.Isolation = rapid.SampledFrom([]benchspec.Isolation{benchspec.IsolationNone, benchspec.IsolationNode}).Draw(t, "isolation")
			})
			r.Assumptions.GPUHourUSD = rapid.SampledFrom([]float64{0, 1, 5}).Draw(t, "worth")
			r.CPUMilli = int64(r.GPUs) * 4000
			if err := f.Observe(strconv.Itoa(step), r, nil); err != nil {
				t.Fatal(err)
			}
			compareWithRank(t, f, known, r)
		}
	})
}

func compareWithRank(t *rapid.T, f *placement.Fleet, known map[string]placement.FleetNode, r placement.Request) {
	takes := f.Opportunities(r)
	var feasible []placement.Node
	refused := map[placement.RefusalCount]int{}
	for _, n := range known {
		refusal := placement.Check(r, n.Node)
		if refusal != nil {
			refused[placement.RefusalCount{Reason: refusal.Reason, Model: n.GPUs.Model}]++
			continue
		}
		if placement.CheckRoom(r, n.Node) == nil && n.CPUMilli-n.Used.CPUMilli >= r.CPUMilli {
			n.Opportunity = takes(n.Name)
			feasible = append(feasible, n.Node)
		}
	}
	ranked := placement.Rank(r, feasible)
	list, ok := f.Shortlist(r, placement.Search{Best: 3, Refused: 100, Allowed: anywhere, Elsewhere: "elsewhere"})
	if !ok {
		t.Fatalf("no answer for %+v", r)
	}
	if diff := cmp.Diff(ranked[:min(3, len(ranked))], list.Best, cmp.Transformer("empty", func(c []placement.Candidate) []placement.Candidate { return slices.Concat(c) })); diff != "" {
		t.Fatalf("the best differ (-Rank +Shortlist):\n%s", diff)
	}
	if want := placement.Count(ranked); list.Tally != want {
		t.Fatalf("tally %+v, want %+v", list.Tally, want)
	}
	if diff := cmp.Diff(refused, list.Refusals); diff != "" {
		t.Fatalf("refusals differ (-Check +Shortlist):\n%s", diff)
	}
	if len(list.Refused)+list.Tally.Feasible != len(known) {
		t.Fatalf("%d refused and %d feasible of %d nodes", len(list.Refused), list.Tally.Feasible, len(known))
	}
}

func TestAFleetPlacesWhereThePodsToComeLoseLeast(t *testing.T) {
	f := newFleet(t)
	set := func(name string, used int) {
		n := placement.FleetNode{Node: node(name, "A100-80GB", 80*gib, func(n *placement.Node) { n.FreeGPUs = 8 - used }), CPUMilli: 96_000, MemoryBytes: 400 * gib}
		n.Used.GPUs = used
		if err := f.Set(n); err != nil {
			t.Fatal(err)
		}
	}
	set("a-empty", 0)
	set("b-half", 4)
	// Half of the pods want a whole node: one in the empty node is dear.
	for i := range 20 {
		if err := f.Observe(strconv.Itoa(i), request(1+i%2*7, nil), nil); err != nil {
			t.Fatal(err)
		}
	}
	list, ok := f.Shortlist(request(1, nil), placement.Search{Best: 2, Allowed: anywhere})
	if !ok || len(list.Best) != 2 || list.Best[0].Node.Name != "b-half" || list.Best[0].Node.Opportunity.GPUs >= list.Best[1].Node.Opportunity.GPUs {
		t.Errorf("best: %+v, want b-half before a-empty", list.Best)
	}
	if pressure := f.Pressure(); len(pressure) != 1 || pressure["A100-80GB"] <= 0 {
		t.Errorf("pressure %v", pressure)
	}
}

func TestAPodIsCountedIntoTheDemandOnce(t *testing.T) {
	once, often := newFleet(t), newFleet(t)
	for _, f := range []*placement.Fleet{once, often} {
		for i, used := range []int{0, 3, 6} {
			n := placement.FleetNode{Node: node("n"+strconv.Itoa(i), "A100-80GB", 80*gib, nil), CPUMilli: 96_000, MemoryBytes: 400 * gib, Used: packing.Used{GPUs: used}}
			if err := f.Set(n); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, r := range []placement.Request{request(8, nil), request(2, nil), request(1, nil)} {
		for _, err := range []error{once.Observe(strconv.Itoa(i), r, nil), often.Observe(strconv.Itoa(i), r, nil), often.Observe(strconv.Itoa(i), r, nil), often.Observe("0", r, nil)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range 3 {
		name := "n" + strconv.Itoa(i)
		if a, b := once.Opportunities(request(1, nil))(name), often.Opportunities(request(1, nil))(name); a != b {
			t.Errorf("%s: %+v observed once, %+v observed again", name, a, b)
		}
	}
}
