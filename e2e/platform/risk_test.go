// SPDX-License-Identifier: Apache-2.0

package platform_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spotbench/spotbench/pkg/catalog"
)

// nodeOf is where a pod has been placed, "" for nowhere, with what its event says.
func nodeOf(t *testing.T, name string) (node, unschedulable string) {
	t.Helper()
	pod, err := stage.Client.CoreV1().Pods(workloads).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			unschedulable = c.Message
		}
	}
	return pod.Spec.NodeName, unschedulable
}

func TestAPodWithADeadlineWaitsForTakenSpotAndMovesToOnDemandInTime(t *testing.T) {
	taker := gpuPod("taker", 8, map[string]string{"spotbench.dev/gpu-model": "A100-80GB", "spotbench.dev/capacity": "spot"})
	create(t, taker)
	eventually(t, 30*time.Second, "the spot node to be taken", func() bool { node, _ := nodeOf(t, taker.Name); return node == "a100-spot-0" })

	// Ten minutes of work and the margin of fifteen: on demand must start in about 8 s.
	urgent := time.Now().Add(8 * time.Second)
	patient := gpuPod("patient", 8, map[string]string{"spotbench.dev/gpu-model": "A100-80GB", "spotbench.dev/expected-duration": "10m",
		"spotbench.dev/checkpoint-path": "/checkpoint", "spotbench.dev/deadline": urgent.Add(25 * time.Minute).UTC().Format(time.RFC3339)})
	patient.Spec.Volumes = []corev1.Volume{{Name: "checkpoint", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	patient.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "checkpoint", MountPath: "/checkpoint"}}
	create(t, patient)
	eventually(t, 5*time.Second, "the pod to wait for spot", func() bool {
		_, why := nodeOf(t, patient.Name)
		return strings.Contains(why, "waits for spot until")
	})
	eventually(t, 30*time.Second, "the pod to start on demand", func() bool {
		node, why := nodeOf(t, patient.Name)
		if node != "" && node != "a100-od-0" {
			t.Fatalf("it went to %s", node)
		}
		if node != "" {
			t.Logf("on %s %s after it became urgent", node, time.Since(urgent).Round(time.Second/10))
		}
		return node == "a100-od-0" || strings.Contains(why, "no time left")
	})
	if node, why := nodeOf(t, patient.Name); node != "a100-od-0" {
		t.Errorf("not on demand: %s", why)
	}
}

func TestTheCatalogsRisksReachTheSchedulerWithoutARestart(t *testing.T) {
	// Machines of the L4 pool that all lived for three minutes: what is assumed of it
	// is far less than what these teach.
	node, err := stage.Client.CoreV1().Nodes().Get(t.Context(), "l4-spot-0", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// With what is assumed the pod fits.
	limit := map[string]string{"spotbench.dev/gpu-model": "L4-24GB", "spotbench.dev/max-interruption-risk": "0.50", "spotbench.dev/expected-duration": "1h"}
	before := gpuPod("before-the-evidence", 1, limit)
	create(t, before)
	eventually(t, 30*time.Second, "the pod to be placed", func() bool { on, _ := nodeOf(t, before.Name); return on == "l4-spot-0" })
	for n := range 40 {
		end := time.Now().Add(-time.Duration(n+1) * time.Minute).UTC()
		if _, err := stage.Catalog.PutInstance(t.Context(), fmt.Sprintf("e2e-short-lived-%d", n), catalog.Instance{
			Provider: "aws", Region: node.Labels["topology.kubernetes.io/region"], Zone: node.Labels["topology.kubernetes.io/zone"],
			InstanceType: node.Labels["node.kubernetes.io/instance-type"], CapacityType: "spot",
			StartedAt: end.Add(-3 * time.Minute), SeenAt: end, NoticeAt: end}); err != nil {
			t.Fatal(err)
		}
	}
	after := gpuPod("after-the-evidence", 1, limit)
	pods := stage.Client.CoreV1().Pods(workloads)
	zero := int64(0)
	eventually(t, 3*time.Minute, "the scheduler to refuse the pool for its learned risk", func() bool {
		if _, err := pods.Create(t.Context(), after, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		var on, why string
		eventually(t, 30*time.Second, "a decision", func() bool { on, why = nodeOf(t, after.Name); return on != "" || why != "" })
		if err := pods.Delete(t.Context(), after.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
			t.Fatal(err)
		}
		if on == "" && strings.Contains(why, "interruption risk") {
			t.Log(why)
			return true
		}
		time.Sleep(3 * time.Second)
		return false
	})
}
