// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// orphanAge is how old a chunk must be before it can be removed: younger ones may
// belong to a checkpoint whose manifest is not written yet.
const orphanAge = time.Hour

// Prune removes all generations of the run but the newest good ones that the store
// keeps, and chunks that no generation needs any more. It removes nothing that a
// Save or Restore of the newest generation, here or elsewhere, depends on.
func (s *Store) Prune(ctx context.Context, run string) error {
	numbers, err := s.numbers(ctx, run)
	if err != nil {
		return err
	}
	needed := map[string]bool{}
	var old []int64
	good := 0
	for _, n := range numbers {
		if good == s.keep {
			old = append(old, n)
			continue
		}
		m, err := s.load(ctx, run, n)
		if errors.Is(err, ErrDamaged) {
			continue // kept for whoever wants to know why, until it is old
		}
		if err != nil {
			return err
		}
		good++
		for digest := range m.chunks() {
			needed[digest] = true
		}
	}
	if len(old) == 0 {
		return nil
	}
	for _, n := range old {
		if err := s.remove(ctx, manifestKey(run, n)); err != nil {
			return err
		}
	}
	return s.removeOrphans(ctx, run, needed)
}

func (s *Store) removeOrphans(ctx context.Context, run string, needed map[string]bool) error {
	iter := s.bucket.List(&blob.ListOptions{Prefix: chunkPrefix(run)})
	for {
		object, err := iter.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list the chunks of %s: %w", run, err)
		}
		if needed[path.Base(object.Key)] || time.Since(object.ModTime) < orphanAge {
			continue
		}
		if err := s.remove(ctx, object.Key); err != nil {
			return err
		}
	}
}

func (s *Store) remove(ctx context.Context, key string) error {
	if err := s.bucket.Delete(ctx, key); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return fmt.Errorf("remove %s: %w", key, err)
	}
	return nil
}
