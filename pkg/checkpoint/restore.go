// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// RestoreOptions of one Restore.
type RestoreOptions struct {
	// Generation is the one wanted; 0 is the newest that is whole.
	Generation int64
	// Writer is who goes on with the run, for example a pod's UID. From here on a Save
	// by another writer is ErrSuperseded. Without a name nobody takes over.
	Writer string
}

// Restored is a generation just written back.
type Restored struct {
	Generation
	Files int
	Bytes int64
	// Damaged are newer generations that could not be used, and Reasons why, in the
	// same order.
	Damaged []int64
	Reasons []error
}

// Restore writes the newest whole generation of the run under dir and replaces
// what has the same names there; false if there is none. A generation that is
// damaged is passed over for the one before it. An error of the store, of the disk or
// of the key is returned instead: an older checkpoint would not help, and silently
// going back in time would lose work.
func (s *Store) Restore(ctx context.Context, run, dir string, o RestoreOptions) (Restored, bool, error) {
	restored, found, err := s.restoreNewest(ctx, run, dir, o)
	if err != nil {
		return Restored{Damaged: restored.Damaged, Reasons: restored.Reasons}, false, fmt.Errorf("restore %s: %w", run, err)
	}
	return restored, found, nil
}

func (s *Store) restoreNewest(ctx context.Context, run, dir string, o RestoreOptions) (Restored, bool, error) {
	if err := checkRun(run); err != nil {
		return Restored{}, false, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Restored{}, false, err
	}
	defer root.Close()
	if o.Writer != "" {
		// First, so that no Save of the writer before comes after the list.
		if err := s.claim(ctx, run, o.Writer); err != nil {
			return Restored{}, false, err
		}
	}
	numbers, err := s.numbers(ctx, run)
	if err != nil {
		return Restored{}, false, err
	}
	if o.Generation != 0 {
		if !slices.Contains(numbers, o.Generation) {
			return Restored{}, false, fmt.Errorf("there is no checkpoint %d", o.Generation)
		}
		numbers = []int64{o.Generation}
	}
	var restored Restored
	for _, n := range numbers {
		m, err := s.load(ctx, run, n)
		if err == nil {
			err = s.restore(ctx, m, root)
		}
		if errors.Is(err, ErrDamaged) {
			restored.Damaged, restored.Reasons = append(restored.Damaged, n), append(restored.Reasons, err)
			continue
		}
		if err != nil {
			return restored, false, err
		}
		restored.Generation = m.generation()
		restored.Files, restored.Bytes = m.totals()
		return restored, true, nil
	}
	if len(restored.Damaged) > 0 {
		return restored, false, fmt.Errorf("no checkpoint can be used: %w", errors.Join(restored.Reasons...))
	}
	return Restored{}, false, nil
}

const (
	// staging is where files are written before they get their places, so that a
	// generation that turns out damaged leaves nothing behind.
	staging = own + "/staging"
	// restoring is there while the files get their places. It lists their names at the
	// top of the directory; what is there under them is not whole.
	restoring = own + "/restoring"
)

