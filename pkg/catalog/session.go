// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"sync"
)

// Session is what a request knows of the state of the store, which has replicas
// that lag behind.
type Session struct {
	// Seen is a position that reads must have reached: that of the caller's last
	// write. "" is any.
	Seen string
	// Primary says that reads are not for replicas at all.
	Primary bool

	mu    sync.Mutex
	wrote string
}

type session struct{}

// WithSession gives a request its session.
func WithSession(ctx context.Context, s *Session) context.Context {
	return context.WithValue(ctx, session{}, s)
}

// SessionOf is the session of a request, nil if it has none.
func SessionOf(ctx context.Context) *Session {
	s, _ := ctx.Value(session{}).(*Session)
	return s
}

// SeenPosition is the position that the request's reads must have reached.
func SeenPosition(ctx context.Context) string {
	if s := SessionOf(ctx); s != nil {
		return s.Seen
	}
	return ""
}

// WithPrimary has reads see every write that was answered before them.
func WithPrimary(ctx context.Context) context.Context {
	return WithSession(ctx, &Session{Primary: true})
}

// Wrote notes the position of a write of the request.
func (s *Session) Wrote(position string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrote = position
}

// Position is that of the request's last write, "" if it wrote nothing.
func (s *Session) Position() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wrote
}
