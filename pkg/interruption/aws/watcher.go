// SPDX-License-Identifier: Apache-2.0

// Package aws watches EC2's instance metadata (IMDSv2) for the interruption of a
// Spot instance, rebalance recommendations, scheduled events and the end that an
// Auto Scaling group has in mind for the instance.
package aws

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"time"

	"github.com/spotbench/spotbench/pkg/interruption"
	"github.com/spotbench/spotbench/pkg/interruption/endpoint"
)

const pathInstanceID = "/latest/meta-data/instance-id"

var instanceIDPattern = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

// Options of a watcher.
type Options struct {
	// Endpoint is endpoint.Default if empty.
	Endpoint string
	// Node stands for the instance while EC2 does not say its ID.
	Node string
	// Boot tells one start of the machine from the next.
	Boot string
	// Interval between two looks; 1 s if zero. AWS recommends at most 5 s.
	Interval time.Duration
	// Metrics may be nil.
	Metrics *endpoint.Metrics
	Log     *slog.Logger
	// Transport is nil but in tests without a network.
	Transport http.RoundTripper
}

// Watcher is the interruption.Source of an EC2 instance.
type Watcher struct {
	metadata   *metadata
	interval   time.Duration
	health     *endpoint.Health
	ledger     *interruption.Ledger
	node, boot string
	instanceID string // "" until EC2 has said it
	next       int    // the question a look begins with
}

// question is one path that may hold notices.
type question struct {
	path string
	// read turns an answer into what it says. What it returns beside an error holds.
	read func(w *Watcher, body []byte) ([]interruption.Sighting, error)
	// explicit says that an answer without a notice is one that names what there is.
	explicit bool
}

// The reclaim comes first: it leaves the least time.
var questions = []question{
	{path: "/latest/meta-data/spot/instance-action", read: (*Watcher).readSpot},
	{path: "/latest/meta-data/autoscaling/target-lifecycle-state", read: (*Watcher).readLifecycleState, explicit: true},
	{path: "/latest/meta-data/events/recommendations/rebalance", read: (*Watcher).readRebalance},
	{path: "/latest/meta-data/events/maintenance/scheduled", read: (*Watcher).readScheduled, explicit: true},
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
	var paths []string
	for _, q := range questions {
		paths = append(paths, q.path)
	}
	return &Watcher{metadata: &metadata{client: client}, interval: opts.Interval, node: opts.Node, boot: opts.Boot,
		health: endpoint.NewHealth(interruption.AWS, opts.Metrics, opts.Log), ledger: interruption.NewLedger(paths...)}, nil
}

// Probe reports whether the service at the other end is EC2's: whether it gives tokens.
func Probe(ctx context.Context, client *endpoint.Client) error {
	return (&metadata{client: client}).renew(ctx)
}

// Quiet implements interruption.Source.
func (w *Watcher) Quiet() bool { return w.ledger.Quiet() }

// Acknowledge implements interruption.Source; EC2 waits for nobody.
func (w *Watcher) Acknowledge(context.Context, interruption.Notice) (bool, error) {
	return false, nil
}

// Run implements interruption.Source.
func (w *Watcher) Run(ctx context.Context, emit func(interruption.Event)) {
	defer w.metadata.client.Close()
	endpoint.Poll(ctx, w.interval, func(ctx context.Context) (time.Duration, error) {
		return w.interval, w.look(ctx, emit)
	})
}

// look asks each question once. A fault in one answer does not hide another: the
// look goes on, and where the whole service is silent, the next look begins with the
// question after the one that had no answer.
func (w *Watcher) look(ctx context.Context, emit func(interruption.Event)) error {
	errs := []error{w.learnInstanceID(ctx)}
	first := w.next
	w.next = 0
	for i := range questions {
		at := (first + i) % len(questions)
		err := w.ask(ctx, questions[at], emit)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			w.health.Succeeded()
			continue
		}
		w.ledger.Failed(questions[at].path)
		w.health.Failed(err)
		errs = append(errs, err)
		if endpoint.Silent(err) {
			w.next = (at + 1) % len(questions)
			break
		}
	}
	return errors.Join(errs...)
}

