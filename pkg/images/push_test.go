// SPDX-License-Identifier: Apache-2.0

package images_test

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/spotbench/spotbench/pkg/images"
)

// smallest of our programs.
const smallest = "sim-llm"

// newRegistry is a registry in this process; its address is one of plain HTTP.
func newRegistry(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true)))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// sources is a copy of what the program is built from, somewhere else.
func sources(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, file := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join("../..", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, part := range []string{"cmd/" + smallest, "pkg"} {
		if err := os.CopyFS(filepath.Join(dir, part), os.DirFS(filepath.Join("../..", part))); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestPushedImagesAreForEveryArchitectureAndRunAsNobodyInParticular(t *testing.T) {
	host := newRegistry(t)
	digests, err := images.Push(t.Context(), images.PushOptions{Source: "../..", Registry: host + "/spotbench", Tag: "v1.2.3", Version: "v1.2.3", Only: []string{smallest}, Progress: t.Output()})
	if err != nil || len(digests) != 1 {
		t.Fatalf("%q, %v", digests, err)
	}
	byTag, err := name.ParseReference(host + "/spotbench/" + smallest + ":v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(byTag)
	if err != nil {
		t.Fatal(err)
	}
	if digest, err := index.Digest(); err != nil || !strings.HasSuffix(digests[0], "@"+digest.String()) {
		t.Errorf("pushed %s, and the tag is %s, %v", digests[0], digest, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	if len(manifest.Manifests) != len(machines) {
		t.Fatalf("%d architectures, want %d", len(manifest.Manifests), len(machines))
	}
	for _, m := range manifest.Manifests {
		img, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if config.Architecture != m.Platform.Architecture || config.Config.User != "65532:65532" || config.Config.Labels["org.opencontainers.image.version"] != "v1.2.3" {
			t.Errorf("%s: configuration %+v", m.Platform, config)
		}
		program, err := elf.NewFile(bytes.NewReader(fileOf(t, img, "usr/bin/"+smallest)))
		if err != nil {
			t.Fatal(err)
		}
		if program.Machine != machines[m.Platform.Architecture] {
			t.Errorf("%s: the program is for %s", m.Platform, program.Machine)
		}
		if libraries, err := program.ImportedLibraries(); err != nil || len(libraries) > 0 {
			t.Errorf("%s: the program wants the libraries %v, %v", m.Platform, libraries, err)
		}
		wantBill(t, host, m.Digest)
	}
}

// fileOf is the content of a file of an image.
func fileOf(t *testing.T, img v1.Image, file string) []byte {
	t.Helper()
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			t.Fatalf("no %s in the image", file)
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Name != file {
			continue
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
}

// wantBill of materials, as scanners find it: by what refers to the image.
func wantBill(t *testing.T, host string, image v1.Hash) {
	t.Helper()
	subject, err := name.NewDigest(host + "/spotbench/" + smallest + "@" + image.String())
	if err != nil {
		t.Fatal(err)
	}
	referrers, err := remote.Referrers(subject)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := referrers.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("%d artifacts refer to the image, %v; want its bill of materials", len(manifest.Manifests), err)
	}
	if kind := manifest.Manifests[0].ArtifactType; kind != "application/vnd.cyclonedx+json" {
		t.Errorf("what refers to the image is %s", kind)
	}
	artifact, err := remote.Image(subject.Context().Digest(manifest.Manifests[0].Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	layers, err := artifact.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	r, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var bill struct {
		BomFormat, SpecVersion string
		Components             []struct{ Purl string }
	}
	if err := json.NewDecoder(r).Decode(&bill); err != nil {
		t.Fatal(err)
	}
	var purls []string
	for _, c := range bill.Components {
		purls = append(purls, c.Purl)
	}
	all := strings.Join(purls, "\n")
	if bill.BomFormat != "CycloneDX" || !strings.Contains(all, "pkg:golang/stdlib@1.") || !strings.Contains(all, "pkg:golang/github.com/spf13/cobra@v") {
		t.Errorf("the bill of materials is %s %s of:\n%s", bill.BomFormat, bill.SpecVersion, all)
	}
}

func TestTwoBuildsFromDifferentPlacesGiveOneDigest(t *testing.T) {
	digest := func(source string) string {
		t.Helper()
		digests, err := images.Push(t.Context(), images.PushOptions{Source: source, Registry: newRegistry(t) + "/spotbench", Tag: "v1", Only: []string{smallest}, Architectures: []string{"amd64"}})
		if err != nil {
			t.Fatal(err)
		}
		_, digest, _ := strings.Cut(digests[0], "@")
		return digest
	}
	first := digest("../..")
	// Nothing that was compiled the first time is used again.
	t.Setenv("GOCACHE", t.TempDir())
	if second := digest(sources(t)); second != first {
		t.Errorf("%s from one place, %s from another", first, second)
	}
}

func TestPushRefusesWhatItCannotBuildBeforeItBuildsAnything(t *testing.T) {
	for want, o := range map[string]images.PushOptions{
		`image "sheduler"`:         {Registry: "example.com", Tag: "v1", Only: []string{"sheduler"}},
		`architecture "riscv64"`:   {Registry: "example.com", Tag: "v1", Architectures: []string{"riscv64"}},
		`--registry "Example com"`: {Registry: "Example com", Tag: "v1", Only: []string{smallest}},
	} {
		if _, err := images.Push(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %s", err, want)
		}
	}
}
