// SPDX-License-Identifier: Apache-2.0

package scheduling_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/options"
	"k8s.io/kubernetes/pkg/scheduler"
	schedulerapi "k8s.io/kubernetes/pkg/scheduler/apis/config"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/profile"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/scheduling"
)

const manifests = "../../manifests/base/scheduler/"

// cluster is the real scheduler, configured as it is shipped, over an API of
// client-go's fake clientset: enough of one to create, patch, bind and watch. What
// needs more is tested over a real API server (startRealCluster).
type cluster struct {
	t      *testing.T
	ctx    context.Context
	client kubernetes.Interface
	// scheduler is the one that runs over it.
	scheduler *scheduler.Scheduler
}

func loadShipped(t *testing.T, args ...string) *schedulerapi.KubeSchedulerConfiguration {
	t.Helper()
	c, err := options.LoadConfigFromFile(klog.FromContext(t.Context()), shippedConfig(t, args...))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// shippedConfig is manifests/base/scheduler/config.yaml with the paths of the
// repository in place of those of the container, and more arguments for the plugin,
// each a line of YAML.
func shippedConfig(t *testing.T, args ...string) string {
	t.Helper()
	data, err := os.ReadFile(manifests + "config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs(manifests)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	text := strings.ReplaceAll(string(data), "/etc/spotbench/scheduler", here)
	// The catalog of a test is one of the arguments, or there is none.
	text = regexp.MustCompile(`(?m)^ *catalog(URL|CAFile): .*\n`).ReplaceAllString(text, "")
	for _, line := range args {
		text = strings.Replace(text, "        args:\n", "        args:\n          "+line+"\n", 1)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func startCluster(t *testing.T, nodes ...*v1.Node) *cluster {
	t.Helper()
	return startClusterWith(t, nil, nodes...)
}

// startClusterWith gives the plugin more arguments, each a line of YAML.
func startClusterWith(t *testing.T, args []string, nodes ...*v1.Node) *cluster {
	t.Helper()
	return startClusterOf(t, scheduling.New, args, nodes...)
}

// startClusterOf makes the plugin with a factory of the test's.
func startClusterOf(t *testing.T, factory frameworkruntime.PluginFactory, args []string, nodes ...*v1.Node) *cluster {
	t.Helper()
	objects := make([]runtime.Object, len(nodes))
	for i := range nodes {
		objects[i] = nodes[i]
	}
	return startClusterOver(t, factory, args, fake.NewClientset(objects...))
}

// startClusterOver starts with what a client has already.
func startClusterOver(t *testing.T, factory frameworkruntime.PluginFactory, args []string, client *fake.Clientset) *cluster {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	client.PrependReactor("create", "pods", binder(client))
	c := &cluster{t: t, ctx: ctx, client: client}

	config := withoutGangs(loadShipped(t, args...))
	informers := scheduler.NewInformerFactory(c.client, 0)
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: c.client.EventsV1()})
	s, err := scheduler.New(ctx, c.client, informers, nil, profile.NewRecorderFactory(broadcaster),
		scheduler.WithProfiles(config.Profiles...),
		scheduler.WithPercentageOfNodesToScore(config.PercentageOfNodesToScore),
		scheduler.WithPodInitialBackoffSeconds(0),
		scheduler.WithPodMaxBackoffSeconds(0),
		scheduler.WithFrameworkOutOfTreeRegistry(frameworkruntime.Registry{scheduling.Name: factory, scheduling.ResourcesName: scheduling.NewResources}))
	if err != nil {
		t.Fatal(err)
	}
	informers.Start(ctx.Done())
	informers.WaitForCacheSync(ctx.Done())
	if err := s.WaitForHandlersSync(ctx); err != nil {
		t.Fatal(err)
	}
	c.scheduler = s
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; broadcaster.Shutdown() })
	return c
}

// in is the cluster for a subtest.
func (c *cluster) in(t *testing.T) *cluster {
	sub := *c
	sub.t = t
	return &sub
}

// withoutGangs takes Coscheduling out of a configuration: the fake has no PodGroups.
func withoutGangs(config *schedulerapi.KubeSchedulerConfiguration) *schedulerapi.KubeSchedulerConfiguration {
	isGangs := func(name string) bool { return name == scheduling.GangsName }
	for i := range config.Profiles {
		profile := &config.Profiles[i]
		profile.Plugins.QueueSort = schedulerapi.PluginSet{}
		profile.Plugins.MultiPoint.Enabled = slices.DeleteFunc(profile.Plugins.MultiPoint.Enabled, func(p schedulerapi.Plugin) bool { return isGangs(p.Name) })
		profile.PluginConfig = slices.DeleteFunc(profile.PluginConfig, func(p schedulerapi.PluginConfig) bool { return isGangs(p.Name) })
	}
	return config
}

// binder does what the API server does with a binding, which the fake does not.
func binder(client *fake.Clientset) clienttesting.ReactionFunc {
	return func(action clienttesting.Action) (bool, runtime.Object, error) {
		create, ok := action.(clienttesting.CreateAction)
		if !ok || action.GetSubresource() != "binding" {
			return false, nil, nil
		}
		binding := create.GetObject().(*v1.Binding)
		object, err := client.Tracker().Get(v1.SchemeGroupVersion.WithResource("pods"), binding.Namespace, binding.Name)
		if err != nil {
			return true, nil, err
		}
		pod := object.(*v1.Pod).DeepCopy()
		pod.Spec.NodeName = binding.Target.Name
		for k, v := range binding.Annotations { // as the API server does
			metav1.SetMetaDataAnnotation(&pod.ObjectMeta, k, v)
		}
		return true, binding, client.Tracker().Update(v1.SchemeGroupVersion.WithResource("pods"), pod, pod.Namespace)
	}
}

