// SPDX-License-Identifier: Apache-2.0

// Package bench measures an OpenAI-compatible streaming server: time to first
// token, time between tokens, latency and throughput, one concurrency level after
// the other, each as a closed loop. It can be interrupted at any moment and goes
// on from its checkpoint, on another machine if need be.
package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/spotbench/spotbench/pkg/bench/openai"
	"github.com/spotbench/spotbench/pkg/bench/progress"
	"github.com/spotbench/spotbench/pkg/bench/report"
)

const (
	progressEvery = 2 * time.Second
	pollEvery     = 500 * time.Millisecond
	// While the server is waited for: how long one question may take, and how often
	// the reason is logged.
	askFor    = 10 * time.Second
	tellEvery = 5 * time.Second
	// Waits before a failed request is sent again double from retryFirst to retryMost.
	retryFirst = 250 * time.Millisecond
	retryMost  = 5 * time.Second
)

// ErrInterrupted is returned by Run when its context ended before the sweep did.
var ErrInterrupted = errors.New("interrupted before the end: start again with the same checkpoint to go on")

// Runner is one process's part of a benchmark.
type Runner struct {
	opts   Options
	log    *slog.Logger
	client *openai.Client
	saved  *progress.Log
	live   *live
}

// New checks the options and opens the checkpoint; the caller closes the Runner.
func New(opts Options, log *slog.Logger, reg prometheus.Registerer) (*Runner, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	if info, err := os.Stat(opts.ResultsDir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("--results-dir %q: not a directory; mount a volume there or create it", opts.ResultsDir)
	}
	saved, err := progress.Open(opts.CheckpointDir, opts.Config)
	if err != nil {
		return nil, err
	}
	r := &Runner{opts: opts, log: log, saved: saved, live: newLive(reg)}
	most := 0
	for _, c := range opts.Concurrency {
		most = max(most, c)
	}
	r.client = openai.New(opts.BaseURL, openai.Endpoint(opts.Endpoint), opts.APIKey, most, func() { r.live.tokens.Add(1) })
	saved.State(func(s *progress.State) { r.live.completed.Store(int64(s.Completed())) })
	r.live.requests.Store(int64(opts.Requests * len(opts.Concurrency)))
	r.live.concurrency.Store(int64(opts.Concurrency[0]))
	log.Info("checkpoint opened", "resumed", r.live.completed.Load() > 0, "completed", r.live.completed.Load(),
		"requests", r.live.requests.Load(), "droppedBytes", saved.Dropped)
	return r, nil
}

// Flush returns when every finished request is on the disk.
func (r *Runner) Flush() error { return r.saved.Sync() }

// Close saves and closes the checkpoint.
func (r *Runner) Close() error {
	r.client.Close()
	return r.saved.Close()
}

// Run measures what the checkpoint lacks and writes each level's result as soon as
// it has all of its requests. It returns nil only when all levels are finished, and
// ErrInterrupted when ctx ended before that.
func (r *Runner) Run(ctx context.Context) error {
	reporting, stop := context.WithCancel(ctx)
	defer stop()
	go r.report(reporting)
	err := r.sweep(ctx)
	if err != nil && ctx.Err() != nil {
		// Not ErrInterrupted when the checkpoint failed: its status says that all is saved.
		if err := r.saved.Sync(); err != nil {
			return err
		}
		return ErrInterrupted
	}
	return err
}

func (r *Runner) sweep(ctx context.Context) error {
	ready := false
	for _, c := range r.opts.Concurrency {
		pending := r.pending(c)
		if len(pending) > 0 && !ready {
			if err := r.waitReady(ctx); err != nil {
				return err
			}
			ready = true
		}
		if len(pending) > 0 {
			if err := r.measure(ctx, c, pending); err != nil {
				return err
			}
		}
		if err := r.finish(c); err != nil {
			return err
		}
	}
	return nil
}

// pending is the ids of a level that are not measured yet.
func (r *Runner) pending(concurrency int) []int {
	var ids []int
	r.saved.State(func(s *progress.State) {
		for id := range r.opts.Requests {
			if !s.Done(concurrency, id) {
				ids = append(ids, id)
			}
		}
	})
	return ids
}

// waitReady returns when the server lists the model.
func (r *Runner) waitReady(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, r.opts.WaitReady)
	defer cancel()
	var last error
	var told time.Time
	for {
		// A server that accepts and never answers is asked again, as one that refuses is.
		try, done := context.WithTimeout(limited, askFor)
		err := r.client.Ready(try, r.opts.Model)
		done()
		if err == nil || errors.Is(err, openai.ErrNoModel) || errors.Is(err, openai.ErrRefused) {
			return err
		}
		if limited.Err() == nil {
			last = err
			if time.Since(told) > tellEvery {
				told = time.Now()
				r.log.InfoContext(ctx, "waiting for the server", "server", r.opts.BaseURL, "reason", err.Error())
			}
		}
		if pause(limited, pollEvery) != nil {
			return fmt.Errorf("--base-url %s: not ready within --wait-ready %v: %w", r.opts.BaseURL, r.opts.WaitReady, errors.Join(last, ctx.Err()))
		}
	}
}

