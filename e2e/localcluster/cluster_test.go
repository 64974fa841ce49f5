// SPDX-License-Identifier: Apache-2.0

//go:build linux

package localcluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/spotbench/spotbench/pkg/images"
	"github.com/spotbench/spotbench/pkg/localcluster"
	"github.com/spotbench/spotbench/pkg/localcluster/shape"
)

// twoNodes is a spot node with two GPUs and a node without.
const twoNodes = `
gpuModels:
  l4: {product: NVIDIA-L4, name: NVIDIA L4, memoryMiB: 23034, family: ada-lovelace, compute: "8.9"}
nodes:
- {name: gpu-0, instanceType: g6.12xlarge, zone: us-east-1c, capacityType: spot, gpu: {model: l4, count: 2}}
- {name: system-0, instanceType: m7i.2xlarge, zone: us-east-1a, capacityType: on-demand}
kwok:
- {name: sim, count: 20, instanceType: g6.12xlarge, zone: us-east-1b, capacityType: spot, gpu: {model: l4, count: 4}}
`

const oneNode = `
nodes:
- {name: only, instanceType: m7i.2xlarge, zone: us-east-1a, capacityType: on-demand}
`

func parse(t *testing.T, text string) shape.Shape {
	t.Helper()
	s, err := shape.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func up(t *testing.T, ctx context.Context, name, text string) *localcluster.Cluster {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			// The logs go with the cluster.
			tail, _ := exec.Command("sh", "-c", "tail -n 5 /var/lib/spotbench/"+name+"/logs/*/*.log").CombinedOutput()
			t.Logf("%s", tail)
		}
		if err := localcluster.Down(name, io.Discard); err != nil {
			t.Error(err)
		}
	})
	start := time.Now()
	c, err := localcluster.Up(ctx, localcluster.Options{Name: name, Shape: parse(t, text), Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("cluster %s was up in %s", name, time.Since(start).Round(100*time.Millisecond))
	return c
}

// TestLifecycle goes through a cluster's whole life. Its parts build on each
// other: starting a cluster for each would take too long.
func TestLifecycle(t *testing.T) {
	needCluster(t)
	const name = "e2e-life"
	if err := localcluster.Down(name, io.Discard); err != nil {
		t.Fatal(err)
	}
	before := lookAt(t, name)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c := up(t, ctx, name, twoNodes)

	t.Run("nodes carry the labels, taints and identity of their cloud", func(t *testing.T) {
		n := getNode(t, ctx, c, "gpu-0")
		if got := n.Labels["nvidia.com/gpu.product"]; got != "NVIDIA-L4" {
			t.Errorf("label nvidia.com/gpu.product is %q, want NVIDIA-L4", got)
		}
		if got := n.Labels["topology.kubernetes.io/zone"]; got != "us-east-1c" {
			t.Errorf("zone is %q, want us-east-1c", got)
		}
		if !strings.HasPrefix(n.Spec.ProviderID, "aws:///us-east-1c/i-") {
			t.Errorf("providerID is %q, want aws:///us-east-1c/i-…", n.Spec.ProviderID)
		}
		if len(n.Spec.Taints) != 1 || n.Spec.Taints[0].Key != "nvidia.com/gpu" {
			t.Errorf("taints are %v, want nvidia.com/gpu only", n.Spec.Taints)
		}
		if n.Status.NodeInfo.KubeletVersion != "v1.34.4" {
			t.Errorf("kubelet is %s, want v1.34.4", n.Status.NodeInfo.KubeletVersion)
		}
	})
	t.Run("simulated nodes take pods", func(t *testing.T) {
		pod := newPod("simulated", 4)
		pod.Spec.NodeSelector = map[string]string{"type": "kwok"}
		runPod(t, ctx, c, pod)
	})

	if err := c.LoadImages(ctx, probeImage(t)); err != nil {
		t.Fatal(err)
	}
	gpuPod := newPod("gpu", 1)
	gpuPod.Labels = map[string]string{"app": "gpu"}
	gpuPod.Spec.NodeName = "gpu-0"
	gpuPod = runPod(t, ctx, c, gpuPod)
	plain := newPod("plain", 0)
	plain.Spec.NodeName = "system-0"
	plain = runPod(t, ctx, c, plain)

	t.Run("a container gets the UUID of its GPU", func(t *testing.T) {
		nodes, err := c.Nodes(ctx)
		if err != nil {
			t.Fatal(err)
		}
		got := get(t, ctx, gpuPod.Status.PodIP, "/env?name=NVIDIA_VISIBLE_DEVICES")
		if got != nodes[0].GPUUUIDs[0] && got != nodes[0].GPUUUIDs[1] {
			t.Errorf("NVIDIA_VISIBLE_DEVICES is %q, want one of %v", got, nodes[0].GPUUUIDs)
		}
	})
	t.Run("pods of different nodes see each other's real address", func(t *testing.T) {
		got := fetch(t, ctx, plain, "http://"+gpuPod.Status.PodIP+":8080/caller")
		if !strings.HasPrefix(got, plain.Status.PodIP+":") {
			t.Errorf("the caller appears as %s, want %s", got, plain.Status.PodIP)
		}
	})
	t.Run("Services and cluster DNS work from pods and from the host", func(t *testing.T) {
		svc, err := c.Client().CoreV1().Services("default").Create(ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "gpu"},
			Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "gpu"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := get(t, ctx, gpuPod.Status.PodIP, "/env?name=NVIDIA_VISIBLE_DEVICES")
		eventually(t, 20*time.Second, "the Service answers a pod under its name", func() error {
			got, err := tryFetch(ctx, plain, "http://gpu.default.svc.cluster.local/env?name=NVIDIA_VISIBLE_DEVICES")
			return expect(got, want, err)
		})
		eventually(t, 20*time.Second, "the Service answers its own pod", func() error {
			got, err := tryFetch(ctx, gpuPod, "http://gpu.default.svc.cluster.local/env?name=NVIDIA_VISIBLE_DEVICES")
			return expect(got, want, err)
		})
		eventually(t, 20*time.Second, "the Service answers the host", func() error {
			got, err := tryGet(ctx, "http://"+svc.Spec.ClusterIP+"/env?name=NVIDIA_VISIBLE_DEVICES")
			return expect(got, want, err)
		})
		got, err := tryFetch(ctx, plain, "http://"+c.HostIP().String()+":6443/")
		if err != nil || !strings.Contains(got, "HTTP request to an HTTPS server") {
			t.Errorf("the API server on the host answers %q, %v", got, err)
		}
	})
	t.Run("a pod's log is readable through its kubelet", func(t *testing.T) {
		if _, err := c.Client().CoreV1().Pods("default").GetLogs("plain", &corev1.PodLogOptions{}).DoRaw(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Run("the metadata service announces a notice and takes it back", func(t *testing.T) {
		if got := metadata(t, ctx, c, "gpu-0", "instance-type"); got != "g6.12xlarge" {
			t.Errorf("instance-type is %q, want g6.12xlarge", got)
		}
		if got := metadata(t, ctx, c, "gpu-0", "spot/instance-action"); !strings.Contains(got, "404") {
			t.Errorf("instance-action is %q before any notice, want 404", got)
		}
		deadline := time.Now().Add(2 * time.Minute).UTC().Truncate(time.Second)
		if err := c.Notice(ctx, "gpu-0", deadline, ""); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "the notice is there", func() error {
			var notice struct {
				Action string
				Time   time.Time
			}
			got := metadata(t, ctx, c, "gpu-0", "spot/instance-action")
			if err := json.Unmarshal([]byte(got), &notice); err != nil {
				return fmt.Errorf("%q: %w", got, err)
			}
			if notice.Action != "terminate" || !notice.Time.Equal(deadline) {
				return fmt.Errorf("notice %+v, want terminate at %s", notice, deadline)
			}
			return nil
		})
		if err := c.Withdraw(ctx, "gpu-0"); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "the notice is gone", func() error {
			if got := metadata(t, ctx, c, "gpu-0", "spot/instance-action"); !strings.Contains(got, "404") {
				return fmt.Errorf("instance-action is %q, want 404", got)
			}
			return nil
		})
	})
	t.Run("a lost GPU is no longer allocatable until it is back", func(t *testing.T) {
		for _, step := range []struct {
			healthy bool
			want    int64
		}{{false, 1}, {true, 2}} {
			if err := c.SetGPUHealth(ctx, "gpu-0", 1, step.healthy); err != nil {
				t.Fatal(err)
			}
			eventually(t, 30*time.Second, "allocatable GPUs follow", func() error {
				q := getNode(t, ctx, c, "gpu-0").Status.Allocatable[shape.ResourceGPU]
				if q.Value() != step.want {
					return fmt.Errorf("%d allocatable, want %d", q.Value(), step.want)
				}
				return nil
			})
		}
	})
	t.Run("a partitioned node becomes NotReady, runs on, and comes back", func(t *testing.T) {
		if err := c.Partition(ctx, "gpu-0"); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		waitReady(t, ctx, c, "gpu-0", false)
		t.Logf("NotReady after %s", time.Since(start).Round(100*time.Millisecond))
		if _, err := c.Exec(ctx, "gpu-0", "pidof", "probe"); err != nil {
			t.Errorf("the pod does not run on: %v", err)
		}
		if err := c.Heal(ctx, "gpu-0"); err != nil {
			t.Fatal(err)
		}
		waitReady(t, ctx, c, "gpu-0", true)
	})
	t.Run("a reclaimed machine is gone at once with its pods, and can be replaced", func(t *testing.T) {
		start := time.Now()
		if err := c.Reclaim(ctx, "gpu-0"); err != nil {
			t.Fatal(err)
		}
		t.Logf("gone after %s", time.Since(start).Round(time.Millisecond))
		if _, err := tryGet(ctx, "http://"+gpuPod.Status.PodIP+":8080/env"); err == nil {
			t.Error("a pod of the machine still answers")
		}
		if err := c.Reclaim(ctx, "gpu-0"); err == nil {
			t.Error("a machine that is gone can be reclaimed again")
		}
		if err := c.Replace(ctx, "gpu-0"); err != nil {
			t.Fatal(err)
		}
		waitReady(t, ctx, c, "gpu-0", true)
	})
	start := time.Now()
	if err := c.Down(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("down in %s", time.Since(start).Round(time.Millisecond))
	wantUnchanged(t, before, name)
	if err := localcluster.Down(name, io.Discard); err != nil {
		t.Errorf("taking a cluster down twice: %v", err)
	}
}

// probeImage builds an image of the probe.
func probeImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "probe")
	cmd := exec.Command("go", "build", "-o", binary, "./probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the probe: %v\n%s", err, out)
	}
	img := images.Image{Ref: "spotbench.dev/probe:e2e", Entrypoint: []string{"/probe"}, User: "65532:65532", Entries: []images.Entry{{Path: "/probe", Source: binary, Mode: 0o755}}}
	tar := filepath.Join(dir, "probe.tar")
	if err := img.Write(tar); err != nil {
		t.Fatal(err)
	}
	return tar
}

