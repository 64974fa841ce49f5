// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/spotbench/spotbench/pkg/checkpoint"
)

// inspection is what the subcommands of checkpoints share.
type inspection struct {
	store  storeFlags
	output string
	open   checkpoint.Options // beyond the store's flags
}

func checkpointsCommand() *cobra.Command {
	var i inspection
	cmd := &cobra.Command{
		Use: "checkpoints", Short: "Look at the checkpoints of runs, restore them and remove old ones",
		Args: cobra.NoArgs,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if i.output != "table" && i.output != "json" {
				return fmt.Errorf("--output %q: use table or json", i.output)
			}
			return fromEnvironment(cmd.Flags())
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	i.store.add(cmd.PersistentFlags())
	cmd.PersistentFlags().StringVarP(&i.output, "output", "o", "table", "table or json")
	cmd.AddCommand(i.listCommand(), i.verifyCommand(), i.restoreCommand(), i.gcCommand())
	return cmd
}

// with opens the store for as long as do needs it.
func (i *inspection) with(ctx context.Context, do func(*checkpoint.Store) error) error {
	store, err := i.store.open(ctx, i.open)
	if err != nil {
		return err
	}
	return errors.Join(do(store), store.Close())
}

// generationView is a line of list and of verify.
type generationView struct {
	Run        string     `json:"run"`
	Generation int64      `json:"generation"`
	CreatedAt  *time.Time `json:"createdAt,omitempty"`
	Node       string     `json:"node,omitempty"`
	Notice     string     `json:"notice,omitempty"`
	Files      int        `json:"files"`
	Bytes      int64      `json:"bytes"`
	State      string     `json:"state"` // good, damaged or locked
	Error      string     `json:"error,omitempty"`
}

func viewOf(run string, info checkpoint.Info) generationView {
	v := generationView{Run: run, Generation: info.Number, Node: info.Meta["node"], Notice: info.Meta["notice"], Files: info.Files, Bytes: info.Bytes}
	if !info.CreatedAt.IsZero() {
		at := info.CreatedAt.UTC()
		v.CreatedAt = &at
	}
	v.judge(info.Err)
	return v
}

func (v *generationView) judge(err error) {
	switch {
	case err == nil:
		v.State, v.Error = "good", ""
	case errors.Is(err, checkpoint.ErrKey):
		v.State, v.Error = "locked", err.Error()
	default:
		v.State, v.Error = "damaged", err.Error()
	}
}

func (i *inspection) print(w io.Writer, views []generationView) error {
	if i.output == "json" {
		return writeJSON(w, views)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "RUN\tGENERATION\tCREATED\tNODE\tFILES\tSIZE\tNOTICE\tSTATE")
	for _, v := range views {
		created, files, bytes := "-", "-", "-"
		if v.CreatedAt != nil {
			created, files, bytes = v.CreatedAt.Format(time.RFC3339), strconv.Itoa(v.Files), size(v.Bytes)
		}
		state := v.State
		if v.Error != "" {
			state += ": " + v.Error
		}
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", v.Run, v.Generation, created, dash(v.Node), files, bytes, dash(v.Notice), state)
	}
	return table.Flush()
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// size is a number of bytes for people.
func size(bytes int64) string {
	const units = "KMGTPE"
	if bytes < 1024 {
		return fmt.Sprintf("%d B", bytes)
	}
	value, unit := float64(bytes)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

func (i *inspection) listCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list [RUN]", Short: "List the checkpoints of a run, or of all runs, newest first",
		Example: `  node-agent checkpoints list --store file:///srv/checkpoints
  node-agent checkpoints list gpu-workloads/qwen-1a2b3c4d -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return i.with(cmd.Context(), func(store *checkpoint.Store) error {
				runs := args
				if len(runs) == 0 {
					var err error
					if runs, err = store.Runs(cmd.Context()); err != nil {
						return err
					}
				}
				views := []generationView{}
				for _, run := range runs {
					infos, err := store.List(cmd.Context(), run)
					if err != nil {
						return err
					}
					for _, info := range infos {
						views = append(views, viewOf(run, info))
					}
				}
				return i.print(cmd.OutOrStdout(), views)
			})
		},
	}
}

func (i *inspection) verifyCommand() *cobra.Command {
	var generation int64
	cmd := &cobra.Command{
		Use: "verify RUN", Short: "Read every byte of a run's checkpoints and check the digests",
		Long: `verify reads every chunk of a run's checkpoints and checks its digest. It ends with
an error if one of them could not be restored, and says which file of it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			run := args[0]
			return i.with(cmd.Context(), func(store *checkpoint.Store) error {
				infos, err := store.List(cmd.Context(), run)
				if err != nil {
					return err
				}
				views, bad := []generationView{}, []string{}
				for _, info := range infos {
					if generation != 0 && info.Number != generation {
						continue
					}
					if info.Err == nil {
						info.Err = store.Verify(cmd.Context(), run, info.Number)
					}
					if info.Err != nil {
						if cmd.Context().Err() != nil {
							return info.Err
						}
						bad = append(bad, strconv.FormatInt(info.Number, 10))
					}
					views = append(views, viewOf(run, info))
				}
				if len(views) == 0 && generation != 0 {
					return fmt.Errorf("run %s has no checkpoint %d; see: node-agent checkpoints list %s", run, generation, run)
				}
				if len(views) == 0 {
					return fmt.Errorf("run %s has no checkpoint; see: node-agent checkpoints list", run)
				}
				if err := i.print(cmd.OutOrStdout(), views); err != nil {
					return err
				}
				if len(bad) > 0 {
					return fmt.Errorf("%d of %d checkpoints of %s cannot be restored: %s", len(bad), len(views), run, strings.Join(bad, ", "))
				}
				return nil
			})
		},
	}
	cmd.Flags().Int64Var(&generation, "generation", 0, "only this one")
	return cmd
}

