// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"fmt"
	"slices"
)

// Verdict is how far a run's results may be believed.
type Verdict string

// The verdicts, from bad to good; Pending is for runs that go on.
const (
	Invalid Verdict = "invalid"
	Suspect Verdict = "suspect"
	Pending Verdict = "pending"
	Valid   Verdict = "valid"
)

// RulesVersion is the version of the rules below. It grows with every change of
// what they find, so that verdicts that were stored by older ones are found.
const RulesVersion = 1

// Validity is a verdict with its reasons; a valid run may have none.
type Validity struct {
	Verdict Verdict  `json:"verdict" enum:"valid,suspect,invalid,pending"`
	Reasons []Reason `json:"reasons" nullable:"false"`
	Rules   int      `json:"rules" doc:"Version of the rules that it was judged by"`
}

// Reason is one finding that led to a verdict.
type Reason struct {
	Code       string   `json:"code" doc:"Stable name of the finding" example:"mixed-gpu"`
	Verdict    Verdict  `json:"verdict" enum:"suspect,invalid" doc:"The verdict it calls for"`
	Message    string   `json:"message" doc:"One sentence for people"`
	Suggestion string   `json:"suggestion" doc:"What to do for results that are valid"`
	Points     []string `json:"points,omitempty" nullable:"false" doc:"Measured points to run again; absent where it is the whole run"`
}

// Rule is one thing that can speak against a run's results.
type Rule struct {
	Code    string
	Verdict Verdict
	// When is the finding and Suggestion what to do about it, for people.
	When, Suggestion string
	find             func(Parts) []finding
}

// finding is a sentence, and the points it is about unless it is the whole run.
type finding struct {
	message string
	points  []string
}

// Judge says whether a run's results may be believed: as far as the worst of
// what the rules find.
func Judge(p Parts) Validity {
	v := Validity{Verdict: Valid, Reasons: []Reason{}, Rules: RulesVersion}
	if !ended(p.Run) {
		v.Verdict = Pending
	}
	for _, rule := range Rules() {
		for _, f := range rule.find(p) {
			v.Reasons = append(v.Reasons, Reason{Code: rule.Code, Verdict: rule.Verdict, Message: f.message, Suggestion: rule.Suggestion, Points: f.points})
			if rule.Verdict == Invalid || v.Verdict == Valid {
				v.Verdict = rule.Verdict
			}
		}
	}
	return v
}

func ended(r Run) bool { return r.Status == Succeeded || r.Status == Failed }

func label(r Result) string {
	if r.Concurrency != nil {
		return fmt.Sprintf("concurrency %d", *r.Concurrency)
	}
	if r.File != "" {
		return r.File
	}
	return r.ID
}

func gpuModels(segments []Segment) []string {
	var models []string
	for _, s := range segments {
		if s.GPUModel != "" {
			models = append(models, s.GPUModel)
		}
	}
	slices.Sort(models)
	return slices.Compact(models)
}

func measuredModels(segments []MeasuredOn) []string {
	var models []string
	for _, s := range segments {
		if s.GPUModel != "" && s.Completed > 0 {
			models = append(models, s.GPUModel)
		}
	}
	slices.Sort(models)
	return slices.Compact(models)
}
