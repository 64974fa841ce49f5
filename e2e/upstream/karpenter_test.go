// SPDX-License-Identifier: Apache-2.0

//go:build linux

package upstream_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
)

const (
	workloads    = "gpu-workloads"
	nodePool     = "karpenter.sh/nodepool"
	capacityType = "karpenter.sh/capacity-type"
	instanceType = "node.kubernetes.io/instance-type"
	productLabel = "nvidia.com/gpu.product"
	simulated    = "simulated"
)

// offer is one instance type of the simulated cloud.
type offer struct {
	name           string
	cpu, memory    string
	gpus           string
	onDemand, spot float64
}

// offers are the types that our NodePools name, at prices per hour.
var offers = []offer{
	{"p4de.24xlarge", "96", "1152Gi", "8", 27.447, 9.606},
	{"p5.48xlarge", "192", "2Ti", "8", 55.04, 26.419},
	{"g6.12xlarge", "48", "192Gi", "4", 4.602, 1.887},
	{"m7i.2xlarge", "8", "32Gi", "0", 0.403, 0.2},
}

func instanceTypes(t *testing.T) string {
	t.Helper()
	type requirement struct {
		Key, Operator string
		Values        []string
	}
	type offering struct {
		Price        float64
		Available    bool
		Requirements []requirement
	}
	var types []map[string]any
	for _, o := range offers {
		var offerings []offering
		for capacity, price := range map[string]float64{"spot": o.spot, "on-demand": o.onDemand} {
			offerings = append(offerings, offering{price, true, []requirement{{capacityType, "In", []string{capacity}}, {corev1.LabelTopologyZone, "In", []string{"us-east-1b"}}}})
		}
		types = append(types, map[string]any{"name": o.name, "architecture": "amd64", "operatingSystems": []string{"linux"}, "offerings": offerings,
			"resources": map[string]string{"cpu": o.cpu, "memory": o.memory, "ephemeral-storage": "500Gi", "nvidia.com/gpu": o.gpus}})
	}
	data, err := json.Marshal(types)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "types.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// startKarpenter with the pools of the overlay aws, whose machines it simulates.
func startKarpenter(t *testing.T) {
	t.Helper()
	binary := program(t, toolchain.Karpenter)
	class := object("karpenter.kwok.sh/v1alpha1", "KWOKNodeClass")
	class.SetName(simulated)
	pools := []*unstructured.Unstructured{class}
	objects := ofKind(t, "overlays/aws", "NodePool")
	for i := range objects {
		pool := &objects[i].Unstructured
		reference := map[string]any{"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": simulated}
		if err := unstructured.SetNestedMap(pool.Object, reference, "spec", "template", "spec", "nodeClassRef"); err != nil {
			t.Fatal(err)
		}
		pools = append(pools, pool)
	}
	for _, o := range pools {
		if err := apply(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	daemon(t, "", []string{"KUBECONFIG=" + cluster.Kubeconfig()}, binary, "--disable-leader-election=true", "--metrics-port="+freePort(t), "--health-probe-port="+freePort(t),
		"--instance-types-file-path="+instanceTypes(t), "--log-level=debug")
}

// startScheduler runs ours with its shipped configuration and the rights of its account.
func startScheduler(t *testing.T) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "scheduler")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../cmd/scheduler").CombinedOutput(); err != nil {
		t.Fatalf("build the scheduler: %v\n%s", err, out)
	}
	dir, err := filepath.Abs(filepath.Join(manifests, "base/scheduler"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(string(text), "/etc/spotbench/scheduler", dir)), &config); err != nil {
		t.Fatal(err)
	}
	kubeconfig := kubeconfigOf(t, "spotbench-system", "scheduler")
	config["leaderElection"] = map[string]any{"leaderElect": false}
	config["clientConnection"] = map[string]any{"kubeconfig": kubeconfig}
	for _, plugin := range config["profiles"].([]any)[0].(map[string]any)["pluginConfig"].([]any) {
		args := plugin.(map[string]any)["args"].(map[string]any)
		delete(args, "catalogURL") // there is no catalog here
		delete(args, "catalogCAFile")
	}
	if text, err = yaml.Marshal(config); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	daemon(t, "", nil, binary, "--config="+file, "--bind-address=127.0.0.1", "--secure-port="+freePort(t), "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig, "--v=2")
}

// kubeconfigOf is a file with a token of the account.
func kubeconfigOf(t *testing.T, namespace, account string) string {
	t.Helper()
	config := cluster.RESTConfig()
	file := filepath.Join(t.TempDir(), account+".conf")
	if err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": {Server: config.Host, CertificateAuthorityData: config.CAData, CertificateAuthority: config.CAFile}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": {Token: tokenOf(t, namespace, account)}},
		Contexts:       map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u"}},
		CurrentContext: "x",
	}, file); err != nil {
		t.Fatal(err)
	}
	return file
}

