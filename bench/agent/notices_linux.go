// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/localcluster"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
)

const (
	// quiet is how long the cloud has no notice between two: the agent takes the last one
	// back and the pods of the next are there by then.
	quiet = 3 * time.Second
	// window is the time that a notice leaves.
	window = 2 * time.Minute
	// lookEvery is the time between two looks of this program, its error.
	lookEvery = 5 * time.Millisecond
)

// noticeResult is what the notices of one agent took.
type noticeResult struct {
	Provider      string  `json:"provider"`
	PollSeconds   float64 `json:"pollIntervalSeconds"`
	Notices       int     `json:"notices"`
	Pods          int     `json:"podsPerNotice"`
	StateMiB      int     `json:"stateMiBPerPod"`
	TaintP50      float64 `json:"noticeToTaintP50Seconds"`
	TaintP99      float64 `json:"noticeToTaintP99Seconds"`
	CheckpointP50 float64 `json:"noticeToCheckpointP50Seconds"`
	CheckpointP99 float64 `json:"noticeToCheckpointP99Seconds"`
}

// cloud is amazon-ec2-metadata-mock.
type cloud struct {
	program, address string
	process          *exec.Cmd
}

func (c *cloud) stop() {
	if c.process != nil {
		_ = c.process.Process.Kill()
		_ = c.process.Wait()
	}
	c.process = nil
}

// announce starts the service anew, with a notice after the delay.
func (c *cloud) announce(ctx context.Context, after time.Duration, deadline time.Time) error {
	c.stop()
	host, port, _ := strings.Cut(c.address, ":")
	c.process = exec.CommandContext(ctx, c.program, "spot", "--hostname", host, "--port", port, "--imdsv2", "--mock-ip-count", "-1",
		"--mock-delay-sec", fmt.Sprintf("%.0f", after.Seconds()), "--rebalance-delay-sec", "1000000000", "--action", "terminate", "--time", deadline.UTC().Format(time.RFC3339))
	c.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c.process.Start()
}

// awaitNotice returns the moment from which the service gives the notice.
func (c *cloud) awaitNotice(ctx context.Context) (time.Time, error) {
	token := ""
	for {
		if token == "" {
			token, _ = c.ask(ctx, http.MethodPut, "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "21600")
		} else if body, err := c.ask(ctx, http.MethodGet, "/latest/meta-data/spot/instance-action", "X-aws-ec2-metadata-token", token); err == nil && body != "" {
			return time.Now(), nil
		}
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("amazon-ec2-metadata-mock at %s gives no notice: %w", c.address, ctx.Err())
		case <-time.After(lookEvery):
		}
	}
}

func (c *cloud) ask(ctx context.Context, method, path, header, value string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.address+path, http.NoBody)
	if err != nil {
		return "", err
	}
	req.Header.Set(header, value)
	return answer(req)
}

// measureNotices runs an agent on a node of its own and gives it notices.
func measureNotices(ctx context.Context, s settings) (noticeResult, error) {
	r := noticeResult{Provider: "aws (amazon-ec2-metadata-mock)", PollSeconds: s.poll.Seconds(), Notices: s.notices, Pods: s.noticePods, StateMiB: s.stateMiB}
	dir, err := os.MkdirTemp("", "spotbench-notices")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	s.pods = 0
	n, err := startNode(ctx, dir, s)
	if err != nil {
		return r, err
	}
	defer n.stop()
	cache, err := localcluster.DefaultCacheDir()
	if err != nil {
		return r, err
	}
	tools, err := toolchain.Cached(cache)
	if err != nil {
		return r, err
	}
	c := &cloud{program: tools.Path("ec2-metadata-mock")}
	if c.address, err = freeAddress(ctx); err != nil {
		return r, err
	}
	defer c.stop()
	n.cloud = "http://" + c.address
	agent, err := n.startAgent(ctx, "--telemetry", "off", "--poll-interval", s.poll.String())
	if err != nil {
		return r, err
	}
	defer agent.kill()
	var taints, checkpoints []float64
	for i := range s.notices {
		taint, saved, err := n.notice(ctx, c, i, s)
		if err != nil {
			return r, agent.explain(fmt.Errorf("notice %d: %w", i+1, err))
		}
		taints = append(taints, taint.Seconds())
		for _, took := range saved {
			checkpoints = append(checkpoints, took.Seconds())
		}
	}
	r.TaintP50, r.TaintP99 = percentile(taints, 50), percentile(taints, 99)
	r.CheckpointP50, r.CheckpointP99 = percentile(checkpoints, 50), percentile(checkpoints, 99)
	return r, nil
}

