// SPDX-License-Identifier: Apache-2.0

// Package nvmlsim builds a simulated libnvidia-ml.so.1: NVML's binary interface
// over GPUs described by a text file, for machines without GPUs. The real NVML
// bindings load it in place of the driver's library. Its source, src/nvmlsim.c,
// documents the file's format.
package nvmlsim

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed src/nvmlsim.c
var source []byte

// Library is the file name that NVML's users look for.
const Library = "libnvidia-ml.so.1"

// Config is the file beside the library that describes the GPUs.
const Config = "nvml-sim.conf"

// Build compiles the library into dir with the machine's C compiler and returns
// its path. The binary interface comes from the header that go-nvml ships, found
// through the module at moduleDir.
func Build(ctx context.Context, moduleDir, dir string) (string, error) {
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/NVIDIA/go-nvml")
	list.Dir = moduleDir
	out, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("find the NVML header of go-nvml from %s: %w", moduleDir, err)
	}
	header := filepath.Join(strings.TrimSpace(string(out)), "pkg", "nvml")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	compiler := os.Getenv("CC")
	if compiler == "" {
		compiler = "cc"
	}
	path := filepath.Join(dir, Library)
	cc := exec.CommandContext(ctx, compiler, "-xc", "-", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror",
		"-Wno-deprecated-declarations", "-I", header, "-Wl,-soname,"+Library, "-o", path, "-ldl", "-lpthread")
	cc.Stdin = bytes.NewReader(source)
	if out, err := cc.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile %s with %s: %w\n%s", Library, compiler, err, out)
	}
	return path, nil
}
