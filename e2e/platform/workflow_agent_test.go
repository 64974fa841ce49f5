// SPDX-License-Identifier: Apache-2.0

package platform_test

import (
	"bufio"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/demo"
	"github.com/spotbench/spotbench/pkg/workflow"
)

// TestAWorkflowFinishesThoughTheAgentIsKilledAsItSuspendsIt ends the agent with SIGKILL
// when it has just suspended the workflow. The next agent of the node must take up the
// hold: without that the others would give it up only 30 s after the machine's end.
func TestAWorkflowFinishesThoughTheAgentIsKilledAsItSuspendsIt(t *testing.T) {
	const name, interrupted = "agent-killed", "l4-spot-0"
	a := withWorkflows(t, interrupted)
	a.sweep(name, nil)
	a.awaitMeasuring(name, interrupted)
	suspended := followAgent(t, interrupted, `"phase":"suspended"`)
	if err := stage.Cluster.Notice(t.Context(), interrupted, time.Now().Add(demo.DefaultNotice), "terminate"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-suspended:
	case <-time.After(30 * time.Second):
		t.Fatal("the agent did not suspend the workflow within 30 s")
	}
	killed := agentPID(t, interrupted)
	if _, err := stage.Cluster.Exec(t.Context(), interrupted, "kill", "-9", killed); err != nil {
		t.Fatalf("kill the agent, process %q: %v", killed, err)
	}
	a.awaitPhase(name, "Succeeded")
	if next := agentPID(t, interrupted); next == killed {
		t.Errorf("the agent is process %s still", next)
	}
	run := a.run(name, 1)
	a.assertMeasuredOnce(run, 1, requests)
	if run.InterruptionCount != 1 || len(run.Nodes) != 2 || run.Nodes[0] != interrupted || run.Status != catalog.Succeeded {
		t.Errorf("%s after %d interruptions on %v, want it succeeded after one, begun on %s", run.Status, run.InterruptionCount, run.Nodes, interrupted)
	}
	if s := a.state(name); s.Suspended || s.Ours || len(s.Holds) > 0 {
		t.Errorf("our marks are still on the workflow: %+v", s)
	}
	a.assertEvent(name, workflow.ReasonResumed, "resumed: 1 pod has left "+interrupted+", saved as far as it could be and recorded")
	if len(run.Interruptions) != 1 || run.Interruptions[0].WorkLostSeconds == nil || *run.Interruptions[0].WorkLostSeconds > 3 {
		t.Errorf("interruptions %+v, want one with at most 3 s of work lost", run.Interruptions)
	} else {
		t.Logf("the agent is killed (SIGKILL) as it suspends the workflow: %.1f s of work lost", *run.Interruptions[0].WorkLostSeconds)
	}
}

// agentPID is the process of the node's agent, by the node's own count.
func agentPID(t *testing.T, node string) string {
	t.Helper()
	out, err := stage.Cluster.Exec(t.Context(), node, "sh", "-c", `for p in /proc/[0-9]*; do if tr '\0' ' ' <$p/cmdline | grep -q '^/usr/bin/node-agent run '; then echo ${p#/proc/}; fi; done 2>/dev/null`)
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(string(out))
	if _, err := strconv.Atoi(pid); err != nil {
		t.Fatalf("the agent of %s is process %q, want one", node, pid)
	}
	return pid
}

// followAgent closes the channel when the agent of the node logs a line with the text.
func followAgent(t *testing.T, node, text string) <-chan struct{} {
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
	found := make(chan struct{})
	go func() {
		defer stream.Close()
		for lines := bufio.NewScanner(stream); lines.Scan(); {
			if strings.Contains(lines.Text(), text) {
				close(found)
				return
			}
		}
	}()
	return found
}
