// SPDX-License-Identifier: Apache-2.0

package images

import (
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/spotbench/spotbench/pkg/debian"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
)

// Architectures that images are pushed for.
var Architectures = []string{"amd64", "arm64"}

// cross says how a program that binds C is built for another architecture, from Debian's
// packages.
var cross = map[string]struct{ packages, compiler, libraries, at, loader string }{
	"arm64": {"gcc-aarch64-linux-gnu libc6-dev-arm64-cross", "aarch64-linux-gnu-gcc", "/usr/aarch64-linux-gnu/lib/", "/lib/aarch64-linux-gnu/", "ld-linux-aarch64.so.1"},
}

// PushOptions of Push.
type PushOptions struct {
	// Source is the root of Spotbench's source tree.
	Source string
	// Registry and the path in it before the images' names, as registry.example.com/spotbench.
	Registry string
	// Tag of every image.
	Tag string
	// Only these images, for these architectures; all if empty.
	Only, Architectures []string
	// Version that the programs report; "dev" if empty.
	Version string
	// Progress gets a line for every step; nil for none.
	Progress io.Writer
}

// Push builds our images for every architecture and pushes each as an index, with a bill
// of materials for every architecture that refers to its image. It returns the references
// by digest, which is what is to be signed and deployed. The same sources give the same
// digests.
func Push(ctx context.Context, o PushOptions) ([]string, error) {
	for _, only := range o.Only {
		if !slices.Contains(Names(), only) {
			return nil, fmt.Errorf("image %q: there is no such image, want one of %s", only, strings.Join(Names(), ", "))
		}
	}
	if len(o.Architectures) == 0 {
		o.Architectures = Architectures
	}
	for _, arch := range o.Architectures {
		if !slices.Contains(Architectures, arch) {
			return nil, fmt.Errorf("architecture %q: want one of %s", arch, strings.Join(Architectures, ", "))
		}
	}
	o.Version = cmp.Or(o.Version, "dev")
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	start := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(o.Progress, "[%4.0fs] "+format+"\n", append([]any{time.Since(start).Seconds()}, args...)...)
	}
	var digests []string
	for _, p := range programs {
		if len(o.Only) > 0 && !slices.Contains(o.Only, p.name) {
			continue
		}
		digest, err := p.push(ctx, o, say)
		if err != nil {
			return nil, err
		}
		digests = append(digests, digest)
	}
	return digests, nil
}

func (p program) push(ctx context.Context, o PushOptions, say toolchain.Progress) (string, error) {
	ref, err := name.NewTag(o.Registry+"/"+p.name+":"+o.Tag, name.StrictValidation)
	if err != nil {
		return "", fmt.Errorf("--registry %q and --tag %q make no name of an image: %w", o.Registry, o.Tag, err)
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	work, err := os.MkdirTemp("", "spotbench-push-")
	if err != nil {
		return "", fmt.Errorf("make a build directory: %w", err)
	}
	defer os.RemoveAll(work)
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range o.Architectures {
		say("building %s for %s", ref, arch)
		img, bill, err := p.release(ctx, o, arch, filepath.Join(work, arch), say)
		if err != nil {
			return "", err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
		if err := pushWithBill(ref.Context(), img, bill, options); err != nil {
			return "", fmt.Errorf("push %s for %s: %w", ref, arch, err)
		}
	}
	if err := remote.WriteIndex(ref, index, options...); err != nil {
		return "", fmt.Errorf("push %s: %w", ref, err)
	}
	digest, err := index.Digest()
	if err != nil {
		return "", fmt.Errorf("digest of %s: %w", ref, err)
	}
	say("pushed %s", ref.Context().Digest(digest.String()))
	return ref.Context().Digest(digest.String()).String(), nil
}

// release builds the program's image for an architecture and its bill of materials.
func (p program) release(ctx context.Context, o PushOptions, arch, dir string, say toolchain.Progress) (v1.Image, []byte, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, fmt.Errorf("make a build directory: %w", err)
	}
	binary := filepath.Join(dir, p.name)
	if err := p.compileFor(ctx, o, arch, binary, say); err != nil {
		return nil, nil, err
	}
	described, err := p.image(ctx, binary, arch, say)
	if err != nil {
		return nil, nil, err
	}
	described.Labels = map[string]string{
		"org.opencontainers.image.title": p.name, "org.opencontainers.image.version": o.Version, "org.opencontainers.image.licenses": "Apache-2.0",
		"org.opencontainers.image.source": "https://github.com/spotbench/spotbench",
	}
	img, err := described.build(filepath.Join(dir, "layer.tar"), arch, gzip.BestSpeed)
	if err != nil {
		return nil, nil, err
	}
	img = mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), types.OCIConfigJSON)
	bill, err := billOfMaterials(ctx, p.name, o.Version, arch, binary, described.Entries)
	return img, bill, err
}

// compileFor builds without paths of this machine in the program. Only what binds C needs
// a C library, and a compiler of the architecture.
func (p program) compileFor(ctx context.Context, o PushOptions, arch, out string, say toolchain.Progress) error {
	env := []string{"GOOS=linux", "GOARCH=" + arch, "CGO_ENABLED=0"}
	if p.bindsC {
		env[2] = "CGO_ENABLED=1"
		if arch != runtime.GOARCH {
			if err := installCross(ctx, arch, say); err != nil {
				return err
			}
			env = append(env, "CC="+cross[arch].compiler)
		}
	}
	ldflags := "-s -w -buildid= -X github.com/spotbench/spotbench/pkg/version.release=" + o.Version
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", ldflags, "-o", out, "./cmd/"+p.name)
	cmd.Dir = o.Source
	cmd.Env = append(os.Environ(), env...)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile %s for %s: %w\n%s", p.name, arch, err, output)
	}
	return nil
}

func installCross(ctx context.Context, arch string, say toolchain.Progress) error {
	c := cross[arch]
	missing := func() []string {
		if _, err := exec.LookPath(c.compiler); err != nil {
			return strings.Fields(c.packages)
		}
		return nil
	}
	return debian.Install(ctx, missing, func(packages []string) { say("installing Debian packages: %s", strings.Join(packages, " ")) })
}

// billType is the media type of CycloneDX in JSON.
const billType types.MediaType = "application/vnd.cyclonedx+json"

// pushWithBill pushes the image and an artifact that refers to it (OCI 1.1), which is
// where scanners and cosign look for a bill of materials.
func pushWithBill(repository name.Repository, img v1.Image, bill []byte, options []remote.Option) error {
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	if err := remote.Write(repository.Digest(digest.String()), img, options...); err != nil {
		return err
	}
	size, sizeErr := img.Size()
	kind, kindErr := img.MediaType()
	artifact, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), static.NewLayer(bill, billType))
	if err := errors.Join(sizeErr, kindErr, err); err != nil {
		return err
	}
	artifact = mutate.ConfigMediaType(artifact, billType)
	referring, ok := mutate.Subject(artifact, v1.Descriptor{MediaType: kind, Size: size, Digest: digest}).(v1.Image)
	if !ok {
		return errors.New("an artifact that refers to an image is no image")
	}
	if digest, err = referring.Digest(); err != nil {
		return err
	}
	return remote.Write(repository.Digest(digest.String()), referring, options...)
}
