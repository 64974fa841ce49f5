// SPDX-License-Identifier: Apache-2.0

package azure_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spotbench/spotbench/pkg/interruption"
	"github.com/spotbench/spotbench/pkg/interruption/azure"
	"github.com/spotbench/spotbench/pkg/interruption/azure/azmetadatafake"
	"github.com/spotbench/spotbench/pkg/interruption/endpoint"
	"github.com/spotbench/spotbench/pkg/interruption/endpoint/endpointtest"
)

const machine = "aks-gpu-12345-vmss_0"

func newWatcher(t *testing.T, url string, transport http.RoundTripper, log *slog.Logger) *azure.Watcher {
	t.Helper()
	w, err := azure.New(azure.Options{Endpoint: url, Transport: transport, Log: log, Interval: map[bool]time.Duration{true: 100 * time.Millisecond}[transport == nil]})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// scene is a machine of a group, watched in time of the test's own.
type scene struct {
	t       *testing.T
	group   *azmetadatafake.Group
	service *azmetadatafake.Server
	watcher *azure.Watcher
	events  []interruption.Event
	log     *endpointtest.Log
}

func play(t *testing.T, first time.Duration, do func(s *scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{t: t, group: azmetadatafake.NewGroup(), log: &endpointtest.Log{}}
		s.service = azmetadatafake.New(s.group, machine, first)
		s.watcher = newWatcher(t, "http://imds", endpointtest.Transport{Handler: s.service}, slog.New(slog.NewTextHandler(s.log, nil)))
		go s.watcher.Run(t.Context(), func(e interruption.Event) { s.events = append(s.events, e) })
		do(s)
	})
}

// wants lets two seconds pass and compares the changes since the last time.
func (s *scene) wants(changes ...string) {
	s.t.Helper()
	time.Sleep(2 * time.Second)
	synctest.Wait()
	var got []string
	for _, e := range s.events {
		got = append(got, fmt.Sprintf("%s %s %t", e.CloudID, e.Kind, e.Withdrawn))
	}
	if !slices.Equal(got, changes) {
		s.t.Fatalf("changes %q, want %q", got, changes)
	}
	s.events = nil
}

func event(id, kind string, machines ...string) azmetadatafake.Event {
	return azmetadatafake.Event{EventID: id, EventType: kind, Resources: machines}
}

func TestTheWatcherEnduresWhateverTheServiceDoes(t *testing.T) {
	endpointtest.Endure(t, func(transport http.RoundTripper, log *slog.Logger) endpointtest.Subject {
		group := azmetadatafake.NewGroup()
		return endpointtest.Subject{Source: newWatcher(t, "http://imds", transport, log), Service: azmetadatafake.New(group, machine, 0),
			Announce: func() { group.Schedule(event("e-1", "Preempt", machine), time.Now().Add(30*time.Second)) }}
	})
}

func TestOnlyEventsThatNameTheMachineAreHeard(t *testing.T) {
	play(t, 0, func(s *scene) {
		s.group.Schedule(event("theirs", "Preempt", "aks-gpu-12345-vmss_1"), time.Now().Add(30*time.Second))
		s.group.Schedule(event("longer", "Preempt", machine+"0"), time.Now().Add(30*time.Second))
		s.wants()
		s.group.Schedule(event("all", "Freeze", "aks-gpu-12345-vmss_1", strings.ToUpper(machine)), time.Now().Add(15*time.Minute))
		s.wants("all pause false")
		s.group.Schedule(event("ours", "Preempt", machine), time.Now().Add(30*time.Second))
		s.wants("ours spot false")
	})
}

func TestEveryTypeOfEvent(t *testing.T) {
	kinds := map[string]interruption.Kind{"Freeze": interruption.KindPause, "Reboot": interruption.KindMaintenance, "Redeploy": interruption.KindMaintenance,
		"Preempt": interruption.KindSpot, "Terminate": interruption.KindTermination}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			play(t, 0, func(s *scene) {
				at := time.Now().Add(15 * time.Minute).UTC().Truncate(time.Second)
				s.group.Schedule(event("e-1", name, machine), at)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if len(s.events) != 1 || s.events[0].Kind != kind || !s.events[0].Deadline.Equal(at) || s.events[0].Provider != interruption.Azure ||
					!strings.HasPrefix(s.events[0].ID, machine+"-"+string(kind)+"-") {
					t.Errorf("events %+v, want one %s at %s", s.events, kind, at)
				}
			})
		})
	}
}

