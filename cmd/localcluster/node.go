// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/spotbench/spotbench/pkg/localcluster"
)

// nodeCommand is a command that does one thing to one node.
func nodeCommand(open opener, use, short string, do func(*localcluster.Cluster, context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " NODE", Short: short, Args: cobra.ExactArgs(1),
		RunE: open(func(cmd *cobra.Command, c *localcluster.Cluster, args []string) error {
			return do(c, cmd.Context(), args[0])
		}),
	}
}
