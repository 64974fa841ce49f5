// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

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
	answer := &answer{header: w.Header(), status: http.StatusOK}
	next.ServeHTTP(answer, r)
	// A write that failed by the server's fault, or whose caller went away (499), may have
	// been done all the same.
	if answer.status < 400 || answer.status >= 499 {
		tags := []string{lists}
		if tag := tagOf(r.URL.EscapedPath()); tag != lists {
			tags = append(tags, tag)
		}
		if run := r.URL.Query().Get("run"); run != "" {
			tags = append(tags, "run:"+run)
		}
		c.Bump(r.Context(), tags...)
	}
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.body.Bytes()) // the caller is gone if this fails
}

func (c *Cache) read(w http.ResponseWriter, r *http.Request, next http.Handler, matches func(header, tag string) bool) {
	question := r.URL.EscapedPath() + "?" + r.URL.RawQuery
	kept, err := c.get(r.Context(), tagOf(r.URL.EscapedPath()), question, catalog.SeenPosition(r.Context()) != "", func(ctx context.Context) ([]byte, bool, error) {
		fresh := r.Clone(ctx)
		fresh.Header.Del("If-None-Match") // the answer is for others as well
		answer := &answer{header: http.Header{}, status: http.StatusOK}
		next.ServeHTTP(answer, fresh)
		return answer.encode(), answer.status == http.StatusOK && answer.header.Get("Cache-Control") != "no-store", nil
	})
	if r.Context().Err() != nil {
		return // the caller went away
	}
	if err != nil {
		panic(err) // as the read did; the server answers 500 and says why in its log
	}
	answer := decode(kept)
	if answer.status == 0 {
		next.ServeHTTP(w, r) // what is kept is not ours
		return
	}
	header := w.Header()
	for name, values := range answer.header {
		header[name] = values
	}
	if tag, asked := header.Get("ETag"), r.Header.Get("If-None-Match"); answer.status == http.StatusOK && asked != "" && tag != "" && header.Get("Cache-Control") != "no-store" && matches(asked, tag) {
		header.Del("Content-Type")
		header.Del("Content-Length")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.rest) // the caller is gone if this fails
}

// answer is what a handler wrote, or what was kept of it.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
	rest   []byte
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

// kept are the headers that belong to the content.
var kept = []string{"Content-Type", "Content-Length", "ETag", "Cache-Control", "Link", "Retry-After"}

// encode is the answer as one text: the status and a line per header, an empty line,
// and the content.
func (a *answer) encode() []byte {
	out := strconv.AppendInt(nil, int64(a.status), 10)
	out = append(out, '\n')
	for _, name := range kept {
		if value := a.header.Get(name); value != "" {
			out = append(append(append(append(out, name...), ':'), value...), '\n')
		}
	}
	return append(append(out, '\n'), a.body.Bytes()...)
}

// decode reads an answer; its status is 0 if it is none.
func decode(text []byte) *answer {
	a := &answer{header: http.Header{}}
	line, rest, ok := bytes.Cut(text, []byte("\n"))
	status, err := strconv.Atoi(string(line))
	if !ok || err != nil {
		return a
	}
	for {
		line, rest, ok = bytes.Cut(rest, []byte("\n"))
		if !ok {
			return a
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := strings.Cut(string(line), ":")
		a.header[http.CanonicalHeaderKey(name)] = []string{value}
	}
	a.status, a.rest = status, rest
	return a
}
