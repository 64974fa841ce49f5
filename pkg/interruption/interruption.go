// SPDX-License-Identifier: Apache-2.0

// Package interruption is what a cloud says about the end of an instance, in the
// same words for every cloud.
package interruption

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
)

// Provider is a cloud.
type Provider string

// The clouds whose notices are understood.
const (
	AWS   Provider = "aws"
	GCP   Provider = "gcp"
	Azure Provider = "azure"
)

// Kind is what a notice announces.
type Kind string

// Kinds of notices.
const (
	// KindSpot is the reclaim of the instance at the deadline.
	KindSpot Kind = "spot"
	// KindRebalance is a raised risk of a reclaim, without a deadline.
	KindRebalance Kind = "rebalance"
	// KindMaintenance is work of the cloud's own that stops or restarts the machine,
	// often days ahead.
	KindMaintenance Kind = "maintenance"
	// KindTermination is the removal of the instance by its owner or by the group it
	// belongs to.
	KindTermination Kind = "termination"
	// KindPause is a short stop that the machine and its memory survive: a live
	// migration or a freeze. It does spoil what is being measured.
	KindPause Kind = "pause"
)

// TakesMachine reports whether nothing that runs on the machine survives.
func (k Kind) TakesMachine() bool { return k != KindRebalance && k != KindPause }

// Notice is one announcement about this node's instance.
type Notice struct {
	// ID is the same each time the notice is seen, also by an agent that was started
	// again, and another for the next notice of the instance.
	ID string
	// CloudID is what the cloud calls the event; empty where it gives it no name.
	CloudID  string
	Provider Provider
	Kind     Kind
	// Action is what the cloud will do, as a verb: "terminate", "stop", "hibernate",
	// "reboot", "retire", "maintain", "redeploy", "migrate", "freeze"; empty for a
	// rebalance recommendation.
	Action string
	// SeenAt is when this process saw it first.
	SeenAt time.Time
	// Deadline is when the cloud takes the instance; zero if it does not say.
	Deadline time.Time
}

// Event is a change: a notice was given, or one given before was withdrawn or is over.
type Event struct {
	Notice
	Withdrawn bool
}

// Source watches for notices about this node.
type Source interface {
	// Run calls emit for each change, never twice at once, until ctx ends. It does
	// not end because of errors.
	Run(ctx context.Context, emit func(Event))
	// Quiet reports whether the cloud has just said, more than once, that it will
	// not take the machine. It is false while the cloud cannot be asked.
	Quiet() bool
	// Acknowledge tells the cloud that it need not wait any longer, trying until it
	// has heard, and reports whether it has. It returns false at once where the cloud
	// waits for nobody, the notice is no longer in force, or it is not ours alone to
	// answer.
	Acknowledge(ctx context.Context, notice Notice) (bool, error)
}

// NoticeID is the instance and the kind with a digest of what tells this notice from
// the instance's other ones.
func NoticeID(instance string, kind Kind, distinguishing ...string) string {
	sum := sha256.Sum256([]byte(instance + "\x00" + string(kind) + "\x00" + strings.Join(distinguishing, "\x00")))
	return instance + "-" + string(kind) + "-" + hex.EncodeToString(sum[:6])
}
