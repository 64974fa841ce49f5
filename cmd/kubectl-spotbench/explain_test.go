// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/snapshot"
)

func gpuNode(name, model, instance, zone, capacity string, gpus int, usd, onDemand, hazard float64) snapshot.Node {
	m, _ := gpu.Lookup(model)
	return snapshot.Node{
		Name: name, GPU: &snapshot.GPU{Model: m.Name, Product: "NVIDIA-" + model, MemoryBytes: m.MemoryBytes, Count: gpus},
		Pool:      snapshot.Pool{Provider: "aws", Region: "us-east-1", Zone: zone, InstanceType: instance, CapacityType: capacity},
		TotalGPUs: gpus, USDPerHour: usd, OnDemandUSDPerHour: onDemand, HazardPerHour: hazard,
		Taints:      []v1.Taint{{Key: "nvidia.com/gpu", Value: "present", Effect: v1.TaintEffectNoSchedule}},
		Allocatable: v1.ResourceList{"cpu": resource.MustParse("96"), "memory": resource.MustParse("1000Gi"), "pods": resource.MustParse("110")},
		Requested:   v1.ResourceList{"cpu": resource.MustParse("1"), "pods": resource.MustParse("2")},
	}
}

func benchPod(name string, gpus int, annotations ...string) snapshot.Pod {
	p := snapshot.Pod{
		Namespace: "bench", Name: name, SchedulerName: benchspec.SchedulerName, GPUs: gpus, Annotations: map[string]string{},
		Tolerations: []v1.Toleration{{Key: "nvidia.com/gpu", Operator: v1.TolerationOpExists}},
	}
	for i := 0; i < len(annotations); i += 2 {
		p.Annotations[benchspec.Prefix+annotations[i]] = annotations[i+1]
	}
	return p
}

// platform is the reference platform at noon: the A100s on spot are all taken for
// another 25 minutes.
func platform() snapshot.Snapshot {
	s := snapshot.Snapshot{
		Time: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC),
		Assumptions: snapshot.AssumptionsOf(placement.Assumptions{ExpectedDuration: time.Hour, CheckpointCost: 10 * time.Second,
			RestartCost: 3 * time.Minute, DeadlineMargin: 15 * time.Minute, NoticeSaves: 0.9, GPUHourUSD: 1}),
		Nodes: []snapshot.Node{
			gpuNode("gpu-a100-1", "A100-80GB", "p4de.24xlarge", "us-east-1a", "spot", 8, 9.61, 27.45, 0.013),
			gpuNode("gpu-a100-od", "A100-80GB", "p4de.24xlarge", "us-east-1d", "on-demand", 8, 27.45, 27.45, 0),
			gpuNode("gpu-h100-1", "H100-80GB", "p5.48xlarge", "us-east-1b", "spot", 8, 26.42, 55.04, 0.229),
			gpuNode("gpu-l4-1", "L4-24GB", "g6.12xlarge", "us-east-1c", "spot", 4, 1.89, 4.6, 0.229),
		},
	}
	s = s.Place(benchPod("eval-7", 8, "expected-duration", "25m"), "gpu-a100-1")
	s.Pending = []snapshot.Pod{
		benchPod("llama", 4, "gpu-memory", "80Gi", "capacity", "spot", "max-interruption-risk", "0.10"),
		benchPod("qwen", 1, "gpu-model", "B200-180GB, H100-80GB"),
	}
	return s
}

