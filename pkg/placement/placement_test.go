// SPDX-License-Identifier: Apache-2.0

package placement_test

import (
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/risk"
)

const gib = int64(1) << 30

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// request asks for GPUs with the defaults of the contract; work is an hour, a
// restart takes none, so that expected figures can be done by hand.
func request(gpus int, change func(*benchspec.Spec)) placement.Request {
	spec, err := benchspec.Parse(nil)
	if err != nil {
		panic(err)
	}
	if change != nil {
		change(&spec)
	}
	return placement.Request{Spec: spec, GPUs: gpus, Now: now, Assumptions: placement.Assumptions{ExpectedDuration: time.Hour}}
}

// node is an on-demand node of eight free GPUs for $8 an hour, so $1 per GPU.
func node(name, model string, memory int64, change func(*placement.Node)) placement.Node {
	n := placement.Node{
		Name: name, HasGPUs: true,
		GPUs:      gpu.Node{Model: model, Product: "NVIDIA-" + model, MemoryBytes: memory, Count: 8},
		Pool:      gpu.Pool{Provider: "aws", Region: "r", Zone: "z", InstanceType: "t", CapacityType: gpu.OnDemand},
		TotalGPUs: 8, FreeGPUs: 8, USDPerHour: 8, OnDemandUSDPerHour: 8,
	}
	if change != nil {
		change(&n)
	}
	return n
}

func spot(hazard risk.Hazard) func(*placement.Node) {
	return func(n *placement.Node) { n.Pool.CapacityType, n.Hazard = gpu.Spot, hazard }
}

func ptr(f float64) *float64 { return &f }

