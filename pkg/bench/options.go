// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spotbench/spotbench/pkg/bench/openai"
	"github.com/spotbench/spotbench/pkg/bench/progress"
)

// Limits that only a slip of the hand passes.
const (
	maxConcurrency = 4096
	maxRequests    = 1_000_000
	maxTokens      = 1 << 20
)

// benchmarkName is what can be a file's name and, with a suffix, stay one.
var benchmarkName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?$`)

// Options say what to measure, where, and where to keep it.
type Options struct {
	progress.Config
	// BaseURL is the server, without /v1.
	BaseURL string
	// APIKey is sent as bearer token when not empty.
	APIKey                    string
	CheckpointDir, ResultsDir string
	// WaitReady is how long the server may take to list the model.
	WaitReady time.Duration
	// RequestTimeout is for one request, to its last token.
	RequestTimeout time.Duration
	// MaxFailures is how many attempts may fail before the run does.
	MaxFailures int
	// Node, GPUModel and GPUUUIDs are where the server runs, "" when not known.
	Node, GPUModel string
	GPUUUIDs       []string
}

// Validate names every wrong flag, its value and what would be right.
func (o Options) Validate() error {
	var problems []error
	bad := func(flag string, value any, want string) {
		problems = append(problems, fmt.Errorf("--%s %v: %s", flag, value, want))
	}
	between := func(flag string, value, low, high int, example string) {
		if value < low || value > high {
			bad(flag, value, fmt.Sprintf("must be between %d and %d, for example %s", low, high, example))
		}
	}
	if u, err := url.Parse(o.BaseURL); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		bad("base-url", quoted(o.BaseURL), "must be an http or https address without /v1, for example http://127.0.0.1:8080")
	}
	if o.Model == "" {
		bad("model", `""`, "name the model as the server lists it, for example meta-llama/Llama-3.1-70B-Instruct")
	}
	if !benchmarkName.MatchString(o.Benchmark) {
		bad("benchmark", quoted(o.Benchmark), "must be a name of lower-case letters, digits, dots, dashes and underscores, for example llama-70b-sweep")
	}
	if o.Endpoint != string(openai.Completions) && o.Endpoint != string(openai.Chat) {
		bad("endpoint", quoted(o.Endpoint), "must be completions or chat")
	}
	if len(o.Concurrency) == 0 {
		bad("concurrency", "[]", "give one level or more, for example 1,4,16")
	}
	seen := map[int]bool{}
	for _, c := range o.Concurrency {
		between("concurrency", c, 1, maxConcurrency, "1,4,16")
		if seen[c] {
			bad("concurrency", c, "is there twice; each level makes one result, for example 1,4,16")
		}
		seen[c] = true
	}
	between("requests", o.Requests, 1, maxRequests, "100")
	between("warmup", o.Warmup, 0, maxRequests, "8")
	between("input-tokens", o.InputTokens, 1, maxTokens, "512")
	between("output-tokens", o.OutputTokens, 1, maxTokens, "128")
	between("max-failures", o.MaxFailures, 0, maxRequests, "10")
	for flag, dir := range map[string]string{"checkpoint-dir": o.CheckpointDir, "results-dir": o.ResultsDir} {
		if dir == "" {
			bad(flag, `""`, "name a directory, for example /"+flag[:len(flag)-len("-dir")])
		}
	}
	if o.CheckpointDir != "" && filepath.Clean(o.CheckpointDir) == filepath.Clean(o.ResultsDir) {
		bad("results-dir", quoted(o.ResultsDir), "must not be the checkpoint directory, for example /results")
	}
	if o.WaitReady <= 0 {
		bad("wait-ready", o.WaitReady, "must be more than 0, for example 5m")
	}
	if o.RequestTimeout <= 0 {
		bad("request-timeout", o.RequestTimeout, "must be more than 0, for example 10m")
	}
	return errors.Join(problems...)
}

func quoted(s string) string { return fmt.Sprintf("%q", s) }
