// SPDX-License-Identifier: Apache-2.0

package claims_test

import (
	"strconv"
	"testing"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/claims"
)

// BenchmarkSee is one node of eight cards, for a claim of the driver's own class: one
// that is looked at again, and one that is new.
func BenchmarkSee(b *testing.B) {
	s := &resourceapi.ResourceSlice{Spec: resourceapi.ResourceSliceSpec{Driver: claims.Driver}}
	for i := range 8 {
		d := card(strconv.Itoa(i), a100)
		s.Spec.Devices = append(s.Spec.Devices, resourceapi.Device{Name: d.Name, Attributes: d.Attributes, Capacity: d.Capacity})
	}
	asks := []claims.Ask{ask(1, "device.driver == 'gpu.nvidia.com' && "+typeIs+"'gpu'")}
	r := wants(asks, "A100-80GB")
	see := func(b *testing.B, devices []claims.Device) {
		if n := claims.See(r, placement.Node{}, asks, devices); n.TotalGPUs != 8 {
			b.Fatal(n)
		}
	}
	b.Run("again", func(b *testing.B) {
		devices := claims.Devices([]*resourceapi.ResourceSlice{s})
		for b.Loop() {
			see(b, devices)
		}
	})
	b.Run("new", func(b *testing.B) {
		for b.Loop() {
			see(b, claims.Devices([]*resourceapi.ResourceSlice{s}))
		}
	})
}
