// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/s2"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// lists is the tag of what shows many runs; those of one have the run's.
const lists = "lists"

// Handler answers reads of the API that may be kept from the cache, and makes those
// that a write changes out of date before the write is answered. matches tells
// whether an If-None-Match names an ETag.
func (c *Cache) Handler(next http.Handler, matches func(header, tag string) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !strings.HasPrefix(r.URL.Path, "/v1/") || passing(r.URL.Path):
			next.ServeHTTP(w, r)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			c.write(w, r, next)
		case r.Method == http.MethodHead:
			next.ServeHTTP(w, r)
		default:
			c.read(w, r, next, matches)
		}
	})
}

// passing are what is not kept: it is large, or not for everybody.
func passing(path string) bool {
	return strings.HasPrefix(path, "/v1/exports/") || strings.HasPrefix(path, "/v1/keys") || strings.HasPrefix(path, "/v1/audit") || strings.HasSuffix(path, "/file")
}

// tagOf is what an escaped path is about. A key can be escaped in more than one way.
func tagOf(path string) string {
	rest, ok := strings.CutPrefix(path, "/v1/runs/")
	if !ok {
		return lists
	}
	escaped, _, _ := strings.Cut(rest, "/")
	key, err := url.PathUnescape(escaped)
	if err != nil {
		return lists // no address of a run
	}
	return "run:" + key
}

func (c *Cache) write(w http.ResponseWriter, r *http.Request, next http.Handler) {
	written := &recording{header: w.Header(), status: http.StatusOK}
	next.ServeHTTP(written, r)
	// A write that failed by the server's fault, or whose caller went away (499), may have
	// been done all the same.
	if written.status < 400 || written.status >= 499 {
		tags := []string{lists}
		if tag := tagOf(r.URL.EscapedPath()); tag != lists {
			tags = append(tags, tag)
		}
		if run := r.URL.Query().Get("run"); run != "" {
			tags = append(tags, "run:"+run)
		}
		c.Bump(r.Context(), tags...)
	}
	w.WriteHeader(written.status)
	_, _ = w.Write(written.body.Bytes()) // the caller is gone if this fails
}

func (c *Cache) read(w http.ResponseWriter, r *http.Request, next http.Handler, matches func(header, tag string) bool) {
	path := r.URL.EscapedPath()
	answer, err := c.get(r.Context(), tagOf(path), path+"?"+r.URL.RawQuery, catalog.SeenPosition(r.Context()) != "", func(ctx context.Context) (*answer, bool) {
		fresh := r.Clone(ctx)
		fresh.Header.Del("If-None-Match") // the answer is for others as well
		written := &recording{header: http.Header{}, status: http.StatusOK}
		next.ServeHTTP(written, fresh)
		return written.answer(), written.status == http.StatusOK && written.header.Get("Cache-Control") != "no-store"
	})
	if r.Context().Err() != nil {
		return // the caller went away
	}
	if err != nil {
		panic(err) // as the read did; the server answers 500 and says why in its log
	}
	header := w.Header()
	for _, h := range answer.header {
		header[h.name] = h.values
	}
	if asked := r.Header.Get("If-None-Match"); asked != "" && answer.status == http.StatusOK && header.Get("ETag") != "" && header.Get("Cache-Control") != "no-store" && matches(asked, header.Get("ETag")) {
		header.Del("Content-Type")
		header.Del("Content-Length")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.WriteHeader(answer.status)
	answer.write(w)
}

// recording is what a handler writes.
type recording struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recording) Header() http.Header         { return r.header }
func (r *recording) WriteHeader(status int)      { r.status = status }
func (r *recording) Write(b []byte) (int, error) { return r.body.Write(b) }

// kept are the headers that belong to the content.
var kept = []string{"Content-Type", "Content-Length", "Etag", "Cache-Control", "Link", "Retry-After"}

// answer is what was written, with the headers that are kept.
func (r *recording) answer() *answer {
	a := &answer{status: r.status, content: r.body.Bytes()}
	for _, name := range kept {
		if values := r.header[name]; len(values) > 0 {
			a.header = append(a.header, line{name, values[:1:1]})
		}
	}
	return a
}

// answer is what a handler wrote. It is shared by all whom it answers, and never changed.
type answer struct {
	status int
	header []line
	// content is compressed if packed.
	content []byte
	packed  bool
}

// leastPacked is the content that is worth compressing. Lists and comparisons are tens of
// kilobytes that take a tenth compressed, so that this process can keep ten times as many
// of them; to decompress one takes far less than to ask Redis for it.
const leastPacked = 4 << 10

// pack is the answer as it is kept.
func (a *answer) pack() *answer {
	if a.packed || len(a.content) < leastPacked {
		return a
	}
	packed := *a
	packed.content, packed.packed = bytes.Clone(s2.Encode(nil, a.content)), true
	return &packed
}

// unpacked are buffers for contents that are about to be written.
var unpacked = sync.Pool{New: func() any { return new([]byte) }}

// write writes the content.
func (a *answer) write(w io.Writer) {
	if !a.packed {
		_, _ = w.Write(a.content) // the caller is gone if this fails
		return
	}
	if err := unpack(a.content, func(content []byte) { _, _ = w.Write(content) }); err != nil {
		panic(err) // it is of our making, or was looked at when it was fetched
	}
}

// unpack decompresses a content for as long as use takes.
func unpack(packed []byte, use func(content []byte)) error {
	buffer, _ := unpacked.Get().(*[]byte) // the pool has no others
	defer unpacked.Put(buffer)
	content, err := s2.Decode((*buffer)[:cap(*buffer)], packed)
	if err != nil {
		return err
	}
	*buffer = content
	use(content)
	return nil
}

// line is a header.
type line struct {
	name   string
	values []string
}

// encode is the answer as one text: the status, with a mark if the content is compressed,
// and a line per header, an empty line, and the content.
func (a *answer) encode() []byte {
	out := strconv.AppendInt(make([]byte, 0, len(a.content)+overhead), int64(a.status), 10)
	if a.packed {
		out = append(out, packedMark...)
	}
	out = append(out, '\n')
	for _, h := range a.header {
		out = append(append(append(append(out, h.name...), ':'), h.values[0]...), '\n')
	}
	return append(append(out, '\n'), a.content...)
}

const packedMark = " s2"

// decode reads an answer, nil if it is none.
func decode(text []byte) *answer {
	first, rest, ok := bytes.Cut(text, []byte("\n"))
	number, packed := strings.CutSuffix(string(first), packedMark)
	status, err := strconv.Atoi(number)
	if !ok || err != nil {
		return nil
	}
	a := &answer{status: status, packed: packed}
	for {
		var header []byte
		header, rest, ok = bytes.Cut(rest, []byte("\n"))
		if !ok {
			return nil
		}
		if len(header) == 0 {
			if packed && !sound(rest) {
				return nil
			}
			a.content = rest
			return a
		}
		name, value, _ := strings.Cut(string(header), ":")
		a.header = append(a.header, line{http.CanonicalHeaderKey(name), []string{value}})
	}
}

// sound reports whether a compressed content is whole, and no larger than any of ours.
func sound(packed []byte) bool {
	length, err := s2.DecodedLen(packed)
	return err == nil && length <= largest && unpack(packed, func([]byte) {}) == nil
}
