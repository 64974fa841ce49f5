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
	"io/fs"
	"os"
	"path"
	"path/filepath"
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
	if err := root.WriteFile(tmp, data, 0o644); err != nil {
		return fmt.Errorf("announce the restore: %w", err)
	}
	if err := root.Rename(tmp, file); err != nil {
		return fmt.Errorf("announce the restore: %w", err)
	}
	return nil
}

// Announced reads the outcome, if there is one already.
func Announced(dir string) (Outcome, bool) {
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return Outcome{}, false
	}
	var outcome Outcome
	if err := json.Unmarshal(data, &outcome); err != nil {
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
