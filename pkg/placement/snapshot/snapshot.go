// SPDX-License-Identifier: Apache-2.0

// Package snapshot is everything a placement is decided from, as one document: the
// time, what is assumed, the nodes with their pools, prices, hazards and pods, and
// the pods that are pending. The scheduler writes it; whoever has it decides again
// with the same code, anywhere and at any time, and asks what would be decided if
// something were different.
//
// It is pure: no client, no clock, no I/O. The same document gives the same
// decisions, in whatever order it lists things.
package snapshot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/claims"
	"github.com/spotbench/spotbench/pkg/placement/packing"
	"github.com/spotbench/spotbench/pkg/risk"
)

// What a document says it is. A change after which an older reader would decide
// otherwise gets a new version.
const (
	APIVersion = "spotbench.dev/v1alpha1"
	Kind       = "PlacementSnapshot"
)

// Path is where a scheduler serves its own.
const Path = "/debug/spotbench/snapshot"

// Snapshot is the state that a decision is made on.
type Snapshot struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// Time is the now of its decisions.
	Time        time.Time   `json:"time"`
	Assumptions Assumptions `json:"assumptions"`
	Nodes       []Node      `json:"nodes"`
	// Pending are the pods that have no node yet.
	Pending []Pod `json:"pending,omitempty"`
	// Packing is what was learned of what pods ask for, from which it is reckoned what a
	// placement takes from those to come. Without it that is learned from the pods here.
	Packing *packing.State `json:"packing,omitempty"`
}

// Assumptions are placement.Assumptions.
type Assumptions struct {
	ExpectedDuration metav1.Duration `json:"expectedDuration"`
	CheckpointCost   metav1.Duration `json:"checkpointCost"`
	RestartCost      metav1.Duration `json:"restartCost"`
	DeadlineMargin   metav1.Duration `json:"deadlineMargin"`
	NoticeSaves      float64         `json:"noticeSaves"`
	GPUHourUSD       float64         `json:"gpuHourUSD,omitempty"`
}

// AssumptionsOf is the document's form of assumptions.
func AssumptionsOf(a placement.Assumptions) Assumptions {
	return Assumptions{
		ExpectedDuration: metav1.Duration{Duration: a.ExpectedDuration},
		CheckpointCost:   metav1.Duration{Duration: a.CheckpointCost},
		RestartCost:      metav1.Duration{Duration: a.RestartCost},
		DeadlineMargin:   metav1.Duration{Duration: a.DeadlineMargin},
		NoticeSaves:      a.NoticeSaves,
		GPUHourUSD:       a.GPUHourUSD,
	}
}

func (a Assumptions) placement() placement.Assumptions {
	return placement.Assumptions{
		ExpectedDuration: a.ExpectedDuration.Duration,
		CheckpointCost:   a.CheckpointCost.Duration,
		RestartCost:      a.RestartCost.Duration,
		DeadlineMargin:   a.DeadlineMargin.Duration,
		NoticeSaves:      a.NoticeSaves,
		GPUHourUSD:       a.GPUHourUSD,
	}
}

// Node is placement.Node with the pods that have its GPUs, and what the scheduler's
// other checks look at.
type Node struct {
	Name string `json:"name"`
	// GPU is what its labels say, nil for a node without any.
	GPU  *GPU `json:"gpu,omitempty"`
	Pool Pool `json:"pool"`
	// TotalGPUs is how many whole ones the kubelet offers; the free ones are those that
	// no pod of Pods has. MIG slices and shares are in Allocatable and Requested.
	TotalGPUs int `json:"totalGPUs"`
	// Devices are the GPUs that its ResourceSlices list, with the claims that have them.
	Devices []claims.Device `json:"devices,omitempty"`
	// Prices of the whole node in USD per hour; 0 when not known.
	USDPerHour         float64 `json:"usdPerHour,omitempty"`
	OnDemandUSDPerHour float64 `json:"onDemandUSDPerHour,omitempty"`
	// HazardPerHour is that of the pool; HazardByAge, where known, its change with a
	// machine's age (risk.Pieces figures per hour), of which this one has Age.
	HazardPerHour float64         `json:"hazardPerHour,omitempty"`
	HazardByAge   []float64       `json:"hazardByAge,omitempty"`
	Age           metav1.Duration `json:"age,omitzero"`
	// Notice is why the node is about to go away, "" when it is not.
	Notice string `json:"notice,omitempty"`
	// Pods are those that have GPUs of the node.
	Pods []Pod `json:"pods,omitempty"`

	Labels        map[string]string `json:"labels,omitempty"`
	Taints        []v1.Taint        `json:"taints,omitempty"`
	Unschedulable bool              `json:"unschedulable,omitempty"`
	// Allocatable is what pods may have in all, Requested what all pods of the node
	// have of it, "pods" being their number. GPUs are in neither.
	Allocatable v1.ResourceList `json:"allocatable,omitempty"`
	Requested   v1.ResourceList `json:"requested,omitempty"`
}

