// SPDX-License-Identifier: Apache-2.0

package aws_test

import (
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
	"github.com/spotbench/spotbench/pkg/interruption/aws"
	"github.com/spotbench/spotbench/pkg/interruption/endpoint/endpointtest"
)

const (
	scheduled = "/latest/meta-data/events/maintenance/scheduled"
	lifecycle = "/latest/meta-data/autoscaling/target-lifecycle-state"
)

// newInstance is an IMDSv2 service without a network, its answers set by the test.
func newInstance() *service {
	return &service{answers: map[string]string{"/latest/meta-data/instance-id": "i-0123456789abcdef0"}}
}

func newWatcher(t *testing.T, transport http.RoundTripper, log *slog.Logger) *aws.Watcher {
	t.Helper()
	w, err := aws.New(aws.Options{Endpoint: "http://imds", Node: "node-1", Boot: "boot-1", Transport: transport, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// heard runs do while a watcher watches the instance, in time of its own, and returns the events.
func heard(t *testing.T, s *service, do func(w *aws.Watcher)) (events []interruption.Event) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWatcher(t, endpointtest.Transport{Handler: s}, slog.New(slog.DiscardHandler))
		go w.Run(t.Context(), func(e interruption.Event) { events = append(events, e) })
		do(w)
		synctest.Wait()
	})
	return events
}

func TestTheWatcherEnduresWhateverTheServiceDoes(t *testing.T) {
	endpointtest.Endure(t, func(transport http.RoundTripper, log *slog.Logger) endpointtest.Subject {
		s := newInstance()
		return endpointtest.Subject{Source: newWatcher(t, transport, log), Service: s,
			Announce: func() { s.set(spot, `{"action":"terminate","time":"2000-01-01T00:00:00Z"}`) }}
	})
}

func TestATimeThatMovesForHoursIsOneNotice(t *testing.T) {
	s := newInstance()
	s.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == spot {
			fmt.Fprintf(w, `{"action":"terminate","time":%q}`, time.Now().Add(2*time.Minute).UTC().Format(time.RFC3339))
		}
		if r.URL.Path == scheduled {
			fmt.Fprintf(w, `[{"Code":"system-reboot","EventId":"e-1","State":"active","NotBefore":%q}]`, time.Now().Add(time.Hour).UTC().Format("2 Jan 2006 15:04:05 GMT"))
		}
		return r.URL.Path == spot || r.URL.Path == scheduled
	})
	if events := heard(t, s, func(*aws.Watcher) { time.Sleep(5 * time.Hour) }); len(events) != 2 {
		t.Errorf("%d events in five hours, want a reclaim and a reboot: %+v", len(events), events)
	}
}

func TestADeadlineIsRightOnAMachineWhoseClockIsWrong(t *testing.T) {
	for name, off := range map[string]time.Duration{"behind": 10 * time.Minute, "ahead": -5 * time.Minute, "right": 0} {
		t.Run(name, func(t *testing.T) {
			s := newInstance()
			s.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
				there := time.Now().Add(off).UTC()
				w.Header().Set("Date", there.Format(http.TimeFormat))
				if r.URL.Path == spot {
					fmt.Fprintf(w, `{"action":"terminate","time":%q}`, there.Add(2*time.Minute).Format(time.RFC3339))
				}
				return r.URL.Path == spot
			})
			events := heard(t, s, func(*aws.Watcher) { time.Sleep(10 * time.Minute) })
			if len(events) != 1 {
				t.Fatalf("%d events, want one reclaim: %+v", len(events), events)
			}
			if left := events[0].Deadline.Sub(events[0].SeenAt); left < 117*time.Second || left > 122*time.Second {
				t.Errorf("%s are left, want about two minutes", left)
			}
		})
	}
}

