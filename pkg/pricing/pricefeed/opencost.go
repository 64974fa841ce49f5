// SPDX-License-Identifier: Apache-2.0

package pricefeed

import (
	"context"
	"errors"
	"time"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/pricing"
)

// OpenCost reads what OpenCost reckons the cluster's own nodes cost, from its
// assets API. Its defaults for GPUs are not of any cloud; give it a pricing source.
type OpenCost struct {
	Options
	// Pools tells the pool of a node by its name: OpenCost does not know zones.
	Pools map[string]gpu.Pool
}

type openCostAnswer struct {
	Data []map[string]struct {
		Type       string `json:"type"`
		Properties struct {
			Name string `json:"name"`
		} `json:"properties"`
		End       time.Time `json:"end"`
		Minutes   float64   `json:"minutes"`
		TotalCost float64   `json:"totalCost"`
		GPUCount  float64   `json:"gpuCount"`
	} `json:"data"`
}

// Prices are the pools' prices over the last day, of the node with the longest
// record where a pool has several. The query narrows them down.
func (o OpenCost) Prices(ctx context.Context, q Query) ([]pricing.Price, error) {
	if o.Endpoint == "" {
		return nil, errors.New("OpenCost's address is needed, for example http://opencost.opencost.svc:9003")
	}
	var answer openCostAnswer
	if err := getJSON(ctx, o.client(), o.Endpoint+"/assets?window=1d&accumulate=true", &answer); err != nil {
		return nil, err
	}
	found, longest := map[gpu.Pool]pricing.Price{}, map[gpu.Pool]float64{}
	for _, assets := range answer.Data {
		for _, asset := range assets {
			pool, known := o.Pools[asset.Properties.Name]
			if asset.Type != "Node" || !known || !(asset.Minutes > 0) || !(asset.TotalCost > 0) || !q.wants(pool) || asset.Minutes <= longest[pool] {
				continue
			}
			longest[pool] = asset.Minutes
			found[pool] = pricing.Price{Provider: pool.Provider, Region: pool.Region, Zone: pool.Zone, InstanceType: pool.InstanceType, CapacityType: pool.CapacityType,
				USDPerHour: asset.TotalCost / (asset.Minutes / 60), GPUCount: int(asset.GPUCount), AsOf: asset.End.UTC(), Source: "OpenCost"}
		}
	}
	return checked(found)
}
