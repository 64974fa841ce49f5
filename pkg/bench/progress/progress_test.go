// SPDX-License-Identifier: Apache-2.0

package progress_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/pkg/bench/progress"
)

var config = progress.Config{
	Model: "m", Benchmark: "b", Endpoint: "completions", Concurrency: []int{1, 4}, Requests: 10, Warmup: 1,
	InputTokens: 8, OutputTokens: 3, IgnoreEOS: true, Seed: 7,
}

// write makes a checkpoint with two windows of three requests each and returns its bytes.
func write(t testing.TB, dir string) []byte {
	t.Helper()
	log, err := progress.Open(dir, config)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for w, concurrency := range []int{1, 4} {
		if err := log.Begin(progress.Window{Concurrency: concurrency, Start: start.Add(time.Duration(w) * time.Minute), Node: "n"}); err != nil {
			t.Fatal(err)
		}
		for id := range 3 {
			if err := log.Finish(progress.Request{ID: id, EndedNS: int64(id+1) * 1e9, TTFTNS: 1e8, LatencyNS: 3e8, ITLNS: []int64{1e8, 1e8}, Input: 8, Output: 3}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := log.Fail(progress.Failure{ID: 3, Error: "reset"}); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, progress.FileName))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	state, whole, err := progress.Read(write(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	if whole == 0 || state.Completed() != 6 || !state.Done(4, 2) || state.Done(4, 3) || state.Failures[4] != 1 {
		t.Errorf("completed %d, failures %v, whole %d", state.Completed(), state.Failures, whole)
	}
	if diff := cmp.Diff(config, state.Config); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	point := state.Point(1)
	if len(point) != 1 || point[0].Active() != 3*time.Second || point[0].Node != "n" {
		t.Errorf("point 1 is %+v, want one segment of 3 s on n", point)
	}
}

func TestOpeningATornFileCutsItToItsLastWholeLineAndGoesOn(t *testing.T) {
	content := write(t, t.TempDir())
	for cut := range content {
		whole := bytes.LastIndexByte(content[:cut], '\n') + 1
		state, n, err := progress.Read(content[:cut])
		if err != nil || n != whole {
			t.Fatalf("cut at %d: read %d bytes, %v; want %d", cut, n, err, whole)
		}
		if want := bytes.Count(content[:whole], []byte(`{"request"`)); state.Completed() != want {
			t.Fatalf("cut at %d: %d requests, want %d", cut, state.Completed(), want)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, progress.FileName), content[:len(content)-5], 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := progress.Open(dir, config)
	if err != nil {
		t.Fatal(err)
	}
	if log.Dropped == 0 {
		t.Error("nothing was dropped")
	}
	if err := log.Finish(progress.Request{ID: 9, EndedNS: 1, Output: 1}); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := os.ReadFile(filepath.Join(dir, progress.FileName))
	if err != nil {
		t.Fatal(err)
	}
	state, n, err := progress.Read(again)
	if err != nil || n != len(again) || !state.Done(4, 9) || state.Completed() != 7 {
		t.Errorf("after going on: %d of %d bytes whole, %d requests, %v", n, len(again), state.Completed(), err)
	}
}

func TestAChangedByteIsNoticedWhereverItIs(t *testing.T) {
	content := write(t, t.TempDir())
	for i := range content {
		damaged := bytes.Clone(content)
		damaged[i] ^= 0x20
		_, whole, err := progress.Read(damaged)
		if err != nil {
			t.Fatalf("byte %d: %v", i, err)
		}
		if whole > i {
			t.Fatalf("byte %d is damaged, and %d bytes were trusted", i, whole)
		}
	}
}

func TestACheckpointOfAnotherConfigurationIsRefusedWithItsDifference(t *testing.T) {
	for flag, change := range map[string]func(*progress.Config){
		"--model was m and is other":             func(c *progress.Config) { c.Model = "other" },
		"--concurrency was [1 4] and is [1]":     func(c *progress.Config) { c.Concurrency = []int{1} },
		"--requests was 10 and is 11":            func(c *progress.Config) { c.Requests = 11 },
		"--seed was 7 and is 8":                  func(c *progress.Config) { c.Seed = 8 },
		"--output-tokens was 3 and is 4":         func(c *progress.Config) { c.OutputTokens = 4 },
		"--ignore-eos was true and is false":     func(c *progress.Config) { c.IgnoreEOS = false },
		"--endpoint was completions and is chat": func(c *progress.Config) { c.Endpoint = "chat" },
	} {
		dir := t.TempDir()
		before := write(t, dir)
		other := config
		change(&other)
		if _, err := progress.Open(dir, other); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("got %v, want an error with %q", err, flag)
		}
		if after, _ := os.ReadFile(filepath.Join(dir, progress.FileName)); !bytes.Equal(before, after) {
			t.Errorf("%s: the refused checkpoint was changed", flag)
		}
	}
}

func TestTwoProcessesCannotShareACheckpoint(t *testing.T) {
	dir := t.TempDir()
	log, err := progress.Open(dir, config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := progress.Open(dir, config); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second open: %v", err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

// Whatever is at the end of the file, what is read is a prefix that reads back the same.
func FuzzReadRecoversACleanPrefix(f *testing.F) {
	content := write(f, f.TempDir())
	f.Add(content, uint(0))
	f.Add(content, uint(len(content)/2))
	f.Add(append(bytes.Clone(content), content...), uint(len(content)+20))
	f.Add([]byte("00000000 {}\n"), uint(12))
	f.Fuzz(func(t *testing.T, file []byte, cut uint) {
		if cut < uint(len(file)) {
			file = file[:cut]
		}
		state, whole, err := progress.Read(file)
		if whole < 0 || whole > len(file) {
			t.Fatalf("%d of %d bytes", whole, len(file))
		}
		if err != nil {
			return
		}
		again, n, err := progress.Read(file[:whole])
		if err != nil || n != whole || again.Completed() != state.Completed() {
			t.Fatalf("the prefix reads as %d bytes, %d requests, %v; want %d bytes, %d requests", n, again.Completed(), err, whole, state.Completed())
		}
	})
}
