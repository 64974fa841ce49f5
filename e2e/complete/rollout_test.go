// SPDX-License-Identifier: Apache-2.0

//go:build linux

package complete_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/filter"
	"github.com/spotbench/spotbench/pkg/demo"
)

const (
	system    = "spotbench-system"
	workloads = "gpu-workloads"
)

// marker is the annotation that makes a rollout of a changed template.
func marker(version string) string {
	return fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"e2e.spotbench.dev/version":%q}}}}}`, version)
}

// Pods are submitted all the time while the schedulers are replaced, and then the change
// is taken back: each is placed, and none waits longer than a new leader takes.
func TestSchedulersAreUpgradedAndRolledBackWhilePodsArePlaced(t *testing.T) {
	// The lease of a leader that went without giving it up, and its successor's retry.
	const longest = 15 * time.Second
	for _, step := range []struct {
		name string
		do   []string
	}{
		{"upgrade", []string{"-n", system, "patch", "deployment", "scheduler", "--type", "merge", "--patch", marker("next")}},
		{"rollback", []string{"-n", system, "rollout", "undo", "deployment/scheduler"}},
	} {
		t.Run(step.name, func(t *testing.T) {
			before := podNames(t, system, "app.kubernetes.io/component=scheduler")
			kubectl(t, step.do...)
			done := make(chan error, 1)
			go func() { done <- demo.WaitRolledOut(t.Context(), stage.Client, 3*time.Minute, system) }()
			var slowest time.Duration
			count := 0
			for rolling := true; rolling; count++ {
				select {
				case err := <-done:
					if err != nil {
						t.Fatal(err)
					}
					rolling = false // one more, placed by the new ones
				default:
				}
				slowest = max(slowest, place(t, fmt.Sprintf("%s-%d", step.name, count)))
			}
			after := podNames(t, system, "app.kubernetes.io/component=scheduler")
			if len(after) != 2 || slices.ContainsFunc(after, func(name string) bool { return slices.Contains(before, name) }) {
				t.Errorf("schedulers are %v after and %v before, want two new ones", after, before)
			}
			if count < 3 || slowest > longest {
				t.Errorf("%d pods were placed, the slowest after %s; want at least 3, and %s", count, slowest, longest)
			}
			t.Logf("%d pods placed during the %s, the slowest after %s", count, step.name, slowest.Round(time.Millisecond))
		})
	}
}

func podNames(t *testing.T, namespace, selector string) []string {
	t.Helper()
	var names []string
	for _, pod := range podsOf(t, namespace, selector) {
		if pod.DeletionTimestamp == nil {
			names = append(names, pod.Name)
		}
	}
	return names
}

// place submits a pod, and returns how long it waited for a node.
func place(t *testing.T, name string) time.Duration {
	t.Helper()
	pod := gpuPod("placed-"+name, map[string]string{"spotbench.dev/gpu-model": "L4-24GB"})
	start := time.Now()
	if _, err := stage.Client.CoreV1().Pods(workloads).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	defer remove(t, pod.Name)
	for time.Since(start) < time.Minute {
		got, err := stage.Client.CoreV1().Pods(workloads).Get(t.Context(), pod.Name, metav1.GetOptions{})
		if err == nil && got.Spec.NodeName != "" {
			return time.Since(start)
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s has no node after a minute", pod.Name)
	return 0
}

func remove(t *testing.T, name string) {
	t.Helper()
	zero := int64(0)
	if err := stage.Client.CoreV1().Pods(workloads).Delete(cleanupContext(t), name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Error(err)
	}
}

func gpuPod(name string, annotations map[string]string) *corev1.Pod {
	yes, no, uid := true, false, int64(65532)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: workloads, Name: name, Annotations: annotations},
		Spec: corev1.PodSpec{
			SchedulerName: "spotbench", AutomountServiceAccountToken: &no,
			Tolerations:     []corev1.Toleration{{Key: "nvidia.com/gpu", Operator: corev1.TolerationOpExists}},
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: &yes, RunAsUser: &uid, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{
				Name: "main", Image: "spotbench.dev/pause:3.10", ImagePullPolicy: corev1.PullIfNotPresent,
				Resources:       corev1.ResourceRequirements{Limits: corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("1")}},
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
			}},
		},
	}
}

// The notice comes while the node has no agent: the old one has ended and the new one has
// not started. The benchmark is saved and goes on elsewhere all the same.
func TestANoticeInTheMiddleOfTheAgentsUpgradeIsActedOn(t *testing.T) {
	const job = "qwen2-5-72b"
	for _, file := range []string{"serviceaccount.yaml", job + ".yaml"} {
		kubectl(t, "apply", "-f", root+"/manifests/demo/"+file)
	}
	t.Cleanup(func() {
		if _, err := stage.Kubectl.Run(cleanupContext(t), "-n", workloads, "delete", "job", job, "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	var victim corev1.Pod
	eventually(t, 2*time.Minute, "the benchmark runs", func() error {
		pods := podsOf(t, workloads, "job-name="+job)
		if len(pods) != 1 || pods[0].Status.Phase != corev1.PodRunning {
			return fmt.Errorf("its pods are %d", len(pods))
		}
		victim = pods[0]
		return nil
	})
	node := victim.Spec.NodeName
	// All agents at once: so the benchmark is not over by its node's turn, and no other
	// agent can help.
	old := agentOn(t, node)
	kubectl(t, "-n", system, "patch", "daemonset", "node-agent", "--type", "merge", "--patch",
		`{"spec":{"updateStrategy":{"rollingUpdate":{"maxUnavailable":"100%"}}}}`)
	kubectl(t, "-n", system, "patch", "daemonset", "node-agent", "--type", "merge", "--patch", marker("next"))
	eventually(t, time.Minute, "the node has no agent", func() error {
		// The next pod is made when the last one is gone, and takes a second to start.
		if pod := agentOn(t, node); pod == nil || pod.UID != old.UID {
			return nil
		}
		return errors.New("the old one is there")
	})
	sent := time.Now()
	if err := stage.Cluster.Notice(t.Context(), node, sent.Add(2*time.Minute), "terminate"); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the node takes no new pods", func() error {
		if !closed(t, node) {
			return errors.New("it does")
		}
		return nil
	})
	if agent := agentOn(t, node); agent == nil || agent.UID == old.UID {
		t.Error("the old agent acted, so that the notice did not come in the middle of the upgrade")
	}
	eventually(t, 2*time.Minute, "the benchmark runs on another node", func() error {
		for _, pod := range podsOf(t, workloads, "job-name="+job) {
			if pod.UID != victim.UID && pod.Status.Phase == corev1.PodRunning && pod.Spec.NodeName != node {
				return nil
			}
		}
		return errors.New("it does not")
	})
	var recorded catalog.Interruption
	eventually(t, time.Minute, "the catalog has the interruption with its checkpoint", func() error {
		page, err := stage.Catalog.ListInterruptions(t.Context(), filter.InterruptionList{})
		if err != nil {
			return err
		}
		for _, i := range page.Items {
			if i.PodUID == string(victim.UID) && i.CheckpointBytes > 0 && !i.EvictedAt.IsZero() {
				recorded = i
				return nil
			}
		}
		return fmt.Errorf("it has %d others", len(page.Items))
	})
	t.Logf("notice seen %s after it was sent, checkpoint of %d bytes whole after %s", recorded.NoticeAt.Sub(sent).Round(time.Millisecond),
		recorded.CheckpointBytes, recorded.CheckpointedAt.Sub(sent).Round(time.Millisecond))
	if err := demo.WaitRolledOut(t.Context(), stage.Client, 3*time.Minute, system); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "-n", system, "rollout", "undo", "daemonset/node-agent")
	if err := demo.WaitRolledOut(t.Context(), stage.Client, 3*time.Minute, system); err != nil {
		t.Fatal(err)
	}
	if pod := agentOn(t, node); pod == nil || pod.Annotations["e2e.spotbench.dev/version"] != "" {
		t.Error("the rollback did not bring the old agent back")
	}
	if err := stage.Cluster.Withdraw(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the agent of before opens the node again, as the notice is withdrawn", func() error {
		if closed(t, node) {
			return errors.New("it is closed")
		}
		return nil
	})
}

// closed says whether the node takes no new pods because of a notice.
func closed(t *testing.T, node string) bool {
	t.Helper()
	n, err := stage.Client.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(n.Spec.Taints, func(taint corev1.Taint) bool { return taint.Key == "spotbench.dev/interruption" })
}

// agentOn is the agent's pod on the node, the new one if there are two, nil if there is none.
func agentOn(t *testing.T, node string) *corev1.Pod {
	t.Helper()
	var found *corev1.Pod
	for _, pod := range podsOf(t, system, "app.kubernetes.io/name=node-agent") {
		if pod.Spec.NodeName == node && (found == nil || found.DeletionTimestamp != nil) {
			found = &pod
		}
	}
	return found
}
