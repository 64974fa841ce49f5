// SPDX-License-Identifier: Apache-2.0

package benchspec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// Placement is the scheduler's decision about a pod, as the annotation placement
// has it.
type Placement struct {
	Node         string `json:"node"`
	Provider     string `json:"provider,omitempty"`
	Region       string `json:"region,omitempty"`
	Zone         string `json:"zone,omitempty"`
	InstanceType string `json:"instanceType,omitempty"`
	// GPUModel is canonical, of a MIG slice the card's with the profile
	// ("A100-80GB-MIG-1g.10gb"); GPUCount is how many of them the pod has.
	GPUModel string `json:"gpuModel,omitempty"`
	GPUCount int    `json:"gpuCount"`
	// Resource is by what the pod asked for them, where it is not nvidia.com/gpu:
	// "nvidia.com/mig-1g.10gb".
	Resource string `json:"resource,omitempty"`
	// CapacityType is "spot" or "on-demand".
	CapacityType string `json:"capacityType"`
	// USDPerHour is the price of the whole node times the share of its GPUs that
	// the pod asked for; 0 when no price is known (see Reason).
	USDPerHour float64 `json:"usdPerHour"`
	// OnDemandUSDPerHour is the same share of the same node's on-demand price; 0
	// when no price is known.
	OnDemandUSDPerHour float64 `json:"onDemandUSDPerHour,omitempty"`
	// InterruptionRisk is the probability of an interruption over ExpectedHours of
	// work.
	InterruptionRisk float64 `json:"interruptionRisk"`
	// ExpectedHours is the time to finish here, interruptions and restarts counted.
	ExpectedHours float64 `json:"expectedHours"`
	// ExpectedCostUSD is what finishing here is expected to cost, OnDemandCostUSD
	// what the same GPUs on demand would cost for the same work.
	ExpectedCostUSD float64 `json:"expectedCostUSD"`
	OnDemandCostUSD float64 `json:"onDemandCostUSD"`
	// Reason is one sentence: why this node.
	Reason string `json:"reason"`
	// Alternatives are the next best feasible nodes, best first, three at most.
	Alternatives []Alternative `json:"alternatives,omitempty"`
	// Refused has, for nodes that were not chosen, what kept each; capped in number,
	// so it may be incomplete.
	Refused map[string]string `json:"refused,omitempty"`
}

// Alternative is a node that would have done, with what it lost by.
type Alternative struct {
	Node         string `json:"node"`
	GPUModel     string `json:"gpuModel,omitempty"`
	InstanceType string `json:"instanceType,omitempty"`
	Zone         string `json:"zone,omitempty"`
	CapacityType string `json:"capacityType"`
	// The figures mean what the placement's of the same name do.
	USDPerHour       float64 `json:"usdPerHour"`
	InterruptionRisk float64 `json:"interruptionRisk"`
	ExpectedCostUSD  float64 `json:"expectedCostUSD"`
	// Lost is the first thing in which it is worse: "costs $1.20 more".
	Lost string `json:"lost"`
}

// String is the annotation's value.
func (p Placement) String() string {
	b, err := json.Marshal(p)
	if err != nil {
		// Only a NaN or infinite number can do this; ParsePlacement would refuse it too.
		return ""
	}
	return string(b)
}

// ParsePlacement reads the value of the annotation placement (a pod gets it
// through the downward API). Fields it does not know are ignored, so that pods
// outlive upgrades.
func ParsePlacement(value string) (Placement, error) {
	var p Placement
	dec := json.NewDecoder(bytes.NewReader([]byte(value)))
	if err := dec.Decode(&p); err != nil {
		return Placement{}, fmt.Errorf("annotation %s: value %s is not the JSON object the scheduler writes: %w", AnnotationPlacement, quote(value), err)
	}
	if dec.More() {
		return Placement{}, fmt.Errorf("annotation %s: value %s has something after its JSON object", AnnotationPlacement, quote(value))
	}
	var problems []error
	bad := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("annotation "+AnnotationPlacement+": "+format, args...))
	}
	if p.Node == "" {
		bad("field node is empty")
	}
	if p.GPUCount < 0 {
		bad("field gpuCount is %d; it cannot be negative", p.GPUCount)
	}
	for _, f := range []struct {
		name  string
		value float64
		max   float64
	}{
		{"usdPerHour", p.USDPerHour, math.MaxFloat64},
		{"onDemandUSDPerHour", p.OnDemandUSDPerHour, math.MaxFloat64},
		{"interruptionRisk", p.InterruptionRisk, 1},
		{"expectedHours", p.ExpectedHours, math.MaxFloat64},
		{"expectedCostUSD", p.ExpectedCostUSD, math.MaxFloat64},
		{"onDemandCostUSD", p.OnDemandCostUSD, math.MaxFloat64},
	} {
		if f.value < 0 || f.value > f.max {
			bad("field %s is %v; it must be between 0 and %v", f.name, f.value, f.max)
		}
	}
	if err := errors.Join(problems...); err != nil {
		return Placement{}, err
	}
	return p, nil
}
