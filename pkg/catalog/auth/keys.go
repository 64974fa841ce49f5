// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// keyPrefix begins every key of the catalog, so that scanners for leaked secrets
// know one when they see it.
const keyPrefix = "sbk_"

// ours reports whether the catalog itself made a token. Nobody else is shown such a one.
func ours(token string) bool {
	return strings.HasPrefix(token, keyPrefix) || strings.HasPrefix(token, tokenPrefix)
}

// KeyStore knows the catalog's keys.
type KeyStore interface {
	// CheckKey is the role and the namespaces of the key that has this secret; the role is
	// "" for none.
	CheckKey(ctx context.Context, id string, hash []byte) (catalog.Role, catalog.Namespaces, error)
}

// Keys are keys that the catalog made. A verdict is kept for ten seconds: a revoked
// key works no longer than that.
type Keys struct {
	store KeyStore
	known memory
}

// NewKeys asks a store about keys.
func NewKeys(store KeyStore) *Keys { return &Keys{store: store, known: newMemory(10 * time.Second)} }

// Authenticate is the key's own name, role and namespaces.
func (k *Keys) Authenticate(ctx context.Context, token string) (Identity, error) {
	text, ok := strings.CutPrefix(token, keyPrefix)
	id, secret, whole := strings.Cut(text, "_")
	if !ok || !whole {
		return Identity{}, ErrUnauthenticated
	}
	return k.known.recall(token, func() (Identity, error) {
		role, namespaces, err := k.store.CheckKey(ctx, id, hashOf(secret))
		if err != nil || role == "" {
			return Identity{}, err
		}
		return Identity{User: "key:" + id, Role: role, Namespaces: namespaces}, nil
	})
}

// NewKey makes the secret of a key: the text that its owner keeps, and the hash
// that the catalog does. It is long and random, so a plain hash is enough: there is
// nothing to guess.
func NewKey(id string) (key string, hash []byte) {
	secret := rand.Text() + rand.Text()
	return keyPrefix + id + "_" + secret, hashOf(secret)
}

func hashOf(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}
