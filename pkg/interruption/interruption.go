// SPDX-License-Identifier: Apache-2.0

// Package interruption is what a cloud says about the end of an instance, in the
// same words for every cloud.
package interruption

import (
	"context"
	"time"
)

// Kind is what a notice announces.
type Kind string

// Kinds of notices.
const (
	// KindSpot is the reclaim of the instance at the deadline.
	KindSpot Kind = "spot"
	// KindRebalance is a raised risk of a reclaim, without a deadline.
	KindRebalance Kind = "rebalance"
)

// Notice is one announcement about this node's instance.
type Notice struct {
	// ID is the same each time the notice is seen, also by an agent that was started
	// again, and another for the next notice of the instance.
	ID   string
	Kind Kind
	// Action is what the cloud will do: "terminate", "stop", "hibernate"; empty for
	// a rebalance recommendation.
	Action string
	// SeenAt is when this process saw it first.
	SeenAt time.Time
	// Deadline is when the cloud takes the instance; zero if it does not say.
	Deadline time.Time
}

// Event is a change: a notice was given, or one given before was withdrawn.
type Event struct {
	Notice
	Withdrawn bool
}

// Source watches for notices about this node.
type Source interface {
	// Run calls emit, from one goroutine, for each change until ctx ends. It does
	// not end because of errors.
	Run(ctx context.Context, emit func(Event))
}
