// SPDX-License-Identifier: Apache-2.0

package scheduling_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"

	"github.com/spotbench/spotbench/pkg/placement/claims"
	"github.com/spotbench/spotbench/pkg/placement/snapshot"
)

// What NVIDIA's driver publishes of a card or a slice, as far as anything here reads it.
func device(name, kind, product, profile, parent, memory string) resourceapi.Device {
	d := resourceapi.Device{
		Name: name,
		Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
			"type": {StringValue: &kind}, "uuid": {StringValue: ptr.To("GPU-" + name)}, "productName": {StringValue: &product},
		},
		Capacity: map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{"memory": {Value: resource.MustParse(memory)}},
	}
	if kind == "mig" {
		d.Attributes["profile"] = resourceapi.DeviceAttribute{StringValue: &profile}
		d.Attributes["parentUUID"] = resourceapi.DeviceAttribute{StringValue: ptr.To("GPU-" + parent)}
	}
	return d
}

// cards are so many whole ones of a product.
func cards(name string, n int, product, memory string) (out []resourceapi.Device) {
	for i := range n {
		out = append(out, device(fmt.Sprintf("%s-%d", name, i), "gpu", product, "", "", memory))
	}
	return out
}

// sevenths are a card cut in seven.
func sevenths(card, product string) (out []resourceapi.Device) {
	for i := range 7 {
		out = append(out, device(fmt.Sprintf("%s-mig-%d", card, i), "mig", product, "1g.10gb", card, "9728Mi"))
	}
	return out
}

func sliceOf(node string, devices ...resourceapi.Device) *resourceapi.ResourceSlice {
	return &resourceapi.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: node + "-gpu.nvidia.com"},
		Spec: resourceapi.ResourceSliceSpec{
			Driver: "gpu.nvidia.com", NodeName: &node,
			Pool:    resourceapi.ResourcePool{Name: node, Generation: 1, ResourceSliceCount: 1},
			Devices: devices,
		},
	}
}

func classOf(name, kind string) *resourceapi.DeviceClass {
	return &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourceapi.DeviceClassSpec{Selectors: []resourceapi.DeviceSelector{
		{CEL: &resourceapi.CELDeviceSelector{Expression: "device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == '" + kind + "'"}},
	}}}
}

const (
	productA100 = "NVIDIA A100-SXM4-80GB"
	productH100 = "NVIDIA H100 80GB HBM3"
	productL4   = "NVIDIA L4"
)

// driven is a node of NVIDIA's DRA driver: without device plugin or GPU Feature
// Discovery, so that only its ResourceSlice tells of GPUs.
func driven(name, instanceType, capacity, zone string) *v1.Node {
	return gpuNode(name, "", 0, 0, instanceType, capacity, zone)
}

// drivenNodes are nodes of every kind with their ResourceSlices.
func drivenNodes() ([]*v1.Node, []*resourceapi.ResourceSlice) {
	return []*v1.Node{
			driven("a100", "p4de.24xlarge", "spot", "us-east-1a"),
			driven("h100", "p5.48xlarge", "spot", "us-east-1b"),
			driven("mig", "p4de.24xlarge", "spot", "us-east-1a"),
			driven("mixed", "two-models", "on-demand", "us-east-1a"),
			driven("system-0", "m7i.2xlarge", "on-demand", "us-east-1a"),
		}, []*resourceapi.ResourceSlice{
			sliceOf("a100", cards("gpu", 8, productA100, "81920Mi")...),
			sliceOf("h100", cards("gpu", 8, productH100, "81559Mi")...),
			sliceOf("mig", append(sevenths("card-a", productA100), cards("gpu", 1, productA100, "81920Mi")...)...),
			sliceOf("mixed", append(cards("l4", 2, productL4, "23034Mi"), cards("a100", 1, productA100, "81920Mi")...)...),
		}
}

