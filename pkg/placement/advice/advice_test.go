// SPDX-License-Identifier: Apache-2.0

package advice_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/advice"
	"github.com/spotbench/spotbench/pkg/placement/snapshot"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func node(name, model, capacity string, hazard float64) snapshot.Node {
	m, _ := gpu.Lookup(model)
	return snapshot.Node{
		Name:          name,
		GPU:           &snapshot.GPU{Model: m.Name, Product: model, MemoryBytes: m.MemoryBytes, Count: 8},
		Pool:          snapshot.Pool{Provider: "aws", Zone: "us-east-1a", InstanceType: "t-" + m.Name, CapacityType: capacity},
		TotalGPUs:     8,
		USDPerHour:    10,
		HazardPerHour: hazard,
		Labels:        map[string]string{"zone": "a"},
		Taints:        []v1.Taint{{Key: "nvidia.com/gpu", Value: "present", Effect: v1.TaintEffectNoSchedule}},
		Allocatable:   v1.ResourceList{"cpu": resource.MustParse("96"), "pods": resource.MustParse("110")},
		Requested:     v1.ResourceList{"cpu": resource.MustParse("1"), "pods": resource.MustParse("3")},
	}
}

func cluster(nodes ...snapshot.Node) snapshot.Snapshot {
	return snapshot.Snapshot{
		Time: noon,
		Assumptions: snapshot.AssumptionsOf(placement.Assumptions{
			ExpectedDuration: time.Hour, CheckpointCost: 10 * time.Second, RestartCost: 3 * time.Minute,
			DeadlineMargin: 15 * time.Minute, NoticeSaves: 0.9,
		}),
		Nodes: nodes,
	}
}

// pod asks for GPUs under annotations given without their prefix, in pairs.
func pod(name string, gpus int, annotations ...string) snapshot.Pod {
	p := snapshot.Pod{
		Namespace: "bench", Name: name, GPUs: gpus, Annotations: map[string]string{},
		Requests:    v1.ResourceList{"cpu": resource.MustParse("4")},
		Tolerations: []v1.Toleration{{Key: "nvidia.com/gpu", Operator: v1.TolerationOpExists}},
	}
	for i := 0; i < len(annotations); i += 2 {
		p.Annotations[benchspec.Prefix+annotations[i]] = annotations[i+1]
	}
	return p
}

// later is the snapshot when pods have not ended as expected.
func later(s snapshot.Snapshot, d time.Duration) snapshot.Snapshot {
	s.Time = s.Time.Add(d)
	return s
}

// texts are the ways by group.
func texts(t *testing.T, s snapshot.Snapshot, p snapshot.Pod) []string {
	t.Helper()
	groups, err := advice.For(s, p)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, g := range groups {
		line := []string{g.GPUModel + ":"}
		for _, w := range g.Ways {
			line = append(line, w.Text()+".")
		}
		out = append(out, strings.Join(line, " "))
	}
	return out
}

