// SPDX-License-Identifier: Apache-2.0

package checkpoint_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

// world is a run's files, the store, and what the store should have: the trees of all
// generations that Save said are whole.
type world struct {
	t            *testing.T
	files, store string
	s            *checkpoint.Store
	saved        map[int64]map[string]string
	keep         int
}

func (w *world) path(rt *rapid.T) string {
	return filepath.Join(w.files, rapid.SampledFrom([]string{"a", "b", "d/a", "d/e/f", "é", "with space"}).Draw(rt, "path"))
}

// newest is the number of the newest generation that should be whole.
func (w *world) newest() int64 {
	numbers := slices.Sorted(maps.Keys(w.saved))
	if len(numbers) == 0 {
		return 0
	}
	return numbers[len(numbers)-1]
}

// write makes, replaces or lengthens a file, or changes it where it is.
func (w *world) write(rt *rapid.T) {
	path := w.path(rt)
	size := rapid.SampledFrom([]int{0, 1, 100, 70_000, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3 << 20, 5 << 20}).Draw(rt, "size")
	content := random(size)
	if rapid.Bool().Draw(rt, "compressible") {
		content = strings.Repeat("0123456789abcdef"[:rapid.IntRange(1, 16).Draw(rt, "period")], size)[:size]
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		rt.Fatal(err)
	}
	how := rapid.SampledFrom([]string{"replace", "rename", "append", "in place"}).Draw(rt, "how")
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		_ = os.RemoveAll(path)
	}
	switch flags := os.O_CREATE | os.O_WRONLY; how {
	case "rename":
		write(w.t, w.files, "tmp", content)
		rename(w.t, filepath.Join(w.files, "tmp"), path)
		return
	case "replace":
		flags |= os.O_TRUNC
		fallthrough
	default:
		f, err := os.OpenFile(path, flags, 0o640)
		if err != nil {
			rt.Fatal(err)
		}
		defer f.Close()
		var at int64
		info, err := f.Stat()
		if err != nil {
			rt.Fatal(err)
		}
		if how == "append" {
			at = info.Size()
		} else if how == "in place" && info.Size() > 0 {
			at = rand.Int64N(info.Size())
		}
		if _, err := f.WriteAt([]byte(content[:min(len(content), 1<<20)]), at); err != nil {
			rt.Fatal(err)
		}
	}
}

func (w *world) remove(rt *rapid.T) { _ = os.RemoveAll(w.path(rt)) }

func (w *world) link(rt *rapid.T) {
	path := w.path(rt)
	_ = os.RemoveAll(path)
	_ = os.MkdirAll(filepath.Dir(path), 0o755)
	if err := os.Symlink(rapid.SampledFrom([]string{"a", "/nowhere", "../../x"}).Draw(rt, "target"), path); err != nil {
		rt.Fatal(err)
	}
}

func (w *world) save(rt *rapid.T) {
	want := tree(w.t, w.files)
	if !hasFiles(want) {
		return
	}
	saved, err := w.s.Save(context.Background(), run, w.files, checkpoint.SaveOptions{Urgent: rapid.Bool().Draw(rt, "urgent")})
	if err != nil {
		rt.Fatal(err)
	}
	if saved.Number <= w.newest() {
		rt.Fatalf("generation %d after %d", saved.Number, w.newest())
	}
	w.saved[saved.Number] = want
}

func hasFiles(tree map[string]string) bool {
	for _, what := range tree {
		if !strings.HasPrefix(what, "dir ") && !strings.HasPrefix(what, "-> ") {
			return true
		}
	}
	return false
}

// crash cuts a Save short at some moment. It may have been done by then.
func (w *world) crash(rt *rapid.T) {
	want := tree(w.t, w.files)
	if !hasFiles(want) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rapid.IntRange(0, 50).Draw(rt, "after ms"))*time.Millisecond)
	defer cancel()
	if saved, err := w.s.Save(ctx, run, w.files, checkpoint.SaveOptions{}); err == nil {
		w.saved[saved.Number] = want
		return
	}
	// Its manifest may be there although it was told that it is not.
	if latest, found, err := w.s.Latest(context.Background(), run); err != nil {
		rt.Fatal(err)
	} else if found && latest.Number > w.newest() {
		w.saved[latest.Number] = want
	}
}

