// SPDX-License-Identifier: Apache-2.0

// Command generate writes the templates of the Helm chart.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spotbench/spotbench/pkg/manifest/chart"
)

func main() {
	manifests := flag.String("manifests", "", "directory of the manifests")
	out := flag.String("out", "", "directory of the templates")
	flag.Parse()
	if err := run(*manifests, *out); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(manifests, out string) error {
	templates, err := chart.Templates(manifests)
	if err != nil {
		return err
	}
	for name, text := range templates {
		if err := os.WriteFile(filepath.Join(out, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
