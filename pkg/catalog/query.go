// SPDX-License-Identifier: Apache-2.0

package catalog

import "errors"

// What a store answers besides its own failures.
var (
	// ErrNotFound: there is no such run.
	ErrNotFound = errors.New("not found")
	// ErrInvalid: the value cannot be stored; the message says why.
	ErrInvalid = errors.New("invalid")
	// ErrChanged: the run is no longer as the writer saw it.
	ErrChanged = errors.New("changed since it was read")
)

// Bounds on the size of a page.
const (
	DefaultLimit = 50
	MaxLimit     = 500
)

// RunQuery says which runs to list, the newest first; what is empty matches all.
type RunQuery struct {
	Model, Benchmark, GPUModel, Namespace string
	Status                                Status
	Limit                                 int
	PageToken                             string
}

// ResultQuery says which results to list, the newest import first.
type ResultQuery struct {
	RunKey, Model string
	Limit         int
	PageToken     string
}

// InterruptionQuery says which interruptions to list, the newest first.
type InterruptionQuery struct {
	RunKey, Node string
	Limit        int
	PageToken    string
}

// PageSize is the size of a page for a limit that was asked for.
func PageSize(limit int) int {
	if limit <= 0 {
		return DefaultLimit
	}
	return min(limit, MaxLimit)
}
