// SPDX-License-Identifier: Apache-2.0

package platform_test

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/demo"
	"github.com/spotbench/spotbench/pkg/workflow"
)

// installWorkflows installs Argo Workflows on the stage, once for all tests.
var installWorkflows = sync.OnceValue(func() error { return stage.InstallWorkflows(stageContext) })

// argo is the stage with Argo Workflows on it.
type argo struct {
	t         *testing.T
	workflows dynamic.ResourceInterface
	// pipeline is the spec of the WorkflowTemplate.
	pipeline map[string]any
}

// withWorkflows takes back what the cloud says of the node at the end of the test.
func withWorkflows(t *testing.T, interrupted string) *argo {
	t.Helper()
	if err := installWorkflows(); err != nil {
		t.Fatal(err)
	}
	client := dynamic.NewForConfigOrDie(stage.RESTConfig)
	templates := client.Resource(schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "workflowtemplates"})
	template, err := templates.Namespace(workloads).Get(t.Context(), "benchmark-pipeline", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	spec, _, err := unstructured.NestedMap(template.Object, "spec")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stage.Cluster.Withdraw(cleanupContext(t), interrupted); err != nil {
			t.Error(err)
		}
	})
	return &argo{t: t, workflows: client.Resource(workflow.Resource).Namespace(workloads), pipeline: spec}
}

// parameters are a workflow's arguments by name.
func parameters(values map[string]string) map[string]any {
	var list []any
	for name, value := range values {
		list = append(list, map[string]any{"name": name, "value": value})
	}
	return map[string]any{"parameters": list}
}

func (a *argo) create(name string, spec map[string]any) {
	a.t.Helper()
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": map[string]any{"name": name}, "spec": spec}}
	if _, err := a.workflows.Create(a.t.Context(), object, metav1.CreateOptions{FieldManager: "kubectl-create"}); err != nil {
		a.t.Fatal(err)
	}
}

// requests of a sweep are made one after the other: some 40 s on an L4, half of that on
// an A100.
const requests = 24

// sweep is a workflow of the pipeline's sweep alone, first on L4 and then on A100. change
// may change that template, and the spec as a whole.
func (a *argo) sweep(name string, change func(sweep, spec map[string]any)) {
	a.t.Helper()
	spec := (&unstructured.Unstructured{Object: a.pipeline}).DeepCopy().Object
	spec["entrypoint"] = "sweep"
	arguments, _, _ := unstructured.NestedSlice(spec, "arguments", "parameters")
	for _, p := range arguments {
		parameter := p.(map[string]any)
		if value, ok := map[string]string{"gpu-model": "L4-24GB, A100-80GB", "concurrency": "1", "requests": strconv.Itoa(requests)}[parameter["name"].(string)]; ok {
			parameter["value"] = value
		}
	}
	spec["arguments"] = map[string]any{"parameters": arguments}
	for _, t := range spec["templates"].([]any) {
		template := t.(map[string]any)
		if template["name"] != "sweep" {
			continue
		}
		// What other tests have taught the catalog of these GPUs does not matter here.
		unstructured.RemoveNestedField(template, "metadata", "annotations", "spotbench.dev/max-interruption-risk")
		if change != nil {
			change(template, spec)
		}
	}
	a.create(name, spec)
}

func (a *argo) get(name string) *unstructured.Unstructured {
	a.t.Helper()
	object, err := a.workflows.Get(a.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		a.t.Fatal(err)
	}
	return object
}

func (a *argo) state(name string) workflow.State {
	a.t.Helper()
	s, err := workflow.Read(a.get(name))
	if err != nil {
		a.t.Fatal(err)
	}
	return s
}

func (a *argo) phase(name string) string {
	a.t.Helper()
	phase, _, _ := unstructured.NestedString(a.get(name).Object, "status", "phase")
	return phase
}

