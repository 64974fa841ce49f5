// SPDX-License-Identifier: Apache-2.0

package gpu_test

import (
	"slices"
	"strconv"
	"testing"

	"github.com/spotbench/spotbench/pkg/gpu"
)

func TestEveryNodeThatASelectorFindsHasTheModel(t *testing.T) {
	for _, m := range gpu.Models() {
		for _, selector := range gpu.Selectors(m.Name) {
			for _, value := range selector[0].Values {
				labels := map[string]string{selector[0].Key: value}
				for _, r := range selector[1:] {
					bound, err := strconv.Atoi(r.Values[0])
					if err != nil {
						t.Fatal(err)
					}
					// The first whole number inside each bound.
					inside := bound + 1
					if r.Operator == "Lt" {
						inside = bound - 1
					}
					labels[r.Key] = strconv.Itoa(inside)
					if n, _ := gpu.FromLabels(labels); n.Model != m.Name {
						t.Errorf("labels %v are of %s, selected for %s", labels, n.Model, m.Name)
					}
				}
				if n, _ := gpu.FromLabels(labels); n.Model != m.Name {
					t.Errorf("labels %v are of %s, selected for %s", labels, n.Model, m.Name)
				}
			}
		}
	}
}

func TestACapacitySelectorLetsNoNodeOfTheOtherKindPassThatItsCloudMarks(t *testing.T) {
	for name, test := range map[string]struct {
		labels         map[string]string
		spot, onDemand bool
	}{
		"a node without a cloud":             {nil, true, true},
		"Karpenter's spot node":              {map[string]string{"karpenter.sh/capacity-type": "spot"}, true, false},
		"Karpenter's on-demand node":         {map[string]string{"karpenter.sh/capacity-type": "on-demand"}, false, true},
		"Karpenter's reserved node":          {map[string]string{"karpenter.sh/capacity-type": "reserved"}, false, true},
		"EKS' spot node":                     {map[string]string{"eks.amazonaws.com/capacityType": "SPOT"}, true, false},
		"EKS' on-demand node":                {map[string]string{"eks.amazonaws.com/capacityType": "ON_DEMAND"}, false, true},
		"EKS' capacity block":                {map[string]string{"eks.amazonaws.com/capacityType": "CAPACITY_BLOCK"}, false, true},
		"GKE's spot node":                    {map[string]string{"cloud.google.com/gke-spot": "true", "cloud.google.com/gke-provisioning": "spot"}, true, false},
		"GKE's preemptible node":             {map[string]string{"cloud.google.com/gke-preemptible": "true", "cloud.google.com/gke-provisioning": "preemptible"}, true, false},
		"GKE's standard node":                {map[string]string{"cloud.google.com/gke-provisioning": "standard"}, false, true},
		"AKS' spot node":                     {map[string]string{"kubernetes.azure.com/scalesetpriority": "spot"}, true, false},
		"AKS' other node, which is unmarked": {map[string]string{"kubernetes.azure.com/mode": "user"}, true, true},
	} {
		for capacity, want := range map[string]bool{gpu.Spot: test.spot, gpu.OnDemand: test.onDemand} {
			selected := true
			for _, r := range gpu.CapacitySelector(capacity) {
				if r.Operator != "NotIn" {
					t.Fatalf("operator %s of %s", r.Operator, r.Key)
				}
				value, has := test.labels[r.Key]
				selected = selected && (!has || !slices.Contains(r.Values, value))
			}
			if selected != want {
				t.Errorf("%s, wanted %s: selected %t", name, capacity, selected)
			}
			// Never a node that the scheduler would take.
			if is := gpu.NodePool(test.labels, "").CapacityType; is == capacity && !selected {
				t.Errorf("%s: the scheduler says it is %s, and it is not selected", name, is)
			}
		}
	}
	if r := gpu.CapacitySelector("any"); r != nil {
		t.Errorf("any capacity selects by %v", r)
	}
}
