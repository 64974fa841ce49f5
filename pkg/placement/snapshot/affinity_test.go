// SPDX-License-Identifier: Apache-2.0

package snapshot_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement/snapshot"
)

// repeating is the affinity of a pod that names the models, joined with what it asks for besides.
func repeating(capacity string, besides []v1.NodeSelectorRequirement, models ...string) *v1.NodeSelector {
	selector := new(v1.NodeSelector)
	add := func(requirements []gpu.Requirement) {
		term := v1.NodeSelectorTerm{MatchExpressions: append([]v1.NodeSelectorRequirement{}, besides...)}
		for _, r := range append(requirements, gpu.CapacitySelector(capacity)...) {
			term.MatchExpressions = append(term.MatchExpressions, v1.NodeSelectorRequirement{Key: r.Key, Operator: v1.NodeSelectorOperator(r.Operator), Values: r.Values})
		}
		selector.NodeSelectorTerms = append(selector.NodeSelectorTerms, term)
	}
	for _, m := range models {
		for _, s := range gpu.Selectors(m) {
			add(s)
		}
	}
	if len(models) == 0 {
		add(nil)
	}
	return selector
}

func TestAPodMadeAnewDoesNotKeepTheAffinityThatRepeatsItsOldAnnotations(t *testing.T) {
	zone := []v1.NodeSelectorRequirement{{Key: v1.LabelTopologyZone, Operator: v1.NodeSelectorOpIn, Values: []string{"a"}}}
	inZone := &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{MatchExpressions: zone}}}
	model, capacity := benchspec.AnnotationGPUModel, benchspec.AnnotationCapacity
	for name, test := range map[string]struct {
		annotations map[string]string
		affinity    *v1.NodeSelector
		repeats     bool
		want        *v1.NodeSelector
	}{
		"none":                            {map[string]string{model: "H100-80GB"}, nil, false, nil},
		"its own":                         {map[string]string{model: "H100-80GB"}, inZone, false, inZone},
		"models":                          {map[string]string{model: "H100-80GB, L4"}, repeating("", nil, "H100-80GB", "L4-24GB"), true, nil},
		"models and capacity":             {map[string]string{model: "H100-80GB", capacity: "spot"}, repeating("spot", nil, "H100-80GB"), true, nil},
		"capacity alone":                  {map[string]string{capacity: "on-demand"}, repeating("on-demand", nil), true, nil},
		"models joined with its own":      {map[string]string{model: "H100-80GB"}, repeating("", zone, "H100-80GB"), true, inZone},
		"a model that it no longer names": {map[string]string{model: "L4"}, repeating("", nil, "H100-80GB"), false, repeating("", nil, "H100-80GB")},
		"annotations that cannot be read": {map[string]string{model: "H100"}, repeating("", nil, "H100-80GB"), false, repeating("", nil, "H100-80GB")},
	} {
		t.Run(name, func(t *testing.T) {
			pod := snapshot.Pod{Annotations: test.annotations, NodeAffinity: test.affinity}
			if got := pod.RepeatsAnnotations(); got != test.repeats {
				t.Errorf("repeats its annotations: %t, want %t", got, test.repeats)
			}
			anew := pod.Annotated(benchspec.AnnotationIsolation, "none")
			if diff := cmp.Diff(test.want, anew.NodeAffinity); diff != "" {
				t.Errorf("affinity (-want +got):\n%s", diff)
			}
			if anew.Annotations[benchspec.AnnotationIsolation] != "none" || pod.Annotations[benchspec.AnnotationIsolation] != "" {
				t.Error("the annotation is to be changed in the new pod only")
			}
		})
	}
}
