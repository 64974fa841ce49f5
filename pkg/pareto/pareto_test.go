// SPDX-License-Identifier: Apache-2.0

package pareto_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/pareto"
)

type choice [3]float64

var objectives = []pareto.Objective[choice]{
	{Of: func(c choice) float64 { return c[0] }, Higher: true},
	{Of: func(c choice) float64 { return c[1] }},
	{Of: func(c choice) float64 { return c[2] }},
}

func TestTheFrontierIsWhatNoOtherBeatsInEverything(t *testing.T) {
	for name, tt := range map[string]struct {
		choices []choice
		want    []int
	}{
		"nothing":                        {nil, []int{}},
		"a single one":                   {[]choice{{1, 1, 1}}, []int{0}},
		"faster at the same":             {[]choice{{1, 5, 5}, {2, 5, 5}}, []int{1}},
		"faster but dearer":              {[]choice{{1, 5, 5}, {2, 5, 6}}, []int{0, 1}},
		"equals stand beside each other": {[]choice{{1, 5, 5}, {1, 5, 5}}, []int{0, 1}},
		"one that beats both before it":  {[]choice{{1, 5, 5}, {2, 6, 6}, {3, 4, 4}}, []int{2}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := pareto.Frontier(tt.choices, objectives); !slices.Equal(got, tt.want) {
				t.Errorf("frontier %v, want %v", got, tt.want)
			}
		})
	}
}

// draw makes choices of few values, so that many are equal in something.
func draw(t *rapid.T) []choice {
	value := rapid.Map(rapid.IntRange(0, 4), func(n int) float64 { return float64(n) })
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) choice {
		return choice{value.Draw(t, "throughput"), value.Draw(t, "latency"), value.Draw(t, "cost")}
	}), 0, 40).Draw(t, "choices")
}

func TestAChoiceIsOnTheFrontierExactlyIfNoneDominatesIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		choices := draw(t)
		frontier := pareto.Frontier(choices, objectives)
		if !slices.IsSorted(frontier) {
			t.Fatalf("frontier %v is out of order", frontier)
		}
		for n, c := range choices {
			dominated := slices.ContainsFunc(choices, func(other choice) bool { return pareto.Dominates(other, c, objectives) })
			if slices.Contains(frontier, n) == dominated {
				t.Fatalf("choice %d %v: dominated %v, frontier %v", n, c, dominated, frontier)
			}
		}
	})
}

func TestTheFrontierDoesNotDependOnTheOrderAndIsItsOwnFrontier(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		choices := draw(t)
		values := func(of []choice) []choice {
			var out []choice
			for _, n := range pareto.Frontier(of, objectives) {
				out = append(out, of[n])
			}
			slices.SortFunc(out, func(a, b choice) int { return slices.Compare(a[:], b[:]) })
			return out
		}
		want := values(choices)
		if got := values(rapid.Permutation(choices).Draw(t, "order")); !slices.Equal(got, want) {
			t.Fatalf("in another order %v, want %v", got, want)
		}
		if got := values(want); !slices.Equal(got, want) {
			t.Fatalf("the frontier's frontier is %v, want %v", got, want)
		}
	})
}

func TestDominanceIsAStrictOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		choices := draw(t)
		for _, a := range choices {
			if pareto.Dominates(a, a, objectives) {
				t.Fatalf("%v dominates itself", a)
			}
			for _, b := range choices {
				if pareto.Dominates(a, b, objectives) && pareto.Dominates(b, a, objectives) {
					t.Fatalf("%v and %v dominate each other", a, b)
				}
				for _, c := range choices {
					if pareto.Dominates(a, b, objectives) && pareto.Dominates(b, c, objectives) && !pareto.Dominates(a, c, objectives) {
						t.Fatalf("%v dominates %v, that %v, and not the first the last", a, b, c)
					}
				}
			}
		}
	})
}
