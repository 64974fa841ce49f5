// SPDX-License-Identifier: Apache-2.0

package snapshot_test

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement/snapshot"
)

// divided is a node with whole cards, MIG slices and shares beside each other.
func divided(name, model string, whole, sevenths, halves, shares int) snapshot.Node {
	n := node(name, model, gpu.Spot, 56, 0)
	n.TotalGPUs = whole
	for resource, count := range map[string]int{"nvidia.com/mig-1g.10gb": sevenths, "nvidia.com/mig-3g.40gb": halves, "nvidia.com/gpu.shared": shares} {
		if count > 0 {
			n.Allocatable = merged(n.Allocatable, resource, strconv.Itoa(count))
		}
	}
	n.Labels = map[string]string{gpu.LabelMIGStrategy: "mixed", gpu.LabelReplicas: "4"}
	return n
}

func merged(list v1.ResourceList, pairs ...string) v1.ResourceList {
	for name, q := range quantities(pairs...) {
		list[name] = q
	}
	return list
}

// part asks for parts of GPUs under annotations given without their prefix, in pairs.
func part(name, resource string, count int, annotations ...string) snapshot.Pod {
	p := pod(name, 0, annotations...)
	p.Requests = quantities("cpu", "1", resource, strconv.Itoa(count))
	return p
}

func TestASliceIsDecidedByItsCardItsMemoryAndItsPartOfThePrice(t *testing.T) {
	s := reference()
	s.Nodes = append(s.Nodes, divided("mixed", "A100-80GB", 4, 14, 4, 0))
	d := s.Decide(part("p", "nvidia.com/mig-3g.40gb", 2, "gpu-model", "A100-80GB", "gpu-memory", "40Gi"))
	// Two of three compute slices each, of 7 of each of 8 cards, at $56: $6 an hour.
	if d.Node != "mixed" || d.Candidates[0].GPUModel != "A100-80GB-MIG-3g.40gb" || d.Candidates[0].USDPerHour != 6 {
		t.Errorf("decided %+v", d)
	}
	if got := refusals(d)["a100"]; got != "NoGPUs: no nvidia.com/mig-3g.40gb, wanted A100-80GB" {
		t.Errorf("a node without slices: %q", got)
	}
	d = s.Decide(part("p", "nvidia.com/mig-1g.10gb", 15))
	if got := refusals(d)["mixed"]; got != "FreeGPUs: 14 of 14 nvidia.com/mig-1g.10gb free, wanted 15" {
		t.Errorf("more slices than there are: %q", got)
	}
	both := part("p", "nvidia.com/mig-1g.10gb", 1)
	both.GPUs = 1
	if d := s.Decide(both); d.Feasible() || !strings.HasPrefix(d.Reason, "the pod asks for several kinds of GPUs") {
		t.Errorf("a card and a slice: %+v", d)
	}
}

func TestPodsWithPartsOfGPUsArePartOfTheDocument(t *testing.T) {
	s := reference()
	s.Nodes = append(s.Nodes, divided("mixed", "A100-80GB", 4, 14, 0, 0))
	s = s.Place(part("p", "nvidia.com/mig-1g.10gb", 3), "mixed")
	var document bytes.Buffer
	if err := s.Write(&document); err != nil {
		t.Fatal(err)
	}
	read, err := snapshot.Read(document.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if _, on, _ := read.Find("bench", "p"); on != "mixed" {
		t.Errorf("the pod is on %q", on)
	}
	after := refusals(read.Decide(part("q", "nvidia.com/mig-1g.10gb", 12)))
	if got := after["mixed"]; got != "FreeGPUs: 11 of 14 nvidia.com/mig-1g.10gb free, wanted 12" {
		t.Errorf("after three were taken: %q", got)
	}
	alone := refusals(read.Decide(pod("alone", 1, "isolation", "node", "gpu-model", "A100-80GB")))
	if got := alone["mixed"]; got != "Neighbours: other pods on their GPUs, wanted isolation" {
		t.Errorf("a pod that must be alone: %q", got)
	}
}

func TestNoKindOfGPUIsEverOvercommitted(t *testing.T) {
	resources := []string{gpu.ResourceName, "nvidia.com/mig-1g.10gb", "nvidia.com/mig-3g.40gb", "nvidia.com/gpu.shared"}
	rapid.Check(t, func(t *rapid.T) {
		s := reference()
		s.Nodes = nil
		offered := map[string]map[string]int{}
		for i := range rapid.IntRange(1, 3).Draw(t, "nodes") {
			whole, sevenths, halves, shares := rapid.IntRange(0, 2).Draw(t, "whole"), rapid.IntRange(0, 14).Draw(t, "sevenths"), rapid.IntRange(0, 2).Draw(t, "halves"), rapid.IntRange(0, 8).Draw(t, "shares")
			name := "n" + strconv.Itoa(i)
			s.Nodes = append(s.Nodes, divided(name, rapid.SampledFrom([]string{"A100-80GB", "H100-80GB"}).Draw(t, "model"), whole, sevenths, halves, shares))
			offered[name] = map[string]int{resources[0]: whole, resources[1]: sevenths, resources[2]: halves, resources[3]: shares}
		}
		taken := map[string]map[string]int{}
		for i := range rapid.IntRange(1, 25).Draw(t, "pods") {
			resource, count := rapid.SampledFrom(resources).Draw(t, "resource"), rapid.IntRange(1, 4).Draw(t, "count")
			var annotations []string
			if rapid.Bool().Draw(t, "particular") {
				annotations = []string{"gpu-model", rapid.SampledFrom([]string{"A100-80GB", "H100-80GB"}).Draw(t, "wanted")}
			}
			p := part("p"+strconv.Itoa(i), resource, count, annotations...)
			if resource == gpu.ResourceName {
				p = pod(p.Name, count, annotations...)
			}
			d := s.Decide(p)
			if !d.Feasible() {
				// Then no node has room for it that it would accept.
				for _, n := range s.Nodes {
					if free := offered[n.Name][resource] - taken[n.Name][resource]; free >= count && len(annotations) == 0 {
						t.Fatalf("%d %s are free on %s, and the pod that asks for %d goes nowhere: %v", free, resource, n.Name, count, refusals(d))
					}
				}
				continue
			}
			if taken[d.Node] == nil {
				taken[d.Node] = map[string]int{}
			}
			taken[d.Node][resource] += count
			if taken[d.Node][resource] > offered[d.Node][resource] {
				t.Fatalf("%s of %s: %d are taken of %d", resource, d.Node, taken[d.Node][resource], offered[d.Node][resource])
			}
			if again := s.Decide(p); !cmp.Equal(d, again) {
				t.Fatalf("decided twice: %s", cmp.Diff(d, again))
			}
			s = s.Place(p, d.Node)
		}
	})
}
