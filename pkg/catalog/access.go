// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"
)

// Role is what a caller may do. Each may also do what those before it may.
type Role string

// The roles.
const (
	Reader Role = "read"
	Writer Role = "write"
	Admin  Role = "admin"
)

// Includes reports whether a caller of this role may do what needs another.
func (r Role) Includes(need Role) bool { return rank(r) >= rank(need) && rank(r) > 0 }

func rank(r Role) int {
	switch r {
	case Reader:
		return 1
	case Writer:
		return 2
	case Admin:
		return 3
	}
	return 0
}

// APIKey is the key of a person or tool, without its secret.
type APIKey struct {
	ID   string `json:"id" doc:"Name of the key" example:"ci"`
	Role Role   `json:"role" enum:"read,write,admin"`
	// Namespaces are those that the key is limited to; absent is all.
	Namespaces Namespaces `json:"namespaces,omitempty" nullable:"false" minItems:"1" maxItems:"32" doc:"Namespaces whose runs it may see and write; absent: all" example:"[\"team-a\"]"`
	CreatedAt  time.Time  `json:"createdAt"`
	CreatedBy  string     `json:"createdBy,omitempty"`
	RotatedAt  time.Time  `json:"rotatedAt,omitzero" doc:"When it last got a new secret"`
	ExpiresAt  time.Time  `json:"expiresAt"`
	RevokedAt  time.Time  `json:"revokedAt,omitzero"`
	LastUsedAt time.Time  `json:"lastUsedAt,omitzero" doc:"To the minute"`
}

// MaxKeyLife is the longest that a key may live without a new one.
const MaxKeyLife = 2 * 366 * 24 * time.Hour

var keyID = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// Validate checks a key that is to be made.
func (k APIKey) Validate(now time.Time) error {
	var errs []error
	if !keyID.MatchString(k.ID) {
		errs = append(errs, fmt.Errorf("id %q: use at most 63 of a-z, 0-9, - and ., with a letter or digit at both ends", k.ID))
	}
	if rank(k.Role) == 0 {
		errs = append(errs, fmt.Errorf("role %q: use read, write or admin", k.Role))
	}
	errs = append(errs, k.Namespaces.Validate())
	if k.Role == Admin && k.Namespaces.Limited() {
		errs = append(errs, errors.New("namespaces: a key of the role admin is for all namespaces; leave them out"))
	}
	if !k.ExpiresAt.After(now) || k.ExpiresAt.After(now.Add(MaxKeyLife)) {
		errs = append(errs, errors.New("expiresAt must be in the future, and within two years"))
	}
	return errors.Join(errs...)
}

// AuditEntry is a line of the log of writes.
type AuditEntry struct {
	At        time.Time `json:"at"`
	Caller    string    `json:"caller" example:"key:ci"`
	Operation string    `json:"operation" example:"put-run"`
	Target    string    `json:"target,omitempty" doc:"Path and query of the request"`
	Remote    string    `json:"remote,omitempty" doc:"Address the request came from"`
}

// AuditQuery says which lines to list, the newest first.
type AuditQuery struct {
	Caller        string
	Since, Before time.Time
	OldestFirst   bool
	Limit         int
	PageToken     string
}

type writing struct{}

// Writing names the write that a context is for; the store files it with what is
// written.
func Writing(ctx context.Context, entry AuditEntry) context.Context {
	return context.WithValue(ctx, writing{}, entry)
}

// WritingOf is the write that a context is for.
func WritingOf(ctx context.Context) (AuditEntry, bool) {
	entry, ok := ctx.Value(writing{}).(AuditEntry)
	return entry, ok
}
