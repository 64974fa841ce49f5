// SPDX-License-Identifier: Apache-2.0

package transparent_test

import (
	"strings"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/agent/transparent"
)

const gib = 1 << 30

func TestANodeSaysEverythingThatItLacks(t *testing.T) {
	t.Parallel()
	whole := transparent.Node{Runtime: "containerd", Version: "2.1.5+unknown", CRIU: "4.1.1", CUDAPlugin: true, CUDACheckpoint: true}
	with := func(change func(*transparent.Node)) transparent.Node {
		n := whole
		change(&n)
		return n
	}
	gpu := transparent.GPU{Driver: "570.133.20", Memory: 40 * gib}
	oneGPU := transparent.Container{Wanted: 1, GPUs: []transparent.GPU{gpu}, Memory: gib}
	for name, c := range map[string]struct {
		node      transparent.Node
		container transparent.Container
		want      []string // parts of the reason, none if it can
	}{
		"a container without a GPU needs no CUDA":   {node: transparent.Node{Runtime: "containerd", Version: "2.0.0", CRIU: "3.16"}},
		"a container with a GPU where all is there": {node: whole, container: oneGPU},
		"Debian 12 has containerd 1.6": {
			node: with(func(n *transparent.Node) { n.Version = "1.6.20~ds1" }), want: []string{"containerd 1.6.20~ds1 cannot checkpoint", "2.0"}},
		"a runtime that was not tried": {
			node: with(func(n *transparent.Node) { n.Runtime, n.Version = "cri-o", "1.34.0" }), want: []string{`"cri-o"`}},
		"a runtime that did not answer": {
			node: with(func(n *transparent.Node) { n.Runtime, n.Version = "", "" }), want: []string{`the container runtime is ""`}},
		"no CRIU": {node: with(func(n *transparent.Node) { n.CRIU = "" }), want: []string{"no criu"}},
		"a CRIU that the runtime refuses": {
			node: with(func(n *transparent.Node) { n.CRIU = "3.15" }), want: []string{"criu 3.15 is too old"}},
		"a CRIU whose version cannot be read": {
			node: with(func(n *transparent.Node) { n.CRIU = "unknown" }), want: []string{"criu unknown is too old"}},
		"a CRIU older than the kernel": {
			node: with(func(n *transparent.Node) { n.CRIUFault = "vdso: Unexpected rt vDSO area bounds" }), want: []string{"does not work on this kernel", "vDSO"}},
		"a GPU and a CRIU from before there were plugins for CUDA": {
			node: with(func(n *transparent.Node) { n.CRIU = "3.19" }), container: oneGPU, want: []string{"criu 3.19 cannot checkpoint what uses a GPU"}},
		"a GPU and a CRIU without the plugin": {
			node: with(func(n *transparent.Node) { n.CUDAPlugin = false }), container: oneGPU, want: []string{"cuda_plugin.so"}},
		"a GPU and no cuda-checkpoint": {
			node: with(func(n *transparent.Node) { n.CUDACheckpoint = false }), container: oneGPU, want: []string{"no cuda-checkpoint"}},
		"a GPU with an old driver": {
			node: whole, container: transparent.Container{Wanted: 1, GPUs: []transparent.GPU{{Driver: "550.54.15"}}}, want: []string{"driver 550.54.15 is too old"}},
		"a MIG slice": {
			node: whole, container: transparent.Container{Wanted: 1, GPUs: []transparent.GPU{{Driver: "580.95.05", MIG: true}}}, want: []string{"MIG"}},
		"a GPU that telemetry does not see may be full": {
			node: whole, container: transparent.Container{Wanted: 2, GPUs: []transparent.GPU{gpu}}, want: []string{"1 of its 2 GPUs"}},
		"several parts are missing": {
			container: oneGPU, want: []string{"runtime", "no criu", "no cuda-checkpoint"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := c.node.Missing(c.container)
			if (err != nil) != (len(c.want) > 0) {
				t.Fatalf("missing is %v, want %q", err, c.want)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("missing is %q, without %q", err, part)
				}
			}
		})
	}
}

func TestACheckpointIsRefusedWhereItDoesNotFit(t *testing.T) {
	t.Parallel()
	// 1 GiB/s to the disk, 512 MiB/s to the store: 4 GiB take (4 + 8) s and half as much again, and
	// 2 s for all else.
	room := transparent.Room{Disk: 100 * gib, Memory: 100 * gib, Dump: gib, Send: gib / 2, Time: 20 * time.Second}
	with := func(change func(*transparent.Room)) transparent.Room {
		r := room
		change(&r)
		return r
	}
	small := transparent.Container{Memory: 4 * gib}
	for name, c := range map[string]struct {
		room      transparent.Room
		container transparent.Container
		want      string
	}{
		"it just fits": {room: room, container: small},
		"a second too late": {
			room: with(func(r *transparent.Room) { r.Time = 19 * time.Second }), container: small, want: "4.0 GiB of memory would take 20s"},
		"the deadline has passed": {
			room: with(func(r *transparent.Room) { r.Time = -time.Second }), container: transparent.Container{Memory: 1}, want: "-1s are left"},
		"the store has not been measured": {
			room: with(func(r *transparent.Room) { r.Send = 0 }), container: small, want: "not been measured"},
		"the disk has not been measured": {
			room: with(func(r *transparent.Room) { r.Dump = 0 }), container: small, want: "not been measured"},
		"the memory of a GPU counts": {
			room: room, container: transparent.Container{Memory: gib, GPUs: []transparent.GPU{{Memory: 70 * gib}}}, want: "needs 284.0 GiB of disk"},
		"the memory of a GPU must fit into the node's": {
			room: with(func(r *transparent.Room) { r.Memory = 2 * gib }), container: transparent.Container{Memory: gib, GPUs: []transparent.GPU{{Memory: 3 * gib}}}, want: "3.0 GiB of GPU memory"},
		"an absurd size is no overflow": {
			room: with(func(r *transparent.Room) { r.Disk, r.Dump = 1<<62, 1e-300 }), container: small, want: "would take 24h0m2s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := c.room.Fits(c.container)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("fits says %v, want %q", err, c.want)
			}
		})
	}
}