func (s *Store) restore(ctx context.Context, m manifest, root *os.Root) (err error) {
	if err := root.Mkdir(own, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := clearHalf(root); err != nil {
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
	if err := hasSpace(stage, m); err != nil {
		return err
	}
	if err := s.writeTree(ctx, m, stage); err != nil {
		return err
	}
	return takePlaces(root, stage)
}

// clearHalf removes what a restore that was cut short has left.
func clearHalf(root *os.Root) error {
	if err := root.RemoveAll(staging); err != nil {
		return err
	}
	data, err := root.ReadFile(restoring)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var names []string
	if err := json.Unmarshal(data, &names); err != nil {
		return fmt.Errorf("%s: %w", restoring, err)
	}
	for _, name := range names {
		if !fs.ValidPath(name) || name == "." || path.Dir(name) != "." || name == own {
			return fmt.Errorf("%s: %q is not a name", restoring, name)
		}
		if err := root.RemoveAll(name); err != nil {
			return err
		}
	}
	return root.Remove(restoring)
}

// takePlaces moves all that is below stage to where it belongs.
func takePlaces(root, stage *os.Root) error {
	entries, err := fs.ReadDir(stage.FS(), ".")
	if err != nil {
		return err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	data, err := json.Marshal(names)
	if err != nil {
		return err
	}
	// What was written is on the disk before it can be taken for whole, and it is known
	// what is not whole before that can be.
	if err := flush(root); err != nil {
		return err
	}
	if err := root.WriteFile(restoring+".tmp", data, 0o600); err != nil {
		return err
	}
	if err := settle(root, restoring+".tmp"); err != nil {
		return err
	}
	if err := root.Rename(restoring+".tmp", restoring); err != nil {
		return err
	}
	if err := settle(root, own); err != nil {
		return err
	}
	for _, name := range names {
		if err := root.RemoveAll(name); err != nil {
			return err
		}
		if err := root.Rename(path.Join(staging, name), name); err != nil {
			return err
		}
	}
	if err := settle(root, staging, "."); err != nil {
		return err
	}
	return root.Remove(restoring)
}

// settle writes a few files and directories to their disk, and not, as flush does, also
// what everybody else on the node has written meanwhile.
func settle(root *os.Root, names ...string) error {
	for _, name := range names {
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// flush writes the directory's file system to its disk.
func flush(root *os.Root) error {
	f, err := root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}

// hasSpace refuses a generation that cannot fit before anything of it is fetched.
func hasSpace(stage *os.Root, m manifest) error {
	f, err := stage.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &s); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	_, need := m.totals()
	if free := s.Bavail * uint64(s.Bsize); uint64(need) > free { //nolint:gosec // sizes are positive: the manifest was checked, the kernel is right
		return fmt.Errorf("checkpoint %d has %d bytes and the disk has %d left: %w", m.Generation, need, free, syscall.ENOSPC)
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
	if err := s.writeFiles(ctx, m, stage); err != nil {
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

// writeFiles writes the chunks of all files in parallel, one file's as well as many's.
func (s *Store) writeFiles(ctx context.Context, m manifest, stage *os.Root) error {
	fetch, err := s.newFetch(m.Run)
	if err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, e := range m.Entries {
		if groupCtx.Err() != nil {
			break
		}
		if e.Kind != kindFile {
			continue
		}
		f, err := stage.OpenFile(e.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return errors.Join(err, group.Wait())
		}
		file := &unfinished{File: f, stage: stage, entry: e}
		file.left.Store(int64(len(e.Chunks)))
		if len(e.Chunks) == 0 {
			if err := file.finish(); err != nil {
				return errors.Join(err, group.Wait())
			}
		}
		var offset int64
		for _, c := range e.Chunks {
			at := offset
			group.Go(func() error {
				err := groupCtx.Err()
				if err == nil {
					err = fetch.chunk(groupCtx, c, func(data []byte) error {
						return file.write(data, at)
					})
				}
				if err != nil {
					err = fmt.Errorf("checkpoint %d: file %q: %w", m.Generation, e.Path, err)
				}
				return errors.Join(err, file.done())
			})
			offset += c.Size
		}
	}
	return cmp.Or(group.Wait(), ctx.Err())
}

// unfinished is a file whose chunks are being written.
type unfinished struct {
	*os.File
	stage *os.Root
	entry entry
	left  atomic.Int64
	// writing is held by who writes: the kernel lets one at a time, and the others
	// would wait for it by spinning, while there are chunks to be checked.
	writing sync.Mutex
}

func (u *unfinished) write(data []byte, at int64) error {
	u.writing.Lock()
	defer u.writing.Unlock()
	if _, err := u.WriteAt(data, at); err != nil {
		return err
	}
	// The disk begins now, so that there is less to wait for at the end.
	_ = unix.SyncFileRange(int(u.Fd()), at, int64(len(data)), unix.SYNC_FILE_RANGE_WRITE)
	return nil
}

// done finishes the file after its last chunk.
func (u *unfinished) done() error {
	if u.left.Add(-1) > 0 {
		return nil
	}
	return u.finish()
}

func (u *unfinished) finish() error {
	if err := errors.Join(u.Chmod(u.entry.Mode), u.Close()); err != nil {
		return err
	}
	return u.stage.Chtimes(u.entry.Path, time.Time{}, u.entry.MTime)
}
