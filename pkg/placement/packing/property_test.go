// SPDX-License-Identifier: Apache-2.0

package packing_test

import (
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/spotbench/spotbench/pkg/placement/packing"
)

func drawNode(t *rapid.T, name string) packing.Node {
	n := packing.Node{
		Name:           name,
		Order:          rapid.IntRange(0, 3).Draw(t, "order"),
		Model:          rapid.SampledFrom([]string{"A", "B", "C"}).Draw(t, "model"),
		GPUMemoryBytes: rapid.SampledFrom([]int64{0, 16 * gib, 80 * gib}).Draw(t, "GPU memory"),
		GPUs:           rapid.SampledFrom([]int{0, 1, 2, 4, 8}).Draw(t, "GPUs"),
		CPUMilli:       int64(rapid.IntRange(0, 128).Draw(t, "cores")) * 1000,
		MemoryBytes:    int64(rapid.IntRange(0, 512).Draw(t, "GiB")) * gib,
	}
	if rapid.Bool().Draw(t, "has MIG") {
		n.MIG = map[string]int{"1g": rapid.IntRange(1, 7).Draw(t, "slices")}
	}
	return n
}

func drawRequest(t *rapid.T) packing.Request {
	r := packing.Request{
		CPUMilli:    int64(rapid.IntRange(0, 24).Draw(t, "cores")) * 500,
		MemoryBytes: int64(rapid.IntRange(0, 64).Draw(t, "GiB")) * gib,
	}
	switch rapid.SampledFrom([]string{"whole", "share", "none", "MIG", "several shares"}).Draw(t, "kind") {
	case "whole":
		r.GPUs, r.GPUMilli = rapid.SampledFrom([]int{1, 1, 2, 4, 8}).Draw(t, "GPUs"), 1000
	case "share":
		r.GPUs, r.GPUMilli = 1, int64(rapid.IntRange(1, 999).Draw(t, "milli"))
	case "several shares":
		r.GPUs, r.GPUMilli = 2, int64(rapid.IntRange(1, 999).Draw(t, "milli"))
	case "MIG":
		r.MIG = map[string]int{"1g": rapid.IntRange(1, 3).Draw(t, "slices")}
	}
	if r.GPUs > 0 && rapid.Bool().Draw(t, "constrained") {
		r.Models = rapid.SampledFrom([][]string{{"A"}, {"B"}, {"A", "C"}}).Draw(t, "models")
	}
	if r.GPUs > 0 && rapid.Bool().Draw(t, "large") {
		r.GPUMemoryBytes = 40 * gib
	}
	return r
}

func nodeNames(n int) (names []string) {
	for i := range n {
		names = append(names, "node-"+strconv.Itoa(i))
	}
	return names
}