func TestWhatEC2Announces(t *testing.T) {
	tests := map[string]struct {
		path, body string
		kind       interruption.Kind // "" for no notice
		action     string
		deadline   time.Time
	}{
		"a hibernation, which begins at once": {spot, `{"action":"hibernate","time":"2026-11-23T10:00:00Z"}`,
			interruption.KindSpot, "hibernate", time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)},
		"a reboot of the host": {scheduled, `[{"NotBefore":"23 Nov 2026 19:00:46 GMT","Code":"system-reboot","Description":"scheduled reboot","EventId":"instance-event-0d59937288b749b32","NotAfter":"23 Nov 2026 19:30:00 GMT","State":"active"}]`,
			interruption.KindMaintenance, "reboot", time.Date(2026, 11, 23, 19, 0, 46, 0, time.UTC)},
		"a retirement": {scheduled, `[{"NotBefore":"1 Dec 2026 09:00:00 GMT","Code":"instance-retirement","EventId":"e-1","State":"active"}]`,
			interruption.KindMaintenance, "retire", time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)},
		"an event whose time cannot be read is still heard":    {scheduled, `[{"NotBefore":"soon","Code":"instance-stop","EventId":"e-1","State":"active"}]`, interruption.KindMaintenance, "stop", time.Time{}},
		"an event behind one that is not understood":           {scheduled, `[{"Code":"instance-dance","EventId":"e-0"},7,{"NotBefore":"1 Dec 2026 09:00:00 GMT","Code":"instance-stop","EventId":"e-1","State":"active"}]`, interruption.KindMaintenance, "stop", time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)},
		"an event that is completed":                           {path: scheduled, body: `[{"NotBefore":"1 Dec 2026 09:00:00 GMT","Code":"system-reboot","EventId":"e-1","State":"completed"}]`},
		"an event that is cancelled":                           {path: scheduled, body: `[{"NotBefore":"1 Dec 2026 09:00:00 GMT","Code":"system-reboot","EventId":"e-1","State":"canceled"}]`},
		"an event that says only in words that it is complete": {path: scheduled, body: `[{"NotBefore":"1 Dec 2026 09:00:00 GMT","Code":"system-reboot","EventId":"e-1","Description":"[Completed] scheduled reboot","State":"active"}]`},
		"no events":                             {path: scheduled, body: `[]`},
		"a group that wants the instance":       {path: lifecycle, body: "InService"},
		"a group that ends the instance":        {lifecycle, "Terminated\n", interruption.KindTermination, "terminate", time.Time{}},
		"a group that stops a warm instance":    {lifecycle, "Warmed:Stopped", interruption.KindTermination, "stop", time.Time{}},
		"a group that ends a warm instance":     {lifecycle, "Warmed:Terminated", interruption.KindTermination, "stop", time.Time{}},
		"a state that nobody has heard of":      {path: lifecycle, body: "Resting"},
		"a recommendation":                      {rebalance, `{"noticeTime":"2026-11-23T10:00:00Z"}`, interruption.KindRebalance, "", time.Time{}},
		"a recommendation that has no time":     {path: rebalance, body: `{}`},
		"a reclaim of a kind nobody knows of":   {path: spot, body: `{"action":"dance","time":"2026-11-23T10:00:00Z"}`},
		"an answer in another encoding is none": {path: spot, body: "\xff\xfe{\x00"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newInstance()
			s.set(tt.path, tt.body)
			events := heard(t, s, func(*aws.Watcher) { time.Sleep(10 * time.Second) })
			if tt.kind == "" {
				if len(events) > 0 {
					t.Errorf("events %+v, want none", events)
				}
				return
			}
			if len(events) != 1 {
				t.Fatalf("%d events, want 1: %+v", len(events), events)
			}
			if e := events[0]; e.Withdrawn || e.Provider != interruption.AWS || e.Kind != tt.kind || e.Action != tt.action || !e.Deadline.Equal(tt.deadline) {
				t.Errorf("event %+v, want %s %s at %s", e, tt.kind, tt.action, tt.deadline)
			}
		})
	}
}

func TestAScheduledEventIsWithdrawnWhenItIsCancelledAndFollowedWhenItIsPutForward(t *testing.T) {
	s := newInstance()
	say := func(at, state string) {
		s.set(scheduled, fmt.Sprintf(`[{"NotBefore":%q,"Code":"system-reboot","EventId":"e-1","State":%q}]`, at, state))
	}
	say("2 Dec 2026 09:00:00 GMT", "active")
	events := heard(t, s, func(*aws.Watcher) {
		time.Sleep(10 * time.Second)
		say("1 Dec 2026 09:00:00 GMT", "active")
		time.Sleep(10 * time.Second)
		say("1 Dec 2026 09:00:00 GMT", "canceled")
		time.Sleep(10 * time.Second)
	})
	var got []string
	for _, e := range events {
		got = append(got, fmt.Sprint(e.Deadline.Day(), " ", e.Withdrawn))
	}
	if want := []string{"2 false", "2 true", "1 false", "1 true"}; !slices.Equal(got, want) {
		t.Fatalf("changes %v, want %v", got, want)
	}
	if events[0].ID == events[2].ID || events[0].CloudID != "e-1" || events[2].CloudID != "e-1" {
		t.Errorf("notices %+v, want two with names of their own, of one event", events)
	}
}

