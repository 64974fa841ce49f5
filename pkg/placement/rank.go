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
	// ModelRank is the rank of its model in the pod's list, from 0.
	ModelRank int
}

func (c Candidate) late() bool { return c.Estimate.Overrun > 0 }

// Rank puts nodes that may be used into the order of the package's documentation,
// best first. The order of the input does not matter.
func Rank(r Request, feasible []Node) []Candidate {
	out := make([]Candidate, 0, len(feasible))
	for _, n := range feasible {
		out = append(out, Candidate{Node: n, Estimate: Reckon(r, n), ModelRank: modelRank(r.Spec, n)})
	}
	slices.SortFunc(out, func(a, b Candidate) int { return a.key(r).compare(b.key(r)) })
	return out
}

// key is what candidates are compared by.
type key struct {
	late        bool // an interruption could make it miss its deadline
	modelRank   int
	priced      bool
	charge      float64 // USD, or hours where no price is known
	opportunity Opportunity
	hours, risk float64
	name        string
}

func (c Candidate) key(r Request) key {
	return keyOf(&r, c.ModelRank, c.Estimate, c.Node.Opportunity, c.Node.Name)
}

func keyOf(r *Request, modelRank int, e Estimate, o Opportunity, name string) key {
	k := key{late: e.Overrun > 0, modelRank: modelRank, priced: e.PriceKnown(), opportunity: o, hours: e.Hours, risk: e.Risk, name: name}
	if k.priced {
		k.charge = e.CostUSD + o.GPUs*r.work().Hours()*r.Assumptions.GPUHourUSD
	} else {
		k.charge = e.Hours + o.GPUs*r.work().Hours()
	}
	return k
}

func (a key) compare(b key) int {
	return cmp.Or(a.compareButName(&b), strings.Compare(a.name, b.name))
}

