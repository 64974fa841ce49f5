// SPDX-License-Identifier: Apache-2.0

package claims

import (
	"slices"
	"strings"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
)

// See is a node as the pod of a request finds it that asks for devices: what the
// requests of its claims select are the node's GPUs. Where they may be given GPUs of
// several models, and some of these are not what the pod's annotations ask for, the
// GPUs cannot be used; so for a pod that would get GPUs of two models.
func See(r placement.Request, n placement.Node, asks []Ask, devices []Device) placement.Node {
	n.GPUs, n.HasGPUs = gpu.Node{}, len(devices) > 0
	n.TotalGPUs, n.FreeGPUs = 0, 0
	var all, free kinds
	for _, d := range devices {
		selected, available := false, false
		for _, a := range asks {
			if a.selects(d) {
				selected, available = true, available || a.free(d)
			}
		}
		if !selected {
			continue
		}
		n.TotalGPUs++
		all.add(d.GPU())
		if available {
			n.FreeGPUs++
			free.add(d.GPU())
		}
	}
	if _, enough := assign(asks, devices); !enough {
		n.FreeGPUs = min(n.FreeGPUs, r.GPUs-1)
	}
	possible := free
	if len(possible) == 0 {
		possible = all
	}
	if len(possible) == 0 {
		return n
	}
	n.GPUs = possible.worst(r, n)
	cards := cardsOf(devices)
	n.GPUs.Count = n.TotalGPUs
	n.GPUs.Share = n.GPUs.PartOf(cards)
	return n
}

// kinds of GPUs, each once, by model.
type kinds []gpu.Node

func (k *kinds) add(g gpu.Node) {
	at, known := slices.BinarySearchFunc(*k, g, func(a, b gpu.Node) int { return strings.Compare(a.Model, b.Model) })
	if !known {
		*k = slices.Insert(*k, at, g)
	}
}

// worst is what the pod gets if it is unlucky.
func (k kinds) worst(r placement.Request, n placement.Node) gpu.Node {
	worst, wanted, whole, rank := k[0], 0, true, -1
	names := make([]string, len(k))
	for i, g := range k {
		names[i] = g.Model
		whole = whole && g.Card == ""
		n.GPUs, n.HasGPUs, n.TotalGPUs = g, true, 1
		if placement.CheckGPUs(r, n) != nil {
			continue
		}
		wanted++
		if at := r.ModelRank(n); at > rank {
			worst, rank = g, at
		}
	}
	switch {
	case len(k) == 1 || wanted == 0:
	case wanted < len(k) || r.GPUs > 1 || !whole:
		worst.Invalid = "the pod's claims may be given " + strings.Join(names, " or ") + " there; select one in the claim, as `kubectl spotbench render` does"
	}
	return worst
}

// cardsOf is how many cards the devices are, or are cut from.
func cardsOf(devices []Device) int {
	cards := map[string]bool{}
	for _, d := range devices {
		id := d.text("uuid")
		if d.text("profile") != "" {
			id = d.text("parentUUID")
		}
		if id == "" {
			id = d.Pool + "/" + d.Name
		}
		cards[id] = true
	}
	return len(cards)
}
