// SPDX-License-Identifier: Apache-2.0

package pricefeed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/pricing"
)

// GCP puts the price of a machine type together from Google's public list, which
// has prices of a core, of a GiB of memory and of a GPU only. Local disks that come
// with some types are not in it.
type GCP struct {
	Options
	// Key is an API key with the Cloud Billing API enabled.
	Key string
}

// machineType is what a machine of Google's is made of.
type machineType struct {
	// family is as in SKU descriptions: "A3 Instance Core running in …".
	family    string
	cores     float64
	memoryGiB float64
	// accelerator is as in SKU descriptions: "Nvidia H100 80GB GPU running in …".
	accelerator string
	gpus        int
}

// machineTypes are Google's GPU machine types that this list can price.
var machineTypes = map[string]machineType{
	"a2-highgpu-1g":  {"A2", 12, 85, "Nvidia Tesla A100 GPU", 1},
	"a2-highgpu-2g":  {"A2", 24, 170, "Nvidia Tesla A100 GPU", 2},
	"a2-highgpu-4g":  {"A2", 48, 340, "Nvidia Tesla A100 GPU", 4},
	"a2-highgpu-8g":  {"A2", 96, 680, "Nvidia Tesla A100 GPU", 8},
	"a2-megagpu-16g": {"A2", 96, 1360, "Nvidia Tesla A100 GPU", 16},
	"a2-ultragpu-1g": {"A2", 12, 170, "Nvidia Tesla A100 80GB GPU", 1},
	"a2-ultragpu-2g": {"A2", 24, 340, "Nvidia Tesla A100 80GB GPU", 2},
	"a2-ultragpu-4g": {"A2", 48, 680, "Nvidia Tesla A100 80GB GPU", 4},
	"a2-ultragpu-8g": {"A2", 96, 1360, "Nvidia Tesla A100 80GB GPU", 8},
	"a3-highgpu-1g":  {"A3", 26, 234, "Nvidia H100 80GB GPU", 1},
	"a3-highgpu-2g":  {"A3", 52, 468, "Nvidia H100 80GB GPU", 2},
	"a3-highgpu-4g":  {"A3", 104, 936, "Nvidia H100 80GB GPU", 4},
	"a3-highgpu-8g":  {"A3", 208, 1872, "Nvidia H100 80GB GPU", 8},
	"g2-standard-4":  {"G2", 4, 16, "Nvidia L4 GPU", 1},
	"g2-standard-8":  {"G2", 8, 32, "Nvidia L4 GPU", 1},
	"g2-standard-12": {"G2", 12, 48, "Nvidia L4 GPU", 1},
	"g2-standard-16": {"G2", 16, 64, "Nvidia L4 GPU", 1},
	"g2-standard-24": {"G2", 24, 96, "Nvidia L4 GPU", 2},
	"g2-standard-32": {"G2", 32, 128, "Nvidia L4 GPU", 1},
	"g2-standard-48": {"G2", 48, 192, "Nvidia L4 GPU", 4},
	"g2-standard-96": {"G2", 96, 384, "Nvidia L4 GPU", 8},
}

type gcpPage struct {
	SKUs []struct {
		Description    string   `json:"description"`
		ServiceRegions []string `json:"serviceRegions"`
		Category       struct {
			UsageType string `json:"usageType"`
		} `json:"category"`
		PricingInfo []struct {
			EffectiveTime     time.Time `json:"effectiveTime"`
			PricingExpression struct {
				UsageUnit   string `json:"usageUnit"`
				TieredRates []struct {
					UnitPrice struct {
						CurrencyCode string `json:"currencyCode"`
						Units        string `json:"units"`
						Nanos        int64  `json:"nanos"`
					} `json:"unitPrice"`
				} `json:"tieredRates"`
			} `json:"pricingExpression"`
		} `json:"pricingInfo"`
	} `json:"skus"`
	NextPageToken string `json:"nextPageToken"`
}

// part is a component of machines by how it is bought.
type part struct{ name, capacity string }

type rate struct {
	usd  float64
	asOf time.Time
}

