// SPDX-License-Identifier: Apache-2.0

package checkpoint_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

func TestAnEmptyDirectoryDoesNotReplaceACheckpoint(t *testing.T) {
	s, _ := open(t, 3)
	files := t.TempDir()
	if _, err := s.Save(t.Context(), run, files, checkpoint.SaveOptions{}); !errors.Is(err, checkpoint.ErrNothing) {
		t.Errorf("error %v, want ErrNothing", err)
	}
	write(t, files, "f", "x")
	save(t, s, files)
	if err := os.RemoveAll(files); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Save(t.Context(), run, files, checkpoint.SaveOptions{}); err == nil {
		t.Error("a directory that is gone was saved")
	}
	if latest, _, _ := s.Latest(t.Context(), run); latest.Number != 1 {
		t.Errorf("latest %d, want 1", latest.Number)
	}
}

func TestADirectoryThatIsBeingRemovedMakesNoCheckpoint(t *testing.T) {
	large := random(40 << 20)
	for range 3 {
		s, store := open(t, 3)
		files := filepath.Join(t.TempDir(), "volume")
		write(t, files, "large", large)
		for i := range 20 {
			write(t, files, fmt.Sprintf("small-%02d", i), "")
		}
		removed := make(chan struct{})
		go func() {
			defer close(removed)
			for { // until Save has listed the directory and sent something
				if sent, _ := filepath.Glob(filepath.Join(store, filepath.FromSlash(run), "_chunks/*/*")); len(sent) > 0 {
					_ = os.RemoveAll(files)
					return
				}
				time.Sleep(100 * time.Microsecond)
			}
		}()
		saved, err := s.Save(t.Context(), run, files, checkpoint.SaveOptions{})
		<-removed
		if err == nil && saved.Files != 21 {
			t.Errorf("saved %d of 21 files", saved.Files)
		}
	}
}

func TestAFileThatGrowsIsSavedAsItWasAtOneMoment(t *testing.T) {
	s, _ := open(t, 3)
	files := t.TempDir()
	f, err := os.Create(filepath.Join(files, "log"))
	if err != nil {
		t.Fatal(err)
	}
	var line int
	appendLines := func(n int) {
		var lines bytes.Buffer
		for range n {
			fmt.Fprintf(&lines, "%07d\n", line)
			line++
		}
		if _, err := f.Write(lines.Bytes()); err != nil {
			t.Error(err)
		}
	}
	appendLines(1_000_000) // two chunks
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				appendLines(1)
				time.Sleep(10 * time.Microsecond)
			}
		}
	}()
	for range 10 {
		save(t, s, files)
		into := t.TempDir()
		if _, _, err := s.Restore(t.Context(), run, into, checkpoint.RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(into, "log"))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+8 <= len(got); i += 8 {
			if string(got[i:i+8]) != fmt.Sprintf("%07d\n", i/8) {
				t.Fatalf("line %d is %q", i/8, got[i:i+8])
			}
		}
		if len(got) < 8_000_000 {
			t.Fatalf("%d bytes", len(got))
		}
	}
	close(stop)
	<-stopped
}

func TestAFileReplacedByRenamingIsNeverMissing(t *testing.T) {
	s, _ := open(t, 3)
	files := t.TempDir()
	write(t, files, "state", strings.Repeat("0", 1000))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Microsecond):
			}
			tmp := filepath.Join(files, fmt.Sprintf("a%d.tmp", i%7))
			_ = os.WriteFile(tmp, bytes.Repeat([]byte{'0' + byte(i%10)}, 1000), 0o600)
			_ = os.Rename(tmp, filepath.Join(files, "state"))
		}
	}()
	for range 50 {
		_, err := s.Save(t.Context(), run, files, checkpoint.SaveOptions{})
		if errors.Is(err, checkpoint.ErrRemoved) || errors.Is(err, checkpoint.ErrChanging) {
			continue // it may give up, but not save half of it
		}
		if err != nil {
			t.Fatal(err)
		}
		into := t.TempDir()
		if _, _, err := s.Restore(t.Context(), run, into, checkpoint.RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(into, "state"))
		if err != nil || len(got) != 1000 || !bytes.Equal(got, bytes.Repeat(got[:1], 1000)) {
			t.Fatalf("state has %d bytes, error %v", len(got), err)
		}
	}
	close(stop)
	<-stopped
}
