// SPDX-License-Identifier: Apache-2.0

package scheduling_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	schedulerapi "k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/defaultbinder"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/queuesort"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	schedulertesting "k8s.io/kubernetes/pkg/scheduler/testing/framework"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/scheduling"
)

// newPlugin makes the plugin in a framework of its own, over a snapshot.
func newPlugin(t *testing.T, client *fake.Clientset, pods []*v1.Pod, nodes []*v1.Node) (*scheduling.Plugin, framework.Framework) {
	t.Helper()
	factory := informers.NewSharedInformerFactory(client, 0)
	for _, n := range nodes {
		if err := factory.Core().V1().Nodes().Informer().GetIndexer().Add(n); err != nil {
			t.Fatal(err)
		}
	}
	handle, err := schedulertesting.NewFramework(t.Context(), []schedulertesting.RegisterPluginFunc{
		schedulertesting.RegisterQueueSortPlugin(queuesort.Name, queuesort.New),
		schedulertesting.RegisterBindPlugin(defaultbinder.Name, defaultbinder.New),
	}, benchspec.SchedulerName,
		frameworkruntime.WithSnapshotSharedLister(cache.NewSnapshot(pods, nodes)),
		frameworkruntime.WithClientSet(client),
		frameworkruntime.WithInformerFactory(factory))
	if err != nil {
		t.Fatal(err)
	}
	plugin, err := scheduling.New(t.Context(), args(`{"pricesFile": "`+manifests+`prices.yaml", "hazardsFile": "`+manifests+`hazards.yaml"}`), handle)
	if err != nil {
		t.Fatal(err)
	}
	return plugin.(*scheduling.Plugin), handle
}

func args(text string) runtime.Object { return &runtime.Unknown{Raw: []byte(text)} }

