// SPDX-License-Identifier: Apache-2.0

package transparent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// HostRoot is the node's root directory as a process sees it that shares the node's
// process numbers.
const HostRoot = "/proc/1/root"

// Where a node's container runtime finds programs, and CRIU its plugins.
var (
	programDirs = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
	pluginDirs  = []string{"/usr/lib/criu", "/usr/local/lib/criu", "/usr/lib/x86_64-linux-gnu/criu", "/usr/lib/aarch64-linux-gnu/criu"}
)

// checkTime bounds one run of criu, which takes a tenth of a second.
const checkTime = 10 * time.Second

// Look finds out what the node has whose root directory is given; the runtime is the
// caller's to ask. CRIU is run there, as it knows best whether it can work with the
// kernel.
func Look(ctx context.Context, root string) (Node, error) {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return Node{}, fmt.Errorf("the node's files: %w", err)
	}
	defer dir.Close()
	n := Node{CUDACheckpoint: find(dir, programDirs, "cuda-checkpoint") != "", CUDAPlugin: find(dir, pluginDirs, "cuda_plugin.so") != ""}
	criu := find(dir, programDirs, "criu")
	if criu == "" {
		return n, nil
	}
	output, err := in(ctx, root, criu, "--version")
	if err != nil {
		return n, fmt.Errorf("%s --version: %w: %s", criu, err, lastLine(output))
	}
	n.CRIU = versionOf(output)
	if output, err := in(ctx, root, criu, "check"); err != nil {
		n.CRIUFault = firstLine(output)
		if n.CRIUFault == "" {
			n.CRIUFault = err.Error()
		}
	}
	return n, nil
}

// find is where a file of that name is, "" if nowhere. Links of the node's are links
// from the node's root, which only a process that is there can follow; so a link counts.
func find(root *os.Root, dirs []string, name string) string {
	for _, d := range dirs {
		at := path.Join(d, name)
		if info, err := root.Lstat(strings.TrimPrefix(at, "/")); err == nil && !info.IsDir() {
			return at
		}
	}
	return ""
}

// in runs a program of the node in the node's file system.
func in(ctx context.Context, root, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + strings.Join(programDirs, ":")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	output, err := cmd.CombinedOutput()
	return string(output), err
}

// versionOf reads the answer to --version: "Version: 4.1.1" and more lines.
func versionOf(output string) string {
	for line := range strings.SplitSeq(output, "\n") {
		if version, ok := strings.CutPrefix(strings.TrimSpace(line), "Version:"); ok {
			return strings.TrimSpace(version)
		}
	}
	return ""
}

func firstLine(output string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(output), "\n")
	return strings.TrimSpace(line)
}

func lastLine(output string) string {
	output = strings.TrimSpace(output)
	return output[strings.LastIndex(output, "\n")+1:]
}

// Free is what is free of the disk that a directory is on and of the machine's memory.
func Free(dir string) (disk, memory int64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, os.NewSyscallError("statfs", err)
	}
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	memory, err = available(string(data))
	return int64(s.Bavail) * s.Bsize, memory, err //nolint:gosec // no disk is that large
}

// available reads /proc/meminfo.
func available(meminfo string) (int64, error) {
	for line := range strings.SplitSeq(meminfo, "\n") {
		var kib int64
		if _, err := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); err == nil && kib >= 0 && kib < 1<<50 {
			return kib << 10, nil
		}
	}
	return 0, errors.New("/proc/meminfo does not say what is available")
}

const (
	probeSize = 64 << 20
	probeStep = 1 << 20
)

// MeasureDisk is how many bytes a second dir's disk takes.
func MeasureDisk(dir string) (rate float64, err error) {
	f, err := os.CreateTemp(dir, "speed-*")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	data := make([]byte, probeStep)
	_, _ = rand.Read(data) // some disks do not write zeros; it never fails
	start := time.Now()
	for range probeSize / probeStep {
		if _, err := f.Write(data); err != nil {
			return 0, err
		}
	}
	if err := f.Sync(); err != nil {
		return 0, fmt.Errorf("%s: %w", filepath.Dir(f.Name()), err)
	}
	return probeSize / time.Since(start).Seconds(), nil
}
