// SPDX-License-Identifier: Apache-2.0

// Package gcpmetadatafake is a Compute Engine metadata server for tests: an
// http.Handler that keeps to the protocol of wait_for_change, last_etag,
// timeout_sec and Metadata-Flavor.
package gcpmetadatafake

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Paths of the values that a new server has.
const (
	ID          = "instance/id"
	Preempted   = "instance/preempted"
	Maintenance = "instance/maintenance-event"
)

// Server is the metadata server of one instance.
type Server struct {
	mu       sync.Mutex
	values   map[string]value
	version  uint64
	changed  chan struct{} // closed and replaced at each change
	fault    http.HandlerFunc
	requests int
	held     int
}

type value struct {
	text string
	etag string
}

// New makes the server of an instance that nothing is in store for.
func New(instanceID string) *Server {
	s := &Server{values: map[string]value{}, changed: make(chan struct{})}
	s.Set(ID, instanceID)
	s.Set(Preempted, "FALSE")
	s.Set(Maintenance, "NONE")
	return s
}

// Set gives the value at a path below /computeMetadata/v1/ and answers the requests
// that wait for it. Setting what is there already changes nothing.
func (s *Server) Set(path, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, found := s.values[path]; found && old.text == text {
		return
	}
	s.version++
	s.values[path] = value{text: text, etag: fmt.Sprintf("%016x", s.version)}
	s.wake()
}

// Break has every request answered by fault, also those that wait now; nil mends the
// server.
func (s *Server) Break(fault http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
	s.wake()
}

func (s *Server) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Requests is how many requests came, and how many of them wait now.
func (s *Server) Requests() (all, waiting int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests, s.held
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests++
	s.mu.Unlock()
	path, ok := strings.CutPrefix(r.URL.Path, "/computeMetadata/v1/")
	query := r.URL.Query()
	seconds, err := strconv.Atoi(query.Get("timeout_sec"))
	var timeout <-chan time.Time
	if err == nil && seconds > 0 {
		timer := time.NewTimer(time.Duration(seconds) * time.Second)
		defer timer.Stop()
		timeout = timer.C
	}
	// Without an etag it is the next change that is waited for.
	last := query.Get("last_etag")
	for {
		s.mu.Lock()
		v, found := s.values[path]
		changed, fault := s.changed, s.fault
		s.mu.Unlock()
		if fault != nil {
			fault(w, r)
			return
		}
		w.Header().Set("Metadata-Flavor", "Google")
		w.Header().Set("Server", "Metadata Server for VM")
		switch {
		case r.Header.Get("Metadata-Flavor") != "Google":
			http.Error(w, "Missing Metadata-Flavor:Google header.", http.StatusForbidden)
			return
		case r.Header.Get("X-Forwarded-For") != "":
			http.Error(w, "A request must not be forwarded.", http.StatusForbidden)
			return
		case !ok || !found:
			http.NotFound(w, r)
			return
		}
		if last == "" {
			last = v.etag
		}
		if query.Get("wait_for_change") != "true" || v.etag != last {
			answer(w, v)
			return
		}
		s.wait(1)
		select {
		case <-changed:
			s.wait(-1)
		case <-timeout:
			s.wait(-1)
			answer(w, v)
			return
		case <-r.Context().Done():
			s.wait(-1)
			return
		}
	}
}

func (s *Server) wait(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held += n
}

func answer(w http.ResponseWriter, v value) {
	w.Header().Set("Content-Type", "application/text")
	w.Header().Set("ETag", v.etag)
	_, _ = fmt.Fprint(w, v.text)
}
