// SPDX-License-Identifier: Apache-2.0

package packing_test

import (
	"math"
	"testing"

	"github.com/spotbench/spotbench/pkg/placement/packing"
)

func TestFragmentationIsTheFreeGPUsThatThePodsOfLateCannotUse(t *testing.T) {
	whole := func(gpus int, cores int64, models ...string) packing.Request {
		return packing.Request{GPUs: gpus, GPUMilli: packing.WholeGPU, CPUMilli: cores * 1000, Models: models}
	}
	for name, c := range map[string]struct {
		asked []packing.Request
		used  packing.Used
		want  map[string]float64
	}{
		"nobody has asked for anything": {nil, packing.Used{}, map[string]float64{"A100-80GB": 0, "L4-24GB": 0}},
		"an idle node is of use to pods of one GPU": {
			[]packing.Request{whole(1, 4)}, packing.Used{}, map[string]float64{"A100-80GB": 0, "L4-24GB": 0}},
		// Of pods of one and of four GPUs, as many of each: half cannot use the three that
		// are left of the A100s. All four L4s are of use to either.
		"too few together for half of the pods": {
			[]packing.Request{whole(1, 4), whole(4, 4)}, packing.Used{GPUs: 5}, map[string]float64{"A100-80GB": 1.5, "L4-24GB": 0}},
		"no cores are left beside six GPUs": {
			[]packing.Request{whole(1, 4)}, packing.Used{GPUs: 2, CPUMilli: 93_000}, map[string]float64{"A100-80GB": 6, "L4-24GB": 0}},
		"pods that name the other model do not count": {
			[]packing.Request{whole(8, 4, "A100-80GB"), whole(1, 4, "L4-24GB")}, packing.Used{GPUs: 1}, map[string]float64{"A100-80GB": 7, "L4-24GB": 0}},
		// Half a GPU fits twice on each idle one.
		"shares fit on idle GPUs": {
			[]packing.Request{{GPUs: 1, GPUMilli: 500, CPUMilli: 1000}}, packing.Used{}, map[string]float64{"A100-80GB": 0, "L4-24GB": 0}},
	} {
		t.Run(name, func(t *testing.T) {
			// Counts so alike that a thousandth tells: nothing fades within two pods.
			e, err := packing.New(packing.Options{HalfLife: 1e9})
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range []packing.Node{
				{Name: "a", Model: "A100-80GB", GPUs: 8, CPUMilli: 96_000, MemoryBytes: 1 << 40},
				{Name: "l", Model: "L4-24GB", GPUs: 4, CPUMilli: 48_000, MemoryBytes: 1 << 40},
				{Name: "c", CPUMilli: 48_000, MemoryBytes: 1 << 40},
			} {
				if err := e.SetNode(n); err != nil {
					t.Fatal(err)
				}
			}
			if err := e.SetUsed("a", c.used); err != nil {
				t.Fatal(err)
			}
			for _, r := range c.asked {
				if err := e.Observe(r); err != nil {
					t.Fatal(err)
				}
			}
			got := e.Fragmentation()
			if len(got) != len(c.want) {
				t.Fatalf("fragmentation %v, want %v", got, c.want)
			}
			for model, want := range c.want {
				if math.Abs(got[model]-want) > 1e-3 {
					t.Errorf("%s: %.4f GPUs, want %.4f", model, got[model], want)
				}
			}
		})
	}
}
