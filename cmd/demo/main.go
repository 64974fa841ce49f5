// SPDX-License-Identifier: Apache-2.0

// Demo runs Spotbench's main job on the local cluster, end to end, and shows it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/spotbench/spotbench/pkg/demo"
	"github.com/spotbench/spotbench/pkg/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has just run
	}
}

func command() *cobra.Command {
	var opts demo.Options
	var out string
	var installOnly bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Place, interrupt, checkpoint, restore and file three benchmarks on a real local cluster",
		Long: `demo starts a local Kubernetes cluster, installs Spotbench, submits three
benchmark Jobs, sends a spot termination notice to the node that runs one of
them, and shows how it is saved and finished elsewhere.

It needs root on Linux, Go and a C compiler, and installs the Debian packages
it uses. Only the GPUs and the inference server are simulated. The cluster keeps
running afterwards, so that you can look around; remove it with
` + "`make demo-down`" + `.`,
		Version:       version.String(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Output = cmd.OutOrStdout()
			if installOnly {
				return install(cmd.Context(), opts)
			}
			// A report of an earlier run must not pass for one of this.
			if err := os.Remove(out); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("--out: %w", err)
			}
			report, err := demo.Run(cmd.Context(), opts)
			if report == nil {
				return err
			}
			if wrong := report.WriteJSON(out); wrong != nil {
				err = errors.Join(err, fmt.Errorf("write the report: %w", wrong))
			}
			return errors.Join(err, report.Print(cmd.OutOrStdout()), report.Err())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.Cluster, "cluster", "demo", "name of the local cluster; one that is there is removed first")
	flags.StringVar(&opts.Root, "root", ".", "root of the source tree, where manifests/ and cmd/ are")
	flags.StringVar(&opts.CacheDir, "cache", "", "directory for built programs and images (default: the user's cache directory)")
	flags.StringVar(&opts.DataDir, "data", os.Getenv("SPOTBENCH_DATA"), "reference data whose bench-results are imported too, if there (env SPOTBENCH_DATA)")
	flags.StringVar(&out, "out", "_out/demo.json", "where the measured report goes")
	flags.BoolVar(&opts.Workflows, "workflows", false, "install Argo Workflows and the benchmark pipeline too (minutes more the first time)")
	flags.BoolVar(&opts.Complete, "complete", false, "install the whole platform: PostgreSQL, Redis, monitoring, enforced network policies (minutes more the first time)")
	flags.DurationVar(&opts.Notice, "notice", demo.DefaultNotice, "time between the spot notice and the machine's end (AWS: 2m)")
	flags.BoolVar(&installOnly, "install-only", false, "start the cluster and install Spotbench, and submit no benchmark")
	return cmd
}

// install leaves a cluster with Spotbench on it, for benchmarks of one's own.
func install(ctx context.Context, opts demo.Options) error {
	if err := opts.Validate(); err != nil {
		return err
	}
	stage, err := demo.Prepare(ctx, opts)
	if err != nil {
		return err
	}
	stage.KeepsRunning()
	_, err = fmt.Fprintf(opts.Output, "Catalog: %s\n", stage.CatalogURL)
	return err
}
