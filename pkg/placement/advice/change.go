// SPDX-License-Identifier: Apache-2.0

package advice

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/spotbench/spotbench/pkg/benchspec"
	"github.com/spotbench/spotbench/pkg/gpu"
	"github.com/spotbench/spotbench/pkg/placement"
	"github.com/spotbench/spotbench/pkg/placement/snapshot"
)

// Kind is what sort of thing has to happen.
type Kind string

// Kinds of changes: those that come by waiting, those of the pod, those of nodes.
const (
	WaitForPods  Kind = "WaitForPods"
	WaitForTime  Kind = "WaitForTime"
	Annotate     Kind = "Annotate"
	FewerGPUs    Kind = "FewerGPUs"
	LowerRequest Kind = "LowerRequest"
	Tolerate     Kind = "Tolerate"
	DropAffinity Kind = "DropAffinity"
	Uncordon     Kind = "Uncordon"
	AddNode      Kind = "AddNode"
)

// Change is one thing that has to happen, with what its kind needs.
type Change struct {
	Kind Kind `json:"kind"`
	// Text says it: "raise max-interruption-risk to 0.21".
	Text string `json:"text"`
	// At is when it is expected (WaitForPods, WaitForTime); zero when not known.
	At time.Time `json:"at,omitzero"`
	// Pods are those that have to end, as NAMESPACE/NAME.
	Pods []string `json:"pods,omitempty"`
	// Annotation of the pod gets Value.
	Annotation string `json:"annotation,omitempty"`
	Value      string `json:"value,omitempty"`
	GPUs       int    `json:"gpus,omitempty"`
	// Requests are lowered to these.
	Requests   v1.ResourceList `json:"requests,omitempty"`
	Toleration *v1.Toleration  `json:"toleration,omitempty"`
	// Node is the one to uncordon.
	Node    string         `json:"node,omitempty"`
	AddNode *snapshot.Node `json:"addNode,omitempty"`
}

func (c Change) waits() bool { return c.Kind == WaitForPods || c.Kind == WaitForTime }

// Apply is the snapshot and the pod once it has happened.
func (c Change) Apply(s snapshot.Snapshot, p snapshot.Pod) (snapshot.Snapshot, snapshot.Pod) {
	switch c.Kind {
	case WaitForPods, WaitForTime:
		if !c.At.IsZero() {
			s = s.At(c.At)
		}
		s = s.Without(c.Pods...)
	case Annotate:
		p = p.Annotated(c.Annotation, c.Value)
	case FewerGPUs:
		p.GPUs = c.GPUs
	case LowerRequest:
		p.Requests = maps.Clone(p.Requests)
		maps.Copy(p.Requests, c.Requests)
	case Tolerate:
		p.Tolerations = append(slices.Clone(p.Tolerations), *c.Toleration)
	case DropAffinity:
		p.NodeSelector, p.NodeAffinity = nil, nil
	case Uncordon:
		s.Nodes = slices.Clone(s.Nodes)
		for i := range s.Nodes {
			if s.Nodes[i].Name == c.Node {
				s.Nodes[i].Unschedulable = false
				s.Nodes[i].Taints = without(s.Nodes[i].Taints, v1.TaintNodeUnschedulable)
			}
		}
	case AddNode:
		s.Nodes = append(slices.Clone(s.Nodes), *c.AddNode)
	}
	return s, p
}

// state is what the search for a way has come to.
type state struct {
	s    snapshot.Snapshot
	p    snapshot.Pod
	node string
}

func (st state) after(c Change) state {
	st.s, st.p = c.Apply(st.s, st.p)
	return st
}

func (st state) find() (snapshot.Node, bool) {
	i := slices.IndexFunc(st.s.Nodes, func(n snapshot.Node) bool { return n.Name == st.node })
	if i < 0 {
		return snapshot.Node{}, false
	}
	return st.s.Nodes[i], true
}

// mostChanges bounds a way: one of more is no help.
const mostChanges = 5

// ways are those that make a node do.
func ways(s snapshot.Snapshot, p snapshot.Pod, n snapshot.Node) []Way {
	st := state{s: s, p: p, node: n.Name}
	if _, deadline := p.Annotations[benchspec.AnnotationDeadline]; !deadline {
		// Only a pod that waits for spot depends on other nodes.
		st.s.Nodes = []snapshot.Node{n}
	}
	var out []Way
	var search func(state, []Change)
	search = func(st state, done []Change) {
		refusal, err := st.s.Refusal(st.p, st.node)
		switch {
		case err != nil:
			return // a change that the pod cannot express
		case refusal == nil:
			out = append(out, Way{Node: n.Name, Changes: done})
			return
		case len(done) == mostChanges:
			return
		}
		for _, c := range options(st, *refusal) {
			next := slices.DeleteFunc(slices.Clone(done), func(earlier Change) bool {
				return earlier.Kind == Annotate && c.Kind == Annotate && earlier.Annotation == c.Annotation
			})
			search(st.after(c), append(next, c))
		}
	}
	search(st, nil)
	return slices.DeleteFunc(out, func(w Way) bool {
		s, p := w.Apply(s, p)
		refusal, err := s.Refusal(p, w.Node)
		return err != nil || refusal != nil
	})
}

