// SPDX-License-Identifier: Apache-2.0

// Command generate writes what is derived from the contract's table: the
// reference page and the admission policies.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/benchspec/admission"
)

func main() {
	docs := flag.String("docs", "", "file to write the reference page to")
	policies := flag.String("policies", "", "file to write the admission policies to")
	affinity := flag.String("affinity", "", "file to write the policy to that adds node affinity")
	flag.Parse()
	if err := run(*docs, *policies, *affinity); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(docs, policies, affinity string) error {
	manifest, err := admission.Manifest()
	if err != nil {
		return err
	}
	if err := os.WriteFile(docs, []byte(benchspec.ReferencePage()), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(policies, manifest, 0o644); err != nil {
		return err
	}
	if manifest, err = admission.AffinityManifest(); err != nil {
		return err
	}
	return os.WriteFile(affinity, manifest, 0o644)
}
