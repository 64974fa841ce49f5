// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement/claims"
)

// Pod is what a decision needs to know of a pod.
type Pod struct {
	Namespace     string    `json:"namespace"`
	Name          string    `json:"name"`
	UID           string    `json:"uid,omitempty"`
	SchedulerName string    `json:"schedulerName,omitempty"`
	Created       time.Time `json:"created,omitzero"`
	// Annotations are those under spotbench.dev/, the placement of a pod that has one
	// included.
	Annotations map[string]string `json:"annotations,omitempty"`
	// GPUs is how many whole ones the pod asks for, Requests what else it does, MIG
	// slices and shares of GPUs among it.
	GPUs     int             `json:"gpus"`
	Requests v1.ResourceList `json:"requests,omitempty"`

	// Claims are the GPUs that its resource claims ask for; ClaimsProblem is why nobody
	// can tell.
	Claims        []claims.Ask `json:"claims,omitempty"`
	ClaimsProblem string       `json:"claimsProblem,omitempty"`

	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// NodeAffinity is what the pod requires of a node by affinity.
	NodeAffinity *v1.NodeSelector `json:"requiredNodeAffinity,omitempty"`
	Tolerations  []v1.Toleration  `json:"tolerations,omitempty"`
	// Gates keep the scheduler from trying the pod.
	Gates []string `json:"gates,omitempty"`
	// Refused is what the scheduler last said of a pending pod that it found no node
	// for, "" of one that it has not tried.
	Refused string `json:"refused,omitempty"`
	// Observed says that Snapshot.Packing has what the pod asks for.
	Observed bool `json:"observed,omitempty"`
	// Unchecked is what else may keep the pod off a node and is not looked at here:
	// "volumes", for example.
	Unchecked []string `json:"unchecked,omitempty"`

	// Started and ExpectedEnd are of a pod on a node, from when the kubelet took it on.
	// Its end is expected once the work is done that it says in annotation
	// expected-duration; zero when not known.
	Started     time.Time `json:"started,omitzero"`
	ExpectedEnd time.Time `json:"expectedEnd,omitzero"`
}

// PodOf reads a pod of the API.
func PodOf(pod *v1.Pod) Pod {
	p := Pod{
		Namespace:     pod.Namespace,
		Name:          pod.Name,
		UID:           string(pod.UID),
		SchedulerName: pod.Spec.SchedulerName,
		Created:       pod.CreationTimestamp.UTC(),
		NodeSelector:  pod.Spec.NodeSelector,
		Tolerations:   pod.Spec.Tolerations,
		Unchecked:     unchecked(pod),
	}
	for name, value := range pod.Annotations {
		if strings.HasPrefix(name, benchspec.Prefix) {
			if p.Annotations == nil {
				p.Annotations = map[string]string{}
			}
			p.Annotations[name] = value
		}
	}
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	gpus := requests[gpu.ResourceName]
	p.GPUs = int(gpus.Value())
	delete(requests, gpu.ResourceName)
	if len(requests) > 0 {
		p.Requests = requests
	}
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		p.NodeAffinity = a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	}
	for _, gate := range pod.Spec.SchedulingGates {
		p.Gates = append(p.Gates, gate.Name)
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == v1.PodScheduled && c.Status == v1.ConditionFalse && c.Reason == v1.PodReasonUnschedulable {
			p.Refused = cmp.Or(c.Message, c.Reason)
		}
	}
	if pod.Status.StartTime != nil {
		p = p.StartedAt(pod.Status.StartTime.UTC())
	}
	return p
}

// StartedAt is the pod started at a time, with the end that is then expected.
func (p Pod) StartedAt(start time.Time) Pod {
	p.Started, p.ExpectedEnd = start, p.endAfter(start)
	return p
}

// endAfter is when the pod's work is done if it starts at a time; zero when the pod
// does not say how long it takes.
func (p Pod) endAfter(start time.Time) time.Time {
	spec, err := benchspec.Parse(p.Annotations)
	if err != nil || spec.ExpectedDuration == 0 || start.IsZero() {
		return time.Time{}
	}
	return start.Add(spec.ExpectedDuration)
}

// claimsUnchecked is what Pod.Unchecked says of a pod's claims before WithClaims.
const claimsUnchecked = "resource claims"

// WithClaims is a pod of PodOf with what its claims ask for of GPUs, or why nobody can
// tell. all says that they ask for nothing else.
func (p Pod) WithClaims(asks []claims.Ask, all bool, problem error) Pod {
	if problem != nil {
		p.ClaimsProblem = problem.Error()
		return p
	}
	p.Claims = asks
	p.Unchecked = slices.DeleteFunc(slices.Clone(p.Unchecked), func(what string) bool { return what == claimsUnchecked })
	if !all {
		p.Unchecked = append(p.Unchecked, "other devices and constraints of its resource claims")
	}
	if len(p.Unchecked) == 0 {
		p.Unchecked = nil
	}
	return p
}

