// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrForbidden is for what the caller may not write.
var ErrForbidden = errors.New("not allowed")

// Namespaces are those whose runs a caller may see and write. nil is all of them, and
// whatever belongs to none; empty is none at all.
type Namespaces []string

// MaxNamespaces is the most that one caller is limited to.
const MaxNamespaces = 32

// NamespaceOf is the namespace that a run belongs to: the first part of its key, which
// nobody can change. What a run says of itself in its field namespace does not count.
func NamespaceOf(key string) string {
	namespace, _, ok := strings.Cut(key, "/")
	if !ok {
		return ""
	}
	return namespace
}

// Limited reports whether there are runs that the caller may not see.
func (n Namespaces) Limited() bool { return n != nil }

// Hold reports whether the run of a key is in one of them.
func (n Namespaces) Hold(key string) bool {
	return !n.Limited() || NamespaceOf(key) != "" && slices.Contains(n, NamespaceOf(key))
}

// Validate checks the namespaces that a key is to be limited to.
func (n Namespaces) Validate() error {
	if n.Limited() && len(n) == 0 || len(n) > MaxNamespaces {
		return fmt.Errorf("namespaces: name from 1 to %d, or leave them out for all", MaxNamespaces)
	}
	for _, namespace := range n {
		if ValidateKey(namespace) != nil || strings.Contains(namespace, "/") {
			return fmt.Errorf("namespaces: %q is no namespace; use letters, digits, dots and dashes", namespace)
		}
	}
	return nil
}

type within struct{}

// Within limits what is read and written in a context to runs of some namespaces.
func Within(ctx context.Context, n Namespaces) context.Context {
	return context.WithValue(ctx, within{}, n)
}

// NamespacesOf is what a context is limited to; one without a limit is not.
func NamespacesOf(ctx context.Context) Namespaces {
	n, _ := ctx.Value(within{}).(Namespaces)
	return n
}

// Seen reports whether the context may see the run of a key. To those who may not, it
// is not there.
func Seen(ctx context.Context, key string) bool { return NamespacesOf(ctx).Hold(key) }

// MayWrite is ErrForbidden for the key of a run that the context may not write to.
func MayWrite(ctx context.Context, key string) error {
	if n := NamespacesOf(ctx); !n.Hold(key) {
		return fmt.Errorf("run %q: %w: the caller may only write runs of %s, whose keys begin with the namespace and a slash", key, ErrForbidden, n)
	}
	return nil
}

// MayWriteRun is MayWrite for an update of the run itself: a caller who is limited cannot
// have a run pass for one of another namespace.
func MayWriteRun(ctx context.Context, key string, update Run) error {
	err := MayWrite(ctx, key)
	if err == nil && NamespacesOf(ctx).Limited() && update.Namespace != "" && update.Namespace != NamespaceOf(key) {
		return fmt.Errorf("run %q: %w: its namespace is %s, not %q", key, ErrForbidden, NamespaceOf(key), update.Namespace)
	}
	return err
}

// String lists them for people.
func (n Namespaces) String() string {
	switch {
	case !n.Limited():
		return "all namespaces"
	case len(n) == 0:
		return "no namespace"
	}
	return strings.Join(n, ", ")
}
