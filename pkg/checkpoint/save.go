// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"time"
)

const (
	// parallel is how many chunks are in memory, hashed, compressed and sent at once, of
	// all Saves of a store together.
	parallel = 8
	// attempts is how often a directory, a file or a generation number that changed
	// under our hands is tried again.
	attempts = 5
)

// memory is what a store remembers of a run from one call to the next.
type memory struct {
	// files are the chunks of files that need not be read again.
	files map[fileID][]chunk
	// held are the same for the files of the directory that Hold made.
	held    map[fileID][]chunk
	heldDir string
	// tags are those of the chunks of the last Save, by digest.
	tags map[string]tag
	// damaged are the names of chunks that were found so, and are to be sent again.
	damaged map[string]bool
	// whole says that the last Save left nothing in the store but what its manifest
	// names, so that there is nothing to resume.
	whole bool
}

// recall is what the store remembers of a run, for the caller to keep.
func (s *Store) recall(run string) memory {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.runs[run]
	m.damaged = maps.Clone(m.damaged)
	return m
}

func (s *Store) update(run string, change func(*memory)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.runs[run]
	change(&m)
	s.runs[run] = m
}

// Forget lets go of what is remembered of a run to make its next Save faster.
func (s *Store) Forget(run string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.runs, run)
}

// SaveOptions of one Save.
type SaveOptions struct {
	// Meta is kept with the generation.
	Meta map[string]string
	// Writer is who saves, for example a pod's UID. If another writer has restored the
	// run since, Save is ErrSuperseded. Without a name nobody is asked.
	Writer string
	// Urgent is for a machine that is about to be taken: the upload limit does not
	// count, other Saves wait, and nothing is done that only makes a later one faster.
	Urgent bool
}

// Saved is a generation just made.
type Saved struct {
	Generation
	Files int
	// Bytes of the files, and of them the stored bytes that had to be sent.
	Bytes, Uploaded int64
}

// Save makes a new generation of the run from the files under dir. It is visible
// only when it is whole, and on the store's disk when Save returns. Files may grow
// while they are read (their content at some moment is saved) and may be replaced by
// renaming; a file that is rewritten in place each time it is read is ErrChanging.
// After an error the next Save does not send again what this one has sent.
func (s *Store) Save(ctx context.Context, run, dir string, o SaveOptions) (Saved, error) {
	saved, err := s.save(ctx, run, dir, o)
	if err != nil {
		return Saved{}, fmt.Errorf("checkpoint of %s: %w", run, err)
	}
	return saved, nil
}

