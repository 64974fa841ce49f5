// SPDX-License-Identifier: Apache-2.0

// Throughput measures how many pods our scheduler and the stock kube-scheduler bind
// per second, side by side in one run.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spotbench/spotbench/bench/internal/proc"
	"github.com/spotbench/spotbench/pkg/localcluster"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
)

const usage = `Usage: throughput [flags]

Measures kube-scheduler with our plugin (cmd/scheduler, the shipped configuration)
beside the stock kube-scheduler (default profile) on the same nodes and pods:

  unconstrained  pods that ask for one GPU, of whichever node
  model          pods that name a GPU model that a tenth of the nodes have: ours by the
                 annotation gpu-model, stock by the equal required node affinity

Each measurement has a control plane of its own (real etcd and kube-apiserver, no
controllers, no kubelets) and a scheduler process of its own. All pods are there
before the scheduler starts to see them: it is never short of work. Client limits
are lifted for both. Where the API server shares the processors it takes most of them;
both schedulers run ahead of it (nice -10), so that attempts are not measured waiting
for a processor. Measurements alternate between the two; the table has the median
of -repeats.

  pods/s     pods over the time from the first binding to the last
  attempt    scheduler_scheduling_algorithm_duration_seconds: the decision; interpolated
             within the histogram's buckets. Ours also holds the next pod back while 100
             bindings are under way, which is in pods/s and not in here
  CPU        of the scheduler process, user and system, per 1,000 pods
  memory     peak resident set of the scheduler process

Needs root, as the local cluster does, whose programs it builds when they are missing.

Flags:
`

type settings struct {
	nodes, json, manifests string
	pods, repeats          int
	profile                string
}

func main() {
	var s settings
	flags := flag.NewFlagSet("throughput", flag.ContinueOnError)
	flags.StringVar(&s.nodes, "nodes", "1000,5000", "numbers of nodes, separated by commas")
	flags.IntVar(&s.pods, "pods", 1500, "pods to bind in each measurement")
	flags.IntVar(&s.repeats, "repeats", 3, "measurements of each kind, of which the median counts")
	flags.StringVar(&s.json, "json", "", "write the results to this file as well")
	flags.StringVar(&s.manifests, "manifests", "manifests/base/scheduler", "folder of our scheduler's configuration")
	flags.StringVar(&s.profile, "profile", "", "write a CPU profile of each scheduler to this folder")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	switch err := flags.Parse(os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, s, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "throughput:", err)
		os.Exit(1)
	}
}

// sample is what one measurement found.
type sample struct {
	PodsPerSecond  float64 `json:"podsPerSecond"`
	AttemptP50MS   float64 `json:"attemptP50Milliseconds"`
	AttemptP99MS   float64 `json:"attemptP99Milliseconds"`
	CPUSecondsPerK float64 `json:"cpuSecondsPer1000Pods"`
	PeakMemoryMiB  float64 `json:"peakMemoryMiB"`
}

// result is the median of the samples of one kind.
type result struct {
	Nodes     int      `json:"nodes"`
	Pods      int      `json:"pods"`
	Workload  workload `json:"workload"`
	Scheduler string   `json:"scheduler"`
	sample
	Samples []sample `json:"samples"`
}

func (s settings) parse() (nodes []int, err error) {
	for text := range strings.SplitSeq(s.nodes, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < len(machines) || n > 20_000 {
			return nil, fmt.Errorf("-nodes has %q, want numbers from %d to 20000, separated by commas", text, len(machines))
		}
		if room := n / len(machines) * gpusPerNode; s.pods > room-warmUp {
			return nil, fmt.Errorf("-pods is %d, but a tenth of %d nodes has %d GPUs for them: want at most that many", s.pods, n, room-warmUp)
		}
		nodes = append(nodes, n)
	}
	if s.pods < 100 {
		return nil, fmt.Errorf("-pods is %d, want at least 100", s.pods)
	}
	if s.repeats < 1 {
		return nil, fmt.Errorf("-repeats is %d, want at least 1", s.repeats)
	}
	return nodes, nil
}

