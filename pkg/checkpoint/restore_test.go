// SPDX-License-Identifier: Apache-2.0

package checkpoint_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

func TestAChunkThatExpandsWithoutEndIsDamage(t *testing.T) {
	s, store := open(t, 3)
	files := t.TempDir()
	write(t, files, "log", strings.Repeat("the same line\n", 100_000))
	save(t, s, files)
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bomb := enc.EncodeAll(make([]byte, 1<<30), nil)
	var streamed bytes.Buffer // says nothing of its size
	enc.Reset(&streamed)
	for range 256 {
		if _, err := enc.Write(make([]byte, 4<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"with its size": bomb, "without": streamed.Bytes()} {
		if len(content) > 200_000 {
			t.Fatalf("%s: %d bytes are no bomb", name, len(content))
		}
		for _, path := range objects(t, store, "_chunks/*/*.zst") {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		into := t.TempDir()
		if _, _, err := s.Restore(t.Context(), run, into, checkpoint.RestoreOptions{}); !errors.Is(err, checkpoint.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 128<<20 {
			t.Errorf("%s: %d bytes of memory were used", name, got)
		}
		if got := tree(t, into); len(got) != 0 {
			t.Errorf("%s: left behind %v", name, got)
		}
	}
}

func TestAnObjectThatIsALinkOrADirectoryIsNotBelieved(t *testing.T) {
	for name, replace := range map[string]func(path string) error{
		"a directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"a link":      func(path string) error { return os.Symlink("/etc/passwd", path) },
		"a pipe":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			s, store := open(t, 3)
			files := t.TempDir()
			write(t, files, "f", "x")
			save(t, s, files)
			path := objects(t, store, "_chunks/*/*")[0]
			if err := errors.Join(os.Remove(path), replace(path)); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				_, _, err := s.Restore(context.Background(), run, t.TempDir(), checkpoint.RestoreOptions{})
				done <- err
			}()
			select {
			case err := <-done:
				if !errors.Is(err, checkpoint.ErrDamaged) {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("it hangs")
			}
		})
	}
}

// halfRestored makes what a restore leaves that is killed while files get their places.
func halfRestored(t testing.TB, dir, names string) {
	t.Helper()
	write(t, dir, ".spotbench/restoring", names)
	write(t, dir, ".spotbench/staging/b", "not yet in its place")
}

func TestADirectoryThatIsHalfRestoredIsNotSavedAndIsCleared(t *testing.T) {
	s, _ := open(t, 3)
	files := t.TempDir()
	write(t, files, "a", "one")
	save(t, s, files)
	half := t.TempDir()
	write(t, half, "a", "of another generation")
	write(t, half, "gone", "of another generation too")
	write(t, half, "mine", "was there before")
	halfRestored(t, half, `["a","gone","b"]`)
	if _, err := s.Save(t.Context(), run, half, checkpoint.SaveOptions{}); !errors.Is(err, checkpoint.ErrHalfRestored) {
		t.Errorf("saved: %v", err)
	}
	if _, _, err := s.Restore(t.Context(), run, half, checkpoint.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, half); len(got) != 2 || got["a"] == "" || got["mine"] == "" {
		t.Errorf("directory has %v, want a and what was no part of the restore", got)
	}
	if data, _ := os.ReadFile(filepath.Join(half, "a")); string(data) != "one" {
		t.Errorf("a is %q", data)
	}
	if _, err := s.Save(t.Context(), run, half, checkpoint.SaveOptions{}); err != nil {
		t.Error(err)
	}
	for _, names := range []string{`["../outside"]`, `["/etc"]`, `["."]`, `[".spotbench"]`, `["a/b"]`, `nonsense`} {
		halfRestored(t, half, names)
		if _, _, err := s.Restore(t.Context(), run, half, checkpoint.RestoreOptions{}); err == nil {
			t.Errorf("%s was followed", names)
		}
	}
}

func TestAGenerationThatDoesNotFitIsRefusedBeforeAnythingIsFetched(t *testing.T) {
	into := t.TempDir()
	if err := syscall.Mount("tmpfs", into, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(into, syscall.MNT_DETACH) })
	s, store := open(t, 3)
	files := t.TempDir()
	write(t, files, "big", random(5<<20))
	save(t, s, files)
	for _, path := range objects(t, store, "_chunks/*/*") {
		if err := os.Remove(path); err != nil { // else it would say that they are missing
			t.Fatal(err)
		}
	}
	_, _, err := s.Restore(t.Context(), run, into, checkpoint.RestoreOptions{})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "5242880 bytes") {
		t.Errorf("error %v", err)
	}
}

func TestOneGenerationCanBeAskedFor(t *testing.T) {
	s, store := open(t, 3)
	files := t.TempDir()
	for _, content := range []string{"one", "two", "three"} {
		write(t, files, "f", content)
		save(t, s, files)
	}
	into := t.TempDir()
	restored, found, err := s.Restore(t.Context(), run, into, checkpoint.RestoreOptions{Generation: 2})
	if err != nil || !found || restored.Number != 2 {
		t.Fatal(restored, found, err)
	}
	if data, _ := os.ReadFile(filepath.Join(into, "f")); string(data) != "two" {
		t.Errorf("restored %q", data)
	}
	if _, _, err := s.Restore(t.Context(), run, into, checkpoint.RestoreOptions{Generation: 7}); err == nil || !strings.Contains(err.Error(), "no checkpoint 7") {
		t.Errorf("error %v", err)
	}
	// Who asks for one does not get another.
	if err := os.Truncate(objects(t, store, "_manifests/*2")[0], 5); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Restore(t.Context(), run, into, checkpoint.RestoreOptions{Generation: 2}); !errors.Is(err, checkpoint.ErrDamaged) {
		t.Errorf("error %v", err)
	}
}

func TestARestoreThatIsCutShortLeavesTheDirectoryAsItWas(t *testing.T) {
	s, _ := open(t, 3)
	files := t.TempDir()
	for i := range 20 {
		write(t, files, string(rune('a'+i)), random(4<<20))
	}
	save(t, s, files)
	into := t.TempDir()
	write(t, into, "a", "was there")
	cut := 0
	for delay := time.Millisecond; ; delay += 2 * time.Millisecond {
		ctx, cancel := context.WithTimeout(t.Context(), delay)
		_, _, err := s.Restore(ctx, run, into, checkpoint.RestoreOptions{})
		cancel()
		if err == nil {
			break
		}
		cut++
		if got := tree(t, into); len(got) != 1 || !strings.HasSuffix(got["a"], `"was there"`) {
			t.Fatalf("after %s the directory has %d entries", delay, len(got))
		}
	}
	if cut == 0 {
		t.Error("no restore was cut short: this test has seen nothing")
	}
	same(t, files, into)
}

func TestRunsAreListed(t *testing.T) {
	s, _ := open(t, 3)
	files := t.TempDir()
	write(t, files, "f", "x")
	want := []string{"a", "a/b", "ns/job/0", "ns/job/1"}
	for _, run := range want {
		if _, err := s.Save(t.Context(), run, files, checkpoint.SaveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Runs(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("Runs = %v, %v", got, err)
	}
}