func (s *Store) save(ctx context.Context, run, dir string, o SaveOptions) (Saved, error) {
	if err := checkRun(run); err != nil {
		return Saved{}, err
	}
	if len(o.Writer) > maxWriter {
		return Saved{}, fmt.Errorf("the writer's name has %d bytes, more than %d", len(o.Writer), maxWriter)
	}
	seal, err := newSeal(s.key, run)
	if err != nil {
		return Saved{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Saved{}, err
	}
	defer root.Close()
	if _, err := root.Lstat(restoring); err == nil {
		return Saved{}, ErrHalfRestored
	}
	ctx, cancel := context.WithTimeoutCause(ctx, saveLimit, fmt.Errorf("it took more than %s; what was sent stays for the next", saveLimit))
	defer cancel()
	remembered := s.recall(run)
	s.update(run, func(m *memory) { m.whole = false })
	u := &upload{store: s, run: run, root: root, seal: seal, share: s.shares.join(o.Urgent), urgent: o.Urgent, timestamped: mayRemember(root),
		read: remembered.files, held: remembered.held, now: map[fileID][]chunk{}, mine: map[string]chunk{}, tags: map[string]tag{}, tagged: remembered.tags}
	defer u.share.leave()
	if remembered.heldDir != dir {
		u.held = nil
	}
	var m manifest
	for attempt := 1; ; attempt++ {
		m, err = s.saveOnce(ctx, u, dir, o, remembered)
		if !errors.Is(err, errBaseRemoved) || attempt == attempts {
			break
		}
	}
	if err != nil {
		return Saved{}, cmp.Or(cause(ctx), err)
	}
	s.update(run, func(m *memory) {
		m.files, m.whole, m.tags = u.now, true, u.tags
		for digest := range u.mine {
			delete(m.damaged, digest)
		}
	})
	saved := Saved{Generation: m.generation(), Uploaded: u.sent.Load()}
	saved.Files, saved.Bytes = m.totals()
	return saved, nil
}

// cause is why ctx ended, if that says more than that it did.
func cause(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil && !errors.Is(err, ctx.Err()) {
		return err
	}
	return nil
}

func mayRemember(root *os.Root) bool {
	f, err := root.Open(".")
	if err != nil {
		return false
	}
	defer f.Close()
	return timestamped(f)
}

// errBaseRemoved says that the generation whose chunks were not sent again has been
// removed meanwhile, and perhaps they with it.
var errBaseRemoved = errors.New("the checkpoint that this one builds on was removed meanwhile")

// saveOnce makes a generation on top of the newest one there is.
func (s *Store) saveOnce(ctx context.Context, u *upload, dir string, o SaveOptions, remembered memory) (manifest, error) {
	numbers, err := s.numbers(ctx, u.run)
	if err != nil {
		return manifest{}, err
	}
	if o.Writer != "" {
		if err := s.mayWrite(ctx, u.run, o.Writer); err != nil {
			return manifest{}, err
		}
	}
	base, _, err := s.newest(ctx, u.run, numbers)
	if err != nil && !errors.Is(err, ErrKey) { // of another key's chunks none is of use
		return manifest{}, err
	}
	if err := u.buildOn(ctx, base, remembered); err != nil {
		return manifest{}, err
	}
	entries, err := u.directory(ctx)
	if err == nil || errors.Is(err, ErrNothing) {
		err = cmp.Or(stillThere(u.root, dir), err)
	}
	if err != nil {
		return manifest{}, err
	}
	m := manifest{Run: u.run, Writer: o.Writer, Meta: maps.Clone(o.Meta), Entries: entries}
	for _, e := range entries {
		if e.Kind == kindFile && e.MTime.After(m.NewestFile) {
			m.NewestFile = e.MTime
		}
	}
	if err := s.objects.settle(ctx, u.names()); err != nil {
		return manifest{}, fmt.Errorf("the store's disk: %w", err)
	}
	err = s.commit(ctx, &m, u.seal, numbers, base.Generation, o.Writer)
	return m, err
}

// commit writes the manifest under the number after those that were there when the
// save began. If that is taken, it looks again who may write.
func (s *Store) commit(ctx context.Context, m *manifest, seal seal, numbers []int64, base int64, writer string) error {
	for range attempts {
		taken, err := s.tryCommit(ctx, m, seal, numbers, base)
		if err != nil || !taken {
			return err
		}
		if numbers, err = s.numbers(ctx, m.Run); err != nil {
			return err
		}
		if writer != "" {
			if err := s.mayWrite(ctx, m.Run, writer); err != nil {
				return err
			}
		}
	}
	return errors.New("other writers are faster again and again")
}

func (s *Store) tryCommit(ctx context.Context, m *manifest, seal seal, numbers []int64, base int64) (taken bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, commitLimit, fmt.Errorf("writing the manifest took more than %s", commitLimit))
	defer cancel()
	if base != 0 {
		if there, err := s.isThere(ctx, m.Run, base); err != nil || !there {
			return false, cmp.Or(err, errBaseRemoved)
		}
	}
	m.Generation = 1
	if len(numbers) > 0 {
		m.Generation = numbers[0] + 1
	}
	m.CreatedAt = time.Now().UTC()
	data, err := m.encode(seal, s.manifests)
	if err != nil {
		return false, err
	}
	name := manifestName(m.Run, m.Generation)
	err = s.objects.create(ctx, name, data)
	switch {
	case err == nil:
		return false, s.confirm(ctx, name, data)
	case errors.Is(err, errExists):
		// Unless the answer to a request that was sent again: then it is ours.
		return s.confirm(ctx, name, data) != nil, nil
	}
	return false, fmt.Errorf("write the manifest: %w", cmp.Or(cause(ctx), err))
}

// confirm reads back what was written.
func (s *Store) confirm(ctx context.Context, name string, data []byte) error {
	got, err := s.objects.get(ctx, name, nil, maxManifest)
	if err != nil {
		return fmt.Errorf("read the manifest back: %w", err)
	}
	if !bytes.Equal(got, data) {
		return fmt.Errorf("%w: the manifest reads back differently from what was written", ErrDamaged)
	}
	return nil
}

// directory sends all files. If one that was listed is gone when it is read, the
// listing is out of date, perhaps without the file it was renamed to: it is made
// again.
func (u *upload) directory(ctx context.Context) ([]entry, error) {
	var err error
	for range attempts {
		var entries []entry
		entries, err = u.files(ctx)
		if !errors.Is(err, fs.ErrNotExist) {
			return entries, err
		}
	}
	return nil, fmt.Errorf("%w: %w", ErrRemoved, err)
}
