// SPDX-License-Identifier: Apache-2.0

package pricing_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/pricing"
)

const book = `
prices:
- {provider: aws, instanceType: p5.48xlarge, capacityType: on-demand, usdPerHour: 60, gpuCount: 8, asOf: "2025-01-01", source: anywhere}
- {provider: aws, region: us-east-1, instanceType: p5.48xlarge, capacityType: on-demand, usdPerHour: 55.04, gpuCount: 8, asOf: "2025-07-01", source: list}
- {provider: aws, region: us-east-1, instanceType: p5.48xlarge, capacityType: spot, usdPerHour: 26, gpuCount: 8, asOf: "2025-07-01", source: region}
- {provider: aws, region: us-east-1, zone: us-east-1b, instanceType: p5.48xlarge, capacityType: spot, usdPerHour: 24, gpuCount: 8, asOf: "2025-07-02", source: zone}
`

func pool(region, zone, capacity string) gpu.Pool {
	return gpu.Pool{Provider: "aws", Region: region, Zone: zone, InstanceType: "p5.48xlarge", CapacityType: capacity}
}

func TestLookupFallsBackFromZoneToRegionToType(t *testing.T) {
	b, err := pricing.Parse([]byte(book))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		pool gpu.Pool
		want float64 // 0: unknown
	}{
		"the zone's own price":                         {pool("us-east-1", "us-east-1b", gpu.Spot), 24},
		"another zone has the region's price":          {pool("us-east-1", "us-east-1a", gpu.Spot), 26},
		"a node without zone has the region's price":   {pool("us-east-1", "", gpu.Spot), 26},
		"another region has the type's price":          {pool("eu-west-1", "eu-west-1a", gpu.OnDemand), 60},
		"spot never stands in for on demand elsewhere": {pool("eu-west-1", "eu-west-1a", gpu.Spot), 0},
		"another provider is unknown":                  {gpu.Pool{Provider: "gcp", InstanceType: "p5.48xlarge", CapacityType: gpu.OnDemand}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := b.Lookup(test.pool)
			if got.USDPerHour != test.want || ok != (test.want > 0) {
				t.Errorf("Lookup = %v, %v; want %v", got.USDPerHour, ok, test.want)
			}
		})
	}
	if got, ok := b.OnDemand(pool("us-east-1", "us-east-1b", gpu.Spot)); !ok || got.USDPerHour != 55.04 {
		t.Errorf("OnDemand of a spot pool = %v, %v; want 55.04", got.USDPerHour, ok)
	}
	got, _ := b.Lookup(pool("us-east-1", "us-east-1b", gpu.Spot))
	want := pricing.Price{Provider: "aws", Region: "us-east-1", Zone: "us-east-1b", InstanceType: "p5.48xlarge", CapacityType: gpu.Spot,
		USDPerHour: 24, GPUCount: 8, AsOf: time.Date(2025, 7, 2, 0, 0, 0, 0, time.UTC), Source: "zone"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("price differs (-want +got):\n%s", diff)
	}
}

func TestParseNamesEntryFieldValueAndFix(t *testing.T) {
	right := `{provider: aws, region: us-east-1, instanceType: t, capacityType: spot, usdPerHour: 1, asOf: "2025-07-01", source: s}`
	for name, test := range map[string]struct {
		entries []string
		want    string
	}{
		"no provider":           {[]string{strings.Replace(right, "provider: aws, ", "", 1)}, "field provider is missing"},
		"unknown provider":      {[]string{strings.Replace(right, "aws", "amazon", 1)}, `field provider is "amazon"; write aws, gcp or azure`},
		"no type":               {[]string{strings.Replace(right, "instanceType: t, ", "", 1)}, "field instanceType is missing"},
		"zone without region":   {[]string{strings.Replace(right, "region:", "zone:", 1)}, `field zone is "us-east-1" but field region is missing`},
		"capacity type":         {[]string{strings.Replace(right, "spot", "SPOT", 1)}, `field capacityType is "SPOT"; write spot or on-demand`},
		"no price":              {[]string{strings.Replace(right, "usdPerHour: 1, ", "", 1)}, "field usdPerHour is missing"},
		"a price of zero":       {[]string{strings.Replace(right, "usdPerHour: 1", "usdPerHour: 0", 1)}, "field usdPerHour is 0"},
		"a price per year":      {[]string{strings.Replace(right, "usdPerHour: 1", "usdPerHour: 482150", 1)}, "field usdPerHour is 482150"},
		"a date in other order": {[]string{strings.Replace(right, "2025-07-01", "01.07.2025", 1)}, `field asOf is "01.07.2025"`},
		"no source":             {[]string{strings.Replace(right, ", source: s", "", 1)}, "field source is missing"},
		"a field misspelt":      {[]string{strings.Replace(right, "source", "sauce", 1)}, `unknown field "sauce"`},
		"twice the same pool":   {[]string{right, right}, "price 2 (aws/us-east-1/?/t/spot): an earlier entry has a price for the same pool"},
		"negative GPUs":         {[]string{strings.Replace(right, "asOf", "gpuCount: -8, asOf", 1)}, "field gpuCount is -8"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := pricing.Parse([]byte("prices:\n- " + strings.Join(test.entries, "\n- ") + "\n"))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
	_, err := pricing.Parse([]byte("prices:\n- {provider: x}\n- {provider: y}\n"))
	if err == nil || !strings.Contains(err.Error(), "price 1") || !strings.Contains(err.Error(), "price 2") {
		t.Errorf("error %v, want all entries' problems at once", err)
	}
}

func TestTheShippedBookPricesTheReferencePlatform(t *testing.T) {
	data, err := os.ReadFile("../../manifests/base/scheduler/prices.yaml")
	if err != nil {
		t.Fatal(err)
	}
	b, err := pricing.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	for instanceType, onDemand := range map[string]float64{"p5.48xlarge": 55.04, "p4de.24xlarge": 27.44705, "p4d.24xlarge": 21.958, "g6.12xlarge": 4.6016} {
		p := gpu.Pool{Provider: "aws", Region: "us-east-1", Zone: "us-east-1a", InstanceType: instanceType, CapacityType: gpu.Spot}
		spot, ok := b.Lookup(p)
		list, okList := b.OnDemand(p)
		if !ok || !okList || list.USDPerHour != onDemand || spot.USDPerHour >= list.USDPerHour {
			t.Errorf("%s: spot %v (%v), on demand %v (%v); want %v on demand and less for spot", instanceType, spot.USDPerHour, ok, list.USDPerHour, okList, onDemand)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(book)
	f.Add("prices: [{}]")
	f.Add("prices: {}")
	f.Fuzz(func(t *testing.T, text string) {
		if b, err := pricing.Parse([]byte(text)); err != nil && b.Len() > 0 {
			t.Error("a book that is wrong still has prices")
		}
	})
}
