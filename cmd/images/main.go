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
	root.AddCommand(build, pushCommand())
	return root
}

func pushCommand() *cobra.Command {
	o := images.PushOptions{Version: version.Release()}
	cmd := &cobra.Command{
		Use: "push --registry REGISTRY", Short: "Compile the programs and push an index of every image, with bills of materials", Args: cobra.NoArgs,
		Long: `Compile the programs for every architecture and push each image as an index, with a bill
of materials (CycloneDX) for each architecture that refers to its image. Prints the
references by digest, for signing and deploying. Credentials are those of docker login.
The same sources give the same digests.`,
		Example: "  images push --registry registry.example.com/spotbench --tag v0.1.0\n  images push --registry localhost:5000/spotbench --only scheduler --arch amd64",
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Progress = cmd.ErrOrStderr()
			digests, err := images.Push(cmd.Context(), o)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), strings.Join(digests, "\n"))
			return nil
		},
	}
	cmd.Flags().StringVar(&o.Registry, "registry", "", "registry and the path in it before the images' names")
	cmd.Flags().StringVar(&o.Tag, "tag", version.Release(), "tag of every image")
	cmd.Flags().StringVar(&o.Source, "source", ".", "root of Spotbench's source tree")
	cmd.Flags().StringSliceVar(&o.Only, "only", nil, "only these images (default all)")
	cmd.Flags().StringSliceVar(&o.Architectures, "arch", images.Architectures, "architectures")
	cobra.CheckErr(cmd.MarkFlagRequired("registry"))
	return cmd
}
