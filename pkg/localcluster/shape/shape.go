// SPDX-License-Identifier: Apache-2.0

// Package shape reads the file that says which nodes a local cluster has, and
// derives from it the labels, taints and identities that a cloud and GPU Feature
// Discovery would give those nodes.
package shape

import (
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/localcluster/network"
)

//go:embed default.yaml
var defaultFile []byte

// Default is the cluster of five nodes that the demo runs on.
func Default() Shape {
	s, err := Parse(defaultFile)
	if err != nil {
		panic("the embedded default shape is wrong: " + err.Error())
	}
	return s
}

// DefaultFile is the commented YAML of Default, as a template for one's own.
func DefaultFile() []byte { return slices.Clone(defaultFile) }

// Shape is the parsed file.
type Shape struct {
	// GPUModels are the kinds of GPU that nodes refer to by name.
	GPUModels map[string]GPUModel `json:"gpuModels,omitempty"`
	// Nodes are the real nodes.
	Nodes []Node `json:"nodes"`
	// Kwok are the groups of simulated nodes.
	Kwok []KwokGroup `json:"kwok,omitempty"`
}

// GPUModel is one kind of GPU.
type GPUModel struct {
	// Product is the value of nvidia.com/gpu.product.
	Product string `json:"product"`
	// Name is what the driver calls the device.
	Name string `json:"name"`
	// MemoryMiB is the memory the driver reports, in MiB.
	MemoryMiB int `json:"memoryMiB"`
	// Family is the value of nvidia.com/gpu.family.
	Family string `json:"family"`
	// Compute is the CUDA compute capability, "major.minor".
	Compute string `json:"compute"`
	// MIG says whether the model can be partitioned.
	MIG bool `json:"mig,omitempty"`
}

