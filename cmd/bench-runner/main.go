// SPDX-License-Identifier: Apache-2.0

// Command bench-runner measures an OpenAI-compatible streaming server, and goes on
// where it stopped when it is interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"github.com/spotbench/spotbench/pkg/bench"
	"github.com/spotbench/spotbench/pkg/bench/openai"
	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/probes"
	"github.com/spotbench/spotbench/pkg/version"
)

// exitInterrupted is EX_TEMPFAIL of sysexits.h: not finished, worth another start.
const exitInterrupted = 75

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := command().ExecuteContext(ctx)
	stop()
	switch {
	case errors.Is(err, bench.ErrInterrupted):
		slog.New(slog.NewJSONHandler(os.Stderr, nil)).Warn("interrupted", "exitCode", exitInterrupted, "detail", err.Error())
		os.Exit(exitInterrupted)
	case err != nil:
		fmt.Fprintf(os.Stderr, "bench-runner: %v\n", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var opts bench.Options
	var metricsAddr string
	cmd := &cobra.Command{
		Use:   "bench-runner --model NAME --benchmark NAME",
		Short: "Measure an OpenAI-compatible streaming server, resumably",
		Long: `bench-runner measures time to first token, time between tokens, latency and
throughput of an OpenAI-compatible streaming server, one concurrency level after
the other, and writes a result with vLLM's keys for each.

Finished requests are kept in --checkpoint-dir. Started again with the same flags
and that directory, on whatever machine, it measures what is missing.

Exit codes: 0 everything is measured, 75 interrupted by SIGTERM or SIGINT (start
again to go on), 1 an error. SIGUSR1 writes the checkpoint to the disk at once.

Environment: NODE_NAME, SPOTBENCH_PLACEMENT and NVIDIA_VISIBLE_DEVICES say where it
runs and are noted in the results; OPENAI_API_KEY is sent as bearer token.`,
		Args: cobra.NoArgs, Version: version.String(), SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.APIKey = os.Getenv("OPENAI_API_KEY")
			if err := locate(&opts, os.Getenv); err != nil {
				return err
			}
			return run(cmd.Context(), opts, metricsAddr)
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.BaseURL, "base-url", "http://127.0.0.1:8080", "address of the server, without /v1")
	f.StringVar(&opts.Endpoint, "endpoint", string(openai.Completions), "completions (/v1/completions) or chat (/v1/chat/completions)")
	f.StringVar(&opts.Model, "model", "", "model to measure, as the server lists it")
	f.StringVar(&opts.Benchmark, "benchmark", "", "name of the benchmark; result files begin with it")
	f.IntSliceVar(&opts.Concurrency, "concurrency", []int{1, 4, 16}, "requests in flight, one level after the other")
	f.IntVar(&opts.Requests, "requests", 100, "measured requests per level")
	f.IntVar(&opts.Warmup, "warmup", 4, "requests before each level, and after each resume, that are not measured")
	f.IntVar(&opts.InputTokens, "input-tokens", 512, "words per prompt")
	f.IntVar(&opts.OutputTokens, "output-tokens", 128, "tokens per answer")
	f.BoolVar(&opts.IgnoreEOS, "ignore-eos", true, "ask for answers of exactly --output-tokens (vLLM, SGLang, TensorRT-LLM); false for servers that refuse the field")
	f.Uint64Var(&opts.Seed, "seed", 0, "seed of the prompts")
	f.StringVar(&opts.CheckpointDir, "checkpoint-dir", "/checkpoint", "directory for finished requests")
	f.StringVar(&opts.ResultsDir, "results-dir", "/results", "directory for result files")
	f.DurationVar(&opts.WaitReady, "wait-ready", 5*time.Minute, "how long the server may take to list the model")
	f.DurationVar(&opts.RequestTimeout, "request-timeout", 10*time.Minute, "how long one request may take")
	f.IntVar(&opts.MaxFailures, "max-failures", 10, "attempts that may fail per level (each is made again) before the run does")
	f.StringVar(&metricsAddr, "metrics-addr", ":9090", "address of /healthz, /readyz and /metrics; empty for none")
	return cmd
}

// locate reads where the pod runs from its environment.
func locate(opts *bench.Options, env func(string) string) error {
	opts.Node = env("NODE_NAME")
	if annotation := env("SPOTBENCH_PLACEMENT"); annotation != "" {
		p, err := benchspec.ParsePlacement(annotation)
		if err != nil {
			return fmt.Errorf("environment variable SPOTBENCH_PLACEMENT: %w", err)
		}
		opts.GPUModel = p.GPUModel
		if opts.Node == "" {
			opts.Node = p.Node
		}
	}
	for device := range strings.SplitSeq(env("NVIDIA_VISIBLE_DEVICES"), ",") {
		// "all", "none" and indices name no card.
		if strings.HasPrefix(device, "GPU-") || strings.HasPrefix(device, "MIG-") {
			opts.GPUUUIDs = append(opts.GPUUUIDs, device)
		}
	}
	return nil
}

func run(ctx context.Context, opts bench.Options, metricsAddr string) (err error) {
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	runner, err := bench.New(opts, log, registry)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, runner.Close()) }()
	if metricsAddr != "" {
		stop, err := probes.Start(ctx, "--metrics-addr", metricsAddr, registry, probes.Always)
		if err != nil {
			return err
		}
		defer stop()
	}
	flushing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go flushOnSignal(flushing, runner, log)
	log.InfoContext(ctx, "starting", "version", version.Release(), "server", opts.BaseURL, "model", opts.Model, "benchmark", opts.Benchmark,
		"levels", opts.Concurrency, "node", opts.Node, "gpuModel", opts.GPUModel, "gpus", len(opts.GPUUUIDs))
	if err := runner.Run(ctx); err != nil {
		return err
	}
	log.InfoContext(ctx, "finished")
	return nil
}

// flushOnSignal writes the checkpoint to the disk at every SIGUSR1.
func flushOnSignal(ctx context.Context, runner *bench.Runner, log *slog.Logger) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	defer signal.Stop(signals)
	for {
		select {
		case <-signals:
			if err := runner.Flush(); err != nil {
				log.ErrorContext(ctx, "checkpoint not flushed", "error", err.Error())
				continue
			}
			log.InfoContext(ctx, "checkpoint flushed")
		case <-ctx.Done():
			return
		}
	}
}
