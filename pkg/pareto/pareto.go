// SPDX-License-Identifier: Apache-2.0

// Package pareto finds the choices among which only taste can decide: those that
// no other beats in everything. It is pure.
package pareto

// Objective is one quantity to optimise.
type Objective[T any] struct {
	// Of is its value; NaN is not allowed.
	Of func(T) float64
	// Higher says that more is better.
	Higher bool
}

// Dominates reports whether a is at least as good as b in every objective and
// better in one.
func Dominates[T any](a, b T, objectives []Objective[T]) bool {
	better := false
	for _, o := range objectives {
		x, y := o.Of(a), o.Of(b)
		if o.Higher {
			x, y = -x, -y
		}
		if x > y {
			return false
		}
		better = better || x < y
	}
	return better
}

// Frontier are the indices of the choices that no other dominates, in their
// order. Choices that are equal in everything are all on it, or none is. It
// takes time in the number of choices times the length of the frontier.
func Frontier[T any](choices []T, objectives []Objective[T]) []int {
	kept := []int{}
candidates:
	for n, c := range choices {
		var next []int
		for _, k := range kept {
			if Dominates(choices[k], c, objectives) {
				continue candidates
			}
			if !Dominates(c, choices[k], objectives) {
				next = append(next, k)
			}
		}
		next = append(next, n)
		kept = next
	}
	return kept
}
