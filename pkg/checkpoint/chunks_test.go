// SPDX-License-Identifier: Apache-2.0

package checkpoint_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

// edit changes a file where it is.
func edit(t testing.TB, path string, offset int64, content string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(content), offset); err != nil {
		t.Fatal(err)
	}
}

func TestOnlyTheSurroundingsOfAChangeAreSent(t *testing.T) {
	const size = 40 << 20
	original := random(size)
	path := func(dir string) string { return filepath.Join(dir, "weights") }
	for name, change := range map[string]func(t *testing.T, dir string){
		"a byte in the middle":         func(t *testing.T, dir string) { edit(t, path(dir), size/2, "x") },
		"a byte more at the beginning": func(t *testing.T, dir string) { write(t, dir, "weights", "x"+original) },
		"a byte less at the beginning": func(t *testing.T, dir string) { write(t, dir, "weights", original[1:]) },
		"a mebibyte more in the middle": func(t *testing.T, dir string) {
			write(t, dir, "weights", original[:size/2]+random(1<<20)+original[size/2:])
		},
		"more at the end": func(t *testing.T, dir string) { write(t, dir, "weights", original+random(100_000)) },
		"less at the end": func(t *testing.T, dir string) { write(t, dir, "weights", original[:size-12345]) },
		"another name":    func(t *testing.T, dir string) { rename(t, path(dir), filepath.Join(dir, "other")) },
		"a second copy":   func(t *testing.T, dir string) { write(t, dir, "copy", original) },
		"the same, written anew by renaming": func(t *testing.T, dir string) {
			write(t, dir, "new", original)
			rename(t, filepath.Join(dir, "new"), path(dir))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, store := open(t, 3)
			dir := t.TempDir()
			write(t, dir, "weights", original)
			if first := save(t, s, dir); first.Uploaded < size || first.Uploaded > size+1000 {
				t.Fatalf("sent %d bytes of %d", first.Uploaded, size)
			}
			change(t, dir)
			// At most the chunk that changed, the inserted bytes, and the next.
			if second := save(t, s, dir); second.Uploaded > 9<<20 {
				t.Errorf("sent %d bytes", second.Uploaded)
			}
			restoresTo(t, openAt(t, store, 3), dir)
		})
	}
}

func rename(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// restoresTo makes sure that what a store restores is what dir has.
func restoresTo(t testing.TB, s *checkpoint.Store, dir string) checkpoint.Restored {
	t.Helper()
	into := t.TempDir()
	restored, found, err := s.Restore(t.Context(), run, into, checkpoint.RestoreOptions{})
	if err != nil || !found {
		t.Fatal(found, err)
	}
	same(t, dir, into)
	return restored
}

// same compares directories without printing what large files hold.
func same(t testing.TB, want, got string) {
	t.Helper()
	a, b := tree(t, want), tree(t, got)
	for name := range a {
		if a[name] != b[name] {
			t.Errorf("%s differs: saved %d, restored %d characters of description", name, len(a[name]), len(b[name]))
		}
	}
	if len(a) != len(b) {
		t.Errorf("%d entries were saved and %d restored", len(a), len(b))
	}
}

func TestAFileThatGrowsDoesNotFallIntoSmallChunks(t *testing.T) {
	s, store := open(t, 100)
	dir := t.TempDir()
	line := strings.Repeat("0123456789abcdef", 64) + "\n"
	var content bytes.Buffer
	for i := range 30 {
		for content.Len() < (i+1)*300_000 {
			content.WriteString(strconv.Itoa(content.Len()) + line)
		}
		write(t, dir, "log", content.String())
		save(t, s, dir)
	}
	// Cut anew, in another store, it falls into as many chunks.
	fresh, other := open(t, 100)
	save(t, fresh, dir)
	last := openAt(t, store, 100)
	restoresTo(t, last, dir)
	sum := func(store string) (total int64) {
		for _, path := range objects(t, store, "_chunks/*/*") {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			total += info.Size()
		}
		return total
	}
	// Each of 30 generations has at most one chunk that the end of the file cut.
	if n := len(objects(t, store, "_chunks/*/*")); n > len(objects(t, other, "_chunks/*/*"))+30 {
		t.Errorf("%d chunks (%d bytes); at once there are %d (%d bytes)", n, sum(store), len(objects(t, other, "_chunks/*/*")), sum(other))
	}
}

func TestWhatDoesNotGetSmallerIsStoredAsItIs(t *testing.T) {
	s, store := open(t, 3)
	dir := t.TempDir()
	weights := random(3 << 20)
	write(t, dir, "weights", weights)
	write(t, dir, "log", strings.Repeat("the same line\n", 300_000))
	save(t, s, dir)
	var plain, compressed int64
	for _, path := range objects(t, store, "_chunks/*/*") {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(path, ".zst") {
			compressed += info.Size()
		} else {
			plain += info.Size()
		}
	}
	if plain != int64(len(weights)) || compressed == 0 || compressed > 50_000 {
		t.Errorf("%d bytes plain, %d compressed", plain, compressed)
	}
	restoresTo(t, s, dir)
}

// bytesRead is what this process has read by system calls.
func bytesRead(t testing.TB) int64 {
	t.Helper()
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "rchar: "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Skip("no rchar in /proc/self/io")
	return 0
}

// onDisk is a directory on a file system whose times can be relied on.
func onDisk(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	switch s.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC:
		return dir
	}
	t.Skip("the directory for temporary files is not on ext4, XFS or Btrfs")
	return ""
}

func TestAFileThatHasNotChangedIsNotEvenRead(t *testing.T) {
	s, _ := open(t, 3)
	dir := onDisk(t)
	write(t, dir, "weights", random(16<<20))
	time.Sleep(1100 * time.Millisecond) // a file just changed is not relied on
	save(t, s, dir)
	before := bytesRead(t)
	save(t, s, dir)
	if got := bytesRead(t) - before; got > 1<<20 {
		t.Errorf("read %d bytes", got)
	}

	t.Run("nor when it is held while somebody removes it", func(t *testing.T) {
		held := filepath.Join(filepath.Dir(dir), "held")
		if err := os.Mkdir(held, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, dir, "last-words", "written on the way out")
		if err := s.Hold(run, dir, held); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		before := bytesRead(t)
		saved := save(t, s, held)
		if got := bytesRead(t) - before; got > 1<<20 || saved.Files != 2 {
			t.Errorf("read %d bytes for %d files", got, saved.Files)
		}
		restoresTo(t, s, held)
	})
}

// A store through a memory map does not move a file's times if its page is dirty.
func TestAStoreThroughAMemoryMapIsNotMissed(t *testing.T) {
	s, _ := open(t, 3)
	dir := onDisk(t)
	write(t, dir, "mapped", random(2<<20))
	f, err := os.OpenFile(filepath.Join(dir, "mapped"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mapped, err := syscall.Mmap(int(f.Fd()), 0, 2<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(mapped) }()
	for i := range 4 {
		mapped[4096*i]++ // dirty from here on
		time.Sleep(1100 * time.Millisecond)
		save(t, s, dir)
		mapped[4096*i+1]++ // the same page
		save(t, s, dir)
		if t.Failed() {
			return
		}
		into := t.TempDir()
		if _, _, err := s.Restore(t.Context(), run, into, checkpoint.RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(into, "mapped"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, mapped) {
			t.Fatal("a store was missed")
		}
	}
}
