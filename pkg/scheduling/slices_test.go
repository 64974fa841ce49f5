// SPDX-License-Identifier: Apache-2.0

package scheduling_test

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/spotbench/spotbench/pkg/scheduling"
)

// partPod asks for parts of GPUs by their resources, in pairs of name and number,
// under annotations given without their prefix.
func partPod(name string, annotations map[string]string, resources ...string) *v1.Pod {
	pod := benchPod(name, 0, annotations)
	asked := v1.ResourceList{}
	for i := 0; i < len(resources); i += 2 {
		asked[v1.ResourceName(resources[i])] = resource.MustParse(resources[i+1])
	}
	pod.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: asked, Limits: asked}
	return pod
}

// withSlices divides cards of a node by MIG under the strategy "mixed", into slices
// given as pairs of profile and number.
func withSlices(n *v1.Node, whole int, slices ...string) *v1.Node {
	n.Labels["nvidia.com/mig.strategy"] = "mixed"
	n.Status.Allocatable["nvidia.com/gpu"] = *resource.NewQuantity(int64(whole), resource.DecimalSI)
	for i := 0; i < len(slices); i += 2 {
		name := "nvidia.com/mig-" + slices[i]
		n.Labels[name+".product"] = n.Labels["nvidia.com/gpu.product"] + "-MIG-" + slices[i]
		n.Labels[name+".count"], n.Labels[name+".replicas"] = slices[i+1], "1"
		n.Status.Allocatable[v1.ResourceName(name)] = resource.MustParse(slices[i+1])
	}
	return n
}

// withShares shares each card of a node among so many pods, under a name of its own.
func withShares(n *v1.Node, replicas int) *v1.Node {
	cards := n.Status.Allocatable["nvidia.com/gpu"]
	n.Labels["nvidia.com/gpu.replicas"], n.Labels["nvidia.com/gpu.sharing-strategy"] = strconv.Itoa(replicas), "time-slicing"
	n.Status.Allocatable["nvidia.com/gpu.shared"] = *resource.NewQuantity(cards.Value()*int64(replicas), resource.DecimalSI)
	delete(n.Status.Allocatable, "nvidia.com/gpu")
	return n
}

// parts are nodes with GPUs in every form.
func parts() []*v1.Node {
	return []*v1.Node{
		withSlices(gpuNode("a100-mixed", "NVIDIA-A100-SXM4-80GB", 81920, 8, "p4de.24xlarge", "spot", "us-east-1a"), 4, "1g.10gb", "14", "3g.40gb", "4"),
		withSlices(gpuNode("h100-mixed", "NVIDIA-H100-80GB-HBM3", 81559, 8, "p5.48xlarge", "spot", "us-east-1b"), 0, "1g.10gb", "56"),
		withShares(gpuNode("l4-shared", "NVIDIA-L4", 23034, 4, "g6.12xlarge", "spot", "us-east-1c"), 4),
		gpuNode("a100-od", "NVIDIA-A100-SXM4-80GB", 81920, 8, "p4de.24xlarge", "on-demand", "us-east-1d"),
		gpuNode("system-0", "", 0, 0, "m7i.2xlarge", "on-demand", "us-east-1a"),
	}
}