func TestNothingIsEverAskedWithoutAToken(t *testing.T) {
	for name, status := range map[string]int{"forbidden": 403, "not found": 404, "not allowed": 405, "bad": 400, "unauthorised": 401} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			asked := map[string]int{}
			s := newInstance()
			// An instance that would answer version 1: everything but the token is there.
			s.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
				mu.Lock()
				defer mu.Unlock()
				asked[r.Method]++
				if r.Method == http.MethodPut {
					w.WriteHeader(status)
				} else {
					fmt.Fprint(w, `{"action":"terminate","time":"2026-11-23T10:00:00Z"}`)
				}
				return true
			})
			events := heard(t, s, func(*aws.Watcher) { time.Sleep(time.Hour) })
			mu.Lock()
			defer mu.Unlock()
			if asked[http.MethodGet] != 0 || asked[http.MethodPut] < 100 || len(events) != 0 {
				t.Errorf("asked %v and heard %v, want requests for a token only", asked, events)
			}
		})
	}
}

func TestAPathThatHangsHidesNoOther(t *testing.T) {
	paths := []string{"/latest/meta-data/instance-id", spot, rebalance, scheduled, lifecycle}
	said := map[string]string{spot: `{"action":"stop","time":"2026-11-23T10:00:00Z"}`, rebalance: `{"noticeTime":"2026-11-23T10:00:00Z"}`,
		scheduled: `[{"NotBefore":"1 Dec 2026 09:00:00 GMT","Code":"system-reboot","EventId":"e-1","State":"active"}]`, lifecycle: "Terminated"}
	for _, hanging := range paths {
		t.Run(hanging[strings.LastIndex(hanging, "/")+1:], func(t *testing.T) {
			s := newInstance()
			hang := endpointtest.Transport{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == hanging {
					<-r.Context().Done()
					return
				}
				s.ServeHTTP(w, r)
			})}
			var events []interruption.Event
			synctest.Test(t, func(t *testing.T) {
				w := newWatcher(t, hang, slog.New(slog.DiscardHandler))
				go w.Run(t.Context(), func(e interruption.Event) { events = append(events, e) })
				time.Sleep(30 * time.Second)
				for path, body := range said {
					s.set(path, body)
				}
				time.Sleep(15 * time.Second)
				synctest.Wait()
			})
			want := 4
			if hanging != paths[0] {
				want = 3
			}
			if len(events) != want {
				t.Errorf("heard %d notices of %d within 15 s: %+v", len(events), want, events)
			}
		})
	}
}

func TestANoticeIsHeardUnderTheNodesNameWhereTheInstancesIDIsUnknown(t *testing.T) {
	s := newInstance()
	s.set("/latest/meta-data/instance-id", "")
	s.set(spot, `{"action":"stop","time":"2026-11-23T10:00:00Z"}`)
	events := heard(t, s, func(*aws.Watcher) { time.Sleep(5 * time.Second) })
	if len(events) != 1 || !strings.HasPrefix(events[0].ID, "node-1-spot-") {
		t.Errorf("events %+v, want one of node-1", events)
	}
}

func TestTheTokenIsRenewedBeforeItEnds(t *testing.T) {
	s := newInstance()
	synctest.Test(t, func(t *testing.T) {
		w, err := aws.New(aws.Options{Endpoint: "http://imds", Interval: 5 * time.Second, Transport: endpointtest.Transport{Handler: s}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		go w.Run(t.Context(), func(interruption.Event) {})
		time.Sleep(25 * time.Hour)
	})
	// A token is for 6 h and renewed a minute before its end: 25 h / 5 h 59 min = 4.2, so
	// the first one and four more.
	if s.token != 5 {
		t.Errorf("%d tokens in 25 h, want 5", s.token)
	}
}

func TestAHundredLooksNeedOneConnection(t *testing.T) {
	t.Parallel()
	s := newInstance()
	s.set(scheduled, "[]") // the other three are 404s
	url, connections := endpointtest.Serve(t, s)
	watch(t, url, &syncBuffer{})
	s.waitForPolls(t, 100)
	if n := connections(); n != 1 {
		t.Errorf("%d connections for 100 looks, 300 of whose answers are 404s; want 1", n)
	}
}
