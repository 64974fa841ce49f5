// SPDX-License-Identifier: Apache-2.0

package placement_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/packing"
)

// BenchmarkAttempt is the pure part of one scheduling attempt: a node changed, and the
// best of all are found for a pod that names a model.
func BenchmarkAttempt(b *testing.B) {
	for _, nodes := range []int{1000, 5000} {
		b.Run(strconv.Itoa(nodes), func(b *testing.B) {
			f := newFleet(b)
			models := []string{"A100-80GB", "H100-80GB", "L4-24GB"}
			set := func(i, used int) {
				n := node(fmt.Sprintf("n%05d", i), models[i%len(models)], 80*gib, func(n *placement.Node) { n.FreeGPUs = 8 - used })
				if err := f.Set(placement.FleetNode{Node: n, CPUMilli: 96_000, MemoryBytes: 400 * gib, Used: packing.Used{GPUs: used}}); err != nil {
					b.Fatal(err)
				}
			}
			for i := range nodes {
				set(i, i%8)
			}
			r := request(1, func(s *benchspec.Spec) { s.GPUModels = []string{"A100-80GB"} })
			i := 0
			for b.Loop() {
				set(i*7919%nodes, i%8)
				if list, ok := f.Shortlist(r, placement.Search{Best: 4, Refused: 8, Allowed: anywhere}); !ok || len(list.Best) != 4 {
					b.Fatal(list)
				}
				i++
			}
		})
	}
}
