// SPDX-License-Identifier: Apache-2.0

package checkpoint_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

// faultyS3 is a MinIO server behind a proxy that a test can make misbehave. The fault
// may answer by itself, and then says so.
type faultyS3 struct {
	url   string
	fault atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

func (f *faultyS3) set(fault func(http.ResponseWriter, *http.Request) bool) { f.fault.Store(&fault) }

func (f *faultyS3) mend() { f.fault.Store(nil) }

func startFaultyS3(t *testing.T) *faultyS3 {
	target, err := url.Parse("http://" + startMinIO(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	f := &faultyS3{}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // is signed
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault := f.fault.Load(); fault != nil && (*fault)(w, r) {
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	f.url = s3URL(strings.TrimPrefix(server.URL, "http://"))
	if err := checkpoint.EnsureBucket(t.Context(), f.url); err != nil {
		t.Fatal(err)
	}
	return f
}

func refuse(w http.ResponseWriter, r *http.Request, status int, code string) bool {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, "<Error><Code>"+code+"</Code><Message>as the test wants</Message></Error>")
	return true
}

func isChunk(r *http.Request) bool { return strings.Contains(r.URL.Path, "/_chunks/") }

func TestAStoreThatFailsHarmsNoCheckpoint(t *testing.T) {
	f := startFaultyS3(t)
	s, err := checkpoint.Open(t.Context(), checkpoint.Options{URL: f.url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	good := t.TempDir()
	write(t, good, "f", "the first")
	save(t, s, good)
	files := t.TempDir()
	var puts atomic.Int64
	for name, tt := range map[string]struct {
		fault func(http.ResponseWriter, *http.Request) bool
		want  string
	}{
		"it answers 500 after some chunks": {func(w http.ResponseWriter, r *http.Request) bool {
			return r.Method == http.MethodPut && isChunk(r) && puts.Add(1) > 2 && refuse(w, r, http.StatusInternalServerError, "InternalError")
		}, "InternalError"},
		"it is full": {func(w http.ResponseWriter, r *http.Request) bool {
			return r.Method == http.MethodPut && isChunk(r) && refuse(w, r, http.StatusInsufficientStorage, "XMinioStorageFull")
		}, "XMinioStorageFull"},
		"it does not take the manifest": {func(w http.ResponseWriter, r *http.Request) bool {
			return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/_manifests/") && refuse(w, r, http.StatusForbidden, "AccessDenied")
		}, "write the manifest"},
		// Whether the client is still writing or already waits for the answer when the connection ends
		// is chance: "EOF", "connection reset", "use of closed network connection". All are this.
		"it cuts connections": {func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, "request send failed"},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, files, "weights", random(12<<20)) // nothing of it is there yet
			f.set(tt.fault)
			_, err := s.Save(t.Context(), run, files, checkpoint.SaveOptions{})
			f.mend()
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), run) {
				t.Errorf("error %v, want one that has %q", err, tt.want)
			}
			if r := restoresTo(t, s, good); r.Number != 1 || len(r.Damaged) > 0 {
				t.Errorf("restored %+v", r)
			}
		})
	}
	if saved := save(t, s, files); saved.Number != 2 {
		t.Errorf("%+v, want generation 2", saved)
	}
	restoresTo(t, s, files)
}

func TestAStoreThatIsOverloadedForAMomentIsAskedAgain(t *testing.T) {
	f := startFaultyS3(t)
	s, err := checkpoint.Open(t.Context(), checkpoint.Options{URL: f.url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	files := t.TempDir()
	write(t, files, "f", "x")
	var asked atomic.Int64
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		return asked.Add(1)%3 == 1 && refuse(w, r, http.StatusServiceUnavailable, "SlowDown")
	})
	save(t, s, files)
	f.mend()
	restoresTo(t, s, files)
}

// The manifest arrives, and the answer that it has does not: it is sent again, and is
// already there.
func TestAnAnswerThatGetsLostMakesNoSecondGeneration(t *testing.T) {
	f := startFaultyS3(t)
	s, err := checkpoint.Open(t.Context(), checkpoint.Options{URL: f.url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	files := t.TempDir()
	write(t, files, "f", "x")
	target, err := url.Parse(f.url)
	if err != nil {
		t.Fatal(err)
	}
	var lost atomic.Int64
	f.set(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/_manifests/") || lost.Add(1) > 1 {
			return false
		}
		// The proxy itself, as a client that does not wait for the end of the answer.
		again := httptest.NewRecorder()
		proxy := httputil.NewSingleHostReverseProxy(mustParse(t, target.Query().Get("endpoint")))
		lost.Store(2)
		proxy.ServeHTTP(again, r)
		if again.Code != http.StatusOK {
			t.Errorf("the manifest was not taken: %d %s", again.Code, again.Body)
		}
		panic(http.ErrAbortHandler)
	})
	saved := save(t, s, files)
	f.mend()
	if got := generations(t, s); len(got) != 1 || got[0] != saved.Number {
		t.Errorf("generations %v, saved %d", got, saved.Number)
	}
	if lost.Load() < 2 {
		t.Error("no answer was lost: this test has seen nothing")
	}
}

func mustParse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestASlowStoreIsGivenUpAtTheDeadlineAndResumed(t *testing.T) {
	f := startFaultyS3(t)
	s, err := checkpoint.Open(t.Context(), checkpoint.Options{URL: f.url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	files := t.TempDir()
	const size = 24 << 20
	write(t, files, "weights", random(size))
	var puts atomic.Int64
	over := make(chan struct{})
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && isChunk(r) && puts.Add(1) > 4 {
			<-over
			return refuse(w, r, http.StatusServiceUnavailable, "SlowDown")
		}
		return false
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	start := time.Now()
	if _, err := s.Save(ctx, run, files, checkpoint.SaveOptions{Urgent: true}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it was given up after %s", took)
	}
	close(over)
	f.mend()
	if saved := save(t, s, files); saved.Uploaded > size-3<<20 {
		t.Errorf("sent %d bytes of %d: what had arrived was sent again", saved.Uploaded, size)
	}
	restoresTo(t, s, files)
}

func TestAMinIOServerWhoseDiskIsFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	disk := dir + "/disk"
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	location := s3URL(startMinIO(t, disk))
	if err := checkpoint.EnsureBucket(t.Context(), location); err != nil {
		t.Fatal(err)
	}
	s, err := checkpoint.Open(t.Context(), checkpoint.Options{URL: location})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	good, files := t.TempDir(), t.TempDir()
	write(t, good, "f", "fits")
	save(t, s, good)
	write(t, files, "weights", random(100<<20))
	if _, err := s.Save(t.Context(), run, files, checkpoint.SaveOptions{}); err == nil || !strings.Contains(err.Error(), "write a chunk") {
		t.Errorf("100 MiB in 64 MiB: %v", err)
	}
	if r := restoresTo(t, s, good); r.Number != 1 {
		t.Errorf("restored %d", r.Number)
	}
}
