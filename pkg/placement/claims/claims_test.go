// SPDX-License-Identifier: Apache-2.0

package claims_test

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/claims"
)

const (
	typeIs = "device.attributes['gpu.nvidia.com'].type == "
	a100   = "NVIDIA A100-SXM4-80GB"
	h100   = "NVIDIA H100 80GB HBM3"
	l4     = "NVIDIA L4"
)

func card(name, product string) claims.Device {
	return claims.Device{
		Pool: "node", Name: name,
		Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
			"type": {StringValue: ptr.To("gpu")}, "uuid": {StringValue: ptr.To("GPU-" + name)}, "productName": {StringValue: &product},
		},
		Capacity: map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{"memory": {Value: resource.MustParse("20Gi")}},
	}
}

func slice(name, parent, product, profile string) claims.Device {
	d := card(name, product)
	d.Attributes["type"] = resourceapi.DeviceAttribute{StringValue: ptr.To("mig")}
	d.Attributes["profile"] = resourceapi.DeviceAttribute{StringValue: &profile}
	d.Attributes["parentUUID"] = resourceapi.DeviceAttribute{StringValue: ptr.To("GPU-" + parent)}
	return d
}

func held(by string, d claims.Device) claims.Device {
	d.Claim = by
	return d
}

func ask(count int, selectors ...string) claims.Ask {
	return claims.Ask{Claim: "ns/c", Request: "r", Selectors: selectors, Count: count}
}

// wants is a pod's request with a list of models.
func wants(asks []claims.Ask, models ...string) placement.Request {
	spec, err := benchspec.Parse(nil)
	if err != nil {
		panic(err)
	}
	spec.GPUModels = models
	return placement.Request{Spec: spec, Resource: gpu.Resource{Claimed: true}, GPUs: claims.Count(asks)}
}

func TestAPodWithClaimsSeesWhatTheyMayBeGiven(t *testing.T) {
	whole, parts := typeIs+"'gpu'", typeIs+"'mig'"
	h := func(d claims.Device) claims.Device { return held("ns/other", d) }
	for name, test := range map[string]struct {
		devices     []claims.Device
		asks        []claims.Ask
		models      []string
		model       string // "" says that there is none
		total, free int
		share       float64
		refusal     string // "" accepts
	}{
		"cards of one model": {
			[]claims.Device{card("a", a100), card("b", a100)}, []claims.Ask{ask(1, whole)}, []string{"A100-80GB"},
			"A100-80GB", 2, 2, 1. / 2, ""},
		"another model than wanted": {
			[]claims.Device{card("a", l4)}, []claims.Ask{ask(1, whole)}, []string{"A100-80GB"},
			"L4-24GB", 1, 1, 1, "has L4-24GB, wanted A100-80GB"},
		"no devices": {
			nil, []claims.Ask{ask(1, whole)}, nil, "", 0, 0, 0, "has no GPUs in a ResourceSlice, wanted 1"},
		"no devices that are selected": {
			[]claims.Device{card("a", a100)}, []claims.Ask{ask(1, parts)}, nil, "", 0, 0, 0, "has no GPUs that the pod's claims select, wanted 1"},
		"two models, one not wanted": {
			[]claims.Device{card("a", a100), card("b", l4)}, []claims.Ask{ask(1, whole)}, []string{"A100-80GB"},
			"A100-80GB", 2, 2, 1. / 2, "has GPUs that cannot be used: the pod's claims may be given A100-80GB or L4-24GB there; select one in the claim, as `kubectl spotbench render` does"},
		"the one that is not wanted is another's": {
			[]claims.Device{card("a", a100), h(card("b", l4))}, []claims.Ask{ask(1, whole)}, []string{"A100-80GB"},
			"A100-80GB", 2, 1, 1. / 2, ""},
		"the claim selects the one that is wanted": {
			[]claims.Device{card("a", a100), card("b", l4)}, []claims.Ask{ask(1, whole, "device.attributes['gpu.nvidia.com'].productName == '"+a100+"'")}, []string{"A100-80GB"},
			"A100-80GB", 1, 1, 1. / 2, ""},
		"two models, both wanted, one card: it counts as the less preferred": {
			[]claims.Device{card("a", a100), card("b", h100)}, []claims.Ask{ask(1, whole)}, []string{"H100-80GB", "A100-80GB"},
			"A100-80GB", 2, 2, 1. / 2, ""},
		"two models, both wanted, two cards": {
			[]claims.Device{card("a", a100), card("b", h100)}, []claims.Ask{ask(2, whole)}, []string{"H100-80GB", "A100-80GB"},
			"A100-80GB", 2, 2, 1. / 2, "has GPUs that cannot be used: the pod's claims may be given A100-80GB or H100-80GB there; select one in the claim, as `kubectl spotbench render` does"},
		"a card or a slice of it": {
			[]claims.Device{card("a", a100), slice("s", "b", a100, "1g.10gb")}, []claims.Ask{ask(1)}, []string{"A100-80GB"},
			"A100-80GB", 2, 2, 1. / 2, "has GPUs that cannot be used: the pod's claims may be given A100-80GB or A100-80GB-MIG-1g.10gb there; select one in the claim, as `kubectl spotbench render` does"},
		"a slice of one of two cards": {
			[]claims.Device{card("a", a100), slice("s", "b", a100, "3g.40gb"), slice("t", "b", a100, "3g.40gb")}, []claims.Ask{ask(1, parts)}, []string{"A100-80GB"},
			"A100-80GB-MIG-3g.40gb", 2, 2, 3. / (7 * 2), ""},
		"a slice that its card would become": {
			[]claims.Device{card("a", a100), slice("s", "a", a100, "1g.10gb+me")}, []claims.Ask{ask(1, parts)}, nil,
			"A100-80GB-MIG-1g.10gb.me", 1, 1, 1. / 7, ""},
		"more than are free": {
			[]claims.Device{card("a", a100), h(card("b", a100))}, []claims.Ask{ask(2, whole)}, nil, "A100-80GB", 2, 1, 1. / 2, ""},
		"two requests for the same card": {
			[]claims.Device{card("a", a100)}, []claims.Ask{ask(1, whole), ask(1, whole)}, nil, "A100-80GB", 1, 1, 1, ""},
		"a claim that has its devices": {
			[]claims.Device{held("ns/c", card("a", a100)), card("b", l4)}, []claims.Ask{{Claim: "ns/c", Count: 1, Allocated: true}}, []string{"A100-80GB"},
			"A100-80GB", 1, 1, 1. / 2, ""},
		"a claim that has them elsewhere": {
			[]claims.Device{card("a", a100)}, []claims.Ask{{Claim: "ns/c", Count: 1, Allocated: true}}, nil, "", 0, 0, 0, "has no GPUs that the pod's claims select, wanted 1"},
		"a selector that is no CEL selects nothing": {
			[]claims.Device{card("a", a100)}, []claims.Ask{ask(1, "device.(")}, nil, "", 0, 0, 0, "has no GPUs that the pod's claims select, wanted 1"},
		"a selector of what is not there selects nothing": {
			[]claims.Device{card("a", a100)}, []claims.Ask{ask(1, "device.attributes['gpu.nvidia.com'].nosuch == 'x'")}, nil, "", 0, 0, 0, "has no GPUs that the pod's claims select, wanted 1"},
		"a card that the catalogue lacks": {
			[]claims.Device{card("a", "NVIDIA GB10")}, []claims.Ask{ask(1, whole)}, []string{"NVIDIA-GB10"}, "NVIDIA-GB10", 1, 1, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := wants(test.asks, test.models...)
			n := claims.See(r, placement.Node{Pool: gpu.Pool{CapacityType: gpu.OnDemand}}, test.asks, test.devices)
			if n.GPUs.Model != test.model || n.TotalGPUs != test.total || n.FreeGPUs != test.free || math.Abs(n.GPUs.Share-test.share) > 1e-12 {
				t.Errorf("seen %+v", n)
			}
			refusal := placement.CheckGPUs(r, n)
			if (refusal == nil) != (test.refusal == "") || refusal != nil && refusal.String() != test.refusal {
				t.Errorf("refused %v, want %q", refusal, test.refusal)
			}
		})
	}
}

