// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

// gcsBehind is a bucket of fake-gcs-server behind a front that may answer itself, by true.
func gcsBehind(t *testing.T, front func(http.ResponseWriter, *http.Request) bool) gcs {
	t.Helper()
	server, err := fakestorage.NewServerWithOptions(fakestorage.Options{NoListener: true, Writer: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	server.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: "checkpoints"})
	listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if front == nil || !front(w, r) {
			server.HTTPHandler().ServeHTTP(w, r)
		}
	}))
	t.Cleanup(listener.Close)
	t.Setenv("STORAGE_EMULATOR_HOST", listener.URL)
	g, err := openGCS(t.Context(), "checkpoints")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.close() })
	return g
}

func TestGCSIsAskedAgainWhenItFailsForAMoment(t *testing.T) {
	for name, fail := range map[string]func(http.ResponseWriter){
		"it answers 503":                func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
		"it answers 429":                func(w http.ResponseWriter) { w.WriteHeader(http.StatusTooManyRequests) },
		"it hangs up before it answers": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"it hangs up within its answer": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "9")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"a page of a proxy is in the way": func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway); fmt.Fprint(w, "<html>") },
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			seen := map[string]int{}
			g := gcsBehind(t, func(w http.ResponseWriter, r *http.Request) bool {
				mu.Lock()
				seen[r.Method+r.URL.String()]++
				n := seen[r.Method+r.URL.String()]
				mu.Unlock()
				if n <= 2 {
					_, _ = io.Copy(io.Discard, r.Body)
					fail(w)
				}
				return n <= 2
			})
			ctx := t.Context()
			data := bytes.Repeat([]byte("state"), 1<<18)
			if err := g.put(ctx, "a/b c/1", data); err != nil {
				t.Error(err)
			}
			if err := g.create(ctx, "a/2", data); err != nil {
				t.Error(err)
			}
			if got, err := g.get(ctx, "a/b c/1", []byte("before "), 2<<20); err != nil || string(got) != "before "+string(data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			var listed []string
			if err := g.list(ctx, "a/", func(o object) { listed = append(listed, fmt.Sprint(o.name, " ", o.size, " ", o.modified.IsZero())) }); err != nil || !slices.Equal(listed, []string{"a/2 1310720 false", "a/b c/1 1310720 false"}) {
				t.Errorf("listed %v, %v", listed, err)
			}
			if err := g.remove(ctx, "a/2"); err != nil {
				t.Error(err)
			}
			if err := g.remove(ctx, "a/2"); err != nil {
				t.Errorf("removed again: %v", err)
			}
		})
	}
}

