// SPDX-License-Identifier: Apache-2.0

package workflow_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/workflow"
)

// world is a workflow with pods on three nodes, and everybody who acts on it. Time is
// a counter of seconds; every write is refused if somebody has written since the read.
type world struct {
	t *rapid.T

	state   workflow.State
	version int
	now     int
	// wanted says that the last word of a person is that the workflow be suspended.
	wanted      bool
	suspensions int
	resumes     int
	nodes       map[string]*machine
	// seen is when each node's agent saw a hold first.
	seen map[string]map[string]int
}

type machine struct {
	notices int
	notice  string // in force; "" for none
	ends    int    // when the machine is gone
	pod     bool   // its pod of the workflow is there
	alive   bool   // the agent
}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, state: workflow.State{Holds: map[string]workflow.Hold{}}, nodes: map[string]*machine{}, seen: map[string]map[string]int{}}
	for _, name := range []string{"n0", "n1", "n2"} {
		w.nodes[name] = &machine{pod: true, alive: true}
		w.seen[name] = map[string]int{}
	}
	return w
}

// read is what an agent gets from the API server: a copy.
func (w *world) read() (workflow.State, int) {
	s := w.state
	s.Holds = maps.Clone(s.Holds)
	s.Others = slices.Clone(s.Others)
	return s, w.version
}

// write carries a change out, unless somebody has written since the version.
func (w *world) write(version int, c *workflow.Change) bool {
	if version != w.version {
		return false
	}
	w.version++
	if c.Suspend != nil {
		switch {
		case *c.Suspend && !w.state.Suspended:
			w.state.Others = nil // the field is ours now
			w.suspensions++
			if w.wanted {
				w.t.Fatalf("suspended although a person has it suspended")
			}
		case !*c.Suspend && w.state.Suspended:
			w.checkResume()
			w.state.Others = nil
			w.resumes++
		}
		w.state.Suspended = *c.Suspend
	}
	if c.Label != nil {
		w.state.Ours = *c.Label
	}
	for node, h := range c.Holds {
		w.state.Holds[node] = h
	}
	for _, node := range c.Remove {
		delete(w.state.Holds, node)
	}
	w.notify()
	return true
}

// notify lets the agents that live see the holds.
func (w *world) notify() {
	for name, m := range w.nodes {
		if !m.alive {
			continue
		}
		seen := map[string]int{}
		if w.state.Ours {
			for node, h := range w.state.Holds {
				key := node + "/" + h.Notice
				seen[key] = w.now
				if since, known := w.seen[name][key]; known {
					seen[key] = since
				}
			}
		}
		w.seen[name] = seen
	}
}

// checkResume holds a resumption to what it must never do.
func (w *world) checkResume() {
	if !w.state.Ours {
		w.t.Fatalf("resumed although it is not ours: %+v", w.state)
	}
	if w.state.Finished || w.state.Shutdown != "" {
		return // Argo stops nothing while it is suspended: the stop is the stronger wish
	}
	if w.wanted {
		w.t.Fatalf("a person's suspension was lifted: %+v", w.state)
	}
	for node, h := range w.state.Holds {
		ended := int(h.NoticeAt.Unix()) + int(h.WindowSeconds)
		if (!h.Released || w.nodes[node].pod && len(h.Pods) > 0) && w.now < ended+int(workflow.GiveUpAfter.Seconds()) {
			w.t.Fatalf("resumed at %d before the work of %s was saved or given up (%+v, pod there: %t)", w.now, node, h, w.nodes[node].pod)
		}
	}
}

// agent decides and writes until it succeeds; a person may come in between.
func (w *world) agent(decide func(workflow.State) workflow.Action) {
	for range 10 {
		s, version := w.read()
		a := decide(s)
		if a.Change == nil {
			return
		}
		if rapid.IntRange(0, 3).Draw(w.t, "race") == 0 {
			w.person()
		}
		if w.write(version, a.Change) {
			return
		}
	}
}

func (w *world) person() {
	if w.state.Finished {
		return
	}
	switch what := rapid.SampledFrom([]string{"suspend", "resume", "apply suspend", "take the label", "stop"}).Draw(w.t, "person"); what {
	case "suspend": // what is suspended already is not written: nobody can see that it was asked for
		if w.state.Suspended {
			return
		}
		w.state.Suspended, w.state.Others, w.wanted = true, []string{"argo"}, true
	case "apply suspend":
		w.state.Suspended, w.state.Others, w.wanted = true, []string{"kubectl"}, true
	case "resume":
		w.state.Suspended, w.state.Others, w.wanted = false, nil, false
	case "take the label":
		if w.state.Suspended && w.state.Ours {
			w.wanted = true
		}
		w.state.Ours = false
	case "stop":
		if rapid.IntRange(0, 9).Draw(w.t, "stop") > 0 {
			return
		}
		w.state.Shutdown = "Stop"
	}
	w.version++
	w.notify()
}

