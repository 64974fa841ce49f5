// SPDX-License-Identifier: Apache-2.0

package checkpoint_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

const run = "gpu-workloads/sweep-1a2b3c4d"

// open opens a store in a new directory, which it returns too.
func open(t testing.TB, keep int) (*checkpoint.Store, string) {
	t.Helper()
	dir := t.TempDir()
	return openAt(t, dir, keep), dir
}

func openAt(t testing.TB, dir string, keep int) *checkpoint.Store {
	t.Helper()
	s, err := checkpoint.Open(context.Background(), checkpoint.Options{URL: "file://" + dir, Keep: keep})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func write(t testing.TB, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// random is incompressible content.
func random(size int) string {
	data := make([]byte, size)
	for i := 0; i+8 <= size; i += 8 {
		binary.LittleEndian.PutUint64(data[i:], rand.Uint64())
	}
	return string(data)
}

func save(t testing.TB, s *checkpoint.Store, dir string) checkpoint.Saved {
	t.Helper()
	saved, err := s.Save(t.Context(), run, dir, checkpoint.SaveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return saved
}

// tree describes all that a checkpoint keeps of a directory.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if rel == ".spotbench" {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			got[rel] = "-> " + target
			return err
		case d.IsDir():
			got[rel] = fmt.Sprintf("dir %o %s", info.Mode().Perm(), info.ModTime().UTC())
		case d.Type().IsRegular():
			data, err := os.ReadFile(path)
			if len(data) > 200_000 {
				data = fmt.Appendf(nil, "%d bytes, SHA-256 %x", len(data), sha256.Sum256(data))
			}
			got[rel] = fmt.Sprintf("%o %s %q", info.Mode().Perm(), info.ModTime().UTC(), data)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestWhatIsRestoredIsWhatWasSaved(t *testing.T) {
	s, _ := open(t, 3)
	dir := t.TempDir()
	write(t, dir, "progress.jsonl", "{\"done\":1}\n")
	write(t, dir, "empty", "")
	write(t, dir, "deep/er/weights.bin", strings.Repeat("w", 9<<20)) // three chunks
	write(t, dir, ".spotbench/restore.json", "{}")
	write(t, dir, ".hidden", "h")
	if err := os.Symlink("../outside", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "nothing-in-it"), 0o710); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "progress.jsonl"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	newest := time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
	for _, f := range []string{"empty", "deep/er/weights.bin", ".hidden"} {
		if err := os.Chtimes(filepath.Join(dir, f), newest, newest.Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(filepath.Join(dir, "progress.jsonl"), newest, newest); err != nil {
		t.Fatal(err)
	}

	saved, err := s.Save(t.Context(), run, dir, checkpoint.SaveOptions{Meta: map[string]string{"node": "a100-spot-0"}})
	if err != nil {
		t.Fatal(err)
	}
	if saved.Number != 1 || saved.Files != 4 || saved.Bytes != 11+9<<20+1 || !saved.NewestFile.Equal(newest) {
		t.Errorf("saved %+v", saved)
	}
	into := t.TempDir()
	restored, found, err := s.Restore(t.Context(), run, into, checkpoint.RestoreOptions{})
	if err != nil || !found {
		t.Fatal(found, err)
	}
	if restored.Number != 1 || restored.Meta["node"] != "a100-spot-0" || restored.Files != 4 || restored.Bytes != saved.Bytes || restored.Damaged != nil {
		t.Errorf("restored %+v", restored)
	}
	if diff := cmp.Diff(tree(t, dir), tree(t, into)); diff != "" {
		t.Errorf("directory (-saved +restored):\n%s", diff)
	}
}

func TestARunWithoutCheckpointHasNothingToRestore(t *testing.T) {
	s, _ := open(t, 3)
	if _, found, err := s.Restore(t.Context(), run, t.TempDir(), checkpoint.RestoreOptions{}); found || err != nil {
		t.Error(found, err)
	}
	if _, found, err := s.Latest(t.Context(), run); found || err != nil {
		t.Error(found, err)
	}
}

func TestRunsWhoseNamesContainOneAnotherAreSeparate(t *testing.T) {
	s, _ := open(t, 3)
	dir := t.TempDir()
	write(t, dir, "f", "x")
	if _, err := s.Save(t.Context(), "ns/job/0", dir, checkpoint.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, found, err := s.Latest(t.Context(), "ns/job"); found || err != nil {
		t.Error(found, err)
	}
}

func TestRunsThatWouldLeaveTheirPlaceAreRefused(t *testing.T) {
	s, _ := open(t, 3)
	for _, name := range []string{"", "../x", "a/../b", "/a", "a/", "a//b", "a/_manifests", "A", strings.Repeat("a", 513)} {
		if _, err := s.Save(t.Context(), name, t.TempDir(), checkpoint.SaveOptions{}); err == nil || !strings.Contains(err.Error(), "run") {
			t.Errorf("Save(%q): %v", name, err)
		}
	}
}

func TestOnlyWhatIsNewIsSent(t *testing.T) {
	s, dir := open(t, 3)
	files := t.TempDir()
	write(t, files, "weights", random(12<<20))
	first := save(t, s, files)
	write(t, files, "progress", "1 of 100")
	for name, store := range map[string]*checkpoint.Store{"by the same process": s, "by another process": openAt(t, dir, 3)} {
		second := save(t, store, files)
		if first.Uploaded < 12<<20 || second.Uploaded > 1000 {
			t.Errorf("%s: sent %d and then %d bytes", name, first.Uploaded, second.Uploaded)
		}
	}
}

func TestTheSameFileWrittenAnewWithItsOldTimeIsReadAgain(t *testing.T) {
	s, _ := open(t, 3)
	files := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for _, content := range []string{"one", "two"} {
		write(t, files, "f", content)
		if err := os.Chtimes(filepath.Join(files, "f"), old, old); err != nil {
			t.Fatal(err)
		}
		save(t, s, files)
		into := t.TempDir()
		if _, _, err := s.Restore(t.Context(), run, into, checkpoint.RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(filepath.Join(into, "f")); string(got) != content {
			t.Errorf("restored %q, want %q", got, content)
		}
	}
}

// objects are the files of a store that match a pattern below the run's directory.
func objects(t testing.TB, store, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(store, filepath.FromSlash(run), pattern))
	if err != nil || len(found) == 0 {
		t.Fatal(pattern, found, err)
	}
	return found
}

func TestADamagedGenerationIsPassedOver(t *testing.T) {
	cut := func(path string) error { return os.Truncate(path, 10) }
	flip := func(path string) error {
		data, err := os.ReadFile(path)
		if err == nil {
			data[len(data)/2] ^= 1
			err = os.WriteFile(path, data, 0o600)
		}
		return err
	}
	for name, tt := range map[string]struct {
		pattern string
		harm    func(string) error
	}{
		"a manifest that is cut short": {"_manifests/*2", cut},
		"a manifest with another bit":  {"_manifests/*2", flip},
		"an empty manifest":            {"_manifests/*2", func(p string) error { return os.Truncate(p, 0) }},
		"a chunk that is cut short":    {"_chunks/*/*", cut},
		"a chunk with another bit":     {"_chunks/*/*", flip},
		"a chunk that is gone":         {"_chunks/*/*", os.Remove},
		"a chunk that is no longer compressed data": {"_chunks/*/*", func(p string) error {
			return os.WriteFile(p, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x04, 0, 1, 0, 0, 0x99, 0xe9, 0xd8, 0x51}, 0o600)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s, store := open(t, 3)
			files := t.TempDir()
			write(t, files, "a-first", "one")
			save(t, s, files)
			before := objects(t, store, "_chunks/*/*")
			write(t, files, "a-first", "changed")
			write(t, files, "second", "two")
			save(t, s, files)
			for _, path := range objects(t, store, tt.pattern) {
				if !slices.Contains(before, path) {
					if err := tt.harm(path); err != nil {
						t.Fatal(err)
					}
				}
			}
			into := t.TempDir()
			restored, found, err := s.Restore(t.Context(), run, into, checkpoint.RestoreOptions{})
			if err != nil || !found || restored.Number != 1 || !slices.Equal(restored.Damaged, []int64{2}) {
				t.Fatalf("restored %+v, %v, %v", restored, found, err)
			}
			got := tree(t, into)
			if len(got) != 1 || !strings.HasSuffix(got["a-first"], `"one"`) {
				t.Errorf("directory has %v: nothing of the damaged generation may stay", got)
			}
			if err := s.Verify(t.Context(), run, 2); !errors.Is(err, checkpoint.ErrDamaged) {
				t.Errorf("Verify(2): %v", err)
			}
			if err := s.Verify(t.Context(), run, 1); err != nil {
				t.Errorf("Verify(1): %v", err)
			}
			// The next one must not build on what is damaged.
			next := save(t, s, files)
			if next.Number != 3 {
				t.Errorf("generation %d, want 3", next.Number)
			}
		})
	}
}

func TestIfNothingCanBeUsedTheRunDoesNotStartAfresh(t *testing.T) {
	s, store := open(t, 3)
	files := t.TempDir()
	write(t, files, "f", "x")
	save(t, s, files)
	for _, path := range objects(t, store, "_manifests/*") {
		if err := os.Truncate(path, 3); err != nil {
			t.Fatal(err)
		}
	}
	if _, found, err := s.Restore(t.Context(), run, t.TempDir(), checkpoint.RestoreOptions{}); found || !errors.Is(err, checkpoint.ErrDamaged) {
		t.Error(found, err)
	}
	infos, err := s.List(t.Context(), run)
	if err != nil || len(infos) != 1 || infos[0].Number != 1 || !errors.Is(infos[0].Err, checkpoint.ErrDamaged) {
		t.Errorf("List = %v, %v", infos, err)
	}
}

func TestAFullStoreMakesNoCheckpointAndHarmsNone(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	s := openAt(t, dir, 3)
	files := t.TempDir()
	write(t, files, "f", "x")
	save(t, s, files)
	write(t, files, "big", random(5<<20))
	if _, err := s.Save(t.Context(), run, files, checkpoint.SaveOptions{}); err == nil {
		t.Error("5 MiB fitted into 2 MiB")
	}
	if restored, found, err := s.Restore(t.Context(), run, t.TempDir(), checkpoint.RestoreOptions{}); err != nil || !found || restored.Number != 1 {
		t.Errorf("restored %+v, %v, %v", restored, found, err)
	}
}

func TestAFullVolumeIsAnErrorAndNotAnOlderCheckpoint(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	s, _ := open(t, 3)
	files := t.TempDir()
	write(t, files, "f", "x")
	save(t, s, files)
	write(t, files, "big", strings.Repeat("x", 5<<20))
	save(t, s, files)
	into := t.TempDir()
	if err := syscall.Mount("tmpfs", into, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(into, syscall.MNT_DETACH) })
	if _, found, err := s.Restore(t.Context(), run, into, checkpoint.RestoreOptions{}); found || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v, error %v, want that there is no space", found, err)
	}
	if got := tree(t, into); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

func TestALinkInTheVolumeDoesNotLeadARestoreOutOfIt(t *testing.T) {
	s, _ := open(t, 3)
	files, into, outside := t.TempDir(), t.TempDir(), t.TempDir()
	write(t, files, "dir/f", "x")
	save(t, s, files)
	if err := os.Symlink(outside, filepath.Join(into, "dir")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Restore(t.Context(), run, into, checkpoint.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, outside); len(got) != 0 {
		t.Errorf("wrote outside: %v", got)
	}
	if err := os.RemoveAll(filepath.Join(into, ".spotbench")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(into, ".spotbench")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Restore(t.Context(), run, into, checkpoint.RestoreOptions{}); err == nil {
		t.Error("followed .spotbench out of the volume")
	}
	if got := tree(t, outside); len(got) != 0 {
		t.Errorf("wrote outside: %v", got)
	}
}

func TestAnythingThatChangesIsRestoredAsItLastWas(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		base, err := os.MkdirTemp(t.TempDir(), "case-*")
		if err != nil {
			rt.Fatal(err)
		}
		store, files := filepath.Join(base, "store"), filepath.Join(base, "files")
		if err := os.Mkdir(files, 0o755); err != nil {
			rt.Fatal(err)
		}
		s := openAt(t, store, 3)
		names := rapid.SampledFrom([]string{"a", "b", "d/a", "d/b", "d/e/a", "é", "with space"})
		for range rapid.IntRange(1, 4).Draw(rt, "generations") {
			for range rapid.IntRange(1, 4).Draw(rt, "changes") {
				path := filepath.Join(files, names.Draw(rt, "name"))
				if rapid.Bool().Draw(rt, "remove") {
					_ = os.Remove(path)
					continue
				}
				size := rapid.SampledFrom([]int{0, 1, 2, 3, 10, 100, 998, 999, 1000, 1001, 5000, 9999, 70000}).Draw(rt, "size")
				write(t, filepath.Dir(path), filepath.Base(path), strings.Repeat(rapid.StringN(1, 1, 1).Draw(rt, "content"), size))
			}
			_, err := s.Save(context.Background(), run, files, checkpoint.SaveOptions{})
			if errors.Is(err, checkpoint.ErrNothing) {
				continue
			}
			if err != nil {
				rt.Fatal(err)
			}
			into, err := os.MkdirTemp(base, "into-*")
			if err != nil {
				rt.Fatal(err)
			}
			if _, _, err := s.Restore(context.Background(), run, into, checkpoint.RestoreOptions{}); err != nil {
				rt.Fatal(err)
			}
			if diff := cmp.Diff(tree(t, files), tree(t, into)); diff != "" {
				rt.Fatalf("directory (-saved +restored):\n%s", diff)
			}
		}
	})
}

func TestOpenNamesWhatIsWrong(t *testing.T) {
	for _, tt := range []struct {
		options checkpoint.Options
		want    string
	}{
		{checkpoint.Options{URL: "ftp://x"}, "gs://bucket"},
		{checkpoint.Options{URL: "file://relative/path"}, "file:///path"},
		{checkpoint.Options{URL: "s3:///no-bucket"}, "s3://bucket"},
		{checkpoint.Options{URL: "file:///tmp", Keep: -1}, "at least 1"},
		{checkpoint.Options{URL: "file:///tmp", MaxAge: -time.Hour}, "-1h0m0s"},
		{checkpoint.Options{URL: "file:///tmp", UploadLimit: -5}, "-5"},
		{checkpoint.Options{URL: "file:///tmp?create_dir=true"}, "create_dir"},
		{checkpoint.Options{URL: "s3://u:secret@b?nonsense=1"}, "nonsense"},
	} {
		_, err := checkpoint.Open(t.Context(), tt.options)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%+v): %v", tt.options, err)
		}
	}
}