func newEngine(t *rapid.T) *packing.Engine {
	e, err := packing.New(packing.Options{RepriceEvery: 10})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func set(t *rapid.T, e *packing.Engine, nodes ...packing.Node) {
	for _, n := range nodes {
		if err := e.SetNode(n); err != nil {
			t.Fatal(err)
		}
	}
}

func rank(t *rapid.T, e *packing.Engine, r packing.Request, extra func(string) float64) []packing.Candidate {
	candidates, err := e.Rank(r, extra)
	if err != nil {
		t.Fatal(err)
	}
	return candidates
}

// ledger is the books kept the plain way.
type ledger struct {
	nodes map[string]packing.Node
	pods  map[string]packing.Request
	at    map[string]packing.Assignment
}

func (l *ledger) check(t *rapid.T, e *packing.Engine) {
	for name, n := range l.nodes {
		want := packing.Free{CPUMilli: n.CPUMilli, MemoryBytes: n.MemoryBytes, GPUMilli: slices.Repeat([]int64{1000}, n.GPUs), MIG: map[string]int{}}
		for profile, slices := range n.MIG {
			want.MIG[profile] = slices
		}
		for pod, a := range l.at {
			if a.Node != name {
				continue
			}
			r := l.pods[pod]
			want.CPUMilli -= r.CPUMilli
			want.MemoryBytes -= r.MemoryBytes
			for _, g := range a.GPUs {
				want.GPUMilli[g] -= r.GPUMilli
			}
			for profile, slices := range r.MIG {
				want.MIG[profile] -= slices
			}
		}
		if want.CPUMilli < 0 || want.MemoryBytes < 0 || want.MIG["1g"] < 0 || slices.ContainsFunc(want.GPUMilli, func(m int64) bool { return m < 0 }) {
			t.Fatalf("%s is overcommitted: %+v", name, want)
		}
		got, known := e.Free(name)
		if got.MIG == nil {
			got.MIG = map[string]int{}
		}
		if got.GPUMilli == nil {
			got.GPUMilli = []int64{}
		}
		if diff := cmp.Diff(want, got); !known || diff != "" {
			t.Fatalf("%s: %s", name, diff)
		}
	}
}

func TestNothingIsEverOvercommitted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := newEngine(t)
		l := &ledger{map[string]packing.Node{}, map[string]packing.Request{}, map[string]packing.Assignment{}}
		for _, name := range nodeNames(4) {
			l.nodes[name] = drawNode(t, name)
			set(t, e, l.nodes[name])
		}
		for i := range rapid.IntRange(1, 25).Draw(t, "pods") {
			if len(l.at) > 0 && rapid.IntRange(0, 4).Draw(t, "release") == 0 {
				pods := make([]string, 0, len(l.at))
				for pod := range l.at {
					pods = append(pods, pod)
				}
				slices.Sort(pods)
				pod := rapid.SampledFrom(pods).Draw(t, "pod")
				e.Release(pod)
				delete(l.at, pod)
			}
			r, pod := drawRequest(t), strconv.Itoa(i)
			if err := e.Observe(r); err != nil {
				t.Fatal(err)
			}
			all := rank(t, e, r, nil)
			refusals, err := e.Refusals(r)
			if err != nil || len(all)+len(refusals) != len(l.nodes) {
				t.Fatalf("%d candidates and %d refusals of %d nodes: %v", len(all), len(refusals), len(l.nodes), err)
			}
			best, ok, err := e.Best(r, nil)
			if err != nil || ok != (len(all) > 0) || ok && !cmp.Equal(best, all[0]) {
				t.Fatalf("best is %+v, first of the rank %+v, %v", best, all, err)
			}
			if !ok {
				continue
			}
			// Any candidate must do, not the best alone, with the GPUs it names.
			c := rapid.SampledFrom(all).Draw(t, "candidate")
			a, err := e.Assign(pod, r, c.Node, c.GPUs)
			if err != nil {
				t.Fatal(err)
			}
			l.pods[pod], l.at[pod] = r, a
			l.check(t, e)
		}
	})
}

// history of an engine, to be lived through more than once.
type history struct {
	nodes []packing.Node
	pods  []packing.Request
}

func drawHistory(t *rapid.T) (h history) {
	for _, name := range nodeNames(5) {
		h.nodes = append(h.nodes, drawNode(t, name))
	}
	for range rapid.IntRange(1, 12).Draw(t, "pods") {
		h.pods = append(h.pods, drawRequest(t))
	}
	return h
}

// live places all pods where it is best; each is called after every one.
func (h history) live(t *rapid.T, e *packing.Engine, nodes []packing.Node, each func()) (placed []packing.Candidate) {
	set(t, e, nodes...)
	for i, r := range h.pods {
		if err := e.Observe(r); err != nil {
			t.Fatal(err)
		}
		best, ok, err := e.Best(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			if _, err := e.Assign(strconv.Itoa(i), r, best.Node, best.GPUs); err != nil {
				t.Fatal(err)
			}
		}
		placed = append(placed, best)
		each()
	}
	return placed
}

func TestTheOrderInWhichNodesBecomeKnownDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t)
		shuffled := rapid.Permutation(h.nodes).Draw(t, "nodes")
		nothing := func() {}
		if diff := cmp.Diff(h.live(t, newEngine(t), h.nodes, nothing), h.live(t, newEngine(t), shuffled, nothing)); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestWhatWasAskedBeforeDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, questions := drawHistory(t), []packing.Request{drawRequest(t), drawRequest(t), drawRequest(t)}
		// One engine is asked all along and scores again what changed, the other is asked
		// once at the end and scores all.
		asked, quiet := newEngine(t), newEngine(t)
		h.live(t, asked, h.nodes, func() {
			for _, q := range questions {
				rank(t, asked, q, nil)
			}
		})
		h.live(t, quiet, h.nodes, func() {})
		for _, q := range questions {
			if diff := cmp.Diff(rank(t, asked, q, nil), rank(t, quiet, q, nil)); diff != "" {
				t.Fatal(diff)
			}
		}
		for _, c := range rank(t, asked, questions[0], nil) {
			cost, refusal, err := asked.OpportunityCost(questions[0], c.Node)
			if err != nil || refusal != nil || cost != c.Cost {
				t.Fatalf("%s costs %+v in the rank, %+v alone, %v %v", c.Node, c.Cost, cost, refusal, err)
			}
		}
	})
}

