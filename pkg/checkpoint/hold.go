// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"io/fs"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

// Hold makes the tree under from appear under to, by hard links, so that it can be
// saved from there while somebody removes it. To is to be reached by nobody else, and
// nothing is to write to the files any longer. A tree that is being removed meanwhile
// is an error, and one that was half restored is ErrHalfRestored: half of it must not
// pass for a checkpoint. A Save of to reads only what changed since the last Save of
// from.
//
// It goes by directory handles, so that a directory that is swapped for a link
// meanwhile leads nowhere.
func (s *Store) Hold(run, from, to string) error {
	source, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer target.Close()
	if _, err := source.Lstat(restoring); err == nil {
		return ErrHalfRestored
	}
	known := s.recall(run).files
	held := map[fileID][]chunk{}
	var dirs []entry
	err = fs.WalkDir(source.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || name == ".":
			return err
		case name == own && d.IsDir():
			return fs.SkipDir // never part of a checkpoint
		case name == own:
			return nil
		case d.IsDir():
			info, err := d.Info()
			if err != nil {
				return err
			}
			dirs = append(dirs, entry{Path: name, Mode: info.Mode().Perm(), MTime: info.ModTime()})
			return target.Mkdir(name, 0o700)
		case d.Type() == fs.ModeSymlink:
			return link(source, target, name)
		case d.Type().IsRegular():
			return holdFile(source, target, name, known, held)
		default:
			return nil // sockets, pipes and devices are never part of a checkpoint
		}
	})
	if err != nil {
		return err
	}
	if _, err := source.Lstat(restoring); err == nil {
		return ErrHalfRestored // that began meanwhile
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := target.Chmod(dirs[i].Path, dirs[i].Mode); err != nil {
			return err
		}
		if err := target.Chtimes(dirs[i].Path, time.Time{}, dirs[i].MTime); err != nil {
			return err
		}
	}
	s.update(run, func(m *memory) { m.held, m.heldDir = held, to })
	return nil
}

// holdFile links a file. Linking moves its change time, so if it was known before, it
// is known from now on by the rest of its ID.
func holdFile(source, target *os.Root, name string, known, held map[fileID][]chunk) error {
	before, err := source.Lstat(name)
	if err != nil {
		return err
	}
	if err := link(source, target, name); err != nil {
		return err
	}
	after, err := target.Lstat(name)
	if err != nil {
		return err
	}
	was, err := idOf(before)
	if err != nil {
		return err
	}
	is, err := idOf(after)
	if err != nil {
		return err
	}
	if chunks, ok := known[was]; ok && is.held() == was.held() {
		held[is.held()] = chunks
	}
	return nil
}

// link makes the file of that name below source appear below target; a symbolic
// link is linked itself.
func link(source, target *os.Root, name string) error {
	from, err := source.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := target.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer to.Close()
	return os.NewSyscallError("linkat", unix.Linkat(int(from.Fd()), path.Base(name), int(to.Fd()), path.Base(name), 0))
}
