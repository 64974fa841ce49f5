// SPDX-License-Identifier: Apache-2.0

package platform_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/filter"
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

// processOf is the process of a program in a pod, by its control group.
func processOf(t *testing.T, program string, pod *corev1.Pod) int {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline")) // gone by now, perhaps
		groups, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		if strings.HasSuffix(string(bytes.Split(line, []byte{0})[0]), program) && bytes.Contains(groups, []byte(pod.UID)) {
			pid, err := strconv.Atoi(filepath.Base(dir))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("no process of %s in pod %s", program, pod.Name)
	return 0
}

func TestACatalogThatDoesNotAnswerNeverHoldsUpAPlacement(t *testing.T) {
	pods, err := stage.Client.CoreV1().Pods("model-catalog").List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=catalog-api"})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("%d pods of the catalog, %v, want one", len(pods.Items), err)
	}
	// A stopped process keeps its connections and takes new ones, but never answers.
	pid := processOf(t, "catalog-api", &pods.Items[0])
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	})
	for n := range 3 {
		pod := gpuPod(fmt.Sprintf("while-the-catalog-hangs-%d", n), 1, map[string]string{"spotbench.dev/gpu-model": "A100-80GB"})
		begin := time.Now()
		create(t, pod)
		eventually(t, 10*time.Second, "the pod to be placed", func() bool { node, _ := nodeOf(t, pod.Name); return node != "" })
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("placed after %s while the catalog hangs, want no wait", took.Round(time.Millisecond))
		}
		time.Sleep(2 * time.Second) // one of the three meets a refresh that hangs, or follows one
	}
}

func TestThePriceDecidesAndANewOneAfterTheSchedulersRestart(t *testing.T) {
	placedOn := func(name string) string {
		pod := gpuPod(name, 1, map[string]string{"spotbench.dev/gpu-model": "A100-80GB", "spotbench.dev/expected-duration": "30m"})
		create(t, pod)
		var node string
		eventually(t, time.Minute, "the pod to be placed", func() bool { node, _ = nodeOf(t, name); return node != "" })
		return node
	}
	if node := placedOn("spot-is-cheap"); node != "a100-spot-0" {
		t.Errorf("with spot for a fraction of the price it went to %s", node)
	}
	// The same book with A100s on spot at a hundred dollars an hour.
	deployments := stage.Client.AppsV1().Deployments("spotbench-system")
	maps := stage.Client.CoreV1().ConfigMaps("spotbench-system")
	scheduler, err := deployments.Get(t.Context(), "scheduler", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	source := configSource(t, scheduler)
	before := source.Name
	config, err := maps.Get(t.Context(), before, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	spot := regexp.MustCompile(`(instanceType: p4de?\.24xlarge, capacityType: spot, usdPerHour: )[0-9.]+`)
	if !spot.MatchString(config.Data["prices.yaml"]) {
		t.Fatalf("the book has no spot price of an A100:\n%s", config.Data["prices.yaml"])
	}
	dear := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "scheduler-config-dear"}, Data: config.Data}
	dear.Data["prices.yaml"] = spot.ReplaceAllString(config.Data["prices.yaml"], "${1}100")
	if _, err := maps.Create(t.Context(), dear, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	roll := func(to string) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 90*time.Second)
		defer cancel()
		scheduler, err := deployments.Get(ctx, "scheduler", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		configSource(t, scheduler).Name = to
		updated, err := deployments.Update(ctx, scheduler, metav1.UpdateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
			d, err := deployments.Get(ctx, "scheduler", metav1.GetOptions{})
			if err == nil && d.Status.ObservedGeneration >= updated.Generation && d.Status.UpdatedReplicas == 1 && d.Status.Replicas == 1 && d.Status.AvailableReplicas == 1 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the scheduler did not roll over: %+v, %v", d.Status, err)
			}
		}
	}
	t.Cleanup(func() {
		roll(before)
		if err := maps.Delete(cleanupContext(t), dear.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	roll(dear.Name)
	if node := placedOn("spot-is-dear"); node != "a100-od-0" {
		t.Errorf("with spot for a hundred dollars it went to %s", node)
	}
}

// configSource is where the scheduler's configuration is mounted from.
func configSource(t *testing.T, d *appsv1.Deployment) *corev1.ConfigMapVolumeSource {
	t.Helper()
	for i := range d.Spec.Template.Spec.Volumes {
		if v := &d.Spec.Template.Spec.Volumes[i]; v.Name == "config" && v.ConfigMap != nil {
			return v.ConfigMap
		}
	}
	t.Fatal("the scheduler has no volume config")
	return nil
}

func TestADeadlineThatAnInterruptionCouldCostForcesOnDemandThoughSpotIsFree(t *testing.T) {
	// Half an hour of work without checkpoints: an interruption just before its end
	// would need it twice. Spot is free, and cheaper.
	tight := gpuPod("tight", 1, map[string]string{"spotbench.dev/gpu-model": "A100-80GB", "spotbench.dev/expected-duration": "30m",
		"spotbench.dev/deadline": time.Now().Add(45 * time.Minute).UTC().Format(time.RFC3339)})
	create(t, tight)
	eventually(t, 30*time.Second, "the pod to be placed", func() bool { node, _ := nodeOf(t, tight.Name); return node != "" })
	pod, err := stage.Client.CoreV1().Pods(workloads).Get(t.Context(), tight.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if pod.Spec.NodeName != "a100-od-0" || !strings.Contains(pod.Annotations["spotbench.dev/placement"], "safe for the deadline") {
		t.Errorf("on %s: %s", pod.Spec.NodeName, pod.Annotations["spotbench.dev/placement"])
	}
	loose := gpuPod("loose", 1, map[string]string{"spotbench.dev/gpu-model": "A100-80GB", "spotbench.dev/expected-duration": "30m",
		"spotbench.dev/deadline": time.Now().Add(2 * time.Hour).UTC().Format(time.RFC3339)})
	create(t, loose)
	eventually(t, 30*time.Second, "the pod to be placed on spot", func() bool { node, _ := nodeOf(t, loose.Name); return node == "a100-spot-0" })
}

func TestTheAgentsReportTheLivesOfTheirMachines(t *testing.T) {
	machines, err := stage.Catalog.ListInstances(t.Context(), filter.InstanceList{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]catalog.Instance{}
	for _, m := range machines.Items {
		if m.Node != "" {
			seen[m.Node] = m
		}
	}
	for _, node := range []string{"a100-spot-0", "a100-od-0", "l4-spot-0"} {
		m, ok := seen[node]
		if !ok || m.InstanceType == "" || m.CapacityType == "" || m.StartedAt.IsZero() || time.Since(m.SeenAt) > 10*time.Minute {
			t.Errorf("%s: %+v, want its pool, its start and a sign of life", node, m)
		}
	}
}
