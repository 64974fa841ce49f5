// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

// swapping replaces the directory "swap" of dir by a link to outside and back, again
// and again until the test ends.
func swapping(t *testing.T, dir, outside string) {
	t.Helper()
	swap, aside := filepath.Join(dir, "swap"), filepath.Join(dir, "aside")
	if err := os.Mkdir(swap, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(swap, "secret"), []byte("the pod's own"), 0o600); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = os.Rename(swap, aside)
			_ = os.Symlink(outside, swap)
			time.Sleep(rand.N(100 * time.Microsecond)) // about as long as it takes to walk the tree
			_ = os.Remove(swap)
			_ = os.Rename(aside, swap)
			time.Sleep(rand.N(100 * time.Microsecond))
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
}

func TestAPodThatSwapsADirectoryForALinkGetsNoFileOfTheNode(t *testing.T) {
	base := t.TempDir()
	volume, outside := filepath.Join(base, "volume"), filepath.Join(base, "outside")
	for _, dir := range []string{volume, outside} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const foreign = "a file of the node"
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte(foreign), 0o600); err != nil {
		t.Fatal(err)
	}
	swapping(t, volume, outside)
	store, err := checkpoint.Open(t.Context(), checkpoint.Options{URL: "file://" + filepath.Join(base, "store")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	held := 0
	for range 2000 {
		to := filepath.Join(base, "held")
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(to, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := store.Hold("default/bench", volume, to); err != nil {
			continue // the tree changed under our hands, which is an error as it should be
		}
		err := filepath.WalkDir(to, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			held++
			if data, err := os.ReadFile(path); err != nil || string(data) == foreign {
				t.Fatalf("%s is %q, %v", path, data, err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if held == 0 {
		t.Error("no attempt ever held a file: this test has seen nothing")
	}
}

func TestAPodThatSwapsADirectoryForALinkOwnsNoFileOfTheNode(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	base := t.TempDir()
	volume, outside := filepath.Join(base, "volume"), filepath.Join(base, "outside")
	for _, dir := range []string{volume, outside} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	swapping(t, volume, outside)
	user := int64(65532)
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{SecurityContext: &corev1.SecurityContext{RunAsUser: &user}}}}}
	given := 0
	for range 2000 {
		if giveTo(volume, pod) == nil {
			given++
		}
	}
	info, err := os.Stat(secret)
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 {
		t.Errorf("the node's file now belongs to %d", owner)
	}
	if given == 0 {
		t.Error("nothing was ever given: this test has seen nothing")
	}
}

func TestAPipeAmongTheResultsDoesNotHoldUpTheOthers(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "a.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "b.json"), []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	kept := make(chan string, 2)
	watch, err := watchResults(dir, func(file string, _ []byte) error { kept <- file; return nil }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go watch.run(t.Context())
	select {
	case file := <-kept:
		if file != "b.json" {
			t.Errorf("kept %s", file)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the pipe holds up the results")
	}
}