func TestAsksAreTheRequestsForGPUs(t *testing.T) {
	class := func(name string) *resourceapi.DeviceClass {
		selectors := map[string]string{"gpu.nvidia.com": typeIs + "'gpu'", "h100": "device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].productName.contains('H100')", "nic": "device.driver == 'nic'"}
		if selectors[name] == "" {
			return nil
		}
		return &resourceapi.DeviceClass{Spec: resourceapi.DeviceClassSpec{Selectors: []resourceapi.DeviceSelector{{CEL: &resourceapi.CELDeviceSelector{Expression: selectors[name]}}}}}
	}
	exactly := func(className string, change func(*resourceapi.ExactDeviceRequest)) resourceapi.DeviceRequest {
		r := resourceapi.DeviceRequest{Name: "r", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: className, AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: 2}}
		if change != nil {
			change(r.Exactly)
		}
		return r
	}
	for name, test := range map[string]struct {
		request resourceapi.DeviceRequest
		want    []claims.Ask
		problem string
	}{
		"the driver's own class":          {exactly("gpu.nvidia.com", nil), []claims.Ask{{Claim: "ns/c", Request: "r", Selectors: []string{typeIs + "'gpu'"}, Count: 2}}, ""},
		"a class of the cluster's":        {exactly("h100", nil), []claims.Ask{{Claim: "ns/c", Request: "r", Selectors: []string{class("h100").Spec.Selectors[0].CEL.Expression}, Count: 2}}, ""},
		"a class that is not there":       {exactly("mig.gpu.nvidia.com", nil), []claims.Ask{{Claim: "ns/c", Request: "r", Count: 2}}, ""},
		"a network card":                  {exactly("nic", nil), nil, ""},
		"watching without taking":         {exactly("gpu.nvidia.com", func(r *resourceapi.ExactDeviceRequest) { r.AdminAccess = ptr.To(true) }), nil, ""},
		"all of a node":                   {exactly("gpu.nvidia.com", func(r *resourceapi.ExactDeviceRequest) { r.AllocationMode = resourceapi.DeviceAllocationModeAll }), nil, "claim ns/c, request r: it asks for all GPUs of a node"},
		"all network cards":               {exactly("nic", func(r *resourceapi.ExactDeviceRequest) { r.AllocationMode = resourceapi.DeviceAllocationModeAll }), nil, ""},
		"one GPU or another":              {resourceapi.DeviceRequest{Name: "r", FirstAvailable: []resourceapi.DeviceSubRequest{{DeviceClassName: "h100"}}}, nil, "claim ns/c, request r: it has alternatives"},
		"one network card or another":     {resourceapi.DeviceRequest{Name: "r", FirstAvailable: []resourceapi.DeviceSubRequest{{DeviceClassName: "nic"}}}, nil, ""},
		"a kind of request to come":       {resourceapi.DeviceRequest{Name: "r"}, nil, ""},
		"a count that defaulting set not": {exactly("h100", func(r *resourceapi.ExactDeviceRequest) { r.Count = 0 }), []claims.Ask{{Claim: "ns/c", Request: "r", Selectors: []string{class("h100").Spec.Selectors[0].CEL.Expression}, Count: 1}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c"}, Spec: resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{Requests: []resourceapi.DeviceRequest{test.request}}}}
			got, err := claims.Asks(claim, class)
			if diff := cmp.Diff(test.want, got); diff != "" || (err == nil) != (test.problem == "") || err != nil && !strings.Contains(err.Error(), test.problem) {
				t.Errorf("asks (-want +got):\n%s%v", diff, err)
			}
		})
	}
}