func newPod(name string, gpus int64) *corev1.Pod {
	grace := int64(0)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace,
			Containers:                    []corev1.Container{{Name: "probe", Image: "spotbench.dev/probe:e2e", ImagePullPolicy: corev1.PullNever}},
			Tolerations:                   []corev1.Toleration{{Key: "nvidia.com/gpu", Operator: corev1.TolerationOpExists}},
		},
	}
	if gpus > 0 {
		pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{shape.ResourceGPU: *resource.NewQuantity(gpus, resource.DecimalSI)}
	}
	return pod
}

// runPod creates a pod and waits until it runs and, on a real node, answers.
func runPod(t *testing.T, ctx context.Context, c *localcluster.Cluster, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	eventually(t, 20*time.Second, "the pod's ServiceAccount exists", func() error {
		_, err := c.Client().CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
		return err
	})
	var got *corev1.Pod
	eventually(t, time.Minute, "pod "+pod.Name+" runs", func() (err error) {
		got, err = c.Client().CoreV1().Pods("default").Get(ctx, pod.Name, metav1.GetOptions{})
		if err == nil && got.Status.Phase != corev1.PodRunning {
			err = fmt.Errorf("pod is %s: %+v", got.Status.Phase, got.Status.ContainerStatuses)
		}
		return err
	})
	if pod.Spec.NodeSelector["type"] != "kwok" {
		eventually(t, 10*time.Second, "pod "+pod.Name+" answers", func() error {
			_, err := tryGet(ctx, "http://"+got.Status.PodIP+":8080/env")
			return err
		})
	}
	return got
}

