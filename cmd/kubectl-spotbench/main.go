// SPDX-License-Identifier: Apache-2.0

// Command kubectl-spotbench is a kubectl plugin: kubectl spotbench …
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/spotbench/spotbench/pkg/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := command(genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}).ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func command(streams genericiooptions.IOStreams) *cobra.Command {
	root := &cobra.Command{
		Use:           "kubectl-spotbench",
		Short:         "Ask Spotbench why pods run where they run, what they measured, and what that saved",
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl spotbench"},
	}
	config := genericclioptions.NewConfigFlags(true)
	config.AddFlags(root.PersistentFlags())
	root.AddCommand(runsCommand(config, streams), resultsCommand(config, streams), modelsCommand(config, streams), compareCommand(config, streams),
		explainCommand(config, streams), simulateCommand(config, streams), replayCommand(streams), renderCommand(streams), snapshotCommand(config, streams), savingsCommand(config, streams), pricesCommand(config, streams), hazardsCommand(streams))
	return root
}