// options are the changes that may end a refusal.
func options(st state, refusal placement.Refusal) []Change {
	n, ok := st.find()
	r, err := st.s.Request(st.p)
	if !ok || err != nil {
		return nil
	}
	switch refusal.Reason {
	case placement.ReasonModel:
		return anew(st.p, allowModel(st.p, n)...)
	case placement.ReasonMemory:
		return lowerMemory(st.p, n)
	case placement.ReasonShared:
		return []Change{annotate(benchspec.AnnotationIsolation, string(benchspec.IsolationNone), "drop the isolation")}
	case placement.ReasonCapacity:
		return anew(st.p, annotate(benchspec.AnnotationCapacity, string(benchspec.CapacityAny), "set capacity to any, so that "+n.Pool.CapacityType+" will do"))
	case placement.ReasonRisk:
		return raiseRisk(st)
	case placement.ReasonNeverDone:
		return resume(st, r, refusal)
	case placement.ReasonDeadline:
		return append(laterDeadline(st, r), resume(st, r, refusal)...)
	case placement.ReasonWaiting:
		return untilFallback(st, r)
	case placement.ReasonIsolated:
		return waitForPods(st, refusal)
	case placement.ReasonNeighbours:
		return append(waitForPods(st, refusal), annotate(benchspec.AnnotationIsolation, string(benchspec.IsolationNone), "drop the isolation"))
	case placement.ReasonRoom:
		if n.TotalGPUs < st.p.GPUs {
			return []Change{{Kind: FewerGPUs, GPUs: n.TotalGPUs, Text: fmt.Sprintf("ask for at most %d GPUs", n.TotalGPUs)}}
		}
		if !r.Resource.Whole() && n.TotalFor(st.p) < r.GPUs {
			return lowerRequest(st.p, n)
		}
		return waitForPods(st, refusal)
	case snapshot.ReasonCordoned:
		return []Change{{Kind: Uncordon, Node: n.Name, Text: "uncordon " + n.Name}}
	case snapshot.ReasonTaint:
		return tolerate(st.p, n)
	case snapshot.ReasonAffinity:
		return []Change{{Kind: DropAffinity, Text: "drop the node selector and affinity, which leave out " + n.Name}}
	case snapshot.ReasonResource:
		return append(waitForPods(st, refusal), lowerRequest(st.p, n)...)
	default:
		return nil // no GPUs, invalid ones, a notice: nothing the pod or time would change
	}
}

// anew says of changes to what a pod wants of a node that they need a new pod, where this
// one has it as node affinity too.
func anew(p snapshot.Pod, changes ...Change) []Change {
	for i := range changes {
		if p.RepeatsAnnotations() {
			changes[i].Text += ", in a new pod: the node affinity of this one stays"
		}
	}
	return changes
}

func annotate(annotation, value, text string) Change {
	return Change{Kind: Annotate, Annotation: annotation, Value: value, Text: text}
}

func allowModel(p snapshot.Pod, n snapshot.Node) []Change {
	model := n.GPUsFor(p).Model
	if model == "" {
		return nil
	}
	return []Change{annotate(benchspec.AnnotationGPUModel, p.Annotations[benchspec.AnnotationGPUModel]+", "+model, "allow "+model+" in gpu-model")}
}

func lowerMemory(p snapshot.Pod, n snapshot.Node) []Change {
	memory := n.GPUsFor(p).MemoryBytes
	if memory == 0 {
		return nil
	}
	value := resource.NewQuantity(memory, resource.BinarySI).String()
	return []Change{annotate(benchspec.AnnotationGPUMemory, value, "lower gpu-memory to "+value)}
}

// riskStep is what limits are given in.
const riskStep = 0.01

// raiseRisk finds the lowest limit, in steps, that the node is under.
func raiseRisk(st state) []Change {
	under := func(steps int) bool {
		limited := st.after(annotate(benchspec.AnnotationMaxInterruptionRisk, limit(steps), ""))
		refusal, err := limited.s.Refusal(limited.p, limited.node)
		return err == nil && (refusal == nil || refusal.Reason != placement.ReasonRisk)
	}
	most := int(math.Round(1 / riskStep))
	low, high := 0, most
	for low < high {
		if mid := (low + high) / 2; under(mid) {
			high = mid
		} else {
			low = mid + 1
		}
	}
	if !under(low) {
		return nil
	}
	return []Change{annotate(benchspec.AnnotationMaxInterruptionRisk, limit(low), "raise max-interruption-risk to "+limit(low))}
}

