// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAWrongFlagIsNamedWithWhatWouldDo(t *testing.T) {
	right := settings{nodes: "1000", pods: 1500, repeats: 1}
	for want, change := range map[string]func(*settings){
		`-nodes has "many", want numbers from 10 to 20000, separated by commas`:                   func(s *settings) { s.nodes = "1000,many" },
		`-nodes has "5", want numbers from 10 to 20000, separated by commas`:                      func(s *settings) { s.nodes = "5" },
		"-pods is 1501, but a tenth of 1000 nodes has 1500 GPUs for them: want at most that many": func(s *settings) { s.pods = 1501 },
		"-pods is 99, want at least 100":                                                          func(s *settings) { s.pods = 99 },
		"-repeats is 0, want at least 1":                                                          func(s *settings) { s.repeats = 0 },
	} {
		s := right
		change(&s)
		if _, err := s.parse(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if nodes, err := right.parse(); err != nil || !cmp.Equal(nodes, []int{1000}) {
		t.Errorf("got %v, %v", nodes, err)
	}
}

func TestQuantilesAreLinearWithinABucket(t *testing.T) {
	// 100 observations: 50 up to 1 ms, 49 up to 2 ms, 1 up to 4 ms.
	h := histogram{0.001: 50, 0.002: 99, 0.004: 100, math.Inf(1): 100}
	for q, want := range map[float64]float64{0.25: 0.0005, 0.5: 0.001, 0.745: 0.0015, 0.99: 0.002, 0.995: 0.003} {
		if got := h.quantile(q); math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if got := h.since(histogram{0.001: 50, 0.002: 50, 0.004: 50, math.Inf(1): 50}).quantile(0.5); math.Abs(got-(0.001+0.001*25/49)) > 1e-9 {
		t.Errorf("median since then is %v, want 1 ms and 25/49 of the next", got)
	}
	if !math.IsNaN(histogram{}.quantile(0.5)) {
		t.Error("the median of nothing is a number")
	}
}

func TestMediansAndTheTable(t *testing.T) {
	got := medians([]sample{{PodsPerSecond: 30}, {PodsPerSecond: 10}, {PodsPerSecond: 20}})
	if got.PodsPerSecond != 20 {
		t.Errorf("median %v, want 20", got.PodsPerSecond)
	}
	var out bytes.Buffer
	err := print(&out, []result{
		{Nodes: 1000, Pods: 100, Workload: constrained, Scheduler: "ours", sample: sample{PodsPerSecond: 300, PeakMemoryMiB: 110}},
		{Nodes: 1000, Pods: 100, Workload: constrained, Scheduler: "stock", sample: sample{PodsPerSecond: 100, PeakMemoryMiB: 100}},
	})
	if err != nil || !strings.Contains(out.String(), "3.00× pods/s, 1.10× memory") {
		t.Errorf("%v\n%s", err, &out)
	}
}
