// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// pauseSource is embedded so that a cluster can be started without the source
// tree at hand.
//
//go:embed pause/main.go
var pauseSource []byte

// PauseRef is the image that holds every pod's namespaces.
const PauseRef = "spotbench.dev/pause:3.10"

// EnsurePause builds the pause image into the cache directory if it is not
// there yet, and returns its path.
func EnsurePause(ctx context.Context, cache string) (string, error) {
	sum := sha256.Sum256(append(slices.Clone(pauseSource), runtime.Version()...))
	dir := filepath.Join(cache, "images")
	out := filepath.Join(dir, "pause-"+hex.EncodeToString(sum[:])[:12]+".tar")
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the image cache: %w", err)
	}
	work, err := os.MkdirTemp("", "spotbench-pause-")
	if err != nil {
		return "", fmt.Errorf("make a build directory: %w", err)
	}
	defer os.RemoveAll(work)
	if err := os.WriteFile(filepath.Join(work, "main.go"), pauseSource, 0o600); err != nil {
		return "", fmt.Errorf("write pause's source: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", "pause", "main.go")
	cmd.Dir = work
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "GOFLAGS=") }), "CGO_ENABLED=0", "GO111MODULE=off")
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build pause: %w\n%s", err, output)
	}
	img := Image{Ref: PauseRef, Entrypoint: []string{"/pause"}, User: "65535:65535", Entries: []Entry{{Path: "/pause", Source: filepath.Join(work, "pause"), Mode: 0o755}}}
	if err := img.Write(out); err != nil {
		return "", err
	}
	return out, nil
}