func TestAnEventIsOneNoticeFromItsScheduleToItsEnd(t *testing.T) {
	play(t, 0, func(s *scene) {
		s.group.Schedule(event("e-1", "Reboot", machine), time.Now().Add(30*time.Second))
		s.wants("e-1 maintenance false")
		s.group.Schedule(event("theirs", "Reboot", "another"), time.Now().Add(time.Hour)) // another incarnation
		s.wants()
		s.group.Start("e-1") // NotBefore is empty now
		s.wants()
		s.group.Remove("e-1")
		s.wants("e-1 maintenance true")
		s.group.Schedule(event("e-2", "Reboot", machine), time.Now().Add(15*time.Minute))
		s.wants("e-2 maintenance false")
		s.group.Remove("e-2") // cancelled
		s.wants("e-2 maintenance true")
	})
}

func TestAnEventThatHadStartedBeforeTheAgentHasNoDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group := azmetadatafake.NewGroup()
		group.Schedule(event("e-1", "Preempt", machine), time.Now())
		group.Start("e-1")
		w := newWatcher(t, "http://imds", endpointtest.Transport{Handler: azmetadatafake.New(group, machine, 0)}, slog.New(slog.DiscardHandler))
		var events []interruption.Event
		go w.Run(t.Context(), func(e interruption.Event) { events = append(events, e) })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(events) != 1 || !events[0].Deadline.IsZero() {
			t.Errorf("events %+v, want one without a deadline", events)
		}
	})
}

func TestAnEventThatANeighbourLetsGoAheadEarlyIsGivenAnew(t *testing.T) {
	play(t, 0, func(s *scene) {
		s.group.Schedule(event("e-1", "Redeploy", machine, "another"), time.Now().Add(48*time.Hour))
		s.wants("e-1 maintenance false")
		s.group.Start("e-1")
		s.wants("e-1 maintenance true", "e-1 maintenance false")
	})
}

func TestAcknowledge(t *testing.T) {
	tests := map[string]struct {
		event    azmetadatafake.Event
		before   func(s *scene) // the acknowledgement
		want     bool
		approved []string
	}{
		"an event of ours alone":                    {event("e-1", "Preempt", machine), func(*scene) {}, true, []string{"e-1"}},
		"an event that names others too is left":    {event("e-1", "Reboot", machine, "another"), func(*scene) {}, false, nil},
		"an event that has started needs no answer": {event("e-1", "Preempt", machine), func(s *scene) { s.group.Start("e-1") }, false, nil},
		"an event that is gone needs no answer":     {event("e-1", "Preempt", machine), func(s *scene) { s.group.Remove("e-1") }, false, nil},
		"a service that is busy is asked again": {event("e-1", "Preempt", machine), func(s *scene) {
			refused := 0
			var mu sync.Mutex
			s.service.Break(func(w http.ResponseWriter, r *http.Request) bool {
				mu.Lock()
				defer mu.Unlock()
				if r.Method != http.MethodPost || refused == 3 {
					return false
				}
				refused++
				w.WriteHeader(http.StatusTooManyRequests)
				return true
			})
		}, true, []string{"e-1"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			play(t, 0, func(s *scene) {
				s.group.Schedule(tt.event, time.Now().Add(time.Hour))
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if len(s.events) != 1 {
					t.Fatalf("events %+v, want 1", s.events)
				}
				if got := s.group.Approved(); got != nil {
					t.Fatalf("approved %v before anybody acknowledged anything", got)
				}
				n := s.events[0].Notice
				tt.before(s)
				time.Sleep(2 * time.Second)
				if got, err := s.watcher.Acknowledge(s.t.Context(), n); got != tt.want || err != nil {
					t.Errorf("acknowledged %t, %v; want %t", got, err, tt.want)
				}
				if got := s.group.Approved(); !slices.Equal(got, tt.approved) {
					t.Errorf("approved %v, want %v", got, tt.approved)
				}
			})
		})
	}
}

