// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spotbench/spotbench/pkg/bench/progress"
)

// Write puts a result into dir under its name, all at once: whoever sees the file
// sees it whole. A file with the same content is left alone, and written is false.
func Write(dir, name string, content []byte) (written bool, err error) {
	path := filepath.Join(dir, name)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return false, nil
	}
	// The name is hidden and does not end in .json, so nobody takes it for a result.
	part := filepath.Join(dir, "."+name+".part")
	if err := writeSynced(part, content); err != nil {
		return false, errors.Join(
			fmt.Errorf("result %s: %w; nothing is lost: the checkpoint has it, and a new start writes it once --results-dir has room and lets the container's user write", path, err),
			removeIfThere(part))
	}
	if err := os.Rename(part, path); err != nil {
		return false, errors.Join(fmt.Errorf("result %s: %w", path, err), removeIfThere(part))
	}
	return true, progress.SyncDirectory(dir)
}

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644) //nolint:gosec // the node's agent, another user, reads it
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