func TestCheckRefusesWithTheFiguresFoundAndWanted(t *testing.T) {
	a100 := func(change func(*placement.Node)) placement.Node { return node("n", "A100-80GB", 80*gib, change) }
	for name, test := range map[string]struct {
		request placement.Request
		node    placement.Node
		reason  placement.Reason // "" accepts
		text    string
	}{
		"no wish is met by any GPU node": {request(1, nil), a100(nil), "", ""},
		"the model that was asked for": {
			request(1, func(s *benchspec.Spec) { s.GPUModels = []string{"H100-80GB", "A100-80GB"} }), a100(nil), "", ""},
		"a raw product that was asked for": {
			request(1, func(s *benchspec.Spec) { s.GPUModels = []string{"NVIDIA-A100-80GB"} }), a100(nil), "", ""},
		"another model": {
			request(1, func(s *benchspec.Spec) { s.GPUModels = []string{"H100-80GB"} }), a100(nil),
			placement.ReasonModel, "has A100-80GB, wanted H100-80GB"},
		"none of several models": {
			request(1, func(s *benchspec.Spec) { s.GPUModels = []string{"H100-80GB", "H200-141GB"} }), a100(nil),
			placement.ReasonModel, "has A100-80GB, wanted H100-80GB or H200-141GB"},
		"GPUs without a label cannot be of a model": {
			request(1, func(s *benchspec.Spec) { s.GPUModels = []string{"H100-80GB"} }),
			placement.Node{TotalGPUs: 8, FreeGPUs: 8}, placement.ReasonModel, "has GPUs without a label nvidia.com/gpu.product, wanted H100-80GB"},
		"GPUs without a label will do for a pod without wishes": {
			request(1, nil), placement.Node{TotalGPUs: 8, FreeGPUs: 8}, "", ""},
		"no GPUs": {
			request(2, nil), placement.Node{Name: "system-0"}, placement.ReasonNoGPUs, "has no GPUs, wanted 2"},
		"a pod without GPUs may go where there are none": {
			request(0, nil), placement.Node{Name: "system-0"}, "", ""},
		"80Gi is met by 80 GB": {
			request(1, func(s *benchspec.Spec) { s.GPUMemoryBytes = 80 * gib }), a100(nil), "", ""},
		"too little memory": {
			request(1, func(s *benchspec.Spec) { s.GPUMemoryBytes = 141 * gib }), a100(nil),
			placement.ReasonMemory, "has A100-80GB with 80 GiB per GPU, wanted 141 GiB"},
		"memory in decimal units is shown in GiB: 100 GB are 93.13 GiB": {
			request(1, func(s *benchspec.Spec) { s.GPUMemoryBytes = 100_000_000_000 }), a100(nil),
			placement.ReasonMemory, "has A100-80GB with 80 GiB per GPU, wanted 93.13 GiB"},
		"unknown memory": {
			request(1, func(s *benchspec.Spec) { s.GPUMemoryBytes = gib }), a100(func(n *placement.Node) { n.GPUs.MemoryBytes = 0 }),
			placement.ReasonMemory, "has A100-80GB of unknown memory, wanted 1 GiB per GPU"},
		"an invalid MIG configuration": {
			request(1, nil), a100(func(n *placement.Node) { n.GPUs.Invalid = "its MIG configuration is invalid" }),
			placement.ReasonInvalid, "has GPUs that cannot be used: its MIG configuration is invalid"},
		"time-sliced GPUs for a pod that must be alone": {
			request(1, func(s *benchspec.Spec) { s.Isolation = benchspec.IsolationNode }), a100(func(n *placement.Node) { n.GPUs.Shared = true }),
			placement.ReasonShared, "has time-sliced GPUs, wanted isolation"},
		"spot for a pod that wants on-demand": {
			request(1, func(s *benchspec.Spec) { s.Capacity = benchspec.CapacityOnDemand }), a100(spot(0)),
			placement.ReasonCapacity, "has spot capacity, wanted on-demand"},
		"on-demand for a pod that wants spot": {
			request(1, func(s *benchspec.Spec) { s.Capacity = benchspec.CapacitySpot }), a100(nil),
			placement.ReasonCapacity, "has on-demand capacity, wanted spot"},
		"a notice": {
			request(1, nil), a100(func(n *placement.Node) { n.Notice = "SpotInterruptionNotice" }),
			placement.ReasonNotice, "has an interruption notice (SpotInterruptionNotice)"},
		// Once in 3.18 h: 1-exp(-0.75/3.18) = 0.21.
		"risk above the limit": {
			request(1, func(s *benchspec.Spec) { s.ExpectedDuration, s.MaxInterruptionRisk = 45*time.Minute, ptr(0.1) }), a100(spot(1 / 3.18)),
			placement.ReasonRisk, "has interruption risk 0.21 over 45m, limit 0.10"},
		"a risk just above the limit has the digits that show it": {
			request(1, func(s *benchspec.Spec) { s.MaxInterruptionRisk = ptr(0.1) }), a100(spot(risk.Hazard(-math.Log(0.8999)))),
			placement.ReasonRisk, "has interruption risk 0.1001 over 1h, limit 0.10"},
		"risk within the limit": {
			request(1, func(s *benchspec.Spec) { s.MaxInterruptionRisk = ptr(0.11) }), a100(spot(0.1)), "", ""},
		"a limit of zero is met on demand": {
			request(1, func(s *benchspec.Spec) { s.MaxInterruptionRisk = ptr(0) }), a100(nil), "", ""},
		"a limit of zero is not met on spot": {
			request(1, func(s *benchspec.Spec) { s.MaxInterruptionRisk = ptr(0) }), a100(spot(0.001)),
			placement.ReasonRisk, "has interruption risk 0.001 over 1h, limit 0.00"},
		// Starting over at 0.5 per hour: (exp(0.5)-1)/0.5 = 1.297 h.
		"spot cannot make the deadline, interruptions counted": {
			request(1, func(s *benchspec.Spec) { s.Deadline = now.Add(75 * time.Minute) }), a100(spot(0.5)),
			placement.ReasonDeadline, "has an expected 1h18m to finish, deadline in 1h15m"},
		"on-demand makes the same deadline": {
			request(1, func(s *benchspec.Spec) { s.Deadline = now.Add(75 * time.Minute) }), a100(nil), "", ""},
		"a deadline in the past": {
			request(1, func(s *benchspec.Spec) { s.Deadline = now.Add(-time.Minute) }), a100(nil),
			placement.ReasonDeadline, "has no time left, deadline was 2026-11-23T11:59:00Z"},
		"a run that would start over for ever": {
			request(1, func(s *benchspec.Spec) { s.ExpectedDuration = 100 * time.Hour }), a100(spot(1)),
			placement.ReasonNeverDone, "has interruptions so often that 100h of work never finish"},
		"neighbours of a pod that must be alone": {
			request(1, func(s *benchspec.Spec) { s.Isolation = benchspec.IsolationNode }), a100(func(n *placement.Node) { n.GPUPods, n.FreeGPUs = 1, 7 }),
			placement.ReasonNeighbours, "has other pods on their GPUs, wanted isolation"},
		"a neighbour that must be alone": {
			request(1, nil), a100(func(n *placement.Node) { n.GPUPods, n.IsolatedPods, n.FreeGPUs = 1, 1, 7 }),
			placement.ReasonIsolated, "has a pod that is isolated on its GPUs"},
		"isolation is about GPUs: a pod without may come": {
			request(0, nil), a100(func(n *placement.Node) { n.GPUPods, n.IsolatedPods = 1, 1 }), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := placement.Check(test.request, test.node)
			if test.reason == "" {
				if got != nil {
					t.Errorf("refused: %s", got)
				}
				return
			}
			if got == nil || got.Reason != test.reason || got.String() != test.text {
				t.Errorf("refusal %v, want %s %q", got, test.reason, test.text)
			}
			if temporary := test.reason == placement.ReasonNeighbours || test.reason == placement.ReasonIsolated; got != nil && got.Temporary != temporary {
				t.Errorf("temporary is %v, want %v", got.Temporary, temporary)
			}
		})
	}
}