func TestDevicesAreThoseOfEachPoolsNewestGeneration(t *testing.T) {
	of := func(driver, pool string, generation int64, names ...string) *resourceapi.ResourceSlice {
		s := &resourceapi.ResourceSlice{Spec: resourceapi.ResourceSliceSpec{Driver: driver, Pool: resourceapi.ResourcePool{Name: pool, Generation: generation}}}
		for _, name := range names {
			s.Spec.Devices = append(s.Spec.Devices, resourceapi.Device{Name: name})
		}
		return s
	}
	var got []string
	for _, d := range claims.Devices([]*resourceapi.ResourceSlice{
		of("gpu.nvidia.com", "q", 1, "z"), of("gpu.nvidia.com", "p", 2, "b"), of("gpu.nvidia.com", "p", 1, "old"), of("gpu.nvidia.com", "p", 2, "a"), of("nic", "p", 3, "eth0"),
	}) {
		got = append(got, d.Pool+"/"+d.Name)
	}
	if diff := cmp.Diff([]string{"p/a", "p/b", "q/z"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestSlicesOfACardThatIsListedTooDoNotCountTwice(t *testing.T) {
	var got []string
	for _, d := range claims.WithoutParts([]claims.Device{card("a", a100), slice("of-a", "a", a100, "1g.10gb"), slice("of-b", "b", a100, "1g.10gb")}) {
		got = append(got, d.Name)
	}
	if diff := cmp.Diff([]string{"a", "of-b"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestNoDeviceIsGivenTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var devices []claims.Device
		for i := range rapid.IntRange(0, 8).Draw(t, "devices") {
			devices = append(devices, card(strconv.Itoa(i), rapid.SampledFrom([]string{a100, l4}).Draw(t, "product")))
		}
		taken := map[string]string{}
		for i := range rapid.IntRange(1, 10).Draw(t, "claims") {
			product := rapid.SampledFrom([]string{"A100", "L4", "NVIDIA"}).Draw(t, "selected")
			a := claims.Ask{Claim: "ns/c" + strconv.Itoa(i), Request: "r", Count: rapid.IntRange(1, 3).Draw(t, "count"), Selectors: []string{"device.attributes['gpu.nvidia.com'].productName.contains('" + product + "')"}}
			r := wants([]claims.Ask{a})
			n := claims.See(r, placement.Node{}, []claims.Ask{a}, devices)
			free := 0
			for _, d := range devices {
				if d.Claim == "" && strings.Contains(*d.Attributes["productName"].StringValue, product) {
					free++
				}
			}
			if room := n.FreeGPUs >= a.Count; room != (free >= a.Count) {
				t.Fatalf("%d of %d are free and %d wanted: room %v, %+v", free, len(devices), a.Count, room, n)
			}
			if n.FreeGPUs < a.Count {
				continue
			}
			devices = claims.Take([]claims.Ask{a}, devices)
			has := 0
			for _, d := range devices {
				if before := taken[d.Name]; before != "" && before != d.Claim {
					t.Fatalf("%s was of %s and is of %q", d.Name, before, d.Claim)
				}
				if taken[d.Name] = d.Claim; d.Claim == a.Claim {
					has++
				}
			}
			if has != a.Count {
				t.Fatalf("%s has %d, wanted %d", a.Claim, has, a.Count)
			}
			if rapid.Bool().Draw(t, "ends") {
				devices = claims.Release(devices, a.Claim)
				for name, by := range taken {
					if by == a.Claim {
						taken[name] = ""
					}
				}
			}
		}
	})
}
