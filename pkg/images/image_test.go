// SPDX-License-Identifier: Apache-2.0

package images_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/spotbench/spotbench/pkg/images"
)

func example(t *testing.T) images.Image {
	t.Helper()
	source := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(source, []byte("#!"), 0o600); err != nil {
		t.Fatal(err)
	}
	return images.Image{
		Ref: "spotbench.dev/example:dev", Entrypoint: []string{"/usr/bin/example"}, Env: []string{"A=b"}, User: "65532:65532",
		Entries: []images.Entry{
			{Path: "/usr/bin/example", Source: source, Mode: 0o755},
			{Path: "/tmp", Dir: true, Mode: 0o1777},
			{Path: "/lib", Link: "usr/lib"},
			{Path: "/data", Dir: true, Owner: 65532},
			{Path: "/etc/passwd", Content: []byte("root:x:0:0::/:\n")},
		},
	}
}

func TestAnImageHoldsItsEntriesAndTheDirectoriesAboveThem(t *testing.T) {
	out := filepath.Join(t.TempDir(), "example.tar")
	if err := example(t).Write(out); err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(out, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Config.User != "65532:65532" || cfg.Config.Entrypoint[0] != "/usr/bin/example" || cfg.OS != "linux" || !strings.Contains(strings.Join(cfg.Config.Env, " "), "A=b") {
		t.Errorf("configuration %+v", cfg.Config)
	}
	want := []string{
		"data/ 755 65532", "etc/ 755 0", "etc/passwd 644 0", "lib 777 0 -> usr/lib", "tmp/ 1777 0", "usr/ 755 0", "usr/bin/ 755 0", "usr/bin/example 755 0",
	}
	if diff := cmp.Diff(want, list(t, img)); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func list(t *testing.T, img v1.Image) []string {
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
	var got []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.Unix() != 0 {
			t.Errorf("%s is of %s, want the epoch", h.Name, h.ModTime)
		}
		line := fmt.Sprintf("%s %o %d", h.Name, h.Mode, h.Uid)
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		got = append(got, line)
	}
}

func TestTheSameInputsGiveTheSameBytes(t *testing.T) {
	img := example(t)
	var contents [2][]byte
	for i := range contents {
		out := filepath.Join(t.TempDir(), "example.tar")
		if i == 1 { // the order of the entries is no input
			img.Entries[0], img.Entries[3] = img.Entries[3], img.Entries[0]
		}
		if err := img.Write(out); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		contents[i] = data
	}
	if !bytes.Equal(contents[0], contents[1]) {
		t.Error("two builds differ")
	}
}

func TestAnEntryThatCannotBeIsRefusedAndLeavesNoImage(t *testing.T) {
	for _, c := range []struct {
		name  string
		entry images.Entry
		want  string
	}{
		{"a relative path", images.Entry{Path: "usr/x", Content: []byte("x")}, "clean absolute path"},
		{"a path that leads out", images.Entry{Path: "/usr/../../x", Content: []byte("x")}, "clean absolute path"},
		{"a file twice", images.Entry{Path: "/etc/passwd", Content: []byte("x")}, "twice"},
		{"a source that is not there", images.Entry{Path: "/x", Source: "/does/not/exist"}, "/does/not/exist"},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := example(t)
			img.Entries = append(img.Entries, c.entry)
			dir := t.TempDir()
			err := img.Write(filepath.Join(dir, "x.tar"))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestAnImageNeedsAFullName(t *testing.T) {
	img := example(t)
	img.Ref = "Spotbench:dev"
	if err := img.Write(filepath.Join(t.TempDir(), "x.tar")); err == nil || !strings.Contains(err.Error(), `"Spotbench:dev"`) {
		t.Errorf("error %v, want one that names the image", err)
	}
}

func TestThePauseImageIsBuiltOnceAndHoldsItsProgramOnly(t *testing.T) {
	cache := t.TempDir()
	first, err := images.EnsurePause(t.Context(), cache)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(first)
	if err != nil {
		t.Fatal(err)
	}
	again, err := images.EnsurePause(t.Context(), cache)
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(again)
	if err != nil || again != first || !after.ModTime().Equal(info.ModTime()) {
		t.Errorf("built again: %s at %s, %s at %s", first, info.ModTime(), again, after.ModTime())
	}
	img, err := tarball.ImageFromPath(first, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := list(t, img); len(got) != 1 || got[0] != "pause 755 0" {
		t.Errorf("entries %v, want the program alone", got)
	}
}

func TestBuildRefusesAnImageThatThereIsNot(t *testing.T) {
	_, err := images.Build(t.Context(), images.Options{Only: []string{"sheduler"}, Out: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), `"sheduler"`) || !strings.Contains(err.Error(), "scheduler") {
		t.Errorf("error %v, want one with the wrong name and the right ones", err)
	}
}

func TestPauseEndsOnSIGTERM(t *testing.T) {
	program := filepath.Join(t.TempDir(), "pause")
	if out, err := exec.Command("go", "build", "-o", program, "./pause").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// timeout sends SIGTERM after a while, and SIGKILL (status 137) if that does not help.
	if err := exec.Command("timeout", "--preserve-status", "-k", "5", "0.5", program).Run(); err != nil {
		t.Errorf("pause ended with %v, want success on SIGTERM", err)
	}
}

func TestEveryImageHasADockerfileThatBuildsItsProgramAndSaysItsUser(t *testing.T) {
	for _, name := range images.Names() {
		text, err := os.ReadFile("../../build/" + name + ".Dockerfile")
		if err != nil {
			t.Error(err)
			continue
		}
		user := "USER 65532:65532\n"
		if name == "node-agent" { // it reads volumes of pods of all users
			user = "USER 0:0\n"
		}
		for _, line := range []string{"./cmd/" + name + "\n", user, `ENTRYPOINT ["/usr/bin/` + name + `"]`} {
			if !strings.Contains(string(text), line) {
				t.Errorf("build/%s.Dockerfile has no %q", name, line)
			}
		}
	}
	files, err := os.ReadDir("../../build")
	if err != nil || len(files) != len(images.Names()) {
		t.Errorf("%d Dockerfiles for %d images, %v", len(files), len(images.Names()), err)
	}
}