// GPU is gpu.Node.
type GPU struct {
	Model       string  `json:"model,omitempty"`
	Product     string  `json:"product,omitempty"`
	MemoryBytes int64   `json:"memoryBytes,omitempty"`
	Count       int     `json:"count,omitempty"`
	Shared      bool    `json:"shared,omitempty"`
	Invalid     string  `json:"invalid,omitempty"`
	Card        string  `json:"card,omitempty"`
	Share       float64 `json:"share,omitempty"`
}

// Pool is gpu.Pool.
type Pool struct {
	Provider     string `json:"provider,omitempty"`
	Region       string `json:"region,omitempty"`
	Zone         string `json:"zone,omitempty"`
	InstanceType string `json:"instanceType,omitempty"`
	CapacityType string `json:"capacityType"`
}

// NodeOf is the document's form of a node, without its pods and what other checks
// look at.
func NodeOf(n placement.Node) Node {
	out := Node{
		Name:               n.Name,
		Pool:               Pool(n.Pool),
		TotalGPUs:          n.TotalGPUs,
		USDPerHour:         n.USDPerHour,
		OnDemandUSDPerHour: n.OnDemandUSDPerHour,
		HazardPerHour:      float64(n.Hazard),
		Age:                metav1.Duration{Duration: n.Age},
		Notice:             n.Notice,
	}
	if n.HasGPUs {
		g := GPU(n.GPUs)
		out.GPU = &g
	}
	if n.Ages != nil {
		out.HazardByAge = slices.Clone(n.Ages[:])
	}
	return out
}

// placement is the node as a pod finds it, which is not its own neighbour.
func (n Node) placement(pod Pod) placement.Node {
	out := n.whole(pod)
	resource, _, err := pod.gpus()
	if err != nil || resource.Whole() {
		return out
	}
	if resource.Claimed {
		// Annotations that cannot be read have been refused before (Request).
		spec, _ := benchspec.Parse(pod.Annotations)
		return claims.See(placement.Request{Spec: spec, Resource: resource, GPUs: claims.Count(pod.Claims)}, out, pod.Claims, n.Devices)
	}
	offered := n.offered()
	out.GPUs = out.GPUs.As(resource, n.Labels, offered)
	out.TotalGPUs = offered[resource.Name()]
	requested := n.requestedWithout(pod)[v1.ResourceName(resource.Name())]
	out.FreeGPUs = out.TotalGPUs - int(requested.Value())
	return out
}

// offered is how many of each of NVIDIA's resources the node has.
func (n Node) offered() map[string]int {
	offered := map[string]int{gpu.ResourceName: n.TotalGPUs}
	for name, quantity := range n.Allocatable {
		if strings.HasPrefix(string(name), gpu.ResourcePrefix) {
			offered[string(name)] = int(quantity.Value())
		}
	}
	return offered
}

// GPUsFor is the node's GPUs as a pod finds them.
func (n Node) GPUsFor(pod Pod) gpu.Node { return n.placement(pod).GPUs }

// TotalFor is how many of them it has, free or not.
func (n Node) TotalFor(pod Pod) int { return n.placement(pod).TotalGPUs }

// Empty is the node without its pods.
func (n Node) Empty() Node {
	n.Pods, n.Requested = nil, nil
	n.Devices = slices.Clone(n.Devices)
	for i := range n.Devices {
		n.Devices[i].Claim = ""
	}
	return n
}

