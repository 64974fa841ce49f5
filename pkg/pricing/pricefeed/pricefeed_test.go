// SPDX-License-Identifier: Apache-2.0

package pricefeed_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/pricing"
	"github.com/spotbench/spotbench/pkg/pricing/pricefeed"
)

// answer serves a page for each request in turn and keeps the requests.
func answer(t *testing.T, pages ...string) (pricefeed.Options, *[]*http.Request) {
	t.Helper()
	var asked []*http.Request
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		asked = append(asked, r)
		if len(asked) > len(pages) {
			http.Error(w, "no more pages", http.StatusGone)
			return
		}
		fmt.Fprint(w, strings.ReplaceAll(pages[len(asked)-1], "SELF", "http://"+r.Host))
	}))
	t.Cleanup(server.Close)
	return pricefeed.Options{Endpoint: server.URL, Client: server.Client()}, &asked
}

func day(s string) time.Time {
	d, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return d
}

// keys are AWS credentials as good as any for signing.
var keys = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
	return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret"}, nil
})

const ec2 = `<?xml version="1.0" encoding="UTF-8"?>
<DescribeSpotPriceHistoryResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>1</requestId>
  <spotPriceHistorySet>
    <item><instanceType>p5.48xlarge</instanceType><productDescription>Linux/UNIX</productDescription><spotPrice>%s</spotPrice><timestamp>%s</timestamp><availabilityZone>%s</availabilityZone></item>
  </spotPriceHistorySet>
  <nextToken>%s</nextToken>
</DescribeSpotPriceHistoryResponse>`

func TestEC2SpotPricesAreTheNewestOfEachZoneOverAllPages(t *testing.T) {
	options, asked := answer(t,
		fmt.Sprintf(ec2, "26.10", "2026-11-23T10:00:00.000Z", "us-east-1b", "more"),
		fmt.Sprintf(ec2, "27.50", "2026-11-23T11:00:00.000Z", "us-east-1b", "yet more"),
		fmt.Sprintf(ec2, "24.00", "2026-11-22T11:00:00.000Z", "us-east-1c", ""))
	got, err := pricefeed.AWS{Options: options, Credentials: keys}.Prices(t.Context(), pricefeed.Query{Region: "us-east-1", InstanceTypes: []string{"p5.48xlarge"}})
	if err != nil {
		t.Fatal(err)
	}
	spot := pricing.Price{Provider: "aws", Region: "us-east-1", InstanceType: "p5.48xlarge", CapacityType: gpu.Spot, Source: "EC2 spot price history"}
	b, c := spot, spot
	b.Zone, b.USDPerHour, b.AsOf = "us-east-1b", 27.5, day("2026-11-23T11:00:00Z")
	c.Zone, c.USDPerHour, c.AsOf = "us-east-1c", 24, day("2026-11-22T11:00:00Z")
	if diff := cmp.Diff([]pricing.Price{b, c}, got); diff != "" {
		t.Errorf("prices (-want +got):\n%s", diff)
	}
	last := (*asked)[2]
	if last.PostForm.Get("Action") != "DescribeSpotPriceHistory" || last.PostForm.Get("InstanceType.1") != "p5.48xlarge" || last.PostForm.Get("NextToken") != "yet more" {
		t.Errorf("asked %v", last.PostForm)
	}
	if auth := last.Header.Get("Authorization"); !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/") || !strings.Contains(auth, "/us-east-1/ec2/aws4_request") {
		t.Errorf("signed as %q", auth)
	}
}