func tokenOf(t *testing.T, namespace, account string) string {
	t.Helper()
	token, err := cluster.Client().CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, new(authenticationv1.TokenRequest), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return token.Status.Token
}

// createBenchmark makes a pod with eight GPUs that its controller replaces when it goes. It
// says what it wants by annotations only.
func createBenchmark(t *testing.T, name string, annotations map[string]string) {
	t.Helper()
	no, user, one := false, int64(65532), int32(1)
	yes := true
	labels := map[string]string{"app.kubernetes.io/name": name}
	set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: workloads}, Spec: appsv1.ReplicaSetSpec{
		Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: annotations}, Spec: corev1.PodSpec{
			SchedulerName: benchspec.SchedulerName, ServiceAccountName: "benchmark", AutomountServiceAccountToken: &no,
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: &yes, RunAsUser: &user},
			Tolerations:     []corev1.Toleration{{Key: "nvidia.com/gpu", Operator: corev1.TolerationOpExists}},
			Containers: []corev1.Container{{Name: "bench", Image: "bench:v1", Resources: corev1.ResourceRequirements{
				Limits: corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("8")}}}},
		}},
	}}
	if err := admin.Create(t.Context(), set); err != nil {
		t.Fatal(err)
	}
}

// podOf is the one pod of a benchmark that is not on its way out.
func podOf(ctx context.Context, name string) (*corev1.Pod, error) {
	var pods corev1.PodList
	if err := admin.List(ctx, &pods, client.InNamespace(workloads), client.MatchingLabels{"app.kubernetes.io/name": name}); err != nil {
		return nil, err
	}
	for i := range pods.Items {
		if pods.Items[i].DeletionTimestamp.IsZero() {
			return &pods.Items[i], nil
		}
	}
	return nil, errors.New("no pod")
}

// running waits until the benchmark runs, and returns its pod and its node.
func running(t *testing.T, name, besides string) (*corev1.Pod, *corev1.Node) {
	t.Helper()
	var pod *corev1.Pod
	node := new(corev1.Node)
	eventually(t, time.Minute, name+" runs", func(ctx context.Context) (err error) {
		if pod, err = podOf(ctx, name); err != nil {
			return err
		}
		if pod.Status.Phase != corev1.PodRunning || pod.Spec.NodeName == besides {
			claims, err := list(ctx, "karpenter.sh/v1", "NodeClaim", "")
			return fmt.Errorf("the pod is %s on %q: %v; node claims: %s %w", pod.Status.Phase, pod.Spec.NodeName, pod.Status.Conditions, names(claims), err)
		}
		return admin.Get(ctx, client.ObjectKey{Name: pod.Spec.NodeName}, node)
	})
	return pod, node
}

// told waits for an event of the reason about the benchmark's pod, by who.
func told(t *testing.T, name, reason, by string) string {
	t.Helper()
	var text string
	eventually(t, time.Minute, by+" tells "+name+" "+reason, func(ctx context.Context) error {
		pod, err := podOf(ctx, name)
		if err != nil {
			return err
		}
		var events corev1.EventList
		if err := admin.List(ctx, &events, client.InNamespace(workloads), client.MatchingFields{"involvedObject.name": pod.Name, "reason": reason}); err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.Source.Component == by || e.ReportingController == by {
				text = e.Message
				return nil
			}
		}
		return fmt.Errorf("%d events", len(events.Items))
	})
	return text
}