func (w *world) restart(*rapid.T) { w.s = openAt(w.t, w.store, w.keep) }

// prune may find everything to have become old.
func (w *world) prune(rt *rapid.T) {
	if rapid.Bool().Draw(rt, "old") {
		for _, pattern := range []string{"_chunks/*/*", "_removed/*"} {
			if found, _ := filepath.Glob(filepath.Join(w.store, run, pattern)); len(found) > 0 {
				age(w.t, w.store, pattern, 4*time.Hour)
			}
		}
	}
	pruned, err := w.s.Prune(context.Background(), run, false)
	if err != nil {
		rt.Fatal(err)
	}
	for _, n := range pruned.Generations {
		delete(w.saved, n)
	}
	if len(w.saved) > w.keep {
		rt.Fatalf("%d generations are left of %d to keep", len(w.saved), w.keep)
	}
}

// damage spoils the manifest of the newest generation.
func (w *world) damage(rt *rapid.T) {
	if len(w.saved) < 2 {
		return
	}
	path := objects(w.t, w.store, fmt.Sprintf("_manifests/*%020d", w.newest()))[0]
	if err := os.Truncate(path, int64(rapid.IntRange(0, 60).Draw(rt, "bytes left"))); err != nil {
		rt.Fatal(err)
	}
	delete(w.saved, w.newest())
}

// restore restores the newest generation in place of the run's files.
func (w *world) restore(rt *rapid.T) {
	if w.newest() == 0 {
		return
	}
	if err := os.RemoveAll(w.files); err != nil {
		rt.Fatal(err)
	}
	if err := os.Mkdir(w.files, 0o755); err != nil {
		rt.Fatal(err)
	}
	w.restoreInto(rt, w.files)
}

func (w *world) restoreInto(rt *rapid.T, dir string) {
	restored, found, err := w.s.Restore(context.Background(), run, dir, checkpoint.RestoreOptions{})
	if err != nil || !found {
		rt.Fatal(found, err)
	}
	if restored.Number != w.newest() {
		rt.Fatalf("restored generation %d, the newest that is whole is %d", restored.Number, w.newest())
	}
	got := tree(w.t, dir)
	want := w.saved[restored.Number]
	for name := range want {
		if got[name] != want[name] {
			rt.Fatalf("generation %d: %s is not what it was", restored.Number, name)
		}
	}
	if len(got) != len(want) {
		rt.Fatalf("generation %d: %d entries, want %d", restored.Number, len(got), len(want))
	}
}

func TestWhateverHappensTheNewestWholeStateIsRestored(t *testing.T) {
	// Each case moves tens of megabytes: unless asked for a number, fewer than usual.
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		if err := checks.Value.Set("20"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = checks.Value.Set(checks.DefValue) })
	}
	rapid.Check(t, func(rt *rapid.T) {
		base, err := os.MkdirTemp(t.TempDir(), "case-*")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(base)
		w := &world{t: t, files: filepath.Join(base, "files"), store: filepath.Join(base, "store"), saved: map[int64]map[string]string{}, keep: 2}
		if err := os.Mkdir(w.files, 0o755); err != nil {
			rt.Fatal(err)
		}
		w.restart(nil)
		rt.Repeat(map[string]func(*rapid.T){
			"write": w.write, "write more": w.write, "remove": w.remove, "link": w.link,
			"save": w.save, "save again": w.save, "crash": w.crash, "restart": w.restart,
			"prune": w.prune, "damage": w.damage, "restore": w.restore,
			"": func(rt *rapid.T) {
				if w.newest() == 0 || rapid.IntRange(0, 3).Draw(rt, "look now") > 0 {
					return
				}
				into, err := os.MkdirTemp(base, "into-*")
				if err != nil {
					rt.Fatal(err)
				}
				w.restoreInto(rt, into)
				_ = os.RemoveAll(into)
			},
		})
	})
}
