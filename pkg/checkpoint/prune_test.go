// SPDX-License-Identifier: Apache-2.0

package checkpoint_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

// age makes the objects of a store that match a pattern older.
func age(t testing.TB, store, pattern string, by time.Duration) {
	t.Helper()
	for _, path := range objects(t, store, pattern) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		then := info.ModTime().Add(-by)
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
	}
}

func prune(t testing.TB, s *checkpoint.Store) checkpoint.Pruned {
	t.Helper()
	pruned, err := s.Prune(t.Context(), run, false)
	if err != nil {
		t.Fatal(err)
	}
	return pruned
}

func generations(t testing.TB, s *checkpoint.Store) []int64 {
	t.Helper()
	infos, err := s.List(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	var numbers []int64
	for _, info := range infos {
		numbers = append(numbers, info.Number)
		if err := s.Verify(t.Context(), run, info.Number); err != nil {
			t.Error(err)
		}
	}
	return numbers
}

func TestPruneKeepsTheNewestAndAllTheirChunks(t *testing.T) {
	s, store := open(t, 2)
	files := t.TempDir()
	write(t, files, "constant", "always there")
	for i := range 5 {
		write(t, files, "f", fmt.Sprint("content ", i))
		save(t, s, files)
	}
	age(t, store, "_chunks/*/*", 4*time.Hour)

	would, err := s.Prune(t.Context(), run, true)
	if err != nil || !slices.Equal(would.Generations, []int64{3, 2, 1}) || len(generations(t, s)) != 5 {
		t.Fatalf("a dry run: %+v, %v", would, err)
	}
	if got := prune(t, s); !slices.Equal(got.Generations, would.Generations) || got.Chunks != 0 {
		t.Errorf("%+v: the chunks of generations just removed must stay a while", got)
	}
	if got := generations(t, s); !slices.Equal(got, []int64{5, 4}) {
		t.Errorf("generations %v, want 5 and 4", got)
	}
	age(t, store, "_removed/*", 11*time.Minute)
	if got := prune(t, s); got.Chunks != 3 { // content 0, 1 and 2
		t.Errorf("%+v, want 3 chunks", got)
	}
	if got := len(objects(t, store, "_chunks/*/*")); got != 3 { // constant, content 3, content 4
		t.Errorf("%d chunks, want 3", got)
	}
	generations(t, s)
	if left, _ := filepath.Glob(filepath.Join(store, run, "_removed/*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestPruneRemovesWhatIsTooOldButNeverTheNewest(t *testing.T) {
	dir := t.TempDir()
	s, err := checkpoint.Open(t.Context(), checkpoint.Options{URL: "file://" + dir, Keep: 5, MaxAge: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	files := t.TempDir()
	for i := range 4 {
		write(t, files, "f", strconv.Itoa(i))
		save(t, s, files)
	}
	age(t, dir, "_manifests/*[12]", 25*time.Hour)
	if got := prune(t, s).Generations; !slices.Equal(got, []int64{2, 1}) {
		t.Errorf("removed %v, want 2 and 1", got)
	}
	age(t, dir, "_manifests/*", 25*time.Hour)
	if got := prune(t, s).Generations; !slices.Equal(got, []int64{3}) {
		t.Errorf("removed %v, want 3: the newest stays however old it is", got)
	}
}

func TestPruneDoesNotCountADamagedGenerationAmongThoseToKeep(t *testing.T) {
	s, store := open(t, 2)
	files := t.TempDir()
	for i := range 4 {
		write(t, files, "f", strconv.Itoa(i))
		save(t, s, files)
	}
	if err := os.Truncate(objects(t, store, "_manifests/*4")[0], 20); err != nil {
		t.Fatal(err)
	}
	if got := prune(t, s).Generations; !slices.Equal(got, []int64{1}) {
		t.Errorf("removed %v, want 1: 3 and 2 are the two good ones, 4 is evidence", got)
	}
}

func TestPruneSparesChunksThatMayBelongToACheckpointBeingMade(t *testing.T) {
	s, store := open(t, 1)
	files := t.TempDir()
	write(t, files, "f", "0")
	save(t, s, files)
	orphan := strings.Repeat("ab", 32)
	write(t, filepath.Join(store, run, "_chunks/ab"), orphan, "sent, and no manifest yet")
	if got := prune(t, s); got.Chunks != 0 {
		t.Errorf("%+v: it is younger than 3 hours", got)
	}
	age(t, store, "_chunks/ab/"+orphan, 4*time.Hour)
	if got := prune(t, s); got.Chunks != 1 || got.Bytes != 25 {
		t.Errorf("%+v, want one chunk of 25 bytes", got)
	}
}

// A Save that builds on generation 1 is in the middle of reading its directory, for
// hours if need be, while generation 1 is pruned.
func TestAGenerationThatASaveBuildsOnMayBeRemovedMeanwhile(t *testing.T) {
	s, store := open(t, 1)
	slow, err := checkpoint.Open(t.Context(), checkpoint.Options{URL: "file://" + store, UploadLimit: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slow.Close() })
	files, others := t.TempDir(), t.TempDir()
	write(t, files, "common", "only generation 1 has this")
	save(t, s, files)
	age(t, store, "_chunks/*/*", 4*time.Hour) // when a chunk was made does not save it
	write(t, files, "new", random(12<<20))    // 4 MiB at once, the others take a second
	done := make(chan error)
	go func() {
		_, err := slow.Save(context.Background(), run, files, checkpoint.SaveOptions{})
		done <- err
	}()
	for len(objects(t, store, "_chunks/*/*")) < 2 { // it has looked what there is
		time.Sleep(time.Millisecond)
	}
	write(t, others, "f", "another writer's")
	save(t, s, others)
	prune(t, s)
	age(t, store, "_removed/*", 11*time.Minute)
	prune(t, s)
	select {
	case err := <-done:
		t.Fatalf("the save was over before: %v", err)
	default:
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	into := t.TempDir()
	if r, _, err := s.Restore(t.Context(), run, into, checkpoint.RestoreOptions{}); err != nil || r.Number != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	if diff := cmp.Diff(tree(t, files), tree(t, into)); diff != "" {
		t.Errorf("directory (-saved +restored):\n%s", diff)
	}
}

func TestPruneRemovesWhatAKilledWriterLeft(t *testing.T) {
	s, store := open(t, 1)
	files := t.TempDir()
	write(t, files, "f", "x")
	save(t, s, files)
	write(t, store, "_tmp/123", "half of a chunk")
	write(t, store, "_tmp/456", "being written")
	old := time.Now().Add(-4 * time.Hour)
	if err := os.Chtimes(filepath.Join(store, "_tmp/123"), old, old); err != nil {
		t.Fatal(err)
	}
	prune(t, s)
	if left, _ := os.ReadDir(filepath.Join(store, "_tmp")); len(left) != 1 || left[0].Name() != "456" {
		t.Errorf("left: %v", left)
	}
}
