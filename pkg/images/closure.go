// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// closure lists the shared libraries and the loader that the given dynamically
// linked files need, as entries at the paths the loader looks for them.
func closure(ctx context.Context, files ...string) ([]Entry, error) {
	found := map[string]Entry{}
	for _, f := range files {
		libs, err := libraries(ctx, f)
		if err != nil {
			return nil, err
		}
		for _, lib := range libs {
			source, err := filepath.EvalSymlinks(lib)
			if err != nil {
				return nil, fmt.Errorf("library %s of %s: %w", lib, f, err)
			}
			at := merged(lib)
			found[at] = Entry{Path: at, Source: source, Mode: 0o755}
		}
	}
	entries := make([]Entry, 0, len(found))
	for _, e := range found {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return entries, nil
}

// merged is a library's path where /lib and /lib64 are links into /usr, as on
// Debian and in our images.
func merged(path string) string {
	if strings.HasPrefix(path, "/lib/") || strings.HasPrefix(path, "/lib64/") || strings.HasPrefix(path, "/bin/") {
		return "/usr" + path
	}
	return path
}

// usrLinks are the links that go with merged.
func usrLinks() []Entry {
	return []Entry{{Path: "/lib", Link: "usr/lib"}, {Path: "/lib64", Link: "usr/lib64"}, {Path: "/bin", Link: "usr/bin"}}
}

// libraries asks the loader what a file needs.
func libraries(ctx context.Context, file string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "ldd", file).CombinedOutput()
	text := string(out)
	if err != nil {
		if strings.Contains(text, "not a dynamic executable") || strings.Contains(text, "statically linked") {
			return nil, nil
		}
		return nil, fmt.Errorf("ldd %s: %w\n%s", file, err, text)
	}
	var libs []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) >= 4 && fields[1] == "=>" && fields[2] == "not":
			return nil, fmt.Errorf("%s needs %s, which this machine does not have", file, fields[0])
		case len(fields) >= 3 && fields[1] == "=>":
			libs = append(libs, fields[2])
		case len(fields) >= 1 && strings.HasPrefix(fields[0], "/"):
			libs = append(libs, fields[0])
		}
	}
	return libs, nil
}

// tree copies a directory of this machine, without what skip names.
func tree(root string, skip func(path string) bool) ([]Entry, error) {
	var entries []Entry
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if skip(path) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		switch {
		case d.IsDir():
			entries = append(entries, Entry{Path: path, Dir: true})
		default:
			// Links may lead out of the tree: take what they stand for.
			source, err := filepath.EvalSymlinks(path)
			if err != nil {
				return fmt.Errorf("follow %s: %w", path, err)
			}
			entries = append(entries, Entry{Path: path, Source: source})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", root, err)
	}
	return entries, nil
}