// Machine is what real and simulated nodes have in common.
type Machine struct {
	// Name of the node, or the prefix of the names of a kwok group.
	Name string `json:"name"`
	// InstanceType as the cloud names it.
	InstanceType string `json:"instanceType"`
	// Region defaults to the zone without its letter.
	Region string `json:"region,omitempty"`
	Zone   string `json:"zone"`
	// CapacityType is "spot" or "on-demand".
	CapacityType string            `json:"capacityType"`
	GPU          *GPU              `json:"gpu,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	// Taints are added to the one GPU nodes carry, as "key=value:Effect".
	Taints []string `json:"taints,omitempty"`
}

// GPU says how many of which model a node has.
type GPU struct {
	Model string `json:"model"`
	Count int    `json:"count"`
}

// Node is one real node.
type Node struct {
	Machine `json:",inline"`
}

// KwokGroup is a group of equal simulated nodes.
type KwokGroup struct {
	Machine `json:",inline"`
	// Count of nodes to make.
	Count int `json:"count,omitempty"`
	// Weight is the group's share of a total asked for on the command line.
	Weight int `json:"weight,omitempty"`
	// Capacity reported by each node, beside its GPUs.
	Capacity map[string]string `json:"capacity,omitempty"`
}

// Parse reads a shape file. The error joins everything that is wrong with it,
// each part naming the field, its value and what would be right.
func Parse(data []byte) (Shape, error) {
	var s Shape
	if err := yaml.UnmarshalStrict(data, &s); err != nil {
		return Shape{}, fmt.Errorf("shape file: %w", err)
	}
	if err := s.check(); err != nil {
		return Shape{}, err
	}
	return s, nil
}

var zonePattern = regexp.MustCompile(`^[a-z0-9-]+-[0-9]+[a-z]$`)

func (s *Shape) check() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf("shape file: "+format, args...)) }
	for name, m := range s.GPUModels {
		if m.Product == "" || m.Name == "" {
			fail("gpuModels.%s: product and name must be set, for example product: NVIDIA-L4, name: NVIDIA L4", name)
		}
		if errs := validation.IsValidLabelValue(m.Product); len(errs) > 0 {
			fail("gpuModels.%s.product %q is not a label value: %s", name, m.Product, errs[0])
		}
		if strings.ContainsAny(m.Name, "\"\n\\") {
			fail("gpuModels.%s.name %q must not contain quotes, backslashes or line breaks", name, m.Name)
		}
		if m.MemoryMiB <= 0 {
			fail("gpuModels.%s.memoryMiB is %d, want the driver's figure, for example 81920", name, m.MemoryMiB)
		}
		if major, minor, ok := strings.Cut(m.Compute, "."); !ok || !isNumber(major) || !isNumber(minor) {
			fail("gpuModels.%s.compute is %q, want major.minor, for example \"8.0\"", name, m.Compute)
		}
		if errs := validation.IsValidLabelValue(m.Family); m.Family == "" || len(errs) > 0 {
			fail("gpuModels.%s.family %q is not a label value, want for example ampere", name, m.Family)
		}
	}
	if len(s.Nodes) == 0 {
		fail("nodes is empty, a cluster needs at least one real node")
	}
	if len(s.Nodes) > network.MaxNodes {
		fail("nodes has %d entries, the address plan has room for %d; use kwok groups for more", len(s.Nodes), network.MaxNodes)
	}
	seen := map[string]bool{}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		s.checkMachine(fmt.Sprintf("nodes[%d]", i), &n.Machine, fail)
		if seen[n.Name] {
			fail("nodes[%d].name %q is there twice, names must differ", i, n.Name)
		}
		seen[n.Name] = true
	}
	for i := range s.Kwok {
		g := &s.Kwok[i]
		field := fmt.Sprintf("kwok[%d]", i)
		s.checkMachine(field, &g.Machine, fail)
		if seen[g.Name] {
			fail("%s.name %q is there twice, names must differ", field, g.Name)
		}
		seen[g.Name] = true
		if g.Count < 0 || g.Weight < 0 {
			fail("%s: count %d and weight %d must not be negative", field, g.Count, g.Weight)
		}
		for k, v := range g.Capacity {
			if _, err := resource.ParseQuantity(v); err != nil {
				fail("%s.capacity.%s %q is not a quantity, want for example 96 or 2Ti", field, k, v)
			}
		}
	}
	return errors.Join(errs...)
}

func (s *Shape) checkMachine(field string, m *Machine, fail func(string, ...any)) {
	// The name becomes a host name, a directory and part of certificate names.
	if problems := validation.IsDNS1123Label(m.Name); len(problems) > 0 {
		fail("%s.name %q is not a node name: %s", field, m.Name, problems[0])
	}
	if problems := validation.IsValidLabelValue(m.InstanceType); m.InstanceType == "" || len(problems) > 0 {
		fail("%s.instanceType %q is not an instance type, want for example p4de.24xlarge", field, m.InstanceType)
	}
	if !zonePattern.MatchString(m.Zone) {
		fail("%s.zone %q is not a zone, want for example us-east-1a", field, m.Zone)
	} else if m.Region == "" {
		m.Region = m.Zone[:len(m.Zone)-1]
	}
	if problems := validation.IsValidLabelValue(m.Region); len(problems) > 0 {
		fail("%s.region %q is not a region, want for example us-east-1", field, m.Region)
	}
	if m.CapacityType != "spot" && m.CapacityType != "on-demand" {
		fail("%s.capacityType is %q, want spot or on-demand", field, m.CapacityType)
	}
	if m.GPU != nil {
		if _, ok := s.GPUModels[m.GPU.Model]; !ok {
			fail("%s.gpu.model %q is not under gpuModels", field, m.GPU.Model)
		}
		if m.GPU.Count < 1 || m.GPU.Count > 32 {
			fail("%s.gpu.count is %d, want 1 to 32, or no gpu at all", field, m.GPU.Count)
		}
	}
	for k, v := range m.Labels {
		if problems := append(validation.IsQualifiedName(k), validation.IsValidLabelValue(v)...); len(problems) > 0 {
			fail("%s.labels: %q: %q is not a label: %s", field, k, v, problems[0])
		}
	}
	for _, t := range m.Taints {
		if _, err := parseTaint(t); err != nil {
			fail("%s.taints: %w", field, err)
		}
	}
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// WithKwokNodes returns the shape with total simulated nodes, spread over its
// kwok groups by weight; the first groups take what does not divide.
func (s Shape) WithKwokNodes(total int) (Shape, error) {
	if total < 0 {
		return Shape{}, fmt.Errorf("kwok nodes: %d asked for, want 0 or more", total)
	}
	weights := 0
	for _, g := range s.Kwok {
		weights += g.Weight
	}
	if weights == 0 && total > 0 {
		return Shape{}, fmt.Errorf("kwok nodes: %d asked for, but no kwok group of the shape has a weight", total)
	}
	s.Kwok = slices.Clone(s.Kwok)
	left := total
	for i := range s.Kwok {
		s.Kwok[i].Count = 0
		if weights > 0 {
			s.Kwok[i].Count = total * s.Kwok[i].Weight / weights
		}
		left -= s.Kwok[i].Count
	}
	for i := 0; left > 0; i = (i + 1) % len(s.Kwok) {
		if s.Kwok[i].Weight > 0 {
			s.Kwok[i].Count++
			left--
		}
	}
	return s, nil
}

// KwokNodes is the number of simulated nodes.
func (s Shape) KwokNodes() int {
	total := 0
	for _, g := range s.Kwok {
		total += g.Count
	}
	return total
}
