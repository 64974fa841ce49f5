// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
	"golang.org/x/sync/errgroup"
)

const (
	// parallel is how many chunks are hashed, compressed and sent at once; it bounds
	// memory to about twice as many chunks.
	parallel = 8
	// attempts is how often a directory, a file or a generation number that changed
	// under our hands is tried again.
	attempts = 5
)

// fileID tells whether a file is the one read before: the change time moves with
// every write, whatever the workload does to the modification time.
type fileID struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

// Save makes a new generation of the run from the files under dir. It is visible
// only when it is whole. Files may grow while they are read (their content at some
// moment is saved) and may be replaced by renaming; a file that is rewritten in
// place each time it is read is ErrChanging.
func (s *Store) Save(ctx context.Context, run, dir string, meta map[string]string) (Saved, error) {
	numbers, err := s.numbers(ctx, run)
	if err != nil {
		return Saved{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Saved{}, fmt.Errorf("checkpoint: %w", err)
	}
	defer root.Close()
	newest, _, err := s.latest(ctx, run)
	if err != nil {
		return Saved{}, err
	}
	u := &upload{store: s, run: run, root: root, stored: newest.chunks(), read: s.filesRead(run), now: map[fileID][]chunk{},
		slots: make(chan struct{}, parallel)}
	entries, err := u.directory(ctx)
	if err == nil || errors.Is(err, ErrNothing) {
		err = cmp.Or(stillThere(root, dir), err)
	}
	if err != nil {
		return Saved{}, fmt.Errorf("checkpoint of %s: %w", run, err)
	}
	m := manifest{Format: format, Run: run, Meta: maps.Clone(meta), Entries: entries}
	for _, e := range entries {
		if e.Kind == kindFile && e.MTime.After(m.NewestFile) {
			m.NewestFile = e.MTime
		}
	}
	if err := s.commit(ctx, &m, numbers); err != nil {
		return Saved{}, err
	}
	s.mu.Lock()
	s.read[run] = u.now
	s.mu.Unlock()
	saved := Saved{Generation: m.generation(), Uploaded: u.sent.Load()}
	saved.Files, saved.Bytes = m.totals()
	return saved, nil
}

// commit writes the manifest under the next free number.
func (s *Store) commit(ctx context.Context, m *manifest, numbers []int64) error {
	var base int64
	if len(numbers) > 0 {
		base = numbers[0]
	}
	m.Generation = base + 1
	for range attempts {
		m.CreatedAt = time.Now().UTC()
		data, err := m.encode()
		if err != nil {
			return err
		}
		err = s.bucket.WriteAll(ctx, manifestKey(m.Run, m.Generation), data, &blob.WriterOptions{IfNotExist: true, ContentType: "application/json"})
		if err == nil {
			return nil
		}
		if gcerrors.Code(err) != gcerrors.FailedPrecondition {
			return fmt.Errorf("checkpoint of %s: write the manifest: %w", m.Run, err)
		}
		// Another writer was faster, for example the agent of the node before.
		if numbers, err = s.numbers(ctx, m.Run); err != nil {
			return err
		}
		m.Generation = max(m.Generation, slices.Max(append(numbers, 0))) + 1
		if m.Generation > base+int64(s.keep) {
			// Chunks that were not sent because an older generation has them may be gone
			// with it by now.
			break
		}
	}
	return fmt.Errorf("checkpoint of %s: other writers made checkpoints %d and later meanwhile", m.Run, base+1)
}

func (m manifest) chunks() map[string]bool {
	set := map[string]bool{}
	for _, e := range m.Entries {
		for _, c := range e.Chunks {
			set[c.SHA256] = true
		}
	}
	return set
}

func (s *Store) filesRead(run string) map[fileID][]chunk {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read[run]
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

// upload sends one directory.
type upload struct {
	store *Store
	run   string
	root  *os.Root
	read  map[fileID][]chunk // from the Save before
	sent  atomic.Int64
	slots chan struct{} // one for each chunk that is in memory

	mu     sync.Mutex
	stored map[string]bool    // chunks that are in the store
	now    map[fileID][]chunk // for the next Save
}

// directory sends all files. If one that was listed is gone when it is read, the
// listing is out of date, perhaps without the file it was renamed to: it is made
// again.
func (u *upload) directory(ctx context.Context) ([]entry, error) {
	var err error
	for range attempts {
		var entries []entry
		entries, err = u.walk(ctx)
		if !errors.Is(err, fs.ErrNotExist) {
			return entries, err
		}
	}
	return nil, fmt.Errorf("%w: %w", ErrRemoved, err)
}

func (u *upload) walk(ctx context.Context) ([]entry, error) {
	entries, err := u.list()
	if err != nil {
		return nil, err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i := range entries {
		if entries[i].Kind == kindFile {
			group.Go(func() error { return u.file(groupCtx, &entries[i]) })
		}
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := u.stillListed(entries); err != nil {
		return nil, err
	}
	for _, e := range entries {
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("file %q cannot be saved: %w", e.Path, err)
		}
	}
	return entries, nil
}

// stillListed makes sure that nothing was removed since the listing: the files that
// are left of a volume that is being removed must not pass for its content.
func (u *upload) stillListed(entries []entry) error {
	again, err := u.list()
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

// list is what there is to save, with the files still without content.
func (u *upload) list() ([]entry, error) {
	var entries []entry
	files := 0
	err := fs.WalkDir(u.root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
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
			if e.Target, err = u.root.Readlink(path); err != nil {
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

// file sends one file and completes its entry.
func (u *upload) file(ctx context.Context, e *entry) error {
	// Not to hang if a pipe has taken the file's place, nor to follow a link.
	f, err := u.root.OpenFile(e.Path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for range attempts {
		before, id, err := identify(f)
		if err != nil {
			return fmt.Errorf("file %q: %w", e.Path, err)
		}
		e.Size, e.Mode, e.MTime = before.Size(), before.Mode().Perm(), before.ModTime().UTC()
		known, ok := u.read[id]
		// A file written within the clock's granularity of being read could be written
		// again without its times moving.
		settled := time.Since(before.ModTime()) > time.Second
		if ok && settled && u.has(known) {
			e.Chunks = known
		} else if e.Chunks, err = u.chunks(ctx, f, e.Size); err != nil {
			return fmt.Errorf("file %q: %w", e.Path, err)
		}
		_, after, err := identify(f)
		if err != nil {
			return err
		}
		if after == id {
			if settled {
				u.remember(id, e.Chunks)
			}
			return nil
		}
		// The file was written to. If what was read is still its beginning, it only
		// grew, and that beginning is what it was at one moment.
		if same, err := unchanged(f, e.Chunks, e.Size); err != nil || same {
			return err
		}
	}
	return fmt.Errorf("%w: %q; append to it, or replace it by renaming", ErrChanging, e.Path)
}

func identify(f *os.File) (fs.FileInfo, fileID, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fileID{}, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return nil, fileID{}, errors.New("it is no longer a regular file")
	}
	return info, fileID{dev: stat.Dev, ino: stat.Ino, size: stat.Size, mtime: stat.Mtim, ctime: stat.Ctim}, nil
}

func (u *upload) has(chunks []chunk) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !slices.ContainsFunc(chunks, func(c chunk) bool { return !u.stored[c.SHA256] })
}

func (u *upload) remember(id fileID, chunks []chunk) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.now[id] = chunks
}

// chunks sends the first size bytes of f. If f has fewer by now, it was rewritten,
// and what is returned is short, which the caller notices.
func (u *upload) chunks(ctx context.Context, f *os.File, size int64) ([]chunk, error) {
	chunks := make([]chunk, (size+chunkSize-1)/chunkSize)
	group, groupCtx := errgroup.WithContext(ctx)
	for i := range chunks {
		select {
		case u.slots <- struct{}{}:
		case <-groupCtx.Done():
			return nil, cmp.Or(group.Wait(), ctx.Err())
		}
		group.Go(func() error {
			defer func() { <-u.slots }()
			data := make([]byte, min(chunkSize, size-int64(i)*chunkSize))
			n, err := f.ReadAt(data, int64(i)*chunkSize)
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if n > 0 {
				chunks[i], err = u.send(groupCtx, data[:n])
				return err
			}
			return nil
		})
	}
	return chunks, group.Wait()
}

// send stores a chunk, unless the store has it.
func (u *upload) send(ctx context.Context, data []byte) (chunk, error) {
	c := describe(data)
	u.mu.Lock()
	stored := u.stored[c.SHA256]
	u.mu.Unlock()
	if stored {
		return c, nil
	}
	compressed := u.store.enc.EncodeAll(data, nil)
	if err := u.store.bucket.WriteAll(ctx, chunkKey(u.run, c.SHA256), compressed, &blob.WriterOptions{ContentType: "application/zstd"}); err != nil {
		return chunk{}, fmt.Errorf("write a chunk: %w", err)
	}
	u.sent.Add(int64(len(compressed)))
	u.mu.Lock()
	u.stored[c.SHA256] = true
	u.mu.Unlock()
	return c, nil
}

func describe(data []byte) chunk {
	sum := sha256.Sum256(data)
	return chunk{SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data))}
}

// unchanged reports whether the chunks are still the first size bytes of f.
func unchanged(f *os.File, chunks []chunk, size int64) (bool, error) {
	var offset int64
	var buffer bytes.Buffer
	for _, c := range chunks {
		buffer.Reset()
		if _, err := io.Copy(&buffer, io.NewSectionReader(f, offset, c.Size)); err != nil {
			return false, err
		}
		if describe(buffer.Bytes()) != c {
			return false, nil
		}
		offset += c.Size
	}
	return offset == size, nil
}
