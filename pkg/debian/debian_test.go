// SPDX-License-Identifier: Apache-2.0

package debian_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/spotbench/spotbench/pkg/debian"
)

// aptGet puts a stand-in for apt-get first in PATH: a machine's packages are not a
// test's to change. It fails on a lock that another apt-get holds, as the real one.
func aptGet(t *testing.T, script string) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root installs packages")
	}
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "apt-get"), []byte("#!/bin/sh\ncd "+dir+"\necho \"$@\" >> calls\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("TMPDIR", dir)
	return dir
}

func lacks(path, pkg string) debian.Missing {
	return func() []string {
		if _, err := os.Stat(path); err != nil {
			return []string{pkg}
		}
		return nil
	}
}

func calls(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(data)
}

func silent([]string) {}

func TestProgramsThatNeedTheSamePackageAtOnceInstallItOnce(t *testing.T) {
	dir := aptGet(t, `mkdir held || { echo "E: Could not get lock" >&2; exit 100; }
sleep 0.1
case "$*" in *install*) touch program;; esac
rmdir held`)
	var all sync.WaitGroup
	errs := make([]error, 5)
	for n := range errs {
		all.Go(func() {
			errs[n] = debian.Install(t.Context(), lacks(filepath.Join(dir, "program"), "containerd"), silent)
		})
	}
	all.Wait()
	for n, err := range errs {
		if err != nil {
			t.Errorf("program %d: %v", n, err)
		}
	}
	if got := calls(t, dir); strings.Count(got, " install ") != 1 {
		t.Errorf("apt-get was called\n%swant one update and one install", got)
	}
}

func TestALockOfSomebodyElsesAptIsWaitedFor(t *testing.T) {
	dir := aptGet(t, `n=$(wc -l < calls)
[ $n -ge 2 ] || { echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1" >&2; exit 100; }
touch program`)
	if err := debian.Install(t.Context(), lacks(filepath.Join(dir, "program"), "runc"), silent); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(calls(t, dir), "update"); got != 2 {
		t.Errorf("%d updates, want a second after the lock's", got)
	}
}

func TestAFailureSaysWhatAptSaid(t *testing.T) {
	aptGet(t, `echo "E: Unable to locate package nonesuch" >&2; exit 100`)
	err := debian.Install(t.Context(), func() []string { return []string{"nonesuch"} }, silent)
	if err == nil || !strings.Contains(err.Error(), "Unable to locate package nonesuch") {
		t.Errorf("error %v, want apt's own", err)
	}
}

func TestAPackageThatDoesNotBringTheProgramIsAnError(t *testing.T) {
	aptGet(t, "exit 0")
	err := debian.Install(t.Context(), func() []string { return []string{"empty"} }, silent)
	if err == nil || !strings.Contains(err.Error(), "still lacks empty") {
		t.Errorf("error %v, want one that says what is still missing", err)
	}
}

func TestNothingMissingInstallsNothing(t *testing.T) {
	dir := aptGet(t, "exit 1")
	if err := debian.Install(t.Context(), func() []string { return nil }, func([]string) { t.Error("told to install") }); err != nil {
		t.Error(err)
	}
	if got := calls(t, dir); got != "" {
		t.Error("apt-get was called: " + strconv.Quote(got))
	}
}
