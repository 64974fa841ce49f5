// SPDX-License-Identifier: Apache-2.0

//go:build unix

package toolchain

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lock waits for the exclusive lock on a file; the lock goes with the process.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock %s: %w", path, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}
