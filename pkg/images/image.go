// SPDX-License-Identifier: Apache-2.0

// Package images builds Spotbench's container images as docker-archive tars,
// without a container engine and without a base image: each holds what its
// program needs and nothing else. The same inputs give the same bytes.
package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Nonroot is the user and group that images without a reason for root run as.
const Nonroot = 65532

// epoch is the time of every file: an image must not depend on when it was made.
var epoch = time.Unix(0, 0).UTC()

// Entry is one file, directory or link of an image.
type Entry struct {
	// Path inside the image, absolute.
	Path string
	// Mode bits; 0644 for files, 0755 for directories and 0777 for links if 0.
	Mode int64
	// Owner is both user and group.
	Owner int
	// Exactly one of these says what it is: Source is a file on this machine.
	Source  string
	Content []byte
	Link    string
	Dir     bool
}

// Image describes an image.
type Image struct {
	// Ref is its name and tag.
	Ref        string
	Entrypoint []string
	Env        []string
	// User is "uid:gid"; empty for root.
	User    string
	Labels  map[string]string
	Entries []Entry
}

// Write builds the image and puts it at out, all at once.
func (i Image) Write(out string) error {
	tag, err := name.NewTag(i.Ref, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("image %q: its name is wrong: %w", i.Ref, err)
	}
	layerTar := out + ".layer"
	defer os.Remove(layerTar)
	// Nodes are on this machine: unpacking time matters, size does not.
	img, err := i.build(layerTar, "amd64", gzip.NoCompression)
	if err != nil {
		return err
	}
	part := out + ".part"
	if err := tarball.WriteToFile(part, tag, img); err != nil {
		return fmt.Errorf("image %s: write %s: %w", i.Ref, part, err)
	}
	if err := os.Rename(part, out); err != nil {
		return fmt.Errorf("image %s: %w", i.Ref, err)
	}
	return nil
}

// build makes the image of one layer, which is read from layerTar as long as the image
// is used.
func (i Image) build(layerTar, arch string, compression int) (v1.Image, error) {
	file, err := os.Create(layerTar)
	if err != nil {
		return nil, fmt.Errorf("image %s: make its layer: %w", i.Ref, err)
	}
	err = writeLayer(file, i.Entries)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("image %s: %w", i.Ref, err)
	}
	layer, err := tarball.LayerFromFile(layerTar, tarball.WithCompressionLevel(compression))
	if err != nil {
		return nil, fmt.Errorf("image %s: read back its layer: %w", i.Ref, err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, fmt.Errorf("image %s: add its layer: %w", i.Ref, err)
	}
	if img, err = mutate.ConfigFile(img, i.config(img, arch)); err != nil {
		return nil, fmt.Errorf("image %s: set its configuration: %w", i.Ref, err)
	}
	return img, nil
}

func (i Image) config(img v1.Image, arch string) *v1.ConfigFile {
	cfg, err := img.ConfigFile()
	if err != nil {
		cfg = &v1.ConfigFile{}
	}
	cfg = cfg.DeepCopy()
	cfg.Architecture, cfg.OS = arch, "linux"
	cfg.Created = v1.Time{Time: epoch}
	cfg.Config.Entrypoint = i.Entrypoint
	cfg.Config.Env = append([]string{"PATH=/usr/local/bin:/usr/bin:/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"}, i.Env...)
	cfg.Config.User = i.User
	cfg.Config.WorkingDir = "/"
	cfg.Config.Labels = i.Labels
	return cfg
}

// writeLayer writes the entries, and the directories above them, sorted by path.
func writeLayer(w io.Writer, entries []Entry) error {
	all := map[string]Entry{}
	for _, e := range entries {
		if !path.IsAbs(e.Path) || path.Clean(e.Path) != e.Path {
			return fmt.Errorf("entry %q: want a clean absolute path", e.Path)
		}
		if _, twice := all[e.Path]; twice && !e.Dir {
			return fmt.Errorf("entry %q is there twice", e.Path)
		}
		all[e.Path] = e
	}
	for p := range all {
		for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
			if _, ok := all[dir]; !ok {
				all[dir] = Entry{Path: dir, Dir: true}
			}
		}
	}
	paths := make([]string, 0, len(all))
	for p := range all {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	tw := tar.NewWriter(w)
	for _, p := range paths {
		if err := writeEntry(tw, all[p]); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("finish the layer: %w", err)
	}
	return nil
}

func writeEntry(tw *tar.Writer, e Entry) error {
	h := &tar.Header{Name: strings.TrimPrefix(e.Path, "/"), Mode: e.Mode, Uid: e.Owner, Gid: e.Owner, ModTime: epoch, Format: tar.FormatPAX}
	mode := func(fallback int64) {
		if h.Mode == 0 {
			h.Mode = fallback
		}
	}
	var content io.Reader
	switch {
	case e.Dir:
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		mode(0o755)
	case e.Link != "":
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Link
		mode(0o777)
	case e.Source != "":
		f, err := os.Open(e.Source)
		if err != nil {
			return fmt.Errorf("entry %s: %w", e.Path, err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return fmt.Errorf("entry %s: %w", e.Path, err)
		}
		h.Typeflag, h.Size, content = tar.TypeReg, info.Size(), f
		mode(int64(info.Mode().Perm()))
	default:
		h.Typeflag, h.Size, content = tar.TypeReg, int64(len(e.Content)), bytes.NewReader(e.Content)
		mode(0o644)
	}
	if err := tw.WriteHeader(h); err != nil {
		return fmt.Errorf("entry %s: %w", e.Path, err)
	}
	if content == nil {
		return nil
	}
	if _, err := io.Copy(tw, content); err != nil {
		return fmt.Errorf("entry %s: %w", e.Path, err)
	}
	return nil
}
