// SPDX-License-Identifier: Apache-2.0

// Package gcp watches Compute Engine's metadata server for the preemption of a Spot
// instance and for maintenance of its host, by requests that the server answers when
// something changes.
package gcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spotbench/spotbench/pkg/interruption"
	"github.com/spotbench/spotbench/pkg/interruption/endpoint"
)

const (
	root             = "/computeMetadata/v1/instance/"
	pathID           = root + "id"
	pathPreempted    = root + "preempted"
	pathMaintenance  = root + "maintenance-event"
	flavorHeader     = "Metadata-Flavor"
	flavor           = "Google"
	requestTimeout   = 2 * time.Second
	longestETag      = 256 // bytes
	defaultHold      = 5 * time.Second
	leastHold        = time.Second
	longestHold      = 5 * time.Minute
	leastDeadline    = time.Second
	longestDeadline  = 24 * time.Hour
	defaultIntervals = time.Second
)

var idPattern = regexp.MustCompile(`^[0-9]{1,20}$`)

// Options of a watcher. Zero durations take their default.
type Options struct {
	// Endpoint is endpoint.Default if empty; the name metadata.google.internal is not
	// used, so that a notice does not wait for DNS.
	Endpoint string
	// Node stands for the instance while the server does not say its ID.
	Node string
	// Boot tells one start of the machine from the next: a preempted instance may be
	// started again.
	Boot string
	// Notice (30 s) is the time from preempted being TRUE to the end of the machine: 30 s,
	// and the instance's preemptionNoticeDuration where it has one.
	Notice time.Duration
	// MaintenanceNotice (60 s) is the time from maintenance-event to the maintenance.
	// Compute Engine gives instances with GPUs an hour.
	MaintenanceNotice time.Duration
	// Hold (5 s) is how long the server may hold a request while nothing changes. It is
	// also about how long a connection that died silently can hide a notice.
	Hold time.Duration
	// Interval (1 s) is the pause between requests that the server did not hold.
	Interval time.Duration
	// Metrics may be nil.
	Metrics *endpoint.Metrics
	Log     *slog.Logger
	// Transport is nil but in tests without a network.
	Transport http.RoundTripper
}

// Watcher is the interruption.Source of a Compute Engine instance.
type Watcher struct {
	opts      Options
	health    *endpoint.Health
	ledger    *interruption.Ledger
	questions []*question

	mu sync.Mutex
	id string // "" until the server has said it
}

// question is one value that is waited for, over a connection of its own: a held
// request occupies it.
type question struct {
	path   string
	client *endpoint.Client
	read   func(w *Watcher, value, etag string, now time.Time) ([]interruption.Sighting, error)
	etag   string // of the last answer that was understood; "" before that
}

// New makes a watcher; it asks nothing yet.
func New(opts Options) (*Watcher, error) {
	for value, limits := range map[*time.Duration]struct {
		name             string
		def, least, most time.Duration
	}{
		&opts.Notice:            {"preemption notice", DefaultNotice, leastDeadline, longestDeadline},
		&opts.MaintenanceNotice: {"maintenance notice", DefaultMaintenanceNotice, leastDeadline, longestDeadline},
		&opts.Hold:              {"hold", defaultHold, leastHold, longestHold},
		&opts.Interval:          {"metadata interval", defaultIntervals, 100 * time.Millisecond, 5 * time.Second},
	} {
		if *value == 0 {
			*value = limits.def
		}
		if *value < limits.least || *value > limits.most {
			return nil, fmt.Errorf("%s %s is out of range; use %s to %s", limits.name, *value, limits.least, limits.most)
		}
	}
	w := &Watcher{opts: opts, health: endpoint.NewHealth(interruption.GCP, opts.Metrics, opts.Log),
		ledger: interruption.NewLedger(pathPreempted, pathMaintenance),
		questions: []*question{{path: pathPreempted, read: (*Watcher).readPreempted},
			{path: pathMaintenance, read: (*Watcher).readMaintenance}}}
	for _, q := range w.questions {
		client, err := endpoint.NewClient(opts.Endpoint, opts.Transport)
		if err != nil {
			return nil, err
		}
		q.client = client
	}
	return w, nil
}

// Probe reports whether the service at the other end is Compute Engine's.
func Probe(ctx context.Context, client *endpoint.Client) error {
	_, err := get(ctx, client, pathID, requestTimeout)
	return err
}

// get asks for one value. Only the header of the answer tells Google's server from
// another one that answers everything.
func get(ctx context.Context, client *endpoint.Client, path string, timeout time.Duration) (endpoint.Answer, error) {
	answer, err := client.Get(ctx, path, timeout, map[string]string{flavorHeader: flavor})
	name, _, _ := strings.Cut(path, "?")
	switch {
	case err != nil:
		return answer, err
	case answer.Status != http.StatusOK:
		return answer, answer.Unexpected("GET " + name)
	case answer.Header.Get(flavorHeader) != flavor:
		return answer, endpoint.Errorf(endpoint.Stranger, "GET %s: the answer has no header %s: %s, so it is not from Google's server", name, flavorHeader, flavor)
	}
	return answer, nil
}

