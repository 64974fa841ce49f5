// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/spotbench/spotbench/pkg/placement/snapshot"
)

// replayed is what is decided from a snapshot.
type replayed struct {
	Time      time.Time           `json:"time"`
	Decisions []snapshot.Decision `json:"decisions"`
}

func replayCommand(streams genericiooptions.IOStreams) *cobra.Command {
	var pod, output string
	cmd := &cobra.Command{
		Use:   "replay SNAPSHOT",
		Short: "Decide again from a saved snapshot, with the scheduler's own code and without a cluster",
		Long: `Decide again, from a saved snapshot alone, what the scheduler decides from that state:
of each pending pod for itself, or of one pod, which may be one that has a node; that
one is decided as if it had none. The same file always gives the same answer.`,
		Example: `  kubectl spotbench replay snapshot.json
  kubectl spotbench replay snapshot.json --pod bench/llama-0 -o yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			s, err := readSnapshot(args[0], streams.In)
			if err != nil {
				return err
			}
			r := replayed{Time: s.Time}
			if pod == "" {
				for _, p := range s.Pending {
					r.Decisions = append(r.Decisions, s.Decide(p))
				}
				return write(streams.Out, output, r, r.table)
			}
			namespace, name, ok := strings.Cut(pod, "/")
			if !ok {
				return fmt.Errorf("--pod %q is not NAMESPACE/NAME; write for example bench/llama-0", pod)
			}
			p, node, ok := s.Find(namespace, name)
			if !ok {
				return fmt.Errorf("--pod %s is not in the snapshot, which has %s", pod, pods(s))
			}
			r.Decisions = append(r.Decisions, s.Decide(p))
			return write(streams.Out, output, r, func(w io.Writer) error { return r.one(w, node) })
		},
	}
	cmd.Flags().StringVar(&pod, "pod", "", "only this one, as NAMESPACE/NAME")
	outputFlag(cmd.Flags(), &output)
	return cmd
}

// pods names the pods of a snapshot, the first few.
func pods(s snapshot.Snapshot) string {
	var names []string
	for _, p := range s.Pending {
		names = append(names, p.Key())
	}
	for _, n := range s.Nodes {
		for _, p := range n.Pods {
			names = append(names, p.Key())
		}
	}
	slices.Sort(names)
	const most = 5
	switch n := len(names); {
	case n == 0:
		return "no pods"
	case n > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n-most)
	}
	return strings.Join(names, ", ")
}

func (r replayed) table(w io.Writer) error {
	if len(r.Decisions) == 0 {
		_, err := fmt.Fprintln(w, "No pod is pending in this snapshot; give one that has a node with --pod.")
		return err
	}
	if _, err := fmt.Fprintf(w, "At %s:\n\n", r.Time.Format(time.RFC3339)); err != nil {
		return err
	}
	return decisionsTable(w, r.Decisions)
}

// one is all of one decision.
func (r replayed) one(w io.Writer, node string) error {
	d := r.Decisions[0]
	var lines []error
	say := func(format string, args ...any) {
		_, err := fmt.Fprintf(w, format, args...)
		lines = append(lines, err)
	}
	was := "pending"
	if node != "" {
		was = "on " + node
	}
	say("At %s pod %s/%s was %s.\n", r.Time.Format(time.RFC3339), d.Namespace, d.Pod, was)
	if d.Feasible() {
		say("It goes to %s: %s.\n\n", d.Node, d.Reason)
		lines = append(lines, candidatesTable(w, d))
	} else {
		say("It gets no node: %s.\n", d.Reason)
	}
	if len(d.Refused) > 0 {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "\nREFUSED NODE\tBECAUSE IT HAS")
		for _, refused := range d.Refused {
			fmt.Fprintf(table, "%s\t%s\n", refused.Node, refused.Detail)
		}
		lines = append(lines, table.Flush())
	}
	lines = append(lines, unchecked(w, d))
	return errors.Join(lines...)
}
