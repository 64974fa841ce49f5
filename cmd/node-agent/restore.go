// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/spotbench/spotbench/pkg/agent/rendezvous"
	"github.com/spotbench/spotbench/pkg/checkpoint"
)

func restoreCommand() *cobra.Command {
	var path, run string
	var store storeFlags
	var generation int64
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "restore --path DIR",
		Short: "Wait until this pod's checkpoint is restored (for init containers)",
		Long: `restore returns when the checkpoint directory holds what the run had saved, and
prints what that was as one line of JSON. Run as a pod's init container it needs
nothing but the volume: the node's agent restores into it and says so in
DIR/.spotbench/restore.json.

With --store and --run it restores by itself, for clusters without the agent.`,
		Example: `  node-agent restore --path /checkpoint --timeout 5m
  node-agent restore --path ./checkpoint --store file:///srv/checkpoints --run gpu-workloads/qwen-1a2b3c4d`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case path == "":
				return errors.New("--path is missing; give the directory that the annotation spotbench.dev/checkpoint-path names")
			case timeout <= 0:
				return fmt.Errorf("--timeout %s: give a positive duration such as 5m", timeout)
			case generation < 0:
				return fmt.Errorf("--generation %d: give the number of a checkpoint, or 0 for the newest", generation)
			case generation != 0 && store.url == "":
				return errors.New("--generation needs --store and --run; the node's agent restores the newest")
			case (store.url == "") != (run == ""):
				return errors.New("--store and --run belong together; give both, or neither to have the node's agent restore")
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			restore := func() (rendezvous.Outcome, error) { return rendezvous.Wait(ctx, path) }
			if store.url != "" {
				restore = func() (rendezvous.Outcome, error) { return restoreHere(ctx, store, run, path, generation) }
			}
			outcome, err := restore()
			if err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(outcome)
		},
	}
	cmd.Flags().StringVar(&path, "path", "", "the checkpoint directory")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "give up after this time")
	store.add(cmd.Flags())
	cmd.Flags().Int64Var(&generation, "generation", 0, "the checkpoint to restore (default: the newest that is whole)")
	cmd.Flags().StringVar(&run, "run", "", "the run to restore: NAMESPACE/NAME")
	return cmd
}

func restoreHere(ctx context.Context, flags storeFlags, run, path string, generation int64) (rendezvous.Outcome, error) {
	store, err := flags.open(ctx, checkpoint.Options{})
	if err != nil {
		return rendezvous.Outcome{}, err
	}
	defer store.Close()
	restored, found, err := store.Restore(ctx, run, path, checkpoint.RestoreOptions{Generation: generation})
	return rendezvous.Outcome{Restored: found, Generation: restored.Number, Files: restored.Files, Bytes: restored.Bytes,
		FromNode: restored.Meta["node"], Damaged: restored.Damaged}, err
}