// Quiet implements interruption.Source.
func (w *Watcher) Quiet() bool { return w.ledger.Quiet() }

// Acknowledge implements interruption.Source; Compute Engine waits for nobody.
func (w *Watcher) Acknowledge(context.Context, interruption.Notice) (bool, error) {
	return false, nil
}

// Run implements interruption.Source.
func (w *Watcher) Run(ctx context.Context, emit func(interruption.Event)) {
	var all sync.WaitGroup
	for _, q := range w.questions {
		all.Go(func() {
			defer q.client.Close()
			endpoint.Poll(ctx, w.opts.Interval, func(ctx context.Context) (time.Duration, error) { return w.look(ctx, q, emit) })
		})
	}
	all.Wait()
}

// look asks for a value: at once as long as none is known, and then for the next
// change. It returns how long to wait until the next look.
func (w *Watcher) look(ctx context.Context, q *question, emit func(interruption.Event)) (time.Duration, error) {
	idErr := w.learnID(ctx, q.client)
	asked := time.Now()
	err := w.ask(ctx, q, emit)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	for _, err := range []error{idErr, err} {
		if err != nil {
			w.health.Failed(err)
		}
	}
	if err != nil {
		w.ledger.Failed(q.path)
		return 0, errors.Join(idErr, err)
	}
	w.health.Succeeded()
	// A server that does not hold requests is asked at intervals.
	return max(0, w.opts.Interval-time.Since(asked)), nil
}

func (w *Watcher) ask(ctx context.Context, q *question, emit func(interruption.Event)) error {
	path, timeout := q.path, requestTimeout
	if q.etag != "" {
		path += "?" + url.Values{"wait_for_change": {"true"}, "last_etag": {q.etag},
			"timeout_sec": {strconv.Itoa(int(w.opts.Hold.Seconds()))}}.Encode()
		timeout += w.opts.Hold
	}
	answer, err := get(ctx, q.client, path, timeout)
	if err != nil {
		// The state may have changed meanwhile, in a server that knows no etags of before.
		q.etag = ""
		return err
	}
	etag := answer.Header.Get("ETag")
	if len(etag) > longestETag {
		etag = ""
	}
	now := time.Now().UTC()
	sightings, err := q.read(w, string(answer.Body), etag, now)
	if err != nil {
		q.etag = ""
		return endpoint.Errorf(endpoint.Malformed, "GET %s: %w", q.path, err)
	}
	q.etag = etag
	w.ledger.Answered(now, interruption.Answer{Question: q.path, Sightings: sightings, Explicit: true}, emit)
	return nil
}

// learnID asks for the instance's ID until it is known. Notices are heard without it too.
func (w *Watcher) learnID(ctx context.Context, client *endpoint.Client) error {
	w.mu.Lock()
	known := w.id != ""
	w.mu.Unlock()
	if known {
		return nil
	}
	answer, err := get(ctx, client, pathID, requestTimeout)
	if err != nil {
		return err
	}
	id := strings.TrimSpace(string(answer.Body))
	if !idPattern.MatchString(id) {
		return endpoint.Errorf(endpoint.Malformed, "GET %s: the answer %.40q is not the ID of an instance", pathID, id)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.id = id
	return nil
}

func (w *Watcher) notice(kind interruption.Kind, action string, deadline time.Time, etag string) interruption.Notice {
	w.mu.Lock()
	defer w.mu.Unlock()
	instance := w.id
	if instance == "" {
		instance = w.opts.Node
	}
	// The etag changes with the value, so it tells this notice from one like it before.
	return interruption.Notice{Provider: interruption.GCP, Kind: kind, Action: action, Deadline: deadline,
		ID: interruption.NoticeID(instance, kind, action, w.opts.Boot, etag)}
}

func (w *Watcher) readPreempted(value, etag string, now time.Time) ([]interruption.Sighting, error) {
	preempted, err := parsePreempted(value)
	if err != nil || !preempted {
		return nil, err
	}
	return []interruption.Sighting{{Notice: w.notice(interruption.KindSpot, "terminate", now.Add(w.opts.Notice), etag)}}, nil
}

func (w *Watcher) readMaintenance(value, etag string, now time.Time) ([]interruption.Sighting, error) {
	kind, action, err := parseMaintenance(value)
	if err != nil || kind == "" {
		return nil, err
	}
	// The server says that, not when; what counts is when it was first heard.
	return []interruption.Sighting{{Key: action, Notice: w.notice(kind, action, now.Add(w.opts.MaintenanceNotice), etag)}}, nil
}
