// SPDX-License-Identifier: Apache-2.0

package toolchain

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// debianPrograms are the files a node needs from the distribution, and the
// packages that bring them.
var debianPrograms = []struct{ file, pkg string }{
	{"/usr/bin/containerd", "containerd"},
	{"/usr/bin/ctr", "containerd"},
	{"/usr/sbin/runc", "runc"},
	{"/usr/lib/cni/bridge", "containernetworking-plugins"},
	{"/usr/sbin/iptables", "iptables"},
	{"/usr/sbin/ip", "iproute2"},
	{"/usr/bin/mount", "mount"},
}

// EnsureDebian installs the distribution's packages that are missing, saying so.
func EnsureDebian(ctx context.Context, progress Progress) error {
	var missing []string
	for _, p := range debianPrograms {
		if _, err := os.Stat(p.file); err != nil && !strings.Contains(" "+strings.Join(missing, " ")+" ", " "+p.pkg+" ") {
			missing = append(missing, p.pkg)
		}
	}
	return InstallDebian(ctx, missing, progress)
}

// InstallDebian installs packages with apt-get; none is fine.
func InstallDebian(ctx context.Context, packages []string, progress Progress) error {
	if len(packages) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("this machine lacks %s and has no apt-get to install them with: install them by hand", strings.Join(packages, ", "))
	}
	progress("installing Debian packages: %s", strings.Join(packages, " "))
	install := append([]string{"install", "-y", "-qq", "--no-install-recommends"}, packages...)
	// The lists of a fresh machine are often absent or old.
	for _, args := range [][]string{{"update", "-qq"}, install} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, lastLines(string(output), 10))
		}
	}
	return nil
}
