// SPDX-License-Identifier: Apache-2.0

package risk

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/gpu"
)

// band is a class of AWS's Spot Instance Advisor.
type band struct {
	name string
	// frequency is the band's middle.
	frequency float64
}

// bands are the Advisor's. A band is the share of instances that were interrupted
// in the trailing month, not a rate: it does not say how long they had run.
// exposure, the time that turns one into the other, is chosen so that the last
// band agrees with the mean time to reclaim of the nine p3.2xlarge pools of the
// public traces of February 2023 (median 4.3 h), all of which the Advisor lists in
// that band: -ln(1-0.60)/4h is once in 4.4 hours.
var bands = []band{
	{"<5%", 0.025}, {"5-10%", 0.075}, {"10-15%", 0.125}, {"15-20%", 0.175}, {">20%", 0.60},
}

const exposureHours = 4

// HazardOfBand turns a band of the Spot Instance Advisor (by its label, such as
// "5-10%") into a hazard.
func HazardOfBand(label string) (Hazard, error) {
	names := make([]string, 0, len(bands))
	for _, b := range bands {
		if b.name == label {
			return Hazard(-math.Log1p(-b.frequency) / exposureHours), nil
		}
		names = append(names, b.name)
	}
	return 0, fmt.Errorf("%q is no band of the Spot Instance Advisor; write %s", label, strings.Join(names, ", "))
}

// Book holds hazards by pool and, where a pool is missing, by provider.
type Book struct {
	pools    map[gpu.Pool]Evidence
	defaults map[string]Evidence
}

// Evidence is a hazard and where it is from.
type Evidence struct {
	Hazard Hazard
	Source string
}

type document struct {
	// Defaults has, by provider, the hazard of spot pools without an entry; the
	// provider "" is for nodes whose provider is not known.
	Defaults map[string]rate `json:"defaults"`
	Pools    []entry         `json:"pools"`
}

type rate struct {
	PerHour *float64 `json:"perHour"`
	Band    string   `json:"band"`
	Source  string   `json:"source"`
}

type entry struct {
	Provider     string `json:"provider"`
	Region       string `json:"region"`
	Zone         string `json:"zone"`
	InstanceType string `json:"instanceType"`
	rate
}

// fallback holds for providers without a default: once in twenty hours, between
// the Advisor's middle bands.
var fallback = Evidence{Hazard: 0.05, Source: "built-in default for spot capacity"}

// ParseBook reads hazards of spot pools from YAML:
//
//	defaults:
//	  aws: {band: "10-15%", source: assumed}
//	pools:
//	- {provider: aws, region: us-east-1, instanceType: p5.48xlarge, band: ">20%", source: Spot Instance Advisor}
//	- {provider: aws, region: us-east-1, zone: us-east-1b, instanceType: p5.48xlarge, perHour: 0.1, source: own records}
//
// It reports everything wrong at once.
func ParseBook(data []byte) (Book, error) {
	var doc document
	if err := yaml.UnmarshalStrict(data, &doc); err != nil {
		return Book{}, fmt.Errorf("the hazards are not as expected (\"defaults\" by provider and a list under \"pools\"): %w", err)
	}
	book := Book{pools: map[gpu.Pool]Evidence{}, defaults: map[string]Evidence{}}
	var problems []error
	for provider, r := range doc.Defaults {
		evidence, err := r.evidence()
		if err != nil {
			problems = append(problems, fmt.Errorf("default of provider %q: %w", provider, err))
		}
		book.defaults[provider] = evidence
	}
	for i, e := range doc.Pools {
		pool := gpu.Pool{Provider: e.Provider, Region: e.Region, Zone: e.Zone, InstanceType: e.InstanceType, CapacityType: gpu.Spot}
		evidence, err := e.evidence()
		switch {
		case err != nil:
		case e.Provider == "" || e.InstanceType == "":
			err = errors.New("fields provider and instanceType are needed; write for example aws and p5.48xlarge")
		case e.Zone != "" && e.Region == "":
			err = fmt.Errorf("field zone is %q but field region is missing; write the zone's region", e.Zone)
		default:
			if _, twice := book.pools[pool]; twice {
				err = errors.New("an earlier entry has a hazard for the same pool; keep one of them")
			}
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("pool %d (%s): %w", i+1, pool, err))
			continue
		}
		book.pools[pool] = evidence
	}
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	if err := errors.Join(problems...); err != nil {
		return Book{}, err
	}
	return book, nil
}

func (r rate) evidence() (Evidence, error) {
	switch {
	case r.Source == "":
		return Evidence{}, errors.New("field source is missing; write where the hazard is from")
	case (r.PerHour == nil) == (r.Band == ""):
		return Evidence{}, errors.New("write either field perHour (interruptions per hour) or field band (of the Spot Instance Advisor)")
	case r.PerHour != nil:
		if !(*r.PerHour >= 0) || *r.PerHour > 60 {
			return Evidence{}, fmt.Errorf("field perHour is %v; write interruptions per hour, from 0 to 60", *r.PerHour)
		}
		return Evidence{Hazard: Hazard(*r.PerHour), Source: r.Source}, nil
	default:
		h, err := HazardOfBand(r.Band)
		if err != nil {
			return Evidence{}, fmt.Errorf("field band: %w", err)
		}
		return Evidence{Hazard: h, Source: r.Source}, nil
	}
}

// Lookup is the hazard of a pool: its zone's, its region's, its instance type's,
// else its provider's default. Capacity that is not spot is never reclaimed.
func (b Book) Lookup(pool gpu.Pool) Evidence {
	if pool.CapacityType != gpu.Spot {
		return Evidence{Source: "not spot capacity"}
	}
	for _, p := range pool.Wider() {
		if e, ok := b.pools[p]; ok {
			return e
		}
	}
	if e, ok := b.defaults[pool.Provider]; ok {
		return e
	}
	return fallback
}