// claimNames are those of its claims for GPUs.
func (p Pod) claimNames() (names []string) {
	for _, a := range p.Claims {
		names = append(names, a.Claim)
	}
	return names
}

// allocated is the pod once its claims have their devices, or have not.
func (p Pod) allocated(is bool, but ...string) Pod {
	p.Claims = slices.Clone(p.Claims)
	for i := range p.Claims {
		if !slices.Contains(but, p.Claims[i].Claim) {
			p.Claims[i].Allocated = is
		}
	}
	return p
}

// unchecked names what the pod asks of a node that a Snapshot knows nothing of.
func unchecked(pod *v1.Pod) []string {
	var out []string
	add := func(what string, is bool) {
		if is {
			out = append(out, what)
		}
	}
	a := pod.Spec.Affinity
	add("affinity to other pods", a != nil &&
		(a.PodAffinity != nil && len(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution) > 0 ||
			a.PodAntiAffinity != nil && len(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution) > 0))
	add("topology spread", slices.ContainsFunc(pod.Spec.TopologySpreadConstraints, func(c v1.TopologySpreadConstraint) bool {
		return c.WhenUnsatisfiable == v1.DoNotSchedule
	}))
	add("volumes", slices.ContainsFunc(pod.Spec.Volumes, func(v v1.Volume) bool {
		return v.PersistentVolumeClaim != nil || v.Ephemeral != nil
	}))
	add("ports of the host", slices.ContainsFunc(pod.Spec.Containers, func(c v1.Container) bool {
		return slices.ContainsFunc(c.Ports, func(p v1.ContainerPort) bool { return p.HostPort > 0 })
	}))
	add(claimsUnchecked, len(pod.Spec.ResourceClaims) > 0)
	return out
}

// gpus is what GPUs the pod asks for, whole ones or parts, and how many. An error says
// what is wrong with that.
func (p Pod) gpus() (gpu.Resource, int, error) {
	resource, n, err := p.asked()
	switch {
	case err != nil || len(p.Claims) == 0:
		return resource, n, err
	case n > 0:
		return resource, 0, fmt.Errorf("the pod asks for GPUs by %s and by resource claims; leave one of them", resource.Name())
	}
	return gpu.Resource{Claimed: true}, claims.Count(p.Claims), nil
}

// asked is what it asks for by resources.
func (p Pod) asked() (gpu.Resource, int, error) {
	return gpu.Asked(func(yield func(string, int64) bool) {
		if !yield(gpu.ResourceName, int64(p.GPUs)) {
			return
		}
		for name, quantity := range p.Requests {
			if !yield(string(name), quantity.Value()) {
				return
			}
		}
	})
}

// UsesGPUs says whether the pod asks for GPUs, whole ones or parts.
func (p Pod) UsesGPUs() bool {
	_, n, err := p.gpus()
	return n > 0 || err != nil
}

// Key is NAMESPACE/NAME.
func (p Pod) Key() string { return p.Namespace + "/" + p.Name }

func (p Pod) id() string { return p.Key() + "/" + p.UID }

// Same says whether two are the same pod, and not one and the next of its name.
func (p Pod) Same(other Pod) bool {
	return p.Namespace == other.Namespace && p.Name == other.Name && p.UID == other.UID
}

func (p Pod) isolated() bool {
	return p.Annotations[benchspec.AnnotationIsolation] == string(benchspec.IsolationNode)
}

func (p Pod) compare(other Pod) int {
	return cmp.Or(strings.Compare(p.Namespace, other.Namespace), strings.Compare(p.Name, other.Name), strings.Compare(p.UID, other.UID))
}

func (p Pod) where(i int, list string) string {
	if p.Name == "" {
		return fmt.Sprintf("%s[%d]: ", list, i)
	}
	return "pod " + p.Key() + ": "
}

func (p Pod) validate(bad func(string, ...any), seen map[string]bool) {
	if p.Namespace == "" || p.Name == "" {
		bad("namespace is %q and name %q; neither can be empty", p.Namespace, p.Name)
	}
	if seen[p.Key()] {
		bad("it is listed twice; list each pod once, on its node or as pending")
	}
	seen[p.Key()] = true
	if p.GPUs < 0 || p.GPUs > mostGPUs {
		bad("gpus is %d, want 0 to %d", p.GPUs, mostGPUs)
	}
	if !p.ExpectedEnd.IsZero() && p.ExpectedEnd.Before(p.Started) {
		bad("expectedEnd is %s, before started %s", p.ExpectedEnd.Format(time.RFC3339), p.Started.Format(time.RFC3339))
	}
	for i, a := range p.Claims {
		if a.Claim == "" || a.Count < 1 || a.Count > mostGPUs {
			bad("claims[%d] is of claim %q and count %d; want a name and 1 to %d", i, a.Claim, a.Count, mostGPUs)
		}
	}
	amounts(bad, "requests", p.Requests)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
