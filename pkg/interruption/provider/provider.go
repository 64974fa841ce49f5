// SPDX-License-Identifier: Apache-2.0

// Package provider finds out in which cloud a node is, and watches that cloud's notices.
package provider

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spotbench/spotbench/pkg/interruption"
	"github.com/spotbench/spotbench/pkg/interruption/aws"
	"github.com/spotbench/spotbench/pkg/interruption/azure"
	"github.com/spotbench/spotbench/pkg/interruption/endpoint"
	"github.com/spotbench/spotbench/pkg/interruption/gcp"
)

// Auto is the setting by which the provider is found.
const Auto = "auto"

// Settings are what the provider can be set to.
var Settings = []string{Auto, string(interruption.AWS), string(interruption.GCP), string(interruption.Azure)}

const (
	probeTimeout = 2 * time.Second
	// A node whose cloud is not known is asked again after pauses that grow to this.
	longestPause = time.Minute
)

// Options of a source. Zero durations take their provider's default.
type Options struct {
	// Provider is one of Settings; Auto if empty.
	Provider string
	// Endpoint is endpoint.Default if empty.
	Endpoint string
	// Node is the node's name.
	Node string
	// Interval between two looks of a provider that is polled.
	Interval time.Duration
	// PreemptionNotice and MaintenanceNotice are what Compute Engine does not say:
	// the time from its notice to what it announces.
	PreemptionNotice, MaintenanceNotice time.Duration
	// SysDir is "/sys" and ProcDir "/proc" if empty.
	SysDir, ProcDir string
	// Metrics may be nil.
	Metrics *endpoint.Metrics
	Log     *slog.Logger
	// Transport is nil but in tests without a network.
	Transport http.RoundTripper
}

// Source is the interruption.Source of the node's cloud, once that is known.
type Source struct {
	opts    Options
	sources map[interruption.Provider]interruption.Source
	current atomic.Pointer[found]
}

// found is the provider that the node is at.
type found struct {
	provider interruption.Provider
	source   interruption.Source
}

// New makes a source; it asks nothing yet.
func New(opts Options) (*Source, error) {
	if opts.Provider == "" {
		opts.Provider = Auto
	}
	if !slices.Contains(Settings, opts.Provider) {
		return nil, fmt.Errorf("provider %q is unknown; use one of %s", opts.Provider, strings.Join(Settings, ", "))
	}
	if opts.SysDir == "" {
		opts.SysDir = "/sys"
	}
	if opts.ProcDir == "" {
		opts.ProcDir = "/proc"
	}
	boot, err := os.ReadFile(filepath.Join(opts.ProcDir, "sys/kernel/random/boot_id"))
	if err != nil {
		return nil, fmt.Errorf("boot ID: %w", err)
	}
	bootID := strings.TrimSpace(string(boot))
	ec2, err := aws.New(aws.Options{Endpoint: opts.Endpoint, Node: opts.Node, Boot: bootID, Interval: opts.Interval,
		Metrics: opts.Metrics, Log: opts.Log, Transport: opts.Transport})
	if err != nil {
		return nil, err
	}
	gce, err := gcp.New(gcp.Options{Endpoint: opts.Endpoint, Node: opts.Node, Boot: bootID, Interval: opts.Interval,
		Notice: opts.PreemptionNotice, MaintenanceNotice: opts.MaintenanceNotice, Metrics: opts.Metrics, Log: opts.Log, Transport: opts.Transport})
	if err != nil {
		return nil, err
	}
	az, err := azure.New(azure.Options{Endpoint: opts.Endpoint, Interval: opts.Interval, Metrics: opts.Metrics, Log: opts.Log, Transport: opts.Transport})
	if err != nil {
		return nil, err
	}
	s := &Source{opts: opts, sources: map[interruption.Provider]interruption.Source{interruption.AWS: ec2, interruption.GCP: gce, interruption.Azure: az}}
	if opts.Provider != Auto {
		s.use(interruption.Provider(opts.Provider))
	}
	return s, nil
}

func (s *Source) use(p interruption.Provider) { s.current.Store(&found{p, s.sources[p]}) }

// Provider is the cloud of this node; empty as long as that is not known.
func (s *Source) Provider() interruption.Provider {
	if f := s.current.Load(); f != nil {
		return f.provider
	}
	return ""
}

// Quiet implements interruption.Source.
func (s *Source) Quiet() bool {
	f := s.current.Load()
	return f != nil && f.source.Quiet()
}

// Acknowledge implements interruption.Source.
func (s *Source) Acknowledge(ctx context.Context, n interruption.Notice) (bool, error) {
	f := s.current.Load()
	if f == nil {
		return false, nil
	}
	return f.source.Acknowledge(ctx, n)
}

// Run implements interruption.Source. It looks for the cloud as long as it takes.
func (s *Source) Run(ctx context.Context, emit func(interruption.Event)) {
	said := false
	for pause := time.Second; s.current.Load() == nil; pause = min(2*pause, longestPause) {
		p, how := s.find(ctx)
		if ctx.Err() != nil {
			return
		}
		if p != "" {
			s.use(p)
			break
		}
		if !said {
			s.opts.Log.Warn("no cloud's metadata service answers, so no notice can be heard yet; it is looked for until one does", "hint", how)
			said = true
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
	f := s.current.Load()
	s.opts.Log.Info("watching for the cloud's notices", "provider", f.provider)
	f.source.Run(ctx, emit)
}

var probes = []struct {
	provider interruption.Provider
	probe    func(context.Context, *endpoint.Client) error
}{
	{interruption.AWS, aws.Probe},
	{interruption.GCP, gcp.Probe},
	{interruption.Azure, azure.Probe},
}

// find probes all clouds at the same time. Who answers is it; the machine's firmware
// decides where several answer, as they may behind a proxy of one's own.
func (s *Source) find(ctx context.Context) (_ interruption.Provider, hint string) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	answered := make([]bool, len(probes))
	var all sync.WaitGroup
	for i, p := range probes {
		all.Go(func() {
			client, err := endpoint.NewClient(s.opts.Endpoint, s.opts.Transport)
			if err != nil {
				return // New has refused the same endpoint
			}
			defer client.Close()
			answered[i] = p.probe(ctx, client) == nil
		})
	}
	all.Wait()
	hinted := Firmware(s.opts.SysDir)
	var first interruption.Provider
	for i, p := range probes {
		switch {
		case answered[i] && p.provider == hinted:
			return p.provider, string(hinted)
		case answered[i] && first == "":
			first = p.provider
		}
	}
	return first, string(hinted)
}

// azureChassis is the asset tag of every Azure virtual machine; Hyper-V elsewhere has
// the same vendor.
const azureChassis = "7783-7084-3265-9085-8269-3286-77"

// Firmware is the cloud that the machine's DMI names, below the directory sys; empty
// where it names none or cannot be read.
func Firmware(sys string) interruption.Provider {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(sys, "class/dmi/id", name))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(text))
	}
	switch {
	case read("sys_vendor") == "Amazon EC2" || strings.HasSuffix(read("bios_version"), ".amazon"):
		return interruption.AWS
	case read("product_name") == "Google Compute Engine" || read("sys_vendor") == "Google":
		return interruption.GCP
	case read("chassis_asset_tag") == azureChassis:
		return interruption.Azure
	default:
		return ""
	}
}
