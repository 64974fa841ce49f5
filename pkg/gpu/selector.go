// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"slices"
	"strconv"
	"strings"
)

// Requirement is one condition on a node's label, with the operators of a native
// node selector: In, NotIn, Gt and Lt.
type Requirement struct {
	Key, Operator string
	Values        []string
}

// Selectors says by labels which nodes have the model: a node that meets all
// requirements of any one list has it. Autoscalers see labels, not annotations.
// The name is one that CanonicalName returns. Spellings in another case than the
// catalogue's, which FromLabels accepts, are not selected: labels match exactly.
func Selectors(name string) [][]Requirement {
	m, known := Lookup(name)
	if card, profile, isSlice := strings.Cut(name, "-MIG-"); isSlice {
		return selectorsOfSlice(card, profile)
	}
	if !known {
		return [][]Requirement{{{LabelProduct, "In", []string{name, name + "-SHARED"}}}}
	}
	var names []string
	for _, spelling := range append([]string{m.Name}, m.Aliases...) {
		names = append(names, strings.ToLower(spelling))
	}
	products, accelerators := spellings(m, "")
	selectors := [][]Requirement{
		{{LabelProduct, "In", products}},
		{{labelKarpenterName, "In", names}},
	}
	if len(accelerators) > 0 {
		selectors = append(selectors, []Requirement{{labelGKEAccelerator, "In", accelerators}})
	}
	// Karpenter's names without a size are told apart by its memory label, in MiB,
	// within the bounds that FromLabels has.
	if short, sized := strings.CutSuffix(m.Name, "-"+gigabytes(m.MemoryBytes)); sized {
		if _, complete := Lookup(short); !complete {
			slack := m.MemoryBytes / 12
			selectors = append(selectors, []Requirement{
				{labelKarpenterName, "In", []string{strings.ToLower(short)}},
				{labelKarpenterMemory, "Gt", []string{strconv.FormatInt((m.MemoryBytes-slack)/mib, 10)}},
				{labelKarpenterMemory, "Lt", []string{strconv.FormatInt((m.MemoryBytes+slack+mib-1)/mib, 10)}},
			})
		}
	}
	return selectors
}

// CapacitySelector says by labels that a node is not of the other kind of capacity than
// the one wanted, Spot or OnDemand; nothing for any other. Each cloud has a label of its
// own, and a node has that of one cloud only: so none is required, the wrong value of
// each is excluded. A cloud that marks nothing but spot nodes (GKE, AKS) is not kept
// from making a node on demand for a pod that wants spot.
func CapacitySelector(wanted string) []Requirement {
	const karpenter, eks, gke = "karpenter.sh/capacity-type", "eks.amazonaws.com/capacityType", "cloud.google.com/gke-provisioning"
	switch wanted {
	case Spot:
		return []Requirement{
			{karpenter, "NotIn", []string{"on-demand", "reserved"}},
			{eks, "NotIn", []string{"ON_DEMAND", "CAPACITY_BLOCK"}},
			{gke, "NotIn", []string{"standard"}},
		}
	case OnDemand:
		return []Requirement{
			{karpenter, "NotIn", []string{"spot"}},
			{eks, "NotIn", []string{"SPOT"}},
			{gke, "NotIn", []string{"spot", "preemptible"}},
			{"cloud.google.com/gke-spot", "NotIn", []string{"true"}},
			{"kubernetes.azure.com/scalesetpriority", "NotIn", []string{"spot"}},
		}
	}
	return nil
}

// spellings of a model in the label of products, with what follows the card's name,
// and in GKE's.
func spellings(m Model, suffix string) (products, accelerators []string) {
	for _, spelling := range append([]string{m.Name}, m.Aliases...) {
		if strings.HasPrefix(spelling, "nvidia-") {
			accelerators = append(accelerators, spelling)
			continue
		}
		spelt := []string{spelling + suffix}
		if !strings.HasPrefix(spelling, "NVIDIA-") {
			spelt = append(spelt, "NVIDIA-"+spelling+suffix)
		}
		for _, p := range spelt {
			products = append(products, p, p+"-SHARED")
		}
	}
	return products, accelerators
}

// selectorsOfSlice are for slices under the strategy "single", where they are the
// node's GPUs, under "mixed", where they have labels of their own, and GKE's.
func selectorsOfSlice(card, profile string) [][]Requirement {
	m, known := Lookup(card)
	if !known {
		m = Model{Name: card}
	}
	products, accelerators := spellings(m, "-MIG-"+profile)
	selectors := [][]Requirement{
		{{LabelProduct, "In", products}},
		{{Resource{Profile: profile}.labels() + ".product", "In", products}},
	}
	if len(accelerators) > 0 {
		selectors = append(selectors, []Requirement{{labelGKEAccelerator, "In", accelerators}, {labelGKEPartition, "In", []string{profile}}})
	}
	return selectors
}

// ProductNames are how NVML may name a card, in lower case and with dashes for blanks.
// The name is one that CanonicalName returns.
func ProductNames(name string) []string {
	m, known := Lookup(name)
	if !known {
		m = Model{Name: name}
	}
	var out []string
	products, _ := spellings(m, "")
	for _, p := range products {
		if lower := strings.ToLower(p); !strings.HasSuffix(lower, "-shared") && !slices.Contains(out, lower) {
			out = append(out, lower)
		}
	}
	return out
}