// publish makes device classes, ResourceSlices and claims known.
func publish(t *testing.T, ctx context.Context, client kubernetes.Interface, published []*resourceapi.ResourceSlice) {
	t.Helper()
	api := client.ResourceV1()
	for name, kind := range map[string]string{"gpu.nvidia.com": "gpu", "mig.nvidia.com": "mig"} {
		if _, err := api.DeviceClasses().Create(ctx, classOf(name, kind), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range published {
		if _, err := api.ResourceSlices().Create(ctx, s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// request of so many devices of a class, with selectors.
func request(name, class string, count int64, selectors ...string) resourceapi.DeviceRequest {
	r := resourceapi.DeviceRequest{Name: name, Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: class, AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: count}}
	for _, s := range selectors {
		r.Exactly.Selectors = append(r.Exactly.Selectors, resourceapi.DeviceSelector{CEL: &resourceapi.CELDeviceSelector{Expression: s}})
	}
	return r
}

func product(name string) string {
	return "device.attributes['gpu.nvidia.com'].productName == '" + name + "'"
}

// claim creates a claim with these requests.
func (c *cluster) claim(name string, requests ...resourceapi.DeviceRequest) {
	c.t.Helper()
	claim := &resourceapi.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{Requests: requests}},
	}
	if _, isFake := c.client.(*fake.Clientset); isFake {
		claim.ResourceVersion = "1" // the fake gives none, and the scheduler keeps nothing without one
	}
	if _, err := c.client.ResourceV1().ResourceClaims("default").Create(c.ctx, claim, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// claimPod has claims by their names.
func claimPod(name string, annotations map[string]string, names ...string) *v1.Pod {
	pod := benchPod(name, 0, annotations)
	for _, claim := range names {
		pod.Spec.ResourceClaims = append(pod.Spec.ResourceClaims, v1.PodResourceClaim{Name: claim, ResourceClaimName: &claim})
		pod.Spec.Containers[0].Resources.Claims = append(pod.Spec.Containers[0].Resources.Claims, v1.ResourceClaim{Name: claim})
	}
	return pod
}

// devicesOf are the devices that a claim was given.
func (c *cluster) devicesOf(claim string) (names []string) {
	c.t.Helper()
	got, err := c.client.ResourceV1().ResourceClaims("default").Get(c.ctx, claim, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	if got.Status.Allocation != nil {
		for _, r := range got.Status.Allocation.Devices.Results {
			names = append(names, r.Device)
		}
	}
	return names
}

// startDriven is a cluster on a real API server, which alone gives objects the versions
// that allocations are followed by.
func startDriven(t *testing.T, published ...*resourceapi.ResourceSlice) *cluster {
	t.Helper()
	nodes, _ := drivenNodes()
	c := startRealCluster(t, nodes...)
	publish(t, c.ctx, c.client, published)
	return &c.cluster
}

func TestDevicesOfClaimsObeyTheAnnotations(t *testing.T) {
	_, published := drivenNodes()
	c := startDriven(t, published...)
	for name, test := range map[string]struct {
		annotations map[string]string
		request     resourceapi.DeviceRequest
		node, model string
		usdPerHour  float64
	}{
		// Of a p4de.24xlarge with two cards one is half of it, of one with eight an eighth.
		"the cheapest with enough memory": {map[string]string{"gpu-memory": "80Gi", "capacity": "spot"}, request("gpu", "gpu.nvidia.com", 1), "a100", "A100-80GB", 9.6064675 / 8},
		"two of them":                     {map[string]string{"gpu-memory": "80Gi", "capacity": "spot"}, request("gpu", "gpu.nvidia.com", 2), "a100", "A100-80GB", 9.6064675 / 4},
		"the preferred model":             {map[string]string{"gpu-model": "H100-80GB, A100-80GB"}, request("gpu", "gpu.nvidia.com", 1), "h100", "H100-80GB", 26.4192 / 8},
		// A seventh of one of two cards.
		"a slice of the model":                 {map[string]string{"gpu-model": "A100-80GB", "gpu-memory": "10Gi"}, request("gpu", "mig.nvidia.com", 1), "mig", "A100-80GB-MIG-1g.10gb", 9.6064675 / 14},
		"the slice by its name":                {map[string]string{"gpu-model": "A100-80GB-MIG-1g.10gb"}, request("gpu", "mig.nvidia.com", 3), "mig", "A100-80GB-MIG-1g.10gb", 9.6064675 * 3 / 14},
		"one of two models of a node":          {map[string]string{"gpu-model": "L4"}, request("gpu", "gpu.nvidia.com", 1, product(productL4)), "mixed", "L4-24GB", 0},
		"either of two models, as it is given": {map[string]string{"capacity": "on-demand", "gpu-model": "L4 | A100-80GB"}, request("gpu", "gpu.nvidia.com", 1), "mixed", "L4-24GB", 0},
	} {
		t.Run(name, func(t *testing.T) {
			c, name := c.in(t), strings.ReplaceAll(strings.ToLower(strings.ReplaceAll(name, ",", "")), " ", "-")
			c.claim(name, test.request)
			c.create(claimPod(name, test.annotations, name))
			p := c.placed(name, test.node)
			if p.GPUModel != test.model || p.GPUCount != int(test.request.Exactly.Count) || p.Resource != "resourceclaims.resource.k8s.io" || math.Abs(p.USDPerHour-test.usdPerHour) > 1e-9 {
				t.Errorf("placement %+v", p)
			}
			if given := c.devicesOf(name); len(given) != p.GPUCount || test.node == "mixed" && !strings.HasPrefix(strings.ToLower(p.GPUModel), strings.Split(given[0], "-")[0]) {
				t.Errorf("the claim has %v, the placement says %d of %s", given, p.GPUCount, p.GPUModel)
			}
			if got := p.Refused["system-0"]; test.node != "system-0" && !strings.HasPrefix(got, "has no GPUs in a ResourceSlice, wanted ") {
				t.Errorf("a node without devices: %q", got)
			}
		})
	}
}

func TestDevicesOfClaimsAreRefusedWithAReason(t *testing.T) {
	_, published := drivenNodes()
	c := startDriven(t, published...)
	one := request("gpu", "gpu.nvidia.com", 1)
	all := request("gpu", "gpu.nvidia.com", 0)
	all.Exactly.AllocationMode = resourceapi.DeviceAllocationModeAll
	alternatives := resourceapi.DeviceRequest{Name: "gpu", FirstAvailable: []resourceapi.DeviceSubRequest{{Name: "a", DeviceClassName: "gpu.nvidia.com", Count: 1}, {Name: "b", DeviceClassName: "mig.nvidia.com", Count: 1}}}
	if _, err := c.client.ResourceV1().DeviceClasses().Create(c.ctx, &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "nic"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		annotations map[string]string
		request     resourceapi.DeviceRequest
		resources   []string
		want        []string
	}{
		"no-model":         {map[string]string{"gpu-model": "H200"}, one, nil, []string{"3 node(s) have A100-80GB, wanted H200-141GB", "1 node(s) have H100-80GB, wanted H200-141GB", "1 node(s) have no GPUs in a ResourceSlice, wanted H200-141GB"}},
		"little-memory":    {map[string]string{"gpu-memory": "141Gi"}, one, nil, []string{"3 node(s) have A100-80GB with 80 GiB per GPU, wanted 141 GiB"}},
		"slice-memory":     {map[string]string{"gpu-memory": "20Gi"}, request("gpu", "mig.nvidia.com", 1), nil, []string{"1 node(s) have A100-80GB-MIG-1g.10gb with 10 GiB per GPU, wanted 20 GiB", "3 node(s) have no GPUs that the pod's claims select, wanted 1 with 20 GiB each"}},
		"capacity":         {map[string]string{"capacity": "on-demand", "gpu-model": "H100-80GB"}, one, nil, []string{"1 node(s) have spot capacity, wanted on-demand"}},
		"risk":             {map[string]string{"gpu-model": "H100-80GB", "max-interruption-risk": "0.10", "expected-duration": "45m"}, one, nil, []string{"1 node(s) have interruption risk 0.16 over 45m, limit 0.10"}},
		"one-unwanted":     {map[string]string{"gpu-model": "A100-80GB", "capacity": "on-demand"}, one, nil, []string{"1 node(s) have GPUs that cannot be used: the pod's claims may be given A100-80GB or L4-24GB there; select one in the claim, as `kubectl spotbench render` does"}},
		"two-models":       {map[string]string{"capacity": "on-demand"}, request("gpu", "gpu.nvidia.com", 2), nil, []string{"the pod's claims may be given A100-80GB or L4-24GB there"}},
		"nothing-selected": {nil, request("gpu", "gpu.nvidia.com", 1, product("NVIDIA B200")), nil, []string{"4 node(s) have no GPUs that the pod's claims select, wanted 1"}},
		"everything":       {nil, all, nil, []string{"claim default/everything, request gpu: it asks for all GPUs of a node (allocationMode All), of which nobody can tell how many that are; ask for a count"}},
		"alternatives":     {nil, alternatives, nil, []string{"claim default/alternatives, request gpu: it has alternatives (firstAvailable)"}},
		"also-a-resource":  {nil, one, []string{"nvidia.com/gpu", "1"}, []string{"the pod asks for GPUs by nvidia.com/gpu and by resource claims; leave one of them"}},
		"no-gpus":          {map[string]string{"gpu-model": "L4"}, request("nic", "nic", 1, "device.driver == 'nic.example.com'"), nil, []string{"asks for no nvidia.com/gpu"}},
		"too-many":         {map[string]string{"gpu-model": "H100-80GB"}, request("gpu", "gpu.nvidia.com", 9), nil, []string{"1 cannot allocate all claims"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := c.in(t)
			c.claim(name, test.request)
			pod := claimPod(name, test.annotations, name)
			if len(test.resources) > 0 {
				more := partPod("", nil, test.resources...).Spec.Containers[0].Resources
				pod.Spec.Containers[0].Resources.Requests, pod.Spec.Containers[0].Resources.Limits = more.Requests, more.Limits
			}
			c.create(pod)
			c.refused(name, test.want...)
		})
	}
}

func TestAClaimThatHasItsDevicesBringsPodsToThem(t *testing.T) {
	_, published := drivenNodes()
	c := startDriven(t, published...)
	c.claim("shared", request("gpu", "gpu.nvidia.com", 1))
	c.create(claimPod("first", map[string]string{"gpu-model": "H100-80GB"}, "shared"))
	c.placed("first", "h100")
	c.create(claimPod("second", map[string]string{"gpu-memory": "80Gi"}, "shared"))
	if p := c.placed("second", "h100"); p.GPUModel != "H100-80GB" || !strings.HasPrefix(p.Refused["a100"], "has no GPUs that the pod's claims select") {
		t.Errorf("placement %+v", p)
	}
	if free := metric(t, "spotbench_scheduler_gpus_free", map[string]string{"gpu_model": "H100-80GB"}); free != 7 {
		t.Errorf("%v of eight H100 are free, one of which two pods have", free)
	}
	if free := metric(t, "spotbench_scheduler_gpus_free", map[string]string{"gpu_model": "A100-80GB-MIG-1g.10gb"}); free != 7 {
		t.Errorf("%v of seven slices are free", free)
	}
	c.create(claimPod("other", map[string]string{"gpu-model": "A100-80GB"}, "shared"))
	c.refused("other", "1 node(s) have H100-80GB, wanted A100-80GB")
	c.claim("own", request("gpu", "gpu.nvidia.com", 1))
	c.create(claimPod("alone", map[string]string{"gpu-model": "H100-80GB", "isolation": "node"}, "own"))
	c.refused("alone", "1 node(s) have other pods on their GPUs, wanted isolation")
}

func TestPodsWithClaimsAreWokenByDevices(t *testing.T) {
	_, published := drivenNodes()
	published[3].Spec.Devices = published[3].Spec.Devices[1:] // an L4 and an A100
	c := startDriven(t, published[3])
	c.claim("h100", request("gpu", "gpu.nvidia.com", 1))
	c.create(claimPod("h100", map[string]string{"gpu-model": "H100-80GB"}, "h100"))
	c.refused("h100", "4 node(s) have no GPUs in a ResourceSlice, wanted H100-80GB")
	c.claim("a100", request("gpu", "gpu.nvidia.com", 1))
	c.create(claimPod("a100", map[string]string{"gpu-model": "A100-80GB"}, "a100"))
	c.refused("a100", "the pod's claims may be given A100-80GB or L4-24GB there")

	// The driver of a node comes up.
	if _, err := c.client.ResourceV1().ResourceSlices().Create(c.ctx, published[1], metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.placed("h100", "h100")
	// Once the L4 is somebody's, the claim can be given nothing but the A100.
	c.claim("l4", request("gpu", "gpu.nvidia.com", 1, product(productL4)))
	c.create(claimPod("l4", map[string]string{"gpu-model": "L4"}, "l4"))
	c.placed("l4", "mixed")
	if p := c.placed("a100", "mixed"); p.GPUModel != "A100-80GB" || c.devicesOf("a100")[0] != "a100-0" {
		t.Errorf("placement %+v with %v", p, c.devicesOf("a100"))
	}
}

func TestAClaimMadeFromATemplateSelectsTheModelsOfItsPod(t *testing.T) {
	_, published := drivenNodes()
	c := startDriven(t, published...)
	// As kubectl spotbench render writes it into the template; the API server checks it.
	models := []string{"L4-24GB"}
	pod := benchPod("p", 0, map[string]string{"gpu-model": "L4"})
	pod.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "gpu", ResourceClaimTemplateName: ptr.To("template")}}
	c.create(pod)
	created := c.pod("p")
	claim := &resourceapi.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p-gpu", OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "Pod", Name: "p", UID: created.UID, Controller: ptr.To(true)}}},
		Spec: resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{Requests: []resourceapi.DeviceRequest{request("gpu", "gpu.nvidia.com", 1, claims.Selector(models))}}},
	}
	if _, err := c.client.ResourceV1().ResourceClaims("default").Create(c.ctx, claim, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// What the controller manager does with a pod that names a template.
	created.Status.ResourceClaimStatuses = []v1.PodResourceClaimStatus{{Name: "gpu", ResourceClaimName: ptr.To("p-gpu")}}
	if _, err := c.client.CoreV1().Pods("default").UpdateStatus(c.ctx, created, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if p := c.placed("p", "mixed"); p.GPUModel != "L4-24GB" || p.Refused["a100"] != "has no GPUs that the pod's claims select, wanted L4-24GB" {
		t.Errorf("placement %+v", p)
	}
}

// knowsDevices says whether the scheduler has heard of all that was published.
func knowsDevices(s snapshot.Snapshot, p snapshot.Pod) bool {
	nodes := 0
	for _, n := range s.Nodes {
		nodes += min(1, len(n.Devices))
	}
	return nodes == 4 && (len(p.Claims) > 0 && len(p.Claims[0].Selectors) > 0 || strings.Contains(p.ClaimsProblem, "allocationMode All"))
}

func TestASnapshotDecidesOnDevicesOfClaimsWhatTheSchedulerThenDoes(t *testing.T) {
	for name, test := range map[string]struct {
		annotations map[string]string
		request     resourceapi.DeviceRequest
		node        string
	}{
		"by memory":                {map[string]string{"gpu-memory": "80Gi", "expected-duration": "45m"}, request("gpu", "gpu.nvidia.com", 2), "a100"},
		"preferred models":         {map[string]string{"gpu-model": "H100-80GB, A100-80GB"}, request("gpu", "gpu.nvidia.com", 1), "h100"},
		"slices":                   {map[string]string{"gpu-model": "A100-80GB"}, request("gpu", "mig.nvidia.com", 3), "mig"},
		"one of a node's models":   {nil, request("gpu", "gpu.nvidia.com", 1, product(productL4)), "mixed"},
		"nothing that is selected": {nil, request("gpu", "gpu.nvidia.com", 1, product("NVIDIA B200")), ""},
		"everything":               {nil, resourceapi.DeviceRequest{Name: "gpu", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: "gpu.nvidia.com", AllocationMode: resourceapi.DeviceAllocationModeAll}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if raceDetector && test.node == "" {
				t.Skip("kube-scheduler 1.34 looks once more at a pod whose gate is gone after it has queued it; a refusal can be as quick")
			}
			nodes, published := drivenNodes()
			c, server := startObserved(t, nil, nodes...)
			publish(t, c.ctx, c.client, published)
			c.claim("claim", test.request)
			c.create(gated(claimPod("p", test.annotations, "claim")))
			s, p := takeWith(t, server, "p")
			for deadline := time.Now().Add(15 * time.Second); !knowsDevices(s, p); s, p = takeWith(t, server, "p") {
				if time.Now().After(deadline) {
					t.Fatalf("after 15s the scheduler knows %+v of the pod", p)
				}
			}
			d := s.Decide(p)
			if d.Node != test.node || len(p.Unchecked) > 0 && test.node != "" {
				t.Errorf("decided %+v, want %q", d, test.node)
			}
			c.release("p")
			if test.node == "" {
				for _, r := range d.Refused {
					c.refused("p", r.Detail)
				}
				if len(d.Refused) == 0 {
					c.refused("p", d.Reason)
				}
				return
			}
			placed := c.placed("p", d.Node)
			if placed.Reason != d.Reason || placed.USDPerHour != d.Candidates[0].USDPerHour || placed.GPUModel != d.Candidates[0].GPUModel {
				t.Errorf("the scheduler: %+v\nthe snapshot: %+v", placed, d)
			}
			for i, a := range placed.Alternatives {
				if got := d.Candidates[i+1]; got.Node != a.Node || got.Lost != a.Lost || got.ExpectedCostUSD != a.ExpectedCostUSD {
					t.Errorf("alternative %d is %+v, the snapshot's %+v", i, a, got)
				}
			}
			for _, r := range d.Refused {
				if got := placed.Refused[r.Node]; got != "has "+r.Detail {
					t.Errorf("%s: the scheduler says %q, the snapshot %q", r.Node, got, r.Detail)
				}
			}
			// A pod on its node is decided as if it were not.
			again := take(t, server)
			on, node, _ := again.Find("default", "p")
			if d := again.Decide(on); node != test.node || d.Node != test.node {
				t.Errorf("on %q, decided again for %q: %s", node, d.Node, d.Reason)
			}
		})
	}
}
