// SPDX-License-Identifier: Apache-2.0

// Package report computes the result of one concurrency level from a checkpoint,
// under the keys of vLLM's `bench serve`. The same checkpoint gives the same
// bytes, whoever computes it and however often.
package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spotbench/spotbench/pkg/bench/progress"
	"github.com/spotbench/spotbench/pkg/bench/stats"
)

// Measures are the figures that are computed from requests. Times whose key ends
// in _ms are milliseconds; durations are seconds; throughputs are per second of
// active time.
type Measures struct {
	Duration          float64 `json:"duration"`
	Completed         int     `json:"completed"`
	TotalInputTokens  int     `json:"total_input_tokens"`
	TotalOutputTokens int     `json:"total_output_tokens"`
	RequestThroughput float64 `json:"request_throughput"`
	// RequestGoodput has the colon in its key that vLLM's files have; no goodput is
	// asked for, so it is null.
	RequestGoodput       *float64 `json:"request_goodput:"`
	OutputThroughput     float64  `json:"output_throughput"`
	TotalTokenThroughput float64  `json:"total_token_throughput"`
}

// Latencies are milliseconds over requests, and for itl over chunks.
type Latencies struct {
	MeanTTFT   float64 `json:"mean_ttft_ms"`
	MedianTTFT float64 `json:"median_ttft_ms"`
	StdTTFT    float64 `json:"std_ttft_ms"`
	P99TTFT    float64 `json:"p99_ttft_ms"`
	MeanTPOT   float64 `json:"mean_tpot_ms"`
	MedianTPOT float64 `json:"median_tpot_ms"`
	StdTPOT    float64 `json:"std_tpot_ms"`
	P99TPOT    float64 `json:"p99_tpot_ms"`
	MeanITL    float64 `json:"mean_itl_ms"`
	MedianITL  float64 `json:"median_itl_ms"`
	StdITL     float64 `json:"std_itl_ms"`
	P99ITL     float64 `json:"p99_itl_ms"`
	MeanE2EL   float64 `json:"mean_e2el_ms"`
	MedianE2EL float64 `json:"median_e2el_ms"`
	StdE2EL    float64 `json:"std_e2el_ms"`
	P99E2EL    float64 `json:"p99_e2el_ms"`
}

// Result is a result file. Lists are in the order of the requests' ids.
type Result struct {
	// Date is when the last request finished, in UTC, as vLLM writes it.
	Date           string  `json:"date"`
	Backend        string  `json:"backend"`
	ModelID        string  `json:"model_id"`
	TokenizerID    string  `json:"tokenizer_id"`
	BestOf         int     `json:"best_of"`
	NumPrompts     int     `json:"num_prompts"`
	RequestRate    string  `json:"request_rate"`
	Burstiness     float64 `json:"burstiness"`
	MaxConcurrency int     `json:"max_concurrency"`
	Measures
	InputLens  []int       `json:"input_lens"`
	OutputLens []int       `json:"output_lens"`
	TTFTs      []float64   `json:"ttfts"`
	ITLs       [][]float64 `json:"itls"`
	Errors     []string    `json:"errors"`
	Latencies
	Spotbench Spotbench `json:"spotbench"`
}

// Spotbench is what vLLM's format has no place for.
type Spotbench struct {
	Benchmark string    `json:"benchmark"`
	Segments  []Segment `json:"segments"`
	// Resumed is whether the measurement was interrupted and went on.
	Resumed bool `json:"resumed"`
	// MixedGPU is whether it was made on more than one model of GPU: the figures
	// above then describe neither, and PerGPU has each.
	MixedGPU bool           `json:"mixedGPU"`
	PerGPU   map[string]GPU `json:"perGPU,omitempty"`
	// FailedAttempts were sent again; their time counts, their tokens do not.
	FailedAttempts int `json:"failedAttempts"`
	// DiscardedAtMost bounds the requests that interruptions cut off: they kept the
	// server busy, were made again and are not counted. ThroughputLowByAtMost is what
	// that can have taken from the throughputs: d/(n+d) of the truth for n counted and
	// d discarded.
	DiscardedAtMost       int      `json:"discardedAtMost"`
	ThroughputLowByAtMost float64  `json:"throughputLowByAtMost"`
	SystemFingerprints    []string `json:"systemFingerprints,omitempty"`
}

// Segment is one pod's stretch of measuring.
type Segment struct {
	Node      string    `json:"node"`
	GPUModel  string    `json:"gpuModel"`
	GPUUUIDs  []string  `json:"gpuUUIDs"`
	Start     time.Time `json:"start"`
	End       time.Time `json:"end"`
	Completed int       `json:"completed"`
}

// GPU is the figures of the segments on one model of GPU.
type GPU struct {
	Measures
	Latencies
}

// Name is the result file's name.
func Name(benchmark string, concurrency int) string {
	return fmt.Sprintf("%s-c%d.json", benchmark, concurrency)
}

