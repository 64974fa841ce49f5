// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/kubernetes/pkg/scheduler/framework"

	"github.com/spotbench/spotbench/pkg/placement/claims"
)

// indexByNode is the informer's index of ResourceSlices by the node they are of.
const indexByNode = "spotbench.dev/node"

// devices knows the GPUs of nodes from their ResourceSlices, and who has them. What
// the scheduler's own plugin allocates it learns of at once.
type devices struct {
	slices cache.Indexer
	state  framework.SharedDRAManager

	mu sync.Mutex
	// read has the devices of each node as they were last read.
	read map[string]readDevices
}

type readDevices struct {
	of      []*resourceapi.ResourceSlice
	devices []claims.Device
}

// openDevices adds the index to the informer, once for all profiles. Without dynamic
// resource allocation there are no devices.
func openDevices(factory informers.SharedInformerFactory, state framework.SharedDRAManager) (*devices, error) {
	if state == nil {
		return nil, nil
	}
	informer := factory.Resource().V1().ResourceSlices().Informer()
	if _, exists := informer.GetIndexer().GetIndexers()[indexByNode]; !exists {
		if err := informer.AddIndexers(cache.Indexers{indexByNode: nodeOfSlice}); err != nil {
			return nil, fmt.Errorf("indexing ResourceSlices by node: %w", err)
		}
	}
	return &devices{slices: informer.GetIndexer(), state: state, read: map[string]readDevices{}}, nil
}

func nodeOfSlice(obj any) ([]string, error) {
	slice, ok := obj.(*resourceapi.ResourceSlice)
	if !ok || slice.Spec.Driver != claims.Driver || slice.Spec.NodeName == nil {
		return nil, nil
	}
	return []string{*slice.Spec.NodeName}, nil
}

// on is the GPUs of a node, without who has them.
func (d *devices) on(node string) []claims.Device {
	if d == nil {
		return nil
	}
	objects, err := d.slices.ByIndex(indexByNode, node)
	if err != nil {
		return nil // the index is there
	}
	var of []*resourceapi.ResourceSlice
	for _, obj := range objects {
		if slice, ok := obj.(*resourceapi.ResourceSlice); ok {
			of = append(of, slice)
		}
	}
	slices.SortFunc(of, func(a, b *resourceapi.ResourceSlice) int { return strings.Compare(a.Name, b.Name) })
	d.mu.Lock()
	defer d.mu.Unlock()
	last := d.read[node]
	if !slices.Equal(last.of, of) {
		last = readDevices{of, claims.Devices(of)}
		d.read[node] = last
	}
	if len(of) == 0 {
		delete(d.read, node) // gone, or never there
	}
	return slices.Clone(last.devices)
}

// claimsOf are the claims that a pod names or that were made for it.
func (d *devices) claimsOf(pod *v1.Pod) ([]*resourceapi.ResourceClaim, error) {
	var out []*resourceapi.ResourceClaim
	for i := range pod.Spec.ResourceClaims {
		if d == nil {
			return nil, errors.New("the pod has resource claims, but the scheduler runs without dynamic resource allocation")
		}
		name, _, err := resourceclaim.Name(pod, &pod.Spec.ResourceClaims[i])
		if err != nil {
			return nil, err
		}
		if name == nil {
			continue // none is needed
		}
		claim, err := d.state.ResourceClaims().Get(pod.Namespace, *name)
		if err != nil {
			return nil, fmt.Errorf("claim %s/%s: %w", pod.Namespace, *name, err)
		}
		out = append(out, claim)
	}
	return out, nil
}

// namesClaim says whether a claim is one of a pod's.
func namesClaim(pod *v1.Pod, claim *resourceapi.ResourceClaim) bool {
	return claim.Namespace == pod.Namespace && slices.ContainsFunc(pod.Spec.ResourceClaims, func(c v1.PodResourceClaim) bool {
		name, _, err := resourceclaim.Name(pod, &c)
		return err == nil && name != nil && *name == claim.Name
	})
}

// asks are what a pod's claims ask for of GPUs; none for a pod without.
func (d *devices) asks(pod *v1.Pod) ([]claims.Ask, []*resourceapi.ResourceClaim, error) {
	all, err := d.claimsOf(pod)
	if err != nil {
		return nil, nil, err
	}
	var out []claims.Ask
	for _, claim := range all {
		asks, err := claims.Asks(claim, d.class)
		if err != nil {
			return nil, nil, err
		}
		out = append(out, asks...)
	}
	return out, all, nil
}

