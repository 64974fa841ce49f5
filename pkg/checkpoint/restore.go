// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// Restore writes the newest whole generation of the run under dir and replaces
// what has the same names there; false if there is none. A generation that is
// damaged is passed over for the one before it. An error of the store or of the
// disk is returned instead: an older checkpoint would not help, and silently going
// back in time would lose work.
func (s *Store) Restore(ctx context.Context, run, dir string) (Restored, bool, error) {
	numbers, err := s.numbers(ctx, run)
	if err != nil {
		return Restored{}, false, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Restored{}, false, fmt.Errorf("restore: %w", err)
	}
	defer root.Close()
	var damaged []int64
	var reasons []error
	for _, n := range numbers {
		m, err := s.load(ctx, run, n)
		if err == nil {
			err = s.restore(ctx, m, root)
		}
		if errors.Is(err, ErrDamaged) {
			damaged, reasons = append(damaged, n), append(reasons, err)
			continue
		}
		if err != nil {
			return Restored{}, false, fmt.Errorf("restore checkpoint %d of %s: %w", n, run, err)
		}
		restored := Restored{Generation: m.generation(), Damaged: damaged}
		restored.Files, restored.Bytes = m.totals()
		return restored, true, nil
	}
	if len(damaged) > 0 {
		return Restored{Damaged: damaged}, false, fmt.Errorf("no checkpoint of %s can be used: %w", run, errors.Join(reasons...))
	}
	return Restored{}, false, nil
}

// staging is where files are written before they get their places, so that a
// generation that turns out damaged leaves nothing behind.
const staging = own + "/restoring"

func (s *Store) restore(ctx context.Context, m manifest, root *os.Root) (err error) {
	if err := root.Mkdir(own, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := root.RemoveAll(staging); err != nil {
		return err
	}
	if err := root.Mkdir(staging, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.RemoveAll(staging)) }()
	stage, err := root.OpenRoot(staging)
	if err != nil {
		return err
	}
	defer stage.Close()
	if err := s.writeTree(ctx, m, stage); err != nil {
		return err
	}
	names, err := fs.ReadDir(stage.FS(), ".")
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := root.RemoveAll(name.Name()); err != nil {
			return err
		}
		if err := root.Rename(path.Join(staging, name.Name()), name.Name()); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) writeTree(ctx context.Context, m manifest, stage *os.Root) error {
	// Directories first; what a manifest does not list but needs is made as well.
	for _, e := range m.Entries {
		dir := e.Path
		if e.Kind != kindDir {
			dir = path.Dir(e.Path)
		}
		if err := stage.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, e := range m.Entries {
		if e.Kind == kindFile {
			group.Go(func() error { return s.writeFile(groupCtx, m.Run, e, stage) })
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, e := range m.Entries {
		if e.Kind == kindLink {
			if err := stage.Symlink(e.Target, e.Path); err != nil {
				return err
			}
		}
	}
	// Innermost first, since changing what is inside changes a directory's time.
	for _, e := range slices.Backward(m.Entries) {
		if e.Kind != kindDir {
			continue
		}
		if err := stage.Chmod(e.Path, e.Mode); err != nil {
			return err
		}
		if err := stage.Chtimes(e.Path, time.Time{}, e.MTime); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) writeFile(ctx context.Context, run string, e entry, stage *os.Root) (err error) {
	f, err := stage.OpenFile(e.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	for _, c := range e.Chunks {
		data, err := s.chunk(ctx, run, c)
		if err == nil {
			_, err = f.Write(data)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("file %q: %w", e.Path, err), f.Close())
		}
	}
	if err := errors.Join(f.Chmod(e.Mode), f.Close()); err != nil {
		return err
	}
	return stage.Chtimes(e.Path, time.Time{}, e.MTime)
}

// chunk reads a chunk and makes sure that it is the one that was asked for.
func (s *Store) chunk(ctx context.Context, run string, c chunk) ([]byte, error) {
	compressed, err := s.get(ctx, chunkKey(run, c.SHA256), 2*chunkSize)
	if err != nil {
		return nil, err
	}
	data, err := s.dec.DecodeAll(compressed, make([]byte, 0, c.Size))
	if err != nil {
		return nil, fmt.Errorf("%w chunk %s: %w", ErrDamaged, c.SHA256, err)
	}
	if describe(data) != c {
		return nil, fmt.Errorf("%w chunk %s: its digest does not match", ErrDamaged, c.SHA256)
	}
	return data, nil
}

// Verify reads all of a generation and says whether it could be restored.
func (s *Store) Verify(ctx context.Context, run string, generation int64) error {
	if err := checkRun(run); err != nil {
		return err
	}
	m, err := s.load(ctx, run, generation)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	checked := map[string]bool{}
	for _, e := range m.Entries {
		for _, c := range e.Chunks {
			if checked[c.SHA256] {
				continue
			}
			checked[c.SHA256] = true
			group.Go(func() error {
				if _, err := s.chunk(ctx, run, c); err != nil {
					return fmt.Errorf("checkpoint %d of %s: file %q: %w", generation, run, e.Path, err)
				}
				return nil
			})
		}
	}
	return group.Wait()
}
