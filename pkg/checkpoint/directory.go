// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// directory is a store in a directory. gocloud's driver for files looks whether a
// file is there and then renames over it, so two writers could both be first; here
// a hard link decides. It also lets an object be on the disk before the manifest
// that names it.
type directory struct{ path string }

// temporary holds files that are being written. No run begins with an underscore.
const temporary = "_tmp"

func openDirectory(path string) (*directory, error) {
	if err := os.MkdirAll(filepath.Join(path, temporary), 0o755); err != nil {
		return nil, err
	}
	return &directory{path: path}, nil
}

func (d *directory) file(name string) string { return filepath.Join(d.path, filepath.FromSlash(name)) }

func (d *directory) put(_ context.Context, name string, data []byte) error {
	f, err := d.write(data)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	// The disk begins now, so that settle has less to wait for. That it cannot is no
	// reason to fail.
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	if err := f.Close(); err != nil {
		return err
	}
	return d.place(name, func(to string) error { return os.Rename(f.Name(), to) })
}

func (d *directory) create(_ context.Context, name string, data []byte) error {
	f, err := d.write(data)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := d.place(name, func(to string) error { return os.Link(f.Name(), to) }); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%w: %w", errExists, err)
		}
		return err
	}
	for dir := filepath.Dir(d.file(name)); len(dir) >= len(d.path); dir = filepath.Dir(dir) {
		if err := toDisk(dir); err != nil {
			return err
		}
	}
	return nil
}

// write makes a temporary file.
func (d *directory) write(data []byte) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Join(d.path, temporary), "")
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(data); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

// place gives a temporary file its name, in a directory that may not be there yet.
func (d *directory) place(name string, as func(string) error) error {
	to := d.file(name)
	err := as(to)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		err = as(to)
	}
	return err
}

func (d *directory) get(_ context.Context, name string, buffer []byte, limit int64) ([]byte, error) {
	// Not to hang if a pipe has taken the object's place, nor to follow a link.
	f, err := os.OpenFile(d.file(name), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(name)
	}
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%w: object %s is not a file", ErrDamaged, name)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: object %s is not a file", ErrDamaged, name)
	}
	if info.Size() > limit {
		return nil, tooLong(name, info.Size())
	}
	return fill(buffer, f, int(info.Size()))
}

func (d *directory) list(_ context.Context, prefix string, each func(object)) error {
	err := filepath.WalkDir(d.file(prefix), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(d.path, path)
		if err != nil {
			return err
		}
		each(object{name: filepath.ToSlash(name), size: info.Size(), modified: info.ModTime()})
		return nil
	})
	return err
}

func (d *directory) below(_ context.Context, prefix string) ([]string, error) {
	entries, err := os.ReadDir(d.file(prefix))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name()+"/")
		}
	}
	return names, err
}

func (d *directory) remove(_ context.Context, name string) error {
	if err := os.Remove(d.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// settle waits for the disk. All files together need about one commit of the file
// system's journal, where waiting for each as it is written would need one each.
func (d *directory) settle(ctx context.Context, names []string) error {
	dirs := map[string]bool{d.path: true}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, name := range names {
		for dir := filepath.Dir(d.file(name)); len(dir) > len(d.path) && !dirs[dir]; dir = filepath.Dir(dir) {
			dirs[dir] = true
		}
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return toDisk(d.file(name))
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for dir := range dirs {
		if err := toDisk(dir); err != nil {
			return err
		}
	}
	return nil
}

// toDisk waits until a file or directory is on the disk.
func toDisk(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// sweep removes files that a writer left when it was killed.
func (d *directory) sweep(olderThan time.Time) error {
	dir := filepath.Join(d.path, temporary)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.ModTime().Before(olderThan) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (d *directory) close() error { return nil }