func TestWhatWouldGetAPodANode(t *testing.T) {
	a100, h100, l4 := node("a100", "A100-80GB", gpu.Spot, 0.01), node("h100", "H100-80GB", gpu.Spot, 0.229), node("l4", "L4-24GB", gpu.Spot, 0.2)
	onDemand := node("a100-od", "A100-80GB", gpu.OnDemand, 0)
	change := func(n snapshot.Node, f func(*snapshot.Node)) snapshot.Node { f(&n); return n }
	for name, c := range map[string]struct {
		s    snapshot.Snapshot
		pod  snapshot.Pod
		want []string
	}{
		"GPUs that are taken until a pod's expected end": {
			cluster(a100).Place(pod("first", 6, "expected-duration", "25m"), "a100"), pod("p", 8),
			[]string{"A100-80GB: free in about 25 min on a100, when bench/first ends. add an A100-80GB node of this pool."}},
		"the first of several pods that makes room": {
			cluster(a100).Place(pod("long", 4, "expected-duration", "3h"), "a100").Place(pod("short", 4, "expected-duration", "90m"), "a100"), pod("p", 2),
			[]string{"A100-80GB: free in about 1 h 30 min on a100, when bench/short ends. add an A100-80GB node of this pool."}},
		"two pods that end together": {
			cluster(a100).Place(pod("one", 4, "expected-duration", "1h"), "a100").Place(pod("two", 4, "expected-duration", "1h"), "a100"), pod("p", 8),
			[]string{"A100-80GB: free in about 1 h on a100, when bench/one, bench/two end. add an A100-80GB node of this pool."}},
		"a pod that does not say when it ends": {
			cluster(a100).Place(pod("first", 6), "a100"), pod("p", 8),
			[]string{"A100-80GB: free on a100 once bench/first ends; no end is known (annotation expected-duration). add an A100-80GB node of this pool."}},
		"a pod that should have ended": {
			later(cluster(a100).Place(pod("first", 6, "expected-duration", "25m"), "a100"), time.Hour), pod("p", 8),
			[]string{"A100-80GB: free on a100 once bench/first ends, which should have happened by now. add an A100-80GB node of this pool."}},
		// (exp(10·0.229)-1)/0.229·exp(0.229/20) = 39.2 h without checkpoints.
		"a run that starts over too often": {
			cluster(h100), pod("p", 1, "expected-duration", "10h", "deadline", "2026-11-24T00:00:00Z"),
			[]string{"H100-80GB: let it resume from checkpoints (annotation checkpoint-path), so that an interruption does not start it over. move the deadline to 2026-11-25T03:14:00Z."}},
		// 1-exp(-0.229·1) = 0.2047.
		"a limit on the risk": {
			cluster(h100), pod("p", 1, "max-interruption-risk", "0.10"),
			[]string{"H100-80GB: raise max-interruption-risk to 0.21."}},
		"a risk and no room": {
			cluster(h100).Place(pod("first", 8, "expected-duration", "25m"), "h100"), pod("p", 1, "max-interruption-risk", "0.1"),
			[]string{"H100-80GB: raise max-interruption-risk to 0.21, and free in about 25 min on h100, when bench/first ends."}},
		"a model that the cluster does not have": {
			cluster(l4), pod("p", 1, "gpu-model", "H100-80GB"),
			[]string{"L4-24GB: allow L4-24GB in gpu-model.", "H100-80GB: add an H100-80GB node: the cluster has none."}},
		"more memory than there is": {
			cluster(l4), pod("p", 1, "gpu-memory", "80Gi"), []string{"L4-24GB: lower gpu-memory to 24Gi."}},
		"another kind of capacity": {
			cluster(a100), pod("p", 1, "capacity", "on-demand"),
			[]string{"A100-80GB: set capacity to any, so that spot will do."}},
		// Two hours left of work, five to the deadline, a quarter of margin.
		"spot that is taken, and a deadline": {
			cluster(a100, onDemand).Place(pod("first", 8), "a100"), pod("p", 1, "expected-duration", "2h", "deadline", "2026-11-23T17:00:00Z"),
			[]string{
				"A100-80GB: wait for the deadline's on-demand fallback at 2026-11-23T14:45:00Z (in about 2 h 45 min). set capacity to on-demand, to start at once.",
				"A100-80GB: free on a100 once bench/first ends; no end is known (annotation expected-duration). add an A100-80GB node of this pool."}},
		"a deadline too early": {
			cluster(onDemand), pod("p", 1, "expected-duration", "2h", "deadline", "2026-11-23T13:00:00Z"),
			[]string{"A100-80GB: move the deadline to 2026-11-23T14:02:00Z."}},
		"more GPUs than a node has": {
			cluster(a100), pod("p", 16), []string{"A100-80GB: ask for at most 8 GPUs."}},
		"a neighbour of a pod that wants none": {
			cluster(a100).Place(pod("first", 1, "expected-duration", "10m"), "a100"), pod("p", 1, "isolation", "node"),
			[]string{"A100-80GB: free in about 10 min on a100, when bench/first ends. drop the isolation."}},
		"a notice": {
			cluster(change(a100, func(n *snapshot.Node) { n.Notice = "reclaim" })), pod("p", 1),
			[]string{"A100-80GB: add an A100-80GB node of this pool."}},
		"GPUs that cannot be used": {
			cluster(change(a100, func(n *snapshot.Node) {
				n.GPU = &snapshot.GPU{Model: "A100-80GB", Invalid: "its MIG configuration is invalid"}
			})), pod("p", 1),
			[]string{"A100-80GB:"}},
		"a taint": {
			cluster(change(a100, func(n *snapshot.Node) {
				n.Taints = []v1.Taint{{Key: "team", Value: "b", Effect: v1.TaintEffectNoSchedule}}
			})), pod("p", 1),
			[]string{"A100-80GB: tolerate the taint team=b:NoSchedule."}},
		"a cordon": {
			cluster(change(a100, func(n *snapshot.Node) { n.Unschedulable = true })), pod("p", 1),
			[]string{"A100-80GB: uncordon a100. add an A100-80GB node of this pool."}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, texts(t, c.s, c.pod)); diff != "" {
				t.Errorf("advice (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAPodWhoseAffinityRepeatsItsModelIsAdvisedToBeMadeAnew(t *testing.T) {
	p := pod("named", 1, "gpu-model", "H100-80GB")
	p.NodeAffinity = &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{}}
	for _, selector := range gpu.Selectors("H100-80GB") {
		var term v1.NodeSelectorTerm
		for _, r := range selector {
			term.MatchExpressions = append(term.MatchExpressions, v1.NodeSelectorRequirement{Key: r.Key, Operator: v1.NodeSelectorOperator(r.Operator), Values: r.Values})
		}
		p.NodeAffinity.NodeSelectorTerms = append(p.NodeAffinity.NodeSelectorTerms, term)
	}
	got := texts(t, cluster(node("a", "NVIDIA-L4", gpu.OnDemand, 0)), p)
	want := []string{"L4-24GB: allow L4-24GB in gpu-model, in a new pod: the node affinity of this one stays."}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("advice (-want +got):\n%s", diff)
	}
}

func TestAPodThatCannotBeReadGetsTheErrorAndNoAdvice(t *testing.T) {
	_, err := advice.For(cluster(node("n", "L4-24GB", gpu.Spot, 0)), pod("p", 1, "capacity", "cheap"))
	if err == nil || !strings.Contains(err.Error(), `"cheap"`) {
		t.Errorf("error %v", err)
	}
}

// anyCluster has nodes of all kinds, some of them taken.
func anyCluster(t *rapid.T) snapshot.Snapshot {
	var s snapshot.Snapshot
	for i := range rapid.IntRange(1, 5).Draw(t, "nodes") {
		n := node(fmt.Sprint("n", i), rapid.SampledFrom([]string{"A100-80GB", "H100-80GB", "L4-24GB"}).Draw(t, "model"),
			rapid.SampledFrom([]string{gpu.Spot, gpu.OnDemand}).Draw(t, "capacity"), 0)
		if n.Pool.CapacityType == gpu.Spot {
			n.HazardPerHour = rapid.Float64Range(0, 2).Draw(t, "hazard")
			if rapid.Bool().Draw(t, "by age") {
				n.HazardByAge = rapid.SliceOfN(rapid.Float64Range(0, 2), 5, 5).Draw(t, "hazards")
				n.Age.Duration = time.Duration(rapid.Int64Range(0, int64(48*time.Hour)).Draw(t, "age"))
			}
		}
		n.TotalGPUs = rapid.SampledFrom([]int{0, 1, 4, 8}).Draw(t, "GPUs")
		n.Unschedulable = rapid.IntRange(0, 9).Draw(t, "cordoned") == 0
		n.GPU.Shared = rapid.IntRange(0, 9).Draw(t, "shared") == 0
		if rapid.IntRange(0, 9).Draw(t, "notice") == 0 {
			n.Notice = "reclaim"
		}
		s.Nodes = append(s.Nodes, n)
	}
	s = cluster(s.Nodes...)
	for i := range rapid.IntRange(0, 12).Draw(t, "pods") {
		on := rapid.SampledFrom(s.Nodes).Draw(t, "on")
		p := pod(fmt.Sprint("on-", i), rapid.IntRange(1, 4).Draw(t, "takes"))
		some(t, p, "expected-duration", "25m", "50m", "3h")
		some(t, p, "isolation", "node")
		taken := 0
		for _, other := range on.Pods {
			taken += other.GPUs
		}
		if taken+p.GPUs <= on.TotalGPUs {
			s = s.Place(p, on.Name)
		}
	}
	// Some of the pods are late, and stay.
	s.Time = s.Time.Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "later")))
	return s
}

