// SPDX-License-Identifier: Apache-2.0

package workflow_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/spotbench/spotbench/pkg/workflow"
)

var noticeAt = time.Date(2026, 11, 26, 5, 0, 0, 0, time.UTC)

func hold(notice string, window int64, pods ...string) workflow.Hold {
	return workflow.Hold{By: workflow.FieldManager, Notice: notice, NoticeAt: noticeAt, WindowSeconds: window, Pods: pods}
}

func released(h workflow.Hold) workflow.Hold {
	h.Released = true
	return h
}

// retried is a pod whose step Argo starts again.
func retried(name string) workflow.Pod {
	return workflow.Pod{Name: name, Run: "gpu-workloads/" + name, Retry: &workflow.Retry{Policy: "Always"}}
}

func interruption(pods ...workflow.Pod) workflow.Interruption {
	return workflow.Interruption{Node: "h100-spot-0", Notice: "n-1", NoticeAt: noticeAt, Window: 2 * time.Minute, Pods: pods}
}

// change is an Action's change in short: what it does to spec.suspend, the label and
// the holds.
func change(c *workflow.Change) string {
	if c == nil {
		return "none"
	}
	var parts []string
	for what, set := range map[string]*bool{"suspend": c.Suspend, "label": c.Label} {
		if set != nil {
			parts = append(parts, map[bool]string{true: "+", false: "-"}[*set]+what)
		}
	}
	for node, h := range c.Holds {
		text := "+" + node + "=" + h.Notice
		if h.Released {
			text += " released"
		}
		parts = append(parts, text)
	}
	for _, node := range c.Remove {
		parts = append(parts, "-"+node)
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

func TestWhatANoticeMeansForAWorkflow(t *testing.T) {
	ours := func(holds map[string]workflow.Hold) workflow.State {
		return workflow.State{Suspended: true, Ours: true, Holds: holds}
	}
	tests := map[string]struct {
		state   workflow.State
		pods    []workflow.Pod
		change  string
		retried []string
		event   string // "Type Reason: text"
	}{
		"a workflow that runs is suspended, with a hold of the node's": {
			pods: []workflow.Pod{retried("sweep-1")}, retried: []string{"sweep-1"},
			change: "+h100-spot-0=n-1, +label, +suspend",
			event: "Normal SuspendedForInterruption: the interruption of node h100-spot-0: suspended until pod sweep-1 is saved and stopped; Spotbench resumes it then. " +
				"To keep it suspended, remove its label spotbench.dev/suspended",
		},
		"two pods are counted": {
			pods: []workflow.Pod{retried("a"), retried("b")}, retried: []string{"a", "b"},
			change: "+h100-spot-0=n-1, +label, +suspend",
			event: "Normal SuspendedForInterruption: the interruption of node h100-spot-0: suspended until 2 pods are saved and stopped; Spotbench resumes it then. " +
				"To keep it suspended, remove its label spotbench.dev/suspended",
		},
		"one that another node's notice has suspended gets a second hold": {
			state: ours(map[string]workflow.Hold{"a100-spot-0": hold("n-0", 120, "x")}), pods: []workflow.Pod{retried("sweep-1")}, retried: []string{"sweep-1"},
			change: "+h100-spot-0=n-1, +label, +suspend",
			event: "Normal SuspendedForInterruption: the interruption of node h100-spot-0: suspended until pod sweep-1 is saved and stopped; Spotbench resumes it then. " +
				"To keep it suspended, remove its label spotbench.dev/suspended",
		},
		"an agent that was started again finds its hold and changes nothing": {
			state: ours(map[string]workflow.Hold{"h100-spot-0": hold("n-1", 120, "sweep-1")}), pods: []workflow.Pod{retried("sweep-1")}, retried: []string{"sweep-1"}, change: "none",
		},
		"a later notice does not replace the hold of one that takes the machine sooner": {
			state: ours(map[string]workflow.Hold{"h100-spot-0": hold("n-0", 60, "sweep-1")}), pods: []workflow.Pod{retried("sweep-1")}, retried: []string{"sweep-1"}, change: "none",
		},
		"a notice that takes the machine sooner does": {
			state: ours(map[string]workflow.Hold{"h100-spot-0": hold("n-0", 600, "sweep-1")}), pods: []workflow.Pod{retried("sweep-1")}, retried: []string{"sweep-1"},
			change: "+h100-spot-0=n-1, +label, +suspend",
			event: "Normal SuspendedForInterruption: the interruption of node h100-spot-0: suspended until pod sweep-1 is saved and stopped; Spotbench resumes it then. " +
				"To keep it suspended, remove its label spotbench.dev/suspended",
		},
		"one that a person resumed in spite of this notice is not suspended again": {
			state: workflow.State{Ours: true, Holds: map[string]workflow.Hold{"h100-spot-0": hold("n-1", 120, "sweep-1")}}, pods: []workflow.Pod{retried("sweep-1")},
			retried: []string{"sweep-1"}, change: "none",
		},
		"one that a person suspended stays theirs": {
			state: workflow.State{Suspended: true, Others: []string{"argo"}}, pods: []workflow.Pod{retried("sweep-1")}, retried: []string{"sweep-1"}, change: "none",
			event: "Normal LeftSuspended: the interruption of node h100-spot-0: argo suspended this workflow, so it stays suspended. pod sweep-1 is saved and stopped, " +
				"and retried elsewhere when the workflow is resumed",
		},
		"one that was made suspended stays so": {
			state: workflow.State{Suspended: true}, pods: []workflow.Pod{retried("sweep-1")}, retried: []string{"sweep-1"}, change: "none",
			event: "Normal LeftSuspended: the interruption of node h100-spot-0: somebody else suspended this workflow, so it stays suspended. pod sweep-1 is saved and stopped, " +
				"and retried elsewhere when the workflow is resumed",
		},
		"one that a person suspended after we had becomes theirs": {
			state: workflow.State{Suspended: true, Ours: true, Others: []string{"kubectl"}, Holds: map[string]workflow.Hold{"a100-spot-0": hold("n-0", 120)}},
			pods:  []workflow.Pod{retried("sweep-1")}, retried: []string{"sweep-1"}, change: "none",
			event: "Normal LeftSuspended: the interruption of node h100-spot-0: kubectl suspended this workflow, so it stays suspended. pod sweep-1 is saved and stopped, " +
				"and retried elsewhere when the workflow is resumed",
		},
		"one that is being stopped is not suspended, because Argo would not stop it then": {
			state: workflow.State{Shutdown: "Stop"}, pods: []workflow.Pod{retried("sweep-1")}, retried: []string{"sweep-1"}, change: "none",
			event: "Normal LeftShuttingDown: the interruption of node h100-spot-0: not suspended, since the workflow is being shut down (Stop) and a suspended one would not be",
		},
		"one that has finished is left alone": {state: workflow.State{Finished: true}, pods: []workflow.Pod{retried("sweep-1")}, change: "none"},
		"a step without retryStrategy fails with its pod: nothing is suspended, and the event says what to change": {
			pods: []workflow.Pod{{Name: "sweep-1", Run: "gpu-workloads/nightly-7", Attempt: -1}}, change: "none",
			event: `Warning InterruptedStepNotRetried: the interruption of node h100-spot-0 stops pod sweep-1 for good: its template has no retryStrategy, so the workflow fails when the pod is deleted. ` +
				`Add retryStrategy: {limit: "10", retryPolicy: Always}. The pod is checkpointed now and may run as long as its node does. ` +
				`If that is too short, its run gpu-workloads/nightly-7 goes on where it was in a new pod with the annotation spotbench.dev/run: nightly-7`,
		},
		"beside a pod that is retried, the workflow is suspended for that one": {
			pods: []workflow.Pod{{Name: "sweep-1", Run: "gpu-workloads/nightly-7", Attempt: -1}, retried("sweep-2")}, retried: []string{"sweep-2"},
			change: "+h100-spot-0=n-1, +label, +suspend",
			event:  "Warning InterruptedStepNotRetried: the interruption of node h100-spot-0 stops pod sweep-1 for good",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := workflow.Suspend(tt.state, interruption(tt.pods...))
			if change(got.Change) != tt.change {
				t.Errorf("change %q, want %q", change(got.Change), tt.change)
			}
			if diff := cmp.Diff(tt.retried, got.Retried); diff != "" {
				t.Errorf("retried differs (-want +got):\n%s", diff)
			}
			assertEvent(t, got.Events, tt.event)
		})
	}
}

// assertEvent wants the first event to begin with want, and none where want is empty.
func assertEvent(t *testing.T, events []workflow.Event, want string) {
	t.Helper()
	got := ""
	if len(events) > 0 {
		got = events[0].Type + " " + events[0].Reason + ": " + events[0].Message
	}
	if !strings.HasPrefix(got, want) || want == "" && got != "" {
		t.Errorf("event\n%q, want\n%q", got, want)
	}
}

func TestWhichInterruptedStepsArgoStartsAgain(t *testing.T) {
	limit := func(s string) *intstr.IntOrString { v := intstr.Parse(s); return &v }
	always := &workflow.Retry{Policy: "Always"}
	tests := map[string]struct {
		pod     workflow.Pod
		own     *workflow.Retry // of the workflow
		problem string          // part of the event; "" if the step is started again
	}{
		"retryPolicy Always covers every end":                  {pod: workflow.Pod{Retry: always}},
		"an expression without a policy means Always":          {pod: workflow.Pod{Retry: &workflow.Retry{Expression: "asInt(retries) < 5"}}},
		"the template's strategy counts before the workflow's": {pod: workflow.Pod{Retry: always}, own: &workflow.Retry{Policy: "OnError"}},
		"the workflow's counts where the template has none":    {pod: workflow.Pod{}, own: &workflow.Retry{Policy: "OnError"}, problem: "its retryPolicy is OnError, which does not cover every way in which an interrupted pod ends. Set retryPolicy: Always"},
		"an attempt whose strategy cannot be read is believed": {pod: workflow.Pod{}},
		"Argo's default does not cover a deleted pod":          {pod: workflow.Pod{Retry: &workflow.Retry{}}, problem: "its retryPolicy is OnFailure, Argo's default, which"},
		"a policy counts before the expression":                {pod: workflow.Pod{Retry: &workflow.Retry{Policy: "OnTransientError", Expression: "true"}}, problem: "OnTransientError"},
		"the last attempt has no next":                         {pod: workflow.Pod{Attempt: 2, Retry: &workflow.Retry{Policy: "Always", Limit: limit("2")}}, problem: "it is the last attempt that its retryStrategy allows (limit 2). Raise the limit"},
		"the last but one has":                                 {pod: workflow.Pod{Attempt: 1, Retry: &workflow.Retry{Policy: "Always", Limit: limit("2")}}},
		"a limit that is a parameter is believed":              {pod: workflow.Pod{Attempt: 9, Retry: &workflow.Retry{Policy: "Always", Limit: limit("{{x}}")}}},
		"no retryStrategy at all":                              {pod: workflow.Pod{Attempt: -1}, own: always, problem: "its template has no retryStrategy"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.pod.Name = "p"
			got := workflow.Suspend(workflow.State{Retry: tt.own}, interruption(tt.pod))
			if again := len(got.Retried) == 1; again != (tt.problem == "") {
				t.Fatalf("started again: %t", again)
			}
			if tt.problem != "" && !strings.Contains(got.Events[0].Message, tt.problem) {
				t.Errorf("the event does not say %q: %s", tt.problem, got.Events[0].Message)
			}
		})
	}
}

