// SPDX-License-Identifier: Apache-2.0

package gcp_test

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spotbench/spotbench/pkg/interruption"
	"github.com/spotbench/spotbench/pkg/interruption/endpoint"
	"github.com/spotbench/spotbench/pkg/interruption/endpoint/endpointtest"
	"github.com/spotbench/spotbench/pkg/interruption/gcp"
	"github.com/spotbench/spotbench/pkg/interruption/gcp/gcpmetadatafake"
)

const instance = "4711471147114711"

func newWatcher(t *testing.T, opts gcp.Options) *gcp.Watcher {
	t.Helper()
	if opts.Endpoint == "" {
		opts.Endpoint = "http://metadata"
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	opts.Node, opts.Boot = "node-1", "boot-1"
	w, err := gcp.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// heard runs do while a watcher watches the server, in time of its own. Each event is
// with the time at which it came.
func heard(t *testing.T, opts gcp.Options, do func(s *gcpmetadatafake.Server, w *gcp.Watcher)) (events []interruption.Event) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := gcpmetadatafake.New(instance)
		opts.Transport = endpointtest.Transport{Handler: s}
		w := newWatcher(t, opts)
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			w.Run(t.Context(), func(e interruption.Event) { events = append(events, e) })
		}()
		do(s, w)
		synctest.Wait()
	})
	return events
}

func TestTheWatcherEnduresWhateverTheServerDoes(t *testing.T) {
	endpointtest.Endure(t, func(transport http.RoundTripper, log *slog.Logger) endpointtest.Subject {
		s := gcpmetadatafake.New(instance)
		return endpointtest.Subject{Source: newWatcher(t, gcp.Options{Transport: transport, Log: log}), Service: s,
			Announce: func() { s.Set(gcpmetadatafake.Preempted, "TRUE") }}
	})
}

func TestAPreemptionIsHeardTheMomentItIsAnnounced(t *testing.T) {
	var announced time.Time
	events := heard(t, gcp.Options{Notice: 90 * time.Second}, func(s *gcpmetadatafake.Server, _ *gcp.Watcher) {
		time.Sleep(47*time.Minute + 3*time.Second)
		announced = time.Now().UTC()
		s.Set(gcpmetadatafake.Preempted, "TRUE")
		time.Sleep(time.Minute)
	})
	if len(events) != 1 {
		t.Fatalf("events %+v, want 1", events)
	}
	// The server answers the request that waits: no poll's interval passes.
	e := events[0]
	if e.Kind != interruption.KindSpot || e.Action != "terminate" || e.Provider != interruption.GCP || !e.SeenAt.Equal(announced) ||
		!e.Deadline.Equal(announced.Add(90*time.Second)) || !strings.HasPrefix(e.ID, instance+"-spot-") {
		t.Errorf("event %+v, want a preemption seen at %s with 90 s left", e, announced)
	}
}

func TestTheDefaultNoticeIsThirtySecondsAndSixtyForMaintenance(t *testing.T) {
	events := heard(t, gcp.Options{}, func(s *gcpmetadatafake.Server, _ *gcp.Watcher) {
		time.Sleep(time.Minute)
		s.Set(gcpmetadatafake.Preempted, "TRUE")
		time.Sleep(time.Second)
		s.Set(gcpmetadatafake.Maintenance, "TERMINATE_ON_HOST_MAINTENANCE")
		time.Sleep(time.Second)
	})
	if len(events) != 2 || events[0].Deadline.Sub(events[0].SeenAt) != 30*time.Second || events[1].Deadline.Sub(events[1].SeenAt) != time.Minute {
		t.Errorf("events %+v, want one with 30 s and one with 60 s left", events)
	}
}

func TestAPreemptionBeforeTheAgentWasStartedIsHeardAtOnceAndUnderTheSameName(t *testing.T) {
	ids := map[string]bool{}
	for range 2 {
		events := heard(t, gcp.Options{}, func(s *gcpmetadatafake.Server, _ *gcp.Watcher) {
			s.Set(gcpmetadatafake.Preempted, "TRUE")
			time.Sleep(10 * time.Minute)
		})
		if len(events) != 1 {
			t.Fatalf("events %+v, want 1", events)
		}
		ids[events[0].ID] = true
	}
	if len(ids) != 1 {
		t.Errorf("names %v, want one", ids)
	}
}

func TestMaintenanceIsGivenAndOverAndGivenAnew(t *testing.T) {
	events := heard(t, gcp.Options{MaintenanceNotice: time.Hour}, func(s *gcpmetadatafake.Server, _ *gcp.Watcher) {
		for _, value := range []string{"MIGRATE_ON_HOST_MAINTENANCE", "NONE", "MIGRATE_ON_HOST_MAINTENANCE", "TERMINATE_ON_HOST_MAINTENANCE"} {
			time.Sleep(10 * time.Minute)
			s.Set(gcpmetadatafake.Maintenance, value)
		}
		time.Sleep(10 * time.Minute)
	})
	want := []struct {
		kind      interruption.Kind
		withdrawn bool
	}{{interruption.KindPause, false}, {interruption.KindPause, true}, {interruption.KindPause, false}, {interruption.KindMaintenance, false}, {interruption.KindPause, true}}
	if len(events) != len(want) {
		t.Fatalf("events %+v, want %v", events, want)
	}
	for i, w := range want {
		if events[i].Kind != w.kind || events[i].Withdrawn != w.withdrawn {
			t.Errorf("event %d is %+v, want %v", i, events[i], w)
		}
	}
	if events[0].ID == events[2].ID {
		t.Errorf("two migrations have the name %s", events[0].ID)
	}
}

