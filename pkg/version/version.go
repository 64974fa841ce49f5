// SPDX-License-Identifier: Apache-2.0

// Package version names the build every binary reports with --version, in its
// logs and in the spotbench_build_info metric.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// release is the version of this tree; the Makefile sets it to `git describe`.
var release = "dev"

// String is the release with the Go version and platform it was built with,
// for example "v0.1.0 (go1.26.8 linux/amd64, commit 1a2b3c4)".
func String() string {
	return fmt.Sprintf("%s (%s %s/%s%s)", release, runtime.Version(), runtime.GOOS, runtime.GOARCH, commit())
}

// Release is the bare version, for user agents and metric labels.
func Release() string { return release }

func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 7 {
			return ", commit " + s.Value[:7]
		}
	}
	return ""
}