func TestReleaseEndsTheHoldOfItsOwnNoticeOnly(t *testing.T) {
	tests := map[string]struct {
		state  workflow.State
		notice string
		change string
	}{
		"the node's hold of that notice is released": {
			state: workflow.State{Ours: true, Holds: map[string]workflow.Hold{"h100-spot-0": hold("n-1", 120, "a", "b")}}, notice: "n-1", change: "+h100-spot-0=n-1 released"},
		"that of another notice, which took its place, is not": {
			state: workflow.State{Ours: true, Holds: map[string]workflow.Hold{"h100-spot-0": hold("n-2", 30, "a")}}, notice: "n-1", change: "none"},
		"nor is it released twice": {
			state: workflow.State{Ours: true, Holds: map[string]workflow.Hold{"h100-spot-0": released(hold("n-1", 120, "a"))}}, notice: "n-1", change: "none"},
		"another node's hold is not ours to release": {
			state: workflow.State{Ours: true, Holds: map[string]workflow.Hold{"a100-spot-0": hold("n-1", 120, "a")}}, notice: "n-1", change: "none"},
		"one on a workflow that is no longer ours is removed": {
			state: workflow.State{Holds: map[string]workflow.Hold{"h100-spot-0": hold("n-1", 120, "a")}}, notice: "n-1", change: "-h100-spot-0"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := workflow.Release(tt.state, "h100-spot-0", tt.notice, []string{"a"})
			if change(got.Change) != tt.change || len(got.Events) != 0 {
				t.Errorf("change %q and events %v, want %q and none", change(got.Change), got.Events, tt.change)
			}
			if got.Change != nil && len(got.Change.Holds) == 1 && !cmp.Equal(got.Change.Holds["h100-spot-0"].Pods, []string{"a"}) {
				t.Errorf("pods %v, want those that go", got.Change.Holds["h100-spot-0"].Pods)
			}
		})
	}
}