func TestAServerThatDoesNotHoldRequestsIsPolledAndNotOverrun(t *testing.T) {
	tests := map[string]func(w http.ResponseWriter, r *http.Request){
		"it knows no etags": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("FALSE")) },
		"it answers at once": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", "same")
			_, _ = w.Write([]byte("FALSE"))
		},
		"it gives a new etag each time": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", time.Now().String())
			_, _ = w.Write([]byte("FALSE"))
		},
	}
	for name, answer := range tests {
		t.Run(name, func(t *testing.T) {
			n := 0
			synctest.Test(t, func(t *testing.T) {
				w := newWatcher(t, gcp.Options{Transport: endpointtest.Transport{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Metadata-Flavor", "Google")
					switch {
					case strings.HasSuffix(r.URL.Path, "/id"):
						_, _ = w.Write([]byte(instance))
					case strings.HasSuffix(r.URL.Path, "/preempted"):
						n++
						answer(w, r)
					default:
						<-r.Context().Done()
					}
				})}})
				go w.Run(t.Context(), func(interruption.Event) {})
				time.Sleep(100 * time.Second)
			})
			if n < 99 || n > 102 {
				t.Errorf("asked %d times in 100 s, want once a second", n)
			}
		})
	}
}

func TestAServerThatSaysNothingOfGoogleIsNotBelieved(t *testing.T) {
	said, heard := &endpointtest.Log{}, 0
	synctest.Test(t, func(t *testing.T) {
		w := newWatcher(t, gcp.Options{Log: slog.New(slog.NewTextHandler(said, nil)), Transport: endpointtest.Transport{Handler: http.HandlerFunc(
			func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("TRUE")) })}})
		go w.Run(t.Context(), func(interruption.Event) { heard++ })
		time.Sleep(time.Minute)
		if w.Quiet() {
			t.Error("a stranger's word is taken for the cloud's")
		}
	})
	if heard != 0 || !strings.Contains(said.String(), "not from Google's server") {
		t.Errorf("heard %d notices and said %s", heard, said)
	}
}

func TestASilentConnectionHidesANoticeForSevenSecondsAtMost(t *testing.T) {
	var announced time.Time
	events := heard(t, gcp.Options{}, func(s *gcpmetadatafake.Server, _ *gcp.Watcher) {
		time.Sleep(10 * time.Minute)
		s.Break(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }) // the host's end has gone
		time.Sleep(time.Millisecond)
		announced = time.Now()
		s.Set(gcpmetadatafake.Preempted, "TRUE")
		s.Break(nil)
		time.Sleep(time.Minute)
	})
	// 5 s that a request may be held, 2 s for its answer, and up to 1.3 s of pause.
	if len(events) != 1 || events[0].SeenAt.Sub(announced) > 8300*time.Millisecond {
		t.Errorf("events %+v, want one within 8.3 s of %s", events, announced)
	}
}

func TestTheWatcherIsQuietOnlyWhileBothAnswersSaySo(t *testing.T) {
	heard(t, gcp.Options{}, func(s *gcpmetadatafake.Server, w *gcp.Watcher) {
		is := func(when string, want bool) {
			t.Helper()
			time.Sleep(15 * time.Second)
			if w.Quiet() != want {
				t.Errorf("%s: quiet %t, want %t", when, w.Quiet(), want)
			}
		}
		is("nothing is announced", true)
		s.Set(gcpmetadatafake.Maintenance, "TERMINATE_ON_HOST_MAINTENANCE")
		is("maintenance", false)
		s.Set(gcpmetadatafake.Maintenance, "MIGRATE_ON_HOST_MAINTENANCE")
		is("a migration, which the machine survives", true)
		s.Set(gcpmetadatafake.Preempted, "TRUE")
		is("a preemption", false)
	})
}

func TestAHundredAnswersToEachQuestionNeedOneConnectionEach(t *testing.T) {
	t.Parallel()
	s := gcpmetadatafake.New(instance)
	served, connections := endpointtest.Serve(t, s)
	w := newWatcher(t, gcp.Options{Endpoint: served, Interval: 100 * time.Millisecond})
	events := make(chan interruption.Event)
	go w.Run(t.Context(), func(e interruption.Event) { events <- e })
	// Each change is one answer to each of the two requests that wait.
	for i := range 100 {
		preempted, maintenance := "TRUE", "MIGRATE_ON_HOST_MAINTENANCE"
		if i%2 == 1 {
			preempted, maintenance = "FALSE", "NONE"
		}
		s.Set(gcpmetadatafake.Preempted, preempted)
		s.Set(gcpmetadatafake.Maintenance, maintenance)
		<-events
		<-events
	}
	if n := connections(); n != 2 {
		t.Errorf("%d connections, want one for each of two questions", n)
	}
}

func TestProbe(t *testing.T) {
	tests := map[string]struct {
		service http.Handler
		found   bool
	}{
		"Google's server":       {gcpmetadatafake.New(instance), true},
		"a page for every path": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }), false},
		"nothing":               {http.NotFoundHandler(), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			client, err := endpoint.NewClient("http://metadata", endpointtest.Transport{Handler: tt.service})
			if err != nil {
				t.Fatal(err)
			}
			if err := gcp.Probe(t.Context(), client); (err == nil) != tt.found {
				t.Errorf("probe: %v", err)
			}
		})
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	for _, o := range []gcp.Options{{Endpoint: "metadata"}, {Notice: time.Millisecond}, {MaintenanceNotice: -1}, {Hold: time.Hour}, {Interval: time.Minute}} {
		if _, err := gcp.New(o); err == nil {
			t.Errorf("accepted %+v", o)
		}
	}
}
