// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

func checkpointsCommand() *cobra.Command {
	var url string
	cmd := &cobra.Command{Use: "checkpoints", Short: "Look at the checkpoints of a run"}
	cmd.PersistentFlags().StringVar(&url, "store", "", "checkpoint store: s3://… or file:///… (required)")
	// look opens the store for as long as show needs it, with the run's checkpoints.
	look := func(cmd *cobra.Command, run string, show func(*checkpoint.Store, []checkpoint.Info) error) error {
		if url == "" {
			return errors.New("--store is missing; give the store that the agents use, for example s3://checkpoints?region=us-east-1")
		}
		store, err := checkpoint.Open(cmd.Context(), url, checkpoint.DefaultKeep)
		if err != nil {
			return err
		}
		defer store.Close()
		infos, err := store.List(cmd.Context(), run)
		if err != nil {
			return err
		}
		return show(store, infos)
	}
	list := &cobra.Command{
		Use: "list RUN", Short: "List the checkpoints of a run, newest first", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return look(cmd, args[0], func(_ *checkpoint.Store, infos []checkpoint.Info) error {
				table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(table, "GENERATION\tCREATED\tNODE\tFILES\tBYTES\tNOTICE\tSTATE")
				for _, i := range infos {
					state := "good"
					if i.Err != nil {
						state = i.Err.Error()
					}
					fmt.Fprintf(table, "%d\t%s\t%s\t%d\t%d\t%s\t%s\n", i.Number, i.CreatedAt.UTC().Format(time.RFC3339), i.Meta["node"], i.Files, i.Bytes, i.Meta["notice"], state)
				}
				return table.Flush()
			})
		},
	}
	var generation int64
	verify := &cobra.Command{
		Use: "verify RUN", Short: "Read every byte of a run's checkpoints and check the digests", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return look(cmd, args[0], func(store *checkpoint.Store, infos []checkpoint.Info) error {
				checked := 0
				var errs []error
				for _, i := range infos {
					if generation != 0 && i.Number != generation {
						continue
					}
					checked++
					if err := store.Verify(cmd.Context(), args[0], i.Number); err != nil {
						errs = append(errs, fmt.Errorf("generation %d: %w", i.Number, err))
						continue
					}
					fmt.Fprintf(cmd.OutOrStdout(), "generation %d is good\n", i.Number)
				}
				if checked == 0 {
					return fmt.Errorf("run %s has no such checkpoint", args[0])
				}
				return errors.Join(errs...)
			})
		},
	}
	verify.Flags().Int64Var(&generation, "generation", 0, "only this one")
	cmd.AddCommand(list, verify)
	return cmd
}
