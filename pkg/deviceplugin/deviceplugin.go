// SPDX-License-Identifier: Apache-2.0

// Package deviceplugin is a simulated GPU device plugin: it serves GPUs that do
// not exist over the kubelet's real device plugin API (v1beta1). Kubelet,
// scheduler, pod resources API and pods treat them as they treat real ones.
package deviceplugin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/spotbench/spotbench/pkg/probes"
)

// EnvVisibleDevices names the GPUs of a container, as NVIDIA's plugin does.
const EnvVisibleDevices = "NVIDIA_VISIBLE_DEVICES"

// Config says what to serve and where.
type Config struct {
	// Dir is the kubelet's device plugin directory; it holds kubelet.sock.
	// Default /var/lib/kubelet/device-plugins.
	Dir string
	// Resource is the extended resource's name. Default nvidia.com/gpu.
	Resource string
	// UUIDs are the identities of the simulated GPUs.
	UUIDs []string
	// LostFile lists the UUIDs of the GPUs that are lost, one a line, # for
	// comments. Absent or empty: all are healthy. Changes take effect at once.
	LostFile string
	// Listen is the address of /healthz, /readyz and /metrics; empty for none.
	Listen string
	// RetryDelay is the pause between attempts to reach the kubelet. Default 1 s.
	RetryDelay time.Duration
	Logger     *slog.Logger
}

func (c *Config) complete() error {
	if c.Dir == "" {
		c.Dir = strings.TrimSuffix(pluginapi.DevicePluginPath, "/")
	}
	if c.Resource == "" {
		c.Resource = "nvidia.com/gpu"
	}
	if c.RetryDelay == 0 {
		c.RetryDelay = time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if len(c.UUIDs) == 0 {
		return errors.New("no GPU UUIDs given: name at least one, for example GPU-3a6ba1c0-8c2a-4c4e-9d3f-6f1f2b0a7d11")
	}
	sorted := slices.Clone(c.UUIDs)
	slices.Sort(sorted)
	if len(slices.Compact(sorted)) != len(c.UUIDs) {
		return fmt.Errorf("GPU UUIDs %v: one is there twice, each GPU needs its own", c.UUIDs)
	}
	return nil
}

// Run serves the GPUs until the context ends. It registers with the kubelet,
// and again whenever the kubelet restarts.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.complete(); err != nil {
		return err
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch files: %w", err)
	}
	defer watcher.Close()
	// The kubelet may come later than we do.
	for _, dir := range []string{cfg.Dir, filepath.Dir(cfg.LostFile)} {
		if dir == "." {
			continue
		}
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
		if err := watcher.Add(dir); err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	p := &plugin{cfg: cfg, changed: make(chan struct{}), metrics: newMetrics()}
	p.readHealth()
	if cfg.Listen != "" {
		stop, err := probes.Start(ctx, "--listen", cfg.Listen, p.metrics.registry, p.ready)
		if err != nil {
			return err
		}
		defer stop()
	}
	kubelet := filepath.Join(cfg.Dir, "kubelet.sock")
	for {
		registered, stop, err := p.session(ctx, kubelet)
		p.registered.Store(registered)
		retry := time.After(cfg.RetryDelay)
		if err != nil {
			cfg.Logger.Info("kubelet not reached yet", "error", err)
		}
		again := p.follow(ctx, watcher, kubelet, registered, retry)
		stop()
		if !again {
			return nil
		}
	}
}

// follow waits until a new session is due (true) or the context ended (false).
func (p *plugin) follow(ctx context.Context, watcher *fsnotify.Watcher, kubelet string, registered bool, retry <-chan time.Time) bool {
	if registered {
		retry = nil
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-retry:
			return true
		case event, ok := <-watcher.Events:
			switch {
			case !ok:
				return false
			case event.Name == kubelet && event.Has(fsnotify.Create):
				p.cfg.Logger.Info("kubelet restarted, registering again")
				return true
			case event.Name == p.cfg.LostFile:
				p.readHealth()
			}
		case err, ok := <-watcher.Errors:
			if !ok {
				return false
			}
			p.cfg.Logger.Warn("watching files failed", "error", err)
		}
	}
}

