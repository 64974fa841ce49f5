// SPDX-License-Identifier: Apache-2.0

package toolchain

import (
	"context"
	"os"
	"slices"
	"strings"

	"github.com/spotbench/spotbench/pkg/debian"
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
	{"/usr/sbin/ipset", "ipset"},
	{"/usr/bin/mount", "mount"},
}

// EnsureDebian installs the distribution's packages that are missing, saying so.
func EnsureDebian(ctx context.Context, progress Progress) error {
	return debian.Install(ctx, missingPackages, func(packages []string) {
		progress("installing Debian packages: %s", strings.Join(packages, " "))
	})
}

func missingPackages() []string {
	var missing []string
	for _, p := range debianPrograms {
		if _, err := os.Stat(p.file); err != nil && !slices.Contains(missing, p.pkg) {
			missing = append(missing, p.pkg)
		}
	}
	return missing
}
