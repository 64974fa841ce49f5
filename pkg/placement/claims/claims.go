// SPDX-License-Identifier: Apache-2.0

// Package claims reads what GPUs a pod asks for by ResourceClaims (dynamic resource
// allocation), and how such a pod finds a node: which of the devices that the node's
// ResourceSlices list its claims may be given.
//
// It is pure: no client, no clock, no I/O. Allocating stays with kube-scheduler's own
// plugin DynamicResources, which takes the first devices that fit. So a node is of use
// only where whatever that may take is what the pod's annotations ask for; which
// devices a claim may be given is decided by the same CEL.
//
// Attributes and capacities are those of NVIDIA's driver, gpu.nvidia.com: type ("gpu",
// "mig" or "vfio"), uuid, productName as NVML says it, for a slice profile and
// parentUUID, and the capacity memory in bytes (github.com/NVIDIA/k8s-dra-driver-gpu,
// cmd/gpu-kubelet-plugin/deviceinfo.go).
package claims

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/cel"

	"github.com/spotbench/spotbench/pkg/gpu"
)

// Driver is that of NVIDIA's GPUs. A request is for GPUs when its device class, or a
// selector of either, names it.
const Driver = "gpu.nvidia.com"

// Device is one that a node has.
type Device struct {
	Pool       string                                                    `json:"pool"`
	Name       string                                                    `json:"name"`
	Attributes map[resourceapi.QualifiedName]resourceapi.DeviceAttribute `json:"attributes,omitempty"`
	Capacity   map[resourceapi.QualifiedName]resourceapi.DeviceCapacity  `json:"capacity,omitempty"`
	// Claim is which one has it, as NAMESPACE/NAME; "" for none.
	Claim string `json:"claim,omitempty"`

	// known is nil for a device that is looked at once.
	known *known
}

// known is what has been found out of a device: what GPU it is, and which of the last
// few selectors select it. Copies of a device share it.
type known struct {
	gpu gpu.Node

	mu sync.Mutex
	by map[string]bool
}

// mostRemembered bounds what a device remembers.
const mostRemembered = 32

