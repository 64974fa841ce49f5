// SPDX-License-Identifier: Apache-2.0

package workflow

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/spotbench/spotbench/pkg/benchspec"
)

// Reasons of the events on a Workflow.
const (
	ReasonSuspended        = "SuspendedForInterruption"
	ReasonResumed          = "ResumedAfterInterruption"
	ReasonLeftSuspended    = "LeftSuspended"
	ReasonLeftShuttingDown = "LeftShuttingDown"
	ReasonLeftResumed      = "LeftResumed"
	ReasonNotRetried       = "InterruptedStepNotRetried"
)

// GiveUpAfter is how long after the end of its machine a hold that its agent has not
// released is waited for. The agent itself stops a second after that end.
const GiveUpAfter = 30 * time.Second

// Interruption is what a notice means for one workflow: which of its pods on the
// node are interrupted.
type Interruption struct {
	Node     string
	Notice   string
	NoticeAt time.Time
	// Window is the time from the notice to the end of the machine.
	Window time.Duration
	Pods   []Pod
}

// Action is a decision: what to change, and what to say about it once it is changed.
// The zero Action changes nothing and says nothing.
type Action struct {
	// Retried are the interrupted pods whose steps Argo starts again.
	Retried []string
	// Change is the change of the Workflow; nil for none.
	Change *Change
	Events []Event
}

// Change of a Workflow. It holds only for the Workflow that it was decided on.
type Change struct {
	// Suspend sets spec.suspend where it is not nil: true, or false to remove it.
	Suspend *bool
	// Label sets our label where it is not nil: true, or false to remove it.
	Label *bool
	// Holds to write by node.
	Holds map[string]Hold
	// Remove are the nodes whose holds are removed.
	Remove []string
}

// Event about a Workflow.
type Event struct {
	// Type is Normal or Warning.
	Type, Reason, Message string
}

