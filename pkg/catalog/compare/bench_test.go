// SPDX-License-Identifier: Apache-2.0

package compare_test

import (
	"fmt"
	"testing"

	"github.com/spotbench/spotbench/pkg/catalog"
	"github.com/spotbench/spotbench/pkg/catalog/compare"
)

// BenchmarkTwoRuns is the comparison of bench/catalog: two runs of ten loads, each
// measured four times.
func BenchmarkTwoRuns(b *testing.B) {
	var runs []catalog.Detail
	for n := range 2 {
		d := catalog.Detail{}
		d.Key, d.Benchmark, d.GPUCount = fmt.Sprintf("ns/r%d", n), "sharegpt", 2
		d.Validity.Verdict = catalog.Valid
		for p := range 40 {
			load, value := int64(1)<<(p%10), float64(100+p+3*n)
			latency := &catalog.Latency{MeanMs: &value, MedianMs: &value, P99Ms: &value}
			d.Results = append(d.Results, catalog.Result{Model: "org/m", Backend: "vllm", Concurrency: &load, Requests: 500, Completed: 500, InputTokens: 500_000, OutputTokens: 100_000, DurationSeconds: 100,
				RequestThroughput: &value, OutputThroughput: &value, TotalTokenThroughput: &value, TTFT: latency, TPOT: latency, ITL: latency, E2EL: latency})
		}
		runs = append(runs, d)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := compare.Compare(runs, compare.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
