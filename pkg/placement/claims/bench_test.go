// SPDX-License-Identifier: Apache-2.0

package claims_test

import (
	"fmt"
	"testing"

	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/claims"
)

// BenchmarkSee is one node of eight cards, for a claim of the driver's own class.
func BenchmarkSee(b *testing.B) {
	var devices []claims.Device
	for i := range 8 {
		devices = append(devices, card(fmt.Sprint(i), a100))
	}
	asks := []claims.Ask{ask(1, "device.driver == 'gpu.nvidia.com' && "+typeIs+"'gpu'")}
	r := wants(asks, "A100-80GB")
	for b.Loop() {
		if n := claims.See(r, placement.Node{}, asks, devices); n.TotalGPUs != 8 {
			b.Fatal(n)
		}
	}
}