func saved(t *testing.T, s snapshot.Snapshot) string {
	t.Helper()
	var document bytes.Buffer
	if err := s.Write(&document); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "snapshot.json")
	if err := os.WriteFile(file, document.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func same(t *testing.T, want, got string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
}

// answer runs the plugin, which must not fail, and gives what it prints.
func answer(t *testing.T, args ...string) string {
	t.Helper()
	out, err := kubectl(t, args...)
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return out
}

func TestAPendingPodIsToldWhyAndWhatWouldChangeIt(t *testing.T) {
	// 1-exp(-0.229) = 0.2047.
	same(t, `Pod bench/llama is pending: none of 4 nodes will do.

A100-80GB (spot p4de.24xlarge us-east-1a): gpu-a100-1
  has 0 free GPUs of 8, wanted 4
  -> free in about 25 min on gpu-a100-1, when bench/eval-7 ends
  or add an A100-80GB node of this pool

A100-80GB (on-demand p4de.24xlarge us-east-1d): gpu-a100-od
  has on-demand capacity, wanted spot
  -> set capacity to any, so that on-demand will do

H100-80GB (spot p5.48xlarge us-east-1b): gpu-h100-1
  has interruption risk 0.20 over 1h, limit 0.10
  -> raise max-interruption-risk to 0.21

L4-24GB (spot g6.12xlarge us-east-1c): gpu-l4-1
  has L4-24GB with 24 GiB per GPU, wanted 80 GiB
  -> lower gpu-memory to 24Gi, and raise max-interruption-risk to 0.21
`, answer(t, "explain", "llama", "-n", "bench", "--snapshot", saved(t, platform())))
}

func TestAPodThatIsHeldOrCannotBeReadIsToldSo(t *testing.T) {
	s := platform()
	held := benchPod("held", 1, "gpu-model", "L4")
	held.Gates, held.Unchecked = []string{"example.org/quota"}, []string{"volumes"}
	s.Pending = append(s.Pending, held, benchPod("wrong", 1, "capacity", "cheap"))
	file := saved(t, s)
	same(t, `Pod bench/held is held: the scheduler does not try it before its scheduling gates are removed: example.org/quota.
Without that:

Pod bench/held is pending, and gpu-l4-1 will do: it is about to be placed, if nothing else is in the way.

NODE      GPU MODEL  CAPACITY  INSTANCE TYPE  ZONE        USD/HOUR  RISK    EXPECTED TIME  EXPECTED COST  LOST BY
gpu-l4-1  L4-24GB    spot      g6.12xlarge    us-east-1c  $0.47     20.5 %  1h8m           $0.54          (best)

Not looked at here, though the scheduler does: volumes.
`, answer(t, "explain", "held", "-n", "bench", "--snapshot", file))
	if out := answer(t, "explain", "wrong", "-n", "bench", "--snapshot", file); !strings.HasPrefix(out, `Pod bench/wrong gets no node: the pod's annotations are malformed: annotation spotbench.dev/capacity: "cheap"`) {
		t.Errorf("printed %s", out)
	}
}

// placed is a pod as the scheduler leaves it.
func placed() *v1.Pod {
	decided := benchspec.Placement{
		Node: "gpu-a100-1", GPUModel: "A100-80GB", GPUCount: 1, CapacityType: "spot", InstanceType: "p4de.24xlarge", Zone: "us-east-1a",
		USDPerHour: 1.2, InterruptionRisk: 0.013, ExpectedHours: 1.01, ExpectedCostUSD: 1.21, OnDemandCostUSD: 3.43,
		Reason: "cheapest of 2 feasible nodes: $1.21 vs $3.43 on gpu-a100-od",
		Alternatives: []benchspec.Alternative{{Node: "gpu-a100-od", GPUModel: "A100-80GB", CapacityType: "on-demand", InstanceType: "p4de.24xlarge", Zone: "us-east-1d",
			USDPerHour: 3.43, ExpectedCostUSD: 3.43, Lost: "costs $2.22 more"}},
		Refused: map[string]string{"gpu-l4-1": "has L4-24GB, wanted A100-80GB", "gpu-h100-1": "has H100-80GB, wanted A100-80GB"},
	}
	return &v1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "bench", Name: "mistral", Annotations: map[string]string{benchspec.AnnotationPlacement: decided.String()}},
		Spec:       v1.PodSpec{NodeName: "gpu-a100-1", SchedulerName: benchspec.SchedulerName},
	}
}

// apiServer answers GET of pods by path, with a status of its own for everything else.
func apiServer(t *testing.T, pods map[string]*v1.Pod, list *v1.PodList, otherwise int) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		var object any = pods[r.URL.Path]
		if list != nil && strings.HasSuffix(r.URL.Path, "/spotbench-system/pods") {
			object = list
		} else if pods[r.URL.Path] == nil {
			reason := metav1.StatusReasonNotFound
			if otherwise == http.StatusForbidden {
				reason = metav1.StatusReasonForbidden
			}
			w.WriteHeader(otherwise)
			object = metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Reason: reason,
				Message: r.URL.Path + " is forbidden", Code: int32(otherwise)}
		}
		_ = json.NewEncoder(w).Encode(object)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestAPodWithANodeIsExplainedByWhatTheSchedulerWroteDown(t *testing.T) {
	api := apiServer(t, map[string]*v1.Pod{"/api/v1/namespaces/bench/pods/mistral": placed()}, nil, http.StatusNotFound)
	same(t, `Pod bench/mistral is on gpu-a100-1: cheapest of 2 feasible nodes: $1.21 vs $3.43 on gpu-a100-od.
Finishing is expected to take 1h1m.

NODE         GPU MODEL  CAPACITY   INSTANCE TYPE  ZONE        USD/HOUR  RISK   EXPECTED COST  LOST BY
gpu-a100-1   A100-80GB  spot       p4de.24xlarge  us-east-1a  $1.20     1.3 %  $1.21          (chosen)
gpu-a100-od  A100-80GB  on-demand  p4de.24xlarge  us-east-1d  $3.43     0.0 %  $3.43          costs $2.22 more

REFUSED NODE  BECAUSE IT
gpu-h100-1    has H100-80GB, wanted A100-80GB
gpu-l4-1      has L4-24GB, wanted A100-80GB
`, answer(t, "explain", "mistral", "-n", "bench", "--server", api))
	var e explanation
	if out := answer(t, "explain", "mistral", "-n", "bench", "--server", api, "-o", "json"); json.Unmarshal([]byte(out), &e) != nil || e.Placement == nil || e.Placement.Node != "gpu-a100-1" || e.Node != "gpu-a100-1" {
		t.Errorf("as JSON: %s", out)
	}
}

