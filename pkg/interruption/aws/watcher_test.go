// SPDX-License-Identifier: Apache-2.0

package aws_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/interruption"
	"github.com/spotbench/spotbench/pkg/interruption/aws"
)

// service is an IMDSv2 service whose answers the test sets.
type service struct {
	*httptest.Server
	mu      sync.Mutex
	answers map[string]string // path → body; absent is 404
	broken  func(w http.ResponseWriter, r *http.Request) bool
	token   int
	polls   int
}

func newService(t *testing.T) *service {
	s := &service{answers: map[string]string{"/latest/meta-data/instance-id": "i-0123456789abcdef0"}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil && s.broken(w, r) {
		return
	}
	if r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" {
		s.token++
		fmt.Fprintf(w, "token-%d", s.token)
		return
	}
	if r.Header.Get("X-aws-ec2-metadata-token") != fmt.Sprintf("token-%d", s.token) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if strings.HasSuffix(r.URL.Path, "/instance-action") {
		s.polls++
	}
	body, ok := s.answers[r.URL.Path]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, strings.Repeat("<html>404</html>", 50))
		return
	}
	fmt.Fprint(w, body)
}

const (
	spot      = "/latest/meta-data/spot/instance-action"
	rebalance = "/latest/meta-data/events/recommendations/rebalance"
)

func (s *service) set(path, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if body == "" {
		delete(s.answers, path)
	} else {
		s.answers[path] = body
	}
}

func (s *service) breakWith(f func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = f
}

// waitForPolls waits until the watcher has looked n more times.
func (s *service) waitForPolls(t *testing.T, n int) {
	t.Helper()
	s.mu.Lock()
	until := s.polls + n
	s.mu.Unlock()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		polls := s.polls
		s.mu.Unlock()
		if polls >= until {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the watcher looked %d times, want %d", polls, until)
		}
	}
}

func watch(t *testing.T, endpoint string, logTo *syncBuffer) <-chan interruption.Event {
	t.Helper()
	w, err := aws.New(aws.Options{Endpoint: endpoint, Interval: 100 * time.Millisecond, Log: slog.New(slog.NewTextHandler(logTo, nil))})
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan interruption.Event, 100)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx, func(e interruption.Event) { events <- e }) }()
	t.Cleanup(func() { cancel(); <-done })
	return events
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func next(t *testing.T, events <-chan interruption.Event) interruption.Event {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(20 * time.Second):
		t.Fatal("no event")
		return interruption.Event{}
	}
}

func noMore(t *testing.T, events <-chan interruption.Event) {
	t.Helper()
	select {
	case e := <-events:
		t.Fatalf("unexpected event %+v", e)
	default:
	}
}

func TestANoticeIsGivenOnceWithdrawnAndGivenAnew(t *testing.T) {
	s := newService(t)
	events := watch(t, s.URL, &syncBuffer{})
	s.waitForPolls(t, 2)
	s.set(spot, `{"action":"terminate","time":"2026-11-23T10:02:00Z"}`)
	first := next(t, events)
	if first.Withdrawn || first.Kind != interruption.KindSpot || first.Action != "terminate" || !strings.HasPrefix(first.ID, "i-0123456789abcdef0-spot-") ||
		!first.Deadline.Equal(time.Date(2026, 11, 23, 10, 2, 0, 0, time.UTC)) || time.Since(first.SeenAt) > time.Minute {
		t.Fatalf("event %+v", first)
	}
	// A time that moves with the clock is the same notice.
	s.set(spot, `{"action":"terminate","time":"2026-11-23T10:02:07Z"}`)
	s.waitForPolls(t, 3)
	noMore(t, events)
	s.set(spot, "")
	if e := next(t, events); !e.Withdrawn || e.ID != first.ID {
		t.Fatalf("event %+v, want that %s is withdrawn", e, first.ID)
	}
	s.set(spot, `{"action":"terminate","time":"2026-11-23T11:30:00Z"}`)
	if e := next(t, events); e.Withdrawn || e.ID == first.ID {
		t.Fatalf("event %+v, want a new notice", e)
	}
}

func TestAnAgentStartedAgainDuringANoticeFindsTheSameOne(t *testing.T) {
	s := newService(t)
	s.set(spot, `{"action":"terminate","time":"2026-11-23T10:02:00Z"}`)
	s.set(rebalance, `{"noticeTime":"2026-11-23T10:00:00Z"}`)
	ids := map[string]int{}
	for range 2 {
		events := watch(t, s.URL, &syncBuffer{})
		for range 2 {
			ids[next(t, events).ID]++
		}
	}
	if len(ids) != 2 {
		t.Errorf("notices %v, want a spot and a rebalance one, twice each", ids)
	}
}