func run(ctx context.Context, s settings, out io.Writer) error {
	sizes, err := s.parse()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "throughput-")
	if err != nil {
		return fmt.Errorf("make a folder to work in: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	bin, err := build(ctx, dir)
	if err != nil {
		return err
	}
	if s.manifests, err = filepath.Abs(s.manifests); err != nil {
		return fmt.Errorf("-manifests: %w", err)
	}
	var results []result
	for _, n := range sizes {
		for _, w := range []workload{unconstrained, constrained} {
			both, err := s.compare(ctx, dir, bin, n, w)
			if err != nil {
				return err
			}
			results = append(results, both...)
		}
	}
	if err := print(out, results); err != nil {
		return err
	}
	if s.json == "" {
		return nil
	}
	data, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the results: %w", err)
	}
	return os.WriteFile(s.json, append(data, '\n'), 0o644)
}

// build makes our scheduler and finds, or builds, the others.
func build(ctx context.Context, dir string) (programs, error) {
	if err := localcluster.Check(); err != nil {
		return programs{}, err
	}
	cache, err := localcluster.DefaultCacheDir()
	if err != nil {
		return programs{}, err
	}
	tools, err := toolchain.Ensure(ctx, cache, progress)
	if err != nil {
		return programs{}, err
	}
	bin := programs{etcd: tools.Path("etcd"), apiserver: tools.Path("kube-apiserver"), stock: tools.Path("kube-scheduler"), ours: filepath.Join(dir, "scheduler")}
	progress("building our scheduler")
	if text, err := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w", "-o", bin.ours, "github.com/spotbench/spotbench/cmd/scheduler").CombinedOutput(); err != nil {
		return programs{}, fmt.Errorf("build our scheduler: %w\n%s", err, text)
	}
	return bin, nil
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// compare measures both schedulers in turn.
func (s settings) compare(ctx context.Context, dir string, bin programs, nodes int, w workload) ([]result, error) {
	both := []result{{Nodes: nodes, Pods: s.pods, Workload: w, Scheduler: ours.name}, {Nodes: nodes, Pods: s.pods, Workload: w, Scheduler: stock.name}}
	for repeat := range s.repeats {
		for i, c := range []contender{ours, stock} {
			one, err := s.measure(ctx, dir, bin, nodes, w, c)
			if errors.Is(err, errLate) {
				progress("%d nodes, %s, %s: %v; once more", nodes, w, c.name, err)
				one, err = s.measure(ctx, dir, bin, nodes, w, c)
			}
			if err != nil {
				return nil, fmt.Errorf("%s, %d nodes, %s: %w", c.name, nodes, w, err)
			}
			progress("%d nodes, %s, %s (%d of %d): %.0f pods/s, p99 %.2f ms, %.0f MiB", nodes, w, c.name, repeat+1, s.repeats, one.PodsPerSecond, one.AttemptP99MS, one.PeakMemoryMiB)
			both[i].Samples = append(both[i].Samples, one)
		}
	}
	for i := range both {
		both[i].sample = medians(both[i].Samples)
	}
	return both, nil
}

func medians(samples []sample) sample {
	of := func(field func(sample) float64) float64 {
		values := make([]float64, len(samples))
		for i, s := range samples {
			values[i] = field(s)
		}
		slices.Sort(values)
		n := len(values)
		return (values[(n-1)/2] + values[n/2]) / 2
	}
	return sample{
		PodsPerSecond:  of(func(s sample) float64 { return s.PodsPerSecond }),
		AttemptP50MS:   of(func(s sample) float64 { return s.AttemptP50MS }),
		AttemptP99MS:   of(func(s sample) float64 { return s.AttemptP99MS }),
		CPUSecondsPerK: of(func(s sample) float64 { return s.CPUSecondsPerK }),
		PeakMemoryMiB:  of(func(s sample) float64 { return s.PeakMemoryMiB }),
	}
}

// warmUp is how many pods are bound before it is measured: caches are then filled and
// the first requests made, as in a scheduler that runs for days.
const warmUp = 100

// errLate says that a measurement began when most of its pods were already bound.
var errLate = errors.New("this process was kept from the processor while the pods were bound; leave the machine to the benchmark")

