// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/localcluster/network"
)

func TestChooseTakesTheFirstNetworkNobodyUses(t *testing.T) {
	for _, c := range []struct {
		name  string
		taken []string
		want  string
	}{
		{"nothing is taken", nil, "10.200.0.0/16"},
		{"a default route takes nothing", []string{"0.0.0.0/0"}, "10.200.0.0/16"},
		{"another cluster has the first", []string{"10.200.0.0/24"}, "10.201.0.0/16"},
		{"a gap is used", []string{"10.200.0.1/32", "10.202.0.0/16"}, "10.201.0.0/16"},
		{"a wide route covers several", []string{"10.200.0.0/14"}, "10.204.0.0/16"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := network.Choose(prefixes(c.taken))
			if err != nil {
				t.Fatal(err)
			}
			if p.CIDR().String() != c.want {
				t.Errorf("chose %s, want %s", p.CIDR(), c.want)
			}
		})
	}
}

func TestChooseSaysSoWhenEverythingIsTaken(t *testing.T) {
	_, err := network.Choose(prefixes([]string{"10.0.0.0/8"}))
	if err == nil || !strings.Contains(err.Error(), "10.231.0.0/16") || !strings.Contains(err.Error(), "take another cluster down") {
		t.Errorf("error %v, want one with the networks and what to do", err)
	}
}

func TestAPlanKeepsEverythingApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := network.Plan{Index: rapid.IntRange(0, 31).Draw(t, "index")}
		a := rapid.IntRange(0, network.MaxNodes-1).Draw(t, "a")
		b := rapid.IntRange(0, network.MaxNodes-1).Draw(t, "b")
		all := []netip.Prefix{p.HostPrefix().Masked(), p.PodCIDR(a), p.ServiceCIDR()}
		if a != b {
			all = append(all, p.PodCIDR(b))
			if p.NodeIP(a) == p.NodeIP(b) || p.Veth(a) == p.Veth(b) {
				t.Fatalf("nodes %d and %d share an address or a link", a, b)
			}
		}
		for i, x := range all {
			if !p.CIDR().Contains(x.Addr()) {
				t.Fatalf("%s is outside of the cluster's %s", x, p.CIDR())
			}
			for _, y := range all[i+1:] {
				if x.Overlaps(y) {
					t.Fatalf("%s overlaps %s", x, y)
				}
			}
		}
		if !p.HostPrefix().Contains(p.NodeIP(a)) || !p.ServiceCIDR().Contains(p.DNSServiceIP()) || !p.ServiceCIDR().Contains(p.APIServiceIP()) {
			t.Fatalf("an address is outside of its network")
		}
		// Linux refuses longer names.
		if len(p.Veth(a)) > 15 {
			t.Fatalf("the link name %s has %d characters, at most 15 are allowed", p.Veth(a), len(p.Veth(a)))
		}
	})
}

func prefixes(list []string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}