func TestSlicesAndSharesObeyTheAnnotationsOrAreRefusedWithAReason(t *testing.T) {
	const refused = scheduling.ErrReasonPrefix
	byName := map[string]*v1.Node{}
	for _, n := range parts() {
		byName[n.Name] = n
	}
	old := withSlices(gpuNode("old", "NVIDIA-A100-SXM4-80GB", 81920, 8, "p4de.24xlarge", "spot", "us-east-1a"), 4, "1g.10gb", "14")
	old.Labels["nvidia.com/mig-1g.10gb.count"] = "7"
	two := withSlices(gpuNode("two", "NVIDIA-A100-SXM4-80GB", 81920, 4, "", "spot", "us-east-1a"), 0, "1g.10gb", "56")
	bare := withSlices(gpuNode("bare", "", 0, 0, "", "spot", "us-east-1a"), 0, "1g.10gb", "7")
	bare.Labels = nil
	single := gpuNode("single", "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", 9728, 56, "p4de.24xlarge", "spot", "us-east-1a")
	single.Labels["nvidia.com/mig.strategy"] = "single"
	timeSliced := withSlices(gpuNode("time-sliced", "NVIDIA-A100-SXM4-80GB", 81920, 1, "", "spot", "us-east-1a"), 0, "1g.10gb", "14")
	timeSliced.Labels["nvidia.com/mig-1g.10gb.replicas"], timeSliced.Labels["nvidia.com/mig-1g.10gb.count"] = "2", "7"
	timeSliced.Labels["nvidia.com/mig-1g.10gb.product"] += "-SHARED"
	for _, n := range []*v1.Node{old, two, bare, single, timeSliced} {
		byName[n.Name] = n
	}
	slice := func(annotations map[string]string) *v1.Pod {
		return partPod("p", annotations, "nvidia.com/mig-1g.10gb", "1")
	}
	share := func(annotations map[string]string) *v1.Pod {
		return partPod("p", annotations, "nvidia.com/gpu.shared", "1")
	}
	for name, test := range map[string]struct {
		pod     *v1.Pod
		node    string
		verdict string
	}{
		"a slice, no wish":                              {slice(nil), "a100-mixed", ""},
		"a slice of the card that was asked for":        {slice(map[string]string{"gpu-model": "A100-80GB"}), "a100-mixed", ""},
		"a slice of the second card that was asked for": {slice(map[string]string{"gpu-model": "H100-80GB, A100-80GB"}), "a100-mixed", ""},
		"the slice that was asked for":                  {slice(map[string]string{"gpu-model": "A100-80GB-MIG-1g.10gb"}), "a100-mixed", ""},
		"a slice of another card":                       {slice(map[string]string{"gpu-model": "H100-80GB"}), "a100-mixed", refused + "A100-80GB-MIG-1g.10gb, wanted H100-80GB"},
		"another slice than gpu-model says":             {slice(map[string]string{"gpu-model": "A100-80GB-MIG-2g.20gb"}), "a100-mixed", refused + "A100-80GB-MIG-1g.10gb, wanted A100-80GB-MIG-2g.20gb"},
		"a slice's memory is its profile's":             {slice(map[string]string{"gpu-memory": "10Gi"}), "a100-mixed", ""},
		"and not the card's":                            {slice(map[string]string{"gpu-memory": "80Gi"}), "a100-mixed", refused + "A100-80GB-MIG-1g.10gb with 10 GiB per slice, wanted 80 GiB"},
		"capacity of a slice":                           {slice(map[string]string{"capacity": "on-demand"}), "a100-mixed", refused + "spot capacity, wanted on-demand"},
		"risk of a slice":                               {slice(map[string]string{"max-interruption-risk": "0.10", "expected-duration": "45m"}), "h100-mixed", refused + "interruption risk 0.16 over 45m, limit 0.10"},
		"deadline of a slice":                           {slice(map[string]string{"deadline": "2020-01-01T00:00:00Z"}), "a100-mixed", refused + "no time left, deadline was 2020-01-01T00:00:00Z"},
		"a slice may be isolated on its node":           {slice(map[string]string{"isolation": "node"}), "a100-mixed", ""},
		"but not one that is shared":                    {slice(map[string]string{"isolation": "node"}), "time-sliced", refused + "nvidia.com/mig-1g.10gb that pods share, wanted isolation"},
		"no slices at all":                              {slice(nil), "system-0", refused + "no GPUs, wanted 1"},
		"cards without slices":                          {slice(nil), "a100-od", refused + "no nvidia.com/mig-1g.10gb, wanted 1"},
		"slices of another profile":                     {partPod("p", nil, "nvidia.com/mig-3g.40gb", "1"), "h100-mixed", refused + "no nvidia.com/mig-3g.40gb, wanted 1"},
		"slices under the strategy single":              {slice(nil), "single", refused + "no nvidia.com/mig-1g.10gb, wanted 1"},
		"slices that labels do not count":               {slice(nil), "old", refused + "GPUs that cannot be used: it offers 14 nvidia.com/mig-1g.10gb, but label nvidia.com/mig-1g.10gb.count says 7: its labels are old"},
		"slices of two models":                          {slice(nil), "two", refused + "GPUs that cannot be used: it offers more slices and GPUs than the 4 cards of label nvidia.com/gpu.count hold: GPU Feature Discovery counts those of one model only, or its labels are old"},
		"slices without any label, no wish":             {slice(map[string]string{"gpu-memory": "10Gi"}), "bare", ""},
		"slices without any label, of a card":           {slice(map[string]string{"gpu-model": "A100-80GB"}), "bare", refused + "GPUs without a label nvidia.com/gpu.product, wanted A100-80GB"},
		"a whole card on a node with slices":            {benchPod("p", 1, map[string]string{"gpu-model": "A100-80GB", "gpu-memory": "80Gi"}), "a100-mixed", ""},
		"a share, no wish":                              {share(nil), "l4-shared", ""},
		"a share of the card that was asked for":        {share(map[string]string{"gpu-model": "L4", "gpu-memory": "24Gi"}), "l4-shared", ""},
		"a share of another card":                       {share(map[string]string{"gpu-model": "H100-80GB"}), "l4-shared", refused + "L4-24GB, wanted H100-80GB"},
		"a share of a card with too little memory":      {share(map[string]string{"gpu-memory": "40Gi"}), "l4-shared", refused + "L4-24GB with 24 GiB per GPU, wanted 40 GiB"},
		"a share cannot be isolated":                    {share(map[string]string{"isolation": "node"}), "l4-shared", refused + "nvidia.com/gpu.shared that pods share, wanted isolation"},
		"whole cards only":                              {share(nil), "a100-od", refused + "no nvidia.com/gpu.shared, wanted 1"},
		"a card and a slice":                            {partPod("p", nil, "nvidia.com/gpu", "1", "nvidia.com/mig-1g.10gb", "1"), "a100-mixed", "the pod asks for several kinds of GPUs, nvidia.com/gpu and nvidia.com/mig-1g.10gb; leave one of them in resources.limits"},
		"slices of two profiles":                        {partPod("p", nil, "nvidia.com/mig-1g.10gb", "1", "nvidia.com/mig-3g.40gb", "1"), "a100-mixed", "the pod asks for several kinds of GPUs, nvidia.com/mig-1g.10gb and nvidia.com/mig-3g.40gb; leave one of them in resources.limits"},
		"a slice of no profile":                         {partPod("p", nil, "nvidia.com/mig-small", "1"), "a100-mixed", "the pod asks for nvidia.com/mig-small, which names no MIG profile; write one such as nvidia.com/mig-1g.10gb"},
		"memory named, but a resource that is no GPU's": {partPod("p", map[string]string{"gpu-memory": "10Gi"}, "nvidia.com/rdma", "1"), "a100-mixed", scheduling.ErrReasonNoGPUsAsked},
	} {
		t.Run(name, func(t *testing.T) {
			if got := verdict(t, test.pod, byName[test.node]); got != test.verdict {
				t.Errorf("verdict %q, want %q", got, test.verdict)
			}
		})
	}
}

