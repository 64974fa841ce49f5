// SPDX-License-Identifier: Apache-2.0

package checkpoint_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

// limited opens a store that sends at most so many bytes a second, after the 4 MiB
// that a limit lets through at once.
func limited(t testing.TB, dir string, bytesPerSecond int64) *checkpoint.Store {
	t.Helper()
	s, err := checkpoint.Open(t.Context(), checkpoint.Options{URL: "file://" + dir, UploadLimit: bytesPerSecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// stored are the bytes of all chunks of a store.
func stored(t testing.TB, store string) (total int64) {
	t.Helper()
	for _, path := range objects(t, store, "_chunks/*/*") {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	return total
}

func TestASaveThatWasCutShortIsResumed(t *testing.T) {
	const size = 24 << 20
	for name, again := range map[string]func(t *testing.T, store string, same *checkpoint.Store) *checkpoint.Store{
		"by the same process": func(_ *testing.T, _ string, same *checkpoint.Store) *checkpoint.Store { return same },
		"by another process":  func(t *testing.T, store string, _ *checkpoint.Store) *checkpoint.Store { return openAt(t, store, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			store := t.TempDir()
			s := limited(t, store, 8<<20)
			files := t.TempDir()
			write(t, files, "weights", random(size))
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			if _, err := s.Save(ctx, run, files, checkpoint.SaveOptions{}); !errors.Is(err, context.Canceled) {
				t.Fatalf("error %v", err)
			}
			if _, found, err := s.Latest(t.Context(), run); found || err != nil {
				t.Fatal("half a checkpoint is visible", err)
			}
			had := stored(t, store)
			if had < 1<<20 || had == size {
				t.Fatalf("%d bytes were sent", had)
			}
			saved, err := again(t, store, s).Save(t.Context(), run, files, checkpoint.SaveOptions{Urgent: true})
			if err != nil {
				t.Fatal(err)
			}
			if saved.Uploaded != size-had {
				t.Errorf("sent %d bytes after %d of %d", saved.Uploaded, had, size)
			}
			restoresTo(t, openAt(t, store, 3), files)
		})
	}
	t.Run("but not from chunks that may be removed before it is whole", func(t *testing.T) {
		s, store := open(t, 3)
		files := t.TempDir()
		write(t, files, "weights", random(3<<20))
		save(t, s, files)
		for _, path := range objects(t, store, "_manifests/*") {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		age(t, store, "_chunks/*/*", 2*time.Hour)
		if saved := save(t, openAt(t, store, 3), files); saved.Uploaded != 3<<20 {
			t.Errorf("sent %d bytes", saved.Uploaded)
		}
	})
	t.Run("nor from a chunk that is not whole", func(t *testing.T) {
		s, store := open(t, 3)
		files := t.TempDir()
		write(t, files, "weights", random(3<<20))
		save(t, s, files)
		for _, path := range objects(t, store, "_chunks/*/*") {
			if err := os.Truncate(path, 1000); err != nil {
				t.Fatal(err)
			}
		}
		next := openAt(t, store, 3)
		if saved := save(t, next, files); saved.Uploaded != 3<<20 {
			t.Errorf("sent %d bytes", saved.Uploaded)
		}
		restoresTo(t, next, files)
	})
}

func TestAfterARestoreFoundDamageTheNextSaveMendsIt(t *testing.T) {
	s, store := open(t, 3)
	files := t.TempDir()
	write(t, files, "weights", random(8<<20))
	save(t, s, files)
	path := objects(t, store, "_chunks/*/*")[0]
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Restore(t.Context(), run, t.TempDir(), checkpoint.RestoreOptions{}); !errors.Is(err, checkpoint.ErrDamaged) {
		t.Fatal(err)
	}
	if saved := save(t, s, files); saved.Uploaded != int64(len(data)) {
		t.Errorf("sent %d bytes, want the damaged chunk's %d", saved.Uploaded, len(data))
	}
	restoresTo(t, s, files)
}

func TestALimitThatTheDeadlineDoesNotAllowIsSaid(t *testing.T) {
	s := limited(t, t.TempDir(), 1<<20)
	files := t.TempDir()
	write(t, files, "weights", random(64<<20)) // a minute
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := s.Save(ctx, run, files, checkpoint.SaveOptions{})
	if err == nil || !strings.Contains(err.Error(), "upload limit of 1048576 bytes/s") || !strings.Contains(err.Error(), "deadline") {
		t.Errorf("error %v", err)
	}
}

func TestSavesShareTheLimitEquallyWhateverTheirNumberOfFiles(t *testing.T) {
	store := t.TempDir()
	s := limited(t, store, 16<<20)
	large, many := t.TempDir(), t.TempDir()
	write(t, large, "one", random(64<<20))
	for i := range 32 {
		write(t, many, string(rune('a'+i%26))+strings.Repeat("x", i), random(2<<20))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for run, dir := range map[string]string{"ns/one": large, "ns/many": many} {
		all.Go(func() { _, _ = s.Save(ctx, run, dir, checkpoint.SaveOptions{}) })
	}
	time.Sleep(2500 * time.Millisecond)
	cancel()
	all.Wait()
	sum := func(run string) (total int64) {
		found, _ := filepath.Glob(filepath.Join(store, run, "_chunks/*/*"))
		for _, path := range found {
			if info, err := os.Stat(path); err == nil {
				total += info.Size()
			}
		}
		return total
	}
	one, several := sum("ns/one"), sum("ns/many")
	if total := one + several; total < 20<<20 || total > 64<<20 {
		t.Errorf("%d bytes in 2.5 s of 16 MiB/s and 4 MiB at once", total)
	}
	if ratio := float64(one) / float64(several); ratio < 0.5 || ratio > 2 {
		t.Errorf("one file got %d bytes, many files %d", one, several)
	}
}

func TestAnUrgentSaveIsNotHeldUpByOthers(t *testing.T) {
	s := limited(t, t.TempDir(), 1<<20)
	slow, urgent := t.TempDir(), t.TempDir()
	write(t, slow, "f", random(32<<20))
	write(t, urgent, "f", random(32<<20))
	var others atomic.Int64
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for _, run := range []string{"ns/a", "ns/b", "ns/c"} {
		all.Go(func() {
			if _, err := s.Save(ctx, run, slow, checkpoint.SaveOptions{}); err == nil {
				others.Add(1)
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	start := time.Now()
	if _, err := s.Save(t.Context(), run, urgent, checkpoint.SaveOptions{Urgent: true}); err != nil {
		t.Fatal(err)
	}
	// At 1 MiB/s the 32 MiB alone would take half a minute, and the others' as long each.
	if took := time.Since(start); took > 20*time.Second || others.Load() > 0 {
		t.Errorf("it took %s, and %d others were done before", took, others.Load())
	}
	cancel()
	all.Wait()
}
