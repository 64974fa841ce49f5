// SPDX-License-Identifier: Apache-2.0

package snapshot_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/packing"
	"github.com/spotbench/spotbench/pkg/placement/snapshot"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func quantities(pairs ...string) v1.ResourceList {
	out := v1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[v1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

// node has eight GPUs of a model for a price per hour.
func node(name, model, capacity string, usd, hazard float64) snapshot.Node {
	m, _ := gpu.Lookup(model)
	return snapshot.Node{
		Name:               name,
		GPU:                &snapshot.GPU{Model: m.Name, Product: model, MemoryBytes: m.MemoryBytes, Count: 8},
		Pool:               snapshot.Pool{Provider: "aws", Region: "us-east-1", Zone: "us-east-1a", InstanceType: "t-" + m.Name, CapacityType: capacity},
		TotalGPUs:          8,
		USDPerHour:         usd,
		OnDemandUSDPerHour: 2 * usd,
		HazardPerHour:      hazard,
		Labels:             map[string]string{"zone": "a"},
		Taints:             []v1.Taint{{Key: "nvidia.com/gpu", Value: "present", Effect: v1.TaintEffectNoSchedule}},
		Allocatable:        quantities("cpu", "96", "memory", "1000Gi", "pods", "110"),
		Requested:          quantities("cpu", "1", "memory", "1Gi", "pods", "3"),
	}
}

func reference() snapshot.Snapshot {
	return snapshot.Snapshot{
		Time: noon,
		Assumptions: snapshot.AssumptionsOf(placement.Assumptions{
			ExpectedDuration: time.Hour, CheckpointCost: 10 * time.Second, RestartCost: 3 * time.Minute,
			DeadlineMargin: 15 * time.Minute, NoticeSaves: 0.9,
		}),
		Nodes: []snapshot.Node{
			node("h100", "H100-80GB", gpu.Spot, 26, 0.2),
			node("a100", "A100-80GB", gpu.Spot, 10, 0.01),
			node("a100-od", "A100-80GB", gpu.OnDemand, 27, 0),
			node("l4", "L4-24GB", gpu.Spot, 2, 0.2),
		},
	}
}

// pod asks for GPUs under annotations given without their prefix, in pairs.
func pod(name string, gpus int, annotations ...string) snapshot.Pod {
	p := snapshot.Pod{
		Namespace: "bench", Name: name, UID: "uid-" + name, SchedulerName: "spotbench", GPUs: gpus,
		Requests:    quantities("cpu", "4"),
		Tolerations: []v1.Toleration{{Key: "nvidia.com/gpu", Operator: v1.TolerationOpExists}},
		Annotations: map[string]string{},
	}
	for i := 0; i < len(annotations); i += 2 {
		p.Annotations[benchspec.Prefix+annotations[i]] = annotations[i+1]
	}
	return p
}

func refusals(d snapshot.Decision) map[string]string {
	out := map[string]string{}
	for _, r := range d.Refused {
		out[r.Node] = string(r.Reason) + ": " + r.Detail
	}
	return out
}

func TestADecisionRanksTheNodesThatWouldDoAndSaysWhatKeepsTheOthers(t *testing.T) {
	d := reference().Decide(pod("p", 1, "gpu-memory", "80Gi", "max-interruption-risk", "0.1"))
	// An hour on one of eight GPUs at $10 against $27; the hazard of 0.01 adds under 1 %.
	if d.Node != "a100" || !strings.HasPrefix(d.Reason, "cheapest of 2 feasible nodes: $1.26 vs $3.38 on a100-od") {
		t.Errorf("on %q: %s", d.Node, d.Reason)
	}
	if len(d.Candidates) != 2 || d.Candidates[1].Node != "a100-od" || d.Candidates[1].Lost != "costs $2.12 more" {
		t.Errorf("candidates %+v", d.Candidates)
	}
	want := map[string]string{
		"h100": "InterruptionRisk: interruption risk 0.18 over 1h, limit 0.10",
		"l4":   "GPUMemory: L4-24GB with 24 GiB per GPU, wanted 80 GiB",
	}
	if diff := cmp.Diff(want, refusals(d)); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
}

func TestAPodThatCannotBeReadIsRefusedWhateverTheNodes(t *testing.T) {
	for name, c := range map[string]struct {
		pod  snapshot.Pod
		want string
	}{
		"a malformed annotation":  {pod("p", 1, "capacity", "cheap"), `the pod's annotations are malformed: annotation spotbench.dev/capacity: "cheap"`},
		"a model without any GPU": {pod("p", 0, "gpu-model", "L4"), "asks for no nvidia.com/gpu"},
	} {
		t.Run(name, func(t *testing.T) {
			d := reference().Decide(c.pod)
			if d.Feasible() || !strings.Contains(d.Reason, c.want) || len(d.Candidates)+len(d.Refused) > 0 {
				t.Errorf("decided %+v, want %q and no nodes", d, c.want)
			}
		})
	}
}

func TestWhatKubeSchedulersOwnPluginsRefuseIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*snapshot.Node, *snapshot.Pod)
		want   string
	}{
		"a taint": {func(_ *snapshot.Node, p *snapshot.Pod) { p.Tolerations = nil },
			"Taint: taint nvidia.com/gpu=present:NoSchedule, which the pod does not tolerate"},
		"a cordon": {func(n *snapshot.Node, _ *snapshot.Pod) { n.Unschedulable = true }, "Cordoned: been cordoned"},
		"a node selector": {func(_ *snapshot.Node, p *snapshot.Pod) { p.NodeSelector = map[string]string{"zone": "b"} },
			"NodeAffinity: labels other than the pod's node selector or affinity asks for"},
		"an affinity": {func(_ *snapshot.Node, p *snapshot.Pod) {
			p.NodeAffinity = &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{MatchExpressions: []v1.NodeSelectorRequirement{{Key: "zone", Operator: v1.NodeSelectorOpNotIn, Values: []string{"a"}}}}}}
		}, "NodeAffinity: labels other than the pod's node selector or affinity asks for"},
		"CPU": {func(_ *snapshot.Node, p *snapshot.Pod) { p.Requests = quantities("cpu", "95500m") },
			"Resources: 95 of 96 cpu free, wanted 95500m"},
		"a resource the node does not have": {func(_ *snapshot.Node, p *snapshot.Pod) { p.Requests = quantities("rdma/hca", "1") },
			"Resources: 0 of 0 rdma/hca free, wanted 1"},
		"the number of pods": {func(n *snapshot.Node, _ *snapshot.Pod) { n.Requested = quantities("pods", "110") },
			"Resources: 0 of 110 pods free, wanted 1"},
	} {
		t.Run(name, func(t *testing.T) {
			s, p := reference(), pod("p", 1)
			s.Nodes = s.Nodes[:1]
			if d := s.Decide(p); d.Node != "h100" {
				t.Fatalf("before the change: %+v", d)
			}
			c.change(&s.Nodes[0], &p)
			if diff := cmp.Diff(map[string]string{"h100": c.want}, refusals(s.Decide(p))); diff != "" {
				t.Errorf("refused (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAPodIsNotItsOwnNeighbour(t *testing.T) {
	s, p := reference(), pod("p", 8, "isolation", "node")
	s = s.Place(p, "a100")
	if d := s.Decide(pod("next", 1, "gpu-model", "A100-80GB", "capacity", "spot")); d.Feasible() || refusals(d)["a100"] != "IsolatedPod: a pod that is isolated on its GPUs" {
		t.Errorf("beside it: %+v", d)
	}
	placed, on, ok := s.Find("bench", "p")
	if !ok || on != "a100" {
		t.Fatalf("the pod is on %q, %v", on, ok)
	}
	if d := s.Decide(placed); d.Candidates[0].Node != s.Decide(p).Candidates[0].Node || len(refusals(d)) != 0 {
		t.Errorf("decided again: %+v", d)
	}
}

func TestAPodThatWaitsForSpotTakesOnDemandFromItsLatestStart(t *testing.T) {
	// Two hours of work, five left: on demand just makes it from 14:45 with the margin.
	s, p := reference(), pod("p", 8, "gpu-model", "A100-80GB", "expected-duration", "2h", "deadline", "2026-11-23T17:00:00Z")
	s = s.Place(pod("other", 1, "expected-duration", "4h"), "a100")
	want := map[string]string{
		"a100":    "FreeGPUs: 7 free GPUs of 8, wanted 8",
		"a100-od": "WaitsForSpot: on-demand capacity; the pod waits for spot until 2026-11-23T14:45:00Z, from when on demand just makes the deadline 2026-11-23T17:00:00Z",
		"h100":    "GPUModel: H100-80GB, wanted A100-80GB", "l4": "GPUModel: L4-24GB, wanted A100-80GB",
	}
	if diff := cmp.Diff(want, refusals(s.Decide(p))); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	if d := s.At(noon.Add(165 * time.Minute)).Decide(p); d.Node != "a100-od" || d.InTime == nil || *d.InTime != 1 {
		t.Errorf("at 14:45: %q in time %v, %v, want a100-od for certain", d.Node, d.InTime, refusals(d))
	}
	if d := s.At(noon.Add(4 * time.Hour)).Decide(pod("q", 8, "gpu-model", "A100-80GB", "capacity", "spot")); d.Node != "a100" {
		t.Errorf("once the other pod has ended: %q, %v", d.Node, refusals(d))
	}
}

func TestAPodOfTheAPIIsReadWithWhatIsNotLookedAt(t *testing.T) {
	started := metav1.NewTime(noon)
	api := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "bench", Name: "p", UID: "u", Annotations: map[string]string{
			benchspec.AnnotationExpectedDuration: "45m", "other.example/secret": "no",
		}},
		Spec: v1.PodSpec{
			NodeName: "a100", SchedulerName: "spotbench",
			Containers: []v1.Container{{
				Resources: v1.ResourceRequirements{Requests: quantities("cpu", "4", gpu.ResourceName, "2")},
				Ports:     []v1.ContainerPort{{HostPort: 80}},
			}},
			Volumes: []v1.Volume{{VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}},
		},
		Status: v1.PodStatus{StartTime: &started, Conditions: []v1.PodCondition{
			{Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: v1.PodReasonUnschedulable, Message: "0/4 nodes are available"}}},
	}
	want := snapshot.Pod{
		Namespace: "bench", Name: "p", UID: "u", SchedulerName: "spotbench", GPUs: 2, Requests: quantities("cpu", "4"),
		Annotations: map[string]string{benchspec.AnnotationExpectedDuration: "45m"},
		Unchecked:   []string{"volumes", "ports of the host"},
		Refused:     "0/4 nodes are available",
		Started:     noon, ExpectedEnd: noon.Add(45 * time.Minute),
	}
	if diff := cmp.Diff(want, snapshot.PodOf(api)); diff != "" {
		t.Errorf("the pod (-want +got):\n%s", diff)
	}
}

func encode(t interface{ Fatal(...any) }, s snapshot.Snapshot) []byte {
	var out bytes.Buffer
	if err := s.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestADocumentReadAgainDecidesTheSame(t *testing.T) {
	s := reference()
	s.Nodes[1].HazardByAge, s.Nodes[1].Age.Duration = []float64{0.3, 0.1, 0.05, 1.0 / 3, 0.01}, 90*time.Minute+time.Nanosecond
	s = s.Place(pod("other", 3, "expected-duration", "25m", "isolation", "none"), "a100")
	s.Pending = []snapshot.Pod{pod("p", 2, "gpu-model", "A100-80GB, H100-80GB"), pod("a", 1)}
	s.Packing = &packing.State{Weight: 1.25, Seen: 3, RepriceAt: 4, Classes: []packing.ClassState{
		{Models: []string{"H100-80GB"}, GPUs: 2, Slots: 100, Cores: 1.0 / 3, Count: 3.5, Pending: 1, Discount: 0.1}}}
	again, err := snapshot.Read(encode(t, s))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Pending {
		if diff := cmp.Diff(s.Decide(p), again.Decide(p)); diff != "" {
			t.Errorf("%s decided (-before +after):\n%s", p.Key(), diff)
		}
	}
	if !bytes.Equal(encode(t, s), encode(t, again)) {
		t.Error("written again it differs")
	}
}

func TestAWrongDocumentIsRefusedWithTheFieldItsValueAndARightOne(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*snapshot.Snapshot)
		want   []string
	}{
		"no time":            {func(s *snapshot.Snapshot) { s.Time = time.Time{} }, []string{"time is missing"}},
		"a duration":         {func(s *snapshot.Snapshot) { s.Assumptions.RestartCost.Duration = -1 }, []string{"assumptions.restartCost is -1ns", "45m"}},
		"a probability":      {func(s *snapshot.Snapshot) { s.Assumptions.NoticeSaves = 1.5 }, []string{"assumptions.noticeSaves is 1.5", "from 0 to 1"}},
		"a node twice":       {func(s *snapshot.Snapshot) { s.Nodes[1].Name = "h100" }, []string{"node h100", "twice"}},
		"a node without any": {func(s *snapshot.Snapshot) { s.Nodes[1].Name = "" }, []string{"nodes[0]: name is missing"}},
		"a hazard":           {func(s *snapshot.Snapshot) { s.Nodes[0].HazardPerHour = -1 }, []string{"node h100: hazardPerHour is -1"}},
		"hazards by age":     {func(s *snapshot.Snapshot) { s.Nodes[0].HazardByAge = []float64{1} }, []string{"hazardByAge has 1 figures", "5"}},
		"a capacity type":    {func(s *snapshot.Snapshot) { s.Nodes[0].Pool.CapacityType = "cheap" }, []string{`pool.capacityType is "cheap"`, `"spot"`}},
		"a pod's GPUs":       {func(s *snapshot.Snapshot) { s.Pending = []snapshot.Pod{pod("p", -1)} }, []string{"pod bench/p: gpus is -1"}},
		"a pod twice": {func(s *snapshot.Snapshot) { s.Pending = []snapshot.Pod{pod("p", 1), pod("p", 1)} },
			[]string{"pod bench/p: it is listed twice"}},
		"a request": {func(s *snapshot.Snapshot) {
			p := pod("p", 1)
			p.Requests = quantities("cpu", "-1")
			s.Pending = []snapshot.Pod{p}
		}, []string{"pod bench/p: requests[cpu] is -1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := reference()
			c.change(&s)
			_, err := snapshot.Read(encode(t, s))
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
	for name, c := range map[string]struct{ doc, want string }{
		"no JSON":         {"time: now", "not JSON"},
		"another version": {`{"apiVersion":"spotbench.dev/v9","kind":"PlacementSnapshot"}`, `"spotbench.dev/v9"`},
		"a field unknown": {`{"apiVersion":"spotbench.dev/v1alpha1","kind":"PlacementSnapshot","colour":1}`, `"colour"`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := snapshot.Read([]byte(c.doc)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %s", err, c.want)
			}
		})
	}
}

func TestTheOrderOfADocumentChangesNoDecision(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := reference()
		for i := range rapid.IntRange(0, 6).Draw(t, "pods") {
			on := rapid.SampledFrom(s.Nodes).Draw(t, "on").Name
			s = s.Place(pod(fmt.Sprint("on-", i), rapid.IntRange(1, 3).Draw(t, "gpus")), on)
		}
		p := pod("p", rapid.IntRange(0, 8).Draw(t, "wants"))
		want := s.Decide(p)
		s.Nodes = rapid.Permutation(s.Nodes).Draw(t, "nodes")
		for i := range s.Nodes {
			if len(s.Nodes[i].Pods) > 1 {
				s.Nodes[i].Pods = rapid.Permutation(s.Nodes[i].Pods).Draw(t, "of a node")
			}
		}
		if diff := cmp.Diff(want, s.Decide(p)); diff != "" {
			t.Errorf("decided (-in order +otherwise):\n%s", diff)
		}
	})
}

func FuzzRead(f *testing.F) {
	s := reference()
	s.Nodes[0].HazardByAge = []float64{1, 2, 3, 4, 5}
	s = s.Place(pod("other", 3, "expected-duration", "25m"), "a100")
	s.Pending = []snapshot.Pod{pod("p", 2, "gpu-model", "A100-80GB", "deadline", "2026-11-23T17:00:00Z")}
	f.Add(encode(f, s))
	f.Add([]byte(`{"apiVersion":"spotbench.dev/v1alpha1","kind":"PlacementSnapshot","time":"2026-01-01T00:00:00Z","assumptions":{"expectedDuration":"1h"},"nodes":[{"name":"n","pool":{"capacityType":"spot"},"totalGPUs":1}],"pending":[{"namespace":"a","name":"b","gpus":1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := snapshot.Read(data)
		if err != nil {
			return
		}
		once := encode(t, s)
		again, err := snapshot.Read(once)
		if err != nil {
			t.Fatalf("what was written does not read: %v", err)
		}
		if twice := encode(t, again); !bytes.Equal(once, twice) {
			t.Errorf("written twice it differs:\n%s\n%s", once, twice)
		}
		for _, p := range s.Pending {
			if diff := cmp.Diff(s.Decide(p), again.Decide(p)); diff != "" {
				t.Errorf("%s decided (-before +after):\n%s", p.Key(), diff)
			}
		}
	})
}
