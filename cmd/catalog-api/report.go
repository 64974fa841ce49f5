// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/client"
)

// reading are the flags of commands that read one run.
type reading struct{ server, ca, run string }

func (r *reading) flags(f *pflag.FlagSet) {
	f.StringVar(&r.server, "server", env("CATALOG_URL", "https://localhost:8000"), "the catalog's address (env CATALOG_URL)")
	f.StringVar(&r.ca, "ca", os.Getenv("CATALOG_CA"), "CA that signed the catalog's certificate, PEM (env CATALOG_CA; without it, the system's)")
	f.StringVar(&r.run, "run", "", "key of the run, NAMESPACE/NAME")
}

func (r *reading) client() (*client.Client, error) {
	if !strings.Contains(r.run, "/") {
		return nil, fmt.Errorf("--run %q is no key; give NAMESPACE/NAME, for example gpu-workloads/nightly-7", r.run)
	}
	httpClient, err := client.Trusting(r.ca, time.Minute)
	if err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	return client.New(r.server, httpClient, nil)
}

// awaitCommand is for what follows a benchmark: its last records are on the way from a
// node's disk when its pod ends.
func awaitCommand() *cobra.Command {
	var r reading
	var results int
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:     "await --run KEY --results N",
		Short:   "Wait until the catalog has a run's end and its results",
		Example: "  catalog-api await --server http://catalog-web.model-catalog.svc:8001 --run gpu-workloads/nightly-7 --results 3",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if results < 1 {
				return fmt.Errorf("--results %d: give the number of results that the benchmark makes, at least 1", results)
			}
			c, err := r.client()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			run, err := await(ctx, c, r.run, results)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, %d results\n", run.Key, run.Status, len(run.Results))
			return nil
		},
	}
	r.flags(cmd.Flags())
	cmd.Flags().IntVar(&results, "results", 0, "how many results the run must have; more are an error")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait")
	return cmd
}

// await asks once a second. A run that failed, or has more results than it can, is
// not waited for.
func await(ctx context.Context, c *client.Client, key string, results int) (catalog.Detail, error) {
	for last := "the catalog has no such run"; ; {
		run, err := c.GetRun(ctx, key)
		switch {
		case client.IsStatus(err, http.StatusNotFound):
		case err != nil:
			last = err.Error()
		case run.Status == catalog.Failed:
			return run, fmt.Errorf("run %s failed: %d of %d results are in the catalog", key, len(run.Results), results)
		case len(run.Results) > results:
			return run, fmt.Errorf("run %s has %d results, and should have %d: is its name another benchmark's too?", key, len(run.Results), results)
		case run.Status == catalog.Succeeded && len(run.Results) == results:
			return run, nil
		default:
			last = fmt.Sprintf("it is %s with %d of %d results", run.Status, len(run.Results), results)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return run, fmt.Errorf("run %s: %s: %w", key, last, ctx.Err())
		}
	}
}

func reportCommand() *cobra.Command {
	var r reading
	cmd := &cobra.Command{
		Use:     "report --run KEY",
		Short:   "Print what the catalog knows of a run, as Markdown",
		Example: "  catalog-api report --server http://catalog-web.model-catalog.svc:8001 --run gpu-workloads/nightly-7",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			run, err := c.GetRun(cmd.Context(), r.run)
			if err != nil {
				return err
			}
			return writeReport(cmd.OutOrStdout(), run)
		},
	}
	r.flags(cmd.Flags())
	return cmd
}

func writeReport(out io.Writer, run catalog.Detail) error {
	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	row := func(cells ...string) { fmt.Fprintf(w, "| %s\t|\n", strings.Join(cells, "\t| ")) }
	fmt.Fprintf(w, "# %s\n\n%s, %s, on %d× %s: %s\n\n", run.Key, run.Model, run.Benchmark, run.GPUCount, run.GPUModel, run.Status)
	row("result", "requests", "output tokens/s", "median TTFT ms", "median TPOT ms")
	row("---", "---", "---", "---", "---")
	for _, result := range run.Results {
		row(result.File, fmt.Sprintf("%d/%d", result.Completed, result.Requests), number(result.OutputThroughput), median(result.TTFT), median(result.TPOT))
	}
	fmt.Fprintf(w, "\nNodes: %s. Interruptions: %d, work done again: %s.\n", strings.Join(run.Nodes, ", "), run.InterruptionCount,
		time.Duration(run.WorkLostSeconds*float64(time.Second)).Round(100*time.Millisecond))
	fmt.Fprintf(w, "Time: %s. Cost: $%.4f, on demand $%.4f.\n", time.Duration(run.DurationSeconds*float64(time.Second)).Round(time.Second), run.CostUSD, run.OnDemandCostUSD)
	fmt.Fprintf(w, "Validity: %s.\n", run.Validity.Verdict)
	for _, reason := range run.Validity.Reasons {
		fmt.Fprintf(w, "- %s (%s)\n", reason.Message, reason.Code)
	}
	return w.Flush()
}

func number(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f", *v)
}

func median(l *catalog.Latency) string {
	if l == nil {
		return "-"
	}
	return number(l.MedianMs)
}
