// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/spotbench/spotbench/pkg/probes"
	"github.com/spotbench/spotbench/pkg/telemetry"
	"github.com/spotbench/spotbench/pkg/telemetry/dcgm"
	"github.com/spotbench/spotbench/pkg/telemetry/exporter"
	"github.com/spotbench/spotbench/pkg/telemetry/monitor"
	"github.com/spotbench/spotbench/pkg/telemetry/nvml"
)

// How the GPUs are read.
const (
	telemetryAuto = "auto"
	telemetryDCGM = "dcgm"
	telemetryNVML = "nvml"
	telemetryOff  = "off"
)

var telemetrySettings = []string{telemetryAuto, telemetryDCGM, telemetryNVML, telemetryOff}

// noGPUs is a node whose libraries cannot be used: its pods are saved all the same,
// without telemetry.
type noGPUs struct{}

func (noGPUs) Read() (telemetry.Reading, error) { return telemetry.Reading{}, nil }

// openGPUs opens the library that the settings and the node allow, and says once which
// one it is, and why not another.
func openGPUs(c config, log *slog.Logger) (reader monitor.Reader, closeReader func()) {
	nothing := func() {}
	if c.telemetry == telemetryOff {
		log.Info("no GPU telemetry: it is turned off")
		return noGPUs{}, nothing
	}
	driver, nvmlErr := nvml.Open(c.nvmlLibrary)
	if c.telemetry != telemetryNVML {
		opts := dcgm.Options{Engine: engine(c.dcgm), Library: c.dcgmLibrary, Interval: c.sample, Log: log}
		if nvmlErr == nil {
			opts.Instances = driver.Instances // DCGM does not know the UUIDs of MIG instances
		}
		manager, err := dcgm.Open(opts)
		if err == nil {
			log.Info("reading GPUs through DCGM", "engine", opts.Engine, "driver", manager.Driver(), "profiling", manager.Profiling())
			return manager, func() {
				if err := manager.Close(); err != nil {
					log.Warn("DCGM does not end as it should", "error", err)
				}
				if nvmlErr == nil {
					_ = driver.Close()
				}
			}
		}
		if c.telemetry == telemetryDCGM {
			log.Warn("no GPU telemetry on this node", "error", err)
			if nvmlErr == nil {
				_ = driver.Close()
			}
			return noGPUs{}, nothing
		}
		log.Info("DCGM is not used", "reason", err)
	}
	if nvmlErr != nil {
		log.Warn("no GPU telemetry on this node", "error", nvmlErr)
		return noGPUs{}, nothing
	}
	log.Info("reading GPUs through NVML", "driver", driver.Driver())
	return driver, func() { _ = driver.Close() }
}

// engine is the host engine that was asked for, or else the node's own if it runs, or
// else one in this process.
func engine(asked string) string {
	if asked != "" {
		return asked
	}
	conn, err := net.DialTimeout("tcp", dcgm.DefaultAddress, 500*time.Millisecond)
	if err != nil {
		return dcgm.Embedded
	}
	_ = conn.Close()
	return dcgm.DefaultAddress
}

// serveGPUs serves the GPUs' metrics where scrapers of dcgm-exporter look for them. The
// port may be taken by a dcgm-exporter of this node: saving work does not hang on that, so
// it is tried again until ctx ends.
func serveGPUs(ctx context.Context, address string, gpus *exporter.Collector, log *slog.Logger) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(gpus)
	for said := false; ; {
		stop, err := probes.Start(ctx, "--gpu-metrics-listen", address, registry, probes.Always)
		if err == nil {
			log.Info("serving the GPUs' metrics", "address", address)
			<-ctx.Done()
			stop()
			return
		}
		if !said {
			log.Warn("the GPUs' metrics are not served; does a dcgm-exporter run on this node?", "error", err)
			said = true
		}
		select {
		case <-time.After(30 * time.Second):
		case <-ctx.Done():
			return
		}
	}
}
