// SPDX-License-Identifier: Apache-2.0

// Agent measures what the node agent takes of its node: memory and processor time.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"
)

const usage = `Usage: agent [flags]

Runs the real node agent (cmd/node-agent, built from this tree) on a simulated node and
measures its process, by the kernel's figures, while it samples GPUs, accompanies pods,
polls for notices, tells a catalog and is scraped every 15 s:

  API server   the real one, with etcd
  GPUs         simulated behind the real bindings (pkg/gpusim), shared by time-slicing
  kubelet      its pod resources API over the real protocol, with -pods benchmark pods
               that each hold a share of a GPU, a checkpoint and a results volume
  cloud        a metadata service that has no notice
  catalog      an HTTP server that takes every record

  RSS    resident set (VmRSS), once a second; p50 and largest of the time after -settle. It is
         the sum of anonymous memory (RssAnon) and of pages of the program's and its
         libraries' files (RssFile), which the kernel takes back at need. It maps all that
         lies around a page that is used, so nearly the whole file counts
  CPU    user and system time of the process over that time, as a share of one core
  growth least-squares slope of the RSS over that time

A second table has the same for each sixth of that time.

Then it gives an agent -notices notices, one after the other, through the real
amazon-ec2-metadata-mock, each to -notice-pods new pods with -state MiB of state each that
nothing has saved before:

  notice → taint       from the moment the mock gives the notice to the moment the API
                       server has the taint
  notice → checkpoint  to the moment that the pod's manifest is in the store, a directory

Needs the programs of the local cluster (localcluster build).

Flags:
`

type settings struct {
	gpus, pods       int
	sample, duration time.Duration
	settle           time.Duration
	telemetry, json  string
	// Of the notices.
	notices, noticePods, stateMiB int
	poll                          time.Duration
}

