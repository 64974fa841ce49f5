// SPDX-License-Identifier: Apache-2.0

// Command node-agent is Spotbench's control loop on a GPU node, and the tool that
// pods and people use with it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/spotbench/spotbench/pkg/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "node-agent:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	run := runCommand()
	root := &cobra.Command{
		Use:   "node-agent",
		Short: "Save benchmarks when the cloud takes their node, and record how their GPUs did",
		Long: `node-agent runs on every GPU node. It hears the cloud's termination notice,
taints the node, checkpoints the benchmark pods to the checkpoint store, evicts
them, and restores them where they start again. It imports their results into the
catalog and samples their GPUs.

Without a subcommand it does what "node-agent run" does. Every flag has an
environment variable: SPOTBENCH_ and its name in capitals, - as _.`,
		Version:       version.String(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          run.RunE,
	}
	root.Flags().AddFlagSet(run.Flags())
	root.AddCommand(run, restoreCommand(), checkpointsCommand())
	return root
}
