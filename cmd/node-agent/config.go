// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/spotbench/spotbench/pkg/checkpoint"
	"github.com/spotbench/spotbench/pkg/interruption/endpoint"
	"github.com/spotbench/spotbench/pkg/interruption/gcp"
	"github.com/spotbench/spotbench/pkg/interruption/provider"
	"github.com/spotbench/spotbench/pkg/telemetry/dcgm"
)

// config is what `node-agent run` is told by flags and environment.
type config struct {
	node             string
	store            storeFlags
	ensureBucket     bool
	keep             int
	maxAge           time.Duration
	uploadLimit      string
	catalog          string
	catalogToken     string
	catalogCA        string
	provider         string
	metadata         string
	poll             time.Duration
	preemption       time.Duration
	maintenance      time.Duration
	maintenanceLead  time.Duration
	acknowledge      bool
	leaveOnRebalance bool
	workflows        bool
	namespace        string
	kubeletRoot      string
	containerSocket  string
	containers       bool
	stateDir         string
	telemetry        string
	dcgm             string
	dcgmLibrary      string
	nvmlLibrary      string
	gpuMetrics       string
	gpuHealth        bool
	sample           time.Duration
	listen           string
	kubeconfig       string
	logLevel         string
}

func (c *config) flags(f *pflag.FlagSet) {
	f.StringVar(&c.node, "node", os.Getenv("NODE_NAME"), "name of this node (env NODE_NAME)")
	c.store.add(f)
	f.BoolVar(&c.ensureBucket, "ensure-bucket", false, "make the bucket of an s3:// store if it is not there")
	f.IntVar(&c.keep, "keep", checkpoint.DefaultKeep, "checkpoints to keep of each run")
	f.DurationVar(&c.maxAge, "max-age", 0, "age at which checkpoints are removed, except the newest of a run (0: none)")
	f.StringVar(&c.uploadLimit, "upload-limit", "", "bytes a second that periodic checkpoints may send together, for example 200Mi; on a notice there is no limit (default none)")
	f.StringVar(&c.catalog, "catalog", "", "URL of the catalog; without it records wait on this node's disk")
	f.StringVar(&c.catalogToken, "catalog-token-file", "", "file with the token for the catalog")
	f.StringVar(&c.catalogCA, "catalog-ca-file", "", "file with the authority of the catalog's certificate (default: the system's)")
	f.StringVar(&c.provider, "provider", provider.Auto, "cloud whose notices are watched for: "+strings.Join(provider.Settings, ", "))
	f.StringVar(&c.metadata, "metadata-endpoint", endpoint.Default, "the cloud's instance metadata service")
	f.DurationVar(&c.poll, "poll-interval", time.Second, "time between two looks for a notice, where the cloud is polled")
	f.DurationVar(&c.preemption, "gcp-preemption-notice", gcp.DefaultNotice, "time from Compute Engine's notice of a preemption to the end: 30s, and the instance's preemptionNoticeDuration")
	f.DurationVar(&c.maintenance, "gcp-maintenance-notice", gcp.DefaultMaintenanceNotice, "time from Compute Engine's notice of host maintenance to the maintenance (it gives instances with GPUs 1h)")
	f.DurationVar(&c.maintenanceLead, "maintenance-lead", 10*time.Minute, "how long before planned maintenance pods are interrupted")
	f.BoolVar(&c.acknowledge, "acknowledge", true, "tell a cloud that waits (Azure) to go ahead once every pod is saved and gone")
	f.BoolVar(&c.leaveOnRebalance, "leave-on-rebalance", false, "on a recommendation to leave the machine interrupt its pods, too, within "+leaveWithin.String()+" (default: checkpoint them and stay)")
	f.BoolVar(&c.workflows, "workflows", true, "suspend the Argo Workflows of interrupted pods until they are saved")
	f.StringVar(&c.namespace, "namespace", env("POD_NAMESPACE", "spotbench-system"), "namespace of the agents' Lease (env POD_NAMESPACE)")
	f.StringVar(&c.kubeletRoot, "kubelet-root", "/var/lib/kubelet", "the kubelet's directory")
	f.StringVar(&c.containerSocket, "container-runtime", "/run/containerd/containerd.sock", "socket of the container runtime")
	f.BoolVar(&c.containers, "container-checkpoints", false, "on a notice also checkpoint the whole container with its memory, by the container runtime and CRIU, where the node can and the time is enough")
	f.StringVar(&c.stateDir, "state-dir", "/var/lib/spotbench", "directory for records that the catalog does not have yet")
	f.StringVar(&c.telemetry, "telemetry", telemetryAuto, "how the GPUs are read: "+strings.Join(telemetrySettings, ", ")+" (auto: DCGM where it is, else NVML)")
	f.StringVar(&c.dcgm, "dcgm", "", "DCGM's host engine: tcp://host:port or unix:///path of one that runs, embedded, or start (default: the one at "+dcgm.DefaultAddress+" if it is there, else embedded)")
	f.StringVar(&c.dcgmLibrary, "dcgm-library", "", "path of libdcgm.so.4 (default: where the dynamic linker finds it)")
	f.StringVar(&c.gpuMetrics, "gpu-metrics-listen", ":9400", "address of the GPUs' /metrics, in dcgm-exporter's names; empty turns it off")
	f.BoolVar(&c.gpuHealth, "gpu-health", true, "set the node's condition GPUHealthy, and taint the node while a GPU cannot be relied on")
	f.StringVar(&c.nvmlLibrary, "nvml-library", "", "path of libnvidia-ml.so.1 (default: where the dynamic linker finds it)")
	f.DurationVar(&c.sample, "sample-interval", time.Second, "time between two samples of the GPUs")
	f.StringVar(&c.listen, "listen", ":9808", "address of /healthz, /readyz and /metrics")
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig (default: the pod's own credentials)")
	f.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
}

func env(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

// fromEnvironment fills flags that were not given from SPOTBENCH_ variables.
func fromEnvironment(f *pflag.FlagSet) error {
	var errs []error
	f.VisitAll(func(flag *pflag.Flag) {
		name := "SPOTBENCH_" + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))
		if value, ok := os.LookupEnv(name); ok && !flag.Changed {
			if err := f.Set(flag.Name, value); err != nil {
				errs = append(errs, fmt.Errorf("%s=%q: %w", name, value, err))
			}
		}
	})
	return errors.Join(errs...)
}