// compareButName looks at the first difference alone: it is asked for every node.
func (a *key) compareButName(b *key) int {
	if a.late == b.late && a.modelRank == b.modelRank && a.priced == b.priced && a.charge != b.charge {
		return cmp.Compare(a.charge, b.charge)
	}
	return cmp.Or(
		firstTrue(!a.late, !b.late),
		cmp.Compare(a.modelRank, b.modelRank),
		firstTrue(a.priced, b.priced),
		cmp.Compare(a.charge, b.charge),
		cmp.Compare(a.opportunity.GPUs, b.opportunity.GPUs),
		cmp.Compare(a.opportunity.Leaning, b.opportunity.Leaning),
		cmp.Compare(a.hours, b.hours),
		cmp.Compare(a.risk, b.risk),
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

// Tally is how many nodes were feasible in all, and how many of them are like the best
// up to its model: as good for the deadline, and with a model as preferred. A list of
// candidates may have only the first of them.
type Tally struct{ Feasible, Preferred int }

// Count is the tally of a list that has all feasible nodes.
func Count(ranked []Candidate) Tally {
	t := Tally{Feasible: len(ranked)}
	for _, c := range ranked {
		if c.ModelRank == ranked[0].ModelRank && c.late() == ranked[0].late() {
			t.Preferred++
		}
	}
	return t
}

// Explain says in one sentence why the first of the ranked candidates was chosen.
func Explain(r Request, ranked []Candidate, t Tally) string {
	if len(ranked) == 0 {
		return "no feasible node"
	}
	first := ranked[0]
	if len(ranked) == 1 {
		return "only feasible node: " + price(first)
	}
	second := ranked[1]
	if second.late() && !first.late() {
		return fmt.Sprintf("safe for the deadline: %s; on %s, at %s, an interruption could miss it by %s", price(first), second.Node.Name, price(second), short(second.Estimate.Overrun))
	}
	if second.ModelRank > first.ModelRank {
		rest := fmt.Sprintf("; next is %s with %s at %s", second.Node.Name, second.Node.GPUs.Model, price(second))
		return fmt.Sprintf("has %s, the most preferred model among %d feasible nodes: %s%s", first.Node.GPUs.Model, t.Feasible, price(first), rest)
	}
	among := fmt.Sprintf("%d feasible nodes", t.Feasible)
	if len(r.Spec.GPUModels) > 1 && t.Preferred < t.Feasible {
		among = fmt.Sprintf("%d feasible nodes with the preferred %s", t.Preferred, first.Node.GPUs.Model)
	}
	spares := second.Node.Opportunity.GPUs - first.Node.Opportunity.GPUs
	switch {
	case !first.Estimate.PriceKnown():
		return fmt.Sprintf("best of %s by expected time, no price known: %s vs %s on %s%s", among, price(first), price(second), second.Node.Name, sparing(spares))
	case first.Estimate.CostUSD == second.Estimate.CostUSD:
		return fmt.Sprintf("as cheap as any of %s: %s, as on %s%s", among, price(first), second.Node.Name, sparing(spares))
	case first.Estimate.CostUSD > second.Estimate.CostUSD && second.Estimate.PriceKnown():
		return fmt.Sprintf("best of %s: %s, and %s on %s%s", among, price(first), price(second), second.Node.Name, sparing(spares))
	}
	return fmt.Sprintf("cheapest of %s: %s vs %s on %s", among, price(first), price(second), second.Node.Name)
}

// sparing says that the pods to come have so many GPUs more for the choice.
func sparing(gpus float64) string {
	if gpus <= 0 {
		return ""
	}
	return fmt.Sprintf(", which would take %.2f GPUs more from the pods to come", gpus)
}

// Lost says in what a candidate is worse than the chosen one: the first step of the
// order that tells them apart.
func Lost(r Request, chosen, other Candidate) string {
	c, o := chosen.Estimate, other.Estimate
	takes := other.Node.Opportunity.GPUs - chosen.Node.Opportunity.GPUs
	switch {
	case other.key(r).compare(chosen.key(r)) < 0:
		return "nothing: it ranks before the chosen node"
	case other.late() && !chosen.late():
		return "an interruption there could miss the deadline by " + short(o.Overrun)
	case other.ModelRank != chosen.ModelRank:
		return fmt.Sprintf("%s is less preferred than %s", other.Node.GPUs.Model, chosen.Node.GPUs.Model)
	case c.PriceKnown() != o.PriceKnown():
		return "its price is not known"
	case takes > 0 && o.CostUSD <= c.CostUSD:
		return fmt.Sprintf("takes %.2f GPUs more from the pods to come%s", takes, though(c.CostUSD-o.CostUSD))
	case o.CostUSD-c.CostUSD >= 0.005:
		return fmt.Sprintf("costs $%.2f more", o.CostUSD-c.CostUSD)
	case o.CostUSD != c.CostUSD:
		return "costs less than a cent more"
	case other.Node.Opportunity.Leaning != chosen.Node.Opportunity.Leaning:
		return "fits the pod less tightly"
	case o.Hours != c.Hours:
		return fmt.Sprintf("takes %s, not %s", shortHours(o.Hours), shortHours(c.Hours))
	case o.Risk != c.Risk:
		return fmt.Sprintf("interruption risk %s, not %s", above(o.Risk, c.Risk), fraction(c.Risk))
	}
	return "nothing but the order of names"
}

func though(cheaperUSD float64) string {
	switch {
	case cheaperUSD >= 0.005:
		return fmt.Sprintf(", though $%.2f cheaper", cheaperUSD)
	case cheaperUSD > 0:
		return ", though less than a cent cheaper"
	}
	return ""
}

// price is what finishing on a candidate is expected to cost, or to take where no
// price is known.
func price(c Candidate) string {
	if !c.Estimate.PriceKnown() {
		return shortHours(c.Estimate.Hours) + " (no price known for " + c.Node.Pool.String() + ")"
	}
	return fmt.Sprintf("$%.2f", c.Estimate.CostUSD)
}
