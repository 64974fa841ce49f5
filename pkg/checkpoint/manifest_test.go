// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

const key = "ns/run"

// plain are a seal without a key and the codec of manifests.
func plain(t testing.TB) (seal, codec) {
	t.Helper()
	codec, err := newCodec(maxManifest)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = codec.close() })
	return seal{}, codec
}

func TestAManifestThatWouldLeaveTheDirectoryIsRefused(t *testing.T) {
	seal, codec := plain(t)
	digest := strings.Repeat("a", 64)
	for name, entries := range map[string]string{
		"a path out of the directory":          `{"path":"../x","kind":"file"}`,
		"an absolute path":                     `{"path":"/etc/passwd","kind":"file"}`,
		"a path with dots inside":              `{"path":"a/../../x","kind":"file"}`,
		"the directory itself":                 `{"path":".","kind":"dir"}`,
		"the agent's own directory":            `{"path":".spotbench/restore.json","kind":"file"}`,
		"a file below a link":                  `{"path":"a","kind":"link","target":"/etc"},{"path":"a/passwd","kind":"file"}`,
		"a file below a file":                  `{"path":"a","kind":"file"},{"path":"a/b/c","kind":"file"}`,
		"a file that is there twice":           `{"path":"a","kind":"file"},{"path":"a","kind":"link","target":"b"}`,
		"a setuid bit":                         `{"path":"a","kind":"file","mode":8388608}`,
		"a chunk with a path for a digest":     `{"path":"a","kind":"file","size":1,"chunks":[{"digest":"../../x","size":1}]}`,
		"a chunk that is too large":            `{"path":"a","kind":"file","size":4194305,"chunks":[{"digest":"` + digest + `","size":4194305}]}`,
		"a size that is not that of the parts": `{"path":"a","kind":"file","size":2,"chunks":[{"digest":"` + digest + `","size":1}]}`,
		"a kind of file that does not exist":   `{"path":"a","kind":"device"}`,
		"a hard link":                          `{"path":"a","kind":"hardlink","target":"b"}`,
		"a link to nowhere":                    `{"path":"a","kind":"link"}`,
		"a link with a zero byte":              `{"path":"a","kind":"link","target":"b\u0000c"}`,
		"a size without parts":                 `{"path":"a","kind":"file","size":4611686018427387904}`,
		"a part of less than nothing":          `{"path":"a","kind":"file","size":-1,"chunks":[{"digest":"` + digest + `","size":-1}]}`,
		"a directory with content":             `{"path":"a","kind":"dir","size":1,"chunks":[{"digest":"` + digest + `","size":1}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			data := envelope("", codec.compress(nil, []byte(`{"run":"`+key+`","generation":1,"entries":[`+entries+`]}`)))
			if m, err := decodeManifest(data, key, 1, seal, codec); err == nil || !strings.Contains(err.Error(), "entry") {
				t.Errorf("accepted %v, error %v", m, err)
			}
		})
	}
}

func TestAManifestInTheWrongPlaceIsRefused(t *testing.T) {
	seal, codec := plain(t)
	data, err := manifest{Run: key, Generation: 1}.encode(seal, codec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeManifest(data, key, 1, seal, codec); err != nil {
		t.Fatal(err)
	}
	if _, err := decodeManifest(data, key, 2, seal, codec); err == nil {
		t.Error("accepted as another generation")
	}
	if _, err := decodeManifest(data, "ns/other", 1, seal, codec); err == nil {
		t.Error("accepted as another run's")
	}
	if _, err := decodeManifest(bytes.Replace(data, []byte("/v2 "), []byte("/v0 "), 1), key, 1, seal, codec); err == nil {
		t.Error("accepted another format")
	}
}

func TestAManifestIsNotBelievedHowFarItExpands(t *testing.T) {
	seal, codec := plain(t)
	large, err := newCodec(2 * maxManifest)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = large.close() })
	bomb := large.compress(nil, bytes.Repeat([]byte{' '}, maxManifest+1))
	// The same in two frames, of which the first says that it is small.
	frames := append(large.compress(nil, []byte(" ")), bomb...)
	for name, body := range map[string][]byte{"one frame": bomb, "two frames": frames} {
		if len(body) > 100_000 {
			t.Fatalf("%s: %d bytes are no bomb", name, len(body))
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := decodeManifest(envelope("", body), key, 1, seal, codec); err == nil {
			t.Errorf("%s: accepted", name)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > maxManifest/4 {
			t.Errorf("%s: %d bytes of memory were used", name, got)
		}
	}
}

// FuzzDecodeManifest lets the fuzzer write the JSON, in an envelope that is right, and
// the envelope.
func FuzzDecodeManifest(f *testing.F) {
	f.Add([]byte(`{"run":"`+key+`","generation":1,"entries":[{"path":"a/b","kind":"file","size":0}]}`), []byte(format))
	f.Add([]byte(`{"run":"`+key+`","generation":1,"entries":[{"path":"a","kind":"link","target":"/x"},{"path":"d","kind":"dir"}]}`), []byte(format+" x -\n"))
	seal, codec := plain(f)
	f.Fuzz(func(t *testing.T, inner, outer []byte) {
		if m, err := decodeManifest(outer, key, 1, seal, codec); err == nil {
			t.Errorf("accepted %q as %v", outer, m)
		}
		m, err := decodeManifest(envelope("", codec.compress(nil, inner)), key, 1, seal, codec)
		if err != nil {
			return
		}
		for _, e := range m.Entries {
			if !filepath.IsLocal(e.Path) || e.Path == own || strings.HasPrefix(e.Path, own+"/") {
				t.Errorf("accepted the path %q", e.Path)
			}
		}
		again, err := m.encode(seal, codec)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeManifest(again, key, 1, seal, codec); err != nil {
			t.Errorf("what was accepted and encoded again is refused: %v", err)
		}
	})
}
