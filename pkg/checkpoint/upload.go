// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// upload sends one directory.
type upload struct {
	store       *Store
	run         string
	root        *os.Root
	seal        seal
	share       *share
	urgent      bool
	timestamped bool
	read, held  map[fileID][]chunk // from the Save before and from Hold
	sent        atomic.Int64

	base    map[string]chunk   // by digest: what the generation before consists of
	orphans map[string]object  // by name: sent by a Save that was cut short
	before  map[string][]chunk // by path: how files were cut in the generation before

	tagged map[string]tag // by digest: from the Save before

	mu   sync.Mutex
	mine map[string]chunk   // what this Save has sent or found sent
	now  map[fileID][]chunk // for the next Save
	tags map[string]tag     // for the next Save
}

// buildOn finds what need not be sent: the chunks of the generation before, and those
// that a Save that was cut short has left, as far as they will not be removed before
// this one is whole. After a Save that was not cut short there is nothing to look for.
func (u *upload) buildOn(ctx context.Context, m manifest, remembered memory) error {
	u.before = map[string][]chunk{}
	for _, e := range m.Entries {
		u.before[e.Path] = e.Chunks
	}
	base := m.chunks()
	maps.DeleteFunc(base, func(digest string, _ chunk) bool { return remembered.damaged[digest] })
	u.base, u.orphans = base, nil
	if remembered.whole {
		return nil
	}
	now, err := u.store.clock(ctx, u.run)
	if err != nil {
		return err
	}
	found := map[string]object{}
	if err := u.store.objects.list(ctx, chunkPrefix(u.run), func(o object) { found[o.name] = o }); err != nil {
		return fmt.Errorf("list the chunks: %w", err)
	}
	maps.DeleteFunc(base, func(_ string, c chunk) bool { o, ok := found[chunkName(u.run, c)]; return !ok || !u.plausible(o, c) })
	maps.DeleteFunc(found, func(name string, o object) bool {
		return now.Sub(o.modified) >= resumable || remembered.damaged[strings.TrimSuffix(path.Base(name), ".zst")]
	})
	u.orphans = found
	return nil
}

// plausible says whether an object has the size of the chunk that it should be.
func (u *upload) plausible(o object, c chunk) bool {
	if c.Zstd {
		return o.size > 0
	}
	return o.size == c.Size+int64(u.seal.overhead())
}

// names are the objects that were sent or found.
func (u *upload) names() []string {
	var names []string
	for _, c := range u.mine {
		names = append(names, chunkName(u.run, c))
	}
	return names
}

// files sends all files that are there.
func (u *upload) files(ctx context.Context) ([]entry, error) {
	entries, err := listFiles(u.root)
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
	if err := stillListed(u.root, entries); err != nil {
		return nil, err
	}
	for _, e := range entries {
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("file %q cannot be saved: %w", e.Path, err)
		}
	}
	return entries, nil
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
		if known, ok := u.known(id); ok {
			e.Chunks = known
			return nil
		}
		remember := u.timestamped && !u.urgent && time.Since(time.Unix(id.ctime.Unix())) > settled
		if remember && unix.Fdatasync(int(f.Fd())) != nil {
			remember = false
		}
		if e.Chunks, err = u.chunks(ctx, f, e.Size, u.before[e.Path]); err != nil {
			return fmt.Errorf("file %q: %w", e.Path, err)
		}
		_, after, err := identify(f)
		if err != nil {
			return err
		}
		if after == id {
			if remember {
				u.remember(id, e.Chunks)
			}
			return nil
		}
		// The file was written to. If what was read is still its beginning, it only
		// grew, and that beginning is what it was at one moment.
		if same, err := u.unchanged(f, e.Chunks, e.Size); err != nil || same {
			return err
		}
	}
	return fmt.Errorf("%w: %q; append to it, or replace it by renaming", ErrChanging, e.Path)
}

// known are the chunks of a file that has not changed since they were sent, if the
// store still has them.
func (u *upload) known(id fileID) ([]chunk, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	chunks, ok := u.read[id]
	if !ok {
		chunks, ok = u.held[id.held()]
	}
	if !ok || slices.ContainsFunc(chunks, func(c chunk) bool { return u.base[c.Digest] != c && u.mine[c.Digest] != c }) {
		return nil, false
	}
	u.now[id] = chunks
	for _, c := range chunks {
		if t, ok := u.tagged[c.Digest]; ok {
			u.tags[c.Digest] = t
		}
	}
	return chunks, true
}

// keepTag keeps a chunk's tag for the next Save.
func (u *upload) keepTag(digest string, t tag) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.tags[digest] = t
}

// has says whether the generation before has left a chunk in the store.
func (u *upload) has(c chunk) bool { return u.base[c.Digest] == c }

func (u *upload) remember(id fileID, chunks []chunk) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.now[id] = chunks
}

