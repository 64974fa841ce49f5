// SPDX-License-Identifier: Apache-2.0

package localcluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A user's inotify instances are counted for the whole host, namespaces or not.
// A node takes about ten, so that the usual limit of 128 is gone with the second
// cluster, and kubelets then end with "too many open files".
const (
	inotifyFile      = "/proc/sys/fs/inotify/max_user_instances"
	inotifyInstances = 8192
)

// savedInotify keeps the host's own limit while there are clusters.
var savedInotify = filepath.Join(runRoot, "inotify-max-user-instances")

// raiseInotify raises the host's limit where it is lower. The caller holds the
// lock of all clusters.
func raiseInotify() error {
	data, err := os.ReadFile(inotifyFile)
	if err != nil {
		return fmt.Errorf("read the limit of inotify instances: %w", err)
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return fmt.Errorf("read the limit of inotify instances: %w", err)
	}
	if limit >= inotifyInstances {
		return nil
	}
	// Never overwrite the host's own value with ours.
	if _, err := os.Stat(savedInotify); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(savedInotify, data, 0o600); err != nil {
			return fmt.Errorf("remember the limit of inotify instances: %w", err)
		}
	}
	if err := os.WriteFile(inotifyFile, []byte(strconv.Itoa(inotifyInstances)), 0o644); err != nil {
		return fmt.Errorf("raise the limit of inotify instances from %d: %w", limit, err)
	}
	return nil
}

// restoreInotify gives the host its own limit back. The caller holds the lock of
// all clusters and knows that none is left.
func restoreInotify() error {
	data, err := os.ReadFile(savedInotify)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("recall the limit of inotify instances: %w", err)
	}
	if err := os.WriteFile(inotifyFile, data, 0o644); err != nil {
		return fmt.Errorf("restore the limit of inotify instances: %w", err)
	}
	return removeAll(savedInotify)
}
