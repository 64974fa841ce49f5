// SPDX-License-Identifier: Apache-2.0

package checkpoint_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fsouza/fake-gcs-server/fakestorage"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

// gcs starts fake-gcs-server and returns the URL of a bucket in it.
func gcs(t *testing.T) string {
	address := freeAddress(t)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	server, err := fakestorage.NewServerWithOptions(fakestorage.Options{Scheme: "http", Host: host, Port: uint16(number), PublicHost: address, Writer: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	server.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: "checkpoints"})
	t.Setenv("STORAGE_EMULATOR_HOST", address)
	return "gs://checkpoints"
}

// azure answers as Azure Blob Storage does to what a store asks of it: put with and
// without If-None-Match, get, delete, and lists in pages.
type azure struct {
	mu    sync.Mutex
	blobs map[string]azureBlob
}

type azureBlob struct {
	data     []byte
	modified time.Time
	etag     string
}

func azblob(t *testing.T) string {
	server := httptest.NewServer(&azure{blobs: map[string]azureBlob{}})
	t.Cleanup(server.Close)
	t.Setenv("AZURE_STORAGE_ACCOUNT", "account")
	t.Setenv("AZURE_STORAGE_KEY", "a2V5")
	return "azblob://checkpoints?protocol=http&domain=" + strings.TrimPrefix(server.URL, "http://")
}

func (a *azure) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	refuse := func(status int, code string) {
		w.Header().Set("x-ms-error-code", code)
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		fmt.Fprintf(w, "<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>%s</Message></Error>", code, code)
	}
	if !strings.HasPrefix(r.Header.Get("Authorization"), "SharedKey account:") || r.Header.Get("x-ms-version") == "" {
		refuse(http.StatusForbidden, "AuthenticationFailed")
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/account/checkpoints")
	if !ok {
		refuse(http.StatusNotFound, "ContainerNotFound")
		return
	}
	name = strings.TrimPrefix(name, "/")
	if name == "" && r.URL.Query().Get("comp") == "list" {
		a.list(w, r)
		return
	}
	blob, found := a.blobs[name]
	switch {
	case r.Method == http.MethodPut && r.URL.Query().Get("comp") == "" && r.Header.Get("x-ms-blob-type") == "BlockBlob":
		if r.Header.Get("If-None-Match") == "*" && found {
			refuse(http.StatusConflict, "BlobAlreadyExists")
			return
		}
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		blob = azureBlob{data: data, modified: time.Now(), etag: fmt.Sprintf(`"0x%X"`, time.Now().UnixNano())}
		a.blobs[name] = blob
		w.Header().Set("ETag", blob.etag)
		w.Header().Set("Last-Modified", blob.modified.UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusCreated)
	case !found:
		refuse(http.StatusNotFound, "BlobNotFound")
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		w.Header().Set("ETag", blob.etag)
		w.Header().Set("x-ms-blob-type", "BlockBlob")
		if ranged := r.Header.Get("x-ms-range"); ranged != "" {
			r.Header.Set("Range", ranged)
		}
		http.ServeContent(w, r, "", blob.modified, bytes.NewReader(blob.data))
	case r.Method == http.MethodDelete:
		delete(a.blobs, name)
		w.WriteHeader(http.StatusAccepted)
	default:
		refuse(http.StatusBadRequest, "UnsupportedHttpVerb")
	}
}

// list answers with pages of three, so that there is more than one.
func (a *azure) list(w http.ResponseWriter, r *http.Request) {
	type properties struct {
		Modified string `xml:"Last-Modified"`
		ETag     string `xml:"Etag"`
		Length   int    `xml:"Content-Length"`
		Type     string `xml:"BlobType"`
	}
	type blob struct {
		Name       string
		Properties properties
	}
	type prefixed struct{ Name string }
	var page struct {
		XMLName    xml.Name   `xml:"EnumerationResults"`
		Blobs      []blob     `xml:"Blobs>Blob"`
		Prefixes   []prefixed `xml:"Blobs>BlobPrefix"`
		NextMarker string
	}
	q := r.URL.Query()
	prefix, delimiter, last := q.Get("prefix"), q.Get("delimiter"), ""
	for _, name := range slices.Sorted(maps.Keys(a.blobs)) {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok || name < q.Get("marker") {
			continue
		}
		if dir, _, found := strings.Cut(rest, delimiter); delimiter != "" && found {
			if dir = prefix + dir + delimiter; dir != last {
				page.Prefixes, last = append(page.Prefixes, prefixed{dir}), dir
			}
			continue
		}
		if len(page.Blobs) == 3 {
			page.NextMarker = name
			break
		}
		b := a.blobs[name]
		page.Blobs = append(page.Blobs, blob{name, properties{b.modified.UTC().Format(http.TimeFormat), b.etag, len(b.data), "BlockBlob"}})
	}
	w.Header().Set("Content-Type", "application/xml")
	_ = xml.NewEncoder(w).Encode(page)
}

