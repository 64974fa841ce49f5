// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/spotbench/spotbench/pkg/benchspec"
)

// contender is a scheduler to be measured.
type contender struct {
	name string
	// profile is what its pods have in spec.schedulerName.
	profile string
	// annotates says that its pods name models in an annotation, not by affinity.
	annotates bool
}

var (
	ours  = contender{name: "ours", profile: benchspec.SchedulerName, annotates: true}
	stock = contender{name: "stock", profile: "default-scheduler"}
)

// stockConfig is kube-scheduler's default profile. Only the limit of requests is
// lifted, which would otherwise be what is measured: 50 per second.
const stockConfig = `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
`

// connection is the same for both.
const connection = `clientConnection:
  kubeconfig: %s
  qps: 10000
  burst: 10000
  contentType: application/vnd.kubernetes.protobuf
  acceptContentTypes: application/vnd.kubernetes.protobuf,application/json
leaderElection:
  leaderElect: false
`

// running is a scheduler at work.
type running struct {
	*process
	url  string
	http *http.Client
}

// startScheduler starts a scheduler on a control plane and waits until it is ready.
func startScheduler(ctx context.Context, p *plane, s contender, bin programs, shipped string) (*running, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	program, config := bin.stock, stockConfig
	if s == ours {
		program = bin.ours
		if config, err = shippedConfig(shipped); err != nil {
			return nil, err
		}
	}
	file := p.file(s.name + ".yaml")
	if err := os.WriteFile(file, []byte(config+fmt.Sprintf(connection, p.kubeconfig)), 0o600); err != nil {
		return nil, fmt.Errorf("write the configuration of %s: %w", s.name, err)
	}
	// Ahead of the API server, which shares the processors here and not in a cluster.
	process, err := start(p.dir, s.name, "nice", "-n", "-10", program, "--config="+file, "--bind-address="+loopback, "--secure-port="+ports[0],
		"--authentication-kubeconfig="+p.kubeconfig, "--authorization-kubeconfig="+p.kubeconfig,
		"--authorization-always-allow-paths=/healthz,/readyz,/metrics,/debug/pprof/*")
	if err != nil {
		return nil, err
	}
	p.processes = append(p.processes, process)
	r := &running{process: process, url: "https://" + net.JoinHostPort(loopback, ports[0]), http: &http.Client{
		Timeout: 2 * time.Minute,
		// Its certificate is one it made for itself, and it is on this machine.
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, //nolint:gosec // as said above
	}}
	for deadline := time.Now().Add(time.Minute); ; {
		if err := process.ended(); err != nil {
			return nil, err
		}
		if _, err = r.get(ctx, "/readyz"); err == nil {
			return r, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s is not ready after 1m: %w; the end of its log:\n%s", s.name, err, process.tail())
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// shippedConfig is our scheduler's configuration as it is shipped, but for what is
// not here: leader election, the catalog and the container's paths.
func shippedConfig(dir string) (string, error) {
	data, err := os.ReadFile(dir + "/config.yaml")
	if err != nil {
		return "", fmt.Errorf("-manifests: %w", err)
	}
	var out strings.Builder
	skipping := false
	for line := range strings.Lines(string(data)) {
		// Blocks of their own; ours replace them.
		if strings.HasPrefix(line, "leaderElection:") || strings.HasPrefix(line, "clientConnection:") {
			skipping = true
			continue
		}
		if skipping && (strings.HasPrefix(line, " ") || strings.HasPrefix(line, "#")) {
			continue
		}
		skipping = false
		if key := strings.TrimSpace(line); strings.HasPrefix(key, "catalogURL:") || strings.HasPrefix(key, "catalogCAFile:") {
			continue
		}
		out.WriteString(strings.ReplaceAll(line, "/etc/spotbench/scheduler", dir))
	}
	return out.String(), nil
}

// get asks the scheduler's own server.
func (r *running) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s: %s", path, resp.Status, bytes.TrimSpace(body))
	}
	return body, nil
}

// metricAlgorithm is kube-scheduler's histogram, in seconds, of the part of
// an attempt that keeps the next pod waiting: the decision.
const metricAlgorithm = "scheduler_scheduling_algorithm_duration_seconds"

// metrics are those of the scheduler now.
func (r *running) metrics(ctx context.Context) (map[string]*dto.MetricFamily, error) {
	text, err := r.get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	var parser expfmt.TextParser
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read the metrics of %s: %w", r.name, err)
	}
	return families, nil
}

// profileSeconds is how long a profile is taken.
const profileSeconds = 8

// writeProfile takes a CPU profile; that it cannot is only said.
func (r *running) writeProfile(ctx context.Context, file string) {
	data, err := r.get(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", profileSeconds))
	if err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	if err != nil {
		progress("no profile of %s: %v", r.name, err)
	}
}
