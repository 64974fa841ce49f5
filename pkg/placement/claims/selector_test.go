// SPDX-License-Identifier: Apache-2.0

package claims_test

import (
	"strings"
	"testing"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/claims"
)

// selected says whether a claim with a selector may be given a device.
func selected(selector string, d claims.Device) bool {
	asks := []claims.Ask{ask(1, selector)}
	return claims.See(wants(asks), placement.Node{}, asks, []claims.Device{d}).TotalGPUs == 1
}

func TestASelectorSelectsItsModelsByEveryNameOfTheirs(t *testing.T) {
	for _, m := range gpu.Models() {
		selector := claims.Selector([]string{m.Name})
		for _, other := range gpu.Models() {
			for _, alias := range other.Aliases {
				if strings.HasPrefix(alias, "nvidia-") {
					continue // GKE's, which no driver says
				}
				product := "NVIDIA " + strings.ReplaceAll(alias, "-", " ")
				if got := selected(selector, card("a", product)); got != (other.Name == m.Name) {
					t.Errorf("selected for %s: %q is %v", m.Name, product, got)
				}
			}
		}
	}
}

func TestASelectorTellsSlicesFromCards(t *testing.T) {
	for name, test := range map[string]struct {
		models []string
		device claims.Device
		want   bool
	}{
		"the second of two models":            {[]string{"H100-80GB", "A100-80GB"}, card("a", a100), true},
		"a slice of a card that is named":     {[]string{"A100-80GB"}, slice("s", "a", a100, "1g.10gb"), true},
		"the slice that is named":             {[]string{"A100-80GB-MIG-1g.10gb"}, slice("s", "a", a100, "1g.10gb"), true},
		"with attributes":                     {[]string{"A100-80GB-MIG-1g.10gb.me"}, slice("s", "a", a100, "1g.10gb+me"), true},
		"another slice":                       {[]string{"A100-80GB-MIG-1g.10gb"}, slice("s", "a", a100, "2g.20gb"), false},
		"the whole card of a slice":           {[]string{"A100-80GB-MIG-1g.10gb"}, card("a", a100), false},
		"a slice of another card":             {[]string{"A100-80GB-MIG-1g.10gb"}, slice("s", "a", h100, "1g.10gb"), false},
		"a card that the catalogue lacks":     {[]string{"NVIDIA-GB10"}, card("a", "NVIDIA GB10"), true},
		"a card that is not named":            {[]string{"L4-24GB"}, card("a", a100), false},
		"a slice or another card, as a slice": {[]string{"A100-80GB-MIG-1g.10gb", "L4-24GB"}, card("a", l4), true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := selected(claims.Selector(test.models), test.device); got != test.want {
				t.Errorf("selected %v by %s", got, claims.Selector(test.models))
			}
		})
	}
}
