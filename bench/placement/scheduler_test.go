// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/spotbench/spotbench/bench/placement/internal/openb"
	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/localcluster"
	"github.com/spotbench/spotbench/pkg/localcluster/shape"
)

// arrivalsCompared is how many arrivals of each trace the two must agree on.
const arrivalsCompared = 2000

// everyNode is which part of the trace's nodes are there, so that the arrivals fill
// them: 1 of 6 has about 1,000 GPUs.
const everyNode = 6

// modelPrefix makes the trace's models products that the catalogue does not know:
// they are then compared by that name alone, as the replay does.
const modelPrefix = "NVIDIA-OPENB-"

// TestTheRealSchedulerPlacesAsTheReplayDoes puts the arrivals of two traces through
// the real kube-scheduler with our plugin, on a real API server with nodes that KWOK
// plays, and through the replay's engine.
func TestTheRealSchedulerPlacesAsTheReplayDoes(t *testing.T) {
	if err := localcluster.Check(); err != nil {
		t.Skip(err)
	}
	if testing.Short() {
		t.Skip("starts a real control plane, not in short mode")
	}
	for _, trace := range []string{"default", "gpuspec33"} {
		t.Run(trace, func(t *testing.T) {
			nodes, arrivals, order := part(t, trace)
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
			defer cancel()
			client := startScheduler(t, ctx, "openb-"+trace, nodes, order)
			expected, err := newOurs(nodes, order)
			if err != nil {
				t.Fatal(err)
			}
			refused := 0
			events, err := client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer events.Stop()
			for i, pod := range arrivals {
				want := ""
				machine, _, ok, err := expected.Choose(pod)
				if err != nil {
					t.Fatal(err)
				}
				if ok {
					want = nodeName(nodes[machine], order[machine])
				} else {
					refused++
				}
				got := arrive(t, ctx, client, events, i, pod)
				if got != want {
					t.Fatalf("arrival %d (%+v): the scheduler places it on %q, the replay on %q", i, pod, got, want)
				}
			}
			t.Logf("%d arrivals on %d GPUs: %d placed alike, %d refused by both", len(arrivals), openb.Capacity(nodes)/openb.WholeGPU, len(arrivals)-refused, refused)
			if refused == 0 {
				t.Error("the cluster never filled up: too few arrivals to say much")
			}
		})
	}
}

// part of a trace: whole GPUs, as device plugins hand them out.
func part(t *testing.T, trace string) (nodes []openb.Node, arrivals []openb.Pod, order []int) {
	t.Helper()
	dir := os.Getenv("SPOTBENCH_DATA")
	if dir == "" {
		t.Skip("SPOTBENCH_DATA is not set: point it at a directory with openb/, the trace of github.com/hkust-adsl/kubernetes-scheduler-simulator data/csv")
	}
	all, err := read(filepath.Join(dir, "openb", "openb_node_list_gpu_node.csv"), openb.ReadNodes)
	if err != nil {
		t.Fatal(err)
	}
	pods, err := read(filepath.Join(dir, "openb", "openb_pod_list_"+trace+".csv"), openb.ReadPods)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(all); i += everyNode {
		n := all[i]
		n.Model = modelPrefix + n.Model
		nodes = append(nodes, n)
	}
	pods = openb.WholeGPUs(pods)
	for i := range pods {
		models := make([]string, len(pods[i].Models))
		for j, m := range pods[i].Models {
			models[j] = modelPrefix + m
		}
		pods[i].Models = models
	}
	arrivals, order = openb.Arrivals(pods, openb.Capacity(nodes), len(nodes), 42, 200)
	if len(arrivals) < arrivalsCompared {
		t.Fatalf("%d arrivals, want %d or more", len(arrivals), arrivalsCompared)
	}
	return nodes, arrivals[:arrivalsCompared], order
}

// nodeName sorts as the replay orders nodes that cost the same.
func nodeName(n openb.Node, order int) string {
	return fmt.Sprintf("%04d-%s", order, strings.ToLower(n.Name))
}