// TestEveryKindOfStore does the same against each: what depends on the store is the
// conditional write, the lists, and what a missing object looks like.
func TestEveryKindOfStore(t *testing.T) {
	for name, start := range map[string]func(*testing.T) string{
		"a directory": func(t *testing.T) string { return "file://" + t.TempDir() },
		"S3":          s3,
		"GCS":         gcs,
		"Azure":       azblob,
	} {
		t.Run(name, func(t *testing.T) {
			url := start(t)
			open := func() *checkpoint.Store {
				s, err := checkpoint.Open(t.Context(), checkpoint.Options{URL: url, Keep: 2, Key: key(t, "0a")})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = s.Close() })
				return s
			}
			if strings.HasPrefix(url, "s3:") {
				if err := checkpoint.EnsureBucket(t.Context(), url); err != nil {
					t.Fatal(err)
				}
			}
			s, files := open(), t.TempDir()
			if _, found, err := s.Restore(t.Context(), run, t.TempDir(), checkpoint.RestoreOptions{Writer: "pod-a"}); found || err != nil {
				t.Fatal(found, err)
			}
			for i := range 4 {
				write(t, files, "deep/log", strings.Repeat(fmt.Sprintf("line %d\n", i), 300_000))
				write(t, files, "weights", random(6<<20))
				saved, err := saveAs(t, s, "pod-a", files)
				if err != nil || saved.Number != int64(i+1) {
					t.Fatal(saved, err)
				}
			}
			if again, err := saveAs(t, open(), "pod-a", files); err != nil || again.Uploaded != 0 {
				t.Errorf("sent %d bytes again, %v", again.Uploaded, err)
			}
			restoresTo(t, open(), files)
			restoreAs(t, open(), "pod-b")
			if _, err := saveAs(t, s, "pod-a", files); !errors.Is(err, checkpoint.ErrSuperseded) {
				t.Errorf("error %v", err)
			}
			pruned, err := s.Prune(t.Context(), run, false)
			if err != nil || len(pruned.Generations) != 3 {
				t.Errorf("pruned %+v, %v", pruned, err)
			}
			if got := generations(t, s); !slices.Equal(got, []int64{5, 4}) {
				t.Errorf("generations %v", got)
			}
			if runs, err := s.Runs(t.Context()); err != nil || !slices.Equal(runs, []string{run}) {
				t.Errorf("runs %v, %v", runs, err)
			}
			var mu sync.Mutex
			numbers := map[int64]bool{}
			var all sync.WaitGroup
			for range 4 {
				s := open()
				all.Go(func() {
					saved, err := s.Save(t.Context(), run, files, checkpoint.SaveOptions{})
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					numbers[saved.Number] = true
				})
			}
			all.Wait()
			if len(numbers) != 4 {
				t.Errorf("4 writers made generations %v", numbers)
			}
		})
	}
}

func TestARequestThatTheStoreNeverAnswersIsGivenUp(t *testing.T) {
	answering := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-answering:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(answering) })
	t.Setenv("AWS_ACCESS_KEY_ID", "testkey")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "testsecret")
	s, err := checkpoint.Open(t.Context(), checkpoint.Options{URL: s3URL(strings.TrimPrefix(server.URL, "http://"))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	begun := time.Now()
	_, _, err = s.Latest(t.Context(), run)
	if took := time.Since(begun); err == nil || took > 30*time.Second || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("after %s: %v", took, err)
	}
}