func limit(steps int) string {
	if steps >= int(math.Round(1/riskStep)) {
		return "1"
	}
	return strconv.FormatFloat(float64(steps)*riskStep, 'f', 2, 64)
}

// resume is for what starts over at each interruption, where that is what takes too
// long.
func resume(st state, r placement.Request, refusal placement.Refusal) []Change {
	c := annotate(benchspec.AnnotationCheckpointPath, "/checkpoints",
		"let it resume from checkpoints (annotation checkpoint-path), so that an interruption does not start it over")
	then := st.after(c)
	now, err := then.s.Refusal(then.p, then.node)
	if r.Spec.Resumable() || err != nil || now != nil && now.Reason == refusal.Reason {
		return nil
	}
	return []Change{c}
}

// longestDelay bounds how much later a deadline is advised: a year.
const longestDelay = 365 * 24 * time.Hour

func laterDeadline(st state, r placement.Request) []Change {
	hours, err := st.s.Expected(st.p, st.node)
	if err != nil || hours > longestDelay.Hours() {
		return nil
	}
	// A minute more than the next whole one: hours are a float.
	deadline := r.Now.Add(time.Duration(hours * float64(time.Hour))).Truncate(time.Minute).Add(2 * time.Minute)
	value := deadline.UTC().Format(time.RFC3339)
	return []Change{annotate(benchspec.AnnotationDeadline, value, "move the deadline to "+value)}
}

// untilFallback waits for the time from which on demand just makes the deadline, or
// does not wait.
func untilFallback(st state, r placement.Request) []Change {
	latest, err := st.s.LatestStart(st.p, st.node)
	if err != nil {
		return nil
	}
	// To the second that is said, and not before it.
	at := latest.Truncate(time.Second)
	if at.Before(latest) {
		at = at.Add(time.Second)
	}
	return []Change{
		{Kind: WaitForTime, At: at, Text: fmt.Sprintf("wait for the deadline's on-demand fallback at %s (in about %s)", at.UTC().Format(time.RFC3339), about(at.Sub(r.Now)))},
		annotate(benchspec.AnnotationCapacity, string(benchspec.CapacityOnDemand), "set capacity to on-demand, to start at once"),
	}
}

// waitForPods finds the first moment at which enough pods have left the node. Pods
// that are late come first, those that do not say when they end come last.
func waitForPods(st state, refusal placement.Refusal) []Change {
	n, _ := st.find()
	pods := slices.DeleteFunc(slices.Clone(n.Pods), st.p.Same)
	slices.SortStableFunc(pods, func(a, b snapshot.Pod) int {
		switch {
		case a.ExpectedEnd.IsZero() == b.ExpectedEnd.IsZero():
			return a.ExpectedEnd.Compare(b.ExpectedEnd)
		case a.ExpectedEnd.IsZero():
			return 1
		}
		return -1
	})
	c := Change{Kind: WaitForPods}
	var unknown, late int
	for _, p := range pods {
		c.Pods = append(c.Pods, p.Key())
		switch {
		case p.ExpectedEnd.IsZero():
			unknown++
		case !p.ExpectedEnd.After(st.s.Time):
			late++
		default:
			c.At = p.ExpectedEnd
		}
		// Who else has left by then is no part of it.
		now, err := st.s.Without(c.Pods...).Refusal(st.p, st.node)
		if err != nil || now != nil && now.Reason == refusal.Reason {
			continue
		}
		c.Text = waitText(st, c, late, unknown)
		if unknown+late > 0 {
			// Its time is not known, whatever that of the others.
			c.At = time.Time{}
		}
		return []Change{c}
	}
	return nil
}

func waitText(st state, c Change, late, unknown int) string {
	switch all := len(c.Pods); {
	case unknown == all:
		return fmt.Sprintf("free on %s once %s; no end is known (annotation expected-duration)", st.node, end(c.Pods))
	case unknown > 0:
		return fmt.Sprintf("free on %s once %s; of %d no end is known (annotation expected-duration)", st.node, end(c.Pods), unknown)
	case late == all:
		return fmt.Sprintf("free on %s once %s, which should have happened by now", st.node, end(c.Pods))
	case late > 0:
		return fmt.Sprintf("free on %s once %s, of which %d should have by now", st.node, end(c.Pods), late)
	}
	return fmt.Sprintf("free in about %s on %s, when %s", about(c.At.Sub(st.s.Time)), st.node, end(c.Pods))
}

