// SPDX-License-Identifier: Apache-2.0

package packing_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/placement/packing"
)

// market is an engine with a few machines, and pods that have come and gone.
func market(t *rapid.T) (*packing.Engine, []packing.Node, map[string]packing.Used) {
	e, err := packing.New(packing.Options{RepriceEvery: rapid.IntRange(1, 20).Draw(t, "every")})
	if err != nil {
		t.Fatal(err)
	}
	var nodes []packing.Node
	for i, model := range []string{"A100-80GB", "A100-80GB", "H100-80GB", "L4-24GB", ""} {
		n := packing.Node{Name: fmt.Sprint("n", i), Model: model, GPUMemoryBytes: int64(i) << 34, GPUs: 8, CPUMilli: 96_000, MemoryBytes: 1 << 40}
		if model == "" {
			n.GPUs, n.GPUMemoryBytes = 0, 0
		}
		nodes = append(nodes, n)
		if err := e.SetNode(n); err != nil {
			t.Fatal(err)
		}
	}
	used := map[string]packing.Used{}
	for range rapid.IntRange(0, 60).Draw(t, "pods") {
		r := asked(t)
		if err := e.Observe(r); err != nil {
			t.Fatal(err)
		}
		best, ok, err := e.Best(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			u := used[best.Node]
			u.GPUs += r.GPUs
			u.CPUMilli += r.CPUMilli
			used[best.Node] = u
			if err := e.SetUsed(best.Node, u); err != nil {
				t.Fatal(err)
			}
		}
	}
	return e, nodes, used
}

func asked(t *rapid.T) packing.Request {
	r := packing.Request{CPUMilli: int64(rapid.IntRange(0, 16).Draw(t, "cores")) * 1000, MemoryBytes: 1 << 30}
	if r.GPUs = rapid.IntRange(0, 4).Draw(t, "gpus"); r.GPUs > 0 {
		r.GPUMilli = packing.WholeGPU
		if rapid.Bool().Draw(t, "named") {
			r.Models = []string{rapid.SampledFrom([]string{"A100-80GB", "H100-80GB"}).Draw(t, "model")}
		}
	}
	return r
}

func TestAnEngineThatIsGivenAStateGoesOnAsTheOtherWouldHave(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, nodes, used := market(t)
		document, err := json.Marshal(before.State())
		if err != nil {
			t.Fatal(err)
		}
		var state packing.State
		if err := json.Unmarshal(document, &state); err != nil {
			t.Fatal(err)
		}
		after, err := packing.New(packing.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			if err := after.SetNode(n); err != nil {
				t.Fatal(err)
			}
			if err := after.SetUsed(n.Name, used[n.Name]); err != nil {
				t.Fatal(err)
			}
		}
		if err := after.Restore(state); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			r := asked(t)
			want, err := before.Rank(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := after.Rank(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("ranked (-engine +restored):\n%s", diff)
			}
		}
		if diff := cmp.Diff(before.State(), after.State()); diff != "" {
			t.Fatalf("state (-engine +restored):\n%s", diff)
		}
	})
}

func TestAWrongStateIsRefusedWithTheFieldAndItsValue(t *testing.T) {
	for name, c := range map[string]struct {
		state packing.State
		want  string
	}{
		"a weight below that of the first pod": {packing.State{Weight: 0.5}, "weight is 0.5, want 1"},
		"negative cores":                       {packing.State{Weight: 1, Cores: -1}, "figure -1"},
		"pods seen":                            {packing.State{Weight: 1, Seen: -2}, "seen is -2"},
		"a class without GPUs":                 {packing.State{Weight: 1, Classes: []packing.ClassState{{Slots: 100}}}, "classes[0] has gpus 0"},
		"a negative count":                     {packing.State{Weight: 1, Classes: []packing.ClassState{{GPUs: 1, Slots: 100, Count: -3}}}, "classes[0] has the figure -3"},
		"two classes that are one": {packing.State{Weight: 1, Classes: []packing.ClassState{{GPUs: 1, Slots: 100}, {GPUs: 1, Slots: 100}}},
			"two classes are alike"},
		"a pressure": {packing.State{Weight: 1, Pressure: []packing.ShapePressure{{Pressure: -1}}}, "pressure[0] has the figure -1"},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := packing.New(packing.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Restore(c.state); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one that says %q", err, c.want)
			}
		})
	}
}
