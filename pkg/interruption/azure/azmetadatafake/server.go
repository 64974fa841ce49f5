// SPDX-License-Identifier: Apache-2.0

// Package azmetadatafake is Azure's instance metadata service for tests: an
// http.Handler for one machine of a scale set whose machines all see the same
// Scheduled Events, with incarnations, approvals and a slow first call.
package azmetadatafake

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Event is an entry of the document of Scheduled Events, under the names that it has there.
type Event struct {
	EventID      string `json:"EventId"`
	EventType    string // Freeze, Reboot, Redeploy, Preempt, Terminate
	ResourceType string
	Resources    []string
	EventStatus  string // Scheduled, Started
	// NotBefore is in RFC 1123 while the event is scheduled, and empty afterwards.
	NotBefore         string
	Description       string
	EventSource       string // Platform, User
	DurationInSeconds int
}

// Group is what the machines of a placement group share: their events.
type Group struct {
	mu          sync.Mutex
	incarnation int64
	events      []Event
	approved    []string
}

// NewGroup makes a group without events.
func NewGroup() *Group { return &Group{incarnation: 1} }

// Schedule announces an event for the machines of those names. The fields that are
// empty get what the service gives them.
func (g *Group) Schedule(e Event, notBefore time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e.ResourceType, e.EventStatus, e.NotBefore = "VirtualMachine", "Scheduled", notBefore.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
	if e.EventSource == "" {
		e.EventSource = "Platform"
	}
	g.events = append(g.events, e)
	g.incarnation++
}

// Start begins an event, as its time or an approval does.
func (g *Group) Start(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.start(id)
}

func (g *Group) start(id string) bool {
	for i := range g.events {
		if e := &g.events[i]; e.EventID == id && e.EventStatus == "Scheduled" {
			e.EventStatus, e.NotBefore = "Started", ""
			g.incarnation++
			return true
		}
	}
	return false
}

// Remove takes an event from the list: it is over, or was cancelled.
func (g *Group) Remove(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.events = slices.DeleteFunc(g.events, func(e Event) bool { return e.EventID == id })
	g.incarnation++
}

// Approved lists the events that were approved, in order.
func (g *Group) Approved() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.approved)
}

// Server is the metadata service of one machine of a group.
type Server struct {
	group *Group
	name  string

	mu       sync.Mutex
	first    time.Duration
	on       bool
	fault    func(w http.ResponseWriter, r *http.Request) bool
	requests int
}

// New makes the service of the machine of that name. Its first answer about events
// takes as long as first says, as it does where the service is turned on by it.
func New(group *Group, name string, first time.Duration) *Server {
	return &Server{group: group, name: name, first: first}
}

// Break has fault see every request first; it reports whether it answered. Nil mends
// the service.
func (s *Server) Break(fault func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// Requests is how many requests came.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests++
	fault := s.fault
	s.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	version := r.URL.Query().Get("api-version")
	switch {
	case !strings.EqualFold(r.Header.Get("Metadata"), "true"):
		refuse(w, http.StatusBadRequest, "Bad request: the header Metadata: true is missing")
	case r.Header.Get("X-Forwarded-For") != "":
		refuse(w, http.StatusBadRequest, "Bad request: a request must not be forwarded")
	case version == "":
		refuse(w, http.StatusBadRequest, "Bad request: api-version is missing")
	case r.URL.Path == "/metadata/instance" && r.Method == http.MethodGet:
		give(w, map[string]any{"compute": map[string]any{"name": s.name, "azEnvironment": "AzurePublicCloud", "location": "westeurope"}})
	case r.URL.Path == "/metadata/scheduledevents" && r.Method == http.MethodGet:
		s.list(w, r)
	case r.URL.Path == "/metadata/scheduledevents" && r.Method == http.MethodPost:
		s.approve(w, r)
	default:
		refuse(w, http.StatusNotFound, "Not found")
	}
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	on := s.on
	s.mu.Unlock()
	if !on {
		select {
		case <-time.After(s.first):
		case <-r.Context().Done():
			return
		}
		s.mu.Lock()
		s.on = true
		s.mu.Unlock()
	}
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	events := s.group.events
	if events == nil {
		events = []Event{}
	}
	give(w, map[string]any{"DocumentIncarnation": s.group.incarnation, "Events": events})
}

// approve starts the events that are named; any machine of the group may.
func (s *Server) approve(w http.ResponseWriter, r *http.Request) {
	var body struct {
		StartRequests []struct {
			EventID string `json:"EventId"`
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || len(body.StartRequests) == 0 {
		refuse(w, http.StatusBadRequest, "Bad request: no StartRequests")
		return
	}
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	for _, request := range body.StartRequests {
		if !s.group.start(request.EventID) {
			refuse(w, http.StatusBadRequest, "Bad request: no scheduled event "+request.EventID)
			return
		}
		s.group.approved = append(s.group.approved, request.EventID)
	}
}

func give(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": message})
}