func main() {
	var s settings
	flags := flag.NewFlagSet("agent", flag.ContinueOnError)
	flags.IntVar(&s.gpus, "gpus", 8, "simulated GPUs")
	flags.IntVar(&s.pods, "pods", 30, "benchmark pods on the node")
	flags.DurationVar(&s.sample, "sample", time.Second, "the agent's --sample-interval")
	flags.DurationVar(&s.duration, "duration", 30*time.Minute, "time that is measured; 0 for the notices only")
	flags.DurationVar(&s.settle, "settle", 30*time.Second, "time before that")
	flags.IntVar(&s.notices, "notices", 200, "notices to measure; 0 for none")
	flags.IntVar(&s.noticePods, "notice-pods", 4, "benchmark pods on the node at each notice")
	flags.IntVar(&s.stateMiB, "state", 8, "state of each of these pods, MiB")
	flags.DurationVar(&s.poll, "poll", time.Second, "the agent's --poll-interval")
	flags.StringVar(&s.telemetry, "telemetry", "dcgm,nvml", "the agent's --telemetry; of several, each is measured in turn")
	flags.StringVar(&s.json, "json", "", "write the results to this file as well")
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
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

// The goals that the results are held against.
const (
	goalMiB = 60
	goalCPU = 1 // % of a core
)

func run(ctx context.Context, s settings, out io.Writer) error {
	modes, err := s.modes()
	if err != nil {
		return err
	}
	var found []result
	for _, mode := range modes {
		fmt.Fprintf(os.Stderr, "measuring --telemetry %s for %s\n", mode, s.settle+s.duration)
		r, err := measure(ctx, s, mode)
		if err != nil {
			return fmt.Errorf("--telemetry %s: %w", mode, err)
		}
		found = append(found, r)
	}
	all := results{Footprint: found}
	if s.notices > 0 {
		fmt.Fprintf(os.Stderr, "measuring %d notices\n", s.notices)
		r, err := measureNotices(ctx, s)
		if err != nil {
			return err
		}
		all.Notices = &r
	}
	if err := all.print(out, s); err != nil || s.json == "" {
		return err
	}
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(s.json, append(data, '\n'), 0o644)
}

// results are all that was measured.
type results struct {
	Footprint []result      `json:"footprint,omitempty"`
	Notices   *noticeResult `json:"notices,omitempty"`
}

func (all results) print(out io.Writer, s settings) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	if len(all.Footprint) > 0 {
		fmt.Fprintln(table, "telemetry\tGPUs\tpods\tsampled every\tfor\tRSS p50\tof it anonymous\tof it files\tRSS largest\tRSS growth\tCPU\tgoroutines\tseries\t")
		for _, r := range all.Footprint {
			fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\t%.1f MiB\t%.1f MiB\t%.1f MiB\t%.1f MiB\t%+.2f MiB/h\t%.2f %%\t%d → %d\t%d → %d\t\n", r.Telemetry, s.gpus, s.pods, s.sample, s.duration,
				r.RSSP50MiB, r.AnonP50MiB, r.FileP50MiB, r.RSSMaxMiB, r.RSSGrowthMiBPerHour, r.CPUPercent, r.GoroutinesFirst, r.GoroutinesLast, r.SeriesFirst, r.SeriesLast)
		}
		fmt.Fprintf(table, "goal\t\t\t\t\t\t\t\t%d MiB\t0\t%d %%\t\t\t\n", goalMiB, goalCPU)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(all.Footprint) > 0 {
		fmt.Fprintln(table, "\ntelemetry\tuntil\tRSS p50\tof it anonymous\tof it files\tRSS largest\tCPU\t")
		for _, r := range all.Footprint {
			for _, part := range r.Course {
				fmt.Fprintf(table, "%s\t%s\t%.1f MiB\t%.1f MiB\t%.1f MiB\t%.1f MiB\t%.2f %%\t\n", r.Telemetry, time.Duration(part.UntilSeconds)*time.Second,
					part.RSSP50MiB, part.AnonP50MiB, part.FileP50MiB, part.RSSMaxMiB, part.CPUPercent)
			}
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	if r := all.Notices; r != nil {
		fmt.Fprintln(table, "\nprovider\tpoll interval\tnotices\tpods each\tstate of each\tnotice → taint p50\tp99\tnotice → checkpoint p50\tp99\t")
		fmt.Fprintf(table, "%s\t%.1f s\t%d\t%d\t%d MiB\t%.2f s\t%.2f s\t%.2f s\t%.2f s\t\n", r.Provider, r.PollSeconds, r.Notices, r.Pods, r.StateMiB, r.TaintP50, r.TaintP99, r.CheckpointP50, r.CheckpointP99)
		fmt.Fprintf(table, "goal\t\t\t\t\t\t%.2f s\t\t\t\n", r.PollSeconds+0.25)
	}
	return table.Flush()
}

// result is what one measurement found.
type result struct {
	Telemetry     string  `json:"telemetry"`
	GPUs          int     `json:"gpus"`
	Pods          int     `json:"pods"`
	SampleSeconds float64 `json:"sampleSeconds"`
	Seconds       float64 `json:"seconds"`
	footprint
	RSSGrowthMiBPerHour float64 `json:"rssGrowthMiBPerHour"`
	GoroutinesFirst     int     `json:"goroutinesFirst"`
	GoroutinesLast      int     `json:"goroutinesLast"`
	SeriesFirst         int     `json:"seriesFirst"`
	SeriesLast          int     `json:"seriesLast"`
	Course              []part  `json:"course"`
}

// footprint is what a process took over some time.
type footprint struct {
	RSSP50MiB  float64 `json:"rssP50MiB"`
	RSSMaxMiB  float64 `json:"rssMaxMiB"`
	AnonP50MiB float64 `json:"rssAnonP50MiB"`
	FileP50MiB float64 `json:"rssFileP50MiB"`
	CPUPercent float64 `json:"cpuPercentOfOneCore"`
}

// part is one of the parts of the time.
type part struct {
	UntilSeconds float64 `json:"untilSeconds"`
	footprint
}

// parts is how many there are.
const parts = 6

// reading is one look at the process.
type reading struct {
	at              time.Duration
	rss, anon, file float64       // MiB
	cpu             time.Duration // since the process began
}

// summarise fills in what the readings say.
func (r *result) summarise(readings []reading) {
	r.footprint = over(readings)
	r.RSSGrowthMiBPerHour = slope(readings)
	r.Course = nil
	from := readings[0].at
	whole := readings[len(readings)-1].at - from
	for i := range parts {
		begin, end := from+whole*time.Duration(i)/parts, from+whole*time.Duration(i+1)/parts
		var within []reading
		for _, x := range readings {
			if x.at >= begin && x.at <= end {
				within = append(within, x)
			}
		}
		if len(within) > 0 {
			r.Course = append(r.Course, part{(end - from).Seconds(), over(within)})
		}
	}
}

// over is the footprint of some readings, in order and at least one.
func over(readings []reading) footprint {
	middle := func(of func(reading) float64) (p50, largest float64) {
		values := make([]float64, len(readings))
		for i, x := range readings {
			values[i] = of(x)
		}
		slices.Sort(values)
		return values[(len(values)-1)/2], values[len(values)-1]
	}
	var f footprint
	f.RSSP50MiB, f.RSSMaxMiB = middle(func(x reading) float64 { return x.rss })
	f.AnonP50MiB, _ = middle(func(x reading) float64 { return x.anon })
	f.FileP50MiB, _ = middle(func(x reading) float64 { return x.file })
	first, last := readings[0], readings[len(readings)-1]
	if span := last.at - first.at; span > 0 {
		f.CPUPercent = 100 * (last.cpu - first.cpu).Seconds() / span.Seconds()
	}
	return f
}

// slope is the least-squares growth per hour.
func slope(readings []reading) float64 {
	var n, x, y, xx, xy float64
	for _, r := range readings {
		h := r.at.Hours()
		n, x, y, xx, xy = n+1, x+h, y+r.rss, xx+h*h, xy+h*r.rss
	}
	if d := n*xx - x*x; d > 0 {
		return (n*xy - x*y) / d
	}
	return 0
}