func (c *cluster) create(pod *v1.Pod) {
	c.t.Helper()
	if _, err := c.client.CoreV1().Pods(pod.Namespace).Create(c.ctx, pod, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) pod(name string) *v1.Pod {
	c.t.Helper()
	pod, err := c.client.CoreV1().Pods("default").Get(c.ctx, name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return pod
}

// eventually waits until a pod is as expected, and says how it is if it never is.
func (c *cluster) eventually(name, what string, is func(*v1.Pod) bool) *v1.Pod {
	c.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		pod := c.pod(name)
		if is(pod) {
			return pod
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("pod %s: not %s after 15s; node %q, %s", name, what, pod.Spec.NodeName, unschedulable(pod))
		}
	}
}

// placed waits for a pod to be bound to a node and reads its annotation.
func (c *cluster) placed(name, node string) benchspec.Placement {
	c.t.Helper()
	pod := c.eventually(name, "placed", func(p *v1.Pod) bool { return p.Spec.NodeName != "" })
	if pod.Spec.NodeName != node {
		c.t.Errorf("pod %s is on %s, want %s", name, pod.Spec.NodeName, node)
	}
	placement, err := benchspec.ParsePlacement(pod.Annotations[benchspec.AnnotationPlacement])
	if err != nil {
		c.t.Fatalf("pod %s: %v", name, err)
	}
	if placement.Node != pod.Spec.NodeName {
		c.t.Errorf("pod %s: the annotation says %s, the pod is on %s", name, placement.Node, pod.Spec.NodeName)
	}
	return placement
}

// refused waits for a pod to be refused with all of some texts in the reason.
func (c *cluster) refused(name string, texts ...string) {
	c.t.Helper()
	c.eventually(name, "refused with "+strings.Join(texts, ", "), func(p *v1.Pod) bool {
		for _, text := range texts {
			if !strings.Contains(unschedulable(p), text) {
				return false
			}
		}
		return true
	})
}

// unschedulable is what the pod's condition says, the same text as its event.
func unschedulable(pod *v1.Pod) string {
	for _, c := range pod.Status.Conditions {
		if c.Type == v1.PodScheduled && c.Status == v1.ConditionFalse {
			return c.Message
		}
	}
	return ""
}

// gpuNode is a node as GPU Feature Discovery and AWS label it.
func gpuNode(name, product string, memoryMiB, gpus int, instanceType, capacity, zone string) *v1.Node {
	n := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			"kubernetes.io/hostname":           name,
			"topology.kubernetes.io/region":    "us-east-1",
			"topology.kubernetes.io/zone":      zone,
			"node.kubernetes.io/instance-type": instanceType,
			"karpenter.sh/capacity-type":       capacity,
		}},
		Spec: v1.NodeSpec{ProviderID: "aws:///" + zone + "/i-" + name},
		Status: v1.NodeStatus{
			Allocatable: v1.ResourceList{"cpu": resource.MustParse("96"), "memory": resource.MustParse("1000Gi"), "pods": resource.MustParse("110")},
			Conditions:  []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}},
		},
	}
	if gpus > 0 {
		n.Labels["nvidia.com/gpu.product"] = product
		n.Labels["nvidia.com/gpu.memory"] = strconv.Itoa(memoryMiB)
		n.Labels["nvidia.com/gpu.count"] = strconv.Itoa(gpus)
		n.Status.Allocatable["nvidia.com/gpu"] = *resource.NewQuantity(int64(gpus), resource.DecimalSI)
		n.Spec.Taints = []v1.Taint{{Key: "nvidia.com/gpu", Value: "present", Effect: v1.TaintEffectNoSchedule}}
	}
	return n
}

// reference is the platform that docs and demo use.
func reference() []*v1.Node {
	return []*v1.Node{
		gpuNode("a100-spot-0", "NVIDIA-A100-SXM4-80GB", 81920, 8, "p4de.24xlarge", "spot", "us-east-1a"),
		gpuNode("h100-spot-0", "NVIDIA-H100-80GB-HBM3", 81559, 8, "p5.48xlarge", "spot", "us-east-1b"),
		gpuNode("l4-spot-0", "NVIDIA-L4", 23034, 4, "g6.12xlarge", "spot", "us-east-1c"),
		gpuNode("a100-od-0", "NVIDIA-A100-SXM4-80GB", 81920, 8, "p4de.24xlarge", "on-demand", "us-east-1d"),
		gpuNode("system-0", "", 0, 0, "m7i.2xlarge", "on-demand", "us-east-1a"),
	}
}

// benchPod asks for GPUs under annotations given without their prefix.
func benchPod(name string, gpus int, annotations map[string]string) *v1.Pod {
	pod := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID("uid-" + name), Annotations: map[string]string{}},
		Spec: v1.PodSpec{
			SchedulerName: benchspec.SchedulerName,
			Tolerations:   []v1.Toleration{{Key: "nvidia.com/gpu", Operator: v1.TolerationOpExists}},
			Containers:    []v1.Container{{Name: "bench", Image: "bench"}},
		},
	}
	for k, v := range annotations {
		pod.Annotations[benchspec.Prefix+k] = v
	}
	if gpus > 0 {
		q := *resource.NewQuantity(int64(gpus), resource.DecimalSI)
		pod.Spec.Containers[0].Resources = v1.ResourceRequirements{
			Requests: v1.ResourceList{"nvidia.com/gpu": q}, Limits: v1.ResourceList{"nvidia.com/gpu": q},
		}
	}
	return pod
}