func TestWhoMayNotAskTheSchedulerIsToldWhichRightsAreMissing(t *testing.T) {
	pending := &v1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Namespace: "bench", Name: "llama"},
		Spec: v1.PodSpec{SchedulerName: benchspec.SchedulerName}}
	other := pending.DeepCopy()
	other.Spec.SchedulerName = "default-scheduler"
	running := &v1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: []v1.Pod{
		{ObjectMeta: metav1.ObjectMeta{Name: "scheduler-0", Namespace: "spotbench-system"}, Status: v1.PodStatus{Phase: v1.PodRunning}}}}
	pods := map[string]*v1.Pod{"/api/v1/namespaces/bench/pods/llama": pending, "/api/v1/namespaces/bench/pods/other": other}
	for name, c := range map[string]struct {
		list *v1.PodList
		pod  string
		want []string
	}{
		"to find its pod":          {nil, "llama", []string{"find the scheduler's pod in namespace spotbench-system", "spotbench-snapshot-reader", "--snapshot"}},
		"to forward a port":        {running, "llama", []string{"forward a port to the scheduler's pod spotbench-system/scheduler-0", "spotbench-snapshot-reader"}},
		"to find it where it runs": {&v1.PodList{TypeMeta: running.TypeMeta}, "llama", []string{"no pod of the scheduler", "--scheduler-namespace"}},
		"to see the pod":           {nil, "secret", []string{"get pod bench/secret", "forbidden"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := kubectl(t, "explain", c.pod, "-n", "bench", "--server", apiServer(t, pods, c.list, http.StatusForbidden))
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
	out := answer(t, "explain", "other", "-n", "bench", "--server", apiServer(t, pods, nil, http.StatusForbidden))
	if want := `Pod bench/other gets no node: it is pending, but not Spotbench's: its schedulerName is "default-scheduler"`; !strings.HasPrefix(out, want) {
		t.Errorf("printed %s", out)
	}
	if _, err := kubectl(t, "explain", "none", "-n", "bench", "--server", apiServer(t, pods, nil, http.StatusNotFound)); err == nil || !strings.Contains(err.Error(), "there is no pod none in namespace bench") {
		t.Errorf("error %v", err)
	}
}

func TestAnAPIServerThatStaysSilentDoesNotHoldThePlugin(t *testing.T) {
	silent := make(chan struct{})
	running := v1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: []v1.Pod{
		{ObjectMeta: metav1.ObjectMeta{Name: "scheduler-0", Namespace: "spotbench-system"}, Status: v1.PodStatus{Phase: v1.PodRunning}}}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/portforward") {
			<-silent
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(running)
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(silent) })
	streams, _, _, _ := genericiooptions.NewTestIOStreams()
	cmd := command(streams)
	cmd.SetArgs([]string{"snapshot", "--server", server.URL})
	ctx, interrupt := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	time.AfterFunc(100*time.Millisecond, interrupt)
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want one that says it was interrupted", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it still waits 10 s after the interrupt")
	}
}

