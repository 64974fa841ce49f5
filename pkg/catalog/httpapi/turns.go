// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/spotbench/spotbench/pkg/catalog/importer"
)

// turns bounds how many do something at once. What a result file takes of memory is
// bounded, but a multiple of the file; that many come at once is not.
type turns chan struct{}

const (
	// receivedAtOnce are the large files whose content is on its way or held.
	receivedAtOnce = 4
	// readAtOnce are the files that are decompressed and read.
	readAtOnce = 2
	// largeFile is the size from which a file waits until it may be sent. One of an
	// unknown size waits too.
	largeFile = 1 << 20
	// longestTurn is how long a caller waits.
	longestTurn = 30 * time.Second
)

// take waits for a turn; leave gives it back. It is false if none came in time.
func (t turns) take(ctx context.Context, longest time.Duration) bool {
	late := time.NewTimer(longest)
	defer late.Stop()
	select {
	case t <- struct{}{}:
		return true
	case <-late.C:
	case <-ctx.Done():
	}
	return false
}

func (t turns) leave() { <-t }

// receive lets large files in by turns, before their content is read.
func (a *api) receive(ctx huma.Context, next func(huma.Context)) {
	r, _ := humago.Unwrap(ctx)
	if r.ContentLength >= 0 && r.ContentLength < largeFile {
		next(ctx)
		return
	}
	if !a.receiving.take(ctx.Context(), longestTurn) {
		ctx.SetHeader("Retry-After", "5")
		_ = huma.WriteErr(a.huma, ctx, http.StatusServiceUnavailable, errBusy.Error()) // the caller is gone if this fails
		return
	}
	defer a.receiving.leave()
	next(ctx)
}

var errBusy = errors.New("other files are being imported; send it again after Retry-After seconds")

// readFile reads a result file in its turn. The content, not its compression, is what the
// import is named by. done ends the turn of content that takes much memory until it is stored.
func (a *api) readFile(ctx context.Context, name string, body []byte) (content []byte, parsed importer.Parsed, done func(), err error) {
	if !a.reading.take(ctx, longestTurn) {
		return nil, parsed, func() {}, errBusy
	}
	if content, err = importer.Unpack(name, body); err == nil {
		parsed, err = importer.Parse(name, content)
	}
	if err != nil || len(content) < largeFile {
		a.reading.leave()
		return content, parsed, func() {}, err
	}
	return content, parsed, a.reading.leave, nil
}
