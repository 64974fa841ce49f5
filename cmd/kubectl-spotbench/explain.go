// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/placement/advice"
	"github.com/spotbench/spotbench/pkg/placement/snapshot"
)

// explanation is why a pod runs where it runs, or why it does not.
type explanation struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	// Node is where it is, "" while it is pending.
	Node string `json:"node,omitempty"`
	// Placement is what the scheduler wrote when it placed the pod.
	Placement *benchspec.Placement `json:"placement,omitempty"`
	// Problem is why no node is looked for, or why there is no placement to explain.
	Problem string `json:"problem,omitempty"`
	// Decision is what is decided now of a pending pod, Groups what would change it.
	Decision *snapshot.Decision `json:"decision,omitempty"`
	Groups   []advice.Group     `json:"groups,omitempty"`
}

func explainCommand(config *genericclioptions.ConfigFlags, streams genericiooptions.IOStreams) *cobra.Command {
	var from snapshotFlags
	var output string
	cmd := &cobra.Command{
		Use:   "explain POD",
		Short: "Why a pod runs where it runs, or why it is pending and what would change that",
		Long: `Of a pod that has a node: why this one, what the next best lost by, and what kept the
others, as the scheduler wrote it down when it decided.

Of a pending pod: for each GPU model and pool, why no node will do and what would make
one do. Each such way was tried with the scheduler's own code on its present state.
For this the scheduler is asked, which needs rights (docs/explain.md).`,
		Example: `  kubectl spotbench explain llama-0 -n bench
  kubectl spotbench explain llama-0 -n bench --snapshot snapshot.json -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			namespace, err := namespaceOf(config)
			if err != nil {
				return err
			}
			e, err := explain(cmd.Context(), config, streams.In, from, namespace, strings.TrimPrefix(args[0], "pod/"))
			if err != nil {
				return err
			}
			return write(streams.Out, output, e, e.table)
		},
	}
	from.add(cmd.Flags())
	outputFlag(cmd.Flags(), &output)
	return cmd
}

func namespaceOf(config *genericclioptions.ConfigFlags) (string, error) {
	namespace, _, err := config.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return "", fmt.Errorf("which namespace: %w; give --namespace", err)
	}
	return namespace, nil
}

func explain(ctx context.Context, config *genericclioptions.ConfigFlags, in io.Reader, from snapshotFlags, namespace, name string) (explanation, error) {
	if from.file != "" {
		s, err := from.get(ctx, config, in)
		if err != nil {
			return explanation{}, err
		}
		p, node, ok := s.Find(namespace, name)
		if !ok {
			return explanation{}, fmt.Errorf("pod %s/%s is not in %s, which has pods with GPUs and pending ones of the scheduler; give the right --namespace", namespace, name, from.file)
		}
		return explainPod(s, p, node), nil
	}
	restConfig, err := config.ToRESTConfig()
	if err != nil {
		return explanation{}, fmt.Errorf("which cluster: %w; give --kubeconfig, or a saved snapshot with --snapshot", err)
	}
	client, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		return explanation{}, err
	}
	pod, err := client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return explanation{}, fmt.Errorf("there is no pod %s in namespace %s; give the right --namespace", name, namespace)
	case err != nil:
		return explanation{}, fmt.Errorf("get pod %s/%s: %w", namespace, name, err)
	}
	p := snapshot.PodOf(pod)
	if pod.Spec.NodeName != "" {
		return explainPod(snapshot.Snapshot{}, p, pod.Spec.NodeName), nil
	}
	if p.SchedulerName != benchspec.SchedulerName {
		return explanation{Namespace: namespace, Pod: name, Problem: fmt.Sprintf(
			"it is pending, but not Spotbench's: its schedulerName is %q; write %q (kubectl spotbench render does)", p.SchedulerName, benchspec.SchedulerName)}, nil
	}
	s, err := from.get(ctx, config, in)
	if err != nil {
		return explanation{}, err
	}
	if seen, node, ok := s.Find(namespace, name); ok {
		// It may have got a node since.
		return explainPod(s, seen, node), nil
	}
	return explainPod(s, p, ""), nil
}

// explainPod explains a pod on a node from its annotation, a pending one from the
// snapshot.
func explainPod(s snapshot.Snapshot, p snapshot.Pod, node string) explanation {
	e := explanation{Namespace: p.Namespace, Pod: p.Name, Node: node}
	if node != "" {
		text, ok := p.Annotations[benchspec.AnnotationPlacement]
		if !ok {
			e.Problem = fmt.Sprintf("it has no annotation %s, so that its placement was not Spotbench's (its schedulerName is %q)", benchspec.AnnotationPlacement, p.SchedulerName)
			return e
		}
		placement, err := benchspec.ParsePlacement(text)
		if err != nil {
			e.Problem = err.Error()
			return e
		}
		e.Placement = &placement
		return e
	}
	d := s.Decide(p)
	e.Decision = &d
	groups, err := advice.For(s, p)
	if err != nil {
		e.Problem = err.Error()
		return e
	}
	if len(p.Gates) > 0 {
		e.Problem = "the scheduler does not try it before its scheduling gates are removed: " + strings.Join(p.Gates, ", ")
	}
	if !d.Feasible() {
		e.Groups = groups
	}
	return e
}

func (e explanation) table(w io.Writer) error {
	switch {
	case e.Placement != nil:
		return placedTable(w, e)
	case e.Node != "":
		_, err := fmt.Fprintf(w, "Pod %s/%s is on %s; %s.\n", e.Namespace, e.Pod, e.Node, e.Problem)
		return err
	case e.Decision == nil || e.Problem != "" && len(e.Decision.Candidates)+len(e.Decision.Refused) == 0:
		_, err := fmt.Fprintf(w, "Pod %s/%s gets no node: %s.\n", e.Namespace, e.Pod, e.Problem)
		return err
	}
	return e.pendingTable(w, "is pending")
}

// pendingTable is why a pod gets no node, or that it does by now.
func (e explanation) pendingTable(w io.Writer, is string) error {
	var lines []error
	say := func(format string, args ...any) {
		_, err := fmt.Fprintf(w, format, args...)
		lines = append(lines, err)
	}
	if e.Problem != "" {
		say("Pod %s/%s is held: %s.\nWithout that:\n\n", e.Namespace, e.Pod, e.Problem)
	}
	if e.Decision.Feasible() {
		say("Pod %s/%s is pending, and %s will do: it is about to be placed, if nothing else is in the way%s.\n\n", e.Namespace, e.Pod, e.Decision.Node, inTime(*e.Decision, "; there it "))
		lines = append(lines, candidatesTable(w, *e.Decision))
	} else {
		say("Pod %s/%s %s: none of %s will do.\n", e.Namespace, e.Pod, is, count(len(e.Decision.Refused), "node"))
		for _, g := range e.Groups {
			say("\n")
			lines = append(lines, groupBlock(w, g))
		}
	}
	lines = append(lines, unchecked(w, *e.Decision))
	return errors.Join(lines...)
}

// placedTable is a placement with the alternatives and what they lost by.
func placedTable(w io.Writer, e explanation) error {
	p := *e.Placement
	if _, err := fmt.Fprintf(w, "Pod %s/%s is on %s: %s.\nFinishing is expected to take %s.\n\n", e.Namespace, e.Pod, p.Node, p.Reason, hours(p.ExpectedHours)); err != nil {
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NODE\tGPU MODEL\tCAPACITY\tINSTANCE TYPE\tZONE\tUSD/HOUR\tRISK\tEXPECTED COST\tLOST BY")
	row := func(node, model, capacity, instance, zone string, usd, risk, cost float64, lost string) {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%.1f %%\t%s\t%s\n", node, dash(model), capacity, dash(instance), dash(zone), dollars(usd), 100*risk, dollars(cost), lost)
	}
	row(p.Node, p.GPUModel, p.CapacityType, p.InstanceType, p.Zone, p.USDPerHour, p.InterruptionRisk, p.ExpectedCostUSD, "(chosen)")
	for _, a := range p.Alternatives {
		row(a.Node, a.GPUModel, a.CapacityType, a.InstanceType, a.Zone, a.USDPerHour, a.InterruptionRisk, a.ExpectedCostUSD, a.Lost)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(p.Refused) == 0 {
		return nil
	}
	table = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nREFUSED NODE\tBECAUSE IT")
	for _, node := range slices.Sorted(maps.Keys(p.Refused)) {
		fmt.Fprintf(table, "%s\t%s\n", node, p.Refused[node])
	}
	return table.Flush()
}

// candidatesTable is the best of the nodes that would do.
func candidatesTable(w io.Writer, d snapshot.Decision) error {
	const most = 4
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NODE\tGPU MODEL\tCAPACITY\tINSTANCE TYPE\tZONE\tUSD/HOUR\tRISK\tEXPECTED TIME\tEXPECTED COST\tLOST BY")
	for i, c := range d.Candidates {
		if i == most {
			break
		}
		lost := c.Lost
		if i == 0 {
			lost = "(best)"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%.1f %%\t%s\t%s\t%s\n", c.Node, dash(c.GPUModel), c.Pool.CapacityType, dash(c.Pool.InstanceType), dash(c.Pool.Zone),
			dollars(c.USDPerHour), 100*c.InterruptionRisk, hours(c.ExpectedHours), dollars(c.ExpectedCostUSD), lost)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if more := len(d.Candidates) - most; more > 0 {
		_, err := fmt.Fprintf(w, "and %s that would do\n", count(more, "more node"))
		return err
	}
	return nil
}

// groupBlock is the nodes of one model and pool, why they will not do, and what would
// make one do.
func groupBlock(w io.Writer, g advice.Group) error {
	name := g.GPUModel
	if name == "" {
		name = "no GPU"
	}
	where := strings.Join(strings.Fields(strings.Join([]string{g.Pool.CapacityType, g.Pool.InstanceType, g.Pool.Zone}, " ")), " ")
	text := fmt.Sprintf("%s (%s)", name, where)
	switch n := len(g.Nodes); {
	case n > 3:
		text += fmt.Sprintf(": %s, %s and %d more", g.Nodes[0], g.Nodes[1], n-2)
	case n > 0:
		text += ": " + strings.Join(g.Nodes, ", ")
	}
	lines := []string{text}
	for _, r := range g.Refusals {
		on := ""
		if len(g.Refusals) > 1 || r.Nodes != len(g.Nodes) {
			on = fmt.Sprintf(" (%s)", count(r.Nodes, "node"))
		}
		lines = append(lines, "  has "+r.Detail+on)
	}
	for i, way := range g.Ways {
		lead := "  -> "
		if i > 0 {
			lead = "  or "
		}
		lines = append(lines, lead+way.Text())
	}
	if len(g.Ways) == 0 {
		lines = append(lines, "  -> nothing that the pod says or time brings would change that")
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}

func unchecked(w io.Writer, d snapshot.Decision) error {
	if len(d.Unchecked) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "\nNot looked at here, though the scheduler does: %s.\n", strings.Join(d.Unchecked, ", "))
	return err
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func dash(s string) string { return cmp.Or(s, "-") }

// dollars is an amount of money; a dash for a price that is not known.
func dollars(usd float64) string {
	if usd == 0 {
		return "-"
	}
	return fmt.Sprintf("$%.2f", usd)
}

// hours is a time to the minute: "2h4m".
func hours(h float64) string {
	return strings.TrimSuffix(time.Duration(h*float64(time.Hour)).Round(time.Minute).String(), "0s")
}
