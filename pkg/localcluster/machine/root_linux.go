// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/spotbench/spotbench/pkg/localcluster/network"
)

// enterRoot gives the machine a root of its own: the host's files with the
// node's changes laid over them in memory, its disk paths on disk, and private
// /proc, /run and /tmp. Nothing it writes reaches the host's files.
func enterRoot(n *NodeSpec) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("detach from the host's mounts: %w", err)
	}
	if err := unix.Mount("tmpfs", n.StagingDir, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount memory for the node's changes: %w", err)
	}
	upper, work, root := filepath.Join(n.StagingDir, "upper"), filepath.Join(n.StagingDir, "work"), filepath.Join(n.StagingDir, "root")
	for _, dir := range []string{upper, work, root} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
	}
	if err := unix.Mount("overlay", root, "overlay", 0, "lowerdir=/,upperdir="+upper+",workdir="+work); err != nil {
		return fmt.Errorf("lay the node's changes over the host's files: %w", err)
	}
	type mount struct {
		source, target, fstype string
		flags                  uintptr
	}
	// /sys stays the host's: a fresh one would hide the cgroups.
	mounts := []mount{
		{"/sys", "/sys", "", unix.MS_BIND | unix.MS_REC},
		{"/dev", "/dev", "", unix.MS_BIND | unix.MS_REC},
		{"proc", "/proc", "proc", 0},
		{"tmpfs", "/run", "tmpfs", 0},
		{"tmpfs", "/tmp", "tmpfs", 0},
	}
	for _, path := range n.DiskPaths {
		source := filepath.Join(n.DiskDir, path)
		if err := os.MkdirAll(source, 0o755); err != nil {
			return fmt.Errorf("make the node's %s: %w", path, err)
		}
		mounts = append(mounts, mount{source, path, "", unix.MS_BIND})
	}
	for _, path := range n.Binds {
		mounts = append(mounts, mount{path, path, "", unix.MS_BIND})
	}
	for _, m := range mounts {
		target := filepath.Join(root, m.target)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return fmt.Errorf("make the node's %s: %w", m.target, err)
		}
		if err := unix.Mount(m.source, target, m.fstype, m.flags, ""); err != nil {
			return fmt.Errorf("mount the node's %s: %w", m.target, err)
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o1777|os.ModeSticky); err != nil {
		return fmt.Errorf("open the node's /tmp to all: %w", err)
	}
	old := filepath.Join(root, "run", "host")
	if err := os.Mkdir(old, 0o700); err != nil {
		return fmt.Errorf("make a place for the host's root: %w", err)
	}
	if err := unix.PivotRoot(root, old); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	if err := unix.Unmount("/run/host", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the host's root: %w", err)
	}
	if err := os.Remove("/run/host"); err != nil {
		return fmt.Errorf("remove the host's place: %w", err)
	}
	// Containers may share mounts with the node (mountPropagation), as on any
	// machine whose root is shared; the peers are in this namespace only.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share the node's mounts with its containers: %w", err)
	}
	return nil
}

// privateProc shows a machine without a root of its own its own processes.
func privateProc() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("detach from the host's mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

// kernelTunables are what a kubelet wants of kernel settings that belong to the
// whole host. The node sees files that already say so, and leaves the host's alone.
var kernelTunables = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// configure writes the node's files and sets its name and network.
func configure(n *NodeSpec) error {
	if err := unix.Sethostname([]byte(n.Hostname)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	for _, f := range n.Files {
		if err := writeFile(f.Path, f.Content, f.Mode); err != nil {
			return err
		}
	}
	for name, value := range kernelTunables {
		target := "/proc/sys/" + name
		if _, err := os.Stat(target); errors.Is(err, os.ErrNotExist) {
			continue
		}
		shadow := "/run/kernel-tunables/" + strings.ReplaceAll(name, "/", ".")
		if err := writeFile(shadow, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(shadow, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("shadow %s: %w", target, err)
		}
	}
	return network.ConfigureInside(n.Plan, n.Index, n.Nodes, n.Metadata)
}

func writeFile(path string, content []byte, mode uint32) error {
	if mode == 0 {
		mode = 0o600
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the directory of %s: %w", path, err)
	}
	// A new file beside it and a rename: readers see the old or the new one.
	part := path + ".part"
	if err := os.WriteFile(part, content, os.FileMode(mode)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(part, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
