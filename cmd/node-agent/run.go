// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/spotbench/spotbench/pkg/agent"
	"github.com/spotbench/spotbench/pkg/agent/cri"
	"github.com/spotbench/spotbench/pkg/agent/delivery"
	"github.com/spotbench/spotbench/pkg/agent/spool"
	"github.com/spotbench/spotbench/pkg/agent/transparent"
	"github.com/spotbench/spotbench/pkg/apiserver"
	"github.com/spotbench/spotbench/pkg/checkpoint"
	"github.com/spotbench/spotbench/pkg/interruption"
	"github.com/spotbench/spotbench/pkg/interruption/endpoint"
	"github.com/spotbench/spotbench/pkg/interruption/provider"
	"github.com/spotbench/spotbench/pkg/probes"
	"github.com/spotbench/spotbench/pkg/telemetry/exporter"
	"github.com/spotbench/spotbench/pkg/telemetry/health"
	"github.com/spotbench/spotbench/pkg/telemetry/monitor"
	"github.com/spotbench/spotbench/pkg/telemetry/podresources"
	"github.com/spotbench/spotbench/pkg/version"
	"github.com/spotbench/spotbench/pkg/workflow"
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

// garbage is the share of the memory in use that may go to waste before it is collected,
// in percent, unless GOGC says otherwise. Go's own is 100.
const garbage = 75

func run(ctx context.Context, c config, log *slog.Logger) error {
	log.Info("starting", "version", version.String())
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	klog.SetSlogLogger(log) // what client-go has to say
	cluster, err := clusterConfig(c.kubeconfig)
	if err != nil {
		return err
	}
	client, err := apiserver.New(cluster)
	if err != nil {
		return err
	}
	store, err := c.openStore(ctx)
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
	reader := &nodeGPUs{c: c, log: log}
	idle := make(chan bool, 1)
	defer func() {
		select {
		case done := <-idle:
			if done {
				reader.Close()
			}
		default: // never started
		}
	}()
	gpus := monitor.New(reader, holders, health.Limits{}, c.sample, log)
	// On the volumes' own file system, so that files can be held by links.
	hold := filepath.Join(c.kubeletRoot, "plugins", "spotbench-node-agent", "hold")
	if err := os.RemoveAll(hold); err != nil {
		return fmt.Errorf("what an earlier agent held: %w", err)
	}
	settings := agent.Config{Node: c.node, KubeletRoot: c.kubeletRoot, HoldDir: hold, JournalDir: filepath.Join(c.stateDir, "pods"), MaintenanceLead: c.maintenanceLead}
	if c.containers {
		settings.Memories = memories{containers}
	}
	var workflows *workflow.Keeper
	if err := workflow.CheckNode(c.node); err != nil && c.workflows {
		log.Warn("no workflow is suspended on a notice to this node", "error", err)
	} else if c.workflows {
		events := record.NewBroadcaster()
		defer events.Shutdown()
		events.StartRecordingToSink(client.Events())
		workflows, err = workflow.NewKeeper(workflow.Config{Node: c.node, Namespace: c.namespace, Cluster: cluster, Metrics: registry, Log: log,
			Events: events.NewRecorder(apiserver.Scheme, corev1.EventSource{Component: agent.Component, Host: c.node})})
		if err != nil {
			return fmt.Errorf("suspending workflows: %w", err)
		}
		settings.Workflows = workflows
	}
	a, err := agent.New(settings, client, store, containers, gpus, queue, registry, log)
	if err != nil {
		return err
	}
	watcher, err := provider.New(provider.Options{Provider: c.provider, Endpoint: c.metadata, Node: c.node, Interval: c.poll,
		PreemptionNotice: c.preemption, MaintenanceNotice: c.maintenance, Metrics: endpoint.NewMetrics(registry), Log: log})
	if err != nil {
		return err
	}

	stopProbes, err := probes.Start(ctx, "--listen", c.listen, registry, a.Ready)
	if err != nil {
		return err
	}
	defer stopProbes()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.Run(ctx) })
	group.Go(func() error { a.ClearStale(ctx, watcher.Quiet); return nil })
	group.Go(func() error { idle <- gpus.Run(ctx); return nil })
	if c.gpuMetrics != "" && c.telemetry != telemetryOff {
		group.Go(func() error { serveGPUs(ctx, c.gpuMetrics, exporter.New(gpus, c.node), log); return nil })
	}
	if c.gpuHealth && c.telemetry != telemetryOff {
		group.Go(func() error { a.WatchGPUs(ctx, gpus.Health); return nil })
	}
	if workflows != nil {
		group.Go(func() error { workflows.Run(ctx, func() bool { return !a.Threatened() }); return nil })
	}
	group.Go(func() error {
		watcher.Run(ctx, func(event interruption.Event) {
			for _, event := range followed(event, c.leaveOnRebalance) {
				a.Heed(event)
				group.Go(func() error { handle(ctx, a, watcher, c.acknowledge, event, log); return nil })
			}
		})
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
		group.Go(func() error { ensureBucket(ctx, c.store.url, log); return nil })
	}
	err = group.Wait()
	log.Info("stopped", "recordsWaiting", queue.Len())
	return err
}