// measure binds all pods once.
func (s settings) measure(ctx context.Context, parent string, bin programs, nodes int, w workload, c contender) (sample, error) {
	dir, err := os.MkdirTemp(parent, c.name+"-")
	if err != nil {
		return sample{}, fmt.Errorf("make a folder to work in: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	plane, err := startPlane(ctx, dir, bin)
	if err != nil {
		return sample{}, err
	}
	defer plane.stop()
	if c == ours {
		// The kind that gangs are made of, which our scheduler waits for at its start.
		if err := plane.installCRDs(filepath.Join(s.manifests, "podgroup-crd.yaml")); err != nil {
			return sample{}, err
		}
	}
	if err := createNodes(ctx, plane.client, nodes); err != nil {
		return sample{}, fmt.Errorf("create the nodes: %w", err)
	}
	bound, err := watchBindings(ctx, plane.client)
	if err != nil {
		return sample{}, err
	}
	defer bound.stop()
	if err := createPods(ctx, plane.client, 0, warmUp+s.pods, w, c); err != nil {
		return sample{}, fmt.Errorf("create pods: %w", err)
	}
	scheduler, err := startScheduler(ctx, plane, c, bin, s.manifests)
	if err != nil {
		return sample{}, err
	}
	if err := bound.wait(ctx, scheduler, warmUp); err != nil {
		return sample{}, err
	}
	before, err := look(ctx, scheduler)
	if err != nil {
		return sample{}, err
	}
	if s.profile != "" {
		go scheduler.writeProfile(ctx, filepath.Join(s.profile, fmt.Sprintf("%s-%d-%s.pprof", c.name, nodes, w)))
	}
	if err := bound.wait(ctx, scheduler, warmUp+s.pods); err != nil {
		return sample{}, err
	}
	after, err := look(ctx, scheduler)
	if err != nil {
		return sample{}, err
	}
	attempts := after.attempts.since(before.attempts)
	if attempts.total() < uint64(s.pods)/2 { //nolint:gosec // at least 100
		return sample{}, errLate
	}
	return sample{
		PodsPerSecond:  float64(s.pods-1) / bound.span(warmUp, warmUp+s.pods-1).Seconds(),
		AttemptP50MS:   1000 * attempts.quantile(0.5),
		AttemptP99MS:   1000 * attempts.quantile(0.99),
		CPUSecondsPerK: (after.cpu - before.cpu).Seconds() * 1000 / float64(s.pods),
		PeakMemoryMiB:  float64(after.memory) / (1 << 20),
	}, nil
}

// reading is the state of a scheduler process.
type reading struct {
	attempts histogram
	cpu      time.Duration
	memory   int64
}

func look(ctx context.Context, r *running) (reading, error) {
	families, err := r.metrics(ctx)
	if err != nil {
		return reading{}, err
	}
	out := reading{attempts: read(families[metricAlgorithm], "", "")}
	if out.cpu, err = proc.CPUTime(r.cmd.Process.Pid); err != nil {
		return reading{}, err
	}
	out.memory, err = proc.PeakMemory(r.cmd.Process.Pid)
	return out, err
}

// print writes the table.
func print(out io.Writer, results []result) error {
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "nodes\tpods\tworkload\tscheduler\tpods/s\tattempt p50\tp99\tCPU/1,000 pods\tpeak memory\tours : stock\t")
	for i, r := range results {
		ratio := ""
		if i%2 == 0 {
			other := results[i+1]
			ratio = fmt.Sprintf("%.2f× pods/s, %.2f× memory", r.PodsPerSecond/other.PodsPerSecond, r.PeakMemoryMiB/other.PeakMemoryMiB)
		}
		fmt.Fprintf(tw, "%d\t%d\t%s\t%s\t%.0f\t%.2f ms\t%.2f ms\t%.2f s\t%.0f MiB\t%s\t\n",
			r.Nodes, r.Pods, r.Workload, r.Scheduler, r.PodsPerSecond, r.AttemptP50MS, r.AttemptP99MS, r.CPUSecondsPerK, r.PeakMemoryMiB, ratio)
	}
	return tw.Flush()
}