func TestAnAcknowledgementIsGivenUpWithItsContext(t *testing.T) {
	play(t, 0, func(s *scene) {
		s.group.Schedule(event("e-1", "Preempt", machine), time.Now().Add(time.Hour))
		time.Sleep(2 * time.Second)
		s.service.Break(func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
		defer cancel()
		if got, err := s.watcher.Acknowledge(ctx, s.events[0].Notice); got || err == nil {
			t.Errorf("acknowledged %t, %v; want an error", got, err)
		}
	})
}

func TestTheFirstCallMayTakeTwoMinutes(t *testing.T) {
	play(t, 2*time.Minute, func(s *scene) {
		s.group.Schedule(event("e-1", "Preempt", machine), time.Now().Add(5*time.Minute))
		time.Sleep(121 * time.Second)
		s.wants("e-1 spot false")
		if s.log.String() != "" {
			t.Errorf("said %s", s.log)
		}
	})
}

func TestADocumentOlderThanOneSeenBeforeWithdrawsNothing(t *testing.T) {
	play(t, 0, func(s *scene) {
		s.group.Schedule(event("e-1", "Preempt", machine), time.Now().Add(time.Hour))
		s.wants("e-1 spot false")
		old := 0
		var mu sync.Mutex
		s.service.Break(func(w http.ResponseWriter, _ *http.Request) bool {
			mu.Lock()
			defer mu.Unlock()
			if old++; old > 2 {
				return false
			}
			_, _ = w.Write([]byte(`{"DocumentIncarnation":1,"Events":[]}`)) // from a replica that lags behind
			return true
		})
		time.Sleep(10 * time.Second)
		s.wants()
		// A service that has been set up anew counts from 1 again, and means it.
		s.service.Break(func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = w.Write([]byte(`{"DocumentIncarnation":1,"Events":[]}`))
			return true
		})
		time.Sleep(20 * time.Second)
		s.wants("e-1 spot true")
	})
}

func TestAHundredLooksNeedOneConnection(t *testing.T) {
	t.Parallel()
	service := azmetadatafake.New(azmetadatafake.NewGroup(), machine, 0)
	var mu sync.Mutex
	n := 0
	service.Break(func(w http.ResponseWriter, _ *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if n++; n%10 != 5 {
			return false
		}
		http.Error(w, strings.Repeat("not found ", 1000), http.StatusNotFound)
		return true
	})
	url, connections := endpointtest.Serve(t, service)
	w := newWatcher(t, url, nil, slog.New(slog.DiscardHandler))
	go w.Run(t.Context(), func(interruption.Event) {})
	for deadline := time.Now().Add(time.Minute); service.Requests() < 100; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d requests in a minute, want 100", service.Requests())
		}
	}
	if got := connections(); got != 1 {
		t.Errorf("%d connections for 100 requests, ten of whose answers are 404s; want 1", got)
	}
}

func TestProbe(t *testing.T) {
	tests := map[string]struct {
		service http.Handler
		found   bool
	}{
		"Azure's service":       {azmetadatafake.New(azmetadatafake.NewGroup(), machine, 0), true},
		"a page for every path": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }), false},
		"other JSON":            {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }), false},
		"nothing":               {http.NotFoundHandler(), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			client, err := endpoint.NewClient("http://imds", endpointtest.Transport{Handler: tt.service})
			if err != nil {
				t.Fatal(err)
			}
			if err := azure.Probe(t.Context(), client); (err == nil) != tt.found {
				t.Errorf("probe: %v", err)
			}
		})
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	for _, o := range []azure.Options{{Endpoint: "169.254.169.254"}, {Interval: time.Millisecond}, {Interval: time.Minute}} {
		if _, err := azure.New(o); err == nil {
			t.Errorf("accepted %+v", o)
		}
	}
}