func TestReplayOfASavedSnapshotDecidesAgain(t *testing.T) {
	file := saved(t, platform())
	same(t, `At 2026-11-23T12:00:00Z:

POD          NODE        GPU MODEL  CAPACITY  RISK    EXPECTED TIME  EXPECTED COST  REASON
bench/llama  -           -          -         -       -              -              no node will do: 1 CapacityType, 1 FreeGPUs, 1 GPUMemory, 1 InterruptionRisk
bench/qwen   gpu-h100-1  H100-80GB  spot      20.5 %  1h8m           $3.75          only feasible node: $3.75
`, answer(t, "replay", file))
	same(t, `At 2026-11-23T12:00:00Z pod bench/eval-7 was on gpu-a100-1.
It goes to gpu-a100-1: cheapest of 3 feasible nodes: $4.02 vs $11.44 on gpu-a100-od.

NODE         GPU MODEL  CAPACITY   INSTANCE TYPE  ZONE        USD/HOUR  RISK   EXPECTED TIME  EXPECTED COST  LOST BY
gpu-a100-1   A100-80GB  spot       p4de.24xlarge  us-east-1a  $9.61     0.5 %  25m            $4.02          (best)
gpu-a100-od  A100-80GB  on-demand  p4de.24xlarge  us-east-1d  $27.45    0.0 %  25m            $11.44         costs $7.42 more
gpu-h100-1   H100-80GB  spot       p5.48xlarge    us-east-1b  $26.42    9.1 %  27m            $11.68         costs $7.67 more

REFUSED NODE  BECAUSE IT HAS
gpu-l4-1      4 free GPUs of 4, wanted 8
`, answer(t, "replay", file, "--pod", "bench/eval-7"))
	var r replayed
	if out := answer(t, "replay", file, "-o", "json"); json.Unmarshal([]byte(out), &r) != nil || len(r.Decisions) != 2 || r.Decisions[1].Node != "gpu-h100-1" {
		t.Errorf("as JSON: %s", out)
	}
	if _, err := kubectl(t, "replay", file, "--pod", "bench/none"); err == nil || !strings.Contains(err.Error(), "which has bench/eval-7, bench/llama, bench/qwen") {
		t.Errorf("error %v", err)
	}
}

const threeAndOne = `apiVersion: batch/v1
kind: Job
metadata: {name: eval, namespace: bench}
spec:
  parallelism: 3
  completions: 5
  template:
    metadata: {annotations: {spotbench.dev/gpu-memory: 80Gi, spotbench.dev/expected-duration: 2h, spotbench.dev/checkpoint-path: /c}}
    spec:
      schedulerName: spotbench
      tolerations: [{key: nvidia.com/gpu, operator: Exists}]
      containers: [{name: m, image: x, resources: {limits: {nvidia.com/gpu: 4, cpu: 8}}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
---
apiVersion: v1
kind: Pod
metadata: {name: big, annotations: {spotbench.dev/gpu-model: H100-80GB}}
spec:
  tolerations: [{key: nvidia.com/gpu, operator: Exists}]
  containers: [{name: m, image: x, resources: {limits: {nvidia.com/gpu: 8}}}]
`

