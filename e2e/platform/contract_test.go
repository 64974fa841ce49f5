// SPDX-License-Identifier: Apache-2.0

package platform_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// workloads is where benchmark pods run.
const workloads = "gpu-workloads"

// gpuPod is a pod of the pause image that asks for GPUs of our scheduler.
func gpuPod(name string, gpus int64, annotations map[string]string) *corev1.Pod {
	quantity := *resource.NewQuantity(gpus, resource.DecimalSI)
	yes, no := true, false
	uid := int64(65532)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: workloads, Name: name, Annotations: annotations},
		Spec: corev1.PodSpec{
			SchedulerName:                "spotbench",
			AutomountServiceAccountToken: &no,
			Tolerations:                  []corev1.Toleration{{Key: "nvidia.com/gpu", Operator: corev1.TolerationOpExists}},
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: &yes, RunAsUser: &uid,
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{
				Name: "main", Image: "spotbench.dev/pause:3.10", ImagePullPolicy: corev1.PullIfNotPresent,
				Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"nvidia.com/gpu": quantity}},
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: &no,
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
			}},
		},
	}
}

// create creates the pod and deletes it at the end of the test.
func create(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	if _, err := stage.Client.CoreV1().Pods(pod.Namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatalf("create pod %s: %v", pod.Name, err)
	}
	t.Cleanup(func() {
		zero := int64(0)
		if err := stage.Client.CoreV1().Pods(pod.Namespace).Delete(cleanupContext(t), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
			t.Errorf("delete pod %s: %v", pod.Name, err)
		}
	})
}

func TestAMalformedAnnotationIsRejectedAtApply(t *testing.T) {
	tests := map[string]struct{ annotation, value string }{
		"a memory that is no quantity":          {"gpu-memory", "lots"},
		"a capacity type that does not exist":   {"capacity", "cheap"},
		"a risk above one":                      {"max-interruption-risk", "1.5"},
		"a duration without a unit":             {"expected-duration", "45"},
		"a deadline that is no time":            {"deadline", "tomorrow"},
		"a checkpoint path that is not rooted":  {"checkpoint-path", "checkpoint"},
		"an interval that is no duration":       {"checkpoint-interval", "often"},
		"an isolation level that is not one":    {"isolation", "rack"},
		"a command that is not a list of words": {"checkpoint-command", "/bin/save"},
	}
	for name, tt := range tests {
		t.Run(name+" in a pod", func(t *testing.T) {
			manifest := fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata:
  namespace: %s
  name: malformed
  annotations:
    spotbench.dev/%s: %q
spec:
  schedulerName: spotbench
  containers:
    - {name: main, image: spotbench.dev/pause:3.10}
`, workloads, tt.annotation, tt.value)
			assertRejected(t, manifest, tt.annotation, tt.value)
		})
		t.Run(name+" in the template of a job", func(t *testing.T) {
			manifest := fmt.Sprintf(`apiVersion: batch/v1
kind: Job
metadata:
  namespace: %s
  name: malformed
spec:
  template:
    metadata:
      annotations:
        spotbench.dev/%s: %q
    spec:
      schedulerName: spotbench
      restartPolicy: Never
      containers:
        - {name: main, image: spotbench.dev/pause:3.10}
`, workloads, tt.annotation, tt.value)
			assertRejected(t, manifest, tt.annotation, tt.value)
		})
	}
}

// assertRejected applies the manifest and wants a refusal that names the
// annotation, the value, and an example of a right one.
func assertRejected(t *testing.T, manifest, annotation, value string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "manifest.yaml")
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := stage.Kubectl.Run(t.Context(), "apply", "-f", path)
	if err == nil {
		_, _ = stage.Kubectl.Run(t.Context(), "delete", "-f", path, "--now")
		t.Fatalf("the API server accepted %s=%q", annotation, value)
	}
	for _, want := range []string{"spotbench.dev/" + annotation, value, "xample"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the refusal does not say %q:\n%v", want, err)
		}
	}
}

func TestEveryRefusalHasItsReasonInThePodsEvent(t *testing.T) {
	tests := map[string]struct {
		gpus        int64
		annotations map[string]string
		want        []string
	}{
		"a model that no node has": {
			gpus: 1, annotations: map[string]string{"spotbench.dev/gpu-model": "H200-141GB"},
			want: []string{"H200-141GB", "A100-80GB", "L4-24GB"},
		},
		"more memory than any GPU has": {
			gpus: 1, annotations: map[string]string{"spotbench.dev/gpu-memory": "120Gi"},
			want: []string{"wanted 120 GiB", "A100-80GB with 80 GiB"},
		},
		"on-demand capacity of a model that is only there as spot": {
			gpus: 1, annotations: map[string]string{"spotbench.dev/gpu-model": "L4-24GB", "spotbench.dev/capacity": "on-demand"},
			want: []string{"spot", "on-demand"},
		},
		"less risk than any spot node of the model has": {
			gpus: 1, annotations: map[string]string{"spotbench.dev/gpu-model": "L4-24GB", "spotbench.dev/max-interruption-risk": "0.0001", "spotbench.dev/expected-duration": "24h"},
			want: []string{"interruption risk", "limit 0.0001"},
		},
		"more GPUs than a node has": {
			gpus: 16, annotations: map[string]string{"spotbench.dev/gpu-model": "A100-80GB"},
			want: []string{"nvidia.com/gpu"},
		},
	}
	i := 0
	for name, tt := range tests {
		i++
		pod := gpuPod(fmt.Sprintf("refused-%d", i), tt.gpus, tt.annotations)
		t.Run(name, func(t *testing.T) {
			create(t, pod)
			message := ""
			eventually(t, 30*time.Second, "a FailedScheduling event", func() bool {
				events, err := stage.Client.CoreV1().Events(workloads).List(t.Context(), metav1.ListOptions{
					FieldSelector: "reason=FailedScheduling,involvedObject.name=" + pod.Name})
				if err != nil || len(events.Items) == 0 {
					return false
				}
				message = events.Items[0].Message
				return true
			})
			for _, want := range tt.want {
				if !strings.Contains(message, want) {
					t.Errorf("the event does not say %q: %s", want, message)
				}
			}
		})
	}
}

func TestPodsOfAnotherSchedulerAreNotTouched(t *testing.T) {
	// The annotation asks for a model that no node has: our scheduler would refuse
	// it, so that it runs shows that another one placed it.
	pod := gpuPod("other-scheduler", 1, map[string]string{"spotbench.dev/gpu-model": "H200-141GB"})
	pod.Spec.SchedulerName = "default-scheduler"
	create(t, pod)
	eventually(t, 60*time.Second, "the pod to run", func() bool {
		got, err := stage.Client.CoreV1().Pods(workloads).Get(t.Context(), pod.Name, metav1.GetOptions{})
		if err != nil || got.Status.Phase != corev1.PodRunning {
			return false
		}
		if got.Annotations["spotbench.dev/placement"] != "" {
			t.Errorf("our scheduler wrote a placement on it: %s", got.Annotations["spotbench.dev/placement"])
		}
		return true
	})

	orphan := gpuPod("no-such-scheduler", 1, nil)
	orphan.Spec.SchedulerName = "nobody"
	create(t, orphan)
	time.Sleep(5 * time.Second) // our scheduler would have acted within milliseconds
	got, err := stage.Client.CoreV1().Pods(workloads).Get(t.Context(), orphan.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Spec.NodeName != "" || len(got.Status.Conditions) != 0 {
		t.Errorf("a pod of the scheduler \"nobody\" was touched: node %q, conditions %v", got.Spec.NodeName, got.Status.Conditions)
	}
}
