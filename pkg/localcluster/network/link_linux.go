// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
)

// Taken lists the prefixes this machine's addresses and routes already use.
func Taken() ([]netip.Prefix, error) {
	var taken []netip.Prefix
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list the addresses of this machine: %w", err)
	}
	for _, a := range addrs {
		taken = appendPrefix(taken, a.IPNet)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list the routes of this machine: %w", err)
	}
	for _, r := range routes {
		taken = appendPrefix(taken, r.Dst)
	}
	return taken, nil
}

func appendPrefix(list []netip.Prefix, n *net.IPNet) []netip.Prefix {
	if n == nil {
		return list
	}
	addr, ok := netip.AddrFromSlice(n.IP.To4())
	if !ok {
		return list
	}
	ones, _ := n.Mask.Size()
	return append(list, netip.PrefixFrom(addr, ones))
}

// CreateBridge makes the cluster's bridge with its address, and up.
func CreateBridge(p Plan) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = p.Bridge()
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("create the bridge %s: %w", p.Bridge(), err)
	}
	if err := netlink.AddrAdd(bridge, &netlink.Addr{IPNet: ipNet(p.HostPrefix())}); err != nil {
		return fmt.Errorf("give %s its address %s: %w", p.Bridge(), p.HostPrefix(), err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("set %s up: %w", p.Bridge(), err)
	}
	return nil
}

// peerName is the name of a node's link inside the node.
const peerName = "eth0"

// AttachNode links the network namespace of process pid to the bridge as node n
// and routes the node's pod network there.
func AttachNode(p Plan, n, pid int) error {
	bridge, err := netlink.LinkByName(p.Bridge())
	if err != nil {
		return fmt.Errorf("find the bridge %s: %w", p.Bridge(), err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = p.Veth(n)
	attrs.MasterIndex = bridge.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: peerName, PeerNamespace: netlink.NsPid(pid)}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("create the link %s of node %d: %w", p.Veth(n), n, err)
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		return fmt.Errorf("set %s up: %w", p.Veth(n), err)
	}
	route := &netlink.Route{LinkIndex: bridge.Attrs().Index, Dst: ipNet(p.PodCIDR(n)), Gw: net.IP(p.NodeIP(n).AsSlice())}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("route the pods of node %d (%s): %w", n, p.PodCIDR(n), err)
	}
	return nil
}

// ConfigureInside sets up the network from inside node n's namespace: loopback
// with the cloud's metadata address, the link to the bridge, a default route over
// the host, a route to every other node's pods, and forwarding for its own.
func ConfigureInside(p Plan, n, nodes int, metadata netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(metadata, 32))}); err != nil {
		return fmt.Errorf("give lo the metadata address %s: %w", metadata, err)
	}
	eth, err := netlink.LinkByName(peerName)
	if err != nil {
		return fmt.Errorf("find %s: %w", peerName, err)
	}
	if err := netlink.AddrAdd(eth, &netlink.Addr{IPNet: ipNet(p.NodePrefix(n))}); err != nil {
		return fmt.Errorf("give %s its address %s: %w", peerName, p.NodePrefix(n), err)
	}
	if err := netlink.LinkSetUp(eth); err != nil {
		return fmt.Errorf("set %s up: %w", peerName, err)
	}
	index := eth.Attrs().Index
	if err := netlink.RouteReplace(&netlink.Route{LinkIndex: index, Gw: net.IP(p.HostIP().AsSlice())}); err != nil {
		return fmt.Errorf("set the default route: %w", err)
	}
	for other := range nodes {
		if other == n {
			continue
		}
		route := &netlink.Route{LinkIndex: index, Dst: ipNet(p.PodCIDR(other)), Gw: net.IP(p.NodeIP(other).AsSlice())}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("route the pods of node %d (%s): %w", other, p.PodCIDR(other), err)
		}
	}
	for file, value := range map[string]string{
		"/proc/sys/net/ipv4/ip_forward": "1",
		// Without it a pod's answer to a Service call from its own node bypasses
		// kube-proxy's address translation.
		"/proc/sys/net/bridge/bridge-nf-call-iptables": "1",
	} {
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("set %s to %s: %w", file, value, err)
		}
	}
	return nil
}

// SetNodeLink takes node n's link up or down, as pulling its cable would.
func SetNodeLink(p Plan, n int, up bool) error {
	link, err := netlink.LinkByName(p.Veth(n))
	if err != nil {
		return fmt.Errorf("find the link %s of node %d: %w", p.Veth(n), n, err)
	}
	set, word := netlink.LinkSetUp, "up"
	if !up {
		set, word = netlink.LinkSetDown, "down"
	}
	if err := set(link); err != nil {
		return fmt.Errorf("set %s %s: %w", p.Veth(n), word, err)
	}
	return nil
}

// DetachNode removes node n's link if it is there.
func DetachNode(p Plan, n int) error { return removeLink(p.Veth(n)) }

// Remove takes away the bridge and every link of the cluster that is there.
func Remove(p Plan) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, p.Bridge()+"n") {
			errs = append(errs, removeLink(l.Attrs().Name))
		}
	}
	errs = append(errs, removeLink(p.Bridge()))
	return errors.Join(errs...)
}

func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find the link %s: %w", name, err)
	}
	// A veth end goes by itself when its namespace does, perhaps right now.
	if err := netlink.LinkDel(link); err != nil && !errors.As(err, &missing) && !strings.Contains(err.Error(), "no such device") {
		return fmt.Errorf("remove the link %s: %w", name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: net.IP(p.Addr().AsSlice()), Mask: net.CIDRMask(p.Bits(), 32)}
}

// RouteServices routes the cluster's Service addresses from the host over a node,
// whose kube-proxy knows them.
func RouteServices(p Plan, via netip.Addr) error {
	bridge, err := netlink.LinkByName(p.Bridge())
	if err != nil {
		return fmt.Errorf("find the bridge %s: %w", p.Bridge(), err)
	}
	route := &netlink.Route{LinkIndex: bridge.Attrs().Index, Dst: ipNet(p.ServiceCIDR()), Gw: net.IP(via.AsSlice())}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("route the Services (%s) over %s: %w", p.ServiceCIDR(), via, err)
	}
	return nil
}