func TestWhenAWorkflowIsResumed(t *testing.T) {
	const a, b = "a100-spot-0", "h100-spot-0"
	ours := func(holds map[string]workflow.Hold) workflow.State {
		return workflow.State{Suspended: true, Ours: true, Holds: holds}
	}
	tests := map[string]struct {
		state   workflow.State
		present []string      // pods that are still there
		seen    time.Duration // how long every hold has been known
		change  string
		event   string
	}{
		"every hold is released and its pods are gone": {
			state:  ours(map[string]workflow.Hold{a: released(hold("n-1", 120, "p")), b: released(hold("n-2", 120, "q", "r"))}),
			change: "-a100-spot-0, -h100-spot-0, -label, -suspend",
			event:  "Normal ResumedAfterInterruption: resumed: 3 pods have left a100-spot-0, h100-spot-0, saved as far as it could be and recorded",
		},
		"an approval gate goes on waiting for its person": {
			state:  workflow.State{Suspended: true, Ours: true, Gates: []string{"approve"}, Holds: map[string]workflow.Hold{a: released(hold("n-1", 120, "p"))}},
			change: "-a100-spot-0, -label, -suspend",
			event:  "Normal ResumedAfterInterruption: resumed: 1 pod has left a100-spot-0, saved as far as it could be and recorded. Still waiting for a person: approve",
		},
		"a pod is not gone yet": {state: ours(map[string]workflow.Hold{a: released(hold("n-1", 120, "p"))}), present: []string{a + "/p"}, change: "none"},
		"a pod of that name on another node does not count": {
			state: ours(map[string]workflow.Hold{a: released(hold("n-1", 120, "p"))}), present: []string{b + "/p"}, change: "-a100-spot-0, -label, -suspend"},
		"one node is done and the other is not": {
			state: ours(map[string]workflow.Hold{a: released(hold("n-1", 120, "p")), b: hold("n-2", 120, "q")}), seen: 2*time.Minute + 29*time.Second, change: "none"},
		"the other's agent is given up 30 s after its machine's end": {
			state: ours(map[string]workflow.Hold{a: released(hold("n-1", 120, "p")), b: hold("n-2", 120, "q")}), seen: 2*time.Minute + 30*time.Second,
			change: "-a100-spot-0, -h100-spot-0, -label, -suspend",
			event: "Warning ResumedAfterInterruption: resumed: 1 pod has left a100-spot-0, saved as far as it could be and recorded; " +
				"the agent of h100-spot-0 has not reported in 30s since its machine's end, so its pods go on from their last whole checkpoints",
		},
		"a pod that stays though its machine's end is past keeps nothing back": {
			state: ours(map[string]workflow.Hold{a: released(hold("n-1", 120, "p"))}), present: []string{a + "/p"}, seen: 150 * time.Second, change: "-a100-spot-0, -label, -suspend",
			event: "Warning ResumedAfterInterruption: resumed: pods of a100-spot-0 are still there 30s after its machine's end"},
		"the notice was withdrawn": {
			state: ours(map[string]workflow.Hold{a: released(hold("n-1", 120))}), change: "-a100-spot-0, -label, -suspend",
			event: "Normal ResumedAfterInterruption: resumed: the notice to a100-spot-0 was withdrawn or had nothing left to stop"},
		"a hold that somebody has garbled is given up after the grace": {
			state: ours(map[string]workflow.Hold{a: {}}), seen: 30 * time.Second, change: "-a100-spot-0, -label, -suspend", event: "Warning ResumedAfterInterruption: "},
		"a person suspended it too": {
			state:  workflow.State{Suspended: true, Ours: true, Others: []string{"kubectl-patch"}, Holds: map[string]workflow.Hold{a: released(hold("n-1", 120))}},
			change: "-a100-spot-0, -label",
			event:  "Normal LeftSuspended: kubectl-patch suspended this workflow too, or changed its spec meanwhile, so it stays suspended until it is resumed by hand"},
		"a person resumed it": {
			state: workflow.State{Ours: true, Holds: map[string]workflow.Hold{a: hold("n-1", 120, "p")}}, change: "-a100-spot-0, -label",
			event: "Normal LeftResumed: resumed by somebody else before the interrupted pods were saved and gone; Spotbench leaves it running"},
		"a person took our annotations away": {
			state: ours(nil), change: "-label", event: "Normal LeftSuspended: its annotations interruption.spotbench.dev/* were removed, so it stays suspended until it is resumed by hand"},
		"a person took our label away": {state: workflow.State{Suspended: true, Holds: map[string]workflow.Hold{a: released(hold("n-1", 120))}}, change: "none"},
		"a person stops it, which takes no effect while it is suspended": {
			state:  workflow.State{Suspended: true, Ours: true, Shutdown: "Terminate", Others: []string{"argo"}, Holds: map[string]workflow.Hold{a: hold("n-1", 120, "p")}},
			change: "-a100-spot-0, -label, -suspend",
			event:  "Normal LeftShuttingDown: the workflow is being shut down (Terminate): no longer suspended, since a suspended one would not be"},
		"it has finished: nothing is left behind": {
			state: workflow.State{Suspended: true, Ours: true, Finished: true, Holds: map[string]workflow.Hold{a: hold("n-1", 120, "p")}}, change: "-a100-spot-0, -label, -suspend"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := workflow.Resume(tt.state, workflow.Observation{
				Present: func(node, pod string) bool { return slices.Contains(tt.present, node+"/"+pod) },
				Seen:    func(string, workflow.Hold) time.Duration { return tt.seen },
			})
			if change(got.Change) != tt.change {
				t.Errorf("change %q, want %q", change(got.Change), tt.change)
			}
			if tt.event != "" || got.Change == nil {
				assertEvent(t, got.Events, tt.event)
			}
		})
	}
}

