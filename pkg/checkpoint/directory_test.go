// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

func TestOfSeveralWhoCreateTheSameFileOneIsFirst(t *testing.T) {
	d, err := openDirectory(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		name := fmt.Sprint("run/_manifests/", i)
		var first atomic.Int64
		var winner atomic.Pointer[string]
		start := make(chan struct{})
		var all sync.WaitGroup
		for w := range 8 {
			content := fmt.Sprint("writer ", w)
			all.Go(func() {
				<-start
				switch err := d.create(t.Context(), name, []byte(content)); {
				case err == nil:
					first.Add(1)
					winner.Store(&content)
				case !errors.Is(err, errExists):
					t.Error(err)
				}
			})
		}
		close(start)
		all.Wait()
		got, err := d.get(t.Context(), name, nil, 100)
		if first.Load() != 1 || err != nil || string(got) != *winner.Load() {
			t.Fatalf("%d were first; the file has %q, %v", first.Load(), got, err)
		}
	}
}