func anyPod(t *rapid.T) snapshot.Pod {
	p := pod("p", rapid.IntRange(1, 9).Draw(t, "wants"))
	some(t, p, "gpu-model", "A100-80GB", "H100-80GB, L4-24GB", "B200-180GB", "A100-80GB, H100-80GB")
	some(t, p, "gpu-memory", "80Gi", "24Gi")
	some(t, p, "capacity", "spot", "on-demand", "any")
	some(t, p, "max-interruption-risk", "0", "0.1", "0.5")
	some(t, p, "expected-duration", "20m", "3h", "100h")
	some(t, p, "deadline", "2026-11-23T11:00:00Z", "2026-11-23T15:00:00Z", "2026-11-24T12:00:00Z")
	some(t, p, "isolation", "node")
	if some(t, p, "checkpoint-path", "/checkpoints") {
		some(t, p, "checkpoint-interval", "10m")
	}
	if rapid.IntRange(0, 9).Draw(t, "untolerating") == 0 {
		p.Tolerations = nil
	}
	if rapid.IntRange(0, 9).Draw(t, "selective") == 0 {
		p.NodeSelector = map[string]string{"zone": "b"}
	}
	if rapid.IntRange(0, 9).Draw(t, "greedy") == 0 {
		p.Requests = v1.ResourceList{"cpu": resource.MustParse(rapid.SampledFrom([]string{"93", "200"}).Draw(t, "cpu"))}
	}
	return p
}

