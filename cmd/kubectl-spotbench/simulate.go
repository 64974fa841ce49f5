// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/advice"
	"github.com/spotbench/spotbench/pkg/placement/snapshot"
)

// simulation is where the pods of a file would go, one after the other.
type simulation struct {
	Pods []simulated `json:"pods"`
	// ExpectedCostUSD is the sum over the pods that get a node; Pending how many do not.
	ExpectedCostUSD float64 `json:"expectedCostUSD"`
	Pending         int     `json:"pending"`
}

type simulated struct {
	snapshot.Decision
	// Groups are what would get a pod a node that gets none.
	Groups []advice.Group `json:"groups,omitempty"`
}

func simulateCommand(config *genericclioptions.ConfigFlags, streams genericiooptions.IOStreams) *cobra.Command {
	var from snapshotFlags
	var file, output string
	cmd := &cobra.Command{
		Use:   "simulate -f FILE",
		Short: "Where pods would go and what they would cost, before they are submitted",
		Long: `Place the pods of a file, one after the other, on the scheduler's present state or a
saved one: pods, and the pods of Jobs and of everything else with a pod template, as many
as start at once. Nothing is created. Pods that are pending already get nothing here:
what of them would be placed first may take the room.`,
		Example: `  kubectl spotbench simulate -f job.yaml
  kubectl spotbench render -f job.yaml | kubectl spotbench simulate -f -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if file == "-" && from.file == "-" {
				return errors.New("--filename and --snapshot are both standard input; give one of them a file")
			}
			namespace, err := namespaceOf(config)
			if err != nil {
				return err
			}
			pods, notes, err := podsOf(file, streams.In, namespace)
			if err != nil {
				return err
			}
			s, err := from.get(cmd.Context(), config, streams.In)
			if err != nil {
				return err
			}
			if n := len(s.Pending); n > 0 {
				notes = append(notes, count(n, "pod")+" wait already; what of them is placed first may take the room")
			}
			for _, note := range notes {
				fmt.Fprintln(streams.ErrOut, "note:", note)
			}
			result := simulate(s, pods)
			return write(streams.Out, output, result, result.table)
		},
	}
	cmd.Flags().StringVarP(&file, "filename", "f", "", "file with one or more documents, - for standard input")
	from.add(cmd.Flags())
	outputFlag(cmd.Flags(), &output)
	return cmd
}

// podsOf reads the pods of a file.
func podsOf(file string, in io.Reader, namespace string) (pods []snapshot.Pod, notes []string, err error) {
	switch file {
	case "":
		return nil, nil, errors.New("--filename is missing; give a file of pods or jobs, or - for standard input")
	case "-":
	default:
		f, err := os.Open(file)
		if err != nil {
			return nil, nil, fmt.Errorf("--filename: %w", err)
		}
		defer f.Close()
		in = f
	}
	pods, notes, err = readPods(in, namespace)
	if err != nil {
		return nil, nil, fmt.Errorf("--filename %s: %w", file, err)
	}
	return pods, notes, nil
}

func simulate(s snapshot.Snapshot, pods []snapshot.Pod) simulation {
	var out simulation
	for _, p := range pods {
		one := simulated{Decision: s.Decide(p)}
		if one.Feasible() {
			s = s.Place(p, one.Node)
			out.ExpectedCostUSD += one.Candidates[0].ExpectedCostUSD
		} else {
			out.Pending++
			// A pod that cannot be read has its reason already.
			one.Groups, _ = advice.For(s, p)
		}
		out.Pods = append(out.Pods, one)
	}
	return out
}

func (r simulation) table(w io.Writer) error {
	if err := decisionsTable(w, decisionsOf(r.Pods)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "\n%d of %s get a node, for an expected $%.2f in all.\n", len(r.Pods)-r.Pending, count(len(r.Pods), "pod"), r.ExpectedCostUSD); err != nil {
		return err
	}
	var told []string
	for _, p := range r.Pods {
		if p.Feasible() || len(p.Groups) == 0 {
			continue
		}
		e := explanation{Namespace: p.Namespace, Pod: p.Pod, Decision: &p.Decision, Groups: p.Groups}
		if told = append(told, p.Pod); len(told) > mostTold {
			_, err := fmt.Fprintf(w, "\n%s more stay pending; -o json has why.\n", count(r.Pending-mostTold, "pod"))
			return err
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
		if err := e.pendingTable(w, "would be pending"); err != nil {
			return err
		}
	}
	return nil
}

// mostTold bounds the pods of which all is said; copies of a Job's are alike.
const mostTold = 3

func decisionsOf(pods []simulated) []snapshot.Decision {
	out := make([]snapshot.Decision, len(pods))
	for i := range pods {
		out[i] = pods[i].Decision
	}
	return out
}

// decisionsTable has a line for each pod.
func decisionsTable(w io.Writer, decisions []snapshot.Decision) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "POD\tNODE\tGPU MODEL\tCAPACITY\tRISK\tEXPECTED TIME\tEXPECTED COST\tREASON")
	for _, d := range decisions {
		if !d.Feasible() {
			fmt.Fprintf(table, "%s/%s\t-\t-\t-\t-\t-\t-\t%s\n", d.Namespace, d.Pod, why(d))
			continue
		}
		c := d.Candidates[0]
		fmt.Fprintf(table, "%s/%s\t%s\t%s\t%s\t%.1f %%\t%s\t%s\t%s\n", d.Namespace, d.Pod, d.Node, dash(c.GPUModel), c.Pool.CapacityType,
			100*c.InterruptionRisk, hours(c.ExpectedHours), dollars(c.ExpectedCostUSD), d.Reason+inTime(d, "; "))
	}
	return table.Flush()
}

// inTime says how probably a pod with a deadline meets it, "" for one without.
func inTime(d snapshot.Decision, before string) string {
	if d.InTime == nil {
		return ""
	}
	return fmt.Sprintf("%smeets its deadline with probability %.2f", before, *d.InTime)
}

// why counts what keeps the nodes, in one line.
func why(d snapshot.Decision) string {
	if len(d.Refused) == 0 {
		return d.Reason
	}
	counts := map[placement.Reason]int{}
	for _, r := range d.Refused {
		counts[r.Reason]++
	}
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[reason], reason))
	}
	return "no node will do: " + strings.Join(parts, ", ")
}
