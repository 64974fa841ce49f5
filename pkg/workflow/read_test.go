// SPDX-License-Identifier: Apache-2.0

package workflow_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/spotbench/spotbench/pkg/workflow"
)

func read(t *testing.T, text string) (workflow.State, error) {
	t.Helper()
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &object.Object); err != nil {
		t.Fatal(err)
	}
	return workflow.Read(object)
}

func TestReadTakesTheStateOutOfAWorkflow(t *testing.T) {
	got, err := read(t, `
metadata:
  namespace: gpu-workloads
  name: nightly
  uid: u-1
  resourceVersion: "42"
  labels: {spotbench.dev/suspended: interruption}
  annotations:
    interruption.spotbench.dev/h100-spot-0: '{"by":"spotbench-node-agent","notice":"n-1","noticeAt":"2026-11-26T05:00:00Z","windowSeconds":120,"pods":["p"]}'
    interruption.spotbench.dev/a100-spot-0: garbled
    somebody.else/a: b
  managedFields:
    - {manager: kubectl-create, operation: Update, fieldsV1: {"f:spec": {".": {}, "f:entrypoint": {}}}}
    - {manager: spotbench-node-agent, operation: Update, fieldsV1: {"f:spec": {"f:suspend": {}}}}
    - {manager: argo, operation: Apply, fieldsV1: {"f:spec": {"f:suspend": {}}}}
spec:
  suspend: true
  shutdown: Stop
  retryStrategy: {limit: 3, retryPolicy: Always}
status:
  phase: Running
  nodes:
    nightly-1: {type: Suspend, phase: Running, displayName: approve}
    nightly-2: {type: Suspend, phase: Succeeded, displayName: approved}
    nightly-3: {type: Pod, phase: Running, displayName: sweep}
`)
	if err != nil {
		t.Fatal(err)
	}
	three := intstr.FromInt32(3)
	want := workflow.State{
		Namespace: "gpu-workloads", Name: "nightly", UID: "u-1", ResourceVersion: "42", Shutdown: "Stop", Suspended: true, Ours: true,
		Others: []string{"argo"}, Gates: []string{"approve"}, Retry: &workflow.Retry{Limit: &three, Policy: "Always"},
		Holds: map[string]workflow.Hold{"h100-spot-0": hold("n-1", 120, "p"), "a100-spot-0": {}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("state differs (-want +got):\n%s", diff)
	}
}

func TestReadKnowsWhoOwnsTheSuspension(t *testing.T) {
	tests := map[string]struct {
		managedFields string
		want          []string
	}{
		"we alone":                               {`[{manager: spotbench-node-agent, fieldsV1: {"f:spec": {"f:suspend": {}}}}]`, nil},
		"we, where the CRD makes spec one field": {`[{manager: spotbench-node-agent, fieldsV1: {"f:spec": {}}}]`, nil},
		"a person who has changed spec since, where it is one field": {
			`[{manager: spotbench-node-agent, fieldsV1: {"f:metadata": {}}}, {manager: kubectl-edit, fieldsV1: {"f:spec": {}}}]`, []string{"kubectl-edit"}},
		"a person who owns other fields": {`[{manager: kubectl, fieldsV1: {"f:spec": {"f:parallelism": {}}}}]`, nil},
		"Argo's controller":              {`[{manager: workflow-controller, fieldsV1: {"f:spec": {}}}]`, nil},
		"two people":                     {`[{manager: b, fieldsV1: {"f:spec": {"f:suspend": {}}}}, {manager: a, fieldsV1: {"f:spec": {"f:suspend": {}}}}]`, []string{"a", "b"}},
		"nobody":                         {`[]`, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := read(t, "metadata: {name: w, managedFields: "+tt.managedFields+"}\nspec: {suspend: true}")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got.Others); diff != "" {
				t.Errorf("others differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadTellsAFinishedWorkflow(t *testing.T) {
	for text, want := range map[string]bool{
		"{metadata: {name: w}, spec: {}}":                                                         false,
		"{metadata: {name: w}, spec: {}, status: {phase: Running}}":                               false,
		"{metadata: {name: w}, spec: {}, status: {phase: Succeeded}}":                             true,
		"{metadata: {name: w}, spec: {}, status: {phase: Error}}":                                 true,
		`{metadata: {name: w, labels: {workflows.argoproj.io/completed: "true"}}, spec: {}}`:      true,
		`{metadata: {name: w, labels: {workflows.argoproj.io/completed: "false"}}, spec: {}}`:     false,
		"{metadata: {name: w}, spec: {}, status: {phase: Pending, compressedNodes: H4sIAAAAAAA}}": false,
	} {
		if got, err := read(t, text); err != nil || got.Finished != want {
			t.Errorf("%s: finished %t, %v; want %t", text, got.Finished, err, want)
		}
	}
}

func TestReadRefusesWhatIsNoWorkflow(t *testing.T) {
	for _, text := range []string{`{metadata: {name: w}, spec: {suspend: "yes"}}`, `{metadata: {name: w}, spec: {shutdown: true}}`, `{metadata: {name: w}, status: {phase: 1}}`} {
		if _, err := read(t, text); err == nil {
			t.Errorf("%s is accepted", text)
		}
	}
}

func TestTheRetryOfAWorkflowTemplateCounts(t *testing.T) {
	got, err := read(t, `{metadata: {name: w}, spec: {workflowTemplateRef: {name: x}}, status: {storedWorkflowTemplateSpec: {retryStrategy: {limit: "2", expression: "true"}}}}`)
	two := intstr.FromString("2")
	if want := (&workflow.Retry{Limit: &two, Expression: "true"}); err != nil || !cmp.Equal(got.Retry, want) {
		t.Errorf("retry %+v, %v; want %+v", got.Retry, err, want)
	}
}

// What Argo 3.7 writes on the pod of a step.
func TestPodOfReadsWhatArgoWritesOnAPod(t *testing.T) {
	three := intstr.FromString("3")
	pod := func(nodeName string, env ...corev1.EnvVar) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "gpu-workloads", Name: "wf-sweep-123", Labels: map[string]string{"workflows.argoproj.io/workflow": "wf"},
				Annotations: map[string]string{"workflows.argoproj.io/node-name": nodeName, "spotbench.dev/run": "nightly-7"}},
			Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "init", Env: env}}},
		}
	}
	template := func(value string) corev1.EnvVar { return corev1.EnvVar{Name: "ARGO_TEMPLATE", Value: value} }
	tests := map[string]struct {
		pod     *corev1.Pod
		attempt int
		retry   *workflow.Retry
	}{
		"the second attempt of a step":                {pod("wf[1].sweep(1)", template(`{"name":"sweep","retryStrategy":{"limit":"3","retryPolicy":"Always"}}`)), 1, &workflow.Retry{Limit: &three, Policy: "Always"}},
		"an item of a loop without retryStrategy":     {pod("wf[1].sweep(0:big)", template(`{"name":"sweep"}`)), -1, nil},
		"the first attempt of an item":                {pod("wf[1].sweep(0:big)(0)", template(`{"name":"sweep"}`)), 0, nil},
		"a workflow of one pod":                       {pod("wf", template(`{"name":"main"}`)), -1, nil},
		"a template that is too large for a variable": {pod("wf(0)", template("offloaded")), 0, nil},
		"no template": {pod("wf(0)"), 0, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			want := workflow.Pod{Name: "wf-sweep-123", Run: "gpu-workloads/nightly-7", Attempt: tt.attempt, Retry: tt.retry}
			if diff := cmp.Diff(want, workflow.PodOf(tt.pod)); diff != "" {
				t.Errorf("pod differs (-want +got):\n%s", diff)
			}
		})
	}
	if got := workflow.Of(pod("wf")); got != "wf" {
		t.Errorf("workflow %q, want wf", got)
	}
	if got := workflow.Of(&corev1.Pod{}); got != "" {
		t.Errorf("workflow %q of a pod that belongs to none", got)
	}
}

func TestANodeNameMustFitIntoAnAnnotation(t *testing.T) {
	for name, ok := range map[string]bool{
		"": false, "h100-spot-0": true, "ip-10-0-0-1.us-west-2.compute.internal": true,
		"a23456789-123456789-123456789-123456789-123456789-123456789-123":  true,
		"a23456789-123456789-123456789-123456789-123456789-123456789-1234": false,
	} {
		if err := workflow.CheckNode(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