// leave is what is left once a pod has gone whose requests are not counted any more:
// claims that no other pod has give their devices back.
func (n Node) leave(gone Pod) Node {
	names := gone.claimNames()
	for _, other := range n.Pods {
		if !other.Same(gone) {
			names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(other.claimNames(), name) })
		}
	}
	if len(names) > 0 {
		n.Devices = claims.Release(n.Devices, names...)
	}
	return n
}

// whole is the node as a pod finds it that asks for whole GPUs.
func (n Node) whole(pod Pod) placement.Node {
	out := placement.Node{
		Name:               n.Name,
		Pool:               gpu.Pool(n.Pool),
		TotalGPUs:          n.TotalGPUs,
		FreeGPUs:           n.TotalGPUs,
		USDPerHour:         n.USDPerHour,
		OnDemandUSDPerHour: n.OnDemandUSDPerHour,
		Hazard:             risk.Hazard(n.HazardPerHour),
		Age:                n.Age.Duration,
		Notice:             n.Notice,
	}
	if n.GPU != nil {
		out.GPUs, out.HasGPUs = gpu.Node(*n.GPU), true
	}
	if len(n.HazardByAge) == risk.Pieces {
		out.Ages = (*risk.ByAge)(n.HazardByAge)
	}
	for _, other := range n.Pods {
		if other.Same(pod) {
			continue
		}
		out.FreeGPUs -= other.GPUs
		out.GPUPods++
		if other.isolated() {
			out.IsolatedPods++
		}
	}
	return out
}

// Write writes the document, its lists sorted by name.
func (s Snapshot) Write(w io.Writer) error {
	s.APIVersion, s.Kind = APIVersion, Kind
	s.Nodes = slices.Clone(s.Nodes)
	for i := range s.Nodes {
		s.Nodes[i].Pods = sorted(s.Nodes[i].Pods)
	}
	slices.SortFunc(s.Nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	s.Pending = sorted(s.Pending)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(s); err != nil {
		return fmt.Errorf("writing the snapshot: %w", err)
	}
	return nil
}

func sorted(pods []Pod) []Pod {
	pods = slices.Clone(pods)
	slices.SortFunc(pods, Pod.compare)
	return pods
}

// Read reads a document. Fields it does not know are errors: a decision made
// without them might be another.
func Read(data []byte) (Snapshot, error) {
	var s Snapshot
	var what metav1.TypeMeta
	if err := json.Unmarshal(data, &what); err != nil {
		return s, fmt.Errorf("the snapshot is not JSON: %w", err)
	}
	if what.APIVersion != APIVersion || what.Kind != Kind {
		return s, fmt.Errorf("the snapshot's apiVersion and kind are %q and %q, want %q and %q; write one with `kubectl spotbench snapshot` of the same version",
			what.APIVersion, what.Kind, APIVersion, Kind)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		return s, fmt.Errorf("the snapshot does not read as %s %s: %w", APIVersion, Kind, err)
	}
	return s, s.Validate()
}

// Bounds beyond which a figure is a typing error, and sums stay far from overflow.
const (
	mostGPUs      = 1 << 20
	mostUSD       = 1e9
	mostHazard    = 1e6
	longestAssume = 10 * 365 * 24 * time.Hour
)

// Validate says every field that is wrong, its value, and what would do.
func (s Snapshot) Validate() error {
	var problems []error
	bad := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("snapshot: "+format, args...))
	}
	if s.Time.IsZero() {
		bad("time is missing; write when the state was taken, such as 2026-01-31T18:00:00Z")
	}
	if y := s.Time.Year(); !s.Time.IsZero() && (y < 2000 || y > 2199) {
		bad("time is %s; the year must be from 2000 to 2199", s.Time.Format(time.RFC3339))
	}
	for _, d := range []struct {
		field string
		value time.Duration
		least time.Duration
	}{
		{"expectedDuration", s.Assumptions.ExpectedDuration.Duration, 1},
		{"checkpointCost", s.Assumptions.CheckpointCost.Duration, 0},
		{"restartCost", s.Assumptions.RestartCost.Duration, 0},
		{"deadlineMargin", s.Assumptions.DeadlineMargin.Duration, 0},
	} {
		if d.value < d.least || d.value > longestAssume {
			bad("assumptions.%s is %s; write a duration such as 45m, at most ten years", d.field, d.value)
		}
	}
	if p := s.Assumptions.NoticeSaves; !(p >= 0 && p <= 1) {
		bad("assumptions.noticeSaves is %v; write a probability from 0 to 1", p)
	}
	if usd := s.Assumptions.GPUHourUSD; !(usd >= 0 && usd <= mostUSD) {
		bad("assumptions.gpuHourUSD is %v, want 0 to %v", usd, float64(mostUSD))
	}
	if s.Packing != nil {
		if err := s.Packing.Validate(); err != nil {
			bad("packing: %w", err)
		}
	}
	nodes, pods := map[string]bool{}, map[string]bool{}
	for i, n := range s.Nodes {
		where := fmt.Sprintf("nodes[%d]", i)
		if n.Name != "" {
			where = "node " + n.Name
		}
		in := func(format string, args ...any) { bad(where+": "+format, args...) }
		if nodes[n.Name] {
			in("it is listed twice; list each node once")
		}
		nodes[n.Name] = true
		n.validate(in)
		for j, p := range n.Pods {
			p.validate(func(format string, args ...any) { in(p.where(j, "pods")+format, args...) }, pods)
			if !p.UsesGPUs() {
				in("pods[%d].gpus is 0 and requests has no part of one; only pods with GPUs are listed", j)
			}
		}
	}
	for i, p := range s.Pending {
		p.validate(func(format string, args ...any) { bad(p.where(i, "pending")+format, args...) }, pods)
	}
	return errors.Join(problems...)
}

