// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const alternative = "; use kind (https://kind.sigs.k8s.io) and apply the manifests there"

// Check says in one sentence why a cluster cannot run here, or returns nil.
func Check() error {
	if os.Geteuid() != 0 {
		return errors.New("a local cluster needs root, for namespaces, mounts and cgroups" + alternative)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read the capabilities of this process: %w", err)
	}
	for _, need := range []struct {
		bit  uint
		name string
	}{{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"}, {unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_SYS_CHROOT, "CAP_SYS_CHROOT"}, {unix.CAP_MKNOD, "CAP_MKNOD"}, {unix.CAP_SYS_PTRACE, "CAP_SYS_PTRACE"}} {
		if data[need.bit/32].Effective&(1<<(need.bit%32)) == 0 {
			return fmt.Errorf("a local cluster needs the capability %s, which this root lacks%s", need.name, alternative)
		}
	}
	return nil
}
