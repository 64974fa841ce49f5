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
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	module, err := download(ctx, moduleDir, "github.com/NVIDIA/go-nvml")
	if err != nil {
		return "", fmt.Errorf("find the NVML header: %w", err)
	}
	header := filepath.Join(module, "pkg", "nvml")
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

// download gives the directory of a module that the one at moduleDir requires. On a
// fresh machine it is not in the module cache yet.
func download(ctx context.Context, moduleDir, module string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	cmd.Dir = moduleDir
	out, err := cmd.Output()
	var answer struct{ Dir, Error string }
	if decodeErr := json.Unmarshal(out, &answer); err == nil {
		err = decodeErr
	}
	if err == nil && answer.Dir == "" {
		err = errors.New(answer.Error)
	}
	if err != nil {
		return "", fmt.Errorf("go mod download %s in %s: %w", module, moduleDir, err)
	}
	return answer.Dir, nil
}
