// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/azureblob" // azblob://
	_ "gocloud.dev/blob/s3blob"    // s3://
	"gocloud.dev/gcerrors"
)

// objects is what checkpoints need of an object store. Names are separated by slashes.
type objects interface {
	// put writes an object, whole or not at all, in the place of one of that name.
	put(ctx context.Context, name string, data []byte) error
	// create writes an object unless there is one of that name: errExists. It is on
	// the store's disk when create returns.
	create(ctx context.Context, name string, data []byte) error
	// get appends an object to buffer. One that is missing or has more than limit
	// bytes is ErrDamaged.
	get(ctx context.Context, name string, buffer []byte, limit int64) ([]byte, error)
	// list calls each for every object below the prefix, which ends with a slash.
	list(ctx context.Context, prefix string, each func(object)) error
	// below are the names that continue the prefix up to the next slash, with it.
	below(ctx context.Context, prefix string) ([]string, error)
	// remove removes an object; that there is none is no error.
	remove(ctx context.Context, name string) error
	// settle returns when objects that were put are on the store's disk.
	settle(ctx context.Context, names []string) error
	close() error
}

// object is one in a list.
type object struct {
	name     string
	size     int64
	modified time.Time // by the store's clock
}

var errExists = errors.New("there is an object of that name")

// cloud is a bucket of an object store that decides itself who comes first.
type cloud struct{ bucket *blob.Bucket }

const (
	// answerWithin is how long a store may take to begin its answer. A request that was
	// lost on the way must not hold up what would succeed if it were made again.
	answerWithin = 15 * time.Second
	// slowest is the rate, in bytes a second, at which an object must be sent or come:
	// one of eight at once over a line of half a megabit a second.
	slowest = 8 << 10
)

// patience ends a request that takes too long; more gives it time for so many bytes.
func patience(ctx context.Context) (_ context.Context, more func(bytes int64), end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	limit := time.AfterFunc(answerWithin, func() { cancel(errors.New("the store does not answer")) })
	more = func(bytes int64) { limit.Reset(answerWithin + time.Duration(bytes)*time.Second/slowest) }
	return ctx, more, func() { limit.Stop(); cancel(nil) }
}

func (c cloud) put(ctx context.Context, name string, data []byte) error {
	return c.upload(ctx, name, data, false)
}

func (c cloud) create(ctx context.Context, name string, data []byte) error {
	err := c.upload(ctx, name, data, true)
	if gcerrors.Code(err) == gcerrors.FailedPrecondition || gcerrors.Code(err) == gcerrors.AlreadyExists {
		return fmt.Errorf("%w: %w", errExists, err)
	}
	return err
}

// upload sends an object by one request, which is what conditions apply to everywhere.
// It does not use the bucket's writers: Azure's ends the program when what was written
// is refused.
func (c cloud) upload(ctx context.Context, name string, data []byte, ifNotExist bool) error {
	ctx, more, end := patience(ctx)
	defer end()
	more(int64(len(data)))
	err := c.bucket.Upload(ctx, name, bytes.NewReader(data), &blob.WriterOptions{ContentType: "application/octet-stream",
		BufferSize: max(len(data)+1, 5<<20), MaxConcurrency: 1, IfNotExist: ifNotExist})
	return because(ctx, err)
}

// because is err, or why ctx ended if that is what err comes of.
func because(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (c cloud) get(ctx context.Context, name string, buffer []byte, limit int64) ([]byte, error) {
	ctx, more, end := patience(ctx)
	defer end()
	r, err := c.bucket.NewReader(ctx, name, nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, missing(name)
	}
	if err != nil {
		return nil, because(ctx, err)
	}
	defer r.Close()
	if r.Size() > limit {
		return nil, tooLong(name, r.Size())
	}
	more(r.Size())
	buffer, err = fill(buffer, r, int(r.Size()))
	return buffer, because(ctx, err)
}

// fill appends n bytes of r to buffer.
func fill(buffer []byte, r io.Reader, n int) ([]byte, error) {
	had := len(buffer)
	buffer = slices.Grow(buffer, n)[:had+n]
	_, err := io.ReadFull(r, buffer[had:])
	return buffer, err
}

func missing(name string) error { return fmt.Errorf("%w: object %s is missing", ErrDamaged, name) }

func tooLong(name string, size int64) error {
	return fmt.Errorf("%w: object %s has %d bytes", ErrDamaged, name, size)
}

func (c cloud) list(ctx context.Context, prefix string, each func(object)) error {
	return c.pages(ctx, &blob.ListOptions{Prefix: prefix}, func(o *blob.ListObject) {
		each(object{name: o.Key, size: o.Size, modified: o.ModTime})
	})
}

func (c cloud) below(ctx context.Context, prefix string) ([]string, error) {
	var names []string
	err := c.pages(ctx, &blob.ListOptions{Prefix: prefix, Delimiter: "/"}, func(o *blob.ListObject) {
		if o.IsDir {
			names = append(names, strings.TrimPrefix(o.Key, prefix))
		}
	})
	return names, err
}

func (c cloud) pages(ctx context.Context, o *blob.ListOptions, each func(*blob.ListObject)) error {
	ctx, more, end := patience(ctx)
	defer end()
	iter := c.bucket.List(o)
	for {
		more(0)
		o, err := iter.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return because(ctx, err)
		}
		each(o)
	}
}

func (c cloud) remove(ctx context.Context, name string) error {
	ctx, _, end := patience(ctx)
	defer end()
	if err := c.bucket.Delete(ctx, name); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return because(ctx, err)
	}
	return nil
}

// settle has nothing to do: an object store answers when it has the object.
func (c cloud) settle(context.Context, []string) error { return nil }

func (c cloud) close() error { return c.bucket.Close() }
