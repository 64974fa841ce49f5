// SPDX-License-Identifier: Apache-2.0

// Package pricing is the price book: what a pool's instance costs by the hour,
// since when and according to whom.
//
// It is pure: the caller reads the file. A price that is not in the book is
// unknown, never invented.
package pricing

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/gpu"
)

// Price is one entry of the book. Empty Zone means every zone of the region,
// empty Region every region.
type Price struct {
	Provider     string `json:"provider"`
	Region       string `json:"region,omitempty"`
	Zone         string `json:"zone,omitempty"`
	InstanceType string `json:"instanceType"`
	// CapacityType is "spot" or "on-demand".
	CapacityType string `json:"capacityType"`
	// USDPerHour is the price of the whole instance.
	USDPerHour float64 `json:"usdPerHour"`
	// GPUCount is how many GPUs that pays for; 0 for an instance without.
	GPUCount int `json:"gpuCount,omitempty"`
	// AsOf is when the price was true, Source who said so.
	AsOf   time.Time `json:"asOf"`
	Source string    `json:"source"`
}

// Pool is what the price is for.
func (p Price) Pool() gpu.Pool {
	return gpu.Pool{Provider: p.Provider, Region: p.Region, Zone: p.Zone, InstanceType: p.InstanceType, CapacityType: p.CapacityType}
}

// Book holds prices by pool. The zero Book knows none.
type Book struct {
	prices map[gpu.Pool]Price
}

// document is the file's form.
type document struct {
	Prices []entry `json:"prices"`
}

// entry is Price as written: a day or a time, and a pointer where "not said" must not
// pass for zero.
type entry struct {
	Provider     string   `json:"provider"`
	Region       string   `json:"region,omitempty"`
	Zone         string   `json:"zone,omitempty"`
	InstanceType string   `json:"instanceType"`
	CapacityType string   `json:"capacityType"`
	USDPerHour   *float64 `json:"usdPerHour"`
	GPUCount     int      `json:"gpuCount,omitempty"`
	AsOf         string   `json:"asOf"`
	Source       string   `json:"source"`
}

// dearest bounds prices per hour: the dearest instances cost a few hundred
// dollars; more is a misplaced point.
const dearest = 10_000

// Parse reads a book from YAML:
//
//	prices:
//	- {provider: aws, region: us-east-1, instanceType: p5.48xlarge, capacityType: on-demand,
//	   usdPerHour: 55.04, gpuCount: 8, asOf: "2026-08-01", source: EC2 price list}
//
// It reports everything wrong at once, each with the entry's number (from 1), the
// field, its value and what to write.
func Parse(data []byte) (Book, error) {
	var doc document
	if err := yaml.UnmarshalStrict(data, &doc); err != nil {
		return Book{}, fmt.Errorf("the price book is not as expected (a list under \"prices\"): %w", err)
	}
	book := Book{prices: make(map[gpu.Pool]Price, len(doc.Prices))}
	var problems []error
	for i, e := range doc.Prices {
		price, err := e.price()
		if err != nil {
			problems = append(problems, fmt.Errorf("price %d (%s): %w", i+1, price.Pool(), err))
			continue
		}
		if _, twice := book.prices[price.Pool()]; twice {
			problems = append(problems, fmt.Errorf("price %d (%s): an earlier entry has a price for the same pool; keep one of them", i+1, price.Pool()))
			continue
		}
		book.prices[price.Pool()] = price
	}
	if err := errors.Join(problems...); err != nil {
		return Book{}, err
	}
	return book, nil
}