func TestAPatchHoldsForTheWorkflowThatWasRead(t *testing.T) {
	state := workflow.State{ResourceVersion: "42", Holds: map[string]workflow.Hold{}}
	suspended := workflow.Suspend(state, interruption(retried("p")))
	resumed := workflow.Resume(workflow.State{ResourceVersion: "43", Suspended: true, Ours: true, Holds: map[string]workflow.Hold{"n": released(hold("n-1", 1))}},
		workflow.Observation{Present: func(string, string) bool { return false }, Seen: func(string, workflow.Hold) time.Duration { return 0 }})
	for name, tt := range map[string]struct {
		change *workflow.Change
		state  workflow.State
		want   string
	}{
		"to suspend": {suspended.Change, state, `{"metadata":{"annotations":{"interruption.spotbench.dev/h100-spot-0":` +
			`"{\"by\":\"spotbench-node-agent\",\"notice\":\"n-1\",\"noticeAt\":\"2026-11-26T05:00:00Z\",\"windowSeconds\":120,\"pods\":[\"p\"]}"},` +
			`"labels":{"spotbench.dev/suspended":"interruption"},"resourceVersion":"42"},"spec":{"suspend":true}}`},
		"to resume": {resumed.Change, workflow.State{ResourceVersion: "43"},
			`{"metadata":{"annotations":{"interruption.spotbench.dev/n":null},"labels":{"spotbench.dev/suspended":null},"resourceVersion":"43"},"spec":{"suspend":null}}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tt.change.Patch(tt.state)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("patch differs (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzParseHold(f *testing.F) {
	f.Add(`{"by":"spotbench-node-agent","notice":"n-1","noticeAt":"2026-11-26T05:00:00Z","windowSeconds":120,"pods":["p"]}`)
	f.Add(`{"notice":"n","windowSeconds":-1}`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, text string) {
		h, err := workflow.ParseHold(text)
		if err != nil {
			return
		}
		if h.Notice == "" || h.WindowSeconds < 0 || h.WindowSeconds > 86400 {
			t.Errorf("accepted %+v", h)
		}
		again, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := workflow.ParseHold(string(again)); err != nil || !cmp.Equal(h, back) {
			t.Errorf("%+v does not survive: %+v, %v", h, back, err)
		}
	})
}
