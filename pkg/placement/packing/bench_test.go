// SPDX-License-Identifier: Apache-2.0

package packing_test

import (
	"strconv"
	"testing"

	"github.com/spotbench/spotbench/pkg/placement/packing"
)

// large is a cluster of so many nodes, of four models, with a history of mixed demand.
func large(b *testing.B, nodes int) (*packing.Engine, []packing.Request) {
	b.Helper()
	e, err := packing.New(packing.Options{})
	if err != nil {
		b.Fatal(err)
	}
	for i := range nodes {
		n := node("node-"+strconv.Itoa(i), []string{"A100", "H100", "L4", "T4"}[i%4], nil)
		if err := e.SetNode(n); err != nil {
			b.Fatal(err)
		}
	}
	requests := []packing.Request{whole(1), whole(2), whole(8), whole(1, "H100"), whole(4, "A100", "H100"), share(500), share(300), {CPUMilli: 8000}}
	for i := range 1000 {
		if err := e.Observe(requests[i%len(requests)]); err != nil {
			b.Fatal(err)
		}
	}
	return e, requests
}

func BenchmarkPlaceOnePod(b *testing.B) {
	for _, nodes := range []int{1000, 5000} {
		b.Run(strconv.Itoa(nodes), func(b *testing.B) {
			e, requests := large(b, nodes)
			b.ResetTimer()
			for i := range b.N {
				r, pod := requests[i%len(requests)], strconv.Itoa(i)
				if err := e.Observe(r); err != nil {
					b.Fatal(err)
				}
				c, ok, err := e.Best(r, nil)
				if err != nil {
					b.Fatal(err)
				}
				if ok {
					if _, err := e.Assign(pod, r, c.Node, c.GPUs); err != nil {
						b.Fatal(err)
					}
				}
				// Half as many pods as nodes run at a time.
				e.Release(strconv.Itoa(i - nodes/2))
			}
		})
	}
}

func BenchmarkReprice(b *testing.B) {
	for _, nodes := range []int{1000, 5000} {
		b.Run(strconv.Itoa(nodes), func(b *testing.B) {
			e, _ := large(b, nodes)
			b.ResetTimer()
			for range b.N {
				e.Reprice()
			}
		})
	}
}

func BenchmarkRankAllAnew(b *testing.B) {
	for _, nodes := range []int{1000, 5000} {
		b.Run(strconv.Itoa(nodes), func(b *testing.B) {
			e, requests := large(b, nodes)
			b.ResetTimer()
			for range b.N {
				b.StopTimer()
				e.Reprice()
				b.StartTimer()
				if _, _, err := e.Best(requests[0], nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
