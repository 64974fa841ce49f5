// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Candidate is a node with what is expected of it.
type Candidate struct {
	Node     Node
	Estimate Estimate
	// ModelRank is the place of its model in the pod's list, from 0.
	ModelRank int
}

// Rank puts nodes that may be used into the order of the package's documentation,
// best first. The order of the input does not matter.
func Rank(r Request, feasible []Node) []Candidate {
	out := make([]Candidate, 0, len(feasible))
	for _, n := range feasible {
		out = append(out, Candidate{Node: n, Estimate: Reckon(r, n), ModelRank: modelRank(r.Spec, n)})
	}
	slices.SortFunc(out, compare)
	return out
}

func compare(a, b Candidate) int {
	return cmp.Or(
		cmp.Compare(a.ModelRank, b.ModelRank),
		firstTrue(a.Estimate.PriceKnown(), b.Estimate.PriceKnown()),
		cmp.Compare(a.Estimate.CostUSD, b.Estimate.CostUSD),
		cmp.Compare(a.Estimate.Hours, b.Estimate.Hours),
		cmp.Compare(a.Estimate.Risk, b.Estimate.Risk),
		cmp.Compare(a.Node.FreeGPUs, b.Node.FreeGPUs),
		strings.Compare(a.Node.Name, b.Node.Name),
	)
}

func firstTrue(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// Explain says in one sentence why the first of the ranked candidates was chosen.
func Explain(r Request, ranked []Candidate) string {
	if len(ranked) == 0 {
		return "no feasible node"
	}
	first := ranked[0]
	if len(ranked) == 1 {
		return "only feasible node: " + price(first)
	}
	second := ranked[1]
	if second.ModelRank > first.ModelRank {
		rest := fmt.Sprintf("; next is %s with %s at %s", second.Node.Name, second.Node.GPUs.Model, price(second))
		return fmt.Sprintf("has %s, the most preferred model among %d feasible nodes: %s%s", first.Node.GPUs.Model, len(ranked), price(first), rest)
	}
	among := fmt.Sprintf("%d feasible nodes", len(ranked))
	if len(r.Spec.GPUModels) > 1 {
		if same := sameModel(ranked); same < len(ranked) {
			among = fmt.Sprintf("%d feasible nodes with the preferred %s", same, first.Node.GPUs.Model)
		}
	}
	switch {
	case !first.Estimate.PriceKnown():
		return fmt.Sprintf("best of %s by expected time, no price known: %s vs %s on %s", among, price(first), price(second), second.Node.Name)
	case first.Estimate.CostUSD == second.Estimate.CostUSD:
		return fmt.Sprintf("as cheap as any of %s: %s, as on %s", among, price(first), second.Node.Name)
	}
	return fmt.Sprintf("cheapest of %s: %s vs %s on %s", among, price(first), price(second), second.Node.Name)
}

// Lost says in what a candidate is worse than the chosen one: the first step of the
// order that tells them apart.
func Lost(chosen, other Candidate) string {
	c, o := chosen.Estimate, other.Estimate
	switch {
	case compare(other, chosen) < 0:
		return "nothing: it ranks before the chosen node"
	case other.ModelRank != chosen.ModelRank:
		return fmt.Sprintf("%s is less preferred than %s", other.Node.GPUs.Model, chosen.Node.GPUs.Model)
	case c.PriceKnown() != o.PriceKnown():
		return "its price is not known"
	case o.CostUSD-c.CostUSD >= 0.005:
		return fmt.Sprintf("costs $%.2f more", o.CostUSD-c.CostUSD)
	case o.CostUSD != c.CostUSD:
		return "costs less than a cent more"
	case o.Hours != c.Hours:
		return fmt.Sprintf("takes %s, not %s", shortHours(o.Hours), shortHours(c.Hours))
	case o.Risk != c.Risk:
		return fmt.Sprintf("interruption risk %s, not %s", above(o.Risk, c.Risk), fraction(c.Risk))
	case other.Node.FreeGPUs != chosen.Node.FreeGPUs:
		return fmt.Sprintf("keeps fewer whole nodes free: %d free GPUs there, %d here", other.Node.FreeGPUs, chosen.Node.FreeGPUs)
	}
	return "nothing but the order of names"
}

// sameModel counts the candidates as preferred as the first.
func sameModel(ranked []Candidate) int {
	n := 0
	for _, c := range ranked {
		if c.ModelRank == ranked[0].ModelRank {
			n++
		}
	}
	return n
}

// price is what finishing on a candidate is expected to cost, or to take where no
// price is known.
func price(c Candidate) string {
	if !c.Estimate.PriceKnown() {
		return shortHours(c.Estimate.Hours) + " (no price known for " + c.Node.Pool.String() + ")"
	}
	return fmt.Sprintf("$%.2f", c.Estimate.CostUSD)
}
