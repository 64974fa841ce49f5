// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/client"
	"github.com/spotbench/spotbench/pkg/catalog/compare"
	"github.com/spotbench/spotbench/pkg/catalog/filter"
)

// column is one column of a table; wide ones are left out unless asked for.
type column[T any] struct {
	head string
	wide bool
	of   func(T) string
}

// listCommand is a command that asks for one page and shows it.
func listCommand[T any, F any](config *genericclioptions.ConfigFlags, streams genericiooptions.IOStreams, cmd *cobra.Command, by *F,
	ask func(context.Context, *client.Client, F) (catalog.Page[T], error), columns []column[T],
) *cobra.Command {
	var where catalogFlags
	var output string
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkListOutput(output); err != nil {
			return err
		}
		setNamespace(by, config)
		c, err := where.connect(config)
		if err != nil {
			return err
		}
		page, err := ask(cmd.Context(), c, *by)
		if err != nil {
			return err
		}
		if err := show(streams.Out, output, page, page.Items, columns); err != nil {
			return err
		}
		if page.NextPageToken != "" && output != "json" && output != "yaml" {
			fmt.Fprintf(streams.ErrOut, "There are more: --page-token %s\n", page.NextPageToken)
		}
		return nil
	}
	where.add(cmd.Flags())
	addFilter(cmd, by)
	cmd.Flags().StringVarP(&output, "output", "o", "", "wide, json, yaml or csv instead of a table")
	return cmd
}

// show writes items in the format asked for. A CSV has all columns.
func show[T any](w io.Writer, output string, value any, items []T, columns []column[T]) error {
	if output == "json" || output == "yaml" {
		return write(w, output, value, nil)
	}
	var rows [][]string
	for n := -1; n < len(items); n++ {
		var row []string
		for _, c := range columns {
			switch {
			case c.wide && output == "":
			case n < 0:
				row = append(row, c.head)
			default:
				row = append(row, c.of(items[n]))
			}
		}
		rows = append(rows, row)
	}
	if output == "csv" {
		for n := range rows[0] {
			rows[0][n] = strings.ToLower(strings.NewReplacer(" ", "_", "/", "_per_", "(", "", ")", "").Replace(rows[0][n]))
		}
		return csv.NewWriter(w).WriteAll(rows)
	}
	if len(items) == 0 {
		_, err := fmt.Fprintln(w, "Nothing matches.")
		return err
	}
	return align(w, rows)
}

func align(w io.Writer, rows [][]string) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for n, cell := range row {
			if cell == "" {
				row[n] = "-"
			}
		}
		fmt.Fprintln(table, strings.Join(row, "\t"))
	}
	return table.Flush()
}

func float(v *float64) string {
	if v == nil {
		return ""
	}
	return strconv.FormatFloat(*v, 'g', 4, 64)
}

func gpus(r catalog.Run) string {
	if r.GPUModel == "" || r.GPUCount == 0 {
		return r.GPUModel
	}
	return strconv.Itoa(r.GPUCount) + "x " + r.GPUModel
}

