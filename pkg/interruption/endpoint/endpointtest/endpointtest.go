// SPDX-License-Identifier: Apache-2.0

// Package endpointtest is what the tests of every provider's watcher share: a
// transport without a network, under which time can be a test's own, and the ways
// in which metadata services fail.
package endpointtest

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spotbench/spotbench/pkg/interruption"
)

// Transport has requests answered by a handler.
type Transport struct{ http.Handler }

// RoundTrip implements http.RoundTripper.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	answer, broken := httptest.NewRecorder(), make(chan bool, 1)
	go func() {
		defer func() { broken <- recover() != nil }()
		t.ServeHTTP(answer, r)
	}()
	select {
	case gone := <-broken:
		if gone {
			return nil, errors.New("unexpected EOF")
		}
		return answer.Result(), nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// Log is a log that can be read while it is written.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// endless is longer than what is read of any answer.
var endless = bytes.Repeat([]byte(" "), 300<<10)

// faults are the ways in which a service fails.
var faults = map[string]http.HandlerFunc{
	"503": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
	"401": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) },
	"401 for all but a token": func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte("token"))
	},
	"429": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) },
	"a page": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<html><body>Sign in</body></html>"))
	},
	"half an answer": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		if r.Method == http.MethodPut {
			_, _ = w.Write([]byte("token"))
			return
		}
		_, _ = w.Write([]byte(`{"DocumentIncarnation":1,"Events":[{"Ev`))
	},
	"an empty answer": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) },
	"an answer without end": func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(endless)
	},
	"a redirect": func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	},
	"no answer":           func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	"a broken connection": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
}

func different() http.HandlerFunc {
	var mu sync.Mutex
	n := 0
	return func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		n++
		fault := faults[[]string{"503", "a page", "no answer", "401", "a broken connection"}[n%5]]
		mu.Unlock()
		fault(w, r)
	}
}

// Subject is a watcher with the service that it watches.
type Subject struct {
	Source  interruption.Source
	Service http.Handler
	// Announce has the service announce a notice.
	Announce func()
}

// Endure has the service fail for three hours, in each way, and every other time. The
// watcher must go on asking, say so once, hear the first notice after it, and say once
// that it is well again.
func Endure(t *testing.T, start func(http.RoundTripper, *slog.Logger) Subject) {
	all := maps.Clone(faults)
	all["every other answer a 503"], all["a different fault each time"] = nil, different()
	for name, fault := range all {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { endure(t, fault, start) }) })
	}
}

// front is a service that can be made to fail.
type front struct {
	mu       sync.Mutex
	service  http.Handler
	failing  bool
	fault    http.HandlerFunc // nil: every other answer is a 503
	requests int
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests++
	handle := f.service.ServeHTTP
	if f.failing && f.fault != nil {
		handle = f.fault
	} else if f.failing && f.requests%2 == 0 {
		handle = faults["503"]
	}
	f.mu.Unlock()
	handle(w, r)
}

func (f *front) fail(failing bool) (requests int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failing, requests, f.requests = failing, f.requests, 0
	return requests
}

const hours = 3 * time.Hour

func endure(t *testing.T, fault http.HandlerFunc, start func(http.RoundTripper, *slog.Logger) Subject) {
	said, front := &Log{}, &front{fault: fault}
	subject := start(Transport{front}, slog.New(slog.NewTextHandler(said, nil)))
	front.service = subject.Service
	ctx, cancel := context.WithCancel(t.Context())
	events, stopped := make(chan interruption.Event, 10), make(chan struct{})
	go func() {
		defer close(stopped)
		subject.Source.Run(ctx, func(e interruption.Event) { events <- e })
	}()
	time.Sleep(10 * time.Second)
	front.fail(true)
	time.Sleep(hours)
	if len(events) > 0 {
		t.Errorf("heard %+v, though nothing was announced", <-events)
	}
	if subject.Source.Quiet() && fault != nil {
		t.Error("the watcher says that there is no notice, though it cannot know")
	}
	// The longest pause is 5 s, the longest time-out 7 s, but for the first call of Azure's.
	if n := front.fail(false); n < int(hours/(140*time.Second)) || n > int(hours/(100*time.Millisecond)) {
		t.Errorf("asked %d times in %s", n, hours)
	}
	if n := strings.Count(said.String(), "cannot be read"); n != 1 || strings.Count(said.String(), "\n") != 1 {
		t.Errorf("said %d times in %s:\n%.2000s", n, hours, said)
	}
	subject.Announce()
	time.Sleep(20 * time.Second)
	if len(events) != 1 {
		t.Fatalf("%d events after the service was well again and announced a notice, want 1", len(events))
	}
	time.Sleep(2 * time.Minute)
	if n := strings.Count(said.String(), "is read again"); n != 1 || strings.Count(said.String(), "\n") != 2 {
		t.Errorf("said %d times that it is well again:\n%.2000s", n, said)
	}
	cancel()
	<-stopped
}

// Serve answers requests over TCP until the test ends, and counts the connections that
// are made.
func Serve(t *testing.T, service http.Handler) (url string, connections func() int) {
	t.Helper()
	var mu sync.Mutex
	made := 0
	server := httptest.NewUnstartedServer(service)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			mu.Lock()
			made++
			mu.Unlock()
		}
	}
	server.Start()
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return server.URL, func() int { mu.Lock(); defer mu.Unlock(); return made }
}
