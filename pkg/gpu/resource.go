// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"fmt"
	"iter"
	"slices"
	"strings"
)

// ResourcePrefix begins the names of all resources of NVIDIA's device plugin.
const ResourcePrefix = "nvidia.com/"

// ResourceName is the extended resource that a device plugin advertises whole
// (or time-sliced) GPUs under.
const ResourceName = "nvidia.com/gpu"

const (
	resourceMIG  = ResourcePrefix + "mig-"
	sharedSuffix = ".shared"
)

// Resource is a kind of GPU as pods ask for it, mostly an extended resource. The zero
// value is ResourceName.
type Resource struct {
	// Profile is the MIG profile of a slice under the strategy "mixed", "" for a card.
	Profile string
	// Shared is true for shares of it under a name of their own: time-slicing or MPS
	// with renameByDefault.
	Shared bool
	// Claimed is true for devices that pods ask for by ResourceClaims instead; what
	// these are the claims say.
	Claimed bool
}

// Whole says that it is ResourceName.
func (r Resource) Whole() bool { return r == Resource{} }

// Name is the extended resource's: "nvidia.com/mig-1g.10gb.shared". That of claims is
// their API's.
func (r Resource) Name() string {
	if r.Claimed {
		return "resourceclaims.resource.k8s.io"
	}
	if r.Shared {
		return r.labels() + sharedSuffix
	}
	return r.labels()
}

// labels is what the names of GPU Feature Discovery's labels of it begin with.
func (r Resource) labels() string {
	if r.Profile == "" {
		return ResourceName
	}
	return resourceMIG + r.Profile
}

// ParseResource reads the name of an extended resource. is is false for one that is
// no GPU's; an error is a slice's without a profile.
func ParseResource(name string) (r Resource, is bool, err error) {
	base, shared := strings.CutSuffix(name, sharedSuffix)
	if base == ResourceName {
		return Resource{Shared: shared}, true, nil
	}
	profile, is := strings.CutPrefix(base, resourceMIG)
	if !is {
		return Resource{}, false, nil
	}
	p, err := ParseProfile(profile)
	if err != nil || p.Name != profile {
		return Resource{}, true, fmt.Errorf("%s, which names no MIG profile; write one such as %s1g.10gb", name, resourceMIG)
	}
	return Resource{Profile: profile, Shared: shared}, true, nil
}

// Asked finds what GPUs are asked for among extended resources, and how many. An error
// says what to ask for instead: of several kinds nobody could tell what a pod runs on.
func Asked(requests iter.Seq2[string, int64]) (Resource, int, error) {
	var names []string
	var asked Resource
	var count int64
	for name, n := range requests {
		if n <= 0 || !strings.HasPrefix(name, ResourcePrefix) {
			continue
		}
		r, is, err := ParseResource(name)
		switch {
		case err != nil:
			return Resource{}, 0, fmt.Errorf("the pod asks for %w", err)
		case is:
			names, asked, count = append(names, name), r, n
		}
	}
	if len(names) > 1 {
		slices.Sort(names)
		return Resource{}, 0, fmt.Errorf("the pod asks for several kinds of GPUs, %s; leave one of them in resources.limits", strings.Join(names, " and "))
	}
	return asked, int(count), nil
}
