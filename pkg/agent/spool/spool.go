// SPDX-License-Identifier: Apache-2.0

// Package spool keeps what must reach the catalog on the node's disk until the
// catalog has it. Entries are delivered in the order they were added, one at a
// time, also by the next process after a crash; an entry that the catalog refuses
// for good is set aside, so that it does not hold up the ones behind it.
package spool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// Entry is one request to the catalog.
type Entry struct {
	Method string `json:"method"`
	// Path is relative to the catalog's base URL, escaped, with its query.
	Path string `json:"path"`
	// ContentType of the body.
	ContentType string `json:"contentType"`
	Body        []byte `json:"body"`
}

// ErrRefused marks an error of Deliver as final: the same entry would be refused
// again, however often it were sent.
var ErrRefused = errors.New("refused for good")

// Deliver sends one entry. An error that is ErrRefused sets the entry aside; any
// other keeps it, and it is tried again.
type Deliver func(ctx context.Context, entry Entry) error

// Spool is a queue in a directory.
type Spool struct {
	dir  string
	log  *slog.Logger
	wake chan struct{}

	mu   sync.Mutex
	next uint64
}

const (
	suffix        = ".json"
	refusedSuffix = ".refused"
)

// Open opens the queue in dir, making the directory if need be.
func Open(dir string, log *slog.Logger) (*Spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	s := &Spool{dir: dir, log: log, wake: make(chan struct{}, 1)}
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	if len(names) > 0 {
		last, err := strconv.ParseUint(strings.TrimSuffix(names[len(names)-1], suffix), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("spool: %s: %w", names[len(names)-1], err)
		}
		s.next = last + 1
	}
	return s, nil
}

// Add puts an entry at the end of the queue. When it returns nil the entry is on
// the disk and survives a crash of the process and of the machine.
func (s *Spool) Add(entry Entry) error {
	data, err := json.Marshal(entry)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	path := filepath.Join(s.dir, fmt.Sprintf("%020d%s", s.next, suffix))
	if err := writeDurably(path, data); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	s.next++
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}

// Len is the number of entries that wait.
func (s *Spool) Len() int {
	names, err := s.names()
	if err != nil {
		return 0
	}
	return len(names)
}

// Run delivers until ctx ends. While the catalog cannot be reached it is asked
// again with growing, jittered pauses of at most 30 s; the log says so once.
func (s *Spool) Run(ctx context.Context, deliver Deliver) {
	backoff := newBackoff()
	failing := false
	for ctx.Err() == nil {
		delivered, err := s.deliverFirst(ctx, deliver)
		pause := time.Minute // an idle queue waits for Add
		switch {
		case err != nil:
			if !failing {
				s.log.Warn("the catalog cannot be reached; records are kept on disk", "error", err, "waiting", s.Len())
			}
			failing, pause = true, backoff.Step()
		case delivered:
			if failing {
				s.log.Info("the catalog is reached again", "waiting", s.Len())
			}
			failing, backoff, pause = false, newBackoff(), 0
		}
		if pause == 0 {
			continue
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-s.wakeUnless(failing):
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// wakeUnless is the channel that Add signals, or one that never is: an entry
// that joins the queue behind one that fails is no reason to hurry.
func (s *Spool) wakeUnless(failing bool) <-chan struct{} {
	if failing {
		return nil
	}
	return s.wake
}

func newBackoff() *wait.Backoff {
	return &wait.Backoff{Duration: 250 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 20, Cap: 30 * time.Second}
}

// Flush delivers until the queue is empty or ctx ends, without pauses between tries
// longer than a second; it is for the last moments of a node.
func (s *Spool) Flush(ctx context.Context, deliver Deliver) error {
	for {
		delivered, err := s.deliverFirst(ctx, deliver)
		if err == nil && !delivered {
			return nil
		}
		if err != nil {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return fmt.Errorf("spool: %d records are still on disk: %w", s.Len(), err)
			}
		}
	}
}

func (s *Spool) deliverFirst(ctx context.Context, deliver Deliver) (bool, error) {
	names, err := s.names()
	if err != nil || len(names) == 0 {
		return false, err
	}
	path := filepath.Join(s.dir, names[0])
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil // delivered by Flush in the meantime
	}
	if err != nil {
		return false, err
	}
	var entry Entry
	if err := json.Unmarshal(data, &entry); err != nil {
		return true, s.setAside(path, fmt.Errorf("the file is damaged: %w", err))
	}
	err = deliver(ctx, entry)
	if errors.Is(err, ErrRefused) {
		return true, s.setAside(path, err)
	}
	if err != nil {
		return false, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	return true, nil
}

func (s *Spool) setAside(path string, reason error) error {
	aside := strings.TrimSuffix(path, suffix) + refusedSuffix
	s.log.Error("the catalog refused a record; it is kept", "file", aside, "error", reason)
	return os.Rename(path, aside)
}

// names are the files of the queue, oldest first.
func (s *Spool) names() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// writeDurably makes the file whole or not at all.
func writeDurably(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "new-*.tmp")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