func (n Node) validate(bad func(string, ...any)) {
	if n.Name == "" {
		bad("name is missing")
	}
	if n.TotalGPUs < 0 || n.TotalGPUs > mostGPUs {
		bad("totalGPUs is %d, want 0 to %d", n.TotalGPUs, mostGPUs)
	}
	if n.GPU != nil && (n.GPU.MemoryBytes < 0 || n.GPU.Count < 0) {
		bad("gpu.memoryBytes is %d and gpu.count %d; neither can be negative", n.GPU.MemoryBytes, n.GPU.Count)
	}
	if n.GPU != nil && !(n.GPU.Share >= 0 && n.GPU.Share <= 1) {
		bad("gpu.share is %v, want 0 to 1", n.GPU.Share)
	}
	if c := n.Pool.CapacityType; c != gpu.Spot && c != gpu.OnDemand {
		bad("pool.capacityType is %q, want %q or %q", c, gpu.Spot, gpu.OnDemand)
	}
	figures := map[string][2]float64{
		"usdPerHour":         {n.USDPerHour, mostUSD},
		"onDemandUSDPerHour": {n.OnDemandUSDPerHour, mostUSD},
		"hazardPerHour":      {n.HazardPerHour, mostHazard},
	}
	for i, h := range n.HazardByAge {
		figures[fmt.Sprintf("hazardByAge[%d]", i)] = [2]float64{h, mostHazard}
	}
	for _, field := range sortedKeys(figures) {
		if v, most := figures[field][0], figures[field][1]; math.IsNaN(v) || v < 0 || v > most {
			bad("%s is %v, want 0 to %v", field, v, most)
		}
	}
	if l := len(n.HazardByAge); l != 0 && l != risk.Pieces {
		bad("hazardByAge has %d figures, want none or %d", l, risk.Pieces)
	}
	if n.Age.Duration < 0 {
		bad("age is %s; it cannot be negative", n.Age.Duration)
	}
	amounts(bad, "allocatable", n.Allocatable)
	amounts(bad, "requested", n.Requested)
}

// amounts of resources are not negative, and whole GPUs are counted elsewhere.
func amounts(bad func(string, ...any), field string, of v1.ResourceList) {
	for _, name := range sortedKeys(of) {
		q := of[name]
		switch {
		case q.Sign() < 0:
			bad("%s[%s] is %s; it cannot be negative", field, name, q.String())
		case name == gpu.ResourceName:
			bad("%s[%s] is given; GPUs are in totalGPUs and gpus alone", field, name)
		}
	}
}
