// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"strconv"
	"strings"
)

// Requirement is one condition on a node's label, with the operators of a native
// node selector: In, Gt and Lt.
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
	if !known {
		return [][]Requirement{{{LabelProduct, "In", []string{name, name + "-SHARED"}}}}
	}
	var products, accelerators, names []string
	for _, spelling := range append([]string{m.Name}, m.Aliases...) {
		lower := strings.ToLower(spelling)
		names = append(names, lower)
		if strings.HasPrefix(spelling, "nvidia-") {
			accelerators = append(accelerators, spelling)
			continue
		}
		for _, p := range []string{spelling, "NVIDIA-" + spelling} {
			products = append(products, p, p+"-SHARED")
		}
	}
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