func TestAzurePricesAreOfLinuxOnDemandAndSpotInForceNow(t *testing.T) {
	item := func(product, sku, kind, price, from string) string {
		return fmt.Sprintf(`{"currencyCode":"USD","retailPrice":%s,"armRegionName":"eastus","armSkuName":"Standard_ND96isr_H100_v5","skuName":%q,"productName":%q,"unitOfMeasure":"1 Hour","type":%q,"effectiveStartDate":%q}`,
			price, sku, product, kind, from)
	}
	linux := "Virtual Machines NDsr H100 v5 Series"
	options, asked := answer(t,
		`{"Items":[`+item(linux, "ND96isr H100 v5", "Consumption", "98.32", "2024-01-01T00:00:00Z")+","+item(linux+" Windows", "ND96isr H100 v5", "Consumption", "102.7", "2026-01-01T00:00:00Z")+
			`],"NextPageLink":"SELF/api/retail/prices?$skip=100"}`,
		`{"Items":[`+item(linux, "ND96isr H100 v5 Spot", "Consumption", "29.5", "2026-11-01T00:00:00Z")+","+item(linux, "ND96isr H100 v5 Spot", "Consumption", "40", "2025-01-01T00:00:00Z")+","+
			item(linux, "ND96isr H100 v5 Low Priority", "Consumption", "19", "2026-11-01T00:00:00Z")+","+item(linux, "ND96isr H100 v5", "Reservation", "500000", "2026-11-01T00:00:00Z")+`],"NextPageLink":null}`)
	got, err := pricefeed.Azure{Options: options}.Prices(t.Context(), pricefeed.Query{Region: "eastus", InstanceTypes: []string{"Standard_ND96isr_H100_v5"}})
	if err != nil {
		t.Fatal(err)
	}
	price := pricing.Price{Provider: "azure", Region: "eastus", InstanceType: "Standard_ND96isr_H100_v5", CapacityType: gpu.OnDemand, USDPerHour: 98.32, AsOf: day("2024-01-01T00:00:00Z"), Source: "Azure retail prices"}
	spot := price
	spot.CapacityType, spot.USDPerHour, spot.AsOf = gpu.Spot, 29.5, day("2026-11-01T00:00:00Z")
	if diff := cmp.Diff([]pricing.Price{price, spot}, got); diff != "" {
		t.Errorf("prices (-want +got):\n%s", diff)
	}
	if filter := (*asked)[0].URL.Query().Get("$filter"); !strings.Contains(filter, "armRegionName eq 'eastus'") || !strings.Contains(filter, "armSkuName eq 'Standard_ND96isr_H100_v5'") {
		t.Errorf("filter %q", filter)
	}
}

// sku is an entry of Google's list, of dollars and billionths.
func sku(description, usage, unit, units string, nanos int, region string) string {
	return fmt.Sprintf(`{"description":%q,"serviceRegions":[%q],"category":{"usageType":%q},"pricingInfo":[{"effectiveTime":"2026-11-01T00:00:00Z","pricingExpression":{"usageUnit":%q,"tieredRates":[{"unitPrice":{"currencyCode":"USD","units":%q,"nanos":%d}}]}}]}`,
		description, region, usage, unit, units, nanos)
}