func TestSlicesAndSharesArePlacedAtTheirPartOfTheNodesPrice(t *testing.T) {
	c := startCluster(t, parts()...)
	// p4de.24xlarge costs $9.6064675 on spot, p5.48xlarge $26.4192: an A100's seventh is
	// the cheaper. 1 of 7 compute slices of 1 of 8 cards.
	c.create(partPod("seventh", map[string]string{"gpu-memory": "10Gi", "expected-duration": "1h", "checkpoint-path": "/c"}, "nvidia.com/mig-1g.10gb", "1"))
	p := c.placed("seventh", "a100-mixed")
	if want := 9.6064675 / 56; math.Abs(p.USDPerHour-want) > 1e-9 || math.Abs(p.OnDemandCostUSD-27.44705/56) > 1e-9 {
		t.Errorf("a seventh costs $%v an hour, want %v; on demand $%v", p.USDPerHour, want, p.OnDemandCostUSD)
	}
	if p.GPUModel != "A100-80GB-MIG-1g.10gb" || p.GPUCount != 1 || p.Resource != "nvidia.com/mig-1g.10gb" || !strings.HasPrefix(p.Reason, "cheapest of 2 feasible nodes: $0.17 vs $") {
		t.Errorf("placement %+v", p)
	}
	want := map[string]string{
		"l4-shared": "has no nvidia.com/mig-1g.10gb, wanted 1 with 10 GiB each",
		"a100-od":   "has no nvidia.com/mig-1g.10gb, wanted 1 with 10 GiB each",
		"system-0":  "has no GPUs, wanted 1 with 10 GiB each",
	}
	if diff := cmp.Diff(want, p.Refused); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	// Two of three sevenths, of 8 cards.
	c.create(partPod("halves", nil, "nvidia.com/mig-3g.40gb", "2"))
	if p, want := c.placed("halves", "a100-mixed"), 9.6064675*2*3/56; math.Abs(p.USDPerHour-want) > 1e-9 || p.GPUCount != 2 {
		t.Errorf("two of 3g cost $%v an hour, want %v: %+v", p.USDPerHour, want, p)
	}
	// The preferred card's slice, whatever it costs.
	c.create(partPod("preferred", map[string]string{"gpu-model": "H100-80GB, A100-80GB"}, "nvidia.com/mig-1g.10gb", "1"))
	if p := c.placed("preferred", "h100-mixed"); !strings.HasPrefix(p.Reason, "has H100-80GB-MIG-1g.10gb, the most preferred model among 2 feasible nodes") {
		t.Errorf("reason %q", p.Reason)
	}
	// One of four shares of one of 4 cards of g6.12xlarge.
	c.create(partPod("share", map[string]string{"gpu-model": "L4"}, "nvidia.com/gpu.shared", "1"))
	share := c.placed("share", "l4-shared")
	c.create(partPod("shares", map[string]string{"gpu-model": "L4"}, "nvidia.com/gpu.shared", "16"))
	c.refused("shares", "1 Insufficient nvidia.com/gpu.shared", "3 node(s) have no nvidia.com/gpu.shared, wanted L4-24GB", "1 node(s) have no GPUs, wanted L4-24GB")
	if share.GPUModel != "L4-24GB" || share.Resource != "nvidia.com/gpu.shared" || share.USDPerHour == 0 || math.Abs(share.OnDemandUSDPerHour-4.6016/16) > 1e-9 {
		t.Errorf("placement %+v", share)
	}
	// A whole card beside slices is one of eight, though four are whole.
	c.create(benchPod("card", 1, map[string]string{"gpu-model": "A100-80GB", "capacity": "spot"}))
	if p := c.placed("card", "a100-mixed"); math.Abs(p.USDPerHour-9.6064675/8) > 1e-9 || p.Resource != "" || p.GPUModel != "A100-80GB" {
		t.Errorf("placement %+v", p)
	}

	for name, test := range map[string]struct {
		metric, model string
		want          float64
	}{
		"14 sevenths, one taken":   {"spotbench_scheduler_gpus_free", "A100-80GB-MIG-1g.10gb", 13},
		"4 of 3g, two taken":       {"spotbench_scheduler_gpus_free", "A100-80GB-MIG-3g.40gb", 2},
		"16 shares, one taken":     {"spotbench_scheduler_gpus_free", "L4-24GB-SHARED", 15},
		"4 and 8 cards, one taken": {"spotbench_scheduler_gpus_free", "A100-80GB", 11},
	} {
		t.Run(name, func(t *testing.T) {
			if got := metric(t, test.metric, map[string]string{"gpu_model": test.model}); got != test.want {
				t.Errorf("%s of %s is %v, want %v", test.metric, test.model, got, test.want)
			}
		})
	}
}

