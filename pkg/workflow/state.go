// SPDX-License-Identifier: Apache-2.0

package workflow

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Resource is Argo's Workflow.
var Resource = schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "workflows"}

// FieldManager is the name under which the agents of all nodes write to workflows.
const FieldManager = "spotbench-node-agent"

// argoController is the field manager of Argo's own controller.
const argoController = "workflow-controller"

// labelCompleted is Argo's label on workflows that have ended.
const labelCompleted = "workflows.argoproj.io/completed"

// State is what the decisions need to know of a Workflow.
type State struct {
	Namespace, Name string
	UID             types.UID
	// ResourceVersion of the Workflow as it was read.
	ResourceVersion string
	// Finished workflows run nothing any more.
	Finished bool
	// Shutdown is spec.shutdown: "Stop", "Terminate", or empty.
	Shutdown string
	// Suspended is spec.suspend.
	Suspended bool
	// Ours says that the label of our suspension is on it.
	Ours bool
	// Others are the field managers besides ours that own spec.suspend: once we have
	// set it, who has set it again or has changed the spec.
	Others []string
	// Holds are the nodes' holds by node. One that cannot be read has no notice.
	Holds map[string]Hold
	// Retry is the workflow's own retryStrategy, for templates without one.
	Retry *Retry
	// Gates are the display names of the suspend nodes that wait for a person. They
	// are unknown where Argo keeps the nodes' states compressed or in its database.
	Gates []string
}

// Read takes the state out of a Workflow.
func Read(w *unstructured.Unstructured) (State, error) {
	s := State{Namespace: w.GetNamespace(), Name: w.GetName(), UID: w.GetUID(), ResourceVersion: w.GetResourceVersion(), Holds: map[string]Hold{}}
	var err error
	if s.Suspended, _, err = unstructured.NestedBool(w.Object, "spec", "suspend"); err != nil {
		return State{}, fmt.Errorf("workflow %s/%s: %w", s.Namespace, s.Name, err)
	}
	if s.Shutdown, _, err = unstructured.NestedString(w.Object, "spec", "shutdown"); err != nil {
		return State{}, fmt.Errorf("workflow %s/%s: %w", s.Namespace, s.Name, err)
	}
	phase, _, err := unstructured.NestedString(w.Object, "status", "phase")
	if err != nil {
		return State{}, fmt.Errorf("workflow %s/%s: %w", s.Namespace, s.Name, err)
	}
	labels := w.GetLabels()
	s.Finished = labels[labelCompleted] == "true" || phase == "Succeeded" || phase == "Failed" || phase == "Error"
	_, s.Ours = labels[Label]
	for name, value := range w.GetAnnotations() {
		if node, ok := strings.CutPrefix(name, AnnotationPrefix); ok {
			s.Holds[node], _ = ParseHold(value) // one without a notice is waited for like one whose agent is gone
		}
	}
	s.Others = owners(w)
	s.Retry = retry(w)
	s.Gates = gates(w)
	return s, nil
}

// owners are the field managers other than ours that have written spec.suspend last.
// Where the CRD makes spec one atomic field, as Argo's minimal CRDs do, they are those
// that have changed anything in it since. Argo's controller suspends nothing.
func owners(w *unstructured.Unstructured) []string {
	managers := map[string]bool{}
	for _, entry := range w.GetManagedFields() {
		if entry.Manager == FieldManager || entry.Manager == argoController || entry.FieldsV1 == nil {
			continue
		}
		var fields struct {
			Spec map[string]json.RawMessage `json:"f:spec"`
		}
		if json.Unmarshal(entry.FieldsV1.Raw, &fields) != nil || fields.Spec == nil {
			continue
		}
		if _, found := fields.Spec["f:suspend"]; found || len(fields.Spec) == 0 {
			managers[entry.Manager] = true
		}
	}
	return slices.Sorted(maps.Keys(managers))
}

// retry is the strategy of the workflow, or of the WorkflowTemplate it is made from.
func retry(w *unstructured.Unstructured) *Retry {
	for _, path := range [][]string{{"spec", "retryStrategy"}, {"status", "storedWorkflowTemplateSpec", "retryStrategy"}} {
		field, found, err := unstructured.NestedMap(w.Object, path...)
		if err != nil || !found {
			continue
		}
		var r Retry
		if runtime.DefaultUnstructuredConverter.FromUnstructured(field, &r) == nil {
			return &r
		}
	}
	return nil
}

// gates are the suspend nodes that wait.
func gates(w *unstructured.Unstructured) []string {
	field, _, _ := unstructured.NestedFieldNoCopy(w.Object, "status", "nodes")
	nodes, _ := field.(map[string]any) // absent or compressed: none that can be seen
	var waiting []string
	for _, node := range nodes {
		n, ok := node.(map[string]any)
		if !ok || n["type"] != "Suspend" || n["phase"] != "Running" {
			continue
		}
		if name, ok := n["displayName"].(string); ok {
			waiting = append(waiting, name)
		}
	}
	slices.Sort(waiting)
	return waiting
}