// session serves on a fresh socket and registers it. stop is never nil.
func (p *plugin) session(ctx context.Context, kubelet string) (registered bool, stop func(), err error) {
	// A restarted kubelet removes every socket in its directory.
	name := strings.NewReplacer("/", "-", ".", "-").Replace(p.cfg.Resource) + ".sock"
	path := filepath.Join(p.cfg.Dir, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, func() {}, fmt.Errorf("remove the old socket: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return false, func() {}, fmt.Errorf("listen on %s: %w", path, err)
	}
	server := grpc.NewServer()
	pluginapi.RegisterDevicePluginServer(server, p)
	go func() { _ = server.Serve(listener) }()
	if err := p.register(ctx, kubelet, name); err != nil {
		return false, server.Stop, err
	}
	p.metrics.registrations.Inc()
	p.cfg.Logger.Info("registered simulated GPUs with the kubelet", "resource", p.cfg.Resource, "count", len(p.cfg.UUIDs))
	return true, server.Stop, nil
}

func (p *plugin) register(ctx context.Context, kubelet, endpoint string) error {
	conn, err := grpc.NewClient("unix://"+kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to the kubelet: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err = pluginapi.NewRegistrationClient(conn).Register(ctx, &pluginapi.RegisterRequest{
		Version: pluginapi.Version, Endpoint: endpoint, ResourceName: p.cfg.Resource,
		Options: &pluginapi.DevicePluginOptions{},
	})
	if err != nil {
		return fmt.Errorf("register with the kubelet at %s: %w", kubelet, err)
	}
	return nil
}

// plugin implements the device plugin service.
type plugin struct {
	pluginapi.UnimplementedDevicePluginServer
	cfg     Config
	metrics metrics
	// registered says whether the kubelet of the moment knows the GPUs.
	registered atomic.Bool

	mu   sync.Mutex
	lost map[string]bool
	// changed is closed, and replaced, when lost changes.
	changed chan struct{}
}

func (p *plugin) ready() error {
	if !p.registered.Load() {
		return fmt.Errorf("not registered with a kubelet in %s", p.cfg.Dir)
	}
	return nil
}

func (p *plugin) readHealth() {
	lost, err := readLost(p.cfg.LostFile)
	if err != nil {
		p.cfg.Logger.Warn("the list of lost GPUs is not readable, health stays as it is", "error", err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lost = lost
	healthy := len(slices.DeleteFunc(slices.Clone(p.cfg.UUIDs), func(u string) bool { return lost[u] }))
	p.metrics.devices.WithLabelValues(pluginapi.Healthy).Set(float64(healthy))
	p.metrics.devices.WithLabelValues(pluginapi.Unhealthy).Set(float64(len(p.cfg.UUIDs) - healthy))
	close(p.changed)
	p.changed = make(chan struct{})
}

func readLost(path string) (map[string]bool, error) {
	lost := map[string]bool{}
	if path == "" {
		return lost, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return lost, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the list of lost GPUs: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		uuid, _, _ := strings.Cut(lines.Text(), "#")
		if uuid = strings.TrimSpace(uuid); uuid != "" {
			lost[uuid] = true
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the list of lost GPUs: %w", err)
	}
	return lost, nil
}

func (p *plugin) devices() (*pluginapi.ListAndWatchResponse, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := &pluginapi.ListAndWatchResponse{}
	for _, uuid := range p.cfg.UUIDs {
		health := pluginapi.Healthy
		if p.lost[uuid] {
			health = pluginapi.Unhealthy
		}
		list.Devices = append(list.Devices, &pluginapi.Device{ID: uuid, Health: health})
	}
	return list, p.changed
}

// GetDevicePluginOptions says that no optional call is needed.
func (p *plugin) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return &pluginapi.DevicePluginOptions{}, nil
}

// ListAndWatch sends the GPUs with their health, and again on every change.
func (p *plugin) ListAndWatch(_ *pluginapi.Empty, stream grpc.ServerStreamingServer[pluginapi.ListAndWatchResponse]) error {
	for {
		list, changed := p.devices()
		if err := stream.Send(list); err != nil {
			return fmt.Errorf("send the list of GPUs: %w", err)
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
	}
}

// Allocate gives each container the UUIDs of its GPUs in its environment.
func (p *plugin) Allocate(_ context.Context, req *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	resp := &pluginapi.AllocateResponse{}
	for _, c := range req.GetContainerRequests() {
		for _, id := range c.GetDevicesIds() {
			if !slices.Contains(p.cfg.UUIDs, id) {
				return nil, fmt.Errorf("GPU %q asked for, this node has %v", id, p.cfg.UUIDs)
			}
		}
		// In index order, whatever order the kubelet picked them in.
		ids := slices.DeleteFunc(slices.Clone(p.cfg.UUIDs), func(u string) bool { return !slices.Contains(c.GetDevicesIds(), u) })
		resp.ContainerResponses = append(resp.ContainerResponses, &pluginapi.ContainerAllocateResponse{
			Envs: map[string]string{EnvVisibleDevices: strings.Join(ids, ",")},
		})
		p.metrics.allocations.Add(float64(len(ids)))
	}
	return resp, nil
}
