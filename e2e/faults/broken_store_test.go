// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults_test

import (
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/time/rate"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spotbench/spotbench/pkg/checkpoint"
	"github.com/spotbench/spotbench/pkg/localcluster"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
)

// smallStore is a real S3 server on a disk that can be filled.
type smallStore struct {
	url  *url.URL
	disk string
}

func startSmallStore(t *testing.T, megabytes string) smallStore {
	t.Helper()
	cache, err := localcluster.DefaultCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	tools, err := toolchain.Cached(cache)
	if err != nil {
		t.Fatal(err)
	}
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size="+megabytes+"m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	data := filepath.Join(disk, "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	server := exec.Command(tools.Path(toolchain.MinIO), "server", data, "--address", address, "--quiet")
	server.Env = append(os.Environ(), "MINIO_ROOT_USER="+stage.ObjectStore.AccessKey, "MINIO_ROOT_PASSWORD="+stage.ObjectStore.SecretKey, "HOME="+t.TempDir())
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	eventually(t, 30*time.Second, "the small store", func() bool {
		resp, err := http.Get("http://" + address + "/minio/health/ready")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	if err := checkpoint.EnsureBucket(t.Context(), storeURL(address)); err != nil {
		t.Fatal(err)
	}
	return smallStore{url: &url.URL{Scheme: "http", Host: address}, disk: disk}
}

func (s smallStore) filler() string { return filepath.Join(s.disk, "filler") }

// fill leaves no room on the disk.
func (s smallStore) fill(t *testing.T) {
	t.Helper()
	f, err := os.Create(s.filler())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, rand.Reader); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func (s smallStore) empty(t *testing.T) {
	t.Helper()
	if err := os.Remove(s.filler()); err != nil {
		t.Error(err)
	}
}

// TestTheStoreFailsOnANotice has one machine with a benchmark for each way in which a
// store fails. What one run meets must not cost another its work.
func TestTheStoreFailsOnANotice(t *testing.T) {
	t.Parallel()
	const window = 30 * time.Second
	node := pool.borrow(t, 1)[0]
	small := startSmallStore(t, "256")
	cases := []struct {
		what, kept string
		job        job
		before     fault // from the start
		notice     fault // from the notice on
		until      time.Duration
		most       float64 // seconds of work that may be lost
		unsaved    bool    // the checkpoint on the notice cannot be made
		run        *run
	}{
		{what: "the store is down on a notice of 30 s, and afterwards", kept: "the periodic checkpoint (every 4 s)", job: job{name: "store-down", interval: "4s"},
			notice: fault{down: true}, until: window + 5*time.Second, unsaved: true},
		{what: "the store does not answer on a notice of 30 s", kept: "the periodic checkpoint (every 4 s)", job: job{name: "store-hangs", interval: "4s"},
			notice: fault{hanging: true}, until: window, unsaved: true},
		{what: "the store is down for the first 12 s of a notice of 30 s", kept: "the checkpoint on the notice, tried again", job: job{name: "store-back"},
			notice: fault{down: true}, until: 12 * time.Second, most: 2},
		{what: "the store is full on a notice of 30 s", kept: "the periodic checkpoint (every 4 s)", job: job{name: "store-full", interval: "4s", blob: "4Mi", rewrite: true},
			before: fault{instead: small.url}, notice: fault{instead: small.url}, until: window + 5*time.Second, unsaved: true},
		{what: "1 Mbit/s to the store, 16 MiB of which nothing changed but the steps", kept: "the checkpoint on the notice: it sends what changed", job: job{name: "store-slow", interval: "4s", blob: "16Mi"},
			notice: fault{link: megabit()}, until: window, most: 2},
		{what: "1 Mbit/s to the store, 8 MiB that all changed", kept: "the periodic checkpoint (every 8 s)", job: job{name: "store-too-slow", interval: "8s", blob: "8Mi", rewrite: true},
			notice: fault{link: megabit()}, until: window, unsaved: true},
		{what: "the store answers a quarter of the requests with 500", kept: "the checkpoint on the notice", job: job{name: "store-500", blob: "8Mi", rewrite: true},
			before: fault{failing: 0.25}, notice: fault{failing: 0.25}, until: window + 20*time.Second, most: 2},
	}
	for i := range cases {
		c := &cases[i]
		c.job.steps = 420
		c.run = start(t, node, c.job)
		store.set(c.run.key, c.before)
	}
	for _, c := range cases {
		c.run.awaitSteps(1, 30)
		if c.job.interval != "" {
			c.run.awaitGeneration(c.before.instead)
		}
	}
	var resets sync.WaitGroup
	for _, c := range cases {
		open(t, c.job.name, refuge)
		store.set(c.run.key, c.notice)
	}
	small.fill(t)
	sent := notice(t, node, window)
	for _, c := range cases {
		resets.Go(func() {
			time.Sleep(time.Until(sent.Add(c.until)))
			if c.notice.instead != nil {
				small.empty(t)
			} else {
				store.set(c.run.key, fault{})
			}
		})
	}
	defer resets.Wait()
	for _, c := range cases {
		did := c.run.finished(2)
		lost := lostBetween(did[0], did[1])
		most, exact := c.most, tolerance
		if c.unsaved {
			// Until its last moment the worker does what cannot be saved any more.
			every, err := time.ParseDuration(c.job.interval)
			if err != nil {
				t.Fatal(err)
			}
			most = (window + 2*every).Seconds()
			// Whether the last one that was begun before is whole, the agent cannot ask.
			exact = every.Seconds() + tolerance
		}
		if lost > most || c.unsaved && lost < 1 {
			t.Errorf("%s: %.1f s of work were lost, want at most %.1f s, and only without the store some", c.what, lost, most)
		}
		c.run.recordedWithin(exact, lost)
		findings.add(t, c.what, lost, c.kept)
	}
}

func TestTheNoticeComesDuringAnUpload(t *testing.T) {
	t.Parallel()
	const blob = 96 << 20
	node := pool.borrow(t, 1)[0]
	r := start(t, node, job{name: "during-upload", blob: "96Mi", interval: "4s", steps: 400})
	begun := make(chan struct{})
	store.set(r.key, fault{link: rate.NewLimiter(8<<20, 256<<10), onUpload: sync.OnceFunc(func() { close(begun) })})
	select {
	case <-begun:
	case <-time.After(time.Minute):
		t.Fatal("no periodic checkpoint began within a minute")
	}
	eventually(t, time.Minute, "a third of the upload", func() bool { return store.uploaded(r.key) > blob/3 })
	open(t, r.job.name, refuge)
	notice(t, node, 30*time.Second)
	did := r.finished(2)
	lost := lostBetween(did[0], did[1])
	if lost > 2 {
		t.Errorf("%.1f s of work were lost", lost)
	}
	// What was under way when the upload was ended, 8 chunks of at most 4 MiB, is sent again.
	if sent := store.uploaded(r.key); sent > blob+8*4<<20 {
		t.Errorf("%d bytes of %d were sent: what was sent already was sent again", sent, blob)
	}
	r.recorded(lost)
	findings.add(t, "a notice of 30 s during the first upload of 96 MiB at 8 MiB/s", lost, "the checkpoint on the notice, which went on from what was sent")
}

func TestTheReplacementIsInterruptedDuringItsRestore(t *testing.T) {
	t.Parallel()
	nodes := pool.borrow(t, 2)
	r := start(t, nodes[0], job{name: "during-restore", blob: "24Mi"})
	r.awaitSteps(1, 30)
	notice(t, nodes[0], 30*time.Second)
	eventually(t, 30*time.Second, "the last checkpoint on the first node", func() bool {
		latest, found, err := checkpoints(t).Latest(t.Context(), r.key)
		return err == nil && found && latest.Meta["final"] == "done"
	})
	restoring := make(chan struct{})
	store.set(r.key, fault{link: rate.NewLimiter(1<<20, 64<<10), onDownload: sync.OnceFunc(func() { close(restoring) })})
	open(t, r.job.name, nodes[1])
	select {
	case <-restoring:
	case <-time.After(time.Minute):
		t.Fatal("the replacement did not begin to restore within a minute")
	}
	notice(t, nodes[1], 30*time.Second)
	eventually(t, 30*time.Second, "the replacement to be evicted", func() bool {
		pods, err := stage.Client.CoreV1().Pods(workloads).List(t.Context(), metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + r.job.name, FieldSelector: "spec.nodeName=" + nodes[1]})
		return err == nil && !slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodPending })
	})
	store.set(r.key, fault{})
	open(t, r.job.name, refuge)
	did := r.finished(2)
	lost := lostBetween(did[0], did[1])
	if lost > 2 {
		t.Errorf("%.1f s of work were lost", lost)
	}
	r.recorded(lost, 0)
	findings.add(t, "the replacement node gets a notice while it restores", lost, "the checkpoint that it was restoring, for the third node")
}
