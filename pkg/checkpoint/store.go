// SPDX-License-Identifier: Apache-2.0

// Package checkpoint keeps generations of a directory in an object store. Files
// are cut into chunks that are stored once, under the digest of their content; a
// generation exists when its manifest does, which is written last and never
// replaced. So a checkpoint that was cut short is invisible, and the one before
// it stays good.
//
// What is kept: regular files, directories, symbolic links, permissions and
// modification times. What is not: owners, extended attributes, hard links as
// such, sockets, pipes, devices, and the directory .spotbench.
package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"gocloud.dev/blob"
	_ "gocloud.dev/blob/fileblob" // file://
	_ "gocloud.dev/blob/s3blob"   // s3://
	"gocloud.dev/gcerrors"
)

// DefaultKeep is how many generations Prune keeps of a run.
const DefaultKeep = 3

var (
	// ErrNothing says that the directory has no files, so there is nothing to save.
	ErrNothing = errors.New("there are no files to save")
	// ErrRemoved says that the directory was removed while it was read.
	ErrRemoved = errors.New("the directory was removed while it was read")
	// ErrChanging says that a file was rewritten in place each time it was read.
	ErrChanging = errors.New("a file changes in place while it is read")
	// ErrDamaged says that what the store has cannot be used.
	ErrDamaged = errors.New("damaged")
)

// Generation identifies a checkpoint.
type Generation struct {
	// Number grows by at least one with each checkpoint of a run.
	Number int64
	// Meta is what Save was given.
	Meta map[string]string
	// CreatedAt is when it became whole.
	CreatedAt time.Time
	// NewestFile is the newest modification time among its files: how far the work
	// is that it holds.
	NewestFile time.Time
}

// Saved is a generation just made.
type Saved struct {
	Generation
	Files int
	// Bytes of the files, and of them the compressed bytes that had to be sent.
	Bytes, Uploaded int64
}

// Restored is a generation just written back.
type Restored struct {
	Generation
	Files int
	Bytes int64
	// Damaged are newer generations that could not be used.
	Damaged []int64
}

// Info describes a generation in a list; Err is why it cannot be used.
type Info struct {
	Generation
	Files int
	Bytes int64
	Err   error
}

// Store is a bucket of checkpoints.
type Store struct {
	bucket *blob.Bucket
	keep   int
	enc    *zstd.Encoder
	dec    *zstd.Decoder

	mu sync.Mutex
	// read remembers the chunks of files by inode, size and times, so that a file
	// that has not changed is not read again.
	read map[string]map[fileID][]chunk // by run
}

// Open opens the bucket of a URL: s3://bucket, with the query parameters endpoint,
// use_path_style and region for other services than AWS, or file:///path. In a
// directory two processes that finish a checkpoint of the same run at the same
// moment can get the same number, of which one then replaces the other; S3 decides.
func Open(ctx context.Context, storeURL string, keep int) (*Store, error) {
	u, err := url.Parse(storeURL)
	if err != nil || u.Scheme != "file" && u.Scheme != "s3" {
		return nil, fmt.Errorf("checkpoint store %q: use file:///path or s3://bucket?region=…", redact(storeURL))
	}
	if keep < 1 {
		return nil, fmt.Errorf("number of checkpoints to keep %d: use at least 1", keep)
	}
	if u.Scheme == "file" {
		q := u.Query()
		// A temporary directory elsewhere could not be renamed from; times and digests
		// are in our own manifests.
		q.Set("no_tmp_dir", "true")
		q.Set("metadata", "skip")
		q.Set("create_dir", "true")
		u.RawQuery = q.Encode()
	}
	bucket, err := blob.OpenBucket(ctx, u.String())
	if err != nil {
		return nil, fmt.Errorf("checkpoint store %s: %w", redact(storeURL), err)
	}
	return New(bucket, keep)
}

// New makes a store of a bucket, which it owns from then on.
func New(bucket *blob.Bucket, keep int) (*Store, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(chunkSize))
	if err != nil {
		return nil, err
	}
	return &Store{bucket: bucket, keep: keep, enc: enc, dec: dec, read: map[string]map[fileID][]chunk{}}, nil
}

// Close closes the bucket.
func (s *Store) Close() error {
	s.dec.Close()
	return errors.Join(s.enc.Close(), s.bucket.Close())
}

// redact removes a password from a URL for messages.
func redact(storeURL string) string {
	if u, err := url.Parse(storeURL); err == nil {
		return u.Redacted()
	}
	return "(not a URL)"
}

var runPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*$`)

func checkRun(run string) error {
	if len(run) > 512 || !runPattern.MatchString(run) {
		return fmt.Errorf("run %q is not the key of a run; use for example gpu-workloads/llama-sweep", run)
	}
	return nil
}

// No part of a run's key begins with an underscore, so these cannot collide with
// another run's.
func manifestPrefix(run string) string { return run + "/_manifests/" }
func chunkPrefix(run string) string    { return run + "/_chunks/" }

func manifestKey(run string, generation int64) string {
	return fmt.Sprintf("%s%020d.json", manifestPrefix(run), generation)
}

func chunkKey(run, digest string) string { return chunkPrefix(run) + digest[:2] + "/" + digest }

// numbers are the generations of the run that have a manifest, newest first.
func (s *Store) numbers(ctx context.Context, run string) ([]int64, error) {
	if err := checkRun(run); err != nil {
		return nil, err
	}
	var err error
	for range attempts {
		var numbers []int64
		numbers, err = s.listNumbers(ctx, run)
		if err == nil {
			return numbers, nil
		}
		// In a file:// store the list trips over a file that is renamed meanwhile.
		if gcerrors.Code(err) != gcerrors.NotFound {
			break
		}
	}
	return nil, fmt.Errorf("list the checkpoints of %s: %w", run, err)
}

func (s *Store) listNumbers(ctx context.Context, run string) ([]int64, error) {
	var numbers []int64
	iter := s.bucket.List(&blob.ListOptions{Prefix: manifestPrefix(run)})
	for {
		object, err := iter.Next(ctx)
		if errors.Is(err, io.EOF) {
			slices.Sort(numbers)
			slices.Reverse(numbers)
			return numbers, nil
		}
		if err != nil {
			return nil, err
		}
		if n, err := strconv.ParseInt(strings.TrimSuffix(path.Base(object.Key), ".json"), 10, 64); err == nil && n > 0 {
			numbers = append(numbers, n)
		}
	}
}

// load reads a manifest. An error is ErrDamaged if the object was read but is of
// no use.
func (s *Store) load(ctx context.Context, run string, generation int64) (manifest, error) {
	data, err := s.get(ctx, manifestKey(run, generation), maxManifest)
	if err != nil {
		return manifest{}, fmt.Errorf("checkpoint %d of %s: %w", generation, run, err)
	}
	m, err := decodeManifest(data, run, generation)
	if err != nil {
		return manifest{}, fmt.Errorf("checkpoint %d of %s: %w manifest: %w", generation, run, ErrDamaged, err)
	}
	return m, nil
}

// get reads an object of at most limit bytes. One that is missing or longer counts
// as damaged.
func (s *Store) get(ctx context.Context, key string, limit int64) ([]byte, error) {
	r, err := s.bucket.NewReader(ctx, key, nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, fmt.Errorf("%w: object %s is missing", ErrDamaged, key)
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if r.Size() > limit {
		return nil, fmt.Errorf("%w: object %s has %d bytes", ErrDamaged, key, r.Size())
	}
	return io.ReadAll(r)
}

// Latest is the newest generation with a good manifest; false if the run has none.
func (s *Store) Latest(ctx context.Context, run string) (Generation, bool, error) {
	m, found, err := s.latest(ctx, run)
	return m.generation(), found, err
}

func (s *Store) latest(ctx context.Context, run string) (manifest, bool, error) {
	numbers, err := s.numbers(ctx, run)
	if err != nil {
		return manifest{}, false, err
	}
	for _, n := range numbers {
		m, err := s.load(ctx, run, n)
		if errors.Is(err, ErrDamaged) {
			continue
		}
		return m, err == nil, err
	}
	return manifest{}, false, nil
}

// List describes all generations of a run, newest first.
func (s *Store) List(ctx context.Context, run string) ([]Info, error) {
	numbers, err := s.numbers(ctx, run)
	if err != nil {
		return nil, err
	}
	infos := make([]Info, 0, len(numbers))
	for _, n := range numbers {
		m, err := s.load(ctx, run, n)
		if err != nil && !errors.Is(err, ErrDamaged) {
			return nil, err
		}
		info := Info{Generation: m.generation(), Err: err}
		info.Number = n
		info.Files, info.Bytes = m.totals()
		infos = append(infos, info)
	}
	return infos, nil
}
