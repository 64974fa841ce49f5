// SPDX-License-Identifier: Apache-2.0

package gpu

import "strings"

// Capacity types of a pool.
const (
	Spot     = "spot"
	OnDemand = "on-demand"
)

// Pool says where in a cloud a node comes from: what its price and its risk of
// interruption depend on. A part that no label tells is "".
type Pool struct {
	Provider     string // "aws", "gcp", "azure"; from the node's providerID
	Region       string
	Zone         string
	InstanceType string
	CapacityType string // Spot or OnDemand
}

// String is PROVIDER/REGION/ZONE/TYPE/CAPACITY with "?" for what is not known.
func (p Pool) String() string {
	parts := []string{p.Provider, p.Region, p.Zone, p.InstanceType, p.CapacityType}
	for i, s := range parts {
		if s == "" {
			parts[i] = "?"
		}
	}
	return strings.Join(parts, "/")
}

// spotLabels are the labels by which clouds and autoscalers mark spot capacity,
// with the values (lower case) that mean it. Every other node is on demand:
// reserved and capacity-block nodes are not reclaimed either.
var spotLabels = []struct{ key, value string }{
	{"karpenter.sh/capacity-type", "spot"},
	{"eks.amazonaws.com/capacityType", "spot"},
	{"cloud.google.com/gke-spot", "true"},
	{"cloud.google.com/gke-preemptible", "true"},
	{"cloud.google.com/gke-provisioning", "spot"},
	{"kubernetes.azure.com/scalesetpriority", "spot"},
}

// NodePool reads a node's pool from its labels and spec.providerID.
func NodePool(labels map[string]string, providerID string) Pool {
	p := Pool{
		Region:       labels["topology.kubernetes.io/region"],
		Zone:         labels["topology.kubernetes.io/zone"],
		InstanceType: labels["node.kubernetes.io/instance-type"],
		CapacityType: OnDemand,
	}
	scheme, _, _ := strings.Cut(providerID, "://")
	switch scheme {
	case "aws", "azure":
		p.Provider = scheme
	case "gce":
		p.Provider = "gcp"
	}
	for _, s := range spotLabels {
		if strings.EqualFold(labels[s.key], s.value) {
			p.CapacityType = Spot
		}
	}
	return p
}

// Wider lists the pool and then what is known of it less and less exactly: any
// zone of the region, then any region. Prices and hazards are looked up in this
// order, so that one figure per instance type serves until a better one is there.
func (p Pool) Wider() []Pool {
	out := []Pool{p}
	if p.Zone != "" {
		p.Zone = ""
		out = append(out, p)
	}
	if p.Region != "" {
		p.Region = ""
		out = append(out, p)
	}
	return out
}
