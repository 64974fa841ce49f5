// SPDX-License-Identifier: Apache-2.0

package checkpoint_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

func TestDevicesSocketsAndPipesOfAPodAreNeverRead(t *testing.T) {
	s, _ := open(t, 3)
	dir := t.TempDir()
	write(t, dir, "progress", "half")
	var made []string
	device := filepath.Join(dir, "device")
	// /dev/zero: to read it would never end.
	switch err := unix.Mknod(device, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); {
	case err == nil:
		made = append(made, "device")
	case !errors.Is(err, unix.EPERM):
		t.Fatal(err)
	default:
		t.Log("no device can be made here; the others are tried")
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	made = append(made, "pipe", "socket")
	held := t.TempDir()
	if err := s.Hold(run, dir, held); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{dir, held} {
		if saved, err := s.Save(t.Context(), run, from, checkpoint.SaveOptions{}); err != nil || saved.Files != 1 {
			t.Fatalf("saved %+v, %v, want the one file", saved, err)
		}
		into := t.TempDir()
		if _, _, err := s.Restore(t.Context(), run, into, checkpoint.RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, name := range made {
			if _, err := os.Lstat(filepath.Join(into, name)); err == nil {
				t.Errorf("%s was restored", name)
			}
		}
	}
}

func TestAHalfRestoredDirectoryIsNeitherHeldNorSaved(t *testing.T) {
	s, _ := open(t, 3)
	dir := t.TempDir()
	write(t, dir, "progress", "half")
	write(t, dir, ".spotbench/restoring", "progress\n")
	if err := s.Hold(run, dir, t.TempDir()); !errors.Is(err, checkpoint.ErrHalfRestored) {
		t.Errorf("held: %v", err)
	}
	if _, err := s.Save(t.Context(), run, dir, checkpoint.SaveOptions{}); !errors.Is(err, checkpoint.ErrHalfRestored) {
		t.Errorf("saved: %v", err)
	}
}
