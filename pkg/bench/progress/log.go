// SPDX-License-Identifier: Apache-2.0

package progress

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// FileName is the checkpoint's file in the checkpoint directory.
const FileName = "progress.jsonl"

// syncEvery is how late a finished request may reach the disk. A killed process
// loses nothing, only a machine that stops at once does.
const syncEvery = time.Second

// Log is the checkpoint file, open. Its methods may be called at the same time.
type Log struct {
	path string
	// Dropped is how many bytes of a last, torn line opening removed.
	Dropped int64

	// syncing is held while the file is synced, and taken before mu.
	syncing sync.Mutex

	mu    sync.Mutex
	file  *os.File
	state *State
	size  int64
	dirty bool
	// failed is the first error of a write or a sync; nothing is written after it,
	// because a file that may miss a line must not get the next.
	failed error

	stop    chan struct{}
	stopped chan struct{}
}

// Open opens the checkpoint in dir, or begins one. It refuses a checkpoint of
// another configuration, naming the difference, and one that a process has open.
func Open(dir string, config Config) (*Log, error) {
	path := filepath.Join(dir, FileName)
	file, err := openFile(path)
	if errors.Is(err, os.ErrPermission) {
		// Restored by another user: readable, and ours once it is a file of our own.
		if err = takeOver(path); err == nil {
			file, err = openFile(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("--checkpoint-dir %q: %w; mount a volume there that the container's user can write (securityContext.fsGroup)", dir, err)
	}
	l := &Log{path: path, file: file, stop: make(chan struct{}), stopped: make(chan struct{})}
	if err := l.load(config); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	go l.syncer()
	return l, nil
}

func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644) //nolint:gosec // the node's agent, another user, reads it
}

// takeOver replaces a file by a copy that this process's user owns.
func takeOver(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	part := path + ".part"
	if err := os.WriteFile(part, content, 0o644); err != nil {
		return err
	}
	copied, err := os.Open(part)
	if err != nil {
		return err
	}
	if err := errors.Join(copied.Sync(), copied.Close()); err != nil {
		return err
	}
	return os.Rename(part, path)
}

func (l *Log) load(config Config) error {
	if err := unix.Flock(int(l.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("checkpoint %s: another process has it open (%w); give each run a directory of its own", l.path, err)
	}
	content, err := io.ReadAll(l.file)
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w", l.path, err)
	}
	state, whole, err := Read(content)
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w; it is not this program's or was changed: remove it to begin anew", l.path, err)
	}
	l.state, l.size = state, int64(whole)
	if l.Dropped = int64(len(content) - whole); l.Dropped > 0 {
		if err := l.file.Truncate(l.size); err != nil {
			return fmt.Errorf("checkpoint %s: remove its torn end: %w", l.path, err)
		}
	}
	if whole == 0 {
		if err := l.write(line{Header: &header{Version: formatVersion, Config: config}}); err != nil {
			return err
		}
		return l.syncWithDirectory()
	}
	if diff := state.Config.Difference(config); diff != "" {
		return fmt.Errorf("checkpoint %s is of another benchmark: %s; run with the same flags, or give --checkpoint-dir an empty directory", l.path, diff)
	}
	return nil
}

// State calls read with the state, which read must not keep.
func (l *Log) State(read func(*State)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	read(l.state)
}

// Begin records that a window begins; the requests after it are its own.
func (l *Log) Begin(w Window) error { return l.append(line{Window: &w}) }

// Finish records a finished request.
func (l *Log) Finish(r Request) error { return l.append(line{Request: &r}) }

// Fail records a failed attempt.
func (l *Log) Fail(f Failure) error { return l.append(line{Failure: &f}) }

func (l *Log) append(entry line) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.write(entry)
}

// write puts the line in the file and then in the state. A line that fits in part
// only (a full disk) is taken out again.
func (l *Log) write(entry line) error {
	if l.failed != nil {
		return l.failed
	}
	b, err := frame(entry)
	if err != nil {
		return err
	}
	n, err := l.file.WriteAt(b, l.size)
	if err != nil {
		// Not every kernel says how much of it was written.
		l.failed = errors.Join(fmt.Errorf("checkpoint %s: %w%s", l.path, err, advice(err)), l.file.Truncate(l.size))
		return l.failed
	}
	l.size += int64(n)
	l.dirty = true
	if err := l.state.apply(entry, entry.Header != nil); err != nil {
		return fmt.Errorf("checkpoint %s: %w", l.path, err)
	}
	return nil
}

// advice is what to do about an error, where there is something.
func advice(err error) string {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return "; give the checkpoint volume more room: everything before this is saved, and a new start goes on from there"
	}
	return ""
}

// Sync returns when everything recorded is on the disk. Requests can be recorded
// meanwhile: a slow disk must not hold up what is being measured.
func (l *Log) Sync() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	failed, dirty := l.failed, l.dirty
	l.dirty = false
	l.mu.Unlock()
	if failed != nil || !dirty {
		return failed
	}
	if err := l.file.Sync(); err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.failed = fmt.Errorf("checkpoint %s: %w%s", l.path, err, advice(err))
		return l.failed
	}
	return nil
}

// syncWithDirectory also makes the file's name durable.
func (l *Log) syncWithDirectory() error {
	if err := l.Sync(); err != nil {
		return err
	}
	return SyncDirectory(filepath.Dir(l.path))
}

// SyncDirectory makes the names of the files in dir durable.
func SyncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

func (l *Log) syncer() {
	defer close(l.stopped)
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			// An error stays in l.failed, and the next write returns it.
			_ = l.Sync()
		case <-l.stop:
			return
		}
	}
}

// Close syncs and closes the file.
func (l *Log) Close() error {
	close(l.stop)
	<-l.stopped
	err := l.Sync()
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(err, l.file.Close())
}
