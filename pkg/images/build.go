// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spotbench/spotbench/pkg/debian"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
)

// program is one of our programs as an image.
type program struct {
	name string
	// root programs run as root in their container.
	root bool
	// bindsC programs load C libraries at run time; the others need none.
	bindsC bool
	// extra adds what the program needs beside itself on an architecture.
	extra func(ctx context.Context, arch string, say toolchain.Progress) ([]Entry, error)
}

var programs = []program{
	{name: "scheduler"},
	// The agent binds a driver's library of the node, and acts on the node.
	{name: "node-agent", root: true, bindsC: true, extra: cLibrary},
	{name: "catalog-api", extra: postgres},
	{name: "bench-runner"},
	{name: "sim-llm"},
}

// Names are the images that Build makes, without pause.
func Names() []string {
	names := make([]string, 0, len(programs))
	for _, p := range programs {
		names = append(names, p.name)
	}
	return names
}

// Ref is the name and tag of one of our images.
func Ref(name string) string { return "spotbench.dev/" + name + ":dev" }

// Options of Build.
type Options struct {
	// Source is the root of Spotbench's source tree.
	Source string
	// Out is the directory for the tars, NAME.tar each.
	Out string
	// Only these images; all if empty.
	Only []string
	// Version that the programs report; "dev" if empty.
	Version string
	// Progress gets a line for every step; nil for none.
	Progress io.Writer
}

// Build compiles our programs and packs them as images. It returns the tars.
func Build(ctx context.Context, o Options) ([]string, error) {
	for _, name := range o.Only {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("image %q: there is no such image, want one of %s", name, strings.Join(Names(), ", "))
		}
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	out, err := filepath.Abs(o.Out)
	if err != nil {
		return nil, fmt.Errorf("output directory %q: %w", o.Out, err)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, fmt.Errorf("make the output directory: %w", err)
	}
	start := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(o.Progress, "[%4.0fs] "+format+"\n", append([]any{time.Since(start).Seconds()}, args...)...)
	}
	work, err := os.MkdirTemp("", "spotbench-images-")
	if err != nil {
		return nil, fmt.Errorf("make a build directory: %w", err)
	}
	defer os.RemoveAll(work)
	var tars []string
	for _, p := range programs {
		if len(o.Only) > 0 && !slices.Contains(o.Only, p.name) {
			continue
		}
		say("building %s", Ref(p.name))
		binary := filepath.Join(work, p.name)
		if err := Compile(ctx, o.Source, p.name, o.Version, binary); err != nil {
			return nil, err
		}
		img, err := p.image(ctx, binary, runtime.GOARCH, say)
		if err != nil {
			return nil, err
		}
		tar := filepath.Join(out, p.name+".tar")
		if err := img.Write(tar); err != nil {
			return nil, err
		}
		tars = append(tars, tar)
	}
	say("%d images are in %s", len(tars), out)
	return tars, nil
}

// Static packs a statically linked program of somebody else's as the image ref,
// which runs as nobody in particular, and writes it to out.
func Static(ref, program, out string) error {
	target := "/usr/bin/" + filepath.Base(program)
	img := Image{Ref: ref, Entrypoint: []string{target}, User: fmt.Sprintf("%d:%d", Nonroot, Nonroot),
		Entries: append(base(), Entry{Path: target, Source: program, Mode: 0o755})}
	cert, err := certificates()
	if err != nil {
		return err
	}
	img.Entries = append(img.Entries, cert)
	return img.Write(out)
}

// Compile builds one of the programs under cmd as its image has it.
func Compile(ctx context.Context, source, name, version, out string) error {
	// With the flags of every other build of this tree, so that a package is compiled
	// once for all of them; the C library comes with the image. Without gRPC's traces the
	// linker can tell which methods are never called: with them, by their templates, any
	// may be, and the agent has twice the size.
	ldflags := "-s -w -X github.com/spotbench/spotbench/pkg/version.release=" + version
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", "grpcnotrace", "-ldflags", ldflags, "-o", out, "./cmd/"+name)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile %s: %w\n%s", name, err, output)
	}
	return nil
}

func (p program) image(ctx context.Context, binary, arch string, say toolchain.Progress) (Image, error) {
	target := "/usr/bin/" + p.name
	img := Image{Ref: Ref(p.name), Entrypoint: []string{target}, Entries: base()}
	if !p.root {
		img.User = fmt.Sprintf("%d:%d", Nonroot, Nonroot)
	}
	img.Entries = append(img.Entries, Entry{Path: target, Source: binary, Mode: 0o755})
	certificates, err := certificates()
	if err != nil {
		return Image{}, err
	}
	img.Entries = append(img.Entries, certificates)
	if p.extra != nil {
		extra, err := p.extra(ctx, arch, say)
		if err != nil {
			return Image{}, fmt.Errorf("image %s: %w", img.Ref, err)
		}
		img.Entries = append(img.Entries, extra...)
	}
	if arch != runtime.GOARCH {
		return img, nil // what is dynamic here is with extra, whole
	}
	libs, err := closure(ctx, dynamic(img.Entries)...)
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", img.Ref, err)
	}
	img.Entries = union(img.Entries, libs)
	return img, nil
}