func getNode(t *testing.T, ctx context.Context, c *localcluster.Cluster, name string) *corev1.Node {
	t.Helper()
	n, err := c.Client().CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func waitReady(t *testing.T, ctx context.Context, c *localcluster.Cluster, name string, want bool) {
	t.Helper()
	eventually(t, time.Minute, fmt.Sprintf("node %s Ready: %v", name, want), func() error {
		for _, cond := range getNode(t, ctx, c, name).Status.Conditions {
			if cond.Type == corev1.NodeReady && (cond.Status == corev1.ConditionTrue) == want {
				return nil
			}
		}
		return fmt.Errorf("Ready is not %v", want)
	})
}

func get(t *testing.T, ctx context.Context, podIP, path string) string {
	t.Helper()
	got, err := tryGet(ctx, "http://"+podIP+":8080"+path)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// fetch calls a URL from inside the pod.
func fetch(t *testing.T, ctx context.Context, pod *corev1.Pod, target string) string {
	t.Helper()
	got, err := tryFetch(ctx, pod, target)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func tryFetch(ctx context.Context, pod *corev1.Pod, target string) (string, error) {
	return tryGet(ctx, "http://"+pod.Status.PodIP+":8080/fetch?url="+url.QueryEscape(target))
}

var client = &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func tryGet(ctx context.Context, target string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func expect(got, want string, err error) error {
	if err == nil && got != want {
		err = fmt.Errorf("got %q, want %q", got, want)
	}
	return err
}

func eventually(t *testing.T, within time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s: %v", within, what, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
