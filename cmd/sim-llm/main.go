// SPDX-License-Identifier: Apache-2.0

// Command sim-llm serves a SIMULATED language model over the OpenAI API.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/simllm"
	"github.com/spotbench/spotbench/pkg/version"
)

// shutdownGrace is how long streams may go on after SIGTERM.
const shutdownGrace = 2 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "sim-llm: %v\n", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var cfg simllm.Config
	var listen, byGPU string
	cmd := &cobra.Command{
		Use:   "sim-llm --model NAME",
		Short: "A SIMULATED language model behind the OpenAI streaming API",
		Long: `sim-llm answers the OpenAI completion API with meaningless tokens at a set pace.
No model is loaded and no GPU is used: it is SIMULATED, and says so in its log,
its list of models and the system_fingerprint of every answer.

On a pod that Spotbench's scheduler placed, --itl-by-gpu sets the pace by the
model of GPU in the environment variable SPOTBENCH_PLACEMENT.`,
		Args: cobra.NoArgs, Version: version.String(), SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			paces, err := simllm.ParseGPUPaces(byGPU)
			if err != nil {
				return err
			}
			gpuModel, err := placedOn(os.Getenv("SPOTBENCH_PLACEMENT"))
			if err != nil {
				return err
			}
			cfg.Pace.ITL = paces.For(gpuModel, cfg.Pace.ITL)
			return serve(cmd.Context(), cfg, listen, gpuModel)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Model, "model", "", "name of the model to answer as")
	f.StringVar(&listen, "listen", "127.0.0.1:8080", "address to serve on")
	f.DurationVar(&cfg.Pace.TTFT, "ttft", 200*time.Millisecond, "time to first token")
	f.DurationVar(&cfg.Pace.ITL, "itl", 10*time.Millisecond, "time between tokens")
	f.StringVar(&byGPU, "itl-by-gpu", "", "time between tokens by GPU model, for example H100-80GB=8ms,A100-80GB=12ms,L4-24GB=30ms")
	f.IntVar(&cfg.MaxConcurrency, "max-concurrency", 64, "requests answered at a time; more wait")
	return cmd
}

// placedOn is the GPU model of the placement annotation; "" when there is none.
func placedOn(annotation string) (string, error) {
	if annotation == "" {
		return "", nil
	}
	p, err := benchspec.ParsePlacement(annotation)
	if err != nil {
		return "", fmt.Errorf("environment variable SPOTBENCH_PLACEMENT: %w", err)
	}
	return p.GPUModel, nil
}

func serve(ctx context.Context, cfg simllm.Config, listen, gpuModel string) error {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	handler, err := simllm.New(cfg, registry)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("--listen %q: %w; choose a free host:port, for example 127.0.0.1:8080", listen, err)
	}
	// Requests outlive ctx until the grace period is over.
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	log.InfoContext(ctx, "serving a SIMULATED model: no model is loaded, tokens are made up", "simulated", true,
		"model", cfg.Model, "address", listener.Addr().String(), "gpuModel", gpuModel, "ttft", cfg.Pace.TTFT.String(),
		"itl", cfg.Pace.ITL.String(), "maxConcurrency", cfg.MaxConcurrency, "version", version.Release())

	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve on %s: %w", listen, err)
	case <-ctx.Done():
	}
	log.InfoContext(ctx, "stopping", "grace", shutdownGrace.String())
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := server.Shutdown(grace); errors.Is(err, context.DeadlineExceeded) {
		log.WarnContext(ctx, "closing streams that did not end within the grace period")
		return server.Close()
	} else if err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return nil
}