func TestPodsOnPartsOfGPUsAreNeighbours(t *testing.T) {
	c := startCluster(t, parts()[:1]...)
	c.create(partPod("slice", nil, "nvidia.com/mig-1g.10gb", "1"))
	c.placed("slice", "a100-mixed")
	c.create(benchPod("alone", 1, map[string]string{"isolation": "node"}))
	c.refused("alone", "1 node(s) have other pods on their GPUs, wanted isolation")
	if err := c.client.CoreV1().Pods("default").Delete(c.ctx, "slice", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.placed("alone", "a100-mixed")
	c.create(partPod("next", nil, "nvidia.com/mig-1g.10gb", "1"))
	c.refused("next", "1 node(s) have a pod that is isolated on its GPUs")
}

func TestASliceWaitsForSpotAsLongAsTheDeadlineAllows(t *testing.T) {
	spot := withSlices(gpuNode("spot", "NVIDIA-A100-SXM4-80GB", 81920, 8, "p4de.24xlarge", "spot", "us-east-1a"), 7, "7g.80gb", "1")
	od := withSlices(gpuNode("od", "NVIDIA-A100-SXM4-80GB", 81920, 8, "p4de.24xlarge", "on-demand", "us-east-1a"), 7, "7g.80gb", "1")
	c := startCluster(t, spot, od)
	in := func(hours int) map[string]string {
		return map[string]string{"deadline": time.Now().Add(time.Duration(hours) * time.Hour).UTC().Format("2006-01-02T15:04:05Z"), "expected-duration": "1h"}
	}
	c.create(partPod("first", in(10), "nvidia.com/mig-7g.80gb", "1"))
	c.placed("first", "spot")
	c.create(partPod("second", in(10), "nvidia.com/mig-7g.80gb", "1"))
	c.refused("second", "1 node(s) have on-demand capacity; the pod waits for spot until", "1 Insufficient nvidia.com/mig-7g.80gb")
}

func TestAPodThatWaitsForASliceIsWokenByItsKindAlone(t *testing.T) {
	plugin, _ := newPlugin(t, fake.NewClientset(), nil, reference())
	registered, err := plugin.EventsToRegister(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	whole := gpuNode("n", "NVIDIA-A100-SXM4-80GB", 81920, 8, "p4de.24xlarge", "spot", "us-east-1a")
	sevenths, thirds := withSlices(whole.DeepCopy(), 7, "1g.10gb", "7"), withSlices(whole.DeepCopy(), 7, "3g.40gb", "2")
	pod := partPod("p", map[string]string{"gpu-model": "A100-80GB"}, "nvidia.com/mig-1g.10gb", "1")
	asksOther := partPod("p", map[string]string{"gpu-model": "A100-80GB"}, "nvidia.com/mig-3g.40gb", "1")
	for name, test := range map[string]struct {
		resource fwk.EventResource
		old, new any
		want     fwk.QueueingHint
	}{
		"a card is cut into its slices":   {fwk.Node, whole, sevenths, fwk.Queue},
		"a card is cut into other slices": {fwk.Node, whole, thirds, fwk.QueueSkip},
		"its slices are there already":    {fwk.Node, sevenths, sevenths, fwk.QueueSkip},
		"the pod asks for another slice":  {fwk.Pod, pod, asksOther, fwk.Queue},
	} {
		t.Run(name, func(t *testing.T) {
			for _, e := range registered {
				if e.Event.Resource != test.resource {
					continue
				}
				if got, err := e.QueueingHintFn(klog.FromContext(t.Context()), pod, test.old, test.new); err != nil || got != test.want {
					t.Errorf("hint %v (%v), want %v", got, err, test.want)
				}
			}
		})
	}
}
