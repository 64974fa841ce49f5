// SPDX-License-Identifier: Apache-2.0

// Package rendezvous is how a pod's init container learns, without network,
// token or credentials, that the node's agent has restored its checkpoint: a file
// in the pod's own volume, which only the agent and the pod itself can write.
package rendezvous

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"
)

// Dir is the directory that is ours in a checkpoint directory; it is never part
// of a checkpoint.
const Dir = ".spotbench"

const file = Dir + "/restore.json"

// Outcome is what the agent did.
type Outcome struct {
	// PodUID is the pod that the agent did it for.
	PodUID     string `json:"podUID"`
	Restored   bool   `json:"restored"`
	Generation int64  `json:"generation,omitempty"`
	Files      int    `json:"files"`
	Bytes      int64  `json:"bytes"`
	// FromNode is where the checkpoint was made.
	FromNode string `json:"fromNode,omitempty"`
	// Damaged are newer generations that could not be used.
	Damaged []int64 `json:"damaged,omitempty"`
	// Error is why the pod must not start: there is work, and it could not be restored.
	Error string `json:"error,omitempty"`
}

// Announce writes the outcome into the checkpoint directory, whole or not at all,
// and never outside of it.
func Announce(dir string, outcome Outcome) error {
	data, err := json.Marshal(outcome)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("announce the restore: %w", err)
	}
	defer root.Close()
	if err := root.Mkdir(Dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("announce the restore: %w", err)
	}
	tmp := path.Join(Dir, "restore.tmp")
	if err := writeNew(root, tmp, data); err != nil {
		return fmt.Errorf("announce the restore: %w", err)
	}
	if err := root.Rename(tmp, file); err != nil {
		return fmt.Errorf("announce the restore: %w", err)
	}
	return nil
}

// writeNew writes a file in the place of whatever the pod may have put there: opening a
// pipe would wait for somebody to read it.
func writeNew(root *os.Root, name string, data []byte) error {
	if err := root.RemoveAll(name); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// maxOutcome bounds what is read of the file, in bytes.
const maxOutcome = 1 << 20

// Announced reads the outcome, if there is one already. What the pod itself may have put
// there, a link to somewhere else, a pipe or something endless, is none.
func Announced(dir string) (Outcome, bool) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Outcome{}, false
	}
	defer root.Close()
	f, err := root.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return Outcome{}, false
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return Outcome{}, false
	}
	var outcome Outcome
	if err := json.NewDecoder(io.LimitReader(f, maxOutcome)).Decode(&outcome); err != nil {
		return Outcome{}, false
	}
	return outcome, true
}

// Wait returns the outcome once it is there. If ctx ends first, the error says
// what to look at.
func Wait(ctx context.Context, dir string) (Outcome, error) {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		if outcome, ok := Announced(dir); ok {
			if outcome.Error != "" {
				return outcome, fmt.Errorf("the node agent could not restore the checkpoint: %s", outcome.Error)
			}
			return outcome, nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return Outcome{}, fmt.Errorf("the node agent did not answer in %s: %w; is the node-agent pod of this node running, "+
				"and is the directory the one that the annotation spotbench.dev/checkpoint-path names?", filepath.Join(dir, file), ctx.Err())
		}
	}
}
