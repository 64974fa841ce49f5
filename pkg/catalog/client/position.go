// SPDX-License-Identifier: Apache-2.0

package client

import (
	"fmt"
	"sync"
	"time"
)

// positionHeader is where a write left the catalog's database. Sent with a read, it
// has it answered by a server, and from a cache, that has the write.
const positionHeader = "Catalog-Position"

// remembered is how long a position is sent: for longer, the catalog answers neither
// from a replica that lags behind nor from its cache.
const remembered = time.Minute

// written is the furthest position of a client's recent writes.
type written struct {
	mu    sync.Mutex
	text  string
	place uint64
	at    time.Time
}

func (w *written) position() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.at) > remembered {
		return ""
	}
	return w.text
}

// note takes the position of an answer, "" for one that has none. Of writes at the
// same time the furthest counts.
func (w *written) note(text string) {
	var high, low uint32
	if n, _ := fmt.Sscanf(text, "%X/%X", &high, &low); n != 2 {
		return
	}
	place := uint64(high)<<32 | uint64(low)
	w.mu.Lock()
	defer w.mu.Unlock()
	if place >= w.place || time.Since(w.at) > remembered {
		w.text, w.place, w.at = text, place, time.Now()
	}
}
