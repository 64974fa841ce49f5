// SPDX-License-Identifier: Apache-2.0

// Package heap measures for tests what something takes of memory.
package heap

import (
	"runtime"
	"sync/atomic"
	"time"
)

// Peak is the most memory in use while do runs, in bytes, above what there was before.
func Peak(do func()) uint64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	before := stats.HeapInuse
	var most atomic.Uint64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
				var now runtime.MemStats
				runtime.ReadMemStats(&now)
				most.Store(max(most.Load(), now.HeapInuse))
			}
		}
	}()
	do()
	close(stop)
	<-stopped
	runtime.ReadMemStats(&stats)
	return max(most.Load(), stats.HeapInuse, before) - before
}