func wantNode(t *testing.T, n *corev1.Node, pool, capacity, kind, product string) {
	t.Helper()
	for label, want := range map[string]string{nodePool: pool, capacityType: capacity, instanceType: kind, productLabel: product} {
		if got := n.Labels[label]; got != want {
			t.Errorf("the node has %s=%s, want %s", label, got, want)
		}
	}
}

// TestKarpenterProvisionsWhatABenchmarkNamesByAnnotation goes through a benchmark's life
// with the autoscaler. Its parts build on each other.
func TestKarpenterProvisionsWhatABenchmarkNamesByAnnotation(t *testing.T) {
	startKarpenter(t)
	startScheduler(t)
	const h100 = "NVIDIA-H100-80GB-HBM3"
	models, capacity := benchspec.AnnotationGPUModel, benchspec.AnnotationCapacity
	var first *corev1.Node

	t.Run("a pending pod that names the H100 gets a spot node of it", func(t *testing.T) {
		begin := time.Now()
		createBenchmark(t, "first", map[string]string{models: "H100-80GB"})
		t.Log("our scheduler: ", told(t, "first", "FailedScheduling", benchspec.SchedulerName))
		pod, node := running(t, "first", "")
		first = node
		t.Logf("running %s after it was created, on %s of the pool %s", time.Since(begin).Round(100*time.Millisecond), node.Labels[instanceType], node.Labels[nodePool])
		wantNode(t, node, "h100-80gb-spot", "spot", "p5.48xlarge", h100)
		if !strings.Contains(pod.Annotations[benchspec.AnnotationPlacement], "H100-80GB") {
			t.Errorf("the scheduler's decision is %q, want one that names the H100", pod.Annotations[benchspec.AnnotationPlacement])
		}
		if claims, err := list(t.Context(), "karpenter.sh/v1", "NodeClaim", ""); err != nil || len(claims) != 1 {
			t.Errorf("node claims: %s, %v; want one", names(claims), err)
		}
	})
	if t.Failed() {
		return
	}

	t.Run("when its machine goes, the pod that takes its place gets another", func(t *testing.T) {
		begin := time.Now()
		if err := admin.Delete(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		_, node := running(t, "first", first.Name)
		t.Logf("running again %s after the end of its machine", time.Since(begin).Round(100*time.Millisecond))
		wantNode(t, node, "h100-80gb-spot", "spot", "p5.48xlarge", h100)
		if node.Name == first.Name {
			t.Error("it is on the machine that went")
		}
	})

	limit := func(pool, gpus string) {
		t.Helper()
		o := object("karpenter.sh/v1", "NodePool")
		o.SetName(pool)
		if err := admin.Patch(t.Context(), o, client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"limits":{"nvidia.com/gpu":%q}}}`, gpus))); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("when there is no more spot, one that takes any capacity gets a node on demand", func(t *testing.T) {
		limit("h100-80gb-spot", "8")
		createBenchmark(t, "second", map[string]string{models: "H100-80GB"})
		_, node := running(t, "second", "")
		wantNode(t, node, "h100-80gb-on-demand", "on-demand", "p5.48xlarge", h100)
	})

	t.Run("one that wants spot gets no node on demand, which it would not run on", func(t *testing.T) {
		limit("h100-80gb-on-demand", "16")
		createBenchmark(t, "patient", map[string]string{models: "H100-80GB", capacity: "spot"})
		t.Log("Karpenter: ", told(t, "patient", "FailedScheduling", "karpenter"))
		if claims, err := list(t.Context(), "karpenter.sh/v1", "NodeClaim", ""); err != nil || len(claims) != 2 {
			t.Errorf("node claims: %s, %v; want the two from before", names(claims), err)
		}
		limit("h100-80gb-spot", "16")
		_, node := running(t, "patient", "")
		wantNode(t, node, "h100-80gb-spot", "spot", "p5.48xlarge", h100)
	})

	t.Run("one that takes the next best model gets it when there is no more of the best", func(t *testing.T) {
		limit("h100-80gb-on-demand", "8")
		createBenchmark(t, "flexible", map[string]string{models: "H100-80GB, A100-80GB"})
		_, node := running(t, "flexible", "")
		wantNode(t, node, "a100-80gb-spot", "spot", "p4de.24xlarge", "NVIDIA-A100-SXM4-80GB")
	})
}
