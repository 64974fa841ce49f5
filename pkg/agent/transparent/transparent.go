// SPDX-License-Identifier: Apache-2.0

// Package transparent decides whether a container can be checkpointed with all its
// memory, by the container runtime and CRIU and without the workload's help, and
// whether the time before the machine is taken is enough for it. It is pure but for
// host.go, which looks at what the node has.
package transparent

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Node is what a node has of what it takes.
type Node struct {
	// Runtime is the container runtime's name, and Version its version.
	Runtime, Version string
	// CRIU is its version, "" if the node has none; CRIUFault is what its own check of
	// this kernel found, "" if nothing.
	CRIU, CRIUFault string
	// CUDAPlugin says whether CRIU has its plugin for CUDA, CUDACheckpoint whether the
	// program that the plugin runs is there.
	CUDAPlugin, CUDACheckpoint bool
}

// GPU is one that the container uses.
type GPU struct {
	Driver string
	MIG    bool
	Memory int64 // bytes in use
}

// Container is what is to be checkpointed.
type Container struct {
	// GPUs that it asks for, and those of them that telemetry knows.
	Wanted int64
	GPUs   []GPU
	Memory int64 // bytes that its processes have in use
}

// Bytes are about what its checkpoint has: CRIU writes out the memory of the processes,
// to which that of the GPUs is copied before.
func (c Container) Bytes() int64 {
	total := c.Memory
	for _, g := range c.GPUs {
		total += g.Memory
	}
	return total
}

// The oldest versions with what is needed: the runtimes that implement the call, the
// CRIU that the runtimes ask for, and with a GPU the CRIU that has the plugin for CUDA
// and the driver that lets it lock and restore a process.
var (
	leastRuntime = map[string]string{"containerd": "2.0"}
	leastCRIU    = "3.16"
	leastCUDA    = "4.0"
	leastDriver  = "565"
)

// Missing says everything that keeps the container from being checkpointed on the node,
// nil if nothing does.
func (n Node) Missing(c Container) error {
	var faults []error
	missing := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if least, known := leastRuntime[n.Runtime]; !known {
		missing("the container runtime is %q, and only containerd was tried", n.Runtime)
	} else if older(n.Version, least) {
		missing("%s %s cannot checkpoint a container, %s can", n.Runtime, n.Version, least)
	}
	switch {
	case n.CRIU == "":
		missing("the node has no criu")
	case older(n.CRIU, leastCRIU):
		missing("criu %s is too old, %s is needed", n.CRIU, leastCRIU)
	case n.CRIUFault != "":
		missing("criu %s does not work on this kernel: %s", n.CRIU, n.CRIUFault)
	}
	if c.Wanted == 0 {
		return errors.Join(faults...)
	}
	switch {
	case n.CRIU != "" && older(n.CRIU, leastCUDA):
		missing("criu %s cannot checkpoint what uses a GPU, %s can", n.CRIU, leastCUDA)
	case n.CRIU != "" && !n.CUDAPlugin:
		missing("criu has no plugin for CUDA (cuda_plugin.so)")
	}
	if !n.CUDACheckpoint {
		missing("the node has no cuda-checkpoint")
	}
	if int64(len(c.GPUs)) < c.Wanted {
		missing("the memory in use is known of %d of its %d GPUs", len(c.GPUs), c.Wanted)
	}
	for _, g := range c.GPUs {
		switch {
		case g.MIG:
			missing("it uses a MIG slice, which CUDA cannot checkpoint")
		case older(g.Driver, leastDriver):
			missing("GPU driver %s is too old, %s is needed", g.Driver, leastDriver)
		}
	}
	return errors.Join(faults...)
}

// Room is what is there for a checkpoint.
type Room struct {
	// Disk is free where it is written, Memory for what the GPUs' takes, both in bytes.
	Disk, Memory int64
	// Dump is how many bytes of memory a second become a checkpoint on the disk, and
	// Send how many a second reach the store; 0 if that has not been measured.
	Dump, Send float64
	// Time is what is left until the pod must be told to stop.
	Time time.Duration
}

// Copies is how often the runtime has the content on the disk at once: CRIU's images,
// the image that containerd makes of them, that image unpacked, and the archive.
const Copies = 4

// reserve is by how much an estimate may be wrong: a container that is being
// checkpointed stands still, and one that still does when the machine is taken has been
// stopped for nothing. However small it is, stopping and describing it takes a while.
const (
	reserve = 1.5
	least   = 2 * time.Second
)

// Fits says why a checkpoint of the container does not fit, nil if it does.
func (r Room) Fits(c Container) error {
	size := c.Bytes()
	if r.Dump <= 0 || r.Send <= 0 {
		return errors.New("how fast the disk and the store are has not been measured yet")
	}
	if need := size * Copies; need > r.Disk {
		return fmt.Errorf("it needs %s of disk for a while, and %s are free", human(need), human(r.Disk))
	}
	if need := size - c.Memory; need > r.Memory {
		return fmt.Errorf("the %s of GPU memory do not fit into the %s of memory that are free", human(need), human(r.Memory))
	}
	if need := r.takes(size); need > r.Time {
		return fmt.Errorf("%s of memory would take %s (%s/s to the disk, %s/s to the store, and half as much again for safety), and %s are left",
			human(size), need.Round(time.Second), human(int64(r.Dump)), human(int64(r.Send)), r.Time.Round(time.Second))
	}
	return nil
}

// takes is how long a checkpoint takes at the most.
func (r Room) takes(size int64) time.Duration {
	seconds := reserve * (float64(size)/r.Dump + float64(size)/r.Send)
	return least + time.Duration(min(seconds, (24*time.Hour).Seconds())*float64(time.Second))
}

// older compares versions, the first of which may have anything behind its numbers
// ("2.1.5+unknown", "4.1.1", "570.133.20"). What is no version is older than all.
func older(version, least string) bool {
	a, b := numbers(version), numbers(least)
	for i := range b {
		if i == len(a) || a[i] < b[i] {
			return true
		}
		if a[i] > b[i] {
			return false
		}
	}
	return false
}

func numbers(version string) []int {
	var all []int
	for part := range strings.SplitSeq(strings.TrimPrefix(version, "v"), ".") {
		digits := len(part) - len(strings.TrimLeft(part, "0123456789"))
		n, err := strconv.Atoi(part[:digits])
		if err != nil {
			return all
		}
		all = append(all, n)
		if digits < len(part) {
			return all
		}
	}
	return all
}

// human writes bytes in the unit that fits.
func human(bytes int64) string {
	if bytes >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", bytes>>20)
}