func TestGooglePricesArePutTogetherFromCoresMemoryAndGPUs(t *testing.T) {
	options, asked := answer(t, `{"skus":[`+strings.Join([]string{
		sku("A3 Instance Core running in Americas", "OnDemand", "h", "0", 30_000_000, "us-central1"),
		sku("A3 Instance Ram running in Americas", "OnDemand", "GiBy.h", "0", 2_500_000, "us-central1"),
		sku("Nvidia H100 80GB GPU attached to A3 VMs running in Americas", "OnDemand", "h", "9", 500_000_000, "us-central1"),
		sku("Nvidia H100 80GB GPU running in Frankfurt", "OnDemand", "h", "99", 0, "europe-west3"),
		sku("Commitment v1: A3 Cpu in Americas for 1 Year", "Commit1Yr", "h", "0", 1, "us-central1"),
	}, ",")+`],"nextPageToken":"2"}`, `{"skus":[`+strings.Join([]string{
		sku("Spot Preemptible A3 Instance Core running in Americas", "Preemptible", "h", "0", 10_000_000, "us-central1"),
		sku("Nvidia H100 80GB GPU attached to Spot Preemptible VMs running in Americas", "Preemptible", "h", "2", 0, "us-central1"),
	}, ",")+`]}`)
	got, err := pricefeed.GCP{Options: options, Key: "k3y"}.Prices(t.Context(), pricefeed.Query{Region: "us-central1", InstanceTypes: []string{"a3-highgpu-8g"}})
	if err != nil {
		t.Fatal(err)
	}
	// 208 cores × $0.03 + 1,872 GiB × $0.0025 + 8 GPUs × $9.50 = 6.24 + 4.68 + 76. The
	// list has no memory for spot, so spot has no price and none is made up.
	want := []pricing.Price{{Provider: "gcp", Region: "us-central1", InstanceType: "a3-highgpu-8g", CapacityType: gpu.OnDemand, USDPerHour: 6.24 + 4.68 + 76, GPUCount: 8,
		AsOf: day("2026-11-01T00:00:00Z"), Source: "Google Cloud billing catalog"}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b float64) bool { return a-b < 1e-9 && b-a < 1e-9 })); diff != "" {
		t.Errorf("prices (-want +got):\n%s", diff)
	}
	if q := (*asked)[1].URL.Query(); q.Get("pageToken") != "2" || q.Get("key") != "k3y" {
		t.Errorf("second page asked as %v", q)
	}
}

