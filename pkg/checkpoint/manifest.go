// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
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
	format = "spotbench.dev/checkpoint/v2"
	// maxManifest bounds a manifest before compression, in bytes: about 2 TiB of files.
	maxManifest = 64 << 20
)

// own is the directory that belongs to Spotbench; it is never part of a checkpoint.
const own = ".spotbench"

// manifest lists what a generation consists of.
type manifest struct {
	Run        string            `json:"run"`
	Generation int64             `json:"generation"`
	CreatedAt  time.Time         `json:"createdAt"`
	NewestFile time.Time         `json:"newestFile,omitzero"`
	Writer     string            `json:"writer,omitempty"`
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
	Digest string `json:"digest"`
	Size   int64  `json:"size"`           // of the content, in bytes
	Zstd   bool   `json:"zstd,omitempty"` // stored compressed
}

// A manifest is stored as one line, "FORMAT DIGEST KEY", and the compressed and, with
// a key, encrypted JSON. KEY tells which key that was, or is "-". DIGEST is the
// SHA-256 of KEY and all that follows the line, against truncation and bit rot.
func envelope(keyID string, body []byte) []byte {
	if keyID == "" {
		keyID = "-"
	}
	return fmt.Appendf(nil, "%s %s %s\n%s", format, envelopeDigest(keyID, body), keyID, body)
}

func envelopeDigest(keyID string, body []byte) string {
	h := sha256.New()
	h.Write([]byte(keyID + "\n"))
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

// openEnvelope undoes envelope.
func openEnvelope(data []byte) (keyID string, body []byte, err error) {
	line, body, found := bytes.Cut(data, []byte("\n"))
	fields := strings.Split(string(line[:min(len(line), 256)]), " ")
	if !found || len(fields) != 3 {
		return "", nil, errors.New("it does not begin like one")
	}
	if fields[0] != format {
		return "", nil, fmt.Errorf("its format %q is not %q", fields[0], format)
	}
	if envelopeDigest(fields[2], body) != fields[1] {
		return "", nil, errors.New("its digest does not match")
	}
	return strings.TrimPrefix(fields[2], "-"), body, nil
}

func (m manifest) encode(s seal, codec codec) ([]byte, error) {
	inner, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(inner) > maxManifest {
		return nil, fmt.Errorf("its list of files has %d bytes, more than %d: put small files into archives", len(inner), maxManifest)
	}
	return envelope(s.id, s.close(nil, codec.compress(nil, inner), manifestName(m.Run, m.Generation))), nil
}

// decodeManifest reads what encode wrote. Everything in it is checked, since the
// store may be written by others: a manifest that passes can be restored without
// leaving the directory.
func decodeManifest(data []byte, run string, generation int64, s seal, codec codec) (manifest, error) {
	keyID, body, err := openEnvelope(data)
	if err != nil {
		return manifest{}, err
	}
	if keyID != s.id {
		return manifest{}, wrongKey(keyID, s.id)
	}
	if body, err = s.open(bytes.Clone(body), manifestName(run, generation)); err != nil {
		return manifest{}, err
	}
	if body, err = codec.expand(nil, body); err != nil {
		return manifest{}, err
	}
	var m manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return manifest{}, err
	}
	if m.Run != run || m.Generation != generation {
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

func wrongKey(stored, given string) error {
	switch {
	case stored == "":
		return fmt.Errorf("%w: it is not encrypted, and the store was opened with key %s", ErrKey, given)
	case given == "":
		return fmt.Errorf("%w: it is encrypted with key %s, and none was given", ErrKey, stored)
	}
	return fmt.Errorf("%w: it is encrypted with key %s, not with the given %s", ErrKey, stored, given)
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
		if len(e.Chunks) != 0 || e.Size != 0 || (e.Kind == kindLink) != (e.Target != "") || strings.ContainsRune(e.Target, 0) {
			return fmt.Errorf("it is not a well-formed %s", e.Kind)
		}
		return nil
	case kindFile:
	default:
		return fmt.Errorf("its kind %q is unknown", e.Kind)
	}
	var total int64
	for _, c := range e.Chunks {
		if !digestPattern.MatchString(c.Digest) || c.Size <= 0 || c.Size > maxChunk {
			return fmt.Errorf("its chunk %q of %d bytes is not well-formed", c.Digest, c.Size)
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

// chunks are those that the generation consists of.
func (m manifest) chunks() map[string]chunk {
	set := map[string]chunk{}
	for _, e := range m.Entries {
		for _, c := range e.Chunks {
			set[c.Digest] = c
		}
	}
	return set
}
