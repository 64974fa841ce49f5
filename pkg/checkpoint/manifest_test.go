// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

const key = "ns/run"

// sealed is a manifest with a right digest around any content.
func sealed(t testing.TB, inner string) []byte {
	t.Helper()
	var compact json.RawMessage = []byte(inner)
	sum := sha256.Sum256(compact)
	data, err := json.Marshal(map[string]any{"sha256": hex.EncodeToString(sum[:]), "manifest": compact})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestAManifestThatWouldLeaveTheDirectoryIsRefused(t *testing.T) {
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
		"a chunk with a path for a digest":     `{"path":"a","kind":"file","size":1,"chunks":[{"sha256":"../../x","size":1}]}`,
		"a chunk that is too large":            `{"path":"a","kind":"file","size":4194305,"chunks":[{"sha256":"` + digest + `","size":4194305}]}`,
		"a size that is not that of the parts": `{"path":"a","kind":"file","size":2,"chunks":[{"sha256":"` + digest + `","size":1}]}`,
		"a kind of file that does not exist":   `{"path":"a","kind":"device"}`,
		"a link to nowhere":                    `{"path":"a","kind":"link"}`,
	} {
		t.Run(name, func(t *testing.T) {
			data := sealed(t, `{"format":"`+format+`","run":"`+key+`","generation":1,"entries":[`+entries+`]}`)
			if m, err := decodeManifest(data, key, 1); err == nil || !strings.Contains(err.Error(), "entry") {
				t.Errorf("accepted %v, error %v", m, err)
			}
		})
	}
}

func TestAManifestInTheWrongPlaceIsRefused(t *testing.T) {
	data := sealed(t, `{"format":"`+format+`","run":"`+key+`","generation":1,"entries":[]}`)
	if _, err := decodeManifest(data, key, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := decodeManifest(data, key, 2); err == nil {
		t.Error("accepted as another generation")
	}
	if _, err := decodeManifest(data, "ns/other", 1); err == nil {
		t.Error("accepted as another run's")
	}
	if _, err := decodeManifest(sealed(t, `{"format":"v0","run":"`+key+`","generation":1}`), key, 1); err == nil {
		t.Error("accepted another format")
	}
}

func FuzzDecodeManifest(f *testing.F) {
	f.Add(`{"format":"` + format + `","run":"` + key + `","generation":1,"entries":[{"path":"a/b","kind":"file","size":0}]}`)
	f.Add(`{"format":"` + format + `","run":"` + key + `","generation":1,"entries":[{"path":"a","kind":"link","target":"/x"},{"path":"d","kind":"dir"}]}`)
	f.Fuzz(func(t *testing.T, inner string) {
		if !json.Valid([]byte(inner)) {
			if _, err := decodeManifest([]byte(inner), key, 1); err == nil {
				t.Errorf("accepted %q", inner)
			}
			return
		}
		m, err := decodeManifest(sealed(t, inner), key, 1)
		if err != nil {
			return
		}
		for _, e := range m.Entries {
			if !filepath.IsLocal(e.Path) || e.Path == own || strings.HasPrefix(e.Path, own+"/") {
				t.Errorf("accepted the path %q", e.Path)
			}
		}
		again, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeManifest(again, key, 1); err != nil {
			t.Errorf("what was accepted and encoded again is refused: %v", err)
		}
	})
}