// Of computes the result of one concurrency level from its segments; failures is
// how many attempts failed.
func Of(config progress.Config, concurrency int, segments []progress.Segment, failures int) Result {
	requests := requestsOf(segments)
	r := Result{
		Backend: "openai", ModelID: config.Model, TokenizerID: config.Model, BestOf: 1, NumPrompts: config.Requests,
		RequestRate: "inf", Burstiness: 1, MaxConcurrency: concurrency,
		Measures: measure(segments), Latencies: latencies(requests),
		InputLens: []int{}, OutputLens: []int{}, TTFTs: []float64{}, ITLs: [][]float64{}, Errors: []string{},
		Spotbench: Spotbench{Benchmark: config.Benchmark, Segments: []Segment{}, Resumed: len(segments) > 1, FailedAttempts: failures},
	}
	if config.Endpoint == "chat" {
		r.Backend = "openai-chat"
	}
	fingerprints := map[string]bool{}
	for _, q := range requests {
		r.InputLens = append(r.InputLens, q.Input)
		r.OutputLens = append(r.OutputLens, q.Output)
		r.TTFTs = append(r.TTFTs, seconds(q.TTFTNS))
		itls := []float64{}
		for _, ns := range q.ITLNS {
			itls = append(itls, seconds(ns))
		}
		r.ITLs = append(r.ITLs, itls)
		r.Errors = append(r.Errors, "")
		if q.Fingerprint != "" {
			fingerprints[q.Fingerprint] = true
		}
	}
	r.Spotbench.SystemFingerprints = slices.Sorted(maps.Keys(fingerprints))

	byGPU := map[string][]progress.Segment{}
	var last time.Time
	left := config.Requests
	for _, s := range segments {
		end := s.Start.Add(s.Active()).UTC()
		if end.After(last) {
			last = end
		}
		uuids := s.GPUUUIDs
		if uuids == nil {
			uuids = []string{}
		}
		r.Spotbench.Segments = append(r.Spotbench.Segments, Segment{
			Node: s.Node, GPUModel: s.GPUModel, GPUUUIDs: uuids, Start: s.Start.UTC(), End: end, Completed: len(s.Requests),
		})
		model := cmp.Or(s.GPUModel, "unknown")
		byGPU[model] = append(byGPU[model], s)
		left -= len(s.Requests)
		r.Spotbench.DiscardedAtMost += min(concurrency, left)
	}
	if d := r.Spotbench.DiscardedAtMost; d > 0 {
		r.Spotbench.ThroughputLowByAtMost = float64(d) / float64(len(requests)+d)
	}
	r.Date = last.Format("20060102-150405")
	if r.Spotbench.MixedGPU = len(byGPU) > 1; r.Spotbench.MixedGPU {
		r.Spotbench.PerGPU = map[string]GPU{}
		for model, segs := range byGPU {
			r.Spotbench.PerGPU[model] = GPU{Measures: measure(segs), Latencies: latencies(requestsOf(segs))}
		}
	}
	return r
}

// Encode is the result file's bytes.
func (r Result) Encode() ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("write the result of concurrency %d: %w", r.MaxConcurrency, err)
	}
	return append(b, '\n'), nil
}

func requestsOf(segments []progress.Segment) []progress.Request {
	var all []progress.Request
	for _, s := range segments {
		all = append(all, s.Requests...)
	}
	slices.SortFunc(all, func(a, b progress.Request) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// measure counts over the active time: the sum of the segments' windows, without
// the warm-ups and the gaps between them.
func measure(segments []progress.Segment) Measures {
	var active time.Duration
	var m Measures
	for _, s := range segments {
		active += s.Active()
		m.Completed += len(s.Requests)
		for _, q := range s.Requests {
			m.TotalInputTokens += q.Input
			m.TotalOutputTokens += q.Output
		}
	}
	m.Duration = active.Seconds()
	if active > 0 {
		m.RequestThroughput = float64(m.Completed) / m.Duration
		m.OutputThroughput = float64(m.TotalOutputTokens) / m.Duration
		m.TotalTokenThroughput = float64(m.TotalInputTokens+m.TotalOutputTokens) / m.Duration
	}
	return m
}

func latencies(requests []progress.Request) Latencies {
	var ttft, tpot, itl, e2el []float64
	for _, q := range requests {
		ttft = append(ttft, millis(q.TTFTNS))
		e2el = append(e2el, millis(q.LatencyNS))
		// One token has no time per token after the first.
		if q.Output > 1 {
			tpot = append(tpot, millis(q.LatencyNS-q.TTFTNS)/float64(q.Output-1))
		}
		for _, ns := range q.ITLNS {
			itl = append(itl, millis(ns))
		}
	}
	a, b, c, d := stats.Of(ttft), stats.Of(tpot), stats.Of(itl), stats.Of(e2el)
	return Latencies{
		MeanTTFT: a.Mean, MedianTTFT: a.Median, StdTTFT: a.Std, P99TTFT: a.P99,
		MeanTPOT: b.Mean, MedianTPOT: b.Median, StdTPOT: b.Std, P99TPOT: b.P99,
		MeanITL: c.Mean, MedianITL: c.Median, StdITL: c.Std, P99ITL: c.P99,
		MeanE2EL: d.Mean, MedianE2EL: d.Median, StdE2EL: d.Std, P99E2EL: d.P99,
	}
}

func seconds(ns int64) float64 { return float64(ns) / 1e9 }
func millis(ns int64) float64  { return float64(ns) / 1e6 }