// percentile is by nearest rank.
func percentile(values []float64, p int) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

// notice gives one notice to the node with new pods on it, and returns how long after it
// the node was tainted and each pod's checkpoint was whole.
func (n *node) notice(ctx context.Context, c *cloud, number int, s settings) (taint time.Duration, saved []time.Duration, err error) {
	// The service outlives this notice.
	if err := c.announce(ctx, quiet, time.Now().Add(quiet+window)); err != nil {
		return 0, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := await(ctx, "the last notice to be taken back", func() bool { tainted, err := n.tainted(ctx); return err == nil && !tainted }); err != nil {
		return 0, nil, err
	}
	if err := n.clear(); err != nil {
		return 0, nil, err
	}
	var pods []*corev1.Pod
	for i := range s.noticePods {
		pod, err := n.newPod(ctx, fmt.Sprintf("notice-%d-%d", number, i))
		if err != nil {
			return 0, nil, err
		}
		if err := n.fill(pod, s.stateMiB); err != nil {
			return 0, nil, err
		}
		pods = append(pods, pod)
	}
	if err := await(ctx, "the agent to accompany the pods", func() bool {
		return !slices.ContainsFunc(pods, func(p *corev1.Pod) bool {
			_, err := os.Stat(filepath.Join(n.volume(p, "checkpoint"), ".spotbench", "restore.json"))
			return err != nil
		})
	}); err != nil {
		return 0, nil, err
	}
	given, err := c.awaitNotice(ctx)
	if err != nil {
		return 0, nil, err
	}
	whole := make([]time.Duration, len(pods))
	err = await(ctx, "the taint and the checkpoints", func() bool {
		if tainted, err := n.tainted(ctx); taint == 0 && err == nil && tainted {
			taint = time.Since(given)
		}
		all := taint != 0
		for i, p := range pods {
			if found, _ := filepath.Glob(n.path("store", namespace, p.Name, "_manifests", "*")); whole[i] == 0 && len(found) > 0 {
				whole[i] = time.Since(given)
			}
			all = all && whole[i] != 0
		}
		return all
	})
	if err != nil {
		return 0, nil, err
	}
	return taint, whole, n.removePods(ctx, pods)
}

func await(ctx context.Context, what string, holds func() bool) error {
	for !holds() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		case <-time.After(lookEvery):
		}
	}
	return nil
}

// removePods does what a kubelet does when pods are evicted.
func (n *node) removePods(ctx context.Context, pods []*corev1.Pod) error {
	none := int64(0)
	for _, pod := range pods {
		if err := await(ctx, pod.Name+" to be evicted", func() bool {
			p, err := n.client.CoreV1().Pods(namespace).Get(ctx, pod.Name, metav1.GetOptions{})
			return err == nil && p.DeletionTimestamp != nil
		}); err != nil {
			return err
		}
		if err := n.client.CoreV1().Pods(namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &none}); err != nil {
			return err
		}
	}
	return nil
}

// clear removes what pods have left, once the agent is done with them.
func (n *node) clear() error {
	return errors.Join(os.RemoveAll(n.path("kubelet", "pods")), os.RemoveAll(n.path("store", namespace)))
}

// fill puts state that cannot be compressed into the pod's checkpoint directory.
func (n *node) fill(pod *corev1.Pod, mebibytes int) error {
	f, err := os.Create(filepath.Join(n.volume(pod, "checkpoint"), "state"))
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.Reader, int64(mebibytes)<<20)
	return errors.Join(err, f.Close())
}

func (n *node) tainted(ctx context.Context) (bool, error) {
	object, err := n.client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(object.Spec.Taints, func(t corev1.Taint) bool { return t.Key == benchspec.TaintInterruption }), nil
}
