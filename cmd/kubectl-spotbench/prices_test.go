// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFetchedPricesTakeThePlaceOfTheBooksAndTheOthersStay(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"Items":[{"currencyCode":"USD","retailPrice":29.5,"armRegionName":"eastus","armSkuName":"Standard_X","skuName":"X Spot","productName":"P","unitOfMeasure":"1 Hour","type":"Consumption","effectiveStartDate":"2026-11-01T00:00:00Z"}]}`)
	}))
	defer server.Close()
	book := filepath.Join(t.TempDir(), "prices.yaml")
	if err := os.WriteFile(book, []byte(`prices:
- {provider: azure, region: eastus, instanceType: Standard_X, capacityType: spot, usdPerHour: 31, asOf: "2025-01-01", source: old}
- {provider: aws, instanceType: p5.48xlarge, capacityType: on-demand, usdPerHour: 55.04, gpuCount: 8, asOf: "2025-07-01", source: list}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := kubectl(t, "prices", "--from", "azure", "--endpoint", server.URL, "--region", "eastus", "--instance-type", "Standard_X", "--merge", book)
	if err != nil {
		t.Fatal(err)
	}
	want := `prices:
- asOf: "2025-07-01"
  capacityType: on-demand
  gpuCount: 8
  instanceType: p5.48xlarge
  provider: aws
  source: list
  usdPerHour: 55.04
- asOf: "2026-11-01"
  capacityType: spot
  instanceType: Standard_X
  provider: azure
  region: eastus
  source: Azure retail prices
  usdPerHour: 29.5
`
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("the book (-want +got):\n%s", diff)
	}
	out, err = kubectl(t, "prices", "--from", "azure", "--endpoint", server.URL, "--region", "westus", "--instance-type", "Standard_X")
	if err == nil || out != "" {
		t.Errorf("a region without prices: %q, %v, want an error and nothing written", out, err)
	}
	if _, err = kubectl(t, "prices", "--from", "rumour"); err == nil || !strings.Contains(err.Error(), `"rumour"`) || !strings.Contains(err.Error(), "opencost") {
		t.Errorf("error %v, want one with the value and the sources", err)
	}
}
