// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

// bench is one round.
type bench struct {
	ctx    context.Context
	dir    string
	size   int64
	seed   uint64
	report *report
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

const (
	stepFirst   = "first"
	stepChanged = "1 % changed"
	stepAgain   = "1 % changed, agent restarted"
	stepRestore = "restore"

	ours    = "spotbench"
	tarZstd = "tar | zstd -1"
	copying = "cp -a"

	runKey = "bench/checkpoint"
)

func (b *bench) round() error {
	source, store := b.path("source"), b.path("store")
	if err := fill(source, b.size, b.seed); err != nil {
		return err
	}
	s, err := checkpoint.Open(b.ctx, checkpoint.Options{URL: "file://" + store})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := b.save(stepFirst, source, s); err != nil {
		return err
	}
	if err := b.peers(stepFirst, source); err != nil {
		return err
	}
	if err := change(source, b.size, b.seed); err != nil {
		return err
	}
	if err := b.save(stepChanged, source, s); err != nil {
		return err
	}
	if err := b.peers(stepChanged, source); err != nil {
		return err
	}
	if err := change(source, b.size, b.seed+1000); err != nil {
		return err
	}
	restarted, err := checkpoint.Open(b.ctx, checkpoint.Options{URL: "file://" + store})
	if err != nil {
		return err
	}
	defer restarted.Close()
	if err := b.save(stepAgain, source, restarted); err != nil {
		return err
	}
	return b.restore(source, store, s)
}

func (b *bench) save(step, source string, s *checkpoint.Store) error {
	return b.measure(step, ours, source, func() (int64, error) {
		saved, err := s.Save(b.ctx, runKey, source, checkpoint.SaveOptions{})
		return saved.Uploaded, err
	})
}

// peers make an archive and a copy, which stay for restore.
func (b *bench) peers(step, source string) error {
	archive, copied := b.path("archive.tar.zst"), b.path("copy")
	if err := errors.Join(os.RemoveAll(archive), os.RemoveAll(copied)); err != nil {
		return err
	}
	if err := b.measure(step, tarZstd, source, func() (int64, error) {
		return b.shell(archive, `set -o pipefail; tar -C "$1" -cf - . | zstd -1 -q -o "$2"`, source, archive)
	}); err != nil {
		return err
	}
	return b.measure(step, copying, source, func() (int64, error) {
		return b.shell(copied, `cp -a "$1" "$2"`, source, copied)
	})
}

func (b *bench) restore(source, store string, s *checkpoint.Store) error {
	archive, copied, into := b.path("archive.tar.zst"), b.path("copy"), b.path("restored")
	// Ours last, so that its result can be compared with the source.
	if err := b.measure(stepRestore, tarZstd, archive, func() (int64, error) {
		return b.shell(into, `set -o pipefail; mkdir "$2" && zstd -dcq "$1" | tar -C "$2" -xf -`, archive, into)
	}); err != nil {
		return err
	}
	if err := os.RemoveAll(into); err != nil {
		return err
	}
	if err := b.measure(stepRestore, copying, copied, func() (int64, error) {
		return b.shell(into, `cp -a "$1" "$2"`, copied, into)
	}); err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(into), os.Mkdir(into, 0o755)); err != nil {
		return err
	}
	if err := b.measure(stepRestore, ours, store, func() (int64, error) {
		restored, _, err := s.Restore(b.ctx, runKey, into, checkpoint.RestoreOptions{})
		return restored.Bytes, err
	}); err != nil {
		return err
	}
	return same(source, into)
}

// shell runs a command and says how much it wrote.
func (b *bench) shell(result, script string, args ...string) (int64, error) {
	cmd := exec.CommandContext(b.ctx, "bash", append([]string{"-c", script, "bash"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w: %s", script, err, strings.TrimSpace(stderr.String()))
	}
	var written int64
	err := filepath.WalkDir(result, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			written += info.Size()
		}
		return err
	})
	return written, err
}

// measure times do with its input in the cache and nothing else on its way to the
// disk, until all that it wrote is there.
func (b *bench) measure(step, who, input string, do func() (int64, error)) error {
	if err := syncDisk(b.dir); err != nil {
		return err
	}
	if err := warm(input); err != nil {
		return err
	}
	time.Sleep(1100 * time.Millisecond) // a file just changed is never taken as known
	cpu, start := cpuTime(), time.Now()
	written, err := do()
	if err == nil {
		err = syncDisk(b.dir)
	}
	if err != nil {
		return fmt.Errorf("%s, %s: %w", step, who, err)
	}
	b.report.add(sample{step: step, who: who, seconds: time.Since(start).Seconds(), cpu: (cpuTime() - cpu).Seconds(), written: written})
	return nil
}

func syncDisk(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}

// warm reads a file, or all files of a tree.
func warm(path string) error {
	dir, name := filepath.Split(path)
	tree := os.DirFS(dir)
	return fs.WalkDir(tree, name, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := tree.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 1<<20))
		return err
	})
}

// cpuTime is what this process and those it started have used.
func cpuTime() time.Duration {
	var total time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var usage syscall.Rusage
		if err := syscall.Getrusage(who, &usage); err == nil {
			total += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
		}
	}
	return total
}

// same compares two trees.
func same(a, b string) error {
	digests := func(dir string) (string, error) {
		var all []string
		tree := os.DirFS(dir)
		err := fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			f, err := tree.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			h := sha256.New()
			_, err = io.Copy(h, f)
			all = append(all, fmt.Sprintf("%s %x", path, h.Sum(nil)))
			return err
		})
		slices.Sort(all)
		return strings.Join(all, "\n"), err
	}
	want, err := digests(a)
	if err != nil {
		return err
	}
	got, err := digests(b)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("what was restored differs from what was saved:\n%s\n%s", want, got)
	}
	return nil
}
