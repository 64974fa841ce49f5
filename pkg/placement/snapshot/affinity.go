// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
)

// Annotated is the pod with another value of one annotation, made anew: node affinity
// that only repeats what the annotations say, for autoscalers (`kubectl spotbench render`
// and the policy that does the same), goes with what it repeats.
func (p Pod) Annotated(name, value string) Pod {
	p.NodeAffinity = p.ownAffinity()
	p.Annotations = maps.Clone(p.Annotations)
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	p.Annotations[name] = value
	return p
}

// RepeatsAnnotations says that the pod's node affinity repeats its annotations. The
// affinity of a pod cannot be changed, so that changing the annotations is not enough.
func (p Pod) RepeatsAnnotations() bool {
	return !equality.Semantic.DeepEqual(p.NodeAffinity, p.ownAffinity())
}

// ownAffinity is the node affinity without what repeats the annotations.
func (p Pod) ownAffinity() *v1.NodeSelector {
	spec, err := benchspec.Parse(p.Annotations)
	if err != nil || p.NodeAffinity == nil {
		return p.NodeAffinity
	}
	repeated := gpu.CapacitySelector(string(spec.Capacity))
	for _, model := range spec.GPUModels {
		for _, selector := range gpu.Selectors(model) {
			repeated = append(repeated, selector...)
		}
	}
	own := new(v1.NodeSelector)
	for _, term := range p.NodeAffinity.NodeSelectorTerms {
		term.MatchExpressions = slices.DeleteFunc(slices.Clone(term.MatchExpressions), func(e v1.NodeSelectorRequirement) bool {
			return slices.ContainsFunc(repeated, func(r gpu.Requirement) bool {
				return r.Key == e.Key && r.Operator == string(e.Operator) && slices.Equal(r.Values, e.Values)
			})
		})
		if len(term.MatchExpressions) == 0 && len(term.MatchFields) == 0 {
			return nil // an alternative that asks for nothing else
		}
		if !slices.ContainsFunc(own.NodeSelectorTerms, func(t v1.NodeSelectorTerm) bool { return equality.Semantic.DeepEqual(t, term) }) {
			own.NodeSelectorTerms = append(own.NodeSelectorTerms, term)
		}
	}
	return own
}
