// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"time"
)

const (
	format = "spotbench.dev/checkpoint/v1"
	// chunkSize is the most that one chunk holds before compression, in bytes.
	chunkSize = 4 << 20
	// maxManifest bounds what is read for a manifest, in bytes: about 300 000 files.
	maxManifest = 64 << 20
)

// own is the directory that belongs to Spotbench; it is never part of a checkpoint.
const own = ".spotbench"

// manifest lists what a generation consists of.
type manifest struct {
	Format     string            `json:"format"`
	Run        string            `json:"run"`
	Generation int64             `json:"generation"`
	CreatedAt  time.Time         `json:"createdAt"`
	NewestFile time.Time         `json:"newestFile,omitzero"`
	Meta       map[string]string `json:"meta,omitempty"`
	Entries    []entry           `json:"entries"`
}

// entry is a file, a directory or a symbolic link.
type entry struct {
	Path   string      `json:"path"` // slash-separated, below the directory
	Kind   kind        `json:"kind"`
	Mode   fs.FileMode `json:"mode,omitempty"` // permission bits
	MTime  time.Time   `json:"mtime,omitzero"`
	Target string      `json:"target,omitempty"` // of a link
	Size   int64       `json:"size,omitempty"`
	Chunks []chunk     `json:"chunks,omitempty"`
}

type kind string

const (
	kindFile kind = "file"
	kindDir  kind = "dir"
	kindLink kind = "link"
)

// chunk is a part of a file, stored under the digest of its content.
type chunk struct {
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// envelope protects a manifest against truncation and bit rot.
type envelope struct {
	SHA256   string          `json:"sha256"`
	Manifest json.RawMessage `json:"manifest"`
}

func (m manifest) encode() ([]byte, error) {
	inner, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(inner)
	return json.Marshal(envelope{SHA256: hex.EncodeToString(sum[:]), Manifest: inner})
}

// decodeManifest reads what encode wrote. Everything in it is checked, since the
// store may be written by others: a manifest that passes can be restored without
// leaving the directory.
func decodeManifest(data []byte, run string, generation int64) (manifest, error) {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return manifest{}, err
	}
	if sum := sha256.Sum256(e.Manifest); hex.EncodeToString(sum[:]) != e.SHA256 {
		return manifest{}, errors.New("its digest does not match")
	}
	var m manifest
	if err := json.Unmarshal(e.Manifest, &m); err != nil {
		return manifest{}, err
	}
	switch {
	case m.Format != format:
		return manifest{}, fmt.Errorf("its format %q is not %q", m.Format, format)
	case m.Run != run || m.Generation != generation:
		return manifest{}, fmt.Errorf("it is of generation %d of %q", m.Generation, m.Run)
	}
	seen := map[string]kind{}
	for _, e := range m.Entries {
		if err := e.check(); err != nil {
			return manifest{}, fmt.Errorf("entry %q: %w", e.Path, err)
		}
		if _, twice := seen[e.Path]; twice {
			return manifest{}, fmt.Errorf("entry %q is there twice", e.Path)
		}
		seen[e.Path] = e.Kind
	}
	for p := range seen {
		for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
			if k, ok := seen[dir]; ok && k != kindDir {
				return manifest{}, fmt.Errorf("entry %q is inside of a %s", p, k)
			}
		}
	}
	return m, nil
}

var digestPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (e entry) check() error {
	if !fs.ValidPath(e.Path) || e.Path == "." || strings.ContainsRune(e.Path, 0) || e.Path == own || strings.HasPrefix(e.Path, own+"/") {
		return errors.New("its path is not one of a checkpoint")
	}
	if e.Mode&^fs.ModePerm != 0 {
		return fmt.Errorf("its mode %o has more than permissions", uint32(e.Mode))
	}
	switch e.Kind {
	case kindDir, kindLink:
		if len(e.Chunks) != 0 || e.Size != 0 || (e.Kind == kindLink) != (e.Target != "") {
			return fmt.Errorf("it is not a well-formed %s", e.Kind)
		}
		return nil
	case kindFile:
	default:
		return fmt.Errorf("its kind %q is unknown", e.Kind)
	}
	var total int64
	for _, c := range e.Chunks {
		if !digestPattern.MatchString(c.SHA256) || c.Size <= 0 || c.Size > chunkSize {
			return fmt.Errorf("its chunk %q of %d bytes is not well-formed", c.SHA256, c.Size)
		}
		total += c.Size
	}
	if total != e.Size {
		return fmt.Errorf("its chunks have %d bytes, not %d", total, e.Size)
	}
	return nil
}

func (m manifest) generation() Generation {
	return Generation{Number: m.Generation, Meta: m.Meta, CreatedAt: m.CreatedAt, NewestFile: m.NewestFile}
}

func (m manifest) totals() (files int, bytes int64) {
	for _, e := range m.Entries {
		if e.Kind == kindFile {
			files++
			bytes += e.Size
		}
	}
	return files, bytes
}
