// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto/sha256"
	"sync"
	"time"
)

// maxCached bounds the verdicts kept; more tokens than this at once are asked
// about every time.
const maxCached = 4096

// memory keeps verdicts about tokens for a while, under the tokens' hashes.
type memory struct {
	now   func() time.Time
	life  time.Duration
	mu    *sync.Mutex
	known map[digest]verdict
}

type verdict struct {
	who   Identity // without a user for a token that is not valid
	until time.Time
}

func newMemory(life time.Duration) memory {
	return memory{now: time.Now, life: life, mu: &sync.Mutex{}, known: map[digest]verdict{}}
}

// recall is the verdict that is known, or asks. A failure to ask is not kept.
func (m *memory) recall(token string, ask func() (Identity, error)) (Identity, error) {
	key, now := sha256.Sum256([]byte(token)), m.now()
	m.mu.Lock()
	v, ok := m.known[key]
	m.mu.Unlock()
	if !ok || now.After(v.until) {
		who, err := ask()
		if err != nil {
			return Identity{}, err
		}
		v = verdict{who: who, until: now.Add(m.life)}
		m.keep(key, v, now)
	}
	if v.who.User == "" {
		return Identity{}, ErrUnauthenticated
	}
	return v.who, nil
}

func (m *memory) keep(key digest, v verdict, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.known) >= maxCached {
		for k, old := range m.known {
			if now.After(old.until) {
				delete(m.known, k)
			}
		}
	}
	if len(m.known) < maxCached {
		m.known[key] = v
	}
}
