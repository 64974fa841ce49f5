// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// TokenFile knows the tokens whose hashes are in a file: one line each, a name and
// the SHA-256 of the token in hexadecimal. Empty lines and lines that begin with #
// are skipped. Tokens are long and random (NewToken), so a plain hash is enough: there
// is nothing to guess.
type TokenFile struct {
	path string

	mu    sync.Mutex
	users map[digest]string
	// file is what the file was when it was read, at a time.
	file os.FileInfo
	at   time.Time
}

// NewTokenFile uses the file at path. It is looked at for every check, so that a removed
// line works at once, and read when it changed; it is an error if it cannot be read now.
func NewTokenFile(path string) (*TokenFile, error) {
	t := &TokenFile{path: path}
	_, err := t.read()
	return t, err
}

// Authenticate is the name on the token's line.
func (t *TokenFile) Authenticate(_ context.Context, token string) (Identity, error) {
	users, err := t.read()
	if err != nil {
		return Identity{}, err
	}
	user, ok := users[sha256.Sum256([]byte(token))]
	if !ok {
		return Identity{}, ErrUnauthenticated
	}
	return Identity{User: user}, nil
}

// Users are the names in the file.
func (t *TokenFile) Users() ([]string, error) {
	byToken, err := t.read()
	if err != nil {
		return nil, err
	}
	users := make([]string, 0, len(byToken))
	for _, user := range byToken {
		users = append(users, user)
	}
	return users, nil
}

// settled is how long a file must have been as it is for its time to tell the next change:
// two within one tick of the file system's clock have the same time.
const settled = time.Second

// read gives the users by the digests of their tokens. Nobody changes what it gives.
func (t *TokenFile) read() (map[digest]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	file, err := os.Stat(t.path)
	if err != nil {
		return nil, fmt.Errorf("writers' tokens: %w", err)
	}
	if old := t.file; old != nil && os.SameFile(file, old) && file.ModTime().Equal(old.ModTime()) && file.Size() == old.Size() && t.at.Sub(old.ModTime()) > settled {
		return t.users, nil
	}
	users, err := t.parse()
	if err != nil {
		return nil, err
	}
	t.users, t.file, t.at = users, file, now
	return users, nil
}

func (t *TokenFile) parse() (map[digest]string, error) {
	data, err := os.ReadFile(t.path)
	if err != nil {
		return nil, fmt.Errorf("writers' tokens: %w", err)
	}
	users := map[digest]string{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, hash, _ := strings.Cut(line, " ")
		sum, err := hex.DecodeString(strings.TrimSpace(hash))
		if err != nil || len(sum) != sha256.Size {
			// The line is not repeated: it may be a token put there by mistake.
			return nil, fmt.Errorf("writers' tokens: %s line %d is not a name and the SHA-256 of a token; make one with `catalog-api token NAME`", t.path, n)
		}
		users[digest(sum)] = name
	}
	return users, lines.Err()
}

// tokenPrefix begins every token that NewToken makes.
const tokenPrefix = "sbc_"

// NewToken makes a token for a user and the line that belongs in the file.
func NewToken(user string) (token, line string, err error) {
	if user == "" || strings.ContainsAny(user, " \t\r\n#") {
		return "", "", fmt.Errorf("name %q is empty or has a space or a #; use for example %q", user, "ci")
	}
	token = tokenPrefix + rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(token))
	return token, user + " " + hex.EncodeToString(sum[:]), nil
}