// measure warms the server up, which nothing counts, and then sends the pending
// requests, concurrency at a time.
func (r *Runner) measure(ctx context.Context, concurrency int, pending []int) error {
	r.live.concurrency.Store(int64(concurrency))
	r.live.windowStart.Store(0)
	f := &failures{most: r.opts.MaxFailures}
	warm := make([]int, r.opts.Warmup)
	for i := range warm {
		warm[i] = i
	}
	err := r.loop(ctx, concurrency, warm, func(ctx context.Context, id int) error {
		_, err := r.attempt(ctx, f, warming, concurrency, id)
		return err
	})
	if err != nil {
		return fmt.Errorf("concurrency %d: warm-up: %w", concurrency, err)
	}
	start := time.Now()
	if err := r.saved.Begin(progress.Window{
		// Without its monotonic clock, which the file does not keep.
		Concurrency: concurrency, Start: start.Round(0).UTC(), Node: r.opts.Node, GPUModel: r.opts.GPUModel, GPUUUIDs: r.opts.GPUUUIDs,
	}); err != nil {
		return err
	}
	r.live.begin(start)
	defer r.live.windowStart.Store(0)
	err = r.loop(ctx, concurrency, pending, func(ctx context.Context, id int) error {
		s, err := r.attempt(ctx, f, measured, concurrency, id)
		if err != nil {
			return err
		}
		return r.record(id, start, s)
	})
	if err != nil {
		return fmt.Errorf("concurrency %d: %w", concurrency, err)
	}
	return nil
}

// loop calls do for each id, concurrency of them at a time: as one ends the next
// begins. The first error ends it, and the others' requests with it.
func (r *Runner) loop(ctx context.Context, concurrency int, ids []int, do func(context.Context, int) error) error {
	next := make(chan int)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(next)
		for _, id := range ids {
			select {
			case next <- id:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range min(concurrency, len(ids)) {
		group.Go(func() error {
			for id := range next {
				if err := do(ctx, id); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// failures counts the failed attempts of one level.
type failures struct {
	mu          sync.Mutex
	count, most int
}

func (f *failures) add(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count++; f.count > f.most {
		return fmt.Errorf("%d requests failed, more than --max-failures %d; the last: %w", f.count, f.most, err)
	}
	return nil
}

// attempt sends a request until it succeeds or too many have failed.
func (r *Runner) attempt(ctx context.Context, f *failures, stream uint64, concurrency, id int) (openai.Sample, error) {
	q := openai.Request{
		Model: r.opts.Model, MaxTokens: r.opts.OutputTokens, IgnoreEOS: r.opts.IgnoreEOS,
		Prompt: prompt(r.opts.Seed, stream, concurrency, id, r.opts.InputTokens),
	}
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		limited, cancel := context.WithTimeout(ctx, r.opts.RequestTimeout)
		s, err := r.client.Complete(limited, q)
		cancel()
		if err == nil {
			return s, nil
		}
		if ctx.Err() != nil {
			return s, ctx.Err()
		}
		r.live.failures.Inc()
		r.log.WarnContext(ctx, "request failed and is sent again", "level", concurrency, "id", id, "error", err.Error())
		if stream == measured {
			if err := r.saved.Fail(progress.Failure{ID: id, Error: err.Error()}); err != nil {
				return s, err
			}
		}
		if err := f.add(err); err != nil {
			return s, err
		}
		if err := pause(ctx, wait); err != nil {
			return s, err
		}
	}
}

func (r *Runner) record(id int, windowStart time.Time, s openai.Sample) error {
	q := progress.Request{
		ID: id, EndedNS: time.Since(windowStart).Nanoseconds(), TTFTNS: s.TTFT.Nanoseconds(), LatencyNS: s.Latency.Nanoseconds(),
		ITLNS: make([]int64, len(s.ITLs)), Input: s.InputTokens, Output: s.OutputTokens, Fingerprint: s.Fingerprint,
	}
	for i, d := range s.ITLs {
		q.ITLNS[i] = d.Nanoseconds()
	}
	if q.Input == 0 {
		q.Input = r.opts.InputTokens
	}
	if err := r.saved.Finish(q); err != nil {
		return err
	}
	r.live.completed.Add(1)
	r.live.ttft.Observe(s.TTFT.Seconds())
	r.live.latency.Observe(s.Latency.Seconds())
	return nil
}

// finish writes a level's result. The checkpoint is on the disk before it: a
// result that the checkpoint could not give again must not exist.
func (r *Runner) finish(concurrency int) error {
	if err := r.saved.Sync(); err != nil {
		return err
	}
	var result report.Result
	r.saved.State(func(s *progress.State) {
		result = report.Of(r.opts.Config, concurrency, s.Point(concurrency), s.Failures[concurrency])
	})
	content, err := result.Encode()
	if err != nil {
		return err
	}
	name := report.Name(r.opts.Benchmark, concurrency)
	written, err := report.Write(r.opts.ResultsDir, name, content)
	if err != nil {
		return err
	}
	r.log.Info("level finished", "level", concurrency, "file", name, "written", written, "completedHere", result.Completed,
		"duration", result.Duration, "outputThroughput", result.OutputThroughput, "meanTTFTms", result.MeanTTFT,
		"meanTPOTms", result.MeanTPOT, "segments", len(result.Spotbench.Segments))
	return nil
}

// report logs the progress until ctx ends.
func (r *Runner) report(ctx context.Context) {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			r.log.InfoContext(ctx, "progress", "concurrency", r.live.concurrency.Load(), "completed", r.live.completed.Load(),
				"requests", r.live.requests.Load(), "output_throughput", r.live.throughput(now))
		case <-ctx.Done():
			return
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
