// SPDX-License-Identifier: Apache-2.0

// Package gpusim builds simulated libnvidia-ml.so.1 and libdcgm.so.4: the binary
// interfaces of NVML and DCGM over GPUs described by one script, for machines
// without GPUs. The real bindings load them in place of the driver's libraries. The
// script's format is documented in src/scenario.h.
package gpusim

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

//go:embed src/*.c src/*.h
var sources embed.FS

// The file names that users of NVML and DCGM look for.
const (
	NVML = "libnvidia-ml.so.1"
	DCGM = "libdcgm.so.4"
)

// Config is the file beside a library that describes its GPUs.
const Config = "gpu-sim.conf"

// Play writes the script beside the libraries of dir, so many seconds into it.
func Play(dir, script string, into time.Duration) error {
	// Renamed into place with its time set: a library never sees half of it.
	path := filepath.Join(dir, Config)
	if err := os.WriteFile(path+".new", []byte(script), 0o644); err != nil {
		return err
	}
	started := time.Now().Add(-into)
	if err := os.Chtimes(path+".new", started, started); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// headers are the modules whose headers define each library, and where they are.
var headers = map[string]struct{ module, dir, source string }{
	NVML: {"github.com/NVIDIA/go-nvml", "pkg/nvml", "nvml.c"},
	DCGM: {"github.com/NVIDIA/go-dcgm", "pkg/dcgm", "dcgm.c"},
}

// Build compiles a library, NVML or DCGM, into dir with the machine's C compiler and
// returns its path. The binary interface comes from the headers that the Go bindings
// ship, found through the module at moduleDir.
func Build(ctx context.Context, library, moduleDir, dir string) (string, error) {
	h, ok := headers[library]
	if !ok {
		return "", fmt.Errorf("no library %q; build %s or %s", library, NVML, DCGM)
	}
	module, err := download(ctx, moduleDir, h.module)
	if err != nil {
		return "", fmt.Errorf("find the headers of %s: %w", library, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	src, err := os.MkdirTemp(dir, "src")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(src)
	if err := os.CopyFS(src, sources); err != nil {
		return "", err
	}
	compiler := os.Getenv("CC")
	if compiler == "" {
		compiler = "cc"
	}
	path := filepath.Join(dir, library)
	// Both libraries may be in one process: only their public names are visible.
	cc := exec.CommandContext(ctx, compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations",
		"-fvisibility=hidden", "-I", filepath.Join(module, filepath.FromSlash(h.dir)), "-Wl,-soname,"+library, "-o", path,
		filepath.Join(src, "src", h.source), filepath.Join(src, "src", "scenario.c"), "-ldl", "-lpthread")
	if out, err := cc.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile %s with %s: %w\n%s", library, compiler, err, out)
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