func TestOpenCostsPriceOfAPoolIsWhatItsNodeCostByTheHour(t *testing.T) {
	options, _ := answer(t, `{"code":200,"data":[{
		"a":{"type":"Node","properties":{"name":"h100-0"},"end":"2026-11-23T00:00:00Z","minutes":720,"totalCost":120,"gpuCount":8},
		"b":{"type":"Node","properties":{"name":"h100-1"},"end":"2026-11-23T00:00:00Z","minutes":60,"totalCost":99,"gpuCount":8},
		"c":{"type":"Disk","properties":{"name":"h100-0"},"end":"2026-11-23T00:00:00Z","minutes":1440,"totalCost":1},
		"d":{"type":"Node","properties":{"name":"unknown"},"end":"2026-11-23T00:00:00Z","minutes":1440,"totalCost":1}}]}`)
	pool := gpu.Pool{Provider: "aws", Region: "us-east-1", Zone: "us-east-1b", InstanceType: "p5.48xlarge", CapacityType: gpu.Spot}
	got, err := pricefeed.OpenCost{Options: options, Pools: map[string]gpu.Pool{"h100-0": pool, "h100-1": pool}}.Prices(t.Context(), pricefeed.Query{})
	if err != nil {
		t.Fatal(err)
	}
	// 120 USD in 12 hours, of the node with the longer record.
	want := []pricing.Price{{Provider: "aws", Region: "us-east-1", Zone: "us-east-1b", InstanceType: "p5.48xlarge", CapacityType: gpu.Spot, USDPerHour: 10, GPUCount: 8, AsOf: day("2026-11-23T00:00:00Z"), Source: "OpenCost"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("prices (-want +got):\n%s", diff)
	}
}

func TestASourceThatMisbehavesIsAnErrorAndNeverAPrice(t *testing.T) {
	one := pricefeed.Query{Region: "r", InstanceTypes: []string{"g2-standard-4"}}
	sources := map[string]func(pricefeed.Options) pricefeed.Source{
		"aws":      func(o pricefeed.Options) pricefeed.Source { return pricefeed.AWS{Options: o, Credentials: keys} },
		"azure":    func(o pricefeed.Options) pricefeed.Source { return pricefeed.Azure{Options: o} },
		"gcp":      func(o pricefeed.Options) pricefeed.Source { return pricefeed.GCP{Options: o, Key: "k3y"} },
		"opencost": func(o pricefeed.Options) pricefeed.Source { return pricefeed.OpenCost{Options: o} },
	}
	for name, open := range sources {
		for what, status := range map[string]int{"<html>maintenance</html>": 200, `{"Items": [`: 200, "denied": 403, "": 500} {
			t.Run(fmt.Sprintf("%s answers %d %q", name, status, what), func(t *testing.T) {
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader(status)
					fmt.Fprint(w, what)
				}))
				defer server.Close()
				got, err := open(pricefeed.Options{Endpoint: server.URL, Client: server.Client()}).Prices(t.Context(), one)
				if err == nil || len(got) > 0 {
					t.Errorf("%v, %v, want an error and no price", got, err)
				}
				if err != nil && strings.Contains(err.Error(), "k3y") {
					t.Errorf("the error tells the key: %v", err)
				}
			})
		}
	}
	for name, open := range sources {
		t.Run(name+" does not answer in time", func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				// Only a request that was read whole is seen to be given up.
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
			}))
			defer server.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if got, err := open(pricefeed.Options{Endpoint: server.URL, Client: server.Client()}).Prices(ctx, one); !errors.Is(err, context.DeadlineExceeded) || len(got) > 0 {
				t.Errorf("%v, %v, want the deadline's error and no price", got, err)
			}
			quick := &http.Client{Timeout: 50 * time.Millisecond}
			if got, err := open(pricefeed.Options{Endpoint: server.URL, Client: quick}).Prices(t.Context(), one); err == nil || len(got) > 0 {
				t.Errorf("a client with a time-out: %v, %v, want an error and no price", got, err)
			}
		})
	}
	t.Run("gcp is away", func(t *testing.T) {
		_, err := pricefeed.GCP{Options: pricefeed.Options{Endpoint: "http://127.0.0.1:1"}, Key: "k3y"}.Prices(t.Context(), one)
		if err == nil || strings.Contains(err.Error(), "k3y") {
			t.Errorf("error %v, want one without the key", err)
		}
	})
	t.Run("a machine type that cannot be priced", func(t *testing.T) {
		_, err := pricefeed.GCP{}.Prices(t.Context(), pricefeed.Query{Region: "r", InstanceTypes: []string{"n1-standard-4"}})
		if err == nil || !strings.Contains(err.Error(), `"n1-standard-4"`) || !strings.Contains(err.Error(), "a3-highgpu-8g") {
			t.Errorf("error %v, want one with the type and those there are", err)
		}
	})
	t.Run("a price of nothing", func(t *testing.T) {
		options, _ := answer(t, fmt.Sprintf(ec2, "0.00", "2026-11-23T10:00:00.000Z", "us-east-1b", ""))
		if got, err := (pricefeed.AWS{Options: options, Credentials: keys}).Prices(t.Context(), one); err == nil {
			t.Errorf("%v passed for prices", got)
		}
	})
}

func TestFetchedPricesAreABookThatIsReadBack(t *testing.T) {
	in := []pricing.Price{
		{Provider: "aws", Region: "r", Zone: "rb", InstanceType: "p5.48xlarge", CapacityType: gpu.Spot, USDPerHour: 26.5, AsOf: day("2026-11-01T17:42:10Z"), Source: "EC2 spot price history"},
		{Provider: "aws", InstanceType: "p5.48xlarge", CapacityType: gpu.OnDemand, USDPerHour: 55.04, GPUCount: 8, AsOf: day("2025-07-01T00:00:00Z"), Source: "list"},
	}
	data, err := pricing.Format(in)
	if err != nil {
		t.Fatal(err)
	}
	book, err := pricing.Parse(data)
	if err != nil {
		t.Fatalf("%v in\n%s", err, data)
	}
	for _, want := range in {
		if got, ok := book.Lookup(want.Pool()); !ok || got != want {
			t.Errorf("%+v came back as %+v", want, got)
		}
	}
	if old := book.OlderThan(day("2026-01-01T00:00:00Z")); len(old) != 1 || old[0].Source != "list" {
		t.Errorf("older than 2026: %+v, want the list price", old)
	}
}
