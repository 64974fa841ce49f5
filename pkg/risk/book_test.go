// SPDX-License-Identifier: Apache-2.0

package risk_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/risk"
)

const hazards = `
defaults:
  aws: {perHour: 0.03, source: assumed}
pools:
- {provider: aws, region: us-east-1, instanceType: p5.48xlarge, band: ">20%", source: advisor}
- {provider: aws, region: us-east-1, zone: us-east-1b, instanceType: p5.48xlarge, perHour: 0.5, source: records}
`

func TestHazardsFallBackFromZoneToRegionToProvider(t *testing.T) {
	b, err := risk.ParseBook([]byte(hazards))
	if err != nil {
		t.Fatal(err)
	}
	spot := func(provider, region, zone string) gpu.Pool {
		return gpu.Pool{Provider: provider, Region: region, Zone: zone, InstanceType: "p5.48xlarge", CapacityType: gpu.Spot}
	}
	onDemand := spot("aws", "us-east-1", "us-east-1b")
	onDemand.CapacityType = gpu.OnDemand
	for name, test := range map[string]struct {
		pool   gpu.Pool
		hazard float64
		source string
	}{
		"the zone's own":                       {spot("aws", "us-east-1", "us-east-1b"), 0.5, "records"},
		"the region's":                         {spot("aws", "us-east-1", "us-east-1a"), 0.229073, "advisor"},
		"the provider's":                       {spot("aws", "eu-west-1", "eu-west-1a"), 0.03, "assumed"},
		"a provider that is not in the book":   {spot("gcp", "", ""), 0.05, "built-in default for spot capacity"},
		"on-demand capacity is not reclaimed":  {onDemand, 0, "not spot capacity"},
		"a node of unknown provider, but spot": {spot("", "", ""), 0.05, "built-in default for spot capacity"},
	} {
		t.Run(name, func(t *testing.T) {
			got := b.Lookup(test.pool)
			if !near(float64(got.Hazard), test.hazard, 1e-5) || got.Source != test.source {
				t.Errorf("Lookup = %+v, want %v by %q", got, test.hazard, test.source)
			}
		})
	}
}

func TestBandsBecomeHazards(t *testing.T) {
	// -ln(1-0.60)/4 h is once in 4.37 h, about the median of 4.3 h of the traces.
	h, err := risk.HazardOfBand(">20%")
	if err != nil || h.MeanTime().Round(time.Minute) != 4*time.Hour+22*time.Minute {
		t.Errorf("the last band: once in %v (%v), want 4h22m", h.MeanTime(), err)
	}
	last := risk.Hazard(0)
	for _, band := range []string{"<5%", "5-10%", "10-15%", "15-20%", ">20%"} {
		h, err := risk.HazardOfBand(band)
		if err != nil || h <= last {
			t.Errorf("band %s: hazard %v (%v), want more than the band below, %v", band, h, err, last)
		}
		last = h
	}
	if _, err := risk.HazardOfBand("20%"); err == nil || !strings.Contains(err.Error(), "write <5%, 5-10%") {
		t.Errorf("error %v, want one that lists the bands", err)
	}
}

func TestParseBookNamesEntryFieldValueAndFix(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"no source":              {`pools: [{provider: aws, instanceType: t, perHour: 1}]`, "pool 1 (aws/?/?/t/spot): field source is missing"},
		"neither rate nor band":  {`pools: [{provider: aws, instanceType: t, source: s}]`, "write either field perHour"},
		"both rate and band":     {`pools: [{provider: aws, instanceType: t, perHour: 1, band: "<5%", source: s}]`, "write either field perHour"},
		"negative rate":          {`pools: [{provider: aws, instanceType: t, perHour: -1, source: s}]`, "field perHour is -1"},
		"unknown band":           {`pools: [{provider: aws, instanceType: t, band: "0-5%", source: s}]`, `field band: "0-5%" is no band`},
		"no type":                {`pools: [{provider: aws, perHour: 1, source: s}]`, "fields provider and instanceType are needed"},
		"zone without region":    {`pools: [{provider: aws, zone: z, instanceType: t, perHour: 1, source: s}]`, `field zone is "z" but field region is missing`},
		"twice the same pool":    {`pools: [{provider: aws, instanceType: t, perHour: 1, source: s}, {provider: aws, instanceType: t, perHour: 2, source: s}]`, "pool 2"},
		"a default without rate": {`defaults: {gcp: {source: s}}`, `default of provider "gcp"`},
		"a field misspelt":       {`pools: [{provder: aws}]`, `unknown field "provder"`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := risk.ParseBook([]byte(test.text)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestTheShippedHazardsAreReadable(t *testing.T) {
	data, err := os.ReadFile("../../manifests/base/scheduler/hazards.yaml")
	if err != nil {
		t.Fatal(err)
	}
	b, err := risk.ParseBook(data)
	if err != nil {
		t.Fatal(err)
	}
	p := gpu.Pool{Provider: "aws", Region: "us-east-1", Zone: "us-east-1b", InstanceType: "p5.48xlarge", CapacityType: gpu.Spot}
	if got := b.Lookup(p); got.Source != "Spot Instance Advisor" {
		t.Errorf("p5.48xlarge: %+v, want the Advisor's band", got)
	}
}

func FuzzParseBook(f *testing.F) {
	f.Add(hazards)
	f.Add("pools: [{}]\ndefaults: {'': {}}")
	f.Fuzz(func(t *testing.T, text string) {
		b, err := risk.ParseBook([]byte(text))
		if err != nil {
			return
		}
		if h := b.Lookup(gpu.Pool{Provider: "aws", InstanceType: "t", CapacityType: gpu.Spot}).Hazard; !(h >= 0 && h <= 60) {
			t.Errorf("hazard %v", h)
		}
	})
}
