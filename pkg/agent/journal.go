// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/checkpoint"
)

// journal keeps on the node's disk which benchmarks the agent accompanies and what is
// still to be recorded of them, for the agent that is started after this one was killed.
// What was not synced is lost with the machine only, and then the pods are gone too.
type journal struct{ dir string }

// journalEntry is what is known of one pod.
type journalEntry struct {
	Pod *corev1.Pod `json:"pod"`
	// Newest is the newest checkpoint that the pod made or began with.
	Newest checkpoint.Generation `json:"newest"`
	// Restored is the generation it began with.
	Restored int64 `json:"restored,omitempty"`
	// Notice is the one that interrupts it, and Interruption what was recorded so far.
	Notice       string               `json:"notice,omitempty"`
	Interruption catalog.Interruption `json:"interruption"`
}

const journalSuffix = ".json"

func (j journal) path(uid types.UID) string { return filepath.Join(j.dir, string(uid)+journalSuffix) }

func (j journal) put(e journalEntry) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	tmp := j.path(e.Pod.UID) + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if err := os.Rename(tmp, j.path(e.Pod.UID)); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

func (j journal) remove(uid types.UID) error {
	if err := os.Remove(j.path(uid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// get is the entry of a pod, if there is one.
func (j journal) get(uid types.UID) (journalEntry, bool, error) {
	data, err := os.ReadFile(j.path(uid))
	if errors.Is(err, fs.ErrNotExist) {
		return journalEntry{}, false, nil
	}
	var e journalEntry
	if err == nil {
		err = json.Unmarshal(data, &e)
	}
	if err == nil && (e.Pod == nil || e.Pod.UID != uid) {
		err = errors.New("it is not an entry of that pod")
	}
	if err != nil {
		return journalEntry{}, false, fmt.Errorf("journal: %s: %w", uid, err)
	}
	return e, true, nil
}

// all are the entries that can be read; one that cannot is in the error.
func (j journal) all() ([]journalEntry, error) {
	files, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	var entries []journalEntry
	var errs []error
	for _, f := range files {
		uid, isEntry := strings.CutSuffix(f.Name(), journalSuffix)
		if !isEntry {
			continue // one that was not finished; the one before it is there still
		}
		e, found, err := j.get(types.UID(uid))
		switch {
		case err != nil:
			errs = append(errs, err)
		case found:
			entries = append(entries, e)
		}
	}
	return entries, errors.Join(errs...)
}