// awaitPhase wants the workflow to end in one of these phases.
func (a *argo) awaitPhase(name string, want ...string) {
	a.t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		phase := a.phase(name)
		if slices.Contains(want, phase) {
			return
		}
		if phase == "Succeeded" || phase == "Failed" || phase == "Error" || time.Now().After(deadline) {
			message, _, _ := unstructured.NestedString(a.get(name).Object, "status", "message")
			a.t.Fatalf("workflow %s is %s (%s), want %v; its pods:\n%s\nits events:\n%s", name, phase, message, want, a.pods(name), strings.Join(a.events(name, ""), "\n"))
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func (a *argo) patch(name, manager, patch string) {
	a.t.Helper()
	if _, err := a.workflows.Patch(a.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: manager}); err != nil {
		a.t.Fatal(err)
	}
}

// events are the messages of the workflow's events of a reason; of all for "".
func (a *argo) events(name, reason string) []string {
	a.t.Helper()
	list, err := stage.Client.CoreV1().Events(workloads).List(a.t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.kind=Workflow,involvedObject.name=" + name})
	if err != nil {
		a.t.Fatal(err)
	}
	var messages []string
	for _, e := range list.Items {
		if reason == "" || e.Reason == reason {
			messages = append(messages, e.Reason+": "+e.Message)
		}
	}
	return messages
}

// assertEvent wants one event of the reason on the workflow, with that text in it.
func (a *argo) assertEvent(name, reason, text string) {
	a.t.Helper()
	var got []string
	eventually(a.t, 90*time.Second, "the event "+reason+" on "+name, func() bool { got = a.events(name, reason); return len(got) > 0 })
	if len(got) != 1 || !strings.Contains(got[0], text) {
		a.t.Errorf("events of %s: %q, want one with %q", name, got, text)
	}
}

// pods describes the workflow's pods, for a message.
func (a *argo) pods(name string) string {
	list, err := stage.Client.CoreV1().Pods(workloads).List(a.t.Context(), metav1.ListOptions{LabelSelector: "workflows.argoproj.io/workflow=" + name})
	if err != nil {
		return err.Error()
	}
	var lines []string
	for _, p := range list.Items {
		lines = append(lines, p.Name+" on "+p.Spec.NodeName+": "+string(p.Status.Phase)+" "+p.Status.Message)
		for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			if w := s.State.Waiting; w != nil {
				lines = append(lines, "  "+s.Name+" waits: "+w.Reason+" "+w.Message)
			}
			if e := s.State.Terminated; e != nil && e.ExitCode != 0 {
				lines = append(lines, "  "+s.Name+" ended: "+e.Reason+" "+e.Message)
			}
		}
	}
	return strings.Join(lines, "\n")
}

// awaitMeasuring waits until the sweep's pod measures on the node.
func (a *argo) awaitMeasuring(name, node string) {
	a.t.Helper()
	eventually(a.t, 3*time.Minute, name+" to measure on "+node, func() bool {
		list, err := stage.Client.CoreV1().Pods(workloads).List(a.t.Context(), metav1.ListOptions{LabelSelector: "workflows.argoproj.io/workflow=" + name})
		if err != nil {
			return false
		}
		return slices.ContainsFunc(list.Items, func(p corev1.Pod) bool {
			if p.Spec.NodeName != node || p.Status.Phase != corev1.PodRunning {
				return false
			}
			log, err := stage.Client.CoreV1().Pods(workloads).GetLogs(p.Name, &corev1.PodLogOptions{Container: "main"}).DoRaw(a.t.Context())
			return err == nil && strings.Contains(string(log), `"msg":"progress"`)
		})
	})
}

// run is what the catalog has of the workflow's run, once it has that many results.
func (a *argo) run(name string, results int) catalog.Detail {
	a.t.Helper()
	var run catalog.Detail
	eventually(a.t, time.Minute, "the results of "+name, func() bool {
		got, err := stage.Catalog.GetRun(a.t.Context(), workloads+"/"+name)
		run = got
		return err == nil && len(got.Results) >= results
	})
	return run
}

// assertMeasuredOnce wants each point of the sweep once, with every request counted once.
func (a *argo) assertMeasuredOnce(run catalog.Detail, points int, asked int64) {
	a.t.Helper()
	levels := map[int64]int{}
	for _, result := range run.Results {
		if result.Concurrency == nil {
			a.t.Fatalf("%s has no concurrency", result.File)
		}
		levels[*result.Concurrency]++
		measured := int64(0)
		for _, segment := range result.Spotbench.Segments {
			measured += segment.Completed
		}
		if result.Completed != asked || measured != asked {
			a.t.Errorf("%s: %d requests in the result and %d in its segments, want %d", result.File, result.Completed, measured, asked)
		}
	}
	if len(run.Results) != points || len(levels) != points {
		a.t.Errorf("%d results at %d levels, want each of %d levels once", len(run.Results), len(levels), points)
	}
}

func TestAnInterruptedWorkflowFinishesAndMeasuresEachPointOnce(t *testing.T) {
	const name, interruptedNode, takingOver = "nightly", "a100-spot-0", "a100-od-0"
	a := withWorkflows(t, interruptedNode)
	a.create(name, map[string]any{
		"workflowTemplateRef": map[string]any{"name": "benchmark-pipeline"},
		"arguments":           parameters(map[string]string{"gpu-model": "A100-80GB", "concurrency": "1,2,4", "requests": "24"}),
	})
	a.awaitMeasuring(name, interruptedNode)
	a.run(name, 1) // the first point is measured, the sweep is in its middle
	sent := time.Now()
	if err := stage.Cluster.Notice(t.Context(), interruptedNode, sent.Add(demo.DefaultNotice), "terminate"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the workflow to be suspended", func() bool { return a.state(name).Suspended })
	suspended := time.Now()
	eventually(t, time.Minute, "the workflow to be resumed", func() bool { return !a.state(name).Suspended })
	t.Logf("suspended %.1f s after the notice was sent, resumed %.1f s later", suspended.Sub(sent).Seconds(), time.Since(suspended).Seconds())
	a.awaitPhase(name, "Succeeded")

	run := a.run(name, 3)
	a.assertMeasuredOnce(run, 3, 24)
	if run.InterruptionCount != 1 || !slices.Equal(run.Nodes, []string{interruptedNode, takingOver}) || run.Status != catalog.Succeeded {
		t.Errorf("%s after %d interruptions on %v, want it succeeded after one, on %s and then on %s", run.Status, run.InterruptionCount, run.Nodes, interruptedNode, takingOver)
	}
	if s := a.state(name); s.Ours || len(s.Holds) > 0 {
		t.Errorf("our marks are still on the workflow: %+v", s)
	}
	a.assertEvent(name, workflow.ReasonSuspended, "the interruption of node "+interruptedNode)
	a.assertEvent(name, workflow.ReasonResumed, "resumed: 1 pod has left "+interruptedNode+", saved as far as it could be and recorded")
	t.Run("with one retry of the sweep and none of the other steps", func(t *testing.T) {
		nodes, _, _ := unstructured.NestedMap(a.get(name).Object, "status", "nodes")
		attempts := map[string]int{}
		for _, n := range nodes {
			if node := n.(map[string]any); node["type"] == "Pod" {
				attempts[node["templateName"].(string)]++
			}
		}
		for template, want := range map[string]int{"prepare": 1, "sweep": 2, "import": 1, "report": 1} {
			if attempts[template] != want {
				t.Errorf("%d attempts of %s, want %d", attempts[template], template, want)
			}
		}
	})
	t.Run("and reports", func(t *testing.T) {
		list, err := stage.Client.CoreV1().Pods(workloads).List(t.Context(), metav1.ListOptions{LabelSelector: "workflows.argoproj.io/workflow=" + name})
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(list.Items, func(p corev1.Pod) bool { return strings.Contains(p.Name, "-report-") })
		if i < 0 {
			t.Fatal("no pod of the step report")
		}
		log, err := stage.Client.CoreV1().Pods(workloads).GetLogs(list.Items[i].Name, &corev1.PodLogOptions{Container: "main"}).DoRaw(t.Context())
		if err != nil || !strings.Contains(string(log), "Interruptions: 1") || strings.Count(string(log), "| 24/24") != 3 {
			t.Errorf("the report: %s, %v", log, err)
		}
	})
}

func TestWorkflowsThatAreSomebodyElsesBusinessAreLeftAsTheyAre(t *testing.T) {
	// Another node than in the test before, whose notice may not be forgotten yet.
	const interruptedNode = "l4-spot-0"
	a := withWorkflows(t, interruptedNode)
	a.sweep("suspended-by-hand", nil)
	a.sweep("with-a-gate", func(_, spec map[string]any) {
		spec["entrypoint"] = "gated"
		spec["templates"] = append(spec["templates"].([]any),
			map[string]any{"name": "approve", "suspend": map[string]any{}},
			map[string]any{"name": "gated", "steps": []any{[]any{
				map[string]any{"name": "sweep", "template": "sweep"}, map[string]any{"name": "approve", "template": "approve"}}}})
	})
	a.sweep("shut-down", func(sweep, _ map[string]any) {
		// It takes its time to stop, so that it can be shut down meanwhile.
		sweep["container"].(map[string]any)["lifecycle"] = map[string]any{"preStop": map[string]any{"sleep": map[string]any{"seconds": int64(10)}}}
	})
	a.sweep("without-retry", func(sweep, _ map[string]any) { delete(sweep, "retryStrategy") })
	for _, name := range []string{"suspended-by-hand", "with-a-gate", "shut-down", "without-retry"} {
		a.awaitMeasuring(name, interruptedNode)
	}
	a.patch("suspended-by-hand", "kubectl-patch", `{"spec":{"suspend":true}}`)
	if err := stage.Cluster.Notice(t.Context(), interruptedNode, time.Now().Add(demo.DefaultNotice), "terminate"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "a workflow to be suspended", func() bool { return a.state("shut-down").Ours })
	a.patch("shut-down", "argo", `{"spec":{"shutdown":"Terminate"}}`)

	t.Run("a shutdown takes effect, since the suspension is lifted", func(t *testing.T) {
		t.Parallel()
		a := &argo{t: t, workflows: a.workflows}
		a.awaitPhase("shut-down", "Failed", "Error") // as Argo finds the stopped pod
		if s := a.state("shut-down"); s.Suspended || s.Ours {
			t.Errorf("still suspended: %+v", s)
		}
		a.assertEvent("shut-down", workflow.ReasonLeftShuttingDown, "the workflow is being shut down (Terminate): no longer suspended")
	})
	t.Run("an approval gate waits for its person, while the interrupted sweep goes on elsewhere", func(t *testing.T) {
		t.Parallel()
		a := &argo{t: t, workflows: a.workflows}
		a.assertEvent("with-a-gate", workflow.ReasonResumed, "Still waiting for a person: approve")
		run := a.run("with-a-gate", 1)
		a.assertMeasuredOnce(run, 1, requests)
		if len(run.Nodes) != 2 || run.Nodes[0] != interruptedNode {
			t.Errorf("measured on %v, want it begun on %s and finished on another node", run.Nodes, interruptedNode)
		}
		if s := a.state("with-a-gate"); len(s.Gates) != 1 || s.Finished {
			t.Fatalf("the gate was opened: %+v", s)
		}
		nodes, _, _ := unstructured.NestedMap(a.get("with-a-gate").Object, "status", "nodes")
		for id, n := range nodes {
			if n.(map[string]any)["type"] == "Suspend" {
				a.patch("with-a-gate", "argo", `{"status":{"nodes":{"`+id+`":{"phase":"Succeeded"}}}}`)
			}
		}
		a.awaitPhase("with-a-gate", "Succeeded")
	})
	t.Run("what a person suspended stays suspended until they resume it, and goes on then", func(t *testing.T) {
		t.Parallel()
		a := &argo{t: t, workflows: a.workflows}
		a.assertEvent("suspended-by-hand", workflow.ReasonLeftSuspended, "kubectl-patch suspended this workflow, so it stays suspended")
		if s := a.state("suspended-by-hand"); !s.Suspended || s.Ours || len(s.Holds) > 0 {
			t.Fatalf("state %+v, want it suspended and not ours", s)
		}
		a.patch("suspended-by-hand", "kubectl-patch", `{"spec":{"suspend":null}}`)
		a.awaitPhase("suspended-by-hand", "Succeeded")
		run := a.run("suspended-by-hand", 1)
		a.assertMeasuredOnce(run, 1, requests)
		if len(run.Nodes) != 2 || run.Nodes[0] != interruptedNode {
			t.Errorf("measured on %v, want it begun on %s and finished on another node", run.Nodes, interruptedNode)
		}
	})
	t.Run("a pod that nothing starts again may run on, and finishes in time", func(t *testing.T) {
		t.Parallel()
		a := &argo{t: t, workflows: a.workflows}
		a.assertEvent("without-retry", workflow.ReasonNotRetried, "its template has no retryStrategy")
		a.awaitPhase("without-retry", "Succeeded")
		run := a.run("without-retry", 1)
		a.assertMeasuredOnce(run, 1, requests)
		if !slices.Equal(run.Nodes, []string{interruptedNode}) {
			t.Errorf("measured on %v, want %s alone", run.Nodes, interruptedNode)
		}
	})
}
