// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"errors"
	"time"
)

// What a store answers besides its own failures.
var (
	// ErrNotFound: there is no such run.
	ErrNotFound = errors.New("not found")
	// ErrInvalid: the value cannot be stored; the message says why.
	ErrInvalid = errors.New("invalid")
	// ErrChanged: the run is no longer as the writer saw it.
	ErrChanged = errors.New("changed since it was read")
)

// InvalidField is ErrInvalid for one parameter of a question.
type InvalidField struct{ Name, Problem string }

func (e *InvalidField) Error() string { return e.Name + " " + e.Problem }

// Is makes it an ErrInvalid.
func (e *InvalidField) Is(target error) bool { return target == ErrInvalid }

// What a writer may expect of a run instead of a revision of it (which is 1 or
// more); 0 is nothing at all.
const (
	// NotYet: there is no such run.
	NotYet = -1
	// AnyRevision: there is one.
	AnyRevision = -2
)

// Bounds on the size of a page.
const (
	DefaultLimit = 50
	MaxLimit     = 500
)

// MaxMeasured is the most runs that are compared at once.
const MaxMeasured = 500

// RunQuery says which runs to list, the newest first; what is empty matches all.
type RunQuery struct {
	Model, Benchmark, GPUModel, Namespace string
	Node, Region, InstanceType            string
	CapacityType                          string
	Engine, EngineVersion, DriverVersion  string
	Status                                Status
	Verdict                               Verdict
	// Since and Before bound the start of the runs: at or after, and before.
	Since, Before time.Time
	// Sort is what they are sorted by instead of their start, one of filter.RunList's;
	// the greatest come first, or with OldestFirst the least.
	Sort        string
	OldestFirst bool
	Limit       int
	PageToken   string
}

// ResultQuery says which results to list, the newest import first.
type ResultQuery struct {
	RunKey, Model string
	// Format is that of the file; GPUModel is the run's.
	Format, GPUModel string
	// Verdict is that on the run.
	Verdict Verdict
	// Concurrency, unless nil, is the most requests in flight.
	Concurrency *int64
	// Since and Before bound the time of import: at or after, and before.
	Since, Before time.Time
	// Sort is what they are sorted by instead, one of filter.ResultList's. Results that
	// do not have the figure are left out.
	Sort        string
	OldestFirst bool
	Limit       int
	PageToken   string
}

// InterruptionQuery says which interruptions to list, the newest first.
type InterruptionQuery struct {
	RunKey, Node string
	Kind         string
	// Since and Before bound the notice: at or after, and before.
	Since, Before time.Time
	// Sort is what they are sorted by instead, one of filter.InterruptionList's.
	Sort        string
	OldestFirst bool
	Limit       int
	PageToken   string
}

// InstanceQuery says which machines to list, the youngest first; what is empty
// matches all.
type InstanceQuery struct {
	Provider, Region, Zone, InstanceType, CapacityType string
	Node                                               string
	// Sort is what they are sorted by instead of their start, one of filter.InstanceList's.
	Sort        string
	OldestFirst bool
	Limit       int
	PageToken   string
}

// PageSize is the size of a page for a limit that was asked for.
func PageSize(limit int) int {
	if limit <= 0 {
		return DefaultLimit
	}
	return min(limit, MaxLimit)
}
