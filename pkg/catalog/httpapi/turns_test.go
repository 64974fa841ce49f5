// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spotbench/spotbench/pkg/catalog/internal/heap"
)

// nothing is a source of spaces.
type nothing struct{}

func (nothing) Read(p []byte) (int, error) {
	for n := range p {
		p[n] = ' '
	}
	return len(p), nil
}

// TestManyBombsAtOnceAreSurvived: 24 files of 80 kB that each become more than a file may
// have, sent at once, take the memory of a few. On a slow machine some are told to come back.
func TestManyBombsAtOnceAreSurvived(t *testing.T) {
	s := newStage(t)
	s.send(t, "PUT", "/v1/runs/ns%2Fbombed", s.writer, "{}")
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	if _, err := io.Copy(z, io.LimitReader(nothing{}, 80<<20)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var read atomic.Int64
	used := heap.Peak(func() {
		for range 24 {
			all.Go(func() {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/v1/imports?run=ns/bombed&file=b.json", bytes.NewReader(bomb.Bytes()))
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Authorization", "Bearer "+s.writer)
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				text, err := io.ReadAll(resp.Body)
				refused := resp.StatusCode == http.StatusUnprocessableEntity && strings.Contains(string(text), "more than the 67108864 bytes")
				later := resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != ""
				if refused {
					read.Add(1)
				}
				if err != nil || !refused && !later {
					t.Errorf("%s %s %v", resp.Status, text, err)
				}
			})
		}
		all.Wait()
	}) >> 20
	// One takes 157 MiB; two are read at once, and the collector is behind by as much again.
	if used > 900 || read.Load() == 0 {
		t.Errorf("%d MiB of memory, and %d files read", used, read.Load())
	} else {
		t.Logf("%d MiB of memory, and %d files read", used, read.Load())
	}
	// The next file is read as ever.
	if resp, body := s.send(t, "POST", "/v1/imports?run=ns/bombed", s.writer, vllm); resp.StatusCode != http.StatusCreated {
		t.Errorf("a file after them: %s %s", resp.Status, body)
	}
}

// TestALargeFileWaitsForItsTurnAndASmallOneDoesNot: while four callers send large files
// slowly, a small one is taken in.
func TestALargeFileWaitsForItsTurnAndASmallOneDoesNot(t *testing.T) {
	s := newStage(t)
	s.send(t, "PUT", "/v1/runs/ns%2Fturns", s.writer, "{}")
	var open []*io.PipeWriter
	answers := make(chan int, 8)
	for range 5 {
		content, into := io.Pipe()
		open = append(open, into)
		go func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/v1/imports?run=ns/turns", content) // of unknown size
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Authorization", "Bearer "+s.writer)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			answers <- resp.StatusCode
		}()
	}
	if resp, body := s.send(t, "POST", "/v1/imports?run=ns/turns", s.writer, vllm); resp.StatusCode != http.StatusCreated {
		t.Errorf("a small file meanwhile: %s %s", resp.Status, body)
	}
	select {
	case status := <-answers:
		t.Errorf("a file that is not sent yet is answered by %d", status)
	case <-time.After(100 * time.Millisecond):
	}
	for n, into := range open {
		if _, err := io.WriteString(into, strings.Replace(vllm, "10,", strings.Repeat("1", n+2)+",", 1)); err != nil {
			t.Fatal(err)
		}
		if err := into.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for range open {
		if status := <-answers; status != http.StatusCreated {
			t.Errorf("a large file: %d", status)
		}
	}
}