// Prices are of the machine types whose every part the list has. Types that this
// package does not know are an error that names those it does.
func (g GCP) Prices(ctx context.Context, q Query) ([]pricing.Price, error) {
	if q.Region == "" || len(q.InstanceTypes) == 0 {
		return nil, errors.New("prices of Google are asked for by region and machine types; give for example us-central1 and a3-highgpu-8g")
	}
	for _, t := range q.InstanceTypes {
		if _, known := machineTypes[t]; !known {
			return nil, fmt.Errorf("machine type %q cannot be priced from Google's list; those that can are %s", t, strings.Join(slices.Sorted(maps.Keys(machineTypes)), ", "))
		}
	}
	rates, err := g.rates(ctx, q.Region)
	if err != nil {
		return nil, err
	}
	found := map[gpu.Pool]pricing.Price{}
	for _, name := range q.InstanceTypes {
		m := machineTypes[name]
		for _, capacity := range []string{gpu.Spot, gpu.OnDemand} {
			core, coreKnown := rates[part{m.family + " Instance Core", capacity}]
			memory, memoryKnown := rates[part{m.family + " Instance Ram", capacity}]
			card, cardKnown := rates[part{m.accelerator, capacity}]
			if !coreKnown || !memoryKnown || !cardKnown {
				continue // not for sale there
			}
			p := pricing.Price{Provider: "gcp", Region: q.Region, InstanceType: name, CapacityType: capacity, GPUCount: m.gpus,
				USDPerHour: m.cores*core.usd + m.memoryGiB*memory.usd + float64(m.gpus)*card.usd, Source: "Google Cloud billing catalog"}
			p.AsOf = slices.MaxFunc([]rate{core, memory, card}, func(a, b rate) int { return a.asOf.Compare(b.asOf) }).asOf.UTC()
			found[p.Pool()] = p
		}
	}
	return checked(found)
}

// rates reads the prices of parts in a region; 6F81-5844-456A is Compute Engine.
func (g GCP) rates(ctx context.Context, region string) (map[part]rate, error) {
	out := map[part]rate{}
	token := ""
	for range mostPages {
		query := url.Values{"currencyCode": {"USD"}, "pageSize": {"5000"}}
		if g.Key != "" {
			query.Set("key", g.Key)
		}
		if token != "" {
			query.Set("pageToken", token)
		}
		var page gcpPage
		if err := getJSON(ctx, g.client(), g.endpoint("https://cloudbilling.googleapis.com")+"/v1/services/6F81-5844-456A/skus?"+query.Encode(), &page); err != nil {
			return nil, hideKey(err, g.Key)
		}
		for _, sku := range page.SKUs {
			name, ok := partOf(sku.Description)
			if !ok || !slices.Contains(sku.ServiceRegions, region) || len(sku.PricingInfo) == 0 {
				continue
			}
			capacity, ok := map[string]string{"OnDemand": gpu.OnDemand, "Preemptible": gpu.Spot}[sku.Category.UsageType]
			if !ok {
				continue // committed use
			}
			info := sku.PricingInfo[0]
			if unit := info.PricingExpression.UsageUnit; unit != "h" && unit != "GiBy.h" {
				continue
			}
			// The last tier is the price of every further hour.
			tiers := info.PricingExpression.TieredRates
			if len(tiers) == 0 {
				continue
			}
			price := tiers[len(tiers)-1].UnitPrice
			units, err := strconv.ParseInt(cmp.Or(price.Units, "0"), 10, 64)
			usd := float64(units) + float64(price.Nanos)/1e9
			if err != nil || price.CurrencyCode != "USD" || !(usd > 0) {
				return nil, fmt.Errorf("the list of Google has %q for %s %s and %d billionths, which is no price", sku.Description, price.CurrencyCode, price.Units, price.Nanos)
			}
			out[part{name, capacity}] = rate{usd: usd, asOf: info.EffectiveTime}
		}
		if token = page.NextPageToken; token == "" {
			return out, nil
		}
	}
	return nil, fmt.Errorf("the price list of Google has more than %d pages", mostPages)
}

// partOf is the part that a description is of. How it is bought is told by the
// usage type; the wording only differs.
func partOf(description string) (string, bool) {
	name, _, found := strings.Cut(description, " running in ")
	name, _, _ = strings.Cut(strings.TrimPrefix(name, "Spot Preemptible "), " attached to ") // VMs, A3 VMs, Spot Preemptible VMs
	return name, found
}

// hideKey keeps the API key out of errors, which have the address asked.
func hideKey(err error, key string) error {
	if key == "" || !strings.Contains(err.Error(), key) {
		return err
	}
	return keyless{strings.ReplaceAll(err.Error(), key, "…"), err}
}

// keyless is an error whose text had the key. It is like what it stands for, but does not
// give it away.
type keyless struct {
	text string
	err  error
}

func (e keyless) Error() string        { return e.text }
func (e keyless) Is(target error) bool { return errors.Is(e.err, target) }
