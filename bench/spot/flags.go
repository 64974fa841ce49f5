// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spotbench/spotbench/bench/internal/trace"
	"github.com/spotbench/spotbench/bench/spot/internal/replay"
	"github.com/spotbench/spotbench/pkg/runpolicy"
)

const usage = `Replays recordings of spot capacity and compares policies.

  spot -traces FILE,FILE,... -prices FILE -on-demand 3.06 -work 39.9389h \
       -deadline 59.9083h -restart 0.2h -windows 179.725,299.5417 -policy all

Traces. JSON {"metadata":{"gap_seconds":S},"data":[...],"prices":[...]}, one file
per zone; several files are zones to choose among. Two public families differ in
what a 1 means:
  available   github.com/skypilot-org/spot-traces: data[i] is the number of
              instances up, or launchable, at tick i (1 = available)
  preempted   the simulators' copies (sky_spot, SkyNomad), with
              metadata.price_info: 1 = preempted, 0 = available
-polarity auto takes a trace with metadata.price_info for the second and any other
for the first. Values above 1 are counts of available instances in both; -instances
says how many are needed. The zone is metadata.zone or the file's name up to "_"
(us-east-1a_v100_1.json; the folder's name for full.json and 0.json); the region is
the zone without its last letter.

Spot prices, USD per hour, are looked for in this order:
  1. -prices FILE: {"us-east-1a_v100_1":[1.67,...],...} by the trace's name or
     zone: a number per tick, or one number for all of them
  2. the trace's own "prices", one per tick (spot-traces preemption/ and SkyNomad)
  3. the trace's metadata.price_info.price
A trace without any price is refused. -on-demand 0 takes
metadata.price_info.on_demand_price.

Ours has watched the zones before its run begins, as a cluster that keeps records
has: it learns from the recording up to the start of the window, never from later.
-history 0 starts it knowing nothing, as the other policies do.

Policies: ours, on-demand, greedy, uniform-progress (with several zones: eager
failover), optimum (omniscient), all; several with commas.

Flags:
`

type options struct {
	traces   []string
	prices   string
	onDemand float64
	job      runpolicy.Job
	windows  string
	policies []string
	json     string
	draw     string

	polarity  trace.Polarity
	instances int
	history   time.Duration
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("spot", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, usage)
		fs.PrintDefaults()
	}
	traces := fs.String("traces", "", "traces to replay together, separated by commas")
	fs.StringVar(&o.prices, "prices", "", "spot prices by trace")
	fs.Float64Var(&o.onDemand, "on-demand", 0, "on-demand price in USD per hour; 0 for the traces' own")
	fs.DurationVar(&o.job.Work, "work", 24*time.Hour, "how long the run takes if never interrupted")
	fs.DurationVar(&o.job.Deadline, "deadline", 36*time.Hour, "time from the start by which it must be finished")
	fs.DurationVar(&o.job.Restart, "restart", 3*time.Minute, "time from an instance's start to the work going on")
	fs.Float64Var(&o.job.MoveUSD, "move-cost", 0, "USD to take the run's data to another region")
	fs.StringVar(&o.windows, "windows", "every:60h", "start hours, separated by commas, or every:DURATION")
	policies := fs.String("policy", "all", "policies, separated by commas")
	fs.StringVar(&o.json, "json", "", "write the figures to this file as JSON; - for the output")
	fs.StringVar(&o.draw, "draw", "", "draw availability and schedule of every window into this folder, as SVG and PNG")
	polarity := fs.String("polarity", string(trace.Auto), "what a 1 in a trace means: auto, available or preempted")
	fs.IntVar(&o.instances, "instances", 1, "instances needed at once, for traces with counts")
	fs.DurationVar(&o.job.Checkpoint, "checkpoint", 0, "work between checkpoints, lost when interrupted in between; 0 when each interruption leaves time for one")
	fs.DurationVar(&o.history, "history", 8760*time.Hour, "how much of the recording before a window ours has watched; 0 for none")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	o.polarity = trace.Polarity(*polarity)
	if !slices.Contains([]trace.Polarity{trace.Auto, trace.Available, trace.Preempted}, o.polarity) {
		return o, fmt.Errorf("-polarity is %q; write auto, available or preempted", *polarity)
	}
	if *traces == "" {
		return o, errors.New("-traces is missing; name one file per zone")
	}
	o.traces = strings.Split(*traces, ",")
	if !(o.onDemand >= 0) || math.IsInf(o.onDemand, 0) {
		return o, fmt.Errorf("-on-demand is %v; write USD per hour, or 0 for the traces' own", o.onDemand)
	}
	for name, d := range map[string]time.Duration{"-restart": o.job.Restart, "-checkpoint": o.job.Checkpoint, "-history": o.history} {
		if d < 0 {
			return o, fmt.Errorf("%s is %v; write 0 or more", name, d)
		}
	}
	if o.job.Work <= 0 {
		return o, fmt.Errorf("-work is %v; write how long the run takes, above 0", o.job.Work)
	}
	if least := o.job.Work + o.job.Restart; o.job.Deadline < least {
		return o, fmt.Errorf("-deadline is %v, but -work and one -restart take %v: not even on-demand capacity can meet it; write that or more", o.job.Deadline, least)
	}
	if !(o.job.MoveUSD >= 0) || math.IsInf(o.job.MoveUSD, 0) {
		return o, fmt.Errorf("-move-cost is %v; write USD, 0 or more", o.job.MoveUSD)
	}
	o.policies = strings.Split(*policies, ",")
	if *policies == "all" {
		o.policies = names()
	}
	for _, p := range o.policies {
		if !slices.Contains(names(), p) {
			return o, fmt.Errorf("-policy names %q; write all or some of %s", p, strings.Join(names(), ","))
		}
	}
	return o, nil
}