func started(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func runsCommand(config *genericclioptions.ConfigFlags, streams genericiooptions.IOStreams) *cobra.Command {
	cmd := &cobra.Command{Use: "runs", Short: "Benchmark runs with their cost and verdict, the newest first",
		Example: "  kubectl spotbench runs --verdict valid --gpu-model H100-80GB\n  kubectl spotbench runs --since 2026-11-01 -o csv"}
	type run = catalog.Summary
	return listCommand(config, streams, cmd, &filter.RunList{}, func(ctx context.Context, c *client.Client, f filter.RunList) (catalog.Page[run], error) {
		return c.ListRuns(ctx, f)
	}, []column[run]{
		{"RUN", false, func(r run) string { return r.Key }},
		{"MODEL", false, func(r run) string { return r.Model }},
		{"BENCHMARK", false, func(r run) string { return r.Benchmark }},
		{"GPUS", false, func(r run) string { return gpus(r.Run) }},
		{"STATUS", false, func(r run) string { return string(r.Status) }},
		{"VERDICT", false, func(r run) string { return string(r.Validity.Verdict) }},
		{"INTERRUPTIONS", false, func(r run) string { return strconv.Itoa(r.InterruptionCount) }},
		{"COST USD", false, func(r run) string { return known(r.CostUSD, r.CostKnown) }},
		{"USD/M TOKENS", false, func(r run) string { return float(r.Economics.USDPerMillionOutputTokens) }},
		{"STARTED", true, func(r run) string { return started(r.StartedAt) }},
		{"SECONDS", true, func(r run) string { return known(r.DurationSeconds, r.DurationSeconds > 0) }},
		{"KWH/M TOKENS", true, func(r run) string { return float(r.Economics.KWhPerMillionOutputTokens) }},
		{"ENGINE", true, func(r run) string { return strings.TrimSpace(r.Engine + " " + r.EngineVersion) }},
		{"DRIVER", true, func(r run) string { return r.DriverVersion }},
		{"CAPACITY", true, func(r run) string { return r.CapacityType }},
		{"INSTANCE TYPE", true, func(r run) string { return r.InstanceType }},
		{"NODES", true, func(r run) string { return strings.Join(r.Nodes, ",") }},
		{"REASONS", true, func(r run) string {
			var codes []string
			for _, reason := range r.Validity.Reasons {
				codes = append(codes, reason.Code)
			}
			return strings.Join(codes, ",")
		}},
	})
}

func known(v float64, is bool) string {
	if !is {
		return ""
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

func resultsCommand(config *genericclioptions.ConfigFlags, streams genericiooptions.IOStreams) *cobra.Command {
	cmd := &cobra.Command{Use: "results", Short: "Measured points, those of the newest import first",
		Example: "  kubectl spotbench results --run lab/llama-8b-h100\n  kubectl spotbench results --model meta-llama/Llama-3.1-8B-Instruct --concurrency 16 -o csv"}
	type result = catalog.Result
	latency := func(l *catalog.Latency, of func(catalog.Latency) *float64) string {
		if l == nil {
			return ""
		}
		return float(of(*l))
	}
	median, p99 := func(l catalog.Latency) *float64 { return l.MedianMs }, func(l catalog.Latency) *float64 { return l.P99Ms }
	return listCommand(config, streams, cmd, &filter.ResultList{}, func(ctx context.Context, c *client.Client, f filter.ResultList) (catalog.Page[result], error) {
		return c.ListResults(ctx, f)
	}, []column[result]{
		{"RUN", false, func(r result) string { return r.RunKey }},
		{"MODEL", false, func(r result) string { return r.Model }},
		{"CONCURRENCY", false, func(r result) string {
			if r.Concurrency == nil {
				return ""
			}
			return strconv.FormatInt(*r.Concurrency, 10)
		}},
		{"RATE/S", true, func(r result) string { return float(r.RequestRate) }},
		{"REQUESTS", false, func(r result) string {
			if !r.States("completed") {
				return ""
			}
			return strconv.FormatInt(r.Completed, 10)
		}},
		{"FAILED", true, func(r result) string { return strconv.FormatInt(r.Failed, 10) }},
		{"TOKENS/S", false, func(r result) string { return float(r.OutputThroughput) }},
		{"REQUESTS/S", true, func(r result) string { return float(r.RequestThroughput) }},
		{"TTFT MEDIAN MS", false, func(r result) string { return latency(r.TTFT, median) }},
		{"TTFT P99 MS", false, func(r result) string { return latency(r.TTFT, p99) }},
		{"TPOT MEDIAN MS", false, func(r result) string { return latency(r.TPOT, median) }},
		{"TPOT P99 MS", true, func(r result) string { return latency(r.TPOT, p99) }},
		{"ITL MEDIAN MS", true, func(r result) string { return latency(r.ITL, median) }},
		{"E2EL MEDIAN MS", true, func(r result) string { return latency(r.E2EL, median) }},
		{"E2EL P99 MS", true, func(r result) string { return latency(r.E2EL, p99) }},
		{"FORMAT", true, func(r result) string { return r.Format }},
		{"FILE", true, func(r result) string { return r.File }},
	})
}

func modelsCommand(config *genericclioptions.ConfigFlags, streams genericiooptions.IOStreams) *cobra.Command {
	cmd := &cobra.Command{Use: "models", Short: "Models that have runs"}
	return listCommand(config, streams, cmd, &struct{}{}, func(ctx context.Context, c *client.Client, _ struct{}) (catalog.Page[catalog.Model], error) {
		models, err := c.ListModels(ctx)
		return catalog.Page[catalog.Model]{Items: models}, err
	}, []column[catalog.Model]{
		{"MODEL", false, func(m catalog.Model) string { return m.Name }},
		{"GPUS", false, func(m catalog.Model) string { return strings.Join(m.GPUModels, ",") }},
		{"RUNS", false, func(m catalog.Model) string { return strconv.Itoa(m.Runs) }},
		{"RESULTS", false, func(m catalog.Model) string { return strconv.Itoa(m.Results) }},
		{"NEWEST RUN", false, func(m catalog.Model) string { return started(m.LastRunAt) }},
	})
}

func compareCommand(config *genericclioptions.ConfigFlags, streams genericiooptions.IOStreams) *cobra.Command {
	var where catalogFlags
	var output string
	var by filter.Comparison
	cmd := &cobra.Command{
		Use:   "compare [RUN...]",
		Short: "Two to eight runs or configurations beside each other, with what is significant",
		Long: `Runs, or configurations of runs, at the same load: the median over the runs with
its 95 % interval, and the difference to the first (or --base). A difference is
told only where so many runs can show it; ~ is none, ? is too few runs to tell.`,
		Example: `  kubectl spotbench compare lab/a lab/b
  kubectl spotbench compare --model meta-llama/Llama-3.1-8B-Instruct --by gpuModel
  kubectl spotbench compare --gpu-model H100-80GB --by engineVersion -o csv`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkListOutput(output); err != nil {
				return err
			}
			by.Run = append(by.Run, args...)
			setNamespace(&by, config)
			c, err := where.connect(config)
			if err != nil {
				return err
			}
			report, err := c.Compare(cmd.Context(), by)
			if err != nil {
				return err
			}
			switch output {
			case "json", "yaml":
				return write(streams.Out, output, report, nil)
			case "csv":
				return compareCSV(streams.Out, report)
			}
			return compareTable(streams.Out, report, output == "wide")
		},
	}
	where.add(cmd.Flags())
	addFilter(cmd, &by)
	cmd.Flags().StringVarP(&output, "output", "o", "", "wide, json, yaml or csv instead of a table")
	return cmd
}

// mainMetrics are those of the table; wide has all.
var mainMetrics = map[string]bool{"outputThroughput": true, "ttftMedianMs": true, "ttftP99Ms": true, "tpotMedianMs": true, "e2elP99Ms": true, "usdPerMillionOutputTokens": true}

func compareTable(w io.Writer, r compare.Report, wide bool) error {
	for n, c := range r.Configurations {
		base := ""
		if n == 0 {
			base = ", base"
		}
		fmt.Fprintf(w, "%c: %s (%d runs%s)\n", 'A'+n, c.Name, len(c.Runs), base)
	}
	rows := [][]string{{"LOAD", "METRIC", "UNIT"}}
	for n := range r.Configurations {
		rows[0] = append(rows[0], string(rune('A'+n)))
		if n > 0 {
			rows[0] = append(rows[0], "TO A")
		}
	}
	for _, line := range r.Lines {
		if !wide && !mainMetrics[line.Metric] {
			continue
		}
		row := []string{strings.TrimSpace(line.Load.Benchmark + " " + line.Load.String()), line.Title, line.Unit}
		for _, cell := range line.Cells {
			row = append(row, sample(cell.Sample))
			if cell.ToBase != nil {
				row = append(row, difference(*cell.ToBase))
			}
		}
		rows = append(rows, row)
	}
	fmt.Fprintln(w)
	if err := align(w, rows); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nMedian [95 %% interval] n=runs. A difference has p < %g; ~: not shown; ?: too few runs to tell.\n", r.Alpha)
	for _, note := range r.Notes {
		fmt.Fprintln(w, note)
	}
	return nil
}

func sample(s compare.Sample) string {
	if s.Median == nil {
		return ""
	}
	interval := "[?]"
	if s.Low != nil && s.High != nil {
		interval = "[" + float(s.Low) + ", " + float(s.High) + "]"
	}
	return fmt.Sprintf("%s %s n=%d", float(s.Median), interval, s.N)
}

func difference(d compare.Difference) string {
	switch {
	case d.Effect == compare.Unproven && d.P != nil:
		return fmt.Sprintf("~ (p=%.3f)", *d.P)
	case d.Effect == compare.Untested || d.DeltaPercent == nil || d.P == nil:
		return "?"
	}
	return fmt.Sprintf("%+.1f %% %s (p=%.3f)", *d.DeltaPercent, d.Effect, *d.P)
}

func compareCSV(w io.Writer, r compare.Report) error {
	rows := [][]string{{"benchmark", "load", "metric", "unit", "configuration", "n", "median", "low", "high", "delta_percent", "p", "effect"}}
	exact := func(v *float64) string {
		if v == nil {
			return ""
		}
		return strconv.FormatFloat(*v, 'g', -1, 64)
	}
	for _, line := range r.Lines {
		for n, cell := range line.Cells {
			row := []string{line.Load.Benchmark, line.Load.String(), line.Metric, line.Unit, r.Configurations[n].Name, strconv.Itoa(cell.N), exact(cell.Median), exact(cell.Low), exact(cell.High), "", "", ""}
			if d := cell.ToBase; d != nil {
				row[9], row[10], row[11] = exact(d.DeltaPercent), exact(d.P), string(d.Effect)
			}
			rows = append(rows, row)
		}
	}
	return csv.NewWriter(w).WriteAll(rows)
}