// end lists pods, the first few by name.
func end(pods []string) string {
	if len(pods) > 3 {
		return fmt.Sprintf("%s and %d more end", strings.Join(pods[:2], ", "), len(pods)-2)
	}
	return strings.Join(pods, ", ") + plural(len(pods), " ends", " end")
}

func plural(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// about is a duration in minutes and hours, rounded up.
func about(d time.Duration) string {
	minutes := int(math.Ceil(d.Minutes()))
	switch {
	case minutes < 60:
		return fmt.Sprintf("%d min", max(1, minutes))
	case minutes%60 == 0:
		return fmt.Sprintf("%d h", minutes/60)
	}
	return fmt.Sprintf("%d h %d min", minutes/60, minutes%60)
}

// tolerate is for taints that keep nodes to some; those that say a node is of no use
// are left.
func tolerate(p snapshot.Pod, n snapshot.Node) []Change {
	taint, ok := p.Untolerated(n)
	if !ok || taint.Key == benchspec.TaintInterruption || strings.HasPrefix(taint.Key, "node.kubernetes.io/") {
		return nil
	}
	t := v1.Toleration{Key: taint.Key, Operator: v1.TolerationOpEqual, Value: taint.Value, Effect: taint.Effect}
	return []Change{{Kind: Tolerate, Toleration: &t, Text: "tolerate the taint " + taint.ToString()}}
}

// lowerRequest is for a pod that asks for more than an empty node has.
func lowerRequest(p snapshot.Pod, n snapshot.Node) []Change {
	lower := v1.ResourceList{}
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(p.Requests)) {
		want, has := p.Requests[name], n.Allocatable[name]
		if want.Cmp(has) > 0 {
			lower[name] = has
			texts = append(texts, fmt.Sprintf("%s of %s", has.String(), name))
		}
	}
	if len(lower) == 0 {
		return nil
	}
	return []Change{{Kind: LowerRequest, Requests: lower, Text: "ask for at most " + strings.Join(texts, " and ")}}
}

func without(taints []v1.Taint, key string) []v1.Taint {
	return slices.DeleteFunc(slices.Clone(taints), func(t v1.Taint) bool { return t.Key == key })
}

// another is the way of adding an empty node like one that is there.
func another(s snapshot.Snapshot, p snapshot.Pod, n snapshot.Node) (Way, bool) {
	n.Name += "-more"
	n = n.Empty()
	n.Notice, n.Unschedulable, n.Age.Duration = "", false, 0
	n.Taints = slices.DeleteFunc(slices.Clone(n.Taints), func(t v1.Taint) bool {
		return t.Key == benchspec.TaintInterruption || strings.HasPrefix(t.Key, "node.kubernetes.io/")
	})
	what := "a node"
	if n.GPU != nil && n.GPU.Model != "" {
		what = article(n.GPU.Model) + " node"
	}
	return added(s, p, n, "add "+what+" of this pool")
}

// firstOf is the way of adding a node with a model that the cluster does not have.
func firstOf(s snapshot.Snapshot, p snapshot.Pod, r placement.Request, model string, pool snapshot.Pool) (Way, bool) {
	n := snapshot.Node{Name: "new-" + strings.ToLower(model), GPU: &snapshot.GPU{Model: model, Product: model, Count: p.GPUs}, Pool: pool, TotalGPUs: p.GPUs,
		Labels: p.NodeSelector, Allocatable: p.Requests.DeepCopy()}
	if m, ok := gpu.Lookup(model); ok {
		n.GPU.MemoryBytes = m.MemoryBytes
	}
	if n.Allocatable == nil {
		n.Allocatable = v1.ResourceList{}
	}
	n.Allocatable[v1.ResourcePods] = *resource.NewQuantity(1, resource.DecimalSI)
	what := article(model) + " node"
	if !r.Resource.Whole() {
		what += " with " + r.Resource.Name()
	}
	return added(s, p, n, "add "+what+": the cluster has none")
}

func added(s snapshot.Snapshot, p snapshot.Pod, n snapshot.Node, text string) (Way, bool) {
	w := Way{Node: n.Name, Changes: []Change{{Kind: AddNode, AddNode: &n, Text: text}}}
	s, p = w.Apply(s, p)
	refusal, err := s.Refusal(p, n.Name)
	return w, err == nil && refusal == nil
}

// article puts "a" or "an" before a model, as it is spoken: an A100, an H100, an L4.
func article(model string) string {
	if strings.ContainsAny(model[:1], "AEFHILMNORSX8aeio") {
		return "an " + model
	}
	return "a " + model
}
