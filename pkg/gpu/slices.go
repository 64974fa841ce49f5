// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"fmt"
	"slices"
	"strings"
)

// As is the node's GPUs as a pod finds them that asks for a resource, of a node as
// FromNode reads it. For a slice the model is the card's with the profile
// ("A100-80GB-MIG-1g.10gb"), the memory the profile's. Shares have the memory of what
// is shared, under MPS their part of it.
func (n Node) As(r Resource, labels map[string]string, offered map[string]int) Node {
	if r.Whole() || n.Invalid != "" {
		return n
	}
	replicas := replicasOf(r, labels)
	if r.Profile == "" {
		return n.asShare(offered[r.Name()], replicas, labels)
	}
	p, err := ParseProfile(r.Profile)
	if err != nil {
		n.Invalid = err.Error()
		return n
	}
	out := Node{
		Model:       sliceModel(n.Model, p.Name),
		Product:     labels[r.labels()+".product"],
		MemoryBytes: p.MemoryBytes,
		Count:       atoi(labels[r.labels()+".count"]),
		Shared:      r.Shared || replicas > 1,
		Card:        n.Model,
	}
	if out.Shared && mps(r, labels) {
		out.MemoryBytes /= int64(replicas)
	}
	cards := max(n.Count, cardsNeeded(n.Model, labels, offered))
	if cards > 0 {
		out.Share = p.partOf(n.Model) / float64(cards*replicas)
	}
	if has := offered[r.Name()]; out.Count > 0 && has > out.Count*replicas {
		out.Invalid = fmt.Sprintf("it offers %d %s, but label %s.count says %d: its labels are old", has, r.Name(), r.labels(), out.Count)
	}
	return out
}

// asShare is for shares of cards under a name of their own.
func (n Node) asShare(has, replicas int, labels map[string]string) Node {
	n.Shared, n.Share = true, 0
	if mps(Resource{}, labels) {
		n.MemoryBytes /= int64(replicas)
	}
	switch {
	case n.Count > 0 && has > n.Count*replicas:
		n.Invalid = fmt.Sprintf("it offers %d %s, but label %s says %d shared by %d each", has, Resource{Shared: true}.Name(), LabelCount, n.Count, replicas)
	case n.Count > 0 && replicas > 1:
		n.Share = 1 / float64(n.Count*replicas)
	}
	return n
}

// replicasOf is into how many shares each one of a resource is divided.
func replicasOf(r Resource, labels map[string]string) int {
	return max(1, atoi(labels[r.labels()+".replicas"]))
}

// mps says that shares have a part of the memory each, and not all of it in turns.
func mps(r Resource, labels map[string]string) bool {
	return labels[r.labels()+".sharing-strategy"] == "mps"
}

// divided says that MIG slices are offered by resources of their own.
func divided(offered map[string]int) bool {
	for name, n := range offered {
		if n > 0 && strings.HasPrefix(name, resourceMIG) {
			return true
		}
	}
	return false
}

// cardsNeeded is how many cards of a kind it takes at least to offer so much.
func cardsNeeded(card string, labels map[string]string, offered map[string]int) int {
	all, parts := computeSlices(card), 0
	for name, n := range offered {
		r, is, err := ParseResource(name)
		if !is || err != nil {
			continue
		}
		n = min(max(n, 0), 1<<30)
		// All shares of one are one.
		n = int(roundUp(int64(n), int64(replicasOf(r, labels)))) / replicasOf(r, labels)
		if p, err := ParseProfile(r.Profile); err == nil {
			parts += n * p.Compute
		} else {
			parts += n * all
		}
	}
	return (parts + all - 1) / all
}

// productsOfSlices are the labels that name the card of each kind of slice, in order.
func productsOfSlices(labels map[string]string) []string {
	var keys []string
	if labels[LabelMIGStrategy] != "mixed" {
		return nil
	}
	for key := range labels {
		if strings.HasPrefix(key, resourceMIG) && strings.HasSuffix(key, ".product") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// FromDevice reads a GPU of dynamic resource allocation from what NVIDIA's driver says
// of it: its product as NVML names it, the profile of a MIG slice, "" of a card, and
// the memory in bytes that is left for programs, 0 when it is not said.
func FromDevice(product, profile string, memory int64) Node {
	spelt := strings.Join(strings.Fields(product), "-") // as labels have it
	n := Node{Model: spelt, Product: spelt, MemoryBytes: roundUp(min(max(memory, 0), 1<<60), gib)}
	if m, known := Lookup(product); known {
		n.Model, n.MemoryBytes = m.Name, m.MemoryBytes
	}
	if profile == "" {
		return n
	}
	n.Card = n.Model
	p, err := ParseProfile(profile)
	if err != nil {
		n.Invalid = err.Error()
		return n
	}
	n.Model, n.Product, n.MemoryBytes = sliceModel(n.Card, p.Name), sliceModel(n.Product, p.Name), p.MemoryBytes
	return n
}

// PartOf is the part that one such GPU is of so many cards: of a slice its compute
// slices over theirs.
func (n Node) PartOf(cards int) float64 {
	if cards < 1 {
		return 0
	}
	_, profile, isSlice := strings.Cut(n.Model, "-MIG-")
	p, err := ParseProfile(profile)
	if !isSlice || n.Card == "" || err != nil {
		return 1 / float64(cards)
	}
	return p.partOf(n.Card) / float64(cards)
}
