// SPDX-License-Identifier: Apache-2.0

// Command placement replays the Alibaba openb trace by the protocol of FGD (USENIX
// ATC'23) and prints how much of the cluster's GPUs each policy allocates.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spotbench/spotbench/bench/placement/internal/openb"
	"github.com/spotbench/spotbench/bench/placement/internal/policy"
	"github.com/spotbench/spotbench/bench/placement/internal/replay"
)

// loads are the columns of the tables, in percent of the cluster's GPUs arrived.
var loads = []int{80, 90, 95, 100, 110, 120, 130}

// settings are the flags.
type settings struct {
	nodes, pods, seeds, policy, ties, whole string
	load                                    float64
	json, svg, png, published, profile      string
}

func main() {
	var s settings
	flag.StringVar(&s.nodes, "nodes", "", "node list of the trace (openb_node_list_gpu_node.csv)")
	flag.StringVar(&s.pods, "pods", "", "pod lists of the trace, separated by commas (openb_pod_list_default.csv)")
	flag.StringVar(&s.seeds, "seeds", "42-51", "seeds of the arrival order: a range, or a list separated by commas")
	flag.Float64Var(&s.load, "load", 130, "GPUs to ask for, in percent of the cluster's")
	flag.StringVar(&s.policy, "policy", "all", "policies, separated by commas, or all: "+strings.Join(names(), ", "))
	flag.StringVar(&s.ties, "ties", string(policy.InOrder), "which of equally good nodes is taken: the first in a fixed order, or at random (order, random)")
	flag.StringVar(&s.whole, "whole", "off", "what becomes of a share of a GPU: it stays (off), or asks for a whole GPU (ceil)")
	flag.StringVar(&s.json, "json", "", "write the table as JSON to this file")
	flag.StringVar(&s.svg, "svg", "", "draw the curves into this file, one per trace (its name is added when there are several)")
	flag.StringVar(&s.png, "png", "", "as -svg, as a PNG")
	flag.StringVar(&s.published, "published", "", "published results to print the difference from (published_allocation.csv)")
	flag.StringVar(&s.profile, "cpuprofile", "", "write a CPU profile to this file")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "placement: %q is not a flag; see -help\n", flag.Arg(0))
		os.Exit(2)
	}
	if err := run(s, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "placement:", err)
		os.Exit(1)
	}
}

// result is one line of the table.
type result struct {
	Policy string             `json:"policy"`
	Trace  string             `json:"trace"`
	Ties   string             `json:"ties"`
	Whole  string             `json:"whole"`
	Seeds  []int64            `json:"seeds"`
	Alloc  map[string]float64 `json:"alloc"`

	curve replay.Curve
}

func run(s settings, out io.Writer) (err error) {
	if s.profile != "" {
		f, err := os.Create(s.profile)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	experiment, err := s.parse()
	if err != nil {
		return err
	}
	var results []result
	for _, trace := range experiment.traces {
		var ofTrace []result
		for _, name := range experiment.policies {
			r, err := experiment.measure(trace, name)
			if err != nil {
				return fmt.Errorf("%s on %s: %w", name, trace.name, err)
			}
			ofTrace = append(ofTrace, r)
		}
		print(out, trace.name, s, ofTrace)
		if err := draw(s, trace.name, len(experiment.traces) > 1, ofTrace); err != nil {
			return err
		}
		results = append(results, ofTrace...)
	}
	if s.json != "" {
		data, err := json.MarshalIndent(results, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.json, append(data, '\n'), 0o644); err != nil {
			return err
		}
	}
	if s.published != "" {
		f, err := os.Open(s.published)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		all, err := differences(f, results)
		if err != nil {
			return fmt.Errorf("%s: %w", s.published, err)
		}
		printDifferences(out, all)
	}
	return nil
}

// experiment is the flags, read and checked.
type experiment struct {
	nodes    []openb.Node
	traces   []trace
	policies []string
	seeds    []int64
	load     float64
	ties     policy.Ties
	settings settings
}

type trace struct {
	name string
	pods []openb.Pod
}

func (s settings) parse() (experiment, error) {
	e := experiment{load: s.load / 100, ties: policy.Ties(s.ties), settings: s}
	switch {
	case s.nodes == "" || s.pods == "":
		return e, errors.New("-nodes and -pods are needed: the CSV files of the openb trace")
	case s.load <= 0 || s.load > 1000:
		return e, fmt.Errorf("-load is %v, want a percentage above 0 and at most 1000", s.load)
	case e.ties != policy.InOrder && e.ties != policy.AtRandom:
		return e, fmt.Errorf("-ties is %q, want order or random", s.ties)
	case s.whole != "off" && s.whole != "ceil":
		return e, fmt.Errorf("-whole is %q, want off or ceil", s.whole)
	}
	var err error
	if e.seeds, err = parseSeeds(s.seeds); err != nil {
		return e, err
	}
	e.policies = names()
	if s.policy != "all" {
		e.policies = strings.Split(s.policy, ",")
	}
	for _, name := range e.policies {
		if !slices.Contains(names(), name) {
			return e, fmt.Errorf("-policy %q is not known, want all or some of %s", name, strings.Join(names(), ", "))
		}
	}
	if e.nodes, err = read(s.nodes, openb.ReadNodes); err != nil {
		return e, err
	}
	for path := range strings.SplitSeq(s.pods, ",") {
		pods, err := read(path, openb.ReadPods)
		if err != nil {
			return e, err
		}
		if s.whole == "ceil" {
			pods = openb.WholeGPUs(pods)
		}
		name := strings.TrimSuffix(filepath.Base(path), ".csv")
		e.traces = append(e.traces, trace{strings.TrimPrefix(name, "openb_pod_list_"), pods})
	}
	return e, nil
}

// parseSeeds reads "42-51" and "42,44,50".
func parseSeeds(s string) ([]int64, error) {
	var seeds []int64
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseInt(first, 10, 64)
		to, err2 := strconv.ParseInt(last, 10, 64)
		if err1 != nil || err2 != nil || from > to || to-from > 10_000 {
			return nil, fmt.Errorf("-seeds is %q, want a range such as 42-51 or a list such as 42,44", s)
		}
		for seed := from; seed <= to; seed++ {
			seeds = append(seeds, seed)
		}
	}
	return seeds, nil
}

func read[T any](path string, parse func(io.Reader) (T, error)) (T, error) {
	f, err := os.Open(path)
	if err != nil {
		var none T
		return none, err
	}
	defer func() { _ = f.Close() }()
	value, err := parse(f)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return value, err
}

func print(out io.Writer, trace string, s settings, results []result) {
	fmt.Fprintf(out, "%s, ties %s, whole %s, seeds %s: GPUs allocated, %% of the cluster's, at %% arrived\n", trace, s.ties, s.whole, s.seeds)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "policy\t")
	for _, load := range loads {
		fmt.Fprintf(w, "@%d\t", load)
	}
	fmt.Fprintln(w)
	for _, r := range results {
		fmt.Fprintf(w, "%s\t", r.Policy)
		for _, load := range loads {
			if load < len(r.curve) {
				fmt.Fprintf(w, "%.2f\t", r.curve[load])
			} else {
				fmt.Fprint(w, "-\t")
			}
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush()
	fmt.Fprintln(out)
}
