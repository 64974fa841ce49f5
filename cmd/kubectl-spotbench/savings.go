// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/catalog"
)

func savingsCommand(config *genericclioptions.ConfigFlags, streams genericiooptions.IOStreams) *cobra.Command {
	var where catalogFlags
	var by, from, to, model, output string
	cmd := &cobra.Command{
		Use:   "savings",
		Short: "What was paid, what on demand would have cost, and what interruptions took",
		Long: `What was paid, what the same work costs on demand, the most that the spot
discount allows to save, and the work that interruptions made necessary twice.
With --namespace only that namespace's runs count.`,
		Example: `  kubectl spotbench savings
  kubectl spotbench savings --by month --from 2026-01-01
  kubectl spotbench savings --by pool --namespace gpu-workloads -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := catalog.SavingsQuery{By: catalog.SavingsBy(by), Model: model, Namespace: *config.Namespace}
			var err error
			if q.From, err = moment("--from", from); err != nil {
				return err
			}
			if q.To, err = moment("--to", to); err != nil {
				return err
			}
			if err := q.Validate(); err != nil {
				return err
			}
			c, err := where.connect(config)
			if err != nil {
				return err
			}
			report, err := c.Savings(cmd.Context(), q)
			if err != nil {
				return err
			}
			return write(streams.Out, output, report, func(w io.Writer) error { return savingsTable(w, report) })
		},
	}
	where.add(cmd.Flags())
	cmd.Flags().StringVar(&by, "by", "model", "what the lines stand for: model, pool, namespace, month or run")
	cmd.Flags().StringVar(&from, "from", "", "only what was spent from this day (2026-01-31) or time (RFC 3339) on")
	cmd.Flags().StringVar(&to, "to", "", "only what was spent before this day or time")
	cmd.Flags().StringVar(&model, "model", "", "only runs of this model")
	outputFlag(cmd.Flags(), &output)
	return cmd
}

// moment reads a day or a time, "" as none.
func moment(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s %q is neither a day nor a time; write for example 2026-01-31 or 2026-01-31T18:00:00Z", flag, text)
}

// write writes a value in the format asked for.
func write(w io.Writer, output string, value any, table func(io.Writer) error) error {
	switch output {
	case "json":
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(value)
	case "yaml":
		data, err := yaml.Marshal(value)
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	}
	if err := checkOutput(output); err != nil {
		return err
	}
	return table(w)
}

func savingsTable(w io.Writer, r catalog.SavingsReport) error {
	if len(r.Lines) == 0 {
		_, err := fmt.Fprintln(w, "No run spent anything in this time.")
		return err
	}
	r = r.InCents()
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "%s\tRUNS\tHOURS\tPAID\tON DEMAND\tSAVED\tAT MOST\tINTERRUPTIONS\tWORK LOST\n", map[catalog.SavingsBy]string{
		catalog.ByModel: "MODEL", catalog.ByPool: "POOL", catalog.ByNamespace: "NAMESPACE", catalog.ByMonth: "MONTH", catalog.ByRun: "RUN"}[r.By])
	for _, l := range append(r.Lines, total(r)) {
		fmt.Fprintf(table, "%s\t%d\t%.2f\t$%.2f\t$%.2f\t%s\t%s\t%d\t%s\n", orUnknown(l.Key), l.Runs, l.Hours, l.PaidUSD, l.OnDemandUSD,
			percent(l.SavedPercent, l), percent(l.BoundPercent, l), l.Interruptions, time.Duration(l.WorkLostSeconds*float64(time.Second)).Round(100*time.Millisecond))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	var notes []string
	if h := r.Total.UnpricedHours; h > 0 {
		notes = append(notes, fmt.Sprintf("%.2f of the hours have no price and are in no sum of money.", h))
	}
	if h := r.Total.UncomparedHours; h > 0 {
		notes = append(notes, fmt.Sprintf("%.2f of the hours have no on-demand price: $%.2f were paid for them, and are compared with nothing.", h, r.Total.PaidUSD-r.Total.ComparedUSD))
	}
	if len(notes) == 0 {
		return nil
	}
	_, err := fmt.Fprintln(w, "\n"+strings.Join(notes, "\n"))
	return err
}

func total(r catalog.SavingsReport) catalog.Savings {
	t := r.Total
	t.Key = "TOTAL"
	return t
}

func orUnknown(key string) string {
	if key == "" {
		return "(unknown)"
	}
	return key
}

func percent(p float64, of catalog.Savings) string {
	if of.OnDemandUSD == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", p)
}

func outputFlag(flags *pflag.FlagSet, output *string) {
	flags.StringVarP(output, "output", "o", "", "json or yaml instead of a table")
}

// checkOutput refuses a format before anything is asked for.
func checkOutput(output string) error {
	switch output {
	case "", "json", "yaml":
		return nil
	}
	return fmt.Errorf("--output %q is unknown; use json or yaml, or leave it out for a table", output)
}
