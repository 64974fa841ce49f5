// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"slices"
	"time"
)

// Result is one measured point: a benchmark's numbers at one load. Numbers that
// the source did not have, or had as NaN or infinity, are absent.
type Result struct {
	ID       string `json:"id" doc:"Stable name of the result"`
	ImportID string `json:"importID" doc:"Import it came with"`
	RunKey   string `json:"run" doc:"Run it belongs to"`
	File     string `json:"file,omitempty" doc:"Name of the file it came from"`
	Format   string `json:"format" doc:"Format of that file" example:"vllm"`

	Tool        string `json:"tool,omitempty" doc:"Benchmark that wrote the file" example:"guidellm"`
	ToolVersion string `json:"toolVersion,omitempty" doc:"Version of that benchmark, where the file states it"`

	Model     string `json:"model,omitempty" doc:"Model as the benchmark names it"`
	Tokenizer string `json:"tokenizer,omitempty"`
	Backend   string `json:"backend,omitempty" doc:"Kind of server, as the benchmark names it"`
	// LocalDate has no zone, so it is no time.Time.
	LocalDate string `json:"localDate,omitempty" doc:"When it was measured, local time of an unknown zone" example:"20251111-140207"`

	Concurrency *int64   `json:"concurrency,omitempty" doc:"Most requests in flight at once; absent for no limit"`
	RequestRate *float64 `json:"requestRate,omitempty" doc:"Requests offered per second; absent for as fast as possible"`
	Burstiness  *float64 `json:"burstiness,omitempty" doc:"Shape of the gamma distribution between requests; 1 is Poisson"`

	Requests        int64   `json:"requests" doc:"Requests asked for"`
	Completed       int64   `json:"completed" doc:"Requests that succeeded"`
	Failed          int64   `json:"failed,omitempty" doc:"Requests that did not"`
	DurationSeconds float64 `json:"durationSeconds" doc:"Time measured, seconds"`
	InputTokens     int64   `json:"inputTokens"`
	OutputTokens    int64   `json:"outputTokens"`

	RequestThroughput    *float64 `json:"requestThroughput,omitempty" doc:"Requests per second"`
	RequestGoodput       *float64 `json:"requestGoodput,omitempty" doc:"Requests per second that met the service levels asked for"`
	OutputThroughput     *float64 `json:"outputThroughput,omitempty" doc:"Output tokens per second"`
	TotalTokenThroughput *float64 `json:"totalTokenThroughput,omitempty" doc:"Input and output tokens per second"`

	TTFT *Latency `json:"ttft,omitempty" doc:"Time to first token"`
	TPOT *Latency `json:"tpot,omitempty" doc:"Time per output token after the first, per request"`
	ITL  *Latency `json:"itl,omitempty" doc:"Time between chunks of a stream; not comparable with tpot where a chunk has several tokens"`
	E2EL *Latency `json:"e2el,omitempty" doc:"Whole request"`

	// Metrics and Settings have what the columns above do not; a unit is part of
	// the name of a number that has one.
	Metrics  map[string]float64 `json:"metrics,omitempty" doc:"Further numbers, by name with unit"`
	Settings map[string]string  `json:"settings,omitempty" doc:"How it was measured, as the benchmark states it"`
	// Unknown tells a count that is zero from one that nobody stated.
	Unknown []string `json:"unknown,omitempty" nullable:"false" doc:"Fields among requests, completed, failed, durationSeconds, inputTokens and outputTokens that the file does not state; their zero means nothing"`

	Spotbench *Provenance `json:"spotbench,omitempty" doc:"Where the point was measured, as bench-runner tells"`
}

// States reports whether the source stated a field of its counts and times, by
// its JSON name.
func (r Result) States(field string) bool { return !slices.Contains(r.Unknown, field) }

// Latency is a distribution in milliseconds.
type Latency struct {
	MeanMs   *float64 `json:"meanMs,omitempty"`
	MedianMs *float64 `json:"medianMs,omitempty"`
	StdMs    *float64 `json:"stdMs,omitempty"`
	P99Ms    *float64 `json:"p99Ms,omitempty"`
	// PercentilesMs has the others the source gave, by name.
	PercentilesMs map[string]float64 `json:"percentilesMs,omitempty" doc:"Other percentiles by name, for example p95; min and max too"`
}

// Provenance is what bench-runner writes about the segments of a point.
type Provenance struct {
	Segments []MeasuredOn `json:"segments,omitempty" nullable:"false"`
	Resumed  bool         `json:"resumed" doc:"The point was continued after an interruption"`
	MixedGPU bool         `json:"mixedGPU" doc:"The point was measured on more than one GPU model"`
	// Other is what else the object has.
	Other map[string]any `json:"other,omitempty" doc:"Further fields, as they were"`
}

// MeasuredOn is a stretch of one point on one node.
type MeasuredOn struct {
	Node      string    `json:"node,omitempty"`
	GPUModel  string    `json:"gpuModel,omitempty"`
	GPUUUIDs  []string  `json:"gpuUUIDs,omitempty" nullable:"false"`
	Start     time.Time `json:"start,omitzero"`
	End       time.Time `json:"end,omitzero"`
	Completed int64     `json:"completed" doc:"Requests measured there"`
}

// Import is one result file that was taken in.
type Import struct {
	ID         string    `json:"id" doc:"Stable name of the import: the same run and content give the same"`
	RunKey     string    `json:"run"`
	File       string    `json:"file,omitempty"`
	Format     string    `json:"format" example:"vllm"`
	SHA256     string    `json:"sha256" doc:"Of the content, hexadecimal"`
	Bytes      int64     `json:"bytes"`
	ImportedAt time.Time `json:"importedAt"`
	// Superseded is set once the same file of the run came with other content.
	Superseded bool     `json:"superseded,omitempty" doc:"A newer file of the same name took its place"`
	Results    []string `json:"results" nullable:"false" doc:"IDs of its results"`
	// Notes follow from the content, so that they are not stored.
	Notes []string `json:"notes,omitempty" nullable:"false" doc:"What was left out of the file, and why"`
}
