// SPDX-License-Identifier: Apache-2.0

package pricefeed

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/pricing"
)

// Azure reads Azure's public list of retail prices, on demand and spot.
type Azure struct{ Options }

type azurePage struct {
	Items []struct {
		CurrencyCode       string    `json:"currencyCode"`
		RetailPrice        float64   `json:"retailPrice"`
		ArmRegionName      string    `json:"armRegionName"`
		ArmSkuName         string    `json:"armSkuName"`
		SkuName            string    `json:"skuName"`
		ProductName        string    `json:"productName"`
		UnitOfMeasure      string    `json:"unitOfMeasure"`
		Type               string    `json:"type"`
		EffectiveStartDate time.Time `json:"effectiveStartDate"`
	} `json:"Items"`
	NextPageLink string `json:"NextPageLink"`
}

// Prices are those of Linux machines in the region. Prices for Windows, for low
// priority (which spot replaced) and of reservations are passed over.
func (a Azure) Prices(ctx context.Context, q Query) ([]pricing.Price, error) {
	if q.Region == "" || len(q.InstanceTypes) == 0 {
		return nil, errors.New("prices of Azure are asked for by region and instance types; give for example eastus and Standard_ND96isr_H100_v5")
	}
	newest := map[gpu.Pool]pricing.Price{}
	for _, instanceType := range q.InstanceTypes {
		filter := fmt.Sprintf("serviceName eq 'Virtual Machines' and priceType eq 'Consumption' and armRegionName eq '%s' and armSkuName eq '%s'",
			strings.ReplaceAll(q.Region, "'", "''"), strings.ReplaceAll(instanceType, "'", "''"))
		next := a.endpoint("https://prices.azure.com") + "/api/retail/prices?currencyCode='USD'&$filter=" + url.QueryEscape(filter)
		for pages := 0; next != ""; pages++ {
			if pages == mostPages {
				return nil, fmt.Errorf("the price list of Azure has more than %d pages for %s", mostPages, instanceType)
			}
			var page azurePage
			if err := getJSON(ctx, a.client(), next, &page); err != nil {
				return nil, err
			}
			for _, item := range page.Items {
				if item.Type != "Consumption" || item.CurrencyCode != "USD" || item.UnitOfMeasure != "1 Hour" || item.ArmSkuName != instanceType ||
					item.ArmRegionName != q.Region || strings.Contains(item.ProductName, "Windows") || strings.HasSuffix(item.SkuName, "Low Priority") {
					continue
				}
				if !(item.RetailPrice > 0) {
					return nil, fmt.Errorf("the list of Azure has %s in %s for %v USD, which is no price", item.SkuName, q.Region, item.RetailPrice)
				}
				capacity := gpu.OnDemand
				if strings.HasSuffix(item.SkuName, " Spot") {
					capacity = gpu.Spot
				}
				p := pricing.Price{Provider: "azure", Region: q.Region, InstanceType: instanceType, CapacityType: capacity,
					USDPerHour: item.RetailPrice, AsOf: item.EffectiveStartDate.UTC(), Source: "Azure retail prices"}
				if p.AsOf.After(newest[p.Pool()].AsOf) {
					newest[p.Pool()] = p
				}
			}
			next = page.NextPageLink
		}
	}
	return checked(newest)
}
