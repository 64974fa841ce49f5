// SPDX-License-Identifier: Apache-2.0

package checkpoint_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

// freeAddress is one of this machine that nobody listens on.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// s3 starts a MinIO server and returns the URL of a bucket in it.
func s3(t *testing.T) string { return s3URL(startMinIO(t, t.TempDir())) }

func s3URL(address string) string {
	return "s3://checkpoints?region=us-east-1&use_path_style=true&endpoint=http://" + address
}

// startMinIO starts a MinIO server that keeps its objects in a directory and returns
// its address.
func startMinIO(t *testing.T, dir string) string {
	binary, err := exec.LookPath(os.Getenv("MINIO"))
	if err != nil {
		if binary, err = exec.LookPath("minio"); err != nil {
			t.Skip("no minio: put it on the PATH or set MINIO to its path")
		}
	}
	address := freeAddress(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "testkey")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "testsecret")
	cmd := exec.Command(binary, "server", dir, "--address", address, "--quiet")
	cmd.Env = append(os.Environ(), "MINIO_ROOT_USER=testkey", "MINIO_ROOT_PASSWORD=testsecret", "HOME="+t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get("http://" + address + "/minio/health/ready")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("minio does not become ready: ", err)
		}
	}
	return address
}

func TestCheckpointsInS3(t *testing.T) {
	url := s3(t)
	for range 2 { // it may be there already
		if err := checkpoint.EnsureBucket(t.Context(), url); err != nil {
			t.Fatal(err)
		}
	}
	const keep = 3
	open := func() *checkpoint.Store {
		s, err := checkpoint.Open(t.Context(), checkpoint.Options{URL: url, Keep: keep})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	s := open()
	if _, found, err := s.Latest(t.Context(), run); found || err != nil {
		t.Fatal(found, err)
	}

	t.Run("what is restored is what was saved", func(t *testing.T) {
		files, into := t.TempDir(), t.TempDir()
		write(t, files, "progress.jsonl", "{}\n")
		write(t, files, "deep/weights", strings.Repeat("weights ", 1<<20)) // 8 MiB
		saved := save(t, s, files)
		if saved.Uploaded <= 0 || saved.Uploaded > 1<<20 {
			t.Errorf("sent %d bytes of %d, want some, but far fewer", saved.Uploaded, saved.Bytes)
		}
		if again := save(t, open(), files); again.Uploaded != 0 {
			t.Errorf("sent %d bytes again", again.Uploaded)
		}
		if _, found, err := s.Restore(t.Context(), run, into, checkpoint.RestoreOptions{}); err != nil || !found {
			t.Fatal(found, err)
		}
		if diff := cmp.Diff(tree(t, files), tree(t, into)); diff != "" {
			t.Errorf("directory (-saved +restored):\n%s", diff)
		}
	})

	t.Run("writers at the same time make different generations", func(t *testing.T) {
		const writers, each = 4, 5
		var mu sync.Mutex
		var numbers []int64
		var all sync.WaitGroup
		for w := range writers {
			s, files := open(), t.TempDir()
			all.Go(func() {
				for i := range each {
					write(t, files, "f", fmt.Sprint(w, i))
					saved, err := s.Save(t.Context(), run, files, checkpoint.SaveOptions{})
					for err != nil && strings.Contains(err.Error(), "faster") {
						saved, err = s.Save(t.Context(), run, files, checkpoint.SaveOptions{})
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					numbers = append(numbers, saved.Number)
					mu.Unlock()
				}
			})
		}
		all.Wait()
		slices.Sort(numbers)
		if distinct := len(slices.Compact(slices.Clone(numbers))); distinct != writers*each {
			t.Errorf("%d distinct generations of %d: %v", distinct, writers*each, numbers)
		}
	})

	t.Run("prune keeps the newest", func(t *testing.T) {
		if _, err := s.Prune(t.Context(), run, false); err != nil {
			t.Fatal(err)
		}
		infos, err := s.List(t.Context(), run)
		if err != nil || len(infos) != keep {
			t.Fatalf("List = %v, %v", infos, err)
		}
		for _, i := range infos {
			if err := s.Verify(t.Context(), run, i.Number); err != nil {
				t.Error(err)
			}
		}
	})
}