// base is in every image.
func base() []Entry {
	passwd := fmt.Sprintf("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:%d:%d:nonroot:/home/nonroot:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n", Nonroot, Nonroot)
	group := fmt.Sprintf("root:x:0:\nnonroot:x:%d:\nnobody:x:65534:\n", Nonroot)
	return append(usrLinks(),
		Entry{Path: "/usr/lib", Dir: true}, Entry{Path: "/usr/lib64", Dir: true}, Entry{Path: "/usr/bin", Dir: true},
		Entry{Path: "/etc/passwd", Content: []byte(passwd)},
		Entry{Path: "/etc/group", Content: []byte(group)},
		Entry{Path: "/etc/nsswitch.conf", Content: []byte("hosts: files dns\n")},
		Entry{Path: "/home/nonroot", Dir: true, Mode: 0o700, Owner: Nonroot},
		Entry{Path: "/tmp", Dir: true, Mode: 0o1777},
	)
}

func certificates() (Entry, error) {
	const path = "/etc/ssl/certs/ca-certificates.crt"
	if _, err := os.Stat(path); err != nil {
		return Entry{}, fmt.Errorf("the certificate authorities of this machine: %w: install the package ca-certificates", err)
	}
	return Entry{Path: path, Source: path, Mode: 0o644}, nil
}

// dynamic picks the entries that may need shared libraries.
func dynamic(entries []Entry) []string {
	var files []string
	for _, e := range entries {
		if e.Source == "" {
			continue
		}
		if dir := filepath.Base(filepath.Dir(e.Path)); dir == "bin" || strings.Contains(filepath.Base(e.Path), ".so") {
			files = append(files, e.Source)
		}
	}
	return files
}

// union appends the entries that are not there yet.
func union(entries, more []Entry) []Entry {
	have := map[string]bool{}
	for _, e := range entries {
		have[e.Path] = true
	}
	for _, e := range more {
		if !have[e.Path] {
			entries = append(entries, e)
		}
	}
	return entries
}

// cLibrary is what a library loaded at run time may ask of the C library.
func cLibrary(ctx context.Context, arch string, say toolchain.Progress) ([]Entry, error) {
	from, to := "/lib/x86_64-linux-gnu/", "/lib/x86_64-linux-gnu/"
	var loader []string
	if arch != runtime.GOARCH {
		if err := installCross(ctx, arch, say); err != nil {
			return nil, err
		}
		from, to = cross[arch].libraries, cross[arch].at
		loader = []string{cross[arch].loader}
	}
	var entries []Entry
	for _, name := range append(loader, "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libresolv.so.2") {
		source, err := filepath.EvalSymlinks(from + name)
		if err != nil {
			return nil, fmt.Errorf("the C library of this machine: %w", err)
		}
		at := to + name
		if slices.Contains(loader, name) {
			at = "/lib/" + name
		}
		entries = append(entries, Entry{Path: merged(at), Source: source, Mode: 0o755})
	}
	return entries, nil
}

// newestPostgres is the version of Debian's newest PostgreSQL server on this
// machine, "" for none.
func newestPostgres() string {
	newest := 0
	servers, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	for _, s := range servers {
		if version, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(s)))); err == nil {
			newest = max(newest, version)
		}
	}
	if newest == 0 {
		return ""
	}
	return strconv.Itoa(newest)
}

// postgres is a PostgreSQL server with the client programs for its care, from
// Debian's files. Without its compiler (JIT), which is larger than all the rest, and only
// for this machine's architecture: elsewhere the catalog needs a database's address.
func postgres(ctx context.Context, arch string, say toolchain.Progress) ([]Entry, error) {
	if arch != runtime.GOARCH {
		return nil, nil
	}
	missing := func() []string {
		if newestPostgres() == "" {
			return []string{"postgresql"}
		}
		return nil
	}
	if err := debian.Install(ctx, missing, func(packages []string) { say("installing Debian packages: %s", strings.Join(packages, " ")) }); err != nil {
		return nil, err
	}
	home := "/usr/lib/postgresql/" + newestPostgres()
	share := "/usr/share/postgresql/" + newestPostgres()
	entries := []Entry{
		{Path: "/usr/bin/sh", Link: "dash"}, // initdb and pg_ctl start the server through a shell
		{Path: "/usr/bin/dash", Source: "/usr/bin/dash", Mode: 0o755},
		{Path: "/run/postgresql", Dir: true, Mode: 0o755, Owner: Nonroot},
		{Path: "/var/run", Link: "../run"},
	}
	for _, name := range []string{"postgres", "initdb", "pg_ctl", "psql", "pg_isready", "pg_dump", "pg_restore", "pg_controldata"} {
		path := home + "/bin/" + name
		entries = append(entries, Entry{Path: path, Source: path, Mode: 0o755})
	}
	for root, skip := range map[string]func(string) bool{
		home + "/lib": func(p string) bool {
			base := filepath.Base(p)
			return base == "bitcode" || base == "pgxs" || strings.HasPrefix(base, "llvmjit")
		},
		share: func(p string) bool { return filepath.Base(p) == "man" },
		// The other two trees of the time zone database hold the same again.
		"/usr/share/zoneinfo": func(p string) bool {
			return strings.HasSuffix(p, "zoneinfo/posix") || strings.HasSuffix(p, "zoneinfo/right")
		},
		"/usr/lib/locale/C.utf8": func(string) bool { return false },
	} {
		files, err := tree(root, skip)
		if err != nil {
			return nil, err
		}
		entries = append(entries, files...)
	}
	return entries, nil
}