// startScheduler starts a control plane with the nodes, and our scheduler beside it.
func startScheduler(t *testing.T, ctx context.Context, name string, nodes []openb.Node, order []int) kubernetes.Interface {
	t.Helper()
	s, err := shape.Parse([]byte("nodes:\n- {name: real, instanceType: m7i.2xlarge, zone: us-east-1a, capacityType: on-demand}\n" +
		"kwok:\n- {name: none, instanceType: m7i.2xlarge, zone: us-east-1a, capacityType: on-demand, count: 1}\n"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := localcluster.Down(name, io.Discard); err != nil {
			t.Error(err)
		}
	})
	cluster, err := localcluster.Up(ctx, localcluster.Options{Name: name, Shape: s, Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	installPodGroups(t, cluster.Kubeconfig())
	client := cluster.Client()
	// Neither is a node of the trace.
	for _, name := range []string{"real", "none-0"} {
		if err := client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := range nodes {
		node := kwokNode(nodes[i], order[i])
		group.Go(func() error {
			_, err := client.CoreV1().Nodes().Create(groupCtx, node, metav1.CreateOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	waitReady(t, ctx, client, len(nodes))

	binary := filepath.Join(t.TempDir(), "scheduler")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "../../cmd/scheduler").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var log bytes.Buffer
	scheduler := exec.CommandContext(ctx, binary, "--config", schedulerConfig(t, cluster.Kubeconfig()), "--secure-port", "0")
	scheduler.Stdout, scheduler.Stderr = &log, &log
	if err := scheduler.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = scheduler.Process.Kill()
		_ = scheduler.Wait()
		if t.Failed() { // the log is whole now
			t.Logf("%s", log.Bytes()[max(0, log.Len()-4000):])
		}
	})
	return client
}

// installPodGroups makes the kind known that the scheduler waits for at its start.
func installPodGroups(t *testing.T, kubeconfig string) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := envtest.InstallCRDs(config, envtest.CRDInstallOptions{Paths: []string{shipped + "/podgroup-crd.yaml"}, ErrorIfPathMissing: true}); err != nil {
		t.Fatal(err)
	}
}

// shipped is where the scheduler's manifests are.
const shipped = "../../manifests/base/scheduler"

// schedulerConfig is the one that is shipped, with its files from the tree, without
// a catalog and a second replica.
func schedulerConfig(t *testing.T, kubeconfig string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(shipped, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs(shipped)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(data), "/etc/spotbench/scheduler", here)
	text = regexp.MustCompile(`(?m)^ *catalog(URL|CAFile): .*\n`).ReplaceAllString(text, "")
	text = strings.Replace(text, "leaderElect: true", "leaderElect: false", 1)
	text = strings.Replace(text, "clientConnection:\n", "clientConnection:\n  kubeconfig: "+kubeconfig+"\n", 1)
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func kwokNode(n openb.Node, order int) *v1.Node {
	room := v1.ResourceList{
		v1.ResourceCPU:    *resource.NewMilliQuantity(n.CPUMilli, resource.DecimalSI),
		v1.ResourceMemory: *resource.NewQuantity(n.MemoryMiB<<20, resource.BinarySI),
		v1.ResourcePods:   *resource.NewQuantity(10_000, resource.DecimalSI),
		gpu.ResourceName:  *resource.NewQuantity(int64(n.GPUs), resource.DecimalSI),
	}
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: nodeName(n, order), Labels: map[string]string{gpu.LabelProduct: n.Model},
			Annotations: map[string]string{"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"}},
		Status: v1.NodeStatus{Capacity: room, Allocatable: room},
	}
}

func waitReady(t *testing.T, ctx context.Context, client kubernetes.Interface, want int) {
	t.Helper()
	for {
		list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			t.Fatal(err)
		}
		ready := 0
		for i := range list.Items {
			for _, c := range list.Items[i].Status.Conditions {
				if c.Type == v1.NodeReady && c.Status == v1.ConditionTrue && len(list.Items[i].Spec.Taints) == 0 {
					ready++
				}
			}
		}
		if ready == want && len(list.Items) == want {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// arrive creates a pod and says where it went; "" when it fits nowhere, and is gone.
func arrive(t *testing.T, ctx context.Context, client kubernetes.Interface, events watch.Interface, number int, pod openb.Pod) string {
	t.Helper()
	requests := v1.ResourceList{
		v1.ResourceCPU:    *resource.NewMilliQuantity(pod.CPUMilli, resource.DecimalSI),
		v1.ResourceMemory: *resource.NewQuantity(pod.MemoryMiB<<20, resource.BinarySI),
	}
	annotations := map[string]string{}
	if pod.GPUs > 0 {
		requests[gpu.ResourceName] = *resource.NewQuantity(int64(pod.GPUs), resource.DecimalSI)
		if len(pod.Models) > 0 {
			annotations[benchspec.AnnotationGPUModel] = strings.Join(pod.Models, " | ")
		}
	}
	name := fmt.Sprintf("arrival-%d", number)
	pods := client.CoreV1().Pods("default")
	_, err := pods.Create(ctx, &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
		Spec: v1.PodSpec{SchedulerName: benchspec.SchedulerName, Containers: []v1.Container{{Name: "c", Image: "none",
			Resources: v1.ResourceRequirements{Requests: requests, Limits: requests}}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	deleted := false
	late := time.After(time.Minute)
	for {
		var event watch.Event
		select {
		case event = <-events.ResultChan():
		case <-late:
			t.Fatalf("arrival %d: no decision within a minute", number)
		}
		p, ok := event.Object.(*v1.Pod)
		if !ok {
			t.Fatalf("watching pods: %v", event.Object)
		}
		switch {
		case p.Name != name:
		case event.Type == watch.Deleted:
			return ""
		case p.Spec.NodeName != "":
			return p.Spec.NodeName
		case !deleted && refusedBySomeone(p):
			deleted = true
			now := int64(0)
			if err := pods.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func refusedBySomeone(p *v1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == v1.PodScheduled && c.Status == v1.ConditionFalse && c.Reason == v1.PodReasonUnschedulable {
			return true
		}
	}
	return false
}