// chunks sends the first size bytes of f, which was cut into the old chunks before. If
// f has fewer bytes by now, it was rewritten, and what is returned is short, which the
// caller notices.
func (u *upload) chunks(ctx context.Context, f *os.File, size int64, old []chunk) ([]chunk, error) {
	same, err := u.compare(ctx, f, size, old)
	if err != nil {
		return nil, err
	}
	var chunks []*chunk
	group, groupCtx := errgroup.WithContext(ctx)
	for offset := int64(0); offset < size; {
		if c, ok := same[offset]; ok {
			chunks = append(chunks, &c)
			offset += c.Size
			continue
		}
		if err := u.share.acquire(groupCtx); err != nil {
			return nil, cmp.Or(group.Wait(), err)
		}
		buffer := takeBuffer()
		data, err := readChunk(f, *buffer, offset, size)
		if err != nil || len(data) == 0 {
			giveBuffer(buffer)
			u.share.release()
			err = cmp.Or(group.Wait(), err)
			return flat(chunks), err
		}
		offset += int64(len(data))
		c := new(chunk)
		chunks = append(chunks, c)
		group.Go(func() (err error) {
			defer u.share.release()
			defer giveBuffer(buffer)
			*c, err = u.send(groupCtx, data)
			return err
		})
	}
	err = group.Wait()
	return flat(chunks), err
}

// compare finds the old chunks that are still where they were, by offset. Where to cut
// need not be looked for there: what begins at the same place and has the same content
// is cut at the same place, unless it was cut by the end of the file.
func (u *upload) compare(ctx context.Context, f *os.File, size int64, old []chunk) (map[int64]chunk, error) {
	same := map[int64]chunk{}
	var mu sync.Mutex
	group, groupCtx := errgroup.WithContext(ctx)
	var offset int64
	for i, c := range old {
		at, end := offset, offset+c.Size
		offset = end
		if end > size || i == len(old)-1 && end < size || !u.has(c) {
			continue
		}
		if err := u.share.acquire(groupCtx); err != nil {
			return nil, cmp.Or(group.Wait(), err)
		}
		group.Go(func() error {
			defer u.share.release()
			if is, err := u.is(f, at, c); err != nil || !is {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			same[at] = c
			return nil
		})
	}
	return same, group.Wait()
}

// is says whether a chunk's content is at an offset of f: by its tag if the Save before
// has left that, or else by its digest.
func (u *upload) is(f *os.File, at int64, c chunk) (bool, error) {
	content := io.NewSectionReader(f, at, c.Size)
	if known, ok := u.tagged[c.Digest]; ok {
		t, n, err := u.store.tags.read(content, io.Discard)
		if err != nil || n < c.Size || t != known {
			return false, err
		}
		u.keepTag(c.Digest, t)
		return true, nil
	}
	if u.urgent {
		digest, err := u.seal.digestOf(f, at, c.Size)
		return digest == c.Digest, err
	}
	h := u.seal.hash()
	t, n, err := u.store.tags.read(content, h)
	if err != nil || n < c.Size || hex.EncodeToString(h.Sum(nil)) != c.Digest {
		return false, err
	}
	u.keepTag(c.Digest, t)
	return true, nil
}

func flat(pointers []*chunk) []chunk {
	chunks := make([]chunk, len(pointers))
	for i, p := range pointers {
		chunks[i] = *p
	}
	return chunks
}

// send stores a chunk, unless the store has it.
func (u *upload) send(ctx context.Context, data []byte) (chunk, error) {
	digest := u.seal.digest(data)
	if !u.urgent {
		u.keepTag(digest, u.store.tags.of(data))
	}
	c, known := u.find(digest, int64(len(data)))
	if known {
		return c, nil
	}
	c = chunk{Digest: digest, Size: int64(len(data))}
	buffer := takeBuffer()
	defer giveBuffer(buffer)
	stored := data
	if compressed, ok := u.store.chunks.shrink((*buffer)[:0], data); ok {
		stored, c.Zstd = compressed, true
	}
	name := chunkName(u.run, c)
	if u.seal.aead != nil {
		sealed := takeBuffer()
		defer giveBuffer(sealed)
		stored = u.seal.close((*sealed)[:0], stored, name)
	}
	if err := u.share.send(ctx, len(stored)); err != nil {
		return chunk{}, err
	}
	if err := u.store.objects.put(ctx, name, stored); err != nil {
		return chunk{}, fmt.Errorf("write a chunk: %w", err)
	}
	u.sent.Add(int64(len(stored)))
	u.mu.Lock()
	u.mine[digest] = c
	u.mu.Unlock()
	return c, nil
}

// find looks for a chunk of that content among those that need not be sent.
func (u *upload) find(digest string, size int64) (chunk, bool) {
	if c, known := u.base[digest]; known {
		return c, true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if c, known := u.mine[digest]; known {
		return c, true
	}
	for _, c := range []chunk{{Digest: digest, Size: size}, {Digest: digest, Size: size, Zstd: true}} {
		if o, found := u.orphans[chunkName(u.run, c)]; found && u.plausible(o, c) {
			u.mine[digest] = c
			return c, true
		}
	}
	return chunk{}, false
}

// unchanged reports whether the chunks are still the first size bytes of f.
func (u *upload) unchanged(f *os.File, chunks []chunk, size int64) (bool, error) {
	var offset int64
	for _, c := range chunks {
		digest, err := u.seal.digestOf(f, offset, c.Size)
		if err != nil || digest != c.Digest {
			return false, err
		}
		offset += c.Size
	}
	return offset == size, nil
}

// buffers hold a chunk each, and what sealing and compression add to it.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, maxChunk, maxChunk+64<<10)
	return &b
}}

func takeBuffer() *[]byte {
	b, ok := buffers.Get().(*[]byte)
	if !ok {
		panic(errors.New("the pool of buffers has something else in it"))
	}
	return b
}

func giveBuffer(b *[]byte) { buffers.Put(b) }
