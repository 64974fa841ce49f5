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
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gocloud.dev/blob"
)

// DefaultKeep is how many generations Prune keeps of a run.
const DefaultKeep = 3

// Schemes are those of a store's URL.
var Schemes = []string{"s3", "gs", "azblob", "file"}

var (
	// ErrNothing says that the directory has no files, so there is nothing to save.
	ErrNothing = errors.New("there are no files to save")
	// ErrRemoved says that the directory was removed while it was read.
	ErrRemoved = errors.New("the directory was removed while it was read")
	// ErrChanging says that a file was rewritten in place each time it was read.
	ErrChanging = errors.New("a file changes in place while it is read")
	// ErrDamaged says that what the store has cannot be used.
	ErrDamaged = errors.New("damaged")
	// ErrKey says that what the store has is encrypted with another key than the
	// store was opened with.
	ErrKey = errors.New("wrong encryption key")
	// ErrSuperseded says that another writer has restored the run since, and goes on
	// with it: what this one saves would put the run back.
	ErrSuperseded = errors.New("another writer goes on with the run")
	// ErrHalfRestored says that a restore into the directory was cut short.
	ErrHalfRestored = errors.New("a restore into this directory was cut short; restore again")
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

// Info describes a generation in a list; Err is why it cannot be used.
type Info struct {
	Generation
	Files int
	Bytes int64
	Err   error
}

// Options say where a store is and how it is used.
type Options struct {
	// URL is s3://bucket or azblob://container, with gocloud.dev's query parameters,
	// gs://bucket or file:///path.
	URL string
	// Keep is how many generations Prune keeps of a run; 0 is DefaultKeep.
	Keep int
	// MaxAge is the age at which Prune removes a generation that is not the newest,
	// even if it is among those to keep; 0 is none.
	MaxAge time.Duration
	// Key encrypts; the zero Key does not.
	Key Key
	// UploadLimit bounds what all Saves send together, in bytes a second; 0 does not.
	// Urgent ones are not bound by it.
	UploadLimit int64
}

// Store is a bucket of checkpoints. It is safe for concurrent use, also by several
// processes.
type Store struct {
	objects   objects
	keep      int
	maxAge    time.Duration
	key       Key
	shares    *shares
	chunks    codec
	manifests codec
	tags      tagger

	mu   sync.Mutex
	runs map[string]memory
}

// Open opens a store.
func Open(ctx context.Context, o Options) (*Store, error) {
	u, err := url.Parse(o.URL)
	if err != nil || !slices.Contains(Schemes, u.Scheme) || u.Scheme == "file" && (u.Host != "" || u.Path == "") || u.Scheme != "file" && u.Host == "" {
		return nil, fmt.Errorf("checkpoint store %q: use s3://bucket?region=…, gs://bucket, azblob://container?storage_account=… or file:///path", redact(o.URL))
	}
	if o.Keep < 0 {
		return nil, fmt.Errorf("number of checkpoints to keep %d: use at least 1", o.Keep)
	}
	if o.MaxAge < 0 {
		return nil, fmt.Errorf("age of checkpoints %s: use a positive duration, or 0 for any age", o.MaxAge)
	}
	if o.UploadLimit < 0 {
		return nil, fmt.Errorf("upload limit %d: use bytes a second, or 0 for none", o.UploadLimit)
	}
	s := &Store{keep: o.Keep, maxAge: o.MaxAge, key: o.Key, shares: newShares(o.UploadLimit), runs: map[string]memory{}}
	if s.keep == 0 {
		s.keep = DefaultKeep
	}
	if s.tags, err = newTagger(); err != nil {
		return nil, err
	}
	if s.chunks, err = newCodec(maxChunk); err != nil {
		return nil, err
	}
	if s.manifests, err = newCodec(maxManifest); err != nil {
		return nil, err
	}
	if s.objects, err = openObjects(ctx, u); err != nil {
		return nil, errors.Join(fmt.Errorf("checkpoint store %s: %w", redact(o.URL), err), s.chunks.close(), s.manifests.close())
	}
	return s, nil
}

func openObjects(ctx context.Context, u *url.URL) (objects, error) {
	if u.Scheme == "file" {
		if u.RawQuery != "" {
			return nil, fmt.Errorf("unknown query parameters %q: file:// has none", u.RawQuery)
		}
		return openDirectory(u.Path)
	}
	if u.Scheme == "gs" {
		if u.RawQuery != "" {
			return nil, fmt.Errorf("unknown query parameters %q: gs:// has none", u.RawQuery)
		}
		return openGCS(ctx, u.Host)
	}
	location := *u
	location.User = nil // credentials are not taken from a URL, nor to be in its errors
	bucket, err := blob.OpenBucket(ctx, location.String())
	if err != nil {
		return nil, err
	}
	return cloud{bucket}, nil
}

// Close closes the store.
func (s *Store) Close() error {
	return errors.Join(s.chunks.close(), s.manifests.close(), s.objects.close())
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
func removedPrefix(run string) string  { return run + "/_removed/" }
func writerPrefix(run string) string   { return run + "/_writers/" }
func chunkPrefix(run string) string    { return run + "/_chunks/" }

func manifestName(run string, generation int64) string {
	return manifestPrefix(run) + numbered(generation)
}

// numbered is a number as part of a name that sorts like it.
func numbered(n int64) string { return fmt.Sprintf("%020d", n) }

// chunkName is where a chunk is. A compressed one has another name than the same
// content as it is, since two versions of this program may decide differently.
func chunkName(run string, c chunk) string {
	name := chunkPrefix(run) + c.Digest[:2] + "/" + c.Digest
	if c.Zstd {
		name += ".zst"
	}
	return name
}

// numbers are the generations of the run that have a manifest, newest first.
func (s *Store) numbers(ctx context.Context, run string) ([]int64, error) {
	found, err := s.numberedObjects(ctx, manifestPrefix(run))
	if err != nil {
		return nil, fmt.Errorf("list the checkpoints of %s: %w", run, err)
	}
	return newestFirst(found), nil
}

func newestFirst(found map[int64]object) []int64 {
	numbers := slices.Sorted(maps.Keys(found))
	slices.Reverse(numbers)
	return numbers
}

func (s *Store) numberedObjects(ctx context.Context, prefix string) (map[int64]object, error) {
	found := map[int64]object{}
	err := s.objects.list(ctx, prefix, func(o object) {
		if n, err := strconv.ParseInt(path.Base(o.name), 10, 64); err == nil && n > 0 && o.name == prefix+numbered(n) {
			found[n] = o
		}
	})
	return found, err
}

// load reads a manifest. An error is ErrDamaged if the object was read but is of
// no use.
func (s *Store) load(ctx context.Context, run string, generation int64) (manifest, error) {
	m, err := s.loadFrom(ctx, manifestName(run, generation), run, generation)
	if err != nil {
		return manifest{}, fmt.Errorf("checkpoint %d of %s: %w", generation, run, err)
	}
	return m, nil
}

func (s *Store) loadFrom(ctx context.Context, name, run string, generation int64) (manifest, error) {
	data, err := s.objects.get(ctx, name, nil, maxManifest)
	if err != nil {
		return manifest{}, err
	}
	seal, err := newSeal(s.key, run)
	if err != nil {
		return manifest{}, err
	}
	m, err := decodeManifest(data, run, generation, seal, s.manifests)
	if err != nil && !errors.Is(err, ErrKey) {
		err = fmt.Errorf("%w manifest: %w", ErrDamaged, err)
	}
	return m, err
}

// Latest is the newest generation with a good manifest; false if the run has none.
func (s *Store) Latest(ctx context.Context, run string) (Generation, bool, error) {
	if err := checkRun(run); err != nil {
		return Generation{}, false, err
	}
	numbers, err := s.numbers(ctx, run)
	if err != nil {
		return Generation{}, false, err
	}
	m, found, err := s.newest(ctx, run, numbers)
	return m.generation(), found, err
}

// newest is the first of the numbers with a good manifest.
func (s *Store) newest(ctx context.Context, run string, numbers []int64) (manifest, bool, error) {
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
	if err := checkRun(run); err != nil {
		return nil, err
	}
	numbers, err := s.numbers(ctx, run)
	if err != nil {
		return nil, err
	}
	infos := make([]Info, 0, len(numbers))
	for _, n := range numbers {
		m, err := s.load(ctx, run, n)
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrKey) {
			return nil, err
		}
		info := Info{Generation: m.generation(), Err: err}
		info.Number = n
		info.Files, info.Bytes = m.totals()
		infos = append(infos, info)
	}
	return infos, nil
}

// Runs are the runs that have something in the store, in order.
func (s *Store) Runs(ctx context.Context) ([]string, error) {
	var runs []string
	var look func(prefix string) error
	look = func(prefix string) error {
		names, err := s.objects.below(ctx, prefix)
		if err != nil {
			return err
		}
		if run := strings.TrimSuffix(prefix, "/"); checkRun(run) == nil && slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "_") }) {
			runs = append(runs, run)
		}
		for _, name := range names {
			if !strings.HasPrefix(name, "_") {
				if err := look(prefix + name); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := look(""); err != nil {
		return nil, fmt.Errorf("list the runs: %w", err)
	}
	slices.Sort(runs)
	return runs, nil
}
