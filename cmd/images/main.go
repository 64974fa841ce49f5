// SPDX-License-Identifier: Apache-2.0

// Command images builds Spotbench's container images without a container engine.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/spotbench/spotbench/pkg/images"
	"github.com/spotbench/spotbench/pkg/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := newCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use: "images", Short: "Build Spotbench's container images, without a container engine",
		Version: version.String(), SilenceUsage: true, SilenceErrors: true,
	}
	o := images.Options{Version: version.Release()}
	build := &cobra.Command{
		Use: "build", Short: "Compile the programs and write NAME.tar (docker-archive) each", Args: cobra.NoArgs,
		Long:    "Compile the programs and write NAME.tar (docker-archive) each.\n\nImages: " + strings.Join(images.Names(), ", ") + ". The same sources give the same bytes.",
		Example: "  images build --out _out/images\n  images build --out _out/images --only scheduler,node-agent",
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Progress = cmd.ErrOrStderr()
			tars, err := images.Build(cmd.Context(), o)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), strings.Join(tars, "\n"))
			return nil
		},
	}
	build.Flags().StringVar(&o.Out, "out", "_out/images", "directory for the tars")
	build.Flags().StringVar(&o.Source, "source", ".", "root of Spotbench's source tree")
	build.Flags().StringSliceVar(&o.Only, "only", nil, "only these images (default all)")
	root.AddCommand(build)
	return root
}