func TestCheckRoomCountsFreeGPUs(t *testing.T) {
	n := node("n", "A100-80GB", 80*gib, func(n *placement.Node) { n.FreeGPUs = 2 })
	if got := placement.CheckRoom(request(2, nil), n); got != nil {
		t.Errorf("two GPUs are free, but: %s", got)
	}
	if got := placement.CheckRoom(request(4, nil), n); got == nil || got.String() != "has 2 free GPUs of 8, wanted 4" || !got.Temporary {
		t.Errorf("refusal %v", got)
	}
}

func TestReckonPricesTheShareOfTheNode(t *testing.T) {
	// Four of eight GPUs: half of $8 an hour. One hour of work without checkpoints at
	// ln 2 per hour: (exp(ln 2)-1)/ln 2 = 1/0.693147 = 1.442695 h, $5.77.
	n := node("n", "A100-80GB", 80*gib, spot(math.Ln2))
	n.OnDemandUSDPerHour = 24
	got := placement.Reckon(request(4, nil), n)
	want := placement.Estimate{Risk: 0.5, Hours: 1 / math.Ln2, USDPerHour: 4, OnDemandUSDPerHour: 12, CostUSD: 4 / math.Ln2, OnDemandCostUSD: 12}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-12 })); diff != "" {
		t.Errorf("estimate differs (-want +got):\n%s", diff)
	}
}

func TestReckonCountsCheckpoints(t *testing.T) {
	// A resumable run that saves on every notice loses nothing but restarts of no
	// time: an hour stays an hour. Fixed checkpoints every 20 min cost two of 3 min.
	r := request(8, func(s *benchspec.Spec) {
		s.CheckpointPath, s.CheckpointInterval = "/c", benchspec.Interval{Every: 20 * time.Minute}
	})
	r.Assumptions.NoticeSaves, r.Assumptions.CheckpointCost = 1, 3*time.Minute
	if got := placement.Reckon(r, node("n", "A100-80GB", 80*gib, spot(0.5))).Hours; math.Abs(got-1.1) > 1e-12 {
		t.Errorf("%v h, want 1.1", got)
	}
}

