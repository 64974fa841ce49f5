// SPDX-License-Identifier: Apache-2.0

package gpu_test

import (
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