func TestTheWatcherIsQuietOnlyWhileEC2SaysThatThereIsNoNotice(t *testing.T) {
	s := newService(t)
	w, err := aws.New(aws.Options{Endpoint: s.URL, Interval: 100 * time.Millisecond, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if w.Quiet() {
		t.Error("quiet before it has looked")
	}
	go w.Run(t.Context(), func(interruption.Event) {})
	becomes := func(want bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); w.Quiet() != want; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("quiet is still %t", !want)
			}
		}
	}
	becomes(true)
	s.set(spot, `{"action":"terminate","time":"2026-11-23T10:02:00Z"}`)
	becomes(false)
	s.set(spot, "")
	becomes(true)
	s.breakWith(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	becomes(false)
}

func TestOneMissingAnswerDoesNotWithdrawANotice(t *testing.T) {
	s := newService(t)
	s.set(spot, `{"action":"stop","time":"2026-11-23T10:02:00Z"}`)
	events := watch(t, s.URL, &syncBuffer{})
	next(t, events)
	missed := false
	s.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == spot && !missed {
			missed = true
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		return false
	})
	s.waitForPolls(t, 3)
	noMore(t, events)
}

func TestARebalanceRecommendationHasNoDeadline(t *testing.T) {
	s := newService(t)
	s.set(rebalance, `{"noticeTime":"2026-11-23T10:00:00Z"}`)
	e := next(t, watch(t, s.URL, &syncBuffer{}))
	if e.Kind != interruption.KindRebalance || !e.Deadline.IsZero() {
		t.Fatalf("event %+v", e)
	}
}

func TestATokenThatTheServiceForgotIsReplaced(t *testing.T) {
	s, logged := newService(t), &syncBuffer{}
	events := watch(t, s.URL, logged)
	s.waitForPolls(t, 1)
	s.mu.Lock()
	s.token += 10 // as after a restart
	s.mu.Unlock()
	s.set(spot, `{"action":"terminate","time":"2026-11-23T10:02:00Z"}`)
	next(t, events)
	if logged.String() != "" {
		t.Errorf("logged %s", logged)
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	for _, o := range []aws.Options{{Endpoint: "169.254.169.254"}, {Interval: time.Millisecond}, {Interval: time.Minute}} {
		if _, err := aws.New(o); err == nil {
			t.Errorf("accepted %+v", o)
		}
	}
}

// mock is the amazon-ec2-metadata-mock, which local clusters use too.
func mock(t *testing.T) string {
	for _, path := range []string{os.Getenv("EC2_METADATA_MOCK"), "ec2-metadata-mock"} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	cache, _ := os.UserCacheDir()
	if found, _ := filepath.Glob(filepath.Join(cache, "spotbench", "toolchain", "ec2-metadata-mock-*", "ec2-metadata-mock")); len(found) > 0 {
		return found[0]
	}
	t.Skip("no ec2-metadata-mock: set EC2_METADATA_MOCK to its path, or bring up a local cluster once, which builds it")
	return ""
}

// runMock starts the mock with a command of its and returns its URL.
func runMock(t *testing.T, command ...string) string {
	t.Helper()
	binary := mock(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, append(command, "-n", "127.0.0.1", "-p", port, "-I", "-x", "-1")...)
	cmd.Dir = t.TempDir()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return "http://127.0.0.1:" + port
}

func TestAgainstTheEC2MetadataMock(t *testing.T) {
	deadline := time.Now().Add(2 * time.Minute).UTC().Truncate(time.Second)
	url := runMock(t, "spot", "-d", "1", "--rebalance-delay-sec", "1", "-a", "terminate", "-t", deadline.Format(time.RFC3339))
	events := watch(t, url, &syncBuffer{})
	kinds := map[interruption.Kind]interruption.Event{}
	for range 2 {
		e := next(t, events)
		kinds[e.Kind] = e
	}
	if got := kinds[interruption.KindSpot]; got.Action != "terminate" || !got.Deadline.Equal(deadline) {
		t.Errorf("spot notice %+v, want terminate at %s", got, deadline)
	}
	if _, ok := kinds[interruption.KindRebalance]; !ok {
		t.Errorf("events %v, want a rebalance recommendation as well", kinds)
	}
}

func TestAScheduledEventOfTheEC2MetadataMock(t *testing.T) {
	at := time.Now().Add(48 * time.Hour).UTC().Truncate(time.Second)
	url := runMock(t, "events", "-o", "instance-stop", "-b", at.Format(time.RFC3339), "-a", at.Add(time.Hour).Format(time.RFC3339), "-t", "active")
	e := next(t, watch(t, url, &syncBuffer{}))
	if e.Kind != interruption.KindMaintenance || e.Action != "stop" || !e.Deadline.Equal(at) || e.CloudID == "" {
		t.Errorf("event %+v, want a stop at %s", e, at)
	}
}

func TestTheTargetStateOfTheEC2MetadataMock(t *testing.T) {
	url := runMock(t, "asglifecycle", "--asg-termination-delay-sec", "1")
	e := next(t, watch(t, url, &syncBuffer{}))
	if e.Kind != interruption.KindTermination || e.Action != "terminate" {
		t.Errorf("event %+v, want the end of the instance", e)
	}
}
