// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// matches reports whether an If-None-Match or If-Match names the tag (RFC 9110,
// 13.1). Tags that are marked weak match too: a 304 only needs that much.
func matches(header, tag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		part = strings.TrimSpace(part)
		if part == "*" || strings.TrimPrefix(part, "W/") == strings.TrimPrefix(tag, "W/") {
			return true
		}
	}
	return false
}

// tagged gives the reads of the API that have no ETag of their own one of their
// content, and answers 304 to those who have that content already. The handler
// runs either way: what is saved is the transfer.
func tagged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || !strings.HasPrefix(r.URL.Path, "/v1/") || strings.HasPrefix(r.URL.Path, "/v1/exports/") {
			next.ServeHTTP(w, r)
			return
		}
		answer, _ := answers.Get().(*held) // the pool has no others
		answer.header, answer.status = w.Header(), http.StatusOK
		answer.body.Reset()
		defer func() {
			if answer.header = nil; answer.body.Cap() <= largestKept {
				answers.Put(answer)
			}
		}()
		next.ServeHTTP(answer, r)
		if answer.status == http.StatusOK && w.Header().Get("ETag") == "" {
			sum := sha256.Sum256(answer.body.Bytes())
			tag := `"` + hex.EncodeToString(sum[:16]) + `"`
			w.Header().Set("ETag", tag)
			w.Header().Set("Cache-Control", "no-cache")
			if header := r.Header.Get("If-None-Match"); header != "" && matches(header, tag) {
				w.Header().Del("Content-Type")
				w.WriteHeader(http.StatusNotModified)
				return
			}
		}
		w.Header().Set("Content-Length", strconv.Itoa(answer.body.Len()))
		w.WriteHeader(answer.status)
		_, _ = w.Write(answer.body.Bytes()) // the caller is gone if this fails
	})
}

// answers are reused: they are of many sizes, and growing each anew is what reads
// would allocate most for.
var answers = sync.Pool{New: func() any { return &held{} }}

// largestKept is the size above which an answer's memory is given back.
const largestKept = 1 << 20

// held is an answer that waits for its tag. Lists are bounded, so it is too.
type held struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (h *held) Header() http.Header         { return h.header }
func (h *held) WriteHeader(status int)      { h.status = status }
func (h *held) Write(b []byte) (int, error) { return h.body.Write(b) }
