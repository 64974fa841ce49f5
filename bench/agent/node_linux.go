// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	podresourcesv1 "k8s.io/kubelet/pkg/apis/podresources/v1"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/spotbench/spotbench/pkg/gpusim"
	"github.com/spotbench/spotbench/pkg/localcluster"
	"github.com/spotbench/spotbench/pkg/localcluster/toolchain"
)

const (
	nodeName  = "gpu-node"
	namespace = "default"
	// shares is how many pods a GPU is shared by at most.
	shares = 32
)

// node is what an agent finds around it.
type node struct {
	dir                 string
	kubeconfig          string
	cloud, catalog      string // URLs
	metrics, gpuMetrics string // addresses that the agent is to listen on
	client              kubernetes.Interface
	records             atomic.Int64
	stops               []func()
}

func startNode(ctx context.Context, dir string, s settings) (*node, error) {
	n := &node{dir: dir}
	if err := n.start(ctx, s); err != nil {
		n.stop()
		return nil, err
	}
	return n, nil
}

func (n *node) stop() {
	for i := len(n.stops) - 1; i >= 0; i-- {
		n.stops[i]()
	}
}

// taken is how many records the catalog was told.
func (n *node) taken() int64 { return n.records.Load() }

func (n *node) start(ctx context.Context, s settings) error {
	for _, library := range []string{gpusim.NVML, gpusim.DCGM} {
		if _, err := gpusim.Build(ctx, library, ".", n.dir); err != nil {
			return err
		}
	}
	var script strings.Builder
	for i := range s.gpus {
		fmt.Fprintf(&script, "gpu index=%d uuid=%s name=\"NVIDIA H100 80GB HBM3\" compute=9.0 memory_mib=81559 nvlink_links=18\n", i, gpuUUID(i))
	}
	if err := gpusim.Play(n.dir, script.String(), 0); err != nil {
		return err
	}
	if err := n.apiServer(ctx); err != nil {
		return err
	}
	resources, err := n.makePods(ctx, s)
	if err != nil {
		return err
	}
	if err := n.kubelet(ctx, resources); err != nil {
		return err
	}
	// A cloud that gives tokens and has no notice.
	values := map[string]string{"instance-id": "i-0123456789abcdef0", "autoscaling/target-lifecycle-state": "InService", "events/maintenance/scheduled": "[]"}
	if n.cloud, err = n.serve(ctx, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
			_, _ = io.WriteString(w, "token")
			return
		}
		value, ok := values[strings.TrimPrefix(r.URL.Path, "/latest/meta-data/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, value)
	}); err != nil {
		return err
	}
	if n.catalog, err = n.serve(ctx, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		n.records.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	}); err != nil {
		return err
	}
	if n.metrics, err = freeAddress(ctx); err != nil {
		return err
	}
	n.gpuMetrics, err = freeAddress(ctx)
	return err
}

func gpuUUID(i int) string { return fmt.Sprintf("GPU-00000000-0000-0000-0000-%012d", i) }

func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// serve starts an HTTP server and gives its URL.
func (n *node) serve(ctx context.Context, handler http.HandlerFunc) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(l) }()
	n.stops = append(n.stops, func() { _ = server.Close() })
	return "http://" + l.Addr().String(), nil
}

// apiServer starts etcd and the API server.
func (n *node) apiServer(ctx context.Context) error {
	cache, err := localcluster.DefaultCacheDir()
	if err != nil {
		return err
	}
	tools, err := toolchain.Cached(cache)
	if err != nil {
		return err
	}
	for variable, program := range map[string]string{"TEST_ASSET_ETCD": "etcd", "TEST_ASSET_KUBE_APISERVER": "kube-apiserver"} {
		if _, err := os.Stat(tools.Path(program)); err != nil {
			return fmt.Errorf("run `localcluster build` first: %w", err)
		}
		if err := os.Setenv(variable, tools.Path(program)); err != nil { // envtest finds programs so
			return err
		}
	}
	log.SetLogger(klog.Background())
	env := &envtest.Environment{ControlPlaneStartTimeout: time.Minute}
	config, err := env.Start()
	if err != nil {
		return err
	}
	n.stops = append(n.stops, func() { _ = env.Stop() })
	n.kubeconfig = filepath.Join(n.dir, "kubeconfig")
	if err := os.WriteFile(n.kubeconfig, env.KubeConfig, 0o600); err != nil {
		return err
	}
	config.QPS = -1 // what is measured is the agent's time, not this client's
	if n.client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	_, err = n.client.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("service account of the pods: %w", err)
	}
	_, err = n.client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}, metav1.CreateOptions{})
	return err
}