// memories checkpoints containers by the runtime, and CRIU that the node has.
type memories struct{ *cri.Runtime }

func (m memories) Node(ctx context.Context) (transparent.Node, error) {
	node, err := transparent.Look(ctx, transparent.HostRoot)
	if errors.Is(err, fs.ErrPermission) {
		return node, fmt.Errorf("%w; --container-checkpoints needs the component node-agent-privileged, which lets the agent look at the node's CRIU", err)
	}
	if err != nil {
		return node, err
	}
	node.Runtime, node.Version, err = m.Version(ctx)
	return node, err
}

// leaveWithin is the time that pods get to leave a machine that the cloud advises to leave.
const leaveWithin = 2 * time.Minute

// followed are the events to act upon: the cloud's, and where its recommendation to leave
// the machine is to be followed, the end of the machine for its pods.
func followed(event interruption.Event, leaveOnRebalance bool) []interruption.Event {
	if !leaveOnRebalance || event.Kind != interruption.KindRebalance {
		return []interruption.Event{event}
	}
	leave := event
	leave.ID += "-leave"
	leave.CloudID, leave.Kind, leave.Action, leave.Deadline = "", interruption.KindTermination, "rebalance", event.SeenAt.Add(leaveWithin)
	return []interruption.Event{event, leave}
}

// handle acts on an event. A cloud that waits for an answer gets it only when nothing
// is left on the node that could still be saved.
func handle(ctx context.Context, a *agent.Agent, source interruption.Source, acknowledge bool, event interruption.Event, log *slog.Logger) {
	if event.Withdrawn {
		a.Withdraw(ctx, event.Notice)
		return
	}
	if !a.HandleNotice(ctx, event.Notice) || !acknowledge {
		return
	}
	acknowledged, err := source.Acknowledge(ctx, event.Notice)
	switch {
	case err != nil:
		log.Warn("the cloud does not take the acknowledgement; it will go ahead at the deadline", "notice", event.ID, "error", err)
	case acknowledged:
		log.Info("the cloud was told to go ahead", "notice", event.ID, "phase", "acknowledged")
	}
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

func clusterConfig(kubeconfig string) (*rest.Config, error) {
	config, err := rest.InClusterConfig()
	if kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("credentials for the API server: %w; outside a cluster give --kubeconfig", err)
	}
	config.UserAgent = "spotbench-node-agent/" + version.Release()
	config.QPS, config.Burst = 50, 100 // a notice is no time to be throttled by oneself
	return config, nil
}

func buildInfo() prometheus.Collector {
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "spotbench_build_info", Help: "Always 1; its labels say which build this is.",
		ConstLabels: prometheus.Labels{"version": version.Release(), "component": "node-agent"}})
	info.Set(1)
	return info
}