func written(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pods.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestSimulatePlacesThePodsOfAFileOneAfterTheOther(t *testing.T) {
	streams, _, out, notes := genericiooptions.NewTestIOStreams()
	cmd := command(streams)
	cmd.SetArgs([]string{"simulate", "-n", "bench", "-f", written(t, threeAndOne), "--snapshot", saved(t, platform())})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Two of four GPUs fill the H100s; the third pod pays more rather than wait.
	same(t, `POD           NODE         GPU MODEL  CAPACITY   RISK    EXPECTED TIME  EXPECTED COST  REASON
bench/eval-0  gpu-h100-1   H100-80GB  spot       36.7 %  2h4m           $27.22         cheapest of 2 feasible nodes: $27.22 vs $27.45 on gpu-a100-od
bench/eval-1  gpu-h100-1   H100-80GB  spot       36.7 %  2h4m           $27.22         cheapest of 2 feasible nodes: $27.22 vs $27.45 on gpu-a100-od
bench/eval-2  gpu-a100-od  A100-80GB  on-demand  0.0 %   2h0m           $27.45         only feasible node: $27.45
bench/big     -            -          -          -       -              -              no node will do: 1 FreeGPUs, 3 GPUModel

3 of 4 pods get a node, for an expected $81.89 in all.

Pod bench/big would be pending: none of 4 nodes will do.

H100-80GB (spot p5.48xlarge us-east-1b): gpu-h100-1
  has 0 free GPUs of 8, wanted 8
  -> free in about 2 h on gpu-h100-1, when bench/eval-0, bench/eval-1 end
  or add an H100-80GB node of this pool

A100-80GB (spot p4de.24xlarge us-east-1a): gpu-a100-1
  has A100-80GB, wanted H100-80GB
  -> allow A100-80GB in gpu-model, and free in about 25 min on gpu-a100-1, when bench/eval-7 ends

A100-80GB (on-demand p4de.24xlarge us-east-1d): gpu-a100-od
  has A100-80GB, wanted H100-80GB
  -> allow A100-80GB in gpu-model, and free in about 2 h on gpu-a100-od, when bench/eval-2 ends

L4-24GB (spot g6.12xlarge us-east-1c): gpu-l4-1
  has L4-24GB, wanted H100-80GB
  -> allow L4-24GB in gpu-model, and ask for at most 4 GPUs
`, out.String())
	same(t, `note: ConfigMap settings has no pods; it is passed by
note: Pod big: schedulerName is "", so that Spotbench would not place it; write "spotbench", or use kubectl spotbench render
note: 2 pods wait already; what of them is placed first may take the room
`, notes.String())
}

func TestSimulateSaysHowProbablyADeadlineIsMet(t *testing.T) {
	const file = `apiVersion: v1
kind: Pod
metadata:
  name: due
  annotations: {spotbench.dev/gpu-model: H100-80GB, spotbench.dev/expected-duration: 1h, spotbench.dev/deadline: "%s"}
spec:
  schedulerName: spotbench
  tolerations: [{key: nvidia.com/gpu, operator: Exists}]
  containers: [{name: eval, image: registry/vllm-bench:v1, resources: {limits: {nvidia.com/gpu: 2}}}]
`
	streams, _, out, _ := genericiooptions.NewTestIOStreams()
	cmd := command(streams)
	deadline := platform().Time.Add(80 * time.Minute).UTC().Format(time.RFC3339)
	cmd.SetArgs([]string{"simulate", "-n", "bench", "-f", written(t, fmt.Sprintf(file, deadline)), "--snapshot", saved(t, platform())})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	// exp(-0.229) = 0.795 are not interrupted in the hour. Who is in the first 17 minutes
	// (0.063) still has the hour after a restart of three, and 0.795 of these get through.
	if !regexp.MustCompile(`; meets its deadline with probability 0\.8[45]\n`).MatchString(out.String()) {
		t.Errorf("no probability of 0.795 + 0.063·0.795 = 0.845 in\n%s", out)
	}
}

func TestSimulateReadsEverythingWithAPodTemplate(t *testing.T) {
	const template = `template: {spec: {schedulerName: spotbench, containers: [{name: m, image: x}]}}`
	for kind, c := range map[string]struct {
		spec string
		want int
	}{
		"Job":        {template, 1},
		"CronJob":    {`jobTemplate: {spec: {parallelism: 2, ` + template + `}}`, 2},
		"Deployment": {`replicas: 3, ` + template, 3},
		"NoReplicas": {`replicas: 0, ` + template, 0},
	} {
		t.Run(kind, func(t *testing.T) {
			out, err := kubectl(t, "simulate", "-o", "json", "-f", written(t, "kind: List\nitems:\n- {kind: "+kind+", metadata: {name: x}, spec: {"+c.spec+"}}\n"), "--snapshot", saved(t, platform()))
			if c.want == 0 {
				if err == nil || !strings.Contains(err.Error(), "no pod") {
					t.Errorf("error %v", err)
				}
				return
			}
			var r simulation
			if err != nil || json.Unmarshal([]byte(out), &r) != nil || len(r.Pods) != c.want {
				t.Errorf("%d pods, want %d: %v", len(r.Pods), c.want, err)
			}
		})
	}
}

func TestAWrongFileOfPodsIsRefusedWithItsDocument(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"no YAML":                  {"kind: ConfigMap\n---\n\tx", "document 2"},
		"no object":                {"[1]", "document 1: it is not a Kubernetes object"},
		"no spec":                  {"kind: Pod\nmetadata: {name: p}", "document 1: Pod p: spec is missing"},
		"no pods":                  {"kind: ConfigMap\n", "no pod and nothing with a pod template"},
		"a quantity that is none":  {"kind: Pod\nmetadata: {name: p}\nspec: {containers: [{resources: {limits: {cpu: many}}}]}", "document 1: Pod p: spec"},
		"a template that is wrong": {"kind: Job\nmetadata: {name: j}\nspec: {template: {spec: {containers: 1}}}", "document 1: Job j: spec"},
		"too many":                 {"kind: Job\nmetadata: {name: j}\nspec: {parallelism: 1000000, template: {spec: {containers: []}}}", "more than 10000 pods"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := kubectl(t, "simulate", "-f", written(t, c.text), "--snapshot", saved(t, platform()))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}