func (w *world) noticeTo(name string) {
	m := w.nodes[name]
	if !m.alive || m.notice != "" {
		return
	}
	m.notices++
	m.notice = fmt.Sprintf("%s-%d", name, m.notices)
	window := rapid.SampledFrom([]int{15, 30, 120}).Draw(w.t, "window")
	m.ends = w.now + window
	i := workflow.Interruption{Node: name, Notice: m.notice, NoticeAt: time.Unix(int64(w.now), 0), Window: time.Duration(window) * time.Second}
	if m.pod {
		i.Pods = []workflow.Pod{{Name: "pod-" + name, Retry: &workflow.Retry{Policy: "Always"}}}
	}
	w.agent(func(s workflow.State) workflow.Action { return workflow.Suspend(s, i) })
}

// finish is the agent's end of its work: the pod is gone, all is recorded.
func (w *world) finish(name string) {
	m := w.nodes[name]
	if !m.alive || m.notice == "" {
		return
	}
	m.pod = false
	w.agent(func(s workflow.State) workflow.Action {
		return workflow.Release(s, name, m.notice, []string{"pod-" + name})
	})
}

func (w *world) withdraw(name string) {
	m := w.nodes[name]
	if !m.alive || m.notice == "" {
		return
	}
	w.agent(func(s workflow.State) workflow.Action { return workflow.Release(s, name, m.notice, nil) })
	m.notice = ""
}

// pass lets time pass; machines whose time is up are gone with all that is on them.
func (w *world) pass(seconds int) {
	for range seconds {
		w.now++
		for _, m := range w.nodes {
			if m.notice != "" && w.now >= m.ends {
				m.alive, m.pod = false, false
			}
		}
	}
}

// lead is a look of an agent that believes to be the leader. Two may believe it.
func (w *world) lead(name string) {
	m := w.nodes[name]
	if !m.alive || m.notice != "" {
		return
	}
	w.agent(func(s workflow.State) workflow.Action {
		return workflow.Resume(s, workflow.Observation{
			Present: func(node, _ string) bool { return w.nodes[node].pod },
			Seen: func(node string, h workflow.Hold) time.Duration {
				since, known := w.seen[name][node+"/"+h.Notice]
				if !known {
					return 0
				}
				return time.Duration(w.now-since) * time.Second
			},
		})
	})
}

// Whatever the order in which nodes are interrupted, agents die, and people suspend,
// resume and stop: a person's suspension is never lifted, no suspension of ours is
// lifted twice or too early, and in the end a survivor has lifted it.
func TestInterleavings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		node := rapid.SampledFrom([]string{"n0", "n1", "n2"})
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"notice", "finish", "finish", "withdraw", "die", "pass", "lead", "lead", "person", "start pod", "end"}).Draw(t, "step") {
			case "notice":
				w.noticeTo(node.Draw(t, "node"))
			case "finish":
				w.finish(node.Draw(t, "node"))
			case "withdraw":
				w.withdraw(node.Draw(t, "node"))
			case "die":
				if m := w.nodes[node.Draw(t, "node")]; m.notice != "" {
					m.alive = false
				}
			case "pass":
				w.pass(rapid.IntRange(1, 60).Draw(t, "seconds"))
			case "lead":
				w.lead(node.Draw(t, "node"))
			case "person":
				w.person()
			case "end":
				if !w.state.Suspended && rapid.IntRange(0, 9).Draw(t, "end") == 0 {
					w.state.Finished = true
					w.version++
				}
			case "start pod":
				if m := w.nodes[node.Draw(t, "node")]; m.alive && m.notice == "" && !w.state.Suspended {
					m.pod = true
				}
			}
			if w.resumes > w.suspensions {
				t.Fatalf("%d resumptions of %d suspensions", w.resumes, w.suspensions)
			}
		}
		// A new node's agent, which has seen nothing yet.
		w.nodes["survivor"] = &machine{alive: true}
		w.notify()
		for range 4 {
			w.pass(120)
			w.settle("survivor")
		}
		if w.state.Ours || w.state.Suspended && !w.wanted {
			t.Fatalf("left suspended, wanted %t: %+v", w.wanted, w.state)
		}
		if w.wanted && !w.state.Suspended && w.state.Shutdown == "" {
			t.Fatalf("a person's suspension is gone: %+v", w.state)
		}
	})
}

// settle is a look of the leader without anybody in between.
func (w *world) settle(name string) {
	s, version := w.read()
	a := workflow.Resume(s, workflow.Observation{
		Present: func(node, _ string) bool { return w.nodes[node] != nil && w.nodes[node].pod },
		Seen: func(node string, h workflow.Hold) time.Duration {
			return time.Duration(w.now-w.seen[name][node+"/"+h.Notice]) * time.Second
		},
	})
	if a.Change != nil && !w.write(version, a.Change) {
		w.t.Fatal("refused although nobody else writes")
	}
}