func TestRankPutsThePreferredModelFirstAndThenTheCheapest(t *testing.T) {
	models := func(m ...string) func(*benchspec.Spec) { return func(s *benchspec.Spec) { s.GPUModels = m } }
	priced := func(usd float64) func(*placement.Node) { return func(n *placement.Node) { n.USDPerHour = usd } }
	takes := func(gpus float64) func(*placement.Node) {
		return func(n *placement.Node) { n.Opportunity.GPUs = gpus }
	}
	both := func(a, b func(*placement.Node)) func(*placement.Node) {
		return func(n *placement.Node) { a(n); b(n) }
	}
	worth := func(r placement.Request, usd float64) placement.Request {
		r.Assumptions.GPUHourUSD = usd
		return r
	}
	h100 := node("h100", "H100-80GB", 80*gib, priced(55.04))
	a100 := node("a100", "A100-80GB", 80*gib, priced(27.44))
	l4 := node("l4", "L4-24GB", 24*gib, priced(4.6))
	for name, test := range map[string]struct {
		request  placement.Request
		feasible []placement.Node
		order    string
		reason   string
	}{
		"without a preference the cheapest wins": {
			request(4, nil), []placement.Node{h100, a100, l4}, "l4 a100 h100",
			"cheapest of 3 feasible nodes: $2.30 vs $13.72 on a100"},
		"the first of the list wins, dear as it is": {
			request(4, models("H100-80GB", "A100-80GB")), []placement.Node{a100, h100}, "h100 a100",
			"has H100-80GB, the most preferred model among 2 feasible nodes: $27.52; next is a100 with A100-80GB at $13.72"},
		"the second of the list when the first is taken": {
			request(4, models("H100-80GB", "A100-80GB")), []placement.Node{a100}, "a100",
			"only feasible node: $13.72"},
		"money decides within the preferred model": {
			request(4, models("H100-80GB", "A100-80GB")),
			[]placement.Node{h100, a100, node("h100-cheap", "H100-80GB", 80*gib, priced(26.4))}, "h100-cheap h100 a100",
			"cheapest of 2 feasible nodes with the preferred H100-80GB: $13.20 vs $27.52 on h100"},
		"risk can make the cheaper hour the dearer run": {
			// $6 an hour for (exp(1)-1)/1 = 1.72 h is $10.31, against $8.
			request(8, nil), []placement.Node{node("spot", "A100-80GB", 80*gib, func(n *placement.Node) { spot(1)(n); n.USDPerHour = 6 }), node("od", "A100-80GB", 80*gib, nil)}, "od spot",
			"cheapest of 2 feasible nodes: $8.00 vs $10.31 on spot"},
		"a known price comes before an unknown one": {
			request(8, nil), []placement.Node{node("unpriced", "A100-80GB", 80*gib, priced(0)), h100}, "h100 unpriced",
			"cheapest of 2 feasible nodes: $55.04 vs 1h (no price known for aws/r/z/t/on-demand) on unpriced"},
		"without any price the shorter time wins": {
			request(8, nil), []placement.Node{
				node("spot", "A100-80GB", 80*gib, func(n *placement.Node) { spot(1)(n); n.USDPerHour = 0 }), node("od", "A100-80GB", 80*gib, priced(0))}, "od spot",
			"best of 2 feasible nodes by expected time, no price known: 1h (no price known for aws/r/z/t/on-demand) vs 1h43m (no price known for aws/r/z/t/spot) on spot"},
		"of equals the one that takes less from the pods to come": {
			request(1, nil), []placement.Node{node("a", "A100-80GB", 80*gib, takes(0.5)), node("b", "A100-80GB", 80*gib, takes(0.04))}, "b a",
			"as cheap as any of 2 feasible nodes: $1.00, as on a, which would take 0.46 GPUs more from the pods to come"},
		"what is taken from them counts beside the cost": {
			// For an hour at $2 a GPU-hour: $1.00 + 0.1 × $2 is less than $0.90 + 0.5 × $2.
			worth(request(1, nil), 2), []placement.Node{node("a", "A100-80GB", 80*gib, both(priced(7.2), takes(0.5))), node("b", "A100-80GB", 80*gib, takes(0.1))}, "b a",
			"best of 2 feasible nodes: $1.00, and $0.90 on a, which would take 0.40 GPUs more from the pods to come"},
		"but a cost higher by more decides": {
			worth(request(1, nil), 2), []placement.Node{node("a", "A100-80GB", 80*gib, takes(0.5)), node("b", "A100-80GB", 80*gib, both(priced(16), takes(0.1)))}, "a b",
			"cheapest of 2 feasible nodes: $1.00 vs $2.00 on b"},
		"models of one rank are told apart by cost": {
			request(4, func(s *benchspec.Spec) { s.GPUModels, s.ModelRanks = []string{"H100-80GB", "A100-80GB"}, []int{0, 0} }), []placement.Node{h100, a100}, "a100 h100",
			"cheapest of 2 feasible nodes: $13.72 vs $27.52 on h100"},
		"of equals in all the first by name": {
			request(1, nil), []placement.Node{node("b", "A100-80GB", 80*gib, nil), node("a", "A100-80GB", 80*gib, nil)}, "a b",
			"as cheap as any of 2 feasible nodes: $1.00, as on b"},
		"nothing feasible": {request(1, nil), nil, "", "no feasible node"},
	} {
		t.Run(name, func(t *testing.T) {
			ranked := placement.Rank(test.request, test.feasible)
			names := make([]string, 0, len(ranked))
			for _, c := range ranked {
				names = append(names, c.Node.Name)
			}
			if got := strings.Join(names, " "); got != test.order {
				t.Errorf("order %q, want %q", got, test.order)
			}
			if got := placement.Explain(test.request, ranked, placement.Count(ranked)); got != test.reason {
				t.Errorf("reason %q, want %q", got, test.reason)
			}
		})
	}
}

