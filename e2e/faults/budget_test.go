// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestADisruptionBudgetCannotEatTheWindow has a budget that never lets the pod go. While the
// agent asks in vain, load balancers leave the node out already.
func TestADisruptionBudgetCannotEatTheWindow(t *testing.T) {
	t.Parallel()
	node := pool.borrow(t, 1)[0]
	r := start(t, node, job{name: "budget", blob: "8Mi", steps: 400})
	none := intstr.FromInt32(0)
	budgets := stage.Client.PolicyV1().PodDisruptionBudgets(workloads)
	if _, err := budgets.Create(t.Context(), &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: r.job.name},
		Spec: policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &none, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"batch.kubernetes.io/job-name": r.job.name}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := budgets.Delete(cleanupContext(t), r.job.name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	r.awaitSteps(1, 30)
	open(t, r.job.name, refuge)
	sent := notice(t, node, 30*time.Second)
	eventually(t, 10*time.Second, "the node to be left out of load balancers", func() bool {
		n, err := stage.Client.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
		return err == nil && n.Labels[corev1.LabelNodeExcludeBalancers] == "spotbench"
	})
	did := r.finished(2)
	lost := lostBetween(did[0], did[1])
	// It is told to stop when its grace of 5 s and 5 s for the last checkpoint are left.
	worked := did[0].done[did[0].last].Sub(sent)
	if lost > 2 || worked < 15*time.Second || worked > 25*time.Second {
		t.Errorf("%.1f s of work were lost, and it worked for %s after the notice", lost, worked)
	}
	r.recorded(lost)
	findings.add(t, "a disruption budget never lets the pod go, notice of 30 s", lost, "the checkpoint on the notice, and the one after SIGTERM, 10 s before the machine's end")
}
