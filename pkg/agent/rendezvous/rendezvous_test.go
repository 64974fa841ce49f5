// SPDX-License-Identifier: Apache-2.0

package rendezvous_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/pkg/agent/rendezvous"
)

func TestTheInitContainerGetsWhatTheAgentAnnounced(t *testing.T) {
	dir := t.TempDir()
	want := rendezvous.Outcome{PodUID: "u", Restored: true, Generation: 7, Files: 3, Bytes: 100, FromNode: "h100-spot-0", Damaged: []int64{8}}
	go func() {
		time.Sleep(100 * time.Millisecond)
		if err := rendezvous.Announce(dir, want); err != nil {
			t.Error(err)
		}
	}()
	got, err := rendezvous.Wait(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outcome (-want +got):\n%s", diff)
	}
}

func TestARestoreThatFailedStopsThePod(t *testing.T) {
	dir := t.TempDir()
	if err := rendezvous.Announce(dir, rendezvous.Outcome{Error: "no space left on device"}); err != nil {
		t.Fatal(err)
	}
	if _, err := rendezvous.Wait(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("error %v", err)
	}
}

func TestWithoutAnAgentTheErrorSaysWhatToLookAt(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Millisecond)
	defer cancel()
	_, err := rendezvous.Wait(ctx, t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "node-agent") || !strings.Contains(err.Error(), "checkpoint-path") {
		t.Errorf("error %v", err)
	}
}

func TestAHalfWrittenFileIsNoAnswer(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, rendezvous.Dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, rendezvous.Dir, "restore.json"), []byte(`{"restored":tr`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := rendezvous.Announced(dir); ok {
		t.Error("taken for an answer")
	}
}

func TestALinkInThePodsVolumeDoesNotLeadTheAgentOutOfIt(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, rendezvous.Dir)); err != nil {
		t.Fatal(err)
	}
	if err := rendezvous.Announce(dir, rendezvous.Outcome{}); err == nil {
		t.Error("no error")
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 0 {
		t.Errorf("wrote outside: %v", entries)
	}
}

func TestWhatAPodPutsInThePlaceOfTheAnswerIsNotReadAndDoesNotHoldUpTheAgent(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "answer")
	if err := os.WriteFile(outside, []byte(`{"podUID":"u","restored":true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func(path string) error{
		"a link to a file of the node": func(path string) error { return os.Symlink(outside, path) },
		"a link to something endless":  func(path string) error { return os.Symlink("/dev/zero", path) },
		"a pipe":                       func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a directory":                  func(path string) error { return os.Mkdir(path, 0o700) },
		"more than any answer has": func(path string) error {
			return os.WriteFile(path, []byte(`{"podUID":"`+strings.Repeat("u", 2<<20)+`"}`), 0o600)
		},
		"the directory of it being link": func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			own := filepath.Join(dir, rendezvous.Dir)
			if err := os.Mkdir(own, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, file := range []string{"restore.json", "restore.tmp"} {
				if err := os.MkdirAll(own, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := put(filepath.Join(own, file)); err != nil {
					t.Fatal(err)
				}
			}
			if strings.HasPrefix(name, "the directory") {
				if err := os.Symlink(filepath.Dir(outside), own); err != nil {
					t.Fatal(err)
				}
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				if got, ok := rendezvous.Announced(dir); ok {
					t.Errorf("it passes for an answer: %+.100v", got)
				}
				_ = rendezvous.Announce(dir, rendezvous.Outcome{PodUID: "u"}) // may fail, but not wait nor write elsewhere
			}()
			select {
			case <-done:
			case <-time.After(10 * time.Second):
				t.Fatal("the agent waits for the pod")
			}
			if entries, err := os.ReadDir(filepath.Dir(outside)); err != nil || len(entries) != 1 {
				t.Errorf("beside the node's file there is now %v, %v", entries, err)
			}
			if data, err := os.ReadFile(outside); err != nil || !strings.Contains(string(data), `"restored":true`) {
				t.Errorf("the node's file is now %q, %v", data, err)
			}
		})
	}
}