func TestWhatGCSRefusesIsSaidInItsWordsAndNotAskedAgain(t *testing.T) {
	asked := 0
	g := gcsBehind(t, func(w http.ResponseWriter, _ *http.Request) bool {
		asked++
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"error": {"code": 403, "message": "agent@project does not have storage.objects.list access"}}`)
		return true
	})
	err := g.list(t.Context(), "a/", func(object) {})
	if asked != 1 || err == nil || err.Error() != "403 Forbidden: agent@project does not have storage.objects.list access" {
		t.Errorf("asked %d times: %v", asked, err)
	}
}

func TestGCSThatStaysAwayIsAnErrorAndNotAMissingObject(t *testing.T) {
	g := gcsBehind(t, func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	if _, err := g.get(t.Context(), "a/1", nil, 1<<20); err == nil || errors.Is(err, ErrDamaged) || err.Error() != "503 Service Unavailable" {
		t.Errorf("error %v", err)
	}
}

func TestAListOfGCSHasAllItsPages(t *testing.T) {
	g := gcsBehind(t, nil)
	var want []string
	for i := range 8 {
		want = append(want, fmt.Sprintf("run/_chunks/%d", i))
		if err := g.put(t.Context(), want[i], []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	origin := g.origin
	pages := 0
	// The fake knows no pages, so they are cut from its answer.
	paged := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, _ := strconv.Atoi(r.URL.Query().Get("pageToken"))
		response, err := http.Get(origin + r.URL.Path + "?prefix=" + r.URL.Query().Get("prefix"))
		if err != nil {
			return
		}
		defer response.Body.Close()
		var whole struct{ Items []json.RawMessage }
		if json.NewDecoder(response.Body).Decode(&whole) != nil {
			return
		}
		pages++
		page := map[string]any{"items": whole.Items[from:min(from+3, len(whole.Items))]}
		if from+3 < len(whole.Items) {
			page["nextPageToken"] = strconv.Itoa(from + 3)
		}
		_ = json.NewEncoder(w).Encode(page)
	}))
	t.Cleanup(paged.Close)
	g.origin = paged.URL
	var got []string
	if err := g.list(t.Context(), "run/", func(o object) { got = append(got, o.name) }); err != nil || !slices.Equal(got, want) || pages != 3 {
		t.Errorf("%d pages: %v, %v", pages, got, err)
	}
}

func TestWhatIsSentToGCSCarriesItsChecksum(t *testing.T) {
	data := []byte("state\r\n--boundary")
	checked := false
	g := gcsBehind(t, func(w http.ResponseWriter, r *http.Request) bool {
		_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil {
			t.Error(err)
		}
		parts := multipart.NewReader(r.Body, params["boundary"])
		var sent [2][]byte
		for i := range sent {
			part, err := parts.NextPart()
			if err != nil {
				t.Error(err)
				break
			}
			if sent[i], err = io.ReadAll(part); err != nil {
				t.Error(err)
			}
		}
		var about struct{ Name, Crc32c string }
		if err := json.Unmarshal(sent[0], &about); err != nil {
			t.Error(err)
		}
		sum := binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
		if about.Name != "a/1" || about.Crc32c != base64.StdEncoding.EncodeToString(sum) || !bytes.Equal(sent[1], data) {
			t.Errorf("sent %q", sent)
		}
		checked = true
		fmt.Fprint(w, "{}")
		return true
	})
	if err := g.put(t.Context(), "a/1", data); err != nil || !checked {
		t.Error(checked, err)
	}
}

// TestGCSGetsTheTokenOfTheCredentials uses a service account's key file, whose form of
// credentials says itself where tokens come from.
func TestGCSGetsTheTokenOfTheCredentials(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		status int
		want   string
		asked  int
	}{
		"a token is given":   {status: http.StatusOK, asked: 1},
		"a token is refused": {status: http.StatusBadRequest, asked: 1, want: "invalid_grant"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				asked++
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(tt.status)
				fmt.Fprint(w, map[bool]string{true: `{"access_token": "secret", "token_type": "Bearer", "expires_in": 3600}`, false: `{"error": "invalid_grant"}`}[tt.status == http.StatusOK])
			}))
			t.Cleanup(tokens.Close)
			account, err := json.Marshal(map[string]string{"type": "service_account", "client_email": "agent@project", "token_uri": tokens.URL,
				"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))})
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "account.json")
			if err := os.WriteFile(file, account, 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("STORAGE_EMULATOR_HOST", "")
			t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
			ctx, cancel := context.WithCancel(t.Context())
			g, err := openGCS(ctx, "checkpoints")
			cancel() // what opening was given ends before the store is used
			if err != nil {
				t.Fatal(err)
			}
			store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "Bearer secret" {
					w.WriteHeader(http.StatusUnauthorized)
				}
				fmt.Fprint(w, `{}`)
			}))
			t.Cleanup(store.Close)
			if g.origin != gcsOrigin {
				t.Errorf("asks %s", g.origin)
			}
			g.origin = store.URL
			for range 2 {
				err = g.list(t.Context(), "a/", func(object) {})
				if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
					t.Errorf("error %v", err)
				}
				if tt.want != "" {
					break
				}
			}
			if asked != tt.asked {
				t.Errorf("asked for a token %d times", asked)
			}
		})
	}
}