func TestRankProperties(t *testing.T) {
	models := []string{"A100-80GB", "H100-80GB", "L4-24GB"}
	rapid.Check(t, func(t *rapid.T) {
		r := request(rapid.IntRange(0, 8).Draw(t, "gpus"), func(s *benchspec.Spec) {
			s.GPUModels = rapid.SampledFrom([][]string{nil, models, {"H100-80GB", "A100-80GB", "L4-24GB"}}).Draw(t, "models")
		})
		nodes := make([]placement.Node, rapid.IntRange(1, 12).Draw(t, "nodes"))
		for i := range nodes {
			nodes[i] = node("n"+strconv.Itoa(i), rapid.SampledFrom(models).Draw(t, "model"), 80*gib, func(n *placement.Node) {
				n.Hazard = risk.Hazard(rapid.SampledFrom([]float64{0, 0.01, 0.3, 5}).Draw(t, "hazard"))
				n.USDPerHour = rapid.SampledFrom([]float64{0, 4.6, 8, 8, 55.04}).Draw(t, "price")
				n.FreeGPUs = rapid.IntRange(0, 8).Draw(t, "free")
				n.Opportunity.GPUs = rapid.SampledFrom([]float64{0, 0.04, 1.2}).Draw(t, "opportunity")
			})
		}
		ranked := placement.Rank(r, nodes)
		shuffled := append([]placement.Node(nil), nodes...)
		rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "shuffle"), 0)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if diff := cmp.Diff(ranked, placement.Rank(r, shuffled)); diff != "" {
			t.Fatalf("the order of the input matters:\n%s", diff)
		}
		if len(ranked) != len(nodes) {
			t.Fatalf("%d nodes in, %d out", len(nodes), len(ranked))
		}
		first := ranked[0]
		for _, c := range ranked[1:] {
			if c.ModelRank < first.ModelRank {
				t.Fatalf("%s has a more preferred model than the first, %s", c.Node.Name, first.Node.Name)
			}
			if c.ModelRank == first.ModelRank && c.Estimate.PriceKnown() && c.Estimate.CostUSD < first.Estimate.CostUSD && c.Node.Opportunity.GPUs <= first.Node.Opportunity.GPUs {
				t.Fatalf("%s costs %v, less than the first, %v", c.Node.Name, c.Estimate.CostUSD, first.Estimate.CostUSD)
			}
		}
		// A lower price never costs a node its first place.
		if first.Estimate.PriceKnown() {
			cheaper := append([]placement.Node(nil), nodes...)
			for i := range cheaper {
				if cheaper[i].Name == first.Node.Name {
					cheaper[i].USDPerHour *= 0.9
				}
			}
			if again := placement.Rank(r, cheaper)[0].Node.Name; again != first.Node.Name {
				t.Fatalf("cheaper, %s loses its place to %s", first.Node.Name, again)
			}
		}
	})
}

func TestLostNamesTheFirstStepOfTheOrderThatTells(t *testing.T) {
	priced := func(usd float64) func(*placement.Node) { return func(n *placement.Node) { n.USDPerHour = usd } }
	chosen := node("b", "A100-80GB", 80*gib, nil) // $1 for an hour on one GPU
	for name, test := range map[string]struct {
		models []string
		other  placement.Node
		want   string
	}{
		"a later model, though cheaper": {[]string{"A100-80GB", "L4-24GB"}, node("c", "L4-24GB", 24*gib, priced(1)), "L4-24GB is less preferred than A100-80GB"},
		"no price":                      {nil, node("c", "A100-80GB", 80*gib, priced(0)), "its price is not known"},
		"$20 for 8 GPUs: $2.50":         {nil, node("c", "A100-80GB", 80*gib, priced(20)), "costs $1.50 more"},
		"a tenth of a cent":             {nil, node("c", "A100-80GB", 80*gib, priced(8.008)), "costs less than a cent more"},
		"pods to come":                  {nil, node("a", "A100-80GB", 80*gib, func(n *placement.Node) { n.Opportunity.GPUs = 0.3 }), "takes 0.30 GPUs more from the pods to come"},
		"pods to come, though cheaper":  {nil, node("a", "A100-80GB", 80*gib, func(n *placement.Node) { n.Opportunity.GPUs, n.USDPerHour = 0.3, 7 }), "takes 0.30 GPUs more from the pods to come, though $0.12 cheaper"},
		"a looser fit":                  {nil, node("a", "A100-80GB", 80*gib, func(n *placement.Node) { n.Opportunity.Leaning = 1 }), "fits the pod less tightly"},
		"only the name":                 {nil, node("c", "A100-80GB", 80*gib, nil), "nothing but the order of names"},
		"better than the chosen":        {nil, node("c", "A100-80GB", 80*gib, priced(4)), "nothing: it ranks before the chosen node"},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(1, func(s *benchspec.Spec) { s.GPUModels = test.models })
			r.Assumptions.GPUHourUSD = 1
			ranked := placement.Rank(r, []placement.Node{chosen, test.other})
			if ranked[0].Node.Name != chosen.Name {
				ranked[0], ranked[1] = ranked[1], ranked[0]
			}
			if got := placement.Lost(r, ranked[0], ranked[1]); got != test.want {
				t.Errorf("lost by %q, want %q", got, test.want)
			}
		})
	}
}

