// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults_test

import (
	"bufio"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/spotbench/spotbench/pkg/benchspec"
)

// nodePool lends machines to tests, each to one at a time.
type nodePool struct {
	mu   sync.Mutex
	free []string
	back *sync.Cond
}

func newNodePool(names []string) *nodePool {
	p := &nodePool{free: slices.Clone(names)}
	p.back = sync.NewCond(&p.mu)
	return p
}

// borrow waits for n machines. They go back, as they were, at the end of the test.
func (p *nodePool) borrow(t *testing.T, n int) []string {
	t.Helper()
	p.mu.Lock()
	for len(p.free) < n {
		p.back.Wait()
	}
	names := slices.Clone(p.free[:n])
	p.free = p.free[n:]
	p.mu.Unlock()
	t.Cleanup(func() {
		for _, name := range names {
			if p.restore(t, name) {
				p.mu.Lock()
				p.free = append(p.free, name)
				p.mu.Unlock()
			}
		}
		p.back.Broadcast()
	})
	return names
}

// restore takes back what the cloud said of the machine, and reports whether it is
// there and takes pods again.
func (p *nodePool) restore(t *testing.T, name string) bool {
	ctx := cleanupContext(t)
	if t.Failed() {
		t.Logf("the agent of %s:\n%s", name, agentLog(t, name))
	}
	if err := stage.Cluster.Withdraw(ctx, name); err != nil {
		return false // its machine is gone
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		node, err := stage.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err == nil && !slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == benchspec.TaintInterruption }) {
			return renewAgent(t, name)
		}
	}
	t.Errorf("%s is still tainted 30 s after the notice was withdrawn", name)
	return false
}

// renewAgent replaces an agent that was killed: the kubelet would wait longer each time
// before it starts it again.
func renewAgent(t *testing.T, node string) bool {
	ctx := cleanupContext(t)
	pods := stage.Client.CoreV1().Pods("spotbench-system")
	of := metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=node-agent", FieldSelector: "spec.nodeName=" + node}
	renewed := false
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		list, err := pods.List(ctx, of)
		if err != nil || len(list.Items) != 1 || list.Items[0].DeletionTimestamp != nil || len(list.Items[0].Status.ContainerStatuses) != 1 {
			continue
		}
		switch s := list.Items[0].Status.ContainerStatuses[0]; {
		case s.RestartCount == 0 && s.Ready:
			return true
		case s.RestartCount > 0 && !renewed:
			renewed = pods.Delete(ctx, list.Items[0].Name, metav1.DeleteOptions{}) == nil
		}
	}
	t.Errorf("the agent of %s is not ready 30 s after the test", node)
	return false
}

// open lets the run's pods onto a node, besides those that they may use already.
func open(t *testing.T, run, node string) {
	t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:""}}}`, label(run))
	if _, err := stage.Client.CoreV1().Nodes().Patch(t.Context(), node, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

func label(run string) string { return "faults.spotbench.dev/" + run }

// notice lets the cloud announce that it takes the machine after the window.
func notice(t *testing.T, node string, window time.Duration) time.Time {
	t.Helper()
	sent := time.Now()
	if err := stage.Cluster.Notice(t.Context(), node, sent.Add(window), "terminate"); err != nil {
		t.Fatal(err)
	}
	return sent
}

// agentPID is the process of the node's agent, by the node's own count.
func agentPID(t *testing.T, node string) string {
	t.Helper()
	out, err := stage.Cluster.Exec(t.Context(), node, "sh", "-c", `for p in /proc/[0-9]*; do if tr '\0' ' ' <$p/cmdline | grep -q '^/usr/bin/node-agent run '; then echo ${p#/proc/}; fi; done 2>/dev/null`)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// killAgent ends the agent of the node as the kernel does when memory is short.
func killAgent(t *testing.T, node string) {
	pid := agentPID(t, node)
	if pid == "" || strings.Contains(pid, "\n") {
		t.Errorf("the agent of %s is process %q, want one", node, pid)
		return
	}
	if _, err := stage.Cluster.Exec(t.Context(), node, "kill", "-9", pid); err != nil {
		t.Errorf("kill the agent of %s: %v", node, err)
	}
}

// onLogLine calls do once when the agent of the node logs a line with all of the words.
func onLogLine(t *testing.T, node string, do func(), words ...string) {
	t.Helper()
	pods, err := stage.Client.CoreV1().Pods("spotbench-system").List(t.Context(), metav1.ListOptions{
		LabelSelector: "app.kubernetes.io/name=node-agent", FieldSelector: "spec.nodeName=" + node})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("the agent of %s: %v, %d pods", node, err, len(pods.Items))
	}
	none := int64(0)
	stream, err := stage.Client.CoreV1().Pods("spotbench-system").GetLogs(pods.Items[0].Name, &corev1.PodLogOptions{Follow: true, TailLines: &none}).Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer stream.Close()
		for lines := bufio.NewScanner(stream); lines.Scan(); {
			if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(lines.Text(), word) }) {
				do()
				return
			}
		}
	}()
}

// cutAPI drops what the node sends to the API server, and nothing else.
func cutAPI(t *testing.T, node string) {
	t.Helper()
	host := stage.Cluster.HostIP().String()
	_, port, _ := strings.Cut(strings.TrimPrefix(stage.RESTConfig.Host, "https://"), ":")
	rule := []string{"iptables", "-I", "OUTPUT", "-p", "tcp", "-d", host, "--dport", port, "-j", "DROP"}
	if _, err := stage.Cluster.Exec(t.Context(), node, rule...); err != nil {
		t.Fatal(err)
	}
}
