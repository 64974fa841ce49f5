// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
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

// openEvery is how often a library that could not be used is tried again: the driver may
// be installed after the agent.
const openEvery = time.Minute

// nodeGPUs reads the node's GPUs. It opens the library when it is first read, since a driver
// that hangs must not keep the agent from starting. Its methods are called one at a time.
type nodeGPUs struct {
	c      config
	log    *slog.Logger
	reader monitor.Reader // nil until one could be opened
	closes []func() error
	next   time.Time // when to try again
	said   string    // why there is none
}

// Read reads every GPU; without a library there are none, which is said once: pods are
// saved all the same.
func (g *nodeGPUs) Read() (telemetry.Reading, error) {
	if g.c.telemetry == telemetryOff {
		return telemetry.Reading{}, nil
	}
	if g.reader == nil {
		if time.Now().Before(g.next) {
			return telemetry.Reading{}, nil
		}
		if err := g.open(); err != nil {
			g.next = time.Now().Add(openEvery)
			if err.Error() != g.said {
				g.said = err.Error()
				g.log.Warn("no GPU telemetry on this node; it is tried again every minute", "error", err)
			}
			return telemetry.Reading{}, nil
		}
	}
	return g.reader.Read()
}

// Close releases what was opened.
func (g *nodeGPUs) Close() {
	for _, c := range g.closes {
		if err := c(); err != nil {
			g.log.Warn("a GPU library does not end as it should", "error", err)
		}
	}
}

// open opens the library that the settings and the node allow, and says which one it
// is, and why not another.
func (g *nodeGPUs) open() error {
	driver, nvmlErr := nvml.Open(g.c.nvmlLibrary)
	var dcgmErr error
	if g.c.telemetry != telemetryNVML {
		opts := dcgm.Options{Engine: engine(g.c.dcgm), Library: g.c.dcgmLibrary, Interval: g.c.sample, Log: g.log}
		if nvmlErr == nil {
			opts.Instances = driver.Instances // DCGM does not know the UUIDs of MIG instances
		}
		var manager *dcgm.Reader
		if manager, dcgmErr = dcgm.Open(opts); dcgmErr == nil {
			g.reader = manager
			g.closes = append(g.closes, manager.Close)
			g.log.Info("reading GPUs through DCGM", "engine", opts.Engine, "driver", manager.Driver(), "profiling", manager.Profiling())
		}
	}
	if nvmlErr == nil {
		if g.reader == nil && g.c.telemetry == telemetryDCGM {
			return errors.Join(dcgmErr, driver.Close())
		}
		g.closes = append(g.closes, driver.Close)
		if g.reader == nil {
			g.reader = driver
			g.log.Info("reading GPUs through NVML", "driver", driver.Driver(), "notDCGM", dcgmErr)
		}
	}
	if g.reader == nil {
		return errors.Join(dcgmErr, nvmlErr)
	}
	return nil
}

// engine is the host engine that was asked for, or else the node's own if it runs, or
// else one in this process.
func engine(asked string) string {
	if asked != "" {
		return asked
	}
	dialer := net.Dialer{Timeout: 500 * time.Millisecond}
	conn, err := dialer.DialContext(context.Background(), "tcp", dcgm.DefaultAddress)
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