// restoredView is what restore says.
type restoredView struct {
	Run        string           `json:"run"`
	Path       string           `json:"path"`
	Generation int64            `json:"generation"`
	CreatedAt  time.Time        `json:"createdAt"`
	Node       string           `json:"node,omitempty"`
	Files      int              `json:"files"`
	Bytes      int64            `json:"bytes"`
	Damaged    map[int64]string `json:"damaged,omitempty"` // newer generations, and why they cannot be used
}

func (i *inspection) restoreCommand() *cobra.Command {
	var path string
	var generation int64
	cmd := &cobra.Command{
		Use: "restore RUN --path DIR", Short: "Write a checkpoint of a run into a directory",
		Long: `restore writes the newest whole checkpoint of a run, or the one of --generation, into
a directory that exists. What has the same names there is replaced, once all is
fetched and right. A damaged checkpoint is passed over for the one before it, and
named. A pod that is running meanwhile is not disturbed.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if path == "" {
				return errors.New("--path is missing; give the directory to restore into")
			}
			run := args[0]
			return i.with(cmd.Context(), func(store *checkpoint.Store) error {
				restored, found, err := store.Restore(cmd.Context(), run, path, checkpoint.RestoreOptions{Generation: generation})
				if err != nil {
					return err
				}
				if !found {
					return fmt.Errorf("run %s has no checkpoint; see: node-agent checkpoints list", run)
				}
				view := restoredView{Run: run, Path: path, Generation: restored.Number, CreatedAt: restored.CreatedAt.UTC(), Node: restored.Meta["node"],
					Files: restored.Files, Bytes: restored.Bytes, Damaged: map[int64]string{}}
				for n, number := range restored.Damaged {
					view.Damaged[number] = restored.Reasons[n].Error()
				}
				if i.output == "json" {
					return writeJSON(cmd.OutOrStdout(), view)
				}
				for n, number := range restored.Damaged {
					fmt.Fprintf(cmd.OutOrStdout(), "checkpoint %d is passed over: %v\n", number, restored.Reasons[n])
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "checkpoint %d of %s, made %s, is in %s: %d files, %s\n",
					view.Generation, run, view.CreatedAt.Format(time.RFC3339), path, view.Files, size(view.Bytes))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&path, "path", "", "the directory to restore into")
	cmd.Flags().Int64Var(&generation, "generation", 0, "the checkpoint to restore (default: the newest that is whole)")
	return cmd
}

// prunedView is a line of gc.
type prunedView struct {
	Run         string  `json:"run"`
	Generations []int64 `json:"generations"`
	Chunks      int     `json:"chunks"`
	Bytes       int64   `json:"bytes"`
	DryRun      bool    `json:"dryRun"`
}

func (i *inspection) gcCommand() *cobra.Command {
	var all, dryRun bool
	cmd := &cobra.Command{
		Use: "gc [RUN]", Short: "Remove old checkpoints and what none needs any more",
		Long: `gc removes the checkpoints of a run beyond --keep and, except the newest, those older
than --max-age, and then the stored data that no checkpoint needs. It is safe
beside running agents. Data is removed some time after the checkpoint that needed it
(10 minutes, and at the earliest 3 hours after it was stored): run gc again then.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) == 1) {
				return errors.New("name a run, or give --all for every run in the store")
			}
			if i.open.Keep < 1 {
				return fmt.Errorf("--keep %d: keep at least 1 checkpoint", i.open.Keep)
			}
			return i.with(cmd.Context(), func(store *checkpoint.Store) error {
				runs := args
				if all {
					var err error
					if runs, err = store.Runs(cmd.Context()); err != nil {
						return err
					}
				}
				views := []prunedView{}
				for _, run := range runs {
					pruned, err := store.Prune(cmd.Context(), run, dryRun)
					if err != nil {
						return err
					}
					views = append(views, prunedView{Run: run, Generations: append([]int64{}, pruned.Generations...), Chunks: pruned.Chunks, Bytes: pruned.Bytes, DryRun: dryRun})
				}
				return i.printPruned(cmd.OutOrStdout(), views)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every run in the store")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be removed, and remove nothing")
	cmd.Flags().IntVar(&i.open.Keep, "keep", checkpoint.DefaultKeep, "checkpoints to keep of each run")
	cmd.Flags().DurationVar(&i.open.MaxAge, "max-age", 0, "age at which checkpoints are removed, except the newest of a run (0: none)")
	return cmd
}

func (i *inspection) printPruned(w io.Writer, views []prunedView) error {
	if i.output == "json" {
		return writeJSON(w, views)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "RUN\tGENERATIONS REMOVED\tCHUNKS REMOVED\tSIZE")
	for _, v := range views {
		numbers := make([]string, len(v.Generations))
		for n, g := range v.Generations {
			numbers[n] = strconv.FormatInt(g, 10)
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", v.Run, dash(strings.Join(numbers, ",")), v.Chunks, size(v.Bytes))
	}
	return table.Flush()
}