func normal(reason, format string, args ...any) Event {
	return Event{Type: corev1.EventTypeNormal, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

func warning(reason, format string, args ...any) Event {
	return Event{Type: corev1.EventTypeWarning, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Suspend decides what a notice to a node means for the workflow of some of its pods.
func Suspend(s State, i Interruption) Action {
	if s.Finished {
		return Action{}
	}
	var a Action
	var retried []string
	for _, pod := range i.Pods {
		problem := pod.problem(s.Retry)
		if problem == "" {
			retried = append(retried, pod.Name)
			continue
		}
		a.Events = append(a.Events, warning(ReasonNotRetried, "%s stops pod %s for good: %s. The pod is checkpointed now and may run as long as its node does. "+
			"If that is too short, its run %s goes on where it was in a new pod with the annotation %s: %s",
			interruptionOf(i.Node), pod.Name, problem, pod.Run, benchspec.AnnotationRun, path.Base(pod.Run)))
	}
	a.Retried = retried
	switch {
	case len(retried) == 0:
		// Nothing would be started again that must be held back.
	case s.Shutdown != "":
		a.Events = append(a.Events, normal(ReasonLeftShuttingDown, "%s: not suspended, since the workflow is being shut down (%s) and a suspended one would not be",
			interruptionOf(i.Node), s.Shutdown))
	case s.Suspended && (!s.Ours || len(s.Others) > 0):
		a.Events = append(a.Events, normal(ReasonLeftSuspended, "%s: %s suspended this workflow, so it stays suspended. %s saved and stopped, "+
			"and retried elsewhere when the workflow is resumed", interruptionOf(i.Node), by(s.Others), counted(retried)))
	default:
		hold := Hold{By: FieldManager, Notice: i.Notice, NoticeAt: i.NoticeAt, WindowSeconds: int64(min(longestWindow, max(0, i.Window)).Round(time.Second) / time.Second), Pods: retried}
		before, held := s.Holds[i.Node]
		switch {
		case held && before.Notice == i.Notice && !s.Suspended:
			return a // a person has resumed it in spite of this notice
		case held && !before.Released && s.Suspended && !before.ends().After(hold.ends()):
			return a // held already, until the end of a notice that is as soon
		}
		yes := true
		a.Change = &Change{Suspend: &yes, Label: &yes, Holds: map[string]Hold{i.Node: hold}}
		a.Events = append(a.Events, normal(ReasonSuspended, "%s: suspended until %s saved and stopped; Spotbench resumes it then. To keep it suspended, remove its label %s",
			interruptionOf(i.Node), counted(retried), Label))
	}
	return a
}

// Release decides what is left to do when the node's agent has done what the notice
// asked for. gone are the pods that go; the others stay, because the notice was
// withdrawn in time.
func Release(s State, node, notice string, gone []string) Action {
	hold, held := s.Holds[node]
	if !held || hold.Notice != notice || hold.Released {
		return Action{}
	}
	if !s.Ours {
		return Action{Change: &Change{Remove: []string{node}}} // no longer ours to resume
	}
	hold.Released, hold.Pods = true, gone
	return Action{Change: &Change{Holds: map[string]Hold{node: hold}}}
}

// Observation is what the leader knows beside the Workflow itself.
type Observation struct {
	// Present says whether a pod of that name is still on the node, not ended.
	Present func(node, pod string) bool
	// Seen is how long this agent has known of the node's hold, by its own clock.
	Seen func(node string, hold Hold) time.Duration
}

// Resume decides whether a workflow that we suspended is resumed now.
func Resume(s State, o Observation) Action {
	if !s.Ours {
		return Action{}
	}
	no := false
	// Whatever is decided below but to wait, nothing of ours is left on the workflow.
	clean := func(resume bool, events ...Event) Action {
		a := Action{Change: &Change{Label: &no, Remove: slices.Sorted(maps.Keys(s.Holds))}, Events: events}
		if resume {
			a.Change.Suspend = &no
		}
		return a
	}
	switch {
	case s.Finished:
		// A suspension that is left would keep `argo retry` from running anything.
		return clean(s.Suspended && len(s.Others) == 0)
	case !s.Suspended:
		return clean(false, normal(ReasonLeftResumed, "resumed by somebody else before the interrupted pods were saved and gone; Spotbench leaves it running"))
	case len(s.Holds) == 0:
		return clean(false, normal(ReasonLeftSuspended, "its annotations %s* were removed, so it stays suspended until it is resumed by hand", AnnotationPrefix))
	case s.Shutdown != "":
		return clean(true, normal(ReasonLeftShuttingDown, "the workflow is being shut down (%s): no longer suspended, since a suspended one would not be", s.Shutdown))
	case len(s.Others) > 0:
		return clean(false, normal(ReasonLeftSuspended, "%s suspended this workflow too, or changed its spec meanwhile, so it stays suspended until it is resumed by hand", by(s.Others)))
	}
	var left departures
	for _, node := range slices.Sorted(maps.Keys(s.Holds)) {
		hold := s.Holds[node]
		gone := !slices.ContainsFunc(hold.Pods, func(pod string) bool { return o.Present(node, pod) })
		overdue := o.Seen(node, hold) >= hold.window()+GiveUpAfter
		switch {
		case hold.Released && gone:
			left.pods += len(hold.Pods)
			left.nodes = append(left.nodes, node)
		case hold.Released && overdue:
			left.stuck = append(left.stuck, node)
		case overdue:
			left.lost = append(left.lost, node)
		default:
			return Action{}
		}
	}
	return clean(true, resumed(s, left))
}

// departures are how the holds of a workflow ended.
type departures struct {
	pods  int      // that are gone
	nodes []string // whose holds were released, and whose pods are gone
	stuck []string // whose holds were released, but whose pods are still there
	lost  []string // whose agents have not reported
}

// resumed says what was waited for.
func resumed(s State, left departures) Event {
	var parts []string
	switch {
	case left.pods > 0:
		parts = append(parts, fmt.Sprintf("%s left %s, saved as far as it could be and recorded", plural(left.pods, "pod has", "pods have"), strings.Join(left.nodes, ", ")))
	case len(left.nodes) > 0:
		parts = append(parts, fmt.Sprintf("the notice to %s was withdrawn or had nothing left to stop", strings.Join(left.nodes, ", ")))
	}
	if len(left.stuck) > 0 {
		parts = append(parts, fmt.Sprintf("pods of %s are still there %s after its machine's end", strings.Join(left.stuck, ", "), GiveUpAfter))
	}
	if len(left.lost) > 0 {
		parts = append(parts, fmt.Sprintf("the agent of %s has not reported in %s since its machine's end, so its pods go on from their last whole checkpoints", strings.Join(left.lost, ", "), GiveUpAfter))
	}
	text := "resumed: " + strings.Join(parts, "; ")
	if len(s.Gates) > 0 {
		text += ". Still waiting for a person: " + strings.Join(s.Gates, ", ")
	}
	if len(left.stuck)+len(left.lost) > 0 {
		return warning(ReasonResumed, "%s", text)
	}
	return normal(ReasonResumed, "%s", text)
}

func interruptionOf(node string) string { return "the interruption of node " + node }

func by(managers []string) string {
	if len(managers) == 0 {
		return "somebody else"
	}
	return strings.Join(managers, ", ")
}

func counted(pods []string) string {
	if len(pods) == 1 {
		return "pod " + pods[0] + " is"
	}
	return fmt.Sprintf("%d pods are", len(pods))
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Patch is the change as a JSON merge patch that the API server refuses if anybody
// has changed the Workflow since it was read.
func (c *Change) Patch(s State) ([]byte, error) {
	annotations := map[string]any{}
	for node, hold := range c.Holds {
		value, err := hold.value()
		if err != nil {
			return nil, err
		}
		annotations[annotation(node)] = value
	}
	for _, node := range c.Remove {
		annotations[annotation(node)] = nil
	}
	metadata := map[string]any{"resourceVersion": s.ResourceVersion, "annotations": annotations}
	if c.Label != nil {
		metadata["labels"] = map[string]any{Label: nil}
		if *c.Label {
			metadata["labels"] = map[string]any{Label: LabelValue}
		}
	}
	patch := map[string]any{"metadata": metadata}
	if c.Suspend != nil {
		// To remove it is what Argo does to resume; false would mean the same.
		patch["spec"] = map[string]any{"suspend": nil}
		if *c.Suspend {
			patch["spec"] = map[string]any{"suspend": true}
		}
	}
	return json.Marshal(patch)
}
