// SPDX-License-Identifier: Apache-2.0

// Package azure watches Azure's Scheduled Events for the eviction of a Spot machine,
// its removal and the maintenance of its host.
package azure

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/spotbench/spotbench/pkg/interruption"
	"github.com/spotbench/spotbench/pkg/interruption/endpoint"
)

const (
	pathEvents   = "/metadata/scheduledevents?api-version=2020-07-01"
	pathInstance = "/metadata/instance?api-version=2021-02-01"

	requestTimeout = 2 * time.Second
	eventsTimeout  = 5 * time.Second
	// The first call turns the service on, which may take two minutes. It is turned off
	// after a day without a call.
	firstTimeout = 130 * time.Second
	turnedOff    = 24 * time.Hour
	// stale is how many documents in a row may be older than one that was seen before
	// they count as those of a service that has started counting anew.
	stale = 3
)

// Options of a watcher.
type Options struct {
	// Endpoint is endpoint.Default if empty.
	Endpoint string
	// Interval between two looks; 1 s if zero, as Azure recommends.
	Interval time.Duration
	// Metrics may be nil.
	Metrics *endpoint.Metrics
	Log     *slog.Logger
	// Transport is nil but in tests without a network.
	Transport http.RoundTripper
}

// Watcher is the interruption.Source of an Azure virtual machine.
type Watcher struct {
	client   *endpoint.Client
	interval time.Duration
	log      *slog.Logger
	health   *endpoint.Health
	ledger   *interruption.Ledger

	name        string    // of this machine; "" until the service has said it
	answered    time.Time // when the events were last read; zero before that
	incarnation int64     // of the newest document; -1 before that
	older       int       // documents in a row that are older than it

	mu     sync.Mutex
	events map[string]event // those of this machine that are in force, by their ID
}

// New makes a watcher; it asks nothing yet.
func New(opts Options) (*Watcher, error) {
	client, err := endpoint.NewClient(opts.Endpoint, opts.Transport)
	if err != nil {
		return nil, err
	}
	if opts.Interval == 0 {
		opts.Interval = time.Second
	}
	if opts.Interval < 100*time.Millisecond || opts.Interval > 5*time.Second {
		return nil, fmt.Errorf("metadata interval %s is out of range; use 100ms to 5s", opts.Interval)
	}
	return &Watcher{client: client, interval: opts.Interval, log: opts.Log, incarnation: -1, events: map[string]event{},
		health: endpoint.NewHealth(interruption.Azure, opts.Metrics, opts.Log), ledger: interruption.NewLedger(pathEvents)}, nil
}

// Probe reports whether the service at the other end is Azure's.
func Probe(ctx context.Context, client *endpoint.Client) error {
	_, err := ownName(ctx, client)
	return err
}

func ownName(ctx context.Context, client *endpoint.Client) (string, error) {
	answer, err := client.Get(ctx, pathInstance, requestTimeout, map[string]string{"Metadata": "true"})
	if err != nil {
		return "", err
	}
	if answer.Status != http.StatusOK {
		return "", answer.Unexpected("GET " + pathInstance)
	}
	name, err := parseName(answer.Body)
	if err != nil {
		return "", endpoint.Errorf(endpoint.Malformed, "GET %s: %w", pathInstance, err)
	}
	return name, nil
}

// Quiet implements interruption.Source.
func (w *Watcher) Quiet() bool { return w.ledger.Quiet() }

// Run implements interruption.Source.
func (w *Watcher) Run(ctx context.Context, emit func(interruption.Event)) {
	defer w.client.Close()
	endpoint.Poll(ctx, w.interval, func(ctx context.Context) (time.Duration, error) {
		err := w.look(ctx, emit)
		switch {
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case err != nil:
			w.ledger.Failed(pathEvents)
			w.health.Failed(err)
		default:
			w.health.Succeeded()
		}
		return w.interval, err
	})
}

// look reads the events once. Without the machine's own name an event cannot be told
// from one of its neighbours', so the name comes first.
func (w *Watcher) look(ctx context.Context, emit func(interruption.Event)) error {
	if w.name == "" {
		name, err := ownName(ctx, w.client)
		if err != nil {
			return err
		}
		w.name = name
	}
	timeout := eventsTimeout
	if w.answered.IsZero() || time.Since(w.answered) >= turnedOff {
		timeout = firstTimeout
	}
	answer, err := w.client.Get(ctx, pathEvents, timeout, map[string]string{"Metadata": "true"})
	if err != nil {
		return err
	}
	if answer.Status != http.StatusOK {
		return answer.Unexpected("GET " + pathEvents)
	}
	doc, broken := parseDocument(answer.Body)
	if broken != nil {
		broken = endpoint.Errorf(endpoint.Malformed, "GET %s: %w", pathEvents, broken)
		if len(doc.events) == 0 {
			return broken
		}
	}
	now := time.Now().UTC()
	w.answered = now
	if doc.incarnation < w.incarnation {
		if w.older++; w.older < stale {
			return endpoint.Errorf(endpoint.Malformed, "GET %s: document %d is older than document %d, which was seen before", pathEvents, doc.incarnation, w.incarnation)
		}
	}
	// A document of another number is one in which something has changed; in one of
	// the same number nothing can be missing.
	changed := doc.incarnation != w.incarnation
	w.incarnation, w.older = doc.incarnation, 0
	said := w.answer(doc, changed, broken != nil)
	said.ClockAhead = answer.ClockAhead()
	w.ledger.Answered(now, said, emit)
	return broken
}

// answer is what the document says about this machine.
func (w *Watcher) answer(doc document, changed, partial bool) interruption.Answer {
	answer := interruption.Answer{Question: pathEvents, Explicit: changed, Partial: partial}
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.events)
	for _, e := range doc.events {
		if !e.affects(w.name) {
			continue
		}
		w.events[e.id] = e
		answer.Sightings = append(answer.Sightings, interruption.Sighting{Key: e.id, Begun: e.started, Notice: interruption.Notice{
			ID: interruption.NoticeID(w.name, e.kind, e.id), CloudID: e.id, Provider: interruption.Azure,
			Kind: e.kind, Action: e.action, Deadline: e.notBefore}})
	}
	return answer
}

// Acknowledge implements interruption.Source. It lets an event go ahead for every
// machine that it names, so an event that names others too is left to its time: their
// work may not be saved yet.
func (w *Watcher) Acknowledge(ctx context.Context, n interruption.Notice) (bool, error) {
	body, err := json.Marshal(map[string]any{"StartRequests": []map[string]string{{"EventId": n.CloudID}}})
	if err != nil {
		return false, err
	}
	for {
		w.mu.Lock()
		e, inForce := w.events[n.CloudID]
		w.mu.Unlock()
		switch {
		case !inForce || e.started:
			return false, nil
		case len(e.resources) > 1:
			w.log.Info("the event is not acknowledged, because it names other machines too", "notice", n.ID, "event", e.id, "machines", len(e.resources))
			return false, nil
		}
		answer, err := w.client.Do(ctx, endpoint.Request{Method: http.MethodPost, Path: pathEvents, Body: body, Timeout: eventsTimeout,
			Header: map[string]string{"Metadata": "true", "Content-Type": "application/json"}})
		if err == nil && answer.Status == http.StatusOK {
			return true, nil
		}
		if err == nil {
			err = answer.Unexpected("POST " + pathEvents)
		}
		if endpoint.ReasonOf(err) == endpoint.Status {
			return false, err // it will not take it
		}
		select {
		case <-time.After(w.interval):
		case <-ctx.Done():
			return false, fmt.Errorf("acknowledge %s: %w", n.ID, err)
		}
	}
}
