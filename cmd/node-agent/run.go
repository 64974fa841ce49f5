// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/spotbench/spotbench/pkg/agent"
	"github.com/spotbench/spotbench/pkg/agent/cri"
	"github.com/spotbench/spotbench/pkg/agent/delivery"
	"github.com/spotbench/spotbench/pkg/agent/spool"
	"github.com/spotbench/spotbench/pkg/checkpoint"
	"github.com/spotbench/spotbench/pkg/interruption"
	"github.com/spotbench/spotbench/pkg/interruption/aws"
	"github.com/spotbench/spotbench/pkg/telemetry"
	"github.com/spotbench/spotbench/pkg/telemetry/monitor"
	"github.com/spotbench/spotbench/pkg/telemetry/nvml"
	"github.com/spotbench/spotbench/pkg/telemetry/podresources"
	"github.com/spotbench/spotbench/pkg/version"
)

func runCommand() *cobra.Command {
	var c config
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the agent of this node until it is told to stop",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd.Flags()); err != nil {
				return err
			}
			if err := c.validate(); err != nil {
				return err
			}
			level, err := c.level()
			if err != nil {
				return err
			}
			log := slog.New(slog.NewJSONHandler(cmd.OutOrStdout(), &slog.HandlerOptions{Level: level})).With("node", c.node)
			return run(cmd.Context(), c, log)
		},
	}
	c.flags(cmd.Flags())
	return cmd
}

func run(ctx context.Context, c config, log *slog.Logger) error {
	log.Info("starting", "version", version.String())
	client, err := kubernetesClient(c.kubeconfig)
	if err != nil {
		return err
	}
	store, err := checkpoint.Open(ctx, c.store, c.keep)
	if err != nil {
		return err
	}
	defer store.Close()
	containers, err := cri.Dial(c.containerSocket)
	if err != nil {
		return err
	}
	defer containers.Close()
	queue, err := spool.Open(filepath.Join(c.stateDir, "spool"), log)
	if err != nil {
		return err
	}
	holders, err := podresources.Dial(filepath.Join(c.kubeletRoot, "pod-resources", "kubelet.sock"))
	if err != nil {
		return err
	}
	defer holders.Close()

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())
	gpus := monitor.New(openGPUs(c.nvmlLibrary, log), holders, c.node, c.sample, log)
	registry.MustRegister(gpus)
	// On the volumes' own file system, so that files can be held by links.
	hold := filepath.Join(c.kubeletRoot, "plugins", "spotbench-node-agent", "hold")
	if err := os.RemoveAll(hold); err != nil {
		return fmt.Errorf("what an earlier agent held: %w", err)
	}
	a, err := agent.New(agent.Config{Node: c.node, KubeletRoot: c.kubeletRoot, HoldDir: hold}, client, store, containers, gpus, queue, registry, log)
	if err != nil {
		return err
	}
	watcher, err := aws.New(aws.Options{Endpoint: c.metadata, Interval: c.poll, Log: log})
	if err != nil {
		return err
	}

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.Run(ctx) })
	group.Go(func() error { a.ClearStale(ctx, watcher.Quiet); return nil })
	group.Go(func() error { gpus.Run(ctx); return nil })
	group.Go(func() error { return serve(ctx, c.listen, a, registry) })
	group.Go(func() error {
		watcher.Run(ctx, func(event interruption.Event) { group.Go(func() error { handle(ctx, a, event); return nil }) })
		return nil
	})
	if c.catalog != "" {
		deliver, err := delivery.New(c.catalog, c.catalogToken, c.catalogCA)
		if err != nil {
			return err
		}
		group.Go(func() error { queue.Run(ctx, deliver.Deliver); return nil })
	}
	if c.ensureBucket {
		group.Go(func() error { ensureBucket(ctx, c.store, log); return nil })
	}
	err = group.Wait()
	log.Info("stopped", "recordsWaiting", queue.Len())
	return err
}

func handle(ctx context.Context, a *agent.Agent, event interruption.Event) {
	if event.Withdrawn {
		a.Withdraw(ctx, event.Notice)
		return
	}
	a.HandleNotice(ctx, event.Notice)
}

// ensureBucket tries until the object store answers; a cluster's own may start
// after its agents.
func ensureBucket(ctx context.Context, url string, log *slog.Logger) {
	for said := false; ; {
		err := checkpoint.EnsureBucket(ctx, url)
		if err == nil {
			log.Info("the checkpoint store is there")
			return
		}
		if !said {
			log.Warn("the checkpoint store cannot be reached yet", "error", err)
			said = true
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
}

// noGPUs is a node whose management library cannot be used: its pods are saved
// all the same, without telemetry.
type noGPUs struct{}

func (noGPUs) Read() ([]telemetry.Reading, error) { return nil, nil }

func openGPUs(library string, log *slog.Logger) monitor.Reader {
	reader, err := nvml.Open(library)
	if err != nil {
		log.Warn("no GPU telemetry on this node", "error", err)
		return noGPUs{}
	}
	driver, err := reader.DriverVersion()
	if err != nil {
		log.Warn("the driver does not say its version", "error", err)
	}
	log.Info("reading GPUs through NVML", "driver", driver)
	return reader
}

func kubernetesClient(kubeconfig string) (kubernetes.Interface, error) {
	config, err := rest.InClusterConfig()
	if kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("credentials for the API server: %w; outside a cluster give --kubeconfig", err)
	}
	config.UserAgent = "spotbench-node-agent/" + version.Release()
	config.QPS, config.Burst = 50, 100 // a notice is no time to be throttled by oneself
	return kubernetes.NewForConfig(config)
}

func buildInfo() prometheus.Collector {
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "spotbench_build_info", Help: "Always 1; its labels say which build this is.",
		ConstLabels: prometheus.Labels{"version": version.Release(), "component": "node-agent"}})
	info.Set(1)
	return info
}

// serve answers health, readiness and metrics until ctx ends.
func serve(ctx context.Context, address string, a *agent.Agent, registry *prometheus.Registry) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := a.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second}
	stopped := context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		_ = server.Shutdown(ctx)
	})
	defer stopped()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("listen on %s: %w", address, err)
	}
	return nil
}
