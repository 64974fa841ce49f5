// SPDX-License-Identifier: Apache-2.0

// Demo runs Spotbench's main job on the local cluster, end to end, and shows it.
package main

import (
	"context"
	"fmt"
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
			report, err := demo.Run(cmd.Context(), opts)
			if err != nil {
				return err
			}
			if err := report.WriteJSON(out); err != nil {
				return fmt.Errorf("write the report: %w", err)
			}
			if err := report.Print(cmd.OutOrStdout()); err != nil {
				return err
			}
			return report.Err()
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.Cluster, "cluster", "demo", "name of the local cluster")
	flags.StringVar(&opts.Root, "root", ".", "root of the source tree, where manifests/ and cmd/ are")
	flags.StringVar(&opts.CacheDir, "cache", "", "directory for built programs and images (default: the user's cache directory)")
	flags.StringVar(&opts.DataDir, "data", os.Getenv("SPOTBENCH_DATA"), "reference data whose bench-results are imported too, if there (env SPOTBENCH_DATA)")
	flags.StringVar(&out, "out", "_out/demo.json", "where the measured report goes")
	flags.DurationVar(&opts.Notice, "notice", demo.DefaultNotice, "time between the spot notice and the machine's end (AWS: 2m)")
	return cmd
}
