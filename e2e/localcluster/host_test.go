// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package localcluster_test runs real clusters on this machine.
package localcluster_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/spotbench/spotbench/pkg/localcluster"
)

func needCluster(t *testing.T) {
	t.Helper()
	if err := localcluster.Check(); err != nil {
		t.Skip(err)
	}
	if testing.Short() {
		t.Skip("starts real clusters, not in short mode")
	}
}

// host is what a cluster might leave behind on its machine.
type host struct {
	Links, Routes, Rules, Mounts, Cgroups, Processes, Directories []string
	Tunables                                                      map[string]string
}

// lookAt describes the host as far as clusters of these names could change it.
// Other clusters may come and go meanwhile: their links, routes and cgroups carry
// their names, and their processes descend from their machines.
func lookAt(t *testing.T, names ...string) host {
	t.Helper()
	h := host{Tunables: map[string]string{}}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	others := otherNetworks(t, names)
	for _, l := range links {
		if slices.ContainsFunc(others, func(x string) bool { return strings.HasPrefix(l.Attrs().Name, "sb"+x) }) {
			continue
		}
		h.Links = append(h.Links, l.Attrs().Name)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if r.Dst != nil && slices.ContainsFunc(others, func(x string) bool { return strings.HasPrefix(r.Dst.String(), "10."+x+".") }) {
			continue
		}
		h.Routes = append(h.Routes, r.String())
	}
	h.Rules = packetRules(t, others)
	mounts := read(t, "/proc/self/mounts")
	for line := range strings.Lines(mounts) {
		h.Mounts = append(h.Mounts, strings.TrimSpace(line))
	}
	err = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if _, below, ok := strings.Cut(path, "/spotbench/"); err == nil && ok && d.IsDir() {
			if cluster, _, _ := strings.Cut(below, "/"); slices.Contains(names, cluster) {
				h.Cgroups = append(h.Cgroups, path)
			}
		}
		return nil // others' cgroups may go while we look
	})
	if err != nil {
		t.Fatal(err)
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		line, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		program, _, _ := strings.Cut(string(line), "\x00")
		if ofOtherCluster(filepath.Base(filepath.Dir(p)), names) {
			continue
		}
		switch filepath.Base(program) {
		case "spotbench-machine", "spotbench-gpu-device-plugin", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns",
			"containerd", "containerd-shim-runc-v2", "kubelet", "kube-proxy", "ec2-metadata-mock", "kwok", "pause", "probe":
			h.Processes = append(h.Processes, program)
		}
	}
	slices.Sort(h.Processes)
	for _, dir := range []string{"/etc/kubernetes", "/etc/cni", "/var/lib/kubelet", "/var/lib/cni", "/opt/cni", "/opt/containerd", "/usr/libexec/kubernetes", "/var/log/pods", "/var/log/containers", "/run/containerd", "/run/nvidia"} {
		if _, err := os.Stat(dir); err == nil {
			h.Directories = append(h.Directories, dir)
		}
	}
	for _, name := range names {
		for _, root := range []string{"/run/spotbench/", "/var/lib/spotbench/"} {
			if _, err := os.Stat(root + name); err == nil {
				h.Directories = append(h.Directories, root+name)
			}
		}
	}
	// A kubelet and kube-proxy set these on a machine of their own.
	for _, file := range []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes", "net/ipv4/ip_forward", "net/netfilter/nf_conntrack_max"} {
		if value, err := os.ReadFile("/proc/sys/" + file); err == nil {
			h.Tunables[file] = strings.TrimSpace(string(value))
		}
	}
	// Raised as long as there is any cluster, ours or another.
	if _, err := os.Stat("/run/spotbench"); err != nil {
		h.Tunables[inotify] = strings.TrimSpace(read(t, "/proc/sys/"+inotify))
	}
	return h
}

// packetRules are those of iptables, in their order but without their counters, and
// without those of other clusters' networks.
func packetRules(t *testing.T, others []string) (rules []string) {
	t.Helper()
	for _, program := range []string{"iptables-save", "ip6tables-save"} {
		out, err := exec.CommandContext(t.Context(), program).Output()
		if err != nil {
			continue // not installed, or no such table in the kernel: the same before and after
		}
		for line := range strings.Lines(string(out)) {
			other := slices.ContainsFunc(others, func(x string) bool {
				return strings.Contains(line, "10."+x+".") || strings.Contains(line, "sb"+x)
			})
			if strings.HasPrefix(line, "-A") && !other {
				rules = append(rules, program+": "+strings.TrimSpace(line))
			}
		}
	}
	return rules
}

const inotify = "fs/inotify/max_user_instances"

// otherNetworks are the numbers X of 10.X.0.0/16 that other clusters own.
func otherNetworks(t *testing.T, names []string) []string {
	t.Helper()
	files, err := filepath.Glob("/run/spotbench/*/cluster.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, f := range files {
		var state struct {
			Name string
			Plan struct{ Index int }
		}
		data, err := os.ReadFile(f)
		if err != nil || json.Unmarshal(data, &state) != nil {
			continue // gone meanwhile
		}
		if !slices.Contains(names, state.Name) {
			list = append(list, strconv.Itoa(200+state.Plan.Index))
		}
	}
	return list
}

// ofOtherCluster says whether a machine of another cluster is among the
// process's ancestors. An orphan has none, and counts as ours.
func ofOtherCluster(pid string, names []string) bool {
	for pid != "0" && pid != "" {
		line, err := os.ReadFile("/proc/" + pid + "/cmdline")
		if err != nil {
			return true // ended: nobody's any more
		}
		args := strings.Split(string(line), "\x00")
		if args[0] == "spotbench-machine" && len(args) > 1 {
			return !slices.Contains(names, args[1])
		}
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			return true
		}
		// After the parenthesised name: state, then the parent.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) < 2 {
			return true
		}
		pid = fields[1]
	}
	return false
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// wantUnchanged waits a little: interfaces of dead namespaces go in the background.
func wantUnchanged(t *testing.T, before host, names ...string) {
	t.Helper()
	var diff string
	for range 50 {
		after := lookAt(t, names...)
		if before.Tunables[inotify] == "" || after.Tunables[inotify] == "" {
			delete(before.Tunables, inotify)
			delete(after.Tunables, inotify)
		}
		if diff = cmp.Diff(before, after); diff == "" {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("the machine is not as it was before (-before +after):\n%s", diff)
}
