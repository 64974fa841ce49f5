// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

// maxResultBytes bounds a result file; the catalog's own bound is the same.
const maxResultBytes = 64 << 20

// resultsWatch imports the result files of one pod as they appear. The kubelet
// deletes the volume as soon as the pod has ended, so a file is opened the moment
// it is seen: once open, its content stays readable.
type resultsWatch struct {
	dir     string
	root    *os.Root
	watcher *fsnotify.Watcher
	keep    func(file string, data []byte) error
	log     *slog.Logger

	mu   sync.Mutex
	done map[string][sha256.Size]byte // file → digest of what was kept of it
}

// watchResults starts to watch dir, which must exist; keep is called with each
// whole result file.
func watchResults(dir string, keep func(file string, data []byte) error, log *slog.Logger) (*resultsWatch, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		err = watcher.Add(dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch the results in %s: %w", dir, err), root.Close())
	}
	return &resultsWatch{dir: dir, root: root, watcher: watcher, keep: keep, log: log, done: map[string][sha256.Size]byte{}}, nil
}

// run handles files until ctx ends or the directory is gone.
func (w *resultsWatch) run(ctx context.Context) {
	w.scan()
	for {
		select {
		case event, ok := <-w.watcher.Events:
			if !ok {
				return
			}
			if event.Has(fsnotify.Create) || event.Has(fsnotify.Write) {
				w.take(filepath.Base(event.Name))
			}
		case err, ok := <-w.watcher.Errors:
			if !ok {
				return
			}
			w.log.Warn("events of the results directory were missed; it is read again", "dir", w.dir, "error", err)
			w.scan()
		case <-ctx.Done():
			return
		}
	}
}

// scan takes every result file that is there.
func (w *resultsWatch) scan() {
	entries, err := fs.ReadDir(w.root.FS(), ".")
	if err != nil {
		return // the kubelet has removed it; what was there was taken when it appeared
	}
	for _, e := range entries {
		w.take(e.Name())
	}
}

func (w *resultsWatch) take(name string) {
	if strings.HasPrefix(name, ".") || filepath.Ext(name) != ".json" {
		return
	}
	data, err := w.read(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		w.log.Error("a result file cannot be read", "file", name, "error", err)
		return
	case !json.Valid(data):
		return // still being written: its next write is an event of its own
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	digest := sha256.Sum256(data)
	if w.done[name] == digest {
		return
	}
	if err := w.keep(name, data); err != nil {
		w.log.Error("a result file could not be kept", "file", name, "error", err)
		return
	}
	w.done[name] = digest
}

func (w *resultsWatch) read(name string) ([]byte, error) {
	// A pipe of that name must not hold up the others.
	f, err := w.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxResultBytes+1))
	if err == nil && len(data) > maxResultBytes {
		err = fmt.Errorf("it is larger than %d MiB", maxResultBytes>>20)
	}
	return data, err
}

// close ends the watch. Files that never became valid JSON are named.
func (w *resultsWatch) close() {
	w.scan()
	if entries, err := fs.ReadDir(w.root.FS(), "."); err == nil {
		w.mu.Lock()
		for _, e := range entries {
			if _, taken := w.done[e.Name()]; !taken && filepath.Ext(e.Name()) == ".json" && !strings.HasPrefix(e.Name(), ".") {
				w.log.Error("a result file was not imported: it is not valid JSON", "file", e.Name())
			}
		}
		w.mu.Unlock()
	}
	if err := errors.Join(w.watcher.Close(), w.root.Close()); err != nil {
		w.log.Debug("close the results watch", "error", err)
	}
}