func TestANodeThatGetsDearerNeverMovesAhead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, r := drawHistory(t), drawRequest(t)
		e := newEngine(t)
		h.live(t, e, h.nodes, func() {})
		prices := map[string]float64{}
		for _, n := range h.nodes {
			prices[n.Name] = rapid.Float64Range(0, 2).Draw(t, "price")
		}
		extra := func(node string) float64 { return prices[node] }
		before := rank(t, e, r, extra)
		if len(before) == 0 {
			return
		}
		dearer := rapid.IntRange(0, len(before)-1).Draw(t, "which")
		prices[before[dearer].Node] += rapid.Float64Range(0, 2).Draw(t, "by")
		after := slices.IndexFunc(rank(t, e, r, extra), func(c packing.Candidate) bool { return c.Node == before[dearer].Node })
		if after < dearer {
			t.Fatalf("%s moved from place %d to %d", before[dearer].Node, dearer, after)
		}
	})
}

func TestMoreDemandForAModelNeverLowersItsPressure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := newEngine(t)
		set(t, e, packing.Node{Name: "a", Model: "A", GPUs: 8, CPUMilli: 64_000}, packing.Node{Name: "b", Model: "B", GPUs: 8, CPUMilli: 64_000})
		var waiting []packing.Waiting
		for range rapid.IntRange(0, 5).Draw(t, "waiting") {
			waiting = append(waiting, packing.Waiting{Pods: rapid.IntRange(0, 3).Draw(t, "pods"),
				Request: packing.Request{Models: []string{"A"}, GPUs: 1, GPUMilli: int64(rapid.IntRange(1, 1000).Draw(t, "milli"))}})
		}
		pressure := func() float64 {
			if err := e.Pending(waiting); err != nil {
				t.Fatal(err)
			}
			e.Reprice()
			return e.Pressure()["A"]
		}
		before := pressure()
		waiting = append(waiting, packing.Waiting{Request: packing.Request{Models: []string{"A"}, GPUs: 1, GPUMilli: 1000}, Pods: 1})
		if after := pressure(); after < before {
			t.Fatalf("pressure fell from %v to %v", before, after)
		}
	})
}

func FuzzEngine(f *testing.F) {
	f.Add([]byte("\x00\x08\x60\x20\x01\x01\x64\x04\x02\x00"))
	f.Add([]byte{1, 8, 96, 0, 2, 1, 50, 8, 2, 1, 50, 8, 3, 0, 4, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		e, err := packing.New(packing.Options{RepriceEvery: 3})
		if err != nil {
			t.Fatal(err)
		}
		next := func() int64 {
			if len(script) == 0 {
				return 0
			}
			b := script[0]
			script = script[1:]
			return int64(int8(b)) // negative amounts are wanted
		}
		const most = 60 // operations: each prices anew now and then
		for i := 0; i < most && len(script) > 0; i++ {
			name := strconv.Itoa(int(next() & 3))
			switch next() & 7 {
			case 0:
				e.RemoveNode(name)
			case 1:
				e.Release(name)
			case 2, 3:
				_ = e.SetNode(packing.Node{Name: name, Model: strconv.Itoa(int(next() & 1)), GPUs: int(next()), CPUMilli: next() * 1000, MemoryBytes: next()})
			default:
				r := packing.Request{GPUs: int(next()), GPUMilli: next() * 10, CPUMilli: next() * 100, MemoryBytes: next()}
				if r.Validate() != nil {
					if _, err := e.Rank(r, nil); err == nil {
						t.Fatalf("%+v is ranked though it is not valid", r)
					}
					continue
				}
				if err := e.Observe(r); err != nil {
					t.Fatal(err)
				}
				c, ok, err := e.Best(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				if c.Rank != c.Rank {
					t.Fatalf("the cost on %s is no number", c.Node)
				}
				if _, there := e.Assigned(strconv.Itoa(i)); ok && !there {
					if _, err := e.Assign(strconv.Itoa(i), r, c.Node, c.GPUs); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		for i := range 4 {
			if free, known := e.Free(strconv.Itoa(i)); known && slices.ContainsFunc(free.GPUMilli, func(m int64) bool { return m < 0 || m > 1000 }) {
				t.Fatalf("node %d has %v", i, free)
			}
		}
	})
}