func (e entry) price() (Price, error) {
	p := Price{Provider: e.Provider, Region: e.Region, Zone: e.Zone, InstanceType: e.InstanceType,
		CapacityType: e.CapacityType, GPUCount: e.GPUCount, Source: e.Source}
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	switch e.Provider {
	case "aws", "gcp", "azure", "":
		if e.Provider == "" {
			bad(`field provider is missing; write aws, gcp or azure`)
		}
	default:
		bad(`field provider is %q; write aws, gcp or azure`, e.Provider)
	}
	if e.InstanceType == "" {
		bad("field instanceType is missing; write for example p5.48xlarge")
	}
	if e.Zone != "" && e.Region == "" {
		bad("field zone is %q but field region is missing; write the zone's region", e.Zone)
	}
	if e.CapacityType != gpu.Spot && e.CapacityType != gpu.OnDemand {
		bad("field capacityType is %q; write %s or %s", e.CapacityType, gpu.Spot, gpu.OnDemand)
	}
	switch {
	case e.USDPerHour == nil:
		bad("field usdPerHour is missing; write the whole instance's price per hour, for example 55.04")
	case !(*e.USDPerHour > 0) || *e.USDPerHour > dearest || math.IsNaN(*e.USDPerHour):
		bad("field usdPerHour is %v; write a price above 0 and at most %d", *e.USDPerHour, dearest)
	default:
		p.USDPerHour = *e.USDPerHour
	}
	if e.GPUCount < 0 {
		bad("field gpuCount is %d; write the instance's number of GPUs, 0 for none", e.GPUCount)
	}
	var err error
	if p.AsOf, err = time.Parse(time.DateOnly, e.AsOf); err != nil {
		if p.AsOf, err = time.Parse(time.RFC3339, e.AsOf); err != nil {
			bad(`field asOf is %q; write the day or the time the price was true, for example "2026-08-01" or "2026-08-01T18:00:00Z"`, e.AsOf)
		}
	}
	p.AsOf = p.AsOf.UTC()
	if e.Source == "" {
		bad("field source is missing; write where the price is from")
	}
	return p, errors.Join(problems...)
}

// Lookup finds the price for a pool: its zone's, else its region's, else the
// instance type's. ok is false when the book has none.
func (b Book) Lookup(pool gpu.Pool) (price Price, ok bool) {
	for _, p := range pool.Wider() {
		if price, ok = b.prices[p]; ok {
			return price, true
		}
	}
	return Price{}, false
}

// OnDemand finds what the same instance in the same place costs on demand.
func (b Book) OnDemand(pool gpu.Pool) (Price, bool) {
	pool.CapacityType = gpu.OnDemand
	return b.Lookup(pool)
}

// OlderThan lists the prices that were true before a time, the oldest first: what
// is reckoned with them may be wrong by now.
func (b Book) OlderThan(t time.Time) []Price {
	var old []Price
	for _, p := range b.prices {
		if p.AsOf.Before(t) {
			old = append(old, p)
		}
	}
	slices.SortFunc(old, func(a, b Price) int {
		return cmp.Or(a.AsOf.Compare(b.AsOf), strings.Compare(a.Pool().String(), b.Pool().String()))
	})
	return old
}

// Format writes prices as the YAML that Parse reads.
func Format(prices []Price) ([]byte, error) {
	doc := document{Prices: make([]entry, 0, len(prices))}
	for _, p := range prices {
		doc.Prices = append(doc.Prices, p.entry())
	}
	return yaml.Marshal(doc)
}

func (p Price) entry() entry {
	asOf := p.AsOf.UTC().Format(time.RFC3339)
	if p.AsOf.Equal(p.AsOf.UTC().Truncate(24 * time.Hour)) {
		asOf = p.AsOf.UTC().Format(time.DateOnly)
	}
	return entry{Provider: p.Provider, Region: p.Region, Zone: p.Zone, InstanceType: p.InstanceType, CapacityType: p.CapacityType,
		USDPerHour: &p.USDPerHour, GPUCount: p.GPUCount, AsOf: asOf, Source: p.Source}
}

// Validate says what keeps the price out of a book.
func (p Price) Validate() error {
	if _, err := p.entry().price(); err != nil {
		return fmt.Errorf("price of %s: %w", p.Pool(), err)
	}
	return nil
}

// Prices are all prices of the book in a fixed order.
func (b Book) Prices() []Price {
	return slices.SortedFunc(maps.Values(b.prices), func(a, b Price) int { return strings.Compare(a.Pool().String(), b.Pool().String()) })
}

// Len is the number of prices in the book.
func (b Book) Len() int { return len(b.prices) }