// learnInstanceID asks for the instance's ID until it is known. Notices are heard
// without it too.
func (w *Watcher) learnInstanceID(ctx context.Context) error {
	if w.instanceID != "" {
		return nil
	}
	answer, err := w.metadata.get(ctx, pathInstanceID)
	switch {
	case err != nil:
	case answer.Status != http.StatusOK:
		err = answer.Unexpected("GET " + pathInstanceID)
	case !instanceIDPattern.Match(answer.Body):
		err = endpoint.Errorf(endpoint.Malformed, "GET %s: the answer %.40q is not the ID of an instance", pathInstanceID, answer.Body)
	default:
		w.instanceID = string(answer.Body)
		return nil
	}
	if ctx.Err() == nil {
		w.health.Failed(err)
	}
	return err
}

func (w *Watcher) ask(ctx context.Context, q question, emit func(interruption.Event)) error {
	answer, err := w.metadata.get(ctx, q.path)
	if err != nil {
		return err
	}
	said := interruption.Answer{Question: q.path, ClockAhead: answer.ClockAhead()}
	if answer.Status == http.StatusOK {
		said.Sightings, err = q.read(w, answer.Body)
		if err != nil && len(said.Sightings) == 0 {
			return endpoint.Errorf(endpoint.Malformed, "GET %s: %w", q.path, err)
		}
		said.Explicit, said.Partial = q.explicit, err != nil
	}
	w.ledger.Answered(time.Now().UTC(), said, emit)
	if err != nil {
		return endpoint.Errorf(endpoint.Malformed, "GET %s: %w", q.path, err)
	}
	return nil
}

func (w *Watcher) notice(kind interruption.Kind, action string, deadline time.Time, distinguishing ...string) interruption.Notice {
	instance := w.instanceID
	if instance == "" {
		instance = w.node
	}
	return interruption.Notice{Provider: interruption.AWS, Kind: kind, Action: action, Deadline: deadline,
		ID: interruption.NoticeID(instance, kind, distinguishing...)}
}

// A reclaim is known by its action: its time may be made up anew for each answer.
func (w *Watcher) readSpot(body []byte) ([]interruption.Sighting, error) {
	answer, err := parseInstanceAction(body)
	if err != nil {
		return nil, err
	}
	return []interruption.Sighting{{Key: answer.action, Notice: w.notice(interruption.KindSpot, answer.action, answer.at,
		answer.action, answer.at.Format(time.RFC3339))}}, nil
}

func (w *Watcher) readRebalance(body []byte) ([]interruption.Sighting, error) {
	at, err := parseRebalance(body)
	if err != nil {
		return nil, err
	}
	return []interruption.Sighting{{Notice: w.notice(interruption.KindRebalance, "", time.Time{}, "", at.Format(time.RFC3339))}}, nil
}

func (w *Watcher) readScheduled(body []byte) ([]interruption.Sighting, error) {
	events, err := parseScheduledEvents(body)
	var sightings []interruption.Sighting
	for _, e := range events {
		notice := w.notice(interruption.KindMaintenance, e.action, e.at, e.id)
		notice.CloudID = e.id
		sightings = append(sightings, interruption.Sighting{Key: e.id, Notice: notice})
	}
	return sightings, err
}

// The group's state says neither when the instance ends nor which end this is: the
// time depends on the lifecycle hooks, and a warm pool starts the instance again.
func (w *Watcher) readLifecycleState(body []byte) ([]interruption.Sighting, error) {
	state, ends, err := parseLifecycleState(body)
	if err != nil || !ends {
		return nil, err
	}
	action := "terminate"
	if state != "Terminated" {
		action = "stop"
	}
	return []interruption.Sighting{{Key: state, Notice: w.notice(interruption.KindTermination, action, time.Time{}, state, w.boot)}}, nil
}
