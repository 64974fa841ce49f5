// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"strconv"
	"strings"
)

// Labels of GPU Feature Discovery, Karpenter and GKE that say what GPUs a node
// has.
const (
	LabelProduct          = "nvidia.com/gpu.product"
	LabelMemory           = "nvidia.com/gpu.memory"
	LabelCount            = "nvidia.com/gpu.count"
	LabelReplicas         = "nvidia.com/gpu.replicas"
	LabelMIGStrategy      = "nvidia.com/mig.strategy"
	labelKarpenterName    = "karpenter.k8s.aws/instance-gpu-name"
	labelKarpenterMemory  = "karpenter.k8s.aws/instance-gpu-memory"
	labelKarpenterCount   = "karpenter.k8s.aws/instance-gpu-count"
	labelGKEAccelerator   = "cloud.google.com/gke-accelerator"
	labelGKEAcceleratorNo = "cloud.google.com/gke-accelerator-count"
	labelGKEPartition     = "cloud.google.com/gke-gpu-partition-size"
	labelGKESharing       = "cloud.google.com/gke-gpu-sharing-strategy"
	labelInstanceType     = "node.kubernetes.io/instance-type"
)

// Node is what is known of one node's GPUs, all of one model: with several models on
// a node GPU Feature Discovery labels only one of them, and FromNode says that it
// cannot be used.
type Node struct {
	// Model is the canonical name, the raw product for a model missing from the
	// catalogue, "" when the node has no GPU label. A MIG slice is a model of its
	// own, "A100-40GB-MIG-1g.5gb": its results compare with no whole card's.
	Model string
	// Product is the label's value as found.
	Product string
	// MemoryBytes is the nominal memory of one GPU or MIG slice; 0 when neither the
	// catalogue nor a label knows.
	MemoryBytes int64
	// Count is the number of physical GPUs (or MIG slices); 0 when no label says.
	Count int
	// Shared is true when the GPUs are time-sliced or under MPS: a pod that has one
	// shares it with others.
	Shared bool
	// Invalid says why these GPUs cannot be used, "" when they can.
	Invalid string
	// Card is the canonical name of the card that a slice is cut from which pods ask
	// for by a resource of its own (As), "" of all else.
	Card string
	// Share is the part of the machine that one of them is; 0 where those that are
	// offered make it up in equal parts.
	Share float64
}

// FromLabels reads a node's GPUs: GPU Feature Discovery's labels where present
// (they come from the driver), else what Karpenter or GKE promised for the
// instance. Labels that contradict each other make them Invalid. ok is false for a
// node without any GPU label.
func FromLabels(labels map[string]string) (n Node, ok bool) {
	switch {
	case labels[LabelProduct] != "":
		n = fromProduct(labels[LabelProduct], labels)
	case labels[labelGKEAccelerator] != "":
		n = fromGKE(labels[labelGKEAccelerator], labels)
	case labels[labelKarpenterName] != "":
		n = fromKarpenter(labels[labelKarpenterName], labels)
	default:
		return Node{}, false
	}
	if n.Invalid == "" {
		n.Invalid = contradiction(labels)
	}
	return n, true
}

// fromGKE reads the labels GKE sets on the nodes of a pool with accelerators.
func fromGKE(accelerator string, labels map[string]string) Node {
	n := Node{Model: accelerator, Product: accelerator, Count: atoi(labels[labelGKEAcceleratorNo]), Shared: labels[labelGKESharing] != ""}
	if m, known := Lookup(accelerator); known {
		n.Model, n.MemoryBytes = m.Name, m.MemoryBytes
	}
	if profile := labels[labelGKEPartition]; profile != "" {
		// The label counts the cards, not their slices.
		n.Model, n.MemoryBytes, n.Count = sliceModel(n.Model, profile), migMemory(profile), 0
	}
	return n
}

func fromProduct(product string, labels map[string]string) Node {
	base, suffix := splitProduct(product)
	n := Node{
		Model:   base,
		Product: product,
		Count:   atoi(labels[LabelCount]),
		Shared:  suffix.shared || atoi(labels[LabelReplicas]) > 1,
	}
	driver := int64(atoi(labels[LabelMemory])) * mib
	m, known := Lookup(base)
	if known {
		n.Model, n.MemoryBytes = m.Name, m.MemoryBytes
	} else {
		n.MemoryBytes = roundUp(driver, gib)
	}
	switch {
	case suffix.invalid != "":
		n.Invalid = suffix.invalid
	case suffix.mig != "":
		n.Model = sliceModel(n.Model, suffix.mig)
		n.MemoryBytes = migMemory(suffix.mig)
		if n.MemoryBytes == 0 {
			n.MemoryBytes = roundUp(driver, gib)
		}
	}
	return n
}

// fromKarpenter reads the labels Karpenter sets before a driver has looked at the
// card. Its names carry no size ("a100"), which its memory label decides.
func fromKarpenter(name string, labels map[string]string) Node {
	memory := int64(atoi(labels[labelKarpenterMemory])) * mib
	n := Node{Model: name, Product: name, MemoryBytes: roundUp(memory, gib), Count: atoi(labels[labelKarpenterCount])}
	if m, known := Lookup(name); known {
		n.Model, n.MemoryBytes = m.Name, m.MemoryBytes
		return n
	}
	for _, size := range sizesOf(name) {
		m, _ := Lookup(size)
		// Within a twelfth: drivers and catalogues of clouds differ by up to 7 %.
		if key(m.Name) == key(name)+"-"+gigabytes(m.MemoryBytes) && memory > m.MemoryBytes-m.MemoryBytes/12 && memory < m.MemoryBytes+m.MemoryBytes/12 {
			n.Model, n.MemoryBytes = m.Name, m.MemoryBytes
			return n
		}
	}
	return n
}

type productSuffix struct {
	shared  bool
	mig     string // profile, "1g.5gb"
	invalid string
}

// splitProduct separates the card from what GPU Feature Discovery appends:
// "A100-SXM4-40GB-MIG-1g.5gb-SHARED" is an A100-SXM4-40GB.
func splitProduct(product string) (base string, s productSuffix) {
	base, s.shared = strings.CutSuffix(product, "-SHARED")
	if before, profile, found := strings.Cut(base, "-MIG-"); found {
		base = before
		if profile == "INVALID" {
			s.invalid = "its MIG configuration is invalid (label " + LabelProduct + "=" + product + ")"
		} else {
			s.mig = profile
		}
	}
	return base, s
}

// migMemory is the nominal memory of a slice, 0 for a profile that cannot be read.
func migMemory(profile string) int64 {
	p, err := ParseProfile(profile)
	if err != nil {
		return 0
	}
	return p.MemoryBytes
}

// atoi reads a label's non-negative number; anything else is "not said". The
// bound keeps a nonsense label from overflowing once it is counted in bytes.
func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 1<<30 {
		return 0
	}
	return n
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }
