// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spotbench/spotbench/pkg/images"
)

// modes are the settings of --telemetry that are measured, if all settings are right.
func (s settings) modes() ([]string, error) {
	switch {
	case s.gpus < 1 || s.gpus > 32:
		return nil, fmt.Errorf("-gpus is %d, want 1 to 32", s.gpus)
	case s.pods < 0 || s.pods > 250:
		return nil, fmt.Errorf("-pods is %d, want 0 to 250", s.pods)
	case s.duration != 0 && s.duration < 10*time.Second:
		return nil, fmt.Errorf("-duration is %s, want 10s or more, or 0 to measure notices only", s.duration)
	case s.notices < 0 || s.noticePods < 1 || s.noticePods > 100 || s.stateMiB < 1 || s.stateMiB > 1024:
		return nil, fmt.Errorf("-notices is %d, -notice-pods %d, -state %d; want 0 or more, 1 to 100, 1 to 1024", s.notices, s.noticePods, s.stateMiB)
	case s.poll < 100*time.Millisecond || s.poll > 5*time.Second:
		return nil, fmt.Errorf("-poll is %s, want 100ms to 5s", s.poll)
	case s.sample < 100*time.Millisecond || s.sample > time.Minute:
		return nil, fmt.Errorf("-sample is %s, want 100ms to 1m", s.sample)
	}
	if s.duration == 0 {
		return nil, nil
	}
	modes := strings.Split(s.telemetry, ",")
	for _, m := range modes {
		if m != "dcgm" && m != "nvml" && m != "off" {
			return nil, fmt.Errorf("-telemetry has %q, want dcgm, nvml or off, separated by commas", m)
		}
	}
	return modes, nil
}

// measure runs an agent on a node of its own.
func measure(ctx context.Context, s settings, mode string) (result, error) {
	r := result{Telemetry: mode, GPUs: s.gpus, Pods: s.pods, SampleSeconds: s.sample.Seconds(), Seconds: s.duration.Seconds()}
	dir, err := os.MkdirTemp("", "spotbench-agent")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	n, err := startNode(ctx, dir, s)
	if err != nil {
		return r, err
	}
	defer n.stop()
	agent, err := n.startAgent(ctx, "--telemetry", mode, "--sample-interval", s.sample.String())
	if err != nil {
		return r, err
	}
	defer agent.kill()
	if err := r.watch(ctx, s, agent.process.Process.Pid, n, agent.ended); err != nil {
		return r, agent.explain(err)
	}
	if n.taken() == 0 && s.pods > 0 {
		return r, errors.New("the agent told the catalog nothing, so it did not do its work")
	}
	return r, nil
}

// agentProcess is the real agent.
type agentProcess struct {
	process *exec.Cmd
	log     *os.File
	ended   chan error
}

// startAgent builds the agent and starts it on the node.
func (n *node) startAgent(ctx context.Context, flags ...string) (*agentProcess, error) {
	binary := n.path("node-agent")
	if err := images.Compile(ctx, ".", "node-agent", "dev", binary); err != nil {
		return nil, err
	}
	log, err := os.Create(n.path("agent.log"))
	if err != nil {
		return nil, err
	}
	a := &agentProcess{process: exec.CommandContext(ctx, binary, append(n.flags(), flags...)...), log: log, ended: make(chan error, 1)}
	a.process.Stdout, a.process.Stderr = log, log
	a.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	a.process.Cancel = func() error { return a.process.Process.Signal(os.Interrupt) }
	a.process.WaitDelay = 10 * time.Second
	if err := a.process.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	go func() { a.ended <- a.process.Wait() }()
	return a, nil
}

func (a *agentProcess) kill() {
	_ = a.process.Process.Kill()
	_ = a.log.Close()
}

// explain adds what the agent said last.
func (a *agentProcess) explain(err error) error {
	tail, _ := os.ReadFile(a.log.Name())
	return fmt.Errorf("%w\nthe end of the agent's log:\n%s", err, tail[max(0, len(tail)-3000):])
}

// watch looks at the process once a second, and scrapes it as Prometheus would.
func (r *result) watch(ctx context.Context, s settings, pid int, n *node, ended <-chan error) error {
	ticks := time.NewTicker(time.Second)
	defer ticks.Stop()
	start := time.Now()
	var readings []reading
	for second := 1; ; second++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			return fmt.Errorf("the agent ended: %w", errors.Join(err, errors.New("it should be running")))
		case <-ticks.C:
		}
		now, err := look(pid)
		if err != nil {
			return err
		}
		if now.at = time.Since(start); now.at < s.settle {
			continue
		}
		readings = append(readings, now)
		if second%15 == 0 || r.SeriesFirst == 0 {
			if err := r.scrape(ctx, n); err != nil {
				return err
			}
		}
		if now.at-readings[0].at >= s.duration {
			r.summarise(readings)
			return nil
		}
	}
}

// scrape reads both metrics endpoints.
func (r *result) scrape(ctx context.Context, n *node) error {
	own, err := get(ctx, "http://"+n.metrics+"/metrics")
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(own, "\ngo_goroutines ")
	text, _, _ := strings.Cut(rest, "\n")
	goroutines, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("the agent's metrics have no go_goroutines: %w", err)
	}
	gpus, err := get(ctx, "http://"+n.gpuMetrics+"/metrics")
	if err != nil && r.Telemetry != "off" {
		return err
	}
	series := 1 // so that a first scrape without any is one
	for line := range strings.Lines(gpus) {
		if !strings.HasPrefix(line, "#") {
			series++
		}
	}
	if r.SeriesFirst == 0 {
		r.GoroutinesFirst, r.SeriesFirst = goroutines, series
	}
	r.GoroutinesLast, r.SeriesLast = goroutines, series
	return nil
}

func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	return answer(req)
}

// answer is the body of a 200.
func answer(req *http.Request) (string, error) {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", req.URL, resp.Status)
	}
	return string(body), err
}

// look reads a process's CPU time and its resident set.
func look(pid int) (r reading, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return r, err
	}
	// The name, in brackets, may have blanks; fields 14 and 15 are the times in 10 ms.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return r, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		r.cpu += time.Duration(n) * 10 * time.Millisecond
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return r, err
	}
	for line := range strings.Lines(string(status)) {
		for name, to := range map[string]*float64{"VmRSS:": &r.rss, "RssAnon:": &r.anon, "RssFile:": &r.file} {
			if value, ok := strings.CutPrefix(line, name); ok {
				kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
				if err != nil {
					return r, fmt.Errorf("/proc/%d/status: %w", pid, err)
				}
				*to = kib / 1024
			}
		}
	}
	return r, nil
}
