// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spotbench/spotbench/pkg/debian"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
)

// postgresEntrypoint does for Debian's PostgreSQL what the manifests expect of the
// official image's entry point.
//
//go:embed postgres-entrypoint.sh
var postgresEntrypoint []byte

// service is somebody else's program, of a Debian package, as an image for the local
// cluster, where no registry can be asked for the official one.
type service struct {
	name string
	// packages bring files, which the image holds at their own paths.
	packages, files []string
	entrypoint      []string
	// user of the official image; 0 for ours.
	user int
	// extra adds what is in no package.
	extra func(ctx context.Context, say toolchain.Progress) ([]Entry, error)
}

// shell is what the scripts of the manifests are written with.
var shell = []string{"/usr/bin/cat", "/usr/bin/grep", "/usr/bin/ls", "/usr/bin/mkdir", "/usr/bin/mv", "/usr/bin/rm", "/usr/bin/sleep", "/usr/bin/tr", "/usr/bin/chmod"}

var services = []service{
	{name: "alertmanager", packages: []string{"prometheus-alertmanager"}, files: []string{"/usr/bin/prometheus-alertmanager"}, entrypoint: []string{"/usr/bin/prometheus-alertmanager"},
		extra: func(context.Context, toolchain.Progress) ([]Entry, error) {
			return tree("/usr/share/prometheus/alertmanager", func(path string) bool { return filepath.Ext(path) != "" && filepath.Ext(path) != ".tmpl" })
		}},
	{name: "redis", packages: []string{"redis-server", "redis-tools"}, files: append([]string{"/usr/bin/redis-server", "/usr/bin/redis-cli"}, shell...),
		entrypoint: []string{"/usr/bin/redis-server"}, user: 999, extra: func(context.Context, toolchain.Progress) ([]Entry, error) { return shellLinks(), nil }},
	{name: "postgres", files: shell, entrypoint: []string{"/usr/bin/docker-entrypoint.sh"}, user: 999, extra: postgresServer},
}

// Services are the images that BuildServices makes.
func Services() []string {
	var names []string
	for _, s := range services {
		names = append(names, s.name)
	}
	return names
}

// BuildServices packs the named services of Debian as images into the directory, and
// installs their packages first. It returns the tars.
func BuildServices(ctx context.Context, out string, progress io.Writer, names ...string) ([]string, error) {
	say := func(format string, args ...any) { fmt.Fprintf(progress, format+"\n", args...) }
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, fmt.Errorf("make the output directory: %w", err)
	}
	var tars []string
	for _, s := range services {
		if !slices.Contains(names, s.name) {
			continue
		}
		img, err := s.image(ctx, say)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", s.name, err)
		}
		tar := filepath.Join(out, s.name+".tar")
		if err := img.Write(tar); err != nil {
			return nil, err
		}
		tars = append(tars, tar)
	}
	if len(tars) != len(names) {
		return nil, fmt.Errorf("images %s: there are only %s", strings.Join(names, ", "), strings.Join(Services(), ", "))
	}
	return tars, nil
}

func (s service) image(ctx context.Context, say toolchain.Progress) (Image, error) {
	missing := func() []string {
		for _, file := range s.files {
			if _, err := os.Stat(file); err != nil {
				return s.packages
			}
		}
		return nil
	}
	if err := debian.Install(ctx, missing, func(packages []string) { say("installing Debian packages: %s", strings.Join(packages, " ")) }); err != nil {
		return Image{}, err
	}
	user := s.user
	if user == 0 {
		user = Nonroot
	}
	img := Image{Ref: Ref(s.name), Entrypoint: s.entrypoint, User: fmt.Sprintf("%d:%d", user, user), Entries: base()}
	for i, e := range img.Entries {
		if e.Path == "/etc/passwd" && s.user != 0 {
			// PostgreSQL's programs want to know the name of their user.
			img.Entries[i].Content = fmt.Appendf(slices.Clone(e.Content), "%[1]s:x:%[2]d:%[2]d:%[1]s:/:/sbin/nologin\n", s.name, s.user)
		}
	}
	for _, file := range s.files {
		source, err := filepath.EvalSymlinks(file)
		if err != nil {
			return Image{}, err
		}
		img.Entries = append(img.Entries, Entry{Path: file, Source: source, Mode: 0o755})
	}
	if s.extra != nil {
		extra, err := s.extra(ctx, say)
		if err != nil {
			return Image{}, err
		}
		img.Entries = union(img.Entries, extra)
	}
	libs, err := closure(ctx, dynamic(img.Entries)...)
	if err != nil {
		return Image{}, err
	}
	img.Entries = union(img.Entries, libs)
	return img, nil
}

func shellLinks() []Entry {
	return []Entry{{Path: "/usr/bin/sh", Link: "dash"}, {Path: "/usr/bin/dash", Source: "/usr/bin/dash", Mode: 0o755}}
}

// postgresServer is the server of the catalog's own image, and what a replica begins with.
func postgresServer(ctx context.Context, say toolchain.Progress) ([]Entry, error) {
	entries, err := postgres(ctx, runtime.GOARCH, say)
	if err != nil {
		return nil, err
	}
	basebackup := "/usr/lib/postgresql/" + newestPostgres() + "/bin/pg_basebackup"
	entries = append(entries,
		Entry{Path: basebackup, Source: basebackup, Mode: 0o755},
		Entry{Path: "/usr/bin/docker-entrypoint.sh", Content: postgresEntrypoint, Mode: 0o755})
	for _, e := range entries {
		// On the path, as in the official image.
		if dir, name := filepath.Split(e.Path); dir == "/usr/lib/postgresql/"+newestPostgres()+"/bin/" {
			entries = append(entries, Entry{Path: "/usr/local/bin/" + name, Link: e.Path})
		}
	}
	return entries, nil
}
