// SPDX-License-Identifier: Apache-2.0

// Command criu answers as CRIU does, on a kernel that it does not know.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("Version: 4.1.1\nGitID: v4.1.1")
		return
	}
	fmt.Fprintln(os.Stderr, "Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds\nError (criu/crtools.c:260): Could not initialize kernel features detection.")
	os.Exit(1)
}