// makePods makes the node's pods and gives what the kubelet would say of their devices.
func (n *node) makePods(ctx context.Context, s settings) ([]*podresourcesv1.PodResources, error) {
	var resources []*podresourcesv1.PodResources
	for i := range s.pods {
		pod, err := n.newPod(ctx, fmt.Sprintf("bench-%02d", i))
		if err != nil {
			return nil, err
		}
		device := fmt.Sprintf("%s::%d", gpuUUID(i%s.gpus), i/s.gpus%shares)
		resources = append(resources, &podresourcesv1.PodResources{Namespace: namespace, Name: pod.Name, Containers: []*podresourcesv1.ContainerResources{
			{Name: "bench", Devices: []*podresourcesv1.ContainerDevices{{ResourceName: "nvidia.com/gpu", DeviceIds: []string{device}}}}}})
	}
	return resources, nil
}

// newPod makes a pod that runs, with its volumes' directories.
func (n *node) newPod(ctx context.Context, name string) (*corev1.Pod, error) {
	gpu := corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("1")}
	pod, err := n.client.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{
			"spotbench.dev/model": "meta-llama/Llama-3.1-70B-Instruct", "spotbench.dev/checkpoint-path": "/checkpoint", "spotbench.dev/results-path": "/results"}},
		Spec: corev1.PodSpec{NodeName: nodeName, SchedulerName: "spotbench", RestartPolicy: corev1.RestartPolicyNever,
			Containers: []corev1.Container{{Name: "bench", Image: "example.com/bench:1", Resources: corev1.ResourceRequirements{Limits: gpu},
				VolumeMounts: []corev1.VolumeMount{{Name: "checkpoint", MountPath: "/checkpoint"}, {Name: "results", MountPath: "/results"}}}},
			Volumes: []corev1.Volume{
				{Name: "checkpoint", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				{Name: "results", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	for _, volume := range []string{"checkpoint", "results"} {
		if err := os.MkdirAll(n.volume(pod, volume), 0o750); err != nil {
			return nil, err
		}
	}
	now := metav1.Now()
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &now, ContainerStatuses: []corev1.ContainerStatus{
		{Name: "bench", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}}}}
	return n.client.CoreV1().Pods(namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
}

// volume is the directory of a pod's volume.
func (n *node) volume(pod *corev1.Pod, name string) string {
	return n.path("kubelet", "pods", string(pod.UID), "volumes", "kubernetes.io~empty-dir", name)
}

func (n *node) path(elements ...string) string {
	return filepath.Join(append([]string{n.dir}, elements...)...)
}

// podResources answers as a kubelet does.
type podResources struct {
	podresourcesv1.UnimplementedPodResourcesListerServer
	pods []*podresourcesv1.PodResources
}

func (p *podResources) List(context.Context, *podresourcesv1.ListPodResourcesRequest) (*podresourcesv1.ListPodResourcesResponse, error) {
	return &podresourcesv1.ListPodResourcesResponse{PodResources: p.pods}, nil
}

func (n *node) kubelet(ctx context.Context, pods []*podresourcesv1.PodResources) error {
	socket := n.path("kubelet", "pod-resources", "kubelet.sock")
	if err := errors.Join(os.MkdirAll(filepath.Dir(socket), 0o750), os.MkdirAll(n.path("store"), 0o750)); err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	podresourcesv1.RegisterPodResourcesListerServer(server, &podResources{pods: pods})
	go func() { _ = server.Serve(l) }()
	n.stops = append(n.stops, server.Stop)
	return nil
}

// flags are the agent's.
func (n *node) flags() []string {
	return []string{"run", "--node", nodeName, "--kubeconfig", n.kubeconfig, "--kubelet-root", n.path("kubelet"), "--state-dir", n.path("state"),
		"--store", "file://" + n.path("store"), "--provider", "aws", "--metadata-endpoint", n.cloud, "--catalog", n.catalog,
		"--container-runtime", n.path("containerd.sock"), "--nvml-library", n.path(gpusim.NVML), "--dcgm-library", n.path(gpusim.DCGM), "--dcgm", "embedded",
		"--listen", n.metrics, "--gpu-metrics-listen", n.gpuMetrics}
}
