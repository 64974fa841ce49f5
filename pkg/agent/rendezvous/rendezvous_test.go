// SPDX-License-Identifier: Apache-2.0

package rendezvous_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
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