func TestDecodeArgsNamesFieldValueAndFix(t *testing.T) {
	for name, test := range map[string]struct {
		object runtime.Object
		want   string // "" accepts
	}{
		"no arguments":            {nil, ""},
		"all arguments":           {args(`{"pricesFile":"p","hazardsFile":"h","defaultExpectedDuration":"45m","checkpointCost":"0s","restartCost":"3m","noticeSaves":0}`), ""},
		"a field misspelt":        {args(`{"priceFile":"p"}`), `unknown field "priceFile"`},
		"a number for a duration": {args(`{"restartCost": 3}`), "cannot unmarshal number"},
		"no work":                 {args(`{"defaultExpectedDuration":"0s"}`), "args.defaultExpectedDuration is 0s; write a duration such as 45m"},
		"negative restart":        {args(`{"restartCost":"-1m"}`), "args.restartCost is -1m0s"},
		"a year of checkpointing": {args(`{"checkpointCost":"8760h"}`), "args.checkpointCost is 8760h0m0s; write a duration such as 45m, at most 720h"},
		"percent":                 {args(`{"noticeSaves": 90}`), "args.noticeSaves is 90; write a probability from 0 to 1"},
		"another kind of object":  {&v1.Pod{}, "write them as plain YAML"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := scheduling.DecodeArgs(test.object)
			if (test.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestNewRefusesFilesItCannotUse(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("prices: [{}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ args, want string }{
		"no such price book": {`{"pricesFile":"/no/such/file"}`, "args.pricesFile: open /no/such/file"},
		"a bad price book":   {`{"pricesFile":"` + bad + `"}`, "field provider is missing"},
		"no such hazards":    {`{"hazardsFile":"/no/such/file"}`, "args.hazardsFile: open /no/such/file"},
		"bad hazards":        {`{"hazardsFile":"` + bad + `"}`, "args.hazardsFile " + bad},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := scheduling.New(t.Context(), args(test.args), nil); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestFilterLetsPreemptionTryOnlyWherePodsAreInTheWay(t *testing.T) {
	neighbour := benchPod("neighbour", 1, nil)
	neighbour.Spec.NodeName = "l4-spot-0"
	nodes := reference()
	plugin, handle := newPlugin(t, fake.NewClientset(), []*v1.Pod{neighbour}, nodes)
	filter := func(pod *v1.Pod, node string) *fwk.Status {
		state := framework.NewCycleState()
		if _, status := plugin.PreFilter(t.Context(), state, pod, nil); !status.IsSuccess() {
			t.Fatal(status.AsError())
		}
		info, err := handle.SnapshotSharedLister().NodeInfos().Get(node)
		if err != nil {
			t.Fatal(err)
		}
		return plugin.Filter(t.Context(), state, pod, info)
	}
	alone := benchPod("alone", 1, map[string]string{"isolation": "node"})
	if got, want := filter(alone, "l4-spot-0"), fwk.NewStatus(fwk.Unschedulable, scheduling.ErrReasonPrefix+"other pods on their GPUs, wanted isolation"); !got.Equal(want) {
		t.Errorf("a neighbour: %v, want %v", got, want)
	}
	if got := filter(alone, "a100-od-0"); !got.IsSuccess() {
		t.Errorf("a free node: %v", got)
	}
	h100 := benchPod("h100", 1, map[string]string{"gpu-model": "H100-80GB"})
	if got, want := filter(h100, "l4-spot-0"), fwk.NewStatus(fwk.UnschedulableAndUnresolvable, scheduling.ErrReasonPrefix+"L4-24GB, wanted H100-80GB"); !got.Equal(want) {
		t.Errorf("another model: %v, want %v", got, want)
	}
	if got := filter(neighbour, "l4-spot-0"); !got.IsSuccess() {
		t.Errorf("a pod is its own neighbour: %v", got)
	}
}

func TestWithoutPreFilterThePluginSaysHowToEnableIt(t *testing.T) {
	plugin, handle := newPlugin(t, fake.NewClientset(), nil, reference())
	info, err := handle.SnapshotSharedLister().NodeInfos().Get("l4-spot-0")
	if err != nil {
		t.Fatal(err)
	}
	status := plugin.Filter(t.Context(), framework.NewCycleState(), benchPod("p", 1, nil), info)
	if status.Code() != fwk.Error || !strings.Contains(status.Message(), "enable it at every extension point (multiPoint)") {
		t.Errorf("status %v", status)
	}
}

// bind runs a pod through the extension points that write the decision.
func bind(ctx context.Context, plugin *scheduling.Plugin, pod *v1.Pod, node string) *fwk.Status {
	state := framework.NewCycleState()
	if _, status := plugin.PreFilter(ctx, state, pod, nil); !status.IsSuccess() {
		return status
	}
	if status := plugin.Reserve(ctx, state, pod, node); !status.IsSuccess() {
		return status
	}
	return plugin.Bind(ctx, state, pod, node)
}

func TestAPodIsBoundWithTheDecisionInOneRequestForThatVeryPod(t *testing.T) {
	pod := benchPod("p", 4, map[string]string{"gpu-model": "A100-80GB"})
	client := fake.NewClientset(pod)
	plugin, _ := newPlugin(t, client, nil, reference())
	if status := bind(t.Context(), plugin, pod, "a100-spot-0"); !status.IsSuccess() {
		t.Fatal(status.AsError())
	}
	if len(client.Actions()) != 1 {
		t.Fatalf("%v, want one request", client.Actions())
	}
	create, ok := client.Actions()[0].(clienttesting.CreateAction)
	if !ok || create.GetSubresource() != "binding" {
		t.Fatalf("%v, want a binding", client.Actions()[0])
	}
	binding := create.GetObject().(*v1.Binding)
	if binding.UID != "uid-p" || binding.Target.Name != "a100-spot-0" || binding.Target.Kind != "Node" {
		t.Errorf("binding %+v", binding)
	}
	placement, err := benchspec.ParsePlacement(binding.Annotations[benchspec.AnnotationPlacement])
	if err != nil || len(binding.Annotations) != 1 {
		t.Fatalf("annotations %v: %v", binding.Annotations, err)
	}
	// Four of eight GPUs of p4de.24xlarge: 9.6064675/2 on spot, for 1.0035 h expected.
	if placement.Node != "a100-spot-0" || placement.GPUCount != 4 || placement.USDPerHour != 9.6064675/2 || placement.Reason != "only feasible node: $4.82" {
		t.Errorf("placement %+v", placement)
	}
}

func TestAPodThatCannotBeBoundIsAnError(t *testing.T) {
	pod := benchPod("p", 1, nil)
	client := fake.NewClientset(pod)
	client.PrependReactor("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("the object has been modified")
	})
	plugin, _ := newPlugin(t, client, nil, reference())
	status := bind(t.Context(), plugin, pod, "a100-spot-0")
	if status.Code() != fwk.Error || !strings.Contains(status.Message(), "binding with annotation spotbench.dev/placement: the object has been modified") {
		t.Errorf("status %v", status)
	}
}

func TestQueueingHintsWakeOnlyWhereARefusalChanges(t *testing.T) {
	l4 := gpuNode("l4", "NVIDIA-L4", 23034, 4, "g6.12xlarge", "spot", "us-east-1c")
	h100 := gpuNode("h100", "NVIDIA-H100-80GB-HBM3", 81559, 8, "p5.48xlarge", "spot", "us-east-1b")
	with := func(n *v1.Node, change func(*v1.Node)) *v1.Node {
		n = n.DeepCopy()
		change(n)
		return n
	}
	noticed := with(h100, func(n *v1.Node) {
		n.Status.Conditions = append(n.Status.Conditions, v1.NodeCondition{Type: benchspec.ConditionSpotInterruption, Status: v1.ConditionTrue, Reason: "SpotInterruptionNotice"})
	})
	wantsH100 := benchPod("p", 1, map[string]string{"gpu-model": "H100-80GB"})
	wantsPeace := benchPod("p", 1, map[string]string{"isolation": "node"})
	malformed := benchPod("p", 1, map[string]string{"gpu-memory": "80 GB"})
	mended := benchPod("p", 1, map[string]string{"gpu-memory": "80Gi"})
	neighbour := benchPod("n", 1, nil)
	hermit := benchPod("h", 1, map[string]string{"isolation": "node"})
	cpuOnly := benchPod("c", 0, nil)
	labelled := wantsH100.DeepCopy()
	labelled.Labels = map[string]string{"a": "b"}
	sociable := hermit.DeepCopy()
	sociable.Annotations = nil
	patient := benchPod("p", 1, map[string]string{"gpu-model": "H100-80GB", "deadline": in(48 * time.Hour)})
	large := benchPod("p", 16, map[string]string{"gpu-model": "H100-80GB"})
	grown := with(h100, func(n *v1.Node) {
		n.Status.Allocatable["nvidia.com/gpu"], n.Labels["nvidia.com/gpu.count"] = resource.MustParse("16"), "16"
	})
	relabelled := with(h100, func(n *v1.Node) { n.Labels["nvidia.com/gpu.product"] = "NVIDIA-L4" })

	plugin, _ := newPlugin(t, fake.NewClientset(), nil, reference())
	registered, err := plugin.EventsToRegister(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hints := map[fwk.EventResource]fwk.QueueingHintFn{}
	for _, e := range registered {
		hints[e.Event.Resource] = e.QueueingHintFn
	}
	node := func(n *v1.Node) any { // no typed nil in the interface, as the scheduler passes it
		if n == nil {
			return nil
		}
		return n
	}
	pod := func(p *v1.Pod) any {
		if p == nil {
			return nil
		}
		return p
	}
	for name, test := range map[string]struct {
		resource fwk.EventResource
		pod      *v1.Pod
		old, new any
		want     fwk.QueueingHint
	}{
		"a node of the model joins":                    {fwk.Node, wantsH100, node(nil), node(h100), fwk.Queue},
		"a node of another model joins":                {fwk.Node, wantsH100, node(nil), node(l4), fwk.QueueSkip},
		"a node of the model joins with a notice":      {fwk.Node, wantsH100, node(nil), node(noticed), fwk.QueueSkip},
		"the notice is withdrawn":                      {fwk.Node, wantsH100, node(noticed), node(h100), fwk.Queue},
		"a notice arrives":                             {fwk.Node, wantsH100, node(h100), node(noticed), fwk.QueueSkip},
		"labels get the model of a node that had none": {fwk.Node, wantsH100, node(with(h100, func(n *v1.Node) { delete(n.Labels, "nvidia.com/gpu.product") })), node(h100), fwk.Queue},
		"another label of a fitting node changes":      {fwk.Node, wantsH100, node(h100), node(with(h100, func(n *v1.Node) { n.Labels["a"] = "b" })), fwk.QueueSkip},
		"a node of the model joins, too small":         {fwk.Node, large, node(nil), node(h100), fwk.QueueSkip},
		"it grows":                                     {fwk.Node, large, node(h100), node(grown), fwk.Queue},
		"a node of the model goes":                     {fwk.Node, wantsH100, node(h100), node(nil), fwk.QueueSkip},
		"the spot node that a pod waits for goes":      {fwk.Node, patient, node(h100), node(nil), fwk.Queue},
		"it gets another model":                        {fwk.Node, patient, node(h100), node(relabelled), fwk.Queue},
		"another model's becomes that of the pod":      {fwk.Node, wantsH100, node(relabelled), node(h100), fwk.Queue},
		"a node changes, but the pod cannot be read":   {fwk.Node, malformed, node(nil), node(h100), fwk.QueueSkip},
		"the pod's annotation is mended":               {fwk.Pod, malformed, pod(malformed), pod(mended), fwk.Queue},
		"the pod gets a label":                         {fwk.Pod, wantsH100, pod(wantsH100), pod(labelled), fwk.QueueSkip},
		"a neighbour leaves a pod that must be alone":  {fwk.Pod, wantsPeace, pod(neighbour), pod(nil), fwk.Queue},
		"a neighbour without GPUs leaves":              {fwk.Pod, wantsPeace, pod(cpuOnly), pod(nil), fwk.QueueSkip},
		"a neighbour leaves a pod that does not mind":  {fwk.Pod, wantsH100, pod(neighbour), pod(nil), fwk.QueueSkip},
		"a pod that had to be alone leaves":            {fwk.Pod, wantsH100, pod(hermit), pod(nil), fwk.Queue},
		"a pod no longer has to be alone":              {fwk.Pod, wantsH100, pod(hermit), pod(sociable), fwk.Queue},
		"a pod that has to be alone changes otherwise": {fwk.Pod, wantsH100, pod(hermit), pod(hermit.DeepCopy()), fwk.QueueSkip},
		"an unrelated pod changes":                     {fwk.Pod, wantsPeace, pod(neighbour), pod(neighbour.DeepCopy()), fwk.QueueSkip},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := hints[test.resource](klog.FromContext(t.Context()), test.pod, test.old, test.new)
			if err != nil || got != test.want {
				t.Errorf("hint %v (%v), want %v", got, err, test.want)
			}
		})
	}
}

func TestTheShippedConfigurationScoresWithOurPluginAlone(t *testing.T) {
	c := loadShipped(t)
	if len(c.Profiles) != 1 || c.Profiles[0].SchedulerName != benchspec.SchedulerName {
		t.Fatalf("profiles: %+v, want one named %s", c.Profiles, benchspec.SchedulerName)
	}
	plugins := c.Profiles[0].Plugins
	for point, set := range map[string]schedulerapi.PluginSet{"preScore": plugins.PreScore, "score": plugins.Score} {
		if len(set.Enabled) != 1 || set.Enabled[0].Name != scheduling.Name || len(set.Disabled) != 1 || set.Disabled[0].Name != "*" {
			t.Errorf("%s: %+v", point, set)
		}
	}
	if c.PercentageOfNodesToScore == nil || *c.PercentageOfNodesToScore != 100 {
		t.Errorf("percentageOfNodesToScore: %v, want 100", c.PercentageOfNodesToScore)
	}
	if e := c.LeaderElection; !e.LeaderElect || e.ResourceNamespace != "spotbench-system" || e.LeaseDuration.Duration > 15*time.Second {
		t.Errorf("leader election: %+v", e)
	}
}