// validate says, for each setting that is wrong, its name, its value and a right one.
func (c *config) validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.node == "" {
		wrong("--node is empty; set NODE_NAME from the pod's spec.nodeName")
	}
	if u, err := url.Parse(c.store.url); err != nil || !slices.Contains(checkpoint.Schemes, u.Scheme) {
		wrong("--store is not %s; give for example s3://checkpoints?region=us-east-1", storeForms)
	}
	if c.keep < 1 {
		wrong("--keep %d: keep at least 1 checkpoint", c.keep)
	}
	if c.maxAge < 0 {
		wrong("--max-age %s: give a positive duration such as 168h, or 0 for any age", c.maxAge)
	}
	if _, err := c.uploadBytes(); err != nil {
		wrong("--upload-limit %q: %v; give bytes a second such as 200Mi", c.uploadLimit, err)
	}
	if u, err := url.Parse(c.catalog); c.catalog != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "") {
		wrong("--catalog %q is no URL; give for example https://api-service.model-catalog.svc:8000", c.catalog)
	}
	if u, err := url.Parse(c.catalog); c.catalogToken != "" && err == nil && u.Scheme == "http" {
		wrong("--catalog %q would send the token unencrypted; use https", c.catalog)
	}
	if c.poll < 100*time.Millisecond || c.poll > 5*time.Second {
		wrong("--poll-interval %s: use 100ms to 5s (AWS recommends at most 5s; each second is one less to save work)", c.poll)
	}
	if !slices.Contains(provider.Settings, c.provider) {
		wrong("--provider %q: use one of %s", c.provider, strings.Join(provider.Settings, ", "))
	}
	for name, value := range map[string]time.Duration{"gcp-preemption-notice": c.preemption, "gcp-maintenance-notice": c.maintenance} {
		if value < time.Second || value > 24*time.Hour {
			wrong("--%s %s: use 1s to 24h", name, value)
		}
	}
	if c.maintenanceLead <= 0 {
		wrong("--maintenance-lead %s: give a positive duration such as 10m", c.maintenanceLead)
	}
	if c.sample < 100*time.Millisecond {
		wrong("--sample-interval %s: use 100ms or more", c.sample)
	}
	if !slices.Contains(telemetrySettings, c.telemetry) {
		wrong("--telemetry %q: use one of %s", c.telemetry, strings.Join(telemetrySettings, ", "))
	}
	if err := dcgm.ValidEngine(c.dcgm); err != nil {
		wrong("--dcgm %q: %w", c.dcgm, err)
	}
	if !filepath.IsAbs(c.kubeletRoot) || !filepath.IsAbs(c.stateDir) {
		wrong("--kubelet-root %q and --state-dir %q must be absolute paths", c.kubeletRoot, c.stateDir)
	}
	if _, err := c.level(); err != nil {
		wrong("--log-level %q: use debug, info, warn or error", c.logLevel)
	}
	return errors.Join(errs...)
}

// uploadBytes is the upload limit in bytes a second, 0 without one.
func (c *config) uploadBytes() (int64, error) {
	if c.uploadLimit == "" {
		return 0, nil
	}
	q, err := resource.ParseQuantity(c.uploadLimit)
	if err == nil && q.Value() < 64<<10 {
		err = errors.New("less than 64Ki makes no checkpoint")
	}
	return q.Value(), err
}

func (c *config) openStore(ctx context.Context) (*checkpoint.Store, error) {
	limit, err := c.uploadBytes()
	if err != nil {
		return nil, err
	}
	return c.store.open(ctx, checkpoint.Options{Keep: c.keep, MaxAge: c.maxAge, UploadLimit: limit})
}

func (c *config) level() (slog.Level, error) {
	var level slog.Level
	err := level.UnmarshalText([]byte(c.logLevel))
	return level, err
}
