// SPDX-License-Identifier: Apache-2.0

package simllm

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Limits of a pace: beyond them a client's own timeouts would be what is measured.
const (
	maxTTFT = 5 * time.Minute
	maxITL  = time.Minute
)

// Pace is how fast the simulated model answers.
type Pace struct {
	// TTFT is the time from a request's admission to its first token.
	TTFT time.Duration
	// ITL is the time between one token and the next.
	ITL time.Duration
}

// Due is how long after admission token i (from 0) is sent. Tokens keep to this
// schedule and not to the token before them, so that a late one delays no other.
func (p Pace) Due(i int) time.Duration { return p.TTFT + time.Duration(i)*p.ITL }

// Validate names the flag that is wrong, its value and a right one.
func (p Pace) Validate() error {
	var problems []error
	if p.TTFT < 0 || p.TTFT > maxTTFT {
		problems = append(problems, fmt.Errorf("--ttft %v: must be between 0 and %v, for example 200ms", p.TTFT, maxTTFT))
	}
	if p.ITL < 0 || p.ITL > maxITL {
		problems = append(problems, fmt.Errorf("--itl %v: must be between 0 and %v, for example 10ms", p.ITL, maxITL))
	}
	return errors.Join(problems...)
}

// GPUPaces has the time between tokens for each GPU model, by canonical name.
type GPUPaces map[string]time.Duration

// ParseGPUPaces reads "H100-80GB=8ms,A100-80GB=12ms"; empty gives none.
func ParseGPUPaces(value string) (GPUPaces, error) {
	paces := GPUPaces{}
	if value == "" {
		return paces, nil
	}
	const want = "write MODEL=DURATION[,…], for example H100-80GB=8ms,L4-24GB=30ms"
	for pair := range strings.SplitSeq(value, ",") {
		model, text, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if !ok || model == "" {
			return nil, fmt.Errorf("--itl-by-gpu %q: %q is not MODEL=DURATION; %s", value, pair, want)
		}
		if _, twice := paces[model]; twice {
			return nil, fmt.Errorf("--itl-by-gpu %q: %s is there twice; %s", value, model, want)
		}
		itl, err := time.ParseDuration(text)
		if err != nil {
			return nil, fmt.Errorf("--itl-by-gpu %q: %q is not a duration; %s", value, text, want)
		}
		if itl < 0 || itl > maxITL {
			return nil, fmt.Errorf("--itl-by-gpu %q: %s=%v must be between 0 and %v; %s", value, model, itl, maxITL, want)
		}
		paces[model] = itl
	}
	return paces, nil
}

// For returns the time between tokens on a GPU model, and fallback for a model
// that is not in the table.
func (g GPUPaces) For(model string, fallback time.Duration) time.Duration {
	if itl, ok := g[model]; ok {
		return itl
	}
	return fallback
}

// String is the form ParseGPUPaces reads, sorted by model.
func (g GPUPaces) String() string {
	pairs := make([]string, 0, len(g))
	for _, model := range slices.Sorted(maps.Keys(g)) {
		pairs = append(pairs, model+"="+g[model].String())
	}
	return strings.Join(pairs, ",")
}
