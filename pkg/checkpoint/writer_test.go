// SPDX-License-Identifier: Apache-2.0

package checkpoint_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

func saveAs(t testing.TB, s *checkpoint.Store, writer, dir string) (checkpoint.Saved, error) {
	t.Helper()
	return s.Save(t.Context(), run, dir, checkpoint.SaveOptions{Writer: writer})
}

func restoreAs(t testing.TB, s *checkpoint.Store, writer string) checkpoint.Restored {
	t.Helper()
	restored, _, err := s.Restore(t.Context(), run, t.TempDir(), checkpoint.RestoreOptions{Writer: writer})
	if err != nil {
		t.Fatal(err)
	}
	return restored
}

func TestTheLateSaveOfAMachineThatWasGivenUpDoesNotPutTheRunBack(t *testing.T) {
	dying, store := open(t, 5)
	next := openAt(t, store, 5)
	files := t.TempDir()
	write(t, files, "f", "1 of 3")
	if _, err := saveAs(t, dying, "pod-a", files); err != nil {
		t.Fatal(err)
	}
	restoreAs(t, next, "pod-b")
	write(t, files, "f", "2 of 3, measured again by b")
	if saved, err := saveAs(t, next, "pod-b", files); err != nil || saved.Number != 2 {
		t.Fatal(saved, err)
	}
	write(t, files, "f", "2 of 3, the late save of a")
	_, err := saveAs(t, dying, "pod-a", files)
	if !errors.Is(err, checkpoint.ErrSuperseded) || !strings.Contains(err.Error(), "pod-b") {
		t.Errorf("error %v, want that pod-b goes on with the run", err)
	}
	// Nor after its agent was started again.
	if _, err := saveAs(t, openAt(t, store, 5), "pod-a", files); !errors.Is(err, checkpoint.ErrSuperseded) {
		t.Errorf("error %v", err)
	}
	if latest, _, err := next.Latest(t.Context(), run); err != nil || latest.Number != 2 {
		t.Errorf("latest %d, %v", latest.Number, err)
	}
	if saved, err := saveAs(t, next, "pod-b", files); err != nil || saved.Number != 3 {
		t.Errorf("%+v, %v", saved, err)
	}
}

func TestAWriterThatHadNothingToRestoreTakesOver(t *testing.T) {
	s, _ := open(t, 5)
	files := t.TempDir()
	write(t, files, "f", "x")
	for _, writer := range []string{"pod-a", "pod-b"} { // b is new, and the run has no checkpoint it asked for
		if _, err := saveAs(t, s, writer, files); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := saveAs(t, s, "pod-a", files); !errors.Is(err, checkpoint.ErrSuperseded) {
		t.Errorf("error %v", err)
	}
	if _, err := s.Save(t.Context(), run, files, checkpoint.SaveOptions{Writer: strings.Repeat("x", 254)}); err == nil || !strings.Contains(err.Error(), "254") {
		t.Errorf("error %v", err)
	}
}

// While one machine saves again and again, the run is taken over and saved elsewhere.
func TestNoSaveOfAnEarlierWriterComesAfterOneOfALater(t *testing.T) {
	first, store := open(t, 1000)
	base := t.TempDir()
	const writers = 5
	var all sync.WaitGroup
	for w := range writers {
		s := openAt(t, store, 1000)
		files := filepath.Join(base, strconv.Itoa(w))
		name := fmt.Sprint("pod-", w)
		all.Go(func() {
			if w > 0 {
				for len(objects(t, store, "_manifests/*")) < 5*w { // the one before is at it
				}
				restoreAs(t, s, name)
			}
			for i := 0; ; i++ {
				write(t, files, "f", fmt.Sprint(w, " ", i))
				_, err := saveAs(t, s, name, files)
				if errors.Is(err, checkpoint.ErrSuperseded) {
					return
				}
				if err != nil && !strings.Contains(err.Error(), "faster") {
					t.Error(err)
					return
				}
				if w == writers-1 && i == 10 {
					return
				}
			}
		})
		if w == 0 {
			write(t, files, "f", "0")
			if _, err := saveAs(t, first, "pod-0", files); err != nil {
				t.Fatal(err)
			}
		}
	}
	all.Wait()
	newest := 0
	for n := int64(1); ; n++ {
		into := t.TempDir()
		_, _, err := first.Restore(t.Context(), run, into, checkpoint.RestoreOptions{Generation: n})
		if err != nil {
			if n < 20 {
				t.Error(err)
			}
			break
		}
		data, err := os.ReadFile(filepath.Join(into, "f"))
		if err != nil {
			t.Fatal(err)
		}
		var w int
		if _, err := fmt.Sscan(string(data), &w); err != nil {
			t.Fatal(err)
		}
		if w < newest {
			t.Errorf("generation %d is writer %d's, after one of writer %d", n, w, newest)
		}
		newest = max(newest, w)
	}
	if newest != writers-1 {
		t.Errorf("the last writer seen is %d", newest)
	}
}

// This is what two agents do that use one directory, for example over NFS.
func TestWritersAtTheSameTimeMakeDifferentGenerationsInADirectory(t *testing.T) {
	first, store := open(t, 1000)
	const writers, each = 6, 10
	var mu sync.Mutex
	content := map[int64]string{}
	var all sync.WaitGroup
	for w := range writers {
		s, files := openAt(t, store, 1000), t.TempDir()
		all.Go(func() {
			for i := range each {
				mine := fmt.Sprintf("writer %d save %d", w, i)
				write(t, files, "f", mine)
				saved, err := s.Save(t.Context(), run, files, checkpoint.SaveOptions{})
				for err != nil && strings.Contains(err.Error(), "faster") {
					saved, err = s.Save(t.Context(), run, files, checkpoint.SaveOptions{})
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if other, taken := content[saved.Number]; taken {
					t.Errorf("generation %d is %q and %q", saved.Number, other, mine)
				}
				content[saved.Number] = mine
				mu.Unlock()
			}
		})
	}
	all.Wait()
	got := generations(t, first)
	if len(got) != writers*each || got[0] != writers*each || !slices.IsSortedFunc(got, func(a, b int64) int { return int(b - a) }) {
		t.Errorf("generations %v", got)
	}
	for n, want := range content {
		into := t.TempDir()
		if _, _, err := first.Restore(t.Context(), run, into, checkpoint.RestoreOptions{Generation: n}); err != nil {
			t.Fatal(err)
		}
		if data, _ := os.ReadFile(filepath.Join(into, "f")); string(data) != want {
			t.Errorf("generation %d has %q, want %q", n, data, want)
		}
	}
}
