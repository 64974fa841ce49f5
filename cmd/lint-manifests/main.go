// SPDX-License-Identifier: Apache-2.0

// Lint-manifests renders every kustomization under manifests/ and checks each object
// by the schema of its kind and by the policy for workloads.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/spotbench/spotbench/pkg/manifest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "lint-manifests:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has just run
	}
}

func command() *cobra.Command {
	var withoutSchema []string
	c := &cobra.Command{
		Use:   "lint-manifests [directory]",
		Short: "Render every kustomization under the directory and check its objects",
		Long: `lint-manifests renders every kustomization under the directory (manifests by
default), checks each object by the schema of its kind as kubeconform does, strictly, and
holds workloads to the policy: bounded memory, probes, no image "latest", a ServiceAccount
of their own. The schemas come from the Go modules that define the kinds.`,
		Args:          cobra.MaximumNArgs(1),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return lint(cmd.Context(), cmd.OutOrStdout(), append(args, "manifests")[0], withoutSchema)
		},
	}
	c.Flags().StringSliceVar(&withoutSchema, "without-schema", []string{"karpenter.k8s.aws/v1/EC2NodeClass"},
		"kinds (apiVersion/kind) that are held to the policy only, because no module has their schema")
	return c
}

var errFindings = errors.New("the manifests break rules")

func lint(ctx context.Context, out io.Writer, root string, withoutSchema []string) error {
	start := time.Now()
	dirs, err := kustomizations(root)
	if err != nil {
		return err
	}
	library, err := manifest.Schemas(ctx)
	if err != nil {
		return fmt.Errorf("get the schemas: %w", err)
	}
	schemas, err := os.MkdirTemp("", "spotbench-schemas-")
	if err != nil {
		return fmt.Errorf("make a directory for schemas: %w", err)
	}
	defer os.RemoveAll(schemas)
	linter, err := manifest.NewLinter(library, schemas, withoutSchema...)
	if err != nil {
		return fmt.Errorf("get ready to check: %w", err)
	}
	// What several kustomizations include, unchanged, is checked once.
	checked := map[string]bool{}
	rendered := 0
	var lines []string
	for _, dir := range dirs {
		objects, err := manifest.Build(dir)
		if err != nil {
			return err //nolint:wrapcheck // it names the directory
		}
		for i := range objects {
			content, err := objects[i].MarshalJSON()
			if err != nil {
				return fmt.Errorf("check %s: %w", dir, err)
			}
			if checked[string(content)] {
				continue
			}
			checked[string(content)] = true
			found, err := linter.Lint(&objects[i])
			if err != nil {
				return fmt.Errorf("check %s: %w", dir, err)
			}
			lines = append(lines, found...)
		}
		rendered += len(objects)
	}
	// An object that is patched differently here and there has its findings in each.
	slices.Sort(lines)
	lines = slices.Compact(lines)
	for _, line := range lines {
		fmt.Fprintln(out, line)
	}
	fmt.Fprintf(out, "%d kustomizations, %d objects (%d different), %d findings in %.1f s\n", len(dirs), rendered, len(checked), len(lines), time.Since(start).Seconds())
	if len(lines) > 0 {
		return errFindings
	}
	return nil
}

// kustomizations are the directories under the root that can be applied by themselves,
// components are checked where they are included.
func kustomizations(root string) ([]string, error) {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "components" {
			return fs.SkipDir
		}
		if d.Name() == "kustomization.yaml" {
			dirs = append(dirs, filepath.Dir(path))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for kustomizations: %w", err)
	}
	if len(dirs) == 0 {
		return nil, fmt.Errorf("%s has no kustomization.yaml; run it in the root of the source tree or name the directory", root)
	}
	return dirs, nil
}
