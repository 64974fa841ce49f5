// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/spotbench/spotbench/pkg/localcluster/machine"
	"github.com/spotbench/spotbench/pkg/localcluster/network"
	"github.com/spotbench/spotbench/pkg/localcluster/node"
)

// Down removes whatever there is of the cluster of that name, wherever its start
// or an earlier removal stopped. Nothing there is fine. It goes by what the
// kernel has: processes by their name, links and cgroups by theirs.
func Down(name string, progress io.Writer) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := Check(); err != nil {
		return err
	}
	start := time.Now()
	// A start that is under way goes on making machines until it is told: it
	// fails when the first of them dies. Look again until none is left.
	found := false
	for range 100 {
		running, err := machine.Find(name)
		if err != nil {
			return err
		}
		if len(running) == 0 {
			break
		}
		found = true
		var group errgroup.Group
		for _, pid := range running {
			group.Go(func() error { return machine.Kill(pid) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	s, err := load(name)
	var errs []error
	if err != nil {
		// Without its plan its links cannot be told from others'; say so and go on.
		errs = append(errs, err)
	}
	if s != nil {
		found = true
		errs = append(errs, network.Remove(s.Plan))
	}
	errs = append(errs, removeCgroup(node.ClusterCgroup(name)))
	p := paths{name}
	errs = append(errs, unmountBelow(p.run()), unmountBelow(p.disk()))
	errs = append(errs, removeAll(p.disk()))
	// The state goes last: without it nobody knows the names of the rest.
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove cluster %s: %w", name, err)
	}
	if err := removeAll(p.run()); err != nil {
		return fmt.Errorf("remove cluster %s: %w", name, err)
	}
	if err := removeShared(); err != nil {
		return err
	}
	if found {
		fmt.Fprintf(progress, "cluster %s removed in %.1f s\n", name, time.Since(start).Seconds())
	}
	return nil
}

// removeShared removes what clusters have in common when none is left.
func removeShared() error {
	unlock, err := lockAll()
	if err != nil {
		return err
	}
	defer unlock()
	left, err := names()
	if err != nil || len(left) > 0 {
		return err
	}
	if err := restoreInotify(); err != nil {
		return err
	}
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		return err
	}
	for _, root := range hierarchies {
		_ = unix.Rmdir(root + "/spotbench")
	}
	for _, dir := range []string{diskRoot, runRoot} {
		_ = unix.Rmdir(dir) // only if empty
	}
	return nil
}

// unmountBelow undoes mounts under a directory. Machines mount in namespaces of
// their own; this is for those that a person made, to look at something.
func unmountBelow(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	var below []string
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1]+"/", dir+"/") {
			below = append(below, fields[1])
		}
	}
	slices.Reverse(below) // the innermost first
	for _, m := range below {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", m, err)
		}
	}
	return nil
}

func removeAll(path string) error {
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}
