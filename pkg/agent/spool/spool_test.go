// SPDX-License-Identifier: Apache-2.0

package spool_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/agent/spool"
)

// catalog receives entries; fail decides what it answers.
type catalog struct {
	mu   sync.Mutex
	got  []string
	fail func(path string) error
}

func (c *catalog) deliver(_ context.Context, e spool.Entry) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		if err := c.fail(e.Path); err != nil {
			return err
		}
	}
	c.got = append(c.got, e.Path)
	return nil
}

func (c *catalog) has(want ...string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Equal(c.got, want)
}

func open(t *testing.T, dir string) *spool.Spool {
	t.Helper()
	s, err := spool.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func add(t *testing.T, s *spool.Spool, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := s.Add(spool.Entry{Method: "PUT", Path: p}); err != nil {
			t.Fatal(err)
		}
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain for " + what)
		}
	}
}

func TestEntriesArriveInTheirOrder(t *testing.T) {
	s, c := open(t, t.TempDir()), &catalog{}
	add(t, s, "/a", "/b")
	go s.Run(t.Context(), c.deliver)
	eventually(t, "the first two", func() bool { return c.has("/a", "/b") })
	add(t, s, "/c")
	eventually(t, "the one added later", func() bool { return c.has("/a", "/b", "/c") })
	eventually(t, "an empty queue", func() bool { return s.Len() == 0 })
}

func TestNothingIsLostOrDoubledAcrossARestart(t *testing.T) {
	dir, c := t.TempDir(), &catalog{}
	first := open(t, dir)
	add(t, first, "/a", "/b", "/c")
	c.fail = func(path string) error {
		if path == "/b" {
			return errors.New("connection refused")
		}
		return nil
	}
	ctx, crash := context.WithCancel(t.Context())
	go first.Run(ctx, c.deliver)
	eventually(t, "the first", func() bool { return c.has("/a") && first.Len() == 2 })
	crash()

	c.mu.Lock()
	c.fail = nil
	c.mu.Unlock()
	second := open(t, dir)
	add(t, second, "/d")
	go second.Run(t.Context(), c.deliver)
	eventually(t, "the rest, in order", func() bool { return c.has("/a", "/b", "/c", "/d") })
}

func TestARefusedEntryIsKeptAsideAndHoldsUpNoOther(t *testing.T) {
	dir, c := t.TempDir(), &catalog{fail: func(path string) error {
		if path == "/bad" {
			return fmt.Errorf("422: %w", spool.ErrRefused)
		}
		return nil
	}}
	s := open(t, dir)
	add(t, s, "/bad", "/good")
	if err := s.Flush(t.Context(), c.deliver); err != nil {
		t.Fatal(err)
	}
	if !c.has("/good") {
		t.Errorf("delivered %v", c.got)
	}
	if kept, _ := filepath.Glob(filepath.Join(dir, "*.refused")); len(kept) != 1 {
		t.Errorf("kept %v, want the refused entry", kept)
	}
}

func TestADamagedFileIsKeptAsideToo(t *testing.T) {
	dir, c := t.TempDir(), &catalog{}
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%020d.json", 0)), []byte(`{"method":"PU`), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	add(t, s, "/good")
	if err := s.Flush(t.Context(), c.deliver); err != nil || !c.has("/good") {
		t.Errorf("error %v, delivered %v", err, c.got)
	}
}

func TestFlushSaysHowManyRecordsAreStillOnDisk(t *testing.T) {
	s, c := open(t, t.TempDir()), &catalog{fail: func(string) error { return errors.New("no route to host") }}
	add(t, s, "/a", "/b")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Flush(ctx, c.deliver); err == nil || s.Len() != 2 {
		t.Errorf("error %v with %d waiting, want an error with 2", err, s.Len())
	}
}

func TestAFullDiskIsAnErrorAndDamagesNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	s, c := open(t, dir), &catalog{}
	add(t, s, "/a")
	if err := s.Add(spool.Entry{Path: "/big", Body: make([]byte, 1<<20)}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v, want that there is no space", err)
	}
	add(t, s, "/b") // what failed left no rest behind
	if err := s.Flush(t.Context(), c.deliver); err != nil || !c.has("/a", "/b") {
		t.Errorf("error %v, delivered %v", err, c.got)
	}
}