// some sets an annotation to one of values, or not.
func some(t *rapid.T, p snapshot.Pod, name string, values ...string) bool {
	value := rapid.SampledFrom(append([]string{"", ""}, values...)).Draw(t, name)
	if value != "" {
		p.Annotations[benchspec.Prefix+name] = value
	}
	return value != ""
}

func candidate(d snapshot.Decision, name string) bool {
	return slices.ContainsFunc(d.Candidates, func(c snapshot.Candidate) bool { return c.Node == name })
}

func TestWhatIsAdvisedReallyMakesTheNodeFeasible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, p := anyCluster(t), anyPod(t)
		groups, err := advice.For(s, p)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			for _, w := range g.Ways {
				if candidate(s.Decide(p), w.Node) {
					t.Errorf("%s is feasible, and yet advised to: %s", w.Node, w.Text())
				}
				changed, p := w.Apply(s, p)
				if d := changed.Decide(p); !candidate(d, w.Node) {
					t.Errorf("after %q %s is still refused: %+v", w.Text(), w.Node, d.Refused)
				}
			}
		}
	})
}

func TestNoLowerLimitAndNoEarlierTimeThanAdvisedWouldDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, p := anyCluster(t), anyPod(t)
		groups, err := advice.For(s, p)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			for _, w := range g.Ways {
				if len(w.Changes) != 1 {
					continue
				}
				switch c := w.Changes[0]; {
				case c.Annotation == benchspec.AnnotationMaxInterruptionRisk && c.Value != "1":
					var limit float64
					if _, err := fmt.Sscan(c.Value, &limit); err != nil {
						t.Fatal(err)
					}
					c.Value = fmt.Sprintf("%.2f", limit-0.01)
					s, p := c.Apply(s, p)
					if candidate(s.Decide(p), w.Node) {
						t.Errorf("%s would do at a limit of %s already", w.Node, c.Value)
					}
				case c.Kind == advice.WaitForPods && !c.At.IsZero():
					if candidate(s.At(c.At.Add(-time.Second)).Decide(p), w.Node) {
						t.Errorf("%s would do a second before %s already", w.Node, c.At)
					}
				}
			}
		}
	})
}

func TestTheOrderOfNodesChangesNoAdvice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, p := anyCluster(t), anyPod(t)
		want, err := advice.For(s, p)
		if err != nil {
			t.Fatal(err)
		}
		s.Nodes = rapid.Permutation(s.Nodes).Draw(t, "order")
		got, err := advice.For(s, p)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("advice (-in order +otherwise):\n%s", diff)
		}
	})
}
