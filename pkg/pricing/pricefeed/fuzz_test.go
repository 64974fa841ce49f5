// SPDX-License-Identifier: Apache-2.0

package pricefeed_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/pricing"
	"github.com/spotbench/spotbench/pkg/pricing/pricefeed"
)

// always answers every request with the same bytes, a few times.
type always struct {
	body  []byte
	asked int
}

func (a *always) RoundTrip(r *http.Request) (*http.Response, error) {
	status := http.StatusOK
	if a.asked++; a.asked > 3 { // a list without an end
		status = http.StatusGone
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(bytes.NewReader(a.body)), Request: r}, nil
}

// FuzzAnswers gives every source the same bytes for an answer: whatever they are, it
// ends with an error or with prices that a book takes.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "[]", "null", "<",
		fmt.Sprintf(ec2, "26.10", "2026-11-23T10:00:00.000Z", "us-east-1b", ""),
		fmt.Sprintf(ec2, "-1", "2026-11-23T10:00:00.000Z", "us-east-1b", "more"),
		fmt.Sprintf(ec2, "Inf", "0000-00-00T10:00:00.000Z", "", ""),
		`{"Items":[{"currencyCode":"USD","retailPrice":1e308,"armRegionName":"r","armSkuName":"t","type":"Consumption","productName":"Virtual Machines","skuName":"t Spot","effectiveStartDate":"2026-01-01T00:00:00Z","unitOfMeasure":"1 Hour"}],"NextPageLink":""}`,
		`{"skus":[{"description":"Spot Preemptible G2 Instance Core running in Iowa","serviceRegions":["r"],"category":{"usageType":"Preemptible"},"pricingInfo":[{"effectiveTime":"2026-01-01T00:00:00Z","pricingExpression":{"usageUnit":"h","tieredRates":[{"unitPrice":{"units":"-1","nanos":999999999}}]}}]}]}`,
		`{"code":200,"data":[{"a":{"type":"Node","properties":{"name":"n"},"end":"2026-11-23T00:00:00Z","minutes":1e-300,"gpuCount":-8,"totalCost":1e300}}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for name, open := range map[string]func(pricefeed.Options) pricefeed.Source{
			"aws":   func(o pricefeed.Options) pricefeed.Source { return pricefeed.AWS{Options: o, Credentials: keys} },
			"azure": func(o pricefeed.Options) pricefeed.Source { return pricefeed.Azure{Options: o} },
			"gcp":   func(o pricefeed.Options) pricefeed.Source { return pricefeed.GCP{Options: o, Key: "k3y"} },
			"opencost": func(o pricefeed.Options) pricefeed.Source {
				return pricefeed.OpenCost{Options: o, Pools: map[string]gpu.Pool{"n": {Provider: "aws", InstanceType: "t", CapacityType: gpu.Spot}}}
			},
		} {
			source := open(pricefeed.Options{Endpoint: "http://prices.test", Client: &http.Client{Transport: &always{body: body}}})
			prices, err := source.Prices(t.Context(), pricefeed.Query{Region: "r", InstanceTypes: []string{"t", "g2-standard-4"}})
			if err != nil || len(prices) == 0 {
				continue
			}
			text, err := pricing.Format(prices)
			if err != nil {
				t.Fatalf("%s: %v: %+v", name, err, prices)
			}
			book, err := pricing.Parse(text)
			if err != nil {
				t.Fatalf("%s: a book does not take its prices: %v\n%s", name, err, text)
			}
			for _, p := range book.Prices() {
				if p.AsOf.IsZero() || p.Source == "" {
					t.Errorf("%s: a price without time or source: %+v", name, p)
				}
			}
		}
	})
}
