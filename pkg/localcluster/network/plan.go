// SPDX-License-Identifier: Apache-2.0

// Package network plans and makes the network of a local cluster: one bridge on
// the host, one veth pair per node, one pod network per node, and static routes
// between them. Nothing is masqueraded and the host's iptables stay untouched.
package network

import (
	"fmt"
	"net/netip"
)

// Every cluster owns one 10.X.0.0/16, X from firstOctet on. Inside it:
//
//	10.X.0.0/24              the bridge: 10.X.0.1 is the host, nodes follow from .10
//	10.X.16.0/24 and up      one pod network per node
//	10.X.240.0/20            Service addresses; .0.1 is the API server, .0.10 cluster DNS
const (
	firstOctet  = 200
	maxClusters = 32
	firstNode   = 10
	firstPodNet = 16
	// MaxNodes is the largest number of real nodes a plan has addresses for.
	MaxNodes = 200
)

// Plan is the address plan of one cluster. Its zero value is the first plan.
type Plan struct {
	// Index tells the clusters of one machine apart, from 0.
	Index int `json:"index"`
}

// Choose returns the first plan whose network overlaps none of the taken
// prefixes (addresses and routes of the host, networks of other clusters).
func Choose(taken []netip.Prefix) (Plan, error) {
	for i := range maxClusters {
		p := Plan{Index: i}
		if !overlapsAny(p.CIDR(), taken) {
			return p, nil
		}
	}
	return Plan{}, fmt.Errorf("no free network for the cluster: all of 10.%d.0.0/16 to 10.%d.0.0/16 overlap addresses or routes of this machine; take another cluster down first",
		firstOctet, firstOctet+maxClusters-1)
}

func overlapsAny(p netip.Prefix, taken []netip.Prefix) bool {
	for _, t := range taken {
		// A default route covers everything and says nothing about use.
		if t.Bits() > 0 && t.Overlaps(p) {
			return true
		}
	}
	return false
}

func (p Plan) addr(c, d int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(firstOctet + p.Index), byte(c), byte(d)}) //nolint:gosec // Choose bounds the index, MaxNodes the rest
}

// CIDR is the network that holds everything of the cluster.
func (p Plan) CIDR() netip.Prefix { return netip.PrefixFrom(p.addr(0, 0), 16) }

// HostIP is the bridge's address: what nodes and pods reach on the host.
func (p Plan) HostIP() netip.Addr { return p.addr(0, 1) }

// HostPrefix is HostIP with the length of the bridge's network.
func (p Plan) HostPrefix() netip.Prefix { return netip.PrefixFrom(p.HostIP(), 24) }

// NodeIP is the address of node n (from 0) on the bridge.
func (p Plan) NodeIP(n int) netip.Addr { return p.addr(0, firstNode+n) }

// NodePrefix is NodeIP with the length of the bridge's network.
func (p Plan) NodePrefix(n int) netip.Prefix { return netip.PrefixFrom(p.NodeIP(n), 24) }

// PodCIDR is the pod network of node n (from 0).
func (p Plan) PodCIDR(n int) netip.Prefix { return netip.PrefixFrom(p.addr(firstPodNet+n, 0), 24) }

// ServiceCIDR is the network of Service addresses.
func (p Plan) ServiceCIDR() netip.Prefix { return netip.PrefixFrom(p.addr(240, 0), 20) }

// APIServiceIP is the Service address of the API server ("kubernetes").
func (p Plan) APIServiceIP() netip.Addr { return p.addr(240, 1) }

// DNSServiceIP is the Service address of cluster DNS ("kube-dns").
func (p Plan) DNSServiceIP() netip.Addr { return p.addr(240, 10) }

// Loopback is the cluster's own loopback address, where the parts of the control
// plane that only the host needs listen on their usual ports.
func (p Plan) Loopback() netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(firstOctet + p.Index), 0, 1}) //nolint:gosec // Choose bounds the index
}

// Bridge is the name of the cluster's bridge on the host.
func (p Plan) Bridge() string { return fmt.Sprintf("sb%d", firstOctet+p.Index) }

// Veth is the name of the host's end of node n's link.
func (p Plan) Veth(n int) string { return fmt.Sprintf("sb%dn%d", firstOctet+p.Index, n) }
