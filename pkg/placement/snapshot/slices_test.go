// SPDX-License-Identifier: Apache-2.0

package snapshot_test

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement/claims"
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

// driven is a node of NVIDIA's DRA driver with so many cards of a product.
func driven(name, product string, count int) snapshot.Node {
	n := node(name, "", gpu.Spot, 8, 0)
	n.GPU, n.TotalGPUs = nil, 0
	for i := range count {
		uuid := name + strconv.Itoa(i)
		n.Devices = append(n.Devices, claims.Device{Pool: name, Name: "gpu-" + strconv.Itoa(i), Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
			"productName": {StringValue: &product}, "uuid": {StringValue: &uuid},
		}})
	}
	return n
}

// claiming asks for so many devices by a claim of its own.
func claiming(name string, count int, annotations ...string) snapshot.Pod {
	p := pod(name, 0, annotations...)
	p.Claims = []claims.Ask{{Claim: "bench/" + name, Request: "gpu", Count: count}}
	return p
}

func TestDevicesOfClaimsAreTakenAndGivenBack(t *testing.T) {
	s := reference()
	s.Nodes = []snapshot.Node{driven("dra", "NVIDIA A100-SXM4-80GB", 8)}
	first := claiming("first", 6, "gpu-model", "A100-80GB", "expected-duration", "25m")
	d := s.Decide(first)
	// Six of eight cards at $8 an hour.
	if d.Node != "dra" || d.Candidates[0].USDPerHour != 6 || d.Candidates[0].GPUModel != "A100-80GB" {
		t.Fatalf("decided %+v", d)
	}
	s = s.Place(first, "dra")
	second := claiming("second", 3)
	if got := refusals(s.Decide(second))["dra"]; got != "FreeGPUs: 2 free GPUs of 8, wanted 3" {
		t.Errorf("while they are taken: %q", got)
	}
	if d := s.At(noon.Add(25 * time.Minute)).Decide(second); d.Node != "dra" {
		t.Errorf("once the first has ended: %+v", d)
	}
	if d := s.Without("bench/first").Decide(second); d.Node != "dra" {
		t.Errorf("once the first has left: %+v", d)
	}
	on, node, _ := s.Find("bench", "first")
	if d := s.Decide(on); node != "dra" || d.Node != "dra" || d.Candidates[0].USDPerHour != 6 {
		t.Errorf("the first again: %+v", d)
	}
	alone := claiming("alone", 1, "isolation", "node")
	if got := refusals(s.Decide(alone))["dra"]; got != "Neighbours: other pods on their GPUs, wanted isolation" {
		t.Errorf("a pod that must be alone: %q", got)
	}
	var document bytes.Buffer
	if err := s.Write(&document); err != nil {
		t.Fatal(err)
	}
	if read, err := snapshot.Read(document.Bytes()); err != nil || !cmp.Equal(read.Decide(second), s.Decide(second)) {
		t.Errorf("read again: %v, %+v", err, read.Decide(second))
	}
}

func TestAClaimOfSeveralPodsKeepsItsDevicesUntilTheLast(t *testing.T) {
	s := reference()
	s.Nodes = []snapshot.Node{driven("dra", "NVIDIA L4", 1)}
	first, second := claiming("first", 1), claiming("second", 1)
	second.Claims[0].Claim = "bench/first"
	s = s.Place(first, "dra")
	second.Claims[0].Allocated = true
	if d := s.Decide(second); d.Node != "dra" {
		t.Fatalf("the second pod of the claim: %+v", d)
	}
	s = s.Place(second, "dra").Without("bench/first")
	if got := refusals(s.Decide(claiming("third", 1)))["dra"]; got != "FreeGPUs: 0 free GPUs of 1, wanted 1" {
		t.Errorf("while the second has it: %q", got)
	}
	if d := s.Without("bench/second").Decide(claiming("third", 1)); d.Node != "dra" {
		t.Errorf("once both are gone: %+v", d)
	}
}

func TestClaimsThatNobodyCanReadAreSaid(t *testing.T) {
	s := reference()
	p := pod("p", 0).WithClaims(nil, false, errors.New("claim bench/c, request gpu: it asks for all GPUs of a node"))
	if d := s.Decide(p); d.Feasible() || d.Reason != "claim bench/c, request gpu: it asks for all GPUs of a node" {
		t.Errorf("decided %+v", d)
	}
	p = claiming("p", 1)
	p.GPUs = 1
	if d := s.Decide(p); d.Feasible() || d.Reason != "the pod asks for GPUs by nvidia.com/gpu and by resource claims; leave one of them" {
		t.Errorf("decided %+v", d)
	}
	p = pod("p", 0, "gpu-model", "L4")
	p.Unchecked = []string{"resource claims"} // as a manifest is read
	if d := s.Decide(p); d.Feasible() || !strings.Contains(d.Reason, "submit it and explain it then") {
		t.Errorf("decided %+v", d)
	}
}
