// SPDX-License-Identifier: Apache-2.0

// Package debian installs packages of the distribution. Programs that need the
// same ones at the same time wait for each other instead of failing on apt's locks.
package debian

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockWait is how long to wait for somebody else's apt or dpkg.
const lockWait = 10 * time.Minute

// Missing gives the packages that are still to be installed; none is fine.
type Missing func() []string

// Install installs what missing gives with apt-get, which needs root. missing is
// asked again once no other program of ours is installing: often nothing is left
// to do then. progress is told what is installed before it is.
func Install(ctx context.Context, missing Missing, progress func(packages []string)) error {
	packages := missing()
	if len(packages) == 0 {
		return nil
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return fmt.Errorf("this machine lacks %s and has no apt-get to install them with: install them by hand", strings.Join(packages, ", "))
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("this machine lacks %s and only root can install them: apt-get install %s", strings.Join(packages, ", "), strings.Join(packages, " "))
	}
	ctx, cancel := context.WithTimeout(ctx, 2*lockWait)
	defer cancel()
	unlock, err := lock(ctx, filepath.Join(os.TempDir(), "spotbench-apt.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if packages = missing(); len(packages) == 0 {
		return nil
	}
	progress(packages)
	install := append([]string{"install", "-y", "-qq", "--no-install-recommends"}, packages...)
	// The lists of a fresh machine are often absent or old.
	for _, args := range [][]string{{"update", "-qq"}, install} {
		if err := run(ctx, apt, args); err != nil {
			return err
		}
	}
	if packages = missing(); len(packages) > 0 {
		return fmt.Errorf("apt-get installed them, but this machine still lacks %s", strings.Join(packages, ", "))
	}
	return nil
}

// run runs apt-get, again and again while somebody else holds its locks: the one
// on the package lists knows no waiting.
func run(ctx context.Context, apt string, args []string) error {
	deadline := time.Now().Add(lockWait)
	for {
		cmd := exec.CommandContext(ctx, apt, append([]string{"-o", fmt.Sprintf("DPkg::Lock::Timeout=%.0f", lockWait.Seconds())}, args...)...)
		// A package's own service is not wanted: RUNLEVEL=1 keeps it from starting.
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "LC_ALL=C")
		output, err := cmd.CombinedOutput()
		if err == nil {
			return nil
		}
		err = fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, lastLines(string(output), 10))
		if !strings.Contains(string(output), "Could not get lock") || time.Now().After(deadline) {
			return err
		}
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}

// lock takes the lock of all programs of ours that install packages. The kernel
// gives it back when a program dies.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock for installing packages: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, ctx.Err()), f.Close())
		}
	}
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