// setting reads the files; what may be wrong with them is said on stderr.
func (o *options) setting(read func(string) ([]byte, error), stderr io.Writer) (*replay.Setting, error) {
	prices := trace.Prices{}
	if o.prices != "" {
		data, err := read(o.prices)
		if err != nil {
			return nil, err
		}
		if prices, err = trace.ParsePrices(data); err != nil {
			return nil, fmt.Errorf("%s: %w", o.prices, err)
		}
	}
	s := &replay.Setting{Job: o.job}
	for _, file := range o.traces {
		data, err := read(file)
		if err != nil {
			return nil, err
		}
		t, err := trace.Parse(file, data, o.polarity, o.instances)
		if err != nil {
			return nil, err
		}
		doubt, err := t.Price(prices)
		if err != nil {
			return nil, err
		}
		if doubt != "" {
			fmt.Fprintln(stderr, "note:", doubt)
		}
		onDemand := o.onDemand
		if onDemand == 0 {
			onDemand = t.OnDemandUSDPerHour
		}
		if onDemand == 0 {
			return nil, fmt.Errorf("-on-demand is missing and trace %s does not say the price; write USD per hour", t.Name)
		}
		s.Traces = append(s.Traces, t)
		s.OnDemandUSDPerHour = append(s.OnDemandUSDPerHour, onDemand)
	}
	cut, err := trace.Align(s.Traces)
	if err != nil {
		return nil, err
	}
	if cut > 0 {
		fmt.Fprintf(stderr, "note: the traces are of different lengths; the first %d ticks (%.1f h) of each are replayed\n", cut, (time.Duration(cut) * s.Traces[0].Gap).Hours())
	}
	s.Job.Step = s.Traces[0].Gap
	return s, s.Job.Check()
}

// starts are the windows' beginnings.
func (o *options) starts(s *replay.Setting) ([]time.Duration, error) {
	var starts []time.Duration
	if every, ok := strings.CutPrefix(o.windows, "every:"); ok {
		step, err := time.ParseDuration(every)
		if err != nil || step <= 0 {
			return nil, fmt.Errorf("-windows is %q; write for example every:60h", o.windows)
		}
		for at := time.Duration(0); s.Fits(at); at += step {
			starts = append(starts, at)
		}
		if len(starts) == 0 {
			return nil, fmt.Errorf("the recording is shorter than the deadline of %v", s.Job.Deadline)
		}
		return starts, nil
	}
	for text := range strings.SplitSeq(o.windows, ",") {
		hours, err := strconv.ParseFloat(text, 64)
		if err != nil || !(hours >= 0) || hours > 1e6 {
			return nil, fmt.Errorf("-windows has %q; write start hours such as 179.725, or every:60h", text)
		}
		at := time.Duration(hours * float64(time.Hour))
		if !s.Fits(at) {
			return nil, fmt.Errorf("-windows has %s: the recording ends before the deadline of a run that starts there", text)
		}
		starts = append(starts, at)
	}
	return starts, nil
}
