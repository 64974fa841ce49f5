// SPDX-License-Identifier: Apache-2.0

// Package aws watches EC2's instance metadata (IMDSv2) for the interruption of a
// Spot instance and for rebalance recommendations.
package aws

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/spotbench/spotbench/pkg/interruption"
)

// DefaultEndpoint is where EC2 serves the metadata of an instance.
const DefaultEndpoint = "http://169.254.169.254"

const (
	pathInstanceID = "/latest/meta-data/instance-id"
	pathSpot       = "/latest/meta-data/spot/instance-action"
	pathRebalance  = "/latest/meta-data/events/recommendations/rebalance"
)

// withdrawnAfter is how many answers in a row must say that there is no notice
// before one that was there counts as withdrawn.
const withdrawnAfter = 2

var instanceIDPattern = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

// Options of a watcher.
type Options struct {
	// Endpoint is DefaultEndpoint if empty.
	Endpoint string
	// Interval between two looks; 1 s if zero. AWS recommends at most 5 s.
	Interval time.Duration
	Log      *slog.Logger
}

// Watcher is the interruption.Source of an EC2 instance.
type Watcher struct {
	metadata   *metadata
	interval   time.Duration
	log        *slog.Logger
	instanceID string
	spot       *held
	rebalance  *held
	absent     int // answers in a row without a notice of an interruption
	quiet      atomic.Bool
}

// held is a notice that is in force.
type held struct {
	notice interruption.Notice
	absent int // answers in a row without it
}

// New makes a watcher; it asks nothing yet.
func New(opts Options) (*Watcher, error) {
	if opts.Endpoint == "" {
		opts.Endpoint = DefaultEndpoint
	}
	if opts.Interval == 0 {
		opts.Interval = time.Second
	}
	if u, err := url.Parse(opts.Endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("metadata endpoint %q is not a URL; use for example %s", opts.Endpoint, DefaultEndpoint)
	}
	if opts.Interval < 100*time.Millisecond || opts.Interval > 5*time.Second {
		return nil, fmt.Errorf("metadata interval %s is out of range; use 100ms to 5s", opts.Interval)
	}
	return &Watcher{metadata: newMetadata(opts.Endpoint), interval: opts.Interval, log: opts.Log}, nil
}

// Quiet reports whether EC2 has just said, more than once, that it will not
// interrupt the instance. It is false while the metadata cannot be read.
func (w *Watcher) Quiet() bool { return w.quiet.Load() }

// Run implements interruption.Source. Errors are logged when they begin, change
// and end, and make it ask less often, down to every 5 s.
func (w *Watcher) Run(ctx context.Context, emit func(interruption.Event)) {
	backoff, said := w.newBackoff(), ""
	for {
		err := w.look(ctx, emit)
		if ctx.Err() != nil {
			return
		}
		pause := w.interval
		if err != nil {
			pause = backoff.Step()
			if err.Error() != said {
				said = err.Error()
				w.log.Warn("the instance metadata cannot be read; notices may be missed", "error", said)
			}
		} else {
			if said != "" {
				w.log.Info("the instance metadata is read again")
			}
			backoff, said = w.newBackoff(), ""
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (w *Watcher) newBackoff() *wait.Backoff {
	return &wait.Backoff{Duration: w.interval, Factor: 1.5, Jitter: 0.3, Steps: 20, Cap: 5 * time.Second}
}

// look asks once for everything.
func (w *Watcher) look(ctx context.Context, emit func(interruption.Event)) error {
	if w.instanceID == "" {
		id, err := w.metadata.get(ctx, pathInstanceID)
		if err != nil {
			return fmt.Errorf("instance-id: %w", err)
		}
		if !instanceIDPattern.Match(id) {
			return fmt.Errorf("instance-id: the answer %.40q is not the ID of an instance", id)
		}
		w.instanceID = string(id)
	}
	// A fault in one answer must not hide the other.
	spot, rebalance := w.lookForSpot(ctx, emit), w.lookForRebalance(ctx, emit)
	if spot != nil && rebalance != nil && spot.Error() == rebalance.Error() {
		return spot
	}
	return errors.Join(spot, rebalance)
}

func (w *Watcher) lookForSpot(ctx context.Context, emit func(interruption.Event)) error {
	data, err := w.metadata.get(ctx, pathSpot)
	if errors.Is(err, errNotFound) {
		w.spot = w.spot.missing(emit)
		w.absent++
		w.quiet.Store(w.absent >= withdrawnAfter && w.spot == nil)
		return nil
	}
	w.absent = 0
	w.quiet.Store(false)
	if err != nil {
		return err
	}
	answer, err := parseInstanceAction(data)
	if err != nil {
		return err
	}
	w.spot = w.spot.present(interruption.Notice{Kind: interruption.KindSpot, Action: answer.action, Deadline: answer.at}, answer.at, w.instanceID, emit)
	return nil
}

func (w *Watcher) lookForRebalance(ctx context.Context, emit func(interruption.Event)) error {
	data, err := w.metadata.get(ctx, pathRebalance)
	if errors.Is(err, errNotFound) {
		w.rebalance = w.rebalance.missing(emit)
		return nil
	}
	if err != nil {
		return err
	}
	at, err := parseRebalance(data)
	if err != nil {
		return err
	}
	w.rebalance = w.rebalance.present(interruption.Notice{Kind: interruption.KindRebalance}, at, w.instanceID, emit)
	return nil
}

// missing is the state after an answer without a notice.
func (h *held) missing(emit func(interruption.Event)) *held {
	if h == nil {
		return nil
	}
	if h.absent++; h.absent < withdrawnAfter {
		return h
	}
	emit(interruption.Event{Notice: h.notice, Withdrawn: true})
	return nil
}

// present is the state after an answer with a notice. The notice that is in force
// stays as it was first given, even if its time moves; only another action is
// another notice.
func (h *held) present(notice interruption.Notice, at time.Time, instanceID string, emit func(interruption.Event)) *held {
	if h != nil {
		h.absent = 0
		if h.notice.Action == notice.Action {
			return h
		}
		emit(interruption.Event{Notice: h.notice, Withdrawn: true})
	}
	notice.SeenAt = time.Now().UTC()
	notice.ID = noticeID(instanceID, notice, at)
	emit(interruption.Event{Notice: notice})
	return &held{notice: notice}
}

// noticeID is the instance with a digest of what was announced and the time that
// was given with it when it was seen first. An agent that is started again during a
// notice finds the same one.
func noticeID(instanceID string, n interruption.Notice, at time.Time) string {
	sum := sha256.Sum256([]byte(instanceID + "\x00" + string(n.Kind) + "\x00" + n.Action + "\x00" + at.Format(time.RFC3339)))
	return instanceID + "-" + string(n.Kind) + "-" + hex.EncodeToString(sum[:6])
}
