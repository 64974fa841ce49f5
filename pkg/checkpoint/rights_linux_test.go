// SPDX-License-Identifier: Apache-2.0

package checkpoint_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

// with runs do on a thread that has only these of root's rights. The thread ends with it.
func with(t *testing.T, rights uint32, do func() error) error {
	t.Helper()
	ended := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: no other goroutine gets this thread
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		data := [2]unix.CapUserData{{Effective: rights, Permitted: rights}}
		if err := unix.Capset(&header, &data[0]); err != nil {
			ended <- err
			return
		}
		ended <- do()
	}()
	return <-ended
}

// TestAPodsLinksAreHeldWithTheAgentsRights: a pod that ends is held by hard links, and the
// kernel lets only the owner, or who has FOWNER, link what is no plain file.
func TestAPodsLinksAreHeldWithTheAgentsRights(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, some of whose rights it drops")
	}
	if protected, err := os.ReadFile("/proc/sys/fs/protected_hardlinks"); err != nil || strings.TrimSpace(string(protected)) != "1" {
		t.Skip("this kernel lets everybody link everything (fs.protected_hardlinks)")
	}
	const agent = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_KILL
	s, err := checkpoint.Open(t.Context(), checkpoint.Options{URL: "file://" + t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	// On one file system, as the kubelet's volumes and what the agent holds are.
	base := t.TempDir()
	files := filepath.Join(base, "files")
	if err := os.Mkdir(files, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, files, "step-500", "weights")
	if err := os.Symlink("step-500", filepath.Join(files, "latest")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".", "step-500", "latest"} {
		if err := os.Lchown(filepath.Join(files, name), 4711, 4711); err != nil {
			t.Fatal(err)
		}
	}
	hold := func(to string, rights uint32) error {
		held := filepath.Join(base, to)
		if err := os.Mkdir(held, 0o700); err != nil {
			t.Fatal(err)
		}
		return with(t, rights, func() error { return s.Hold(run, files, held) })
	}
	if err := hold("without", agent&^(1<<unix.CAP_FOWNER)); !errors.Is(err, syscall.EPERM) {
		t.Errorf("without FOWNER: %v, want it refused, or the agent needs the right no more", err)
	}
	if err := hold("with", agent); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(filepath.Join(base, "with", "latest")); err != nil || to != "step-500" {
		t.Errorf("latest leads to %q (%v), want step-500", to, err)
	}
}
