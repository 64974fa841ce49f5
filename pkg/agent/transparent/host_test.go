// SPDX-License-Identifier: Apache-2.0

package transparent

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// newRoot is a node's root directory with the files that are named, empty.
func newRoot(t *testing.T, files ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range files {
		at := filepath.Join(root, f)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestTheNodesOwnProgramsAreAskedInItsOwnFileSystem(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("entering another root directory needs root")
	}
	root := newRoot(t, "usr/lib/criu/cuda_plugin.so", "usr/bin/cuda-checkpoint")
	build := exec.Command("go", "build", "-o", filepath.Join(root, "usr/sbin/criu"), "./testdata/criu")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	got, err := Look(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	want := Node{CRIU: "4.1.1", CRIUFault: "Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds", CUDAPlugin: true, CUDACheckpoint: true}
	if got != want {
		t.Errorf("the node has %+v, want %+v", got, want)
	}
}

func TestANodeWithoutAnythingHasNothing(t *testing.T) {
	t.Parallel()
	if got, err := Look(t.Context(), newRoot(t, "bin/true")); err != nil || got != (Node{}) {
		t.Errorf("the node has %+v (%v), want nothing", got, err)
	}
	if _, err := Look(t.Context(), filepath.Join(t.TempDir(), "gone")); err == nil {
		t.Error("a node whose files cannot be read has been looked at")
	}
}

func TestABrokenCRIUIsAnErrorThatSaysWhatItSaid(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("entering another root directory needs root")
	}
	_, err := Look(t.Context(), newRoot(t, "usr/sbin/criu"))
	if err == nil || !strings.Contains(err.Error(), "/usr/sbin/criu --version") {
		t.Errorf("an empty file as criu gives %v", err)
	}
}

func TestThisMachinesDiskAndMemoryAreMeasured(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	disk, memory, err := Free(dir)
	if err != nil || disk <= 0 || memory <= 0 {
		t.Errorf("free are %d of the disk and %d of the memory (%v)", disk, memory, err)
	}
	rate, err := MeasureDisk(dir)
	if err != nil || rate <= 0 {
		t.Errorf("the disk takes %.0f bytes a second (%v)", rate, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("measuring the disk has left %v (%v)", left, err)
	}
	if _, err := MeasureDisk(filepath.Join(dir, "gone")); err == nil {
		t.Error("a disk that is not there has been measured")
	}
}

func FuzzTheNodesAnswersAreReadWithoutFault(f *testing.F) {
	f.Add("Version: 4.1.1\nGitID: v4.1.1", "MemTotal: 5 kB\nMemAvailable:   24183640 kB\n")
	f.Add("", "MemAvailable: -1 kB")
	f.Add("Version:", "MemAvailable: 9223372036854775807 kB")
	f.Fuzz(func(t *testing.T, version, meminfo string) {
		v := versionOf(version)
		if strings.Contains(v, "\n") {
			t.Errorf("%q is a version", v)
		}
		if len(numbers(v)) > 0 && older(v, v) {
			t.Errorf("%q is older than itself", v)
		}
		if n, err := available(meminfo); err == nil && n < 0 {
			t.Errorf("%d bytes are available", n)
		}
	})
}