func (d *devices) class(name string) *resourceapi.DeviceClass {
	class, err := d.state.DeviceClasses().Get(name)
	if err != nil {
		return nil
	}
	return class
}

// claimed is what a pod's claims come to at one time.
type claimed struct {
	asks []claims.Ask
	// taken are all devices that are allocated, own those of them that are the pod's.
	taken sets.Set[structured.DeviceID]
	own   map[structured.DeviceID]string
}

// mostGatherings bounds how often it is tried to see allocations between two changes.
const mostGatherings = 10

// claimed of a pod, nil for one whose claims ask for no GPUs.
func (d *devices) claimed(pod *v1.Pod) (*claimed, error) {
	if len(pod.Spec.ResourceClaims) == 0 {
		return nil, nil
	}
	asks, all, err := d.asks(pod)
	if err != nil || len(asks) == 0 {
		return nil, err
	}
	c := &claimed{asks: asks, own: map[structured.DeviceID]string{}}
	for _, claim := range all {
		for id := range allocatedTo(claim) {
			c.own[id] = claim.Namespace + "/" + claim.Name
		}
	}
	for range mostGatherings {
		if c.taken, err = d.state.ResourceClaims().ListAllAllocatedDevices(); err == nil {
			return c, nil
		}
	}
	return nil, err
}

// allocatedTo are the GPUs that a claim has.
func allocatedTo(claim *resourceapi.ResourceClaim) sets.Set[structured.DeviceID] {
	ids := sets.New[structured.DeviceID]()
	if claim.Status.Allocation == nil {
		return ids
	}
	for _, r := range claim.Status.Allocation.Devices.Results {
		if r.Driver == claims.Driver && (r.AdminAccess == nil || !*r.AdminAccess) {
			ids.Insert(structured.MakeDeviceID(r.Driver, r.Pool, r.Device))
		}
	}
	return ids
}

// another stands for every claim but the pod's.
const another = "another"

// seenBy is the GPUs of a node with who has them.
func (d *devices) seenBy(c *claimed, node string) []claims.Device {
	on := d.on(node)
	for i := range on {
		id := structured.MakeDeviceID(claims.Driver, on[i].Pool, on[i].Name)
		if name, own := c.own[id]; own {
			on[i].Claim = name
		} else if c.taken.Has(id) {
			on[i].Claim = another
		}
	}
	return on
}

// usesGPUs says whether a pod has GPUs of its node by claims. Claims that are gone may
// have been for GPUs.
func (d *devices) usesGPUs(pod *v1.Pod) bool {
	if len(pod.Spec.ResourceClaims) == 0 {
		return false
	}
	asks, _, err := d.asks(pod)
	return err != nil || len(asks) > 0
}

// modelGiven is the model of the GPUs that a pod's claims were given, "" where they are
// of several or it is not known.
func (d *devices) modelGiven(pod *v1.Pod, node string) string {
	all, err := d.claimsOf(pod)
	if err != nil {
		return ""
	}
	given := sets.New[structured.DeviceID]()
	for _, claim := range all {
		given = given.Union(allocatedTo(claim))
	}
	var models []string
	for _, device := range d.on(node) {
		model := device.GPU().Model
		if given.Has(structured.MakeDeviceID(claims.Driver, device.Pool, device.Name)) && !slices.Contains(models, model) {
			models = append(models, model)
		}
	}
	if len(models) != 1 {
		return ""
	}
	return models[0]
}

// holders are the claims that have devices, of all there are; a device that is being
// given to one is another's.
func (d *devices) holders() map[structured.DeviceID]string {
	out := map[structured.DeviceID]string{}
	if d == nil {
		return out
	}
	for range mostGatherings {
		if taken, err := d.state.ResourceClaims().ListAllAllocatedDevices(); err == nil {
			for id := range taken {
				out[id] = another
			}
			break
		}
	}
	all, err := d.state.ResourceClaims().List()
	if err != nil {
		return out // it never fails
	}
	for _, claim := range all {
		for id := range allocatedTo(claim) {
			out[id] = claim.Namespace + "/" + claim.Name
		}
	}
	return out
}

// heldBy is the GPUs of a node with the claims that have them.
func (d *devices) heldBy(holders map[structured.DeviceID]string, node string) []claims.Device {
	on := d.on(node)
	for i := range on {
		on[i].Claim = holders[structured.MakeDeviceID(claims.Driver, on[i].Pool, on[i].Name)]
	}
	return on
}
