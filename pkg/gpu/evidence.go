// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"fmt"
	"strings"
)

// FromNode reads a node's GPUs from its labels, as FromLabels does, and from how many
// of each extended resource its kubelet offers. Where these contradict each other the
// GPUs are Invalid: nobody can tell which card a pod would get. What pods find that
// ask for slices or shares by resources of their own, As tells.
func FromNode(labels map[string]string, offered map[string]int) (Node, bool) {
	n, ok := FromLabels(labels)
	if !ok || n.Invalid != "" {
		return n, ok
	}
	if offered[Resource{Shared: true}.Name()] > 0 && !strings.HasSuffix(n.Product, "-SHARED") {
		n.Shared = false // those under the plain name are whole
		if n.Count > 0 {
			n.Share = 1 / float64(n.Count)
		}
	}
	if divided(offered) {
		cards := cardsNeeded(n.Model, labels, offered)
		if n.Count > 0 && cards > n.Count {
			n.Invalid = fmt.Sprintf("it offers more slices and GPUs than the %d cards of label %s hold: GPU Feature Discovery counts those of one model only, or its labels are old", n.Count, LabelCount)
			return n, true
		}
		n.Share = 1 / float64(max(n.Count, cards))
		if n.Shared {
			n.Share /= float64(replicasOf(Resource{}, labels))
		}
		return n, true
	}
	whole := offered[ResourceName]
	switch replicas := replicasOf(Resource{}, labels); {
	case n.Count == 0 || whole <= n.Count*replicas:
		// Fewer are no contradiction: a card fails, or is divided by MIG.
	case labels[LabelProduct] == "":
		// A cloud's figure is of the machine: what is offered beyond it is shared.
		n.Shared = true
	case replicas > 1:
		n.Invalid = fmt.Sprintf("it offers %d %s, but label %s says %d shared by %d each", whole, ResourceName, LabelCount, n.Count, replicas)
	default:
		n.Invalid = fmt.Sprintf("it offers %d %s, but label %s says %d: GPU Feature Discovery counts those of one model only, or its labels are old", whole, ResourceName, LabelCount, n.Count)
	}
	return n, true
}

// contradiction says which two labels of a node tell of different cards, "" if none
// do. Cards that the catalogue does not know contradict nothing.
func contradiction(labels map[string]string) string {
	type witness struct{ label, value, card string }
	var seen []witness
	hear := func(label, value, card string) {
		if m, known := Lookup(card); known {
			seen = append(seen, witness{label, value, m.Name})
		}
	}
	product, _ := splitProduct(labels[LabelProduct])
	hear(LabelProduct, labels[LabelProduct], product)
	for _, key := range productsOfSlices(labels) {
		card, _ := splitProduct(labels[key])
		hear(key, labels[key], card)
	}
	hear(labelGKEAccelerator, labels[labelGKEAccelerator], labels[labelGKEAccelerator])
	if name := labels[labelKarpenterName]; name != "" {
		hear(labelKarpenterName, name, fromKarpenter(name, labels).Model)
	}
	hear(labelInstanceType, labels[labelInstanceType], cardOfInstance(labels[labelInstanceType]))
	for _, w := range seen {
		if first := seen[0]; w.card != first.card {
			return fmt.Sprintf("label %s=%s says %s, but %s=%s says %s", first.label, first.value, first.card, w.label, w.value, w.card)
		}
	}
	return ""
}

// instanceCards are the cards of instance types, by how the type's name begins. Only
// types that come with one card and nothing else are here.
var instanceCards = []struct{ prefix, card string }{
	{"p6-b200.", "B200-180GB"},
	{"p5en.", "H200-141GB"}, {"p5e.", "H200-141GB"}, {"p5.", "H100-80GB"},
	{"p4de.", "A100-80GB"}, {"p4d.", "A100-40GB"},
	{"p3dn.", "V100-32GB"}, {"p3.", "V100-16GB"},
	{"g6e.", "L40S-48GB"}, {"gr6.", "L4-24GB"}, {"g6.", "L4-24GB"}, {"g5.", "A10G-24GB"}, {"g4dn.", "T4-16GB"},
	{"a4-highgpu-", "B200-180GB"}, {"a3-ultragpu-", "H200-141GB"},
	{"a3-megagpu-", "H100-80GB"}, {"a3-highgpu-", "H100-80GB"}, {"a3-edgegpu-", "H100-80GB"},
	{"a2-ultragpu-", "A100-80GB"}, {"a2-megagpu-", "A100-40GB"}, {"a2-highgpu-", "A100-40GB"},
	{"g2-standard-", "L4-24GB"},
	{"Standard_ND96isr_H200_v5", "H200-141GB"}, {"Standard_ND96isr_H100_v5", "H100-80GB"},
	{"Standard_NC40ads_H100_v5", "H100-NVL-94GB"}, {"Standard_NC80adis_H100_v5", "H100-NVL-94GB"},
	{"Standard_ND96amsr_A100_v4", "A100-80GB"}, {"Standard_ND96asr_v4", "A100-40GB"},
	{"Standard_NC24ads_A100_v4", "A100-80GB"}, {"Standard_NC48ads_A100_v4", "A100-80GB"}, {"Standard_NC96ads_A100_v4", "A100-80GB"},
	{"Standard_NC4as_T4_v3", "T4-16GB"}, {"Standard_NC8as_T4_v3", "T4-16GB"}, {"Standard_NC16as_T4_v3", "T4-16GB"}, {"Standard_NC64as_T4_v3", "T4-16GB"},
}

// cardOfInstance is the card of an instance type, "" for one that is not known.
func cardOfInstance(instanceType string) string {
	for _, c := range instanceCards {
		if strings.HasPrefix(instanceType, c.prefix) {
			return c.card
		}
	}
	return ""
}