func FuzzCheckAndRank(f *testing.F) {
	f.Add(1, int64(80), 0.1, 8.0, 8, 4, 3600.0)
	f.Add(0, int64(0), 0.0, 0.0, 0, 0, 0.0)
	f.Add(8, int64(-1), 1e300, 1e300, -8, 1<<40, 1e9)
	f.Fuzz(func(t *testing.T, gpus int, memory int64, hazard, price float64, total, free int, seconds float64) {
		if !(hazard >= 0 && hazard <= 60 && price >= 0 && price <= 10_000 && seconds >= 0 && seconds <= 8760*3600) || gpus < 0 {
			t.Skip("outside of what the readers of annotations and books let through")
		}
		n := node("n", "A100-80GB", memory, func(n *placement.Node) {
			spot(risk.Hazard(hazard))(n)
			n.USDPerHour, n.TotalGPUs, n.FreeGPUs = price, total, free
		})
		r := request(gpus, func(s *benchspec.Spec) { s.ExpectedDuration = time.Duration(seconds * float64(time.Second)) })
		if refusal := placement.Check(r, n); refusal != nil {
			if refusal.Detail == "" || refusal.Reason == "" {
				t.Errorf("a refusal without reason: %+v", refusal)
			}
			return
		}
		e := placement.Reckon(r, n)
		for name, v := range map[string]float64{"risk": e.Risk, "hours": e.Hours, "USD/h": e.USDPerHour, "cost": e.CostUSD, "on-demand cost": e.OnDemandCostUSD} {
			if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
				t.Errorf("%s of an accepted node is %v", name, v)
			}
		}
	})
}

func TestTheRiskOfANodeFollowsFromItsAgeWhereThatIsKnown(t *testing.T) {
	// Per hour: 0.4 in the first hour of a machine's life, 0.1 after it.
	ages := risk.ByAge{0.4, 0.4, 0.1, 0.1, 0.1}
	spot := func(age time.Duration) placement.Node {
		return node("n", "A100-80GB", 80*gib, func(n *placement.Node) { n.Ages, n.Age, n.Hazard = &ages, age, 9 })
	}
	run := request(1, func(s *benchspec.Spec) { s.ExpectedDuration = 2 * time.Hour })
	for age, cumulative := range map[time.Duration]float64{
		0:                0.5,  // 1 h × 0.4 + 1 h × 0.1
		30 * time.Minute: 0.35, // 0.5 h × 0.4 + 1.5 h × 0.1
		3 * time.Hour:    0.2,  // 2 h × 0.1
	} {
		want := 1 - math.Exp(-cumulative)
		if got := placement.Reckon(run, spot(age)).Risk; math.Abs(got-want) > 1e-12 {
			t.Errorf("risk over 2 h of a node of age %s: %v, want 1-exp(-%v) = %v", age, got, cumulative, want)
		}
	}
	limit := 0.2 // between the risks of an old node (0.18) and a new one (0.39)
	run.Spec.MaxInterruptionRisk = &limit
	if placement.Check(run, spot(3*time.Hour)) != nil || placement.Check(run, spot(0)) == nil {
		t.Error("a limit of 0.2 over 2 h takes a new node or refuses one that has lived for 3 h")
	}
}