func (k *known) or(key string, find func() bool) bool {
	if k == nil {
		return find()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	is, asked := k.by[key]
	if !asked {
		if is = find(); len(k.by) >= mostRemembered {
			clear(k.by)
		}
		k.by[key] = is
	}
	return is
}

// Devices are the GPUs in the slices of one node, in order: those of each pool's newest
// generation. They remember what selects them: evaluating CEL takes long, and nodes are
// looked at for every pod.
func Devices(of []*resourceapi.ResourceSlice) []Device {
	newest := map[string]int64{}
	for _, s := range of {
		if s.Spec.Driver == Driver {
			newest[s.Spec.Pool.Name] = max(newest[s.Spec.Pool.Name], s.Spec.Pool.Generation)
		}
	}
	var devices []Device
	for _, s := range of {
		if s.Spec.Driver != Driver || s.Spec.Pool.Generation < newest[s.Spec.Pool.Name] {
			continue
		}
		for _, d := range s.Spec.Devices {
			device := Device{Pool: s.Spec.Pool.Name, Name: d.Name, Attributes: d.Attributes, Capacity: d.Capacity}
			device.known = &known{gpu: device.GPU(), by: map[string]bool{}}
			devices = append(devices, device)
		}
	}
	slices.SortFunc(devices, func(a, b Device) int {
		return cmp.Or(strings.Compare(a.Pool, b.Pool), strings.Compare(a.Name, b.Name))
	})
	return devices
}

// text of an attribute, with or without the driver's domain; "" when it is not there.
func (d Device) text(name string) string {
	for _, key := range []resourceapi.QualifiedName{resourceapi.QualifiedName(name), resourceapi.QualifiedName(Driver + "/" + name)} {
		if a, ok := d.Attributes[key]; ok && a.StringValue != nil {
			return *a.StringValue
		}
	}
	return ""
}

func (d Device) memory() int64 {
	for _, key := range []resourceapi.QualifiedName{"memory", Driver + "/memory"} {
		if c, ok := d.Capacity[key]; ok {
			return c.Value.Value()
		}
	}
	return 0
}

// GPU is what the device is.
func (d Device) GPU() gpu.Node {
	if d.known != nil {
		return d.known.gpu
	}
	return gpu.FromDevice(d.text("productName"), d.text("profile"), d.memory())
}

// WithoutParts is devices without the slices that cards which are listed too may be cut
// into: those would count twice.
func WithoutParts(devices []Device) []Device {
	cards := map[string]bool{}
	for _, d := range devices {
		if d.text("profile") == "" {
			cards[d.text("uuid")] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(devices), func(d Device) bool {
		return d.text("profile") != "" && cards[d.text("parentUUID")]
	})
}

// Ask is one request of a claim.
type Ask struct {
	// Claim is NAMESPACE/NAME.
	Claim   string `json:"claim"`
	Request string `json:"request"`
	// Selectors are CEL, the device class's and the request's: a device must match all.
	Selectors []string `json:"selectors,omitempty"`
	Count     int      `json:"count"`
	// Allocated says that the claim has its devices.
	Allocated bool `json:"allocated,omitempty"`
}

// Asks are the requests of a claim that are for GPUs. class finds a device class by its
// name, nil for none. An error is a request of which nobody can tell how many GPUs, or
// which, it comes to.
func Asks(claim *resourceapi.ResourceClaim, class func(name string) *resourceapi.DeviceClass) ([]Ask, error) {
	name := claim.Namespace + "/" + claim.Name
	var asks []Ask
	for _, request := range claim.Spec.Devices.Requests {
		for _, alternative := range request.FirstAvailable {
			if selectors := selectorsOf(alternative.DeviceClassName, alternative.Selectors, class); forGPUs(alternative.DeviceClassName, selectors) {
				return nil, fmt.Errorf("claim %s, request %s: it has alternatives (firstAvailable), of which nobody can tell before that a pod gets; ask for one, and list models in annotation spotbench.dev/gpu-model", name, request.Name)
			}
		}
		exactly := request.Exactly
		if exactly == nil || exactly.AdminAccess != nil && *exactly.AdminAccess {
			continue // of another kind, or one that takes no device from anybody
		}
		selectors := selectorsOf(exactly.DeviceClassName, exactly.Selectors, class)
		if !forGPUs(exactly.DeviceClassName, selectors) {
			continue
		}
		if exactly.AllocationMode == resourceapi.DeviceAllocationModeAll {
			return nil, fmt.Errorf("claim %s, request %s: it asks for all GPUs of a node (allocationMode All), of which nobody can tell how many that are; ask for a count", name, request.Name)
		}
		asks = append(asks, Ask{Claim: name, Request: request.Name, Selectors: selectors, Count: int(max(1, exactly.Count)), Allocated: claim.Status.Allocation != nil})
	}
	return asks, nil
}

func selectorsOf(className string, own []resourceapi.DeviceSelector, class func(string) *resourceapi.DeviceClass) (expressions []string) {
	add := func(all []resourceapi.DeviceSelector) {
		for _, s := range all {
			if s.CEL != nil {
				expressions = append(expressions, s.CEL.Expression)
			}
		}
	}
	if c := class(className); c != nil {
		add(c.Spec.Selectors)
	}
	add(own)
	return expressions
}

func forGPUs(className string, selectors []string) bool {
	return slices.ContainsFunc(append([]string{className}, selectors...), func(s string) bool { return strings.Contains(s, Driver) })
}

// Count is how many GPUs are asked for.
func Count(asks []Ask) (n int) {
	for _, a := range asks {
		n += a.Count
	}
	return n
}

// compiled expressions, as many as a cluster may well have.
var compiled = sync.OnceValue(func() *cel.Cache { return cel.NewCache(256, cel.Features{}) })

// selects says whether a request may be given a device, taken or not. What cannot be
// evaluated selects nothing: DynamicResources says what is wrong with it.
func (a Ask) selects(d Device) bool {
	if a.Allocated {
		return d.Claim == a.Claim
	}
	return d.known.or(strings.Join(a.Selectors, "\n"), func() bool { return a.matches(d) })
}

func (a Ask) matches(d Device) bool {
	for _, expression := range a.Selectors {
		program := compiled().GetOrCompile(expression)
		if program.Error != nil {
			return false
		}
		matches, _, err := program.DeviceMatches(context.Background(), cel.Device{Driver: Driver, Attributes: d.Attributes, Capacity: d.Capacity})
		if err != nil || !matches {
			return false
		}
	}
	return true
}

// free says whether nobody else has the device.
func (a Ask) free(d Device) bool { return d.Claim == "" || a.Allocated && d.Claim == a.Claim }

// assign gives each request the first devices that it selects and that are free, and
// says whether that is enough. A device is given once.
func assign(asks []Ask, devices []Device) (given map[int]string, enough bool) {
	given, enough = map[int]string{}, true
	for _, a := range asks {
		left := a.Count
		for i, d := range devices {
			if _, taken := given[i]; left > 0 && !taken && a.free(d) && a.selects(d) {
				given[i] = a.Claim
				left--
			}
		}
		enough = enough && left == 0
	}
	return given, enough
}

// Take is the devices after these requests were given theirs.
func Take(asks []Ask, devices []Device) []Device {
	out := slices.Clone(devices)
	given, _ := assign(asks, devices)
	for i, claim := range given {
		out[i].Claim = claim
	}
	return out
}

// Release is the devices once claims, by NAMESPACE/NAME, are gone.
func Release(devices []Device, gone ...string) []Device {
	out := slices.Clone(devices)
	for i := range out {
		if slices.Contains(gone, out[i].Claim) {
			out[i].Claim = ""
		}
	}
	return out
}
