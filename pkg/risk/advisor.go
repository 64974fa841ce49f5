// SPDX-License-Identifier: Apache-2.0

package risk

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Advisor is AWS's Spot Instance Advisor: by region, operating system and instance
// type, the band of how many instances were interrupted in the trailing month.
type Advisor struct {
	bands   map[int]string
	regions map[string]map[string]map[string]advice
}

// advice is what the Advisor says of one instance type.
type advice struct {
	// Saved is the percentage below the on-demand price; it may be negative.
	Saved int `json:"s"`
	// Range is the index of a band.
	Range *int `json:"r"`
}

// ParseAdvisor reads the Advisor's JSON, as AWS publishes it (spot-advisor-data.json).
// Bands that this package has no frequency for are an error: to guess one would be
// to invent a risk.
func ParseAdvisor(data []byte) (Advisor, error) {
	var doc struct {
		Ranges []struct {
			Index *int   `json:"index"`
			Label string `json:"label"`
		} `json:"ranges"`
		Advice map[string]map[string]map[string]advice `json:"spot_advisor"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return Advisor{}, fmt.Errorf("the Spot Instance Advisor's data is not the JSON expected: %w", err)
	}
	if len(doc.Ranges) == 0 || len(doc.Advice) == 0 {
		return Advisor{}, errors.New(`the Spot Instance Advisor's data has no "ranges" or no "spot_advisor"; is it spot-advisor-data.json?`)
	}
	a := Advisor{bands: map[int]string{}, regions: doc.Advice}
	for i, r := range doc.Ranges {
		if r.Index == nil {
			return Advisor{}, fmt.Errorf("ranges[%d] (%q) has no index", i, r.Label)
		}
		if _, err := HazardOfBand(r.Label); err != nil {
			return Advisor{}, fmt.Errorf("ranges[%d]: %w", i, err)
		}
		a.bands[*r.Index] = r.Label
	}
	return a, nil
}

// Band is the band of a Linux instance type in a region, such as "5-10%"; ok is false
// when the Advisor does not list it.
func (a Advisor) Band(region, instanceType string) (label string, ok bool) {
	listed, ok := a.regions[region]["Linux"][instanceType]
	if !ok || listed.Range == nil {
		return "", false
	}
	label, ok = a.bands[*listed.Range]
	return label, ok
}

// Hazards writes the hazards of instance types in a region in the form that ParseBook
// reads, and says which the Advisor does not list.
func (a Advisor) Hazards(region string, instanceTypes []string, source string) (book string, missing []string, err error) {
	if _, known := a.regions[region]; !known {
		return "", nil, fmt.Errorf("region %q is not in the Spot Instance Advisor's data; it has %s", region, strings.Join(slices.Sorted(maps.Keys(a.regions)), ", "))
	}
	var b strings.Builder
	b.WriteString("pools:\n")
	found := 0
	for _, t := range instanceTypes {
		band, ok := a.Band(region, t)
		if !ok {
			missing = append(missing, t)
			continue
		}
		found++
		fmt.Fprintf(&b, "  - {provider: aws, region: %s, instanceType: %s, band: %q, source: %q}\n", region, t, band, source)
	}
	if found == 0 {
		return "", missing, fmt.Errorf("none of %s is in the Spot Instance Advisor's data of %s", strings.Join(instanceTypes, ", "), region)
	}
	return b.String(), missing, nil
}
