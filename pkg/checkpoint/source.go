// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// fileID tells whether a file is the one read before. The change time moves with
// every write, whatever the workload does to the modification time.
type fileID struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

// A file whose fileID is the one it was read under is not read again. That is safe if
// no write can leave the ID as it is:
//
//   - A write by a system call sets both times to the clock. If it comes within the
//     clock's granularity of the one before, it can leave them; so a file changed less
//     than settled before it is read is not remembered.
//   - A store through a memory map sets them only when it makes a clean page dirty. So
//     a file is written to the disk before it is read, after which each page is clean
//     and write-protected until the next store. Where the kernel does not do that (file
//     systems in memory, over a network or in user space) nothing is remembered.
const settled = time.Second

// timestamped says whether the file system of f sets a file's times at every write,
// stores through memory maps included.
func timestamped(f *os.File) bool {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &s); err != nil {
		return false
	}
	switch s.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC:
		return true
	}
	return false
}

func identify(f *os.File) (fs.FileInfo, fileID, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fileID{}, err
	}
	id, err := idOf(info)
	return info, id, err
}

func idOf(info fs.FileInfo) (fileID, error) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return fileID{}, errors.New("it is no longer a regular file")
	}
	return fileID{dev: stat.Dev, ino: stat.Ino, size: stat.Size, mtime: stat.Mtim, ctime: stat.Ctim}, nil
}

// held is the ID of a file that is linked where only we reach it: the change time
// moves when its other names are removed, and is left out.
func (id fileID) held() fileID {
	id.ctime = syscall.Timespec{}
	return id
}

// listFiles is what there is to save, with the files still without content.
func listFiles(root *os.Root) ([]entry, error) {
	var entries []entry
	files := 0
	err := fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		if path == own {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := entry{Path: path, Mode: info.Mode().Perm(), MTime: info.ModTime().UTC()}
		switch {
		case d.IsDir():
			e.Kind = kindDir
		case d.Type() == fs.ModeSymlink:
			e.Kind, e.Mode = kindLink, 0
			if e.Target, err = root.Readlink(path); err != nil {
				return err
			}
		case d.Type().IsRegular():
			e.Kind = kindFile
			files++
		default:
			return nil // sockets, pipes and devices
		}
		entries = append(entries, e)
		return nil
	})
	if err == nil && files == 0 {
		err = ErrNothing
	}
	return entries, err
}

// stillListed makes sure that nothing was removed since the listing: the files that
// are left of a volume that is being removed must not pass for its content.
func stillListed(root *os.Root, entries []entry) error {
	again, err := listFiles(root)
	if err != nil {
		return err
	}
	paths := map[string]bool{}
	for _, e := range again {
		paths[e.Path] = true
	}
	for _, e := range entries {
		if !paths[e.Path] {
			return fmt.Errorf("file %q: %w", e.Path, fs.ErrNotExist)
		}
	}
	return nil
}

// stillThere makes sure that what was read was not a directory half removed: the
// kubelet removes a volume's files before the volume.
func stillThere(root *os.Root, dir string) error {
	opened, err := root.Stat(".")
	if err != nil {
		return ErrRemoved
	}
	named, err := os.Stat(dir)
	if err != nil || !os.SameFile(opened, named) {
		return ErrRemoved
	}
	return nil
}
