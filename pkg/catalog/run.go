// SPDX-License-Identifier: Apache-2.0

// Package catalog is the domain of the model and benchmark catalog: what a run
// is, where it ran and what that cost, how it was interrupted, on what hardware
// state its results were measured, and whether they may be believed. It is pure:
// no clock, no storage, no network. Its types are also the JSON of the REST API.
package catalog

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"time"
)

// Status is how far a run has come.
type Status string

// The states of a run. A run that succeeded stays so, whatever arrives late.
const (
	Running     Status = "running"
	Interrupted Status = "interrupted"
	Failed      Status = "failed"
	Succeeded   Status = "succeeded"
)

// Run is one benchmark of one model, from its first pod to its last. The fields
// about the pod, its placement and its price are those of the newest pod; earlier
// ones are in the run's segments.
type Run struct {
	Key       string `json:"key,omitempty" readOnly:"true" doc:"Name of the run, the same for every pod that continues it" example:"gpu-workloads/llama-sweep-1a2b3c4d"`
	Namespace string `json:"namespace,omitempty" maxLength:"253" doc:"Namespace of the run's pods"`
	PodName   string `json:"podName,omitempty" maxLength:"253" doc:"Newest pod of the run"`
	PodUID    string `json:"podUID,omitempty" maxLength:"128" doc:"UID of the newest pod"`

	Model         string `json:"model,omitempty" maxLength:"512" doc:"Model under test, as on Hugging Face: org/name" example:"meta-llama/Llama-3.1-8B-Instruct"`
	Benchmark     string `json:"benchmark,omitempty" maxLength:"512" doc:"Name of the benchmark"`
	Image         string `json:"image,omitempty" maxLength:"1024" doc:"Container image as the pod asked for it"`
	ImageDigest   string `json:"imageDigest,omitempty" maxLength:"1024" doc:"Digest of the image that ran"`
	Engine        string `json:"engine,omitempty" maxLength:"128" doc:"Inference engine under test" example:"vllm"`
	EngineVersion string `json:"engineVersion,omitempty" maxLength:"128" doc:"Its version" example:"0.11.0"`
	DriverVersion string `json:"driverVersion,omitempty" maxLength:"128" doc:"Version of the GPU driver of the newest pod's node" example:"570.133.20"`
	Status        Status `json:"status,omitempty" enum:"running,interrupted,failed,succeeded" doc:"State of the run; succeeded is final"`

	GPUModel     string `json:"gpuModel,omitempty" maxLength:"128" doc:"Model of the GPUs, canonical" example:"H100-80GB"`
	GPUCount     int    `json:"gpuCount,omitempty" minimum:"0" maximum:"1024" doc:"GPUs of the pod"`
	Node         string `json:"node,omitempty" maxLength:"253" doc:"Node of the newest pod"`
	Zone         string `json:"zone,omitempty" maxLength:"128"`
	Region       string `json:"region,omitempty" maxLength:"128"`
	InstanceType string `json:"instanceType,omitempty" maxLength:"128"`
	CapacityType string `json:"capacityType,omitempty" enum:"spot,on-demand" doc:"How the node was bought"`

	USDPerHour         float64 `json:"usdPerHour,omitempty" minimum:"0" maximum:"1000000" doc:"Price of the run's share of the node, USD per hour; absent when unknown"`
	OnDemandUSDPerHour float64 `json:"onDemandUSDPerHour,omitempty" minimum:"0" maximum:"1000000" doc:"The same share of the same node on demand, USD per hour; absent when unknown"`
	PriceSource        string  `json:"priceSource,omitempty" maxLength:"512" doc:"Where the prices are from" example:"price book of the scheduler, 2026-11-01"`
	PlacementReason    string  `json:"placementReason,omitempty" maxLength:"4096" doc:"The scheduler's own reason for the newest placement"`

	StartedAt  time.Time `json:"startedAt,omitzero" doc:"When the first pod started"`
	FinishedAt time.Time `json:"finishedAt,omitzero" doc:"When the run succeeded or failed; absent while it may go on"`
}

// keyPattern is what benchspec.RunKey makes, with the upper case that pod names
// cannot have refused: segments of [a-z0-9._-] joined by slashes.
var keyPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*$`)

// MaxKeyLength is the longest run key, in bytes.
const MaxKeyLength = 512

// ValidateKey says what is wrong with a run key.
func ValidateKey(key string) error {
	if len(key) > MaxKeyLength {
		return fmt.Errorf("run key of %d bytes is too long; use at most %d", len(key), MaxKeyLength)
	}
	if !keyPattern.MatchString(key) {
		return fmt.Errorf("run key %q is not made of parts of [a-z0-9._-] joined by slashes; use for example %q", key, "gpu-workloads/llama-sweep-1a2b3c4d")
	}
	return nil
}

// Validate says what is wrong with the run.
func (r Run) Validate() error {
	var errs []error
	switch r.Status {
	case "", Running, Interrupted, Failed, Succeeded:
	default:
		errs = append(errs, fmt.Errorf("status %q is unknown; use running, interrupted, failed or succeeded", r.Status))
	}
	errs = append(errs, validCapacity(r.CapacityType), validPrice("usdPerHour", r.USDPerHour), validPrice("onDemandUSDPerHour", r.OnDemandUSDPerHour),
		inOrder("startedAt", r.StartedAt, "finishedAt", r.FinishedAt))
	if r.GPUCount < 0 {
		errs = append(errs, fmt.Errorf("gpuCount %d is negative; give the number of the pod's GPUs", r.GPUCount))
	}
	return errors.Join(errs...)
}

// Merge is the run after an update: fields that the update does not have keep
// their value, the start is the earliest told, and an update that comes after
// success (from the agent of an earlier node, say) only fills what is empty.
func (r Run) Merge(update Run) Run {
	old, late := r, r.Status == Succeeded && update.Status != Succeeded
	set(&r.Namespace, update.Namespace, late)
	set(&r.PodName, update.PodName, late)
	set(&r.PodUID, update.PodUID, late)
	set(&r.Model, update.Model, late)
	set(&r.Benchmark, update.Benchmark, late)
	set(&r.Image, update.Image, late)
	set(&r.ImageDigest, update.ImageDigest, late)
	set(&r.Engine, update.Engine, late)
	set(&r.EngineVersion, update.EngineVersion, late)
	set(&r.DriverVersion, update.DriverVersion, late)
	set(&r.PriceSource, update.PriceSource, late)
	set(&r.Status, update.Status, late)
	set(&r.GPUModel, update.GPUModel, late)
	set(&r.GPUCount, update.GPUCount, late)
	set(&r.Node, update.Node, late)
	set(&r.Zone, update.Zone, late)
	set(&r.Region, update.Region, late)
	set(&r.InstanceType, update.InstanceType, late)
	set(&r.CapacityType, update.CapacityType, late)
	set(&r.USDPerHour, update.USDPerHour, late)
	set(&r.OnDemandUSDPerHour, update.OnDemandUSDPerHour, late)
	set(&r.PlacementReason, update.PlacementReason, late)
	if old.StartedAt.IsZero() || !update.StartedAt.IsZero() && update.StartedAt.Before(old.StartedAt) {
		r.StartedAt = update.StartedAt
	}
	set(&r.FinishedAt, update.FinishedAt, late)
	if r.Status == Running || r.Status == Interrupted {
		r.FinishedAt = time.Time{} // a run that was tried again has no end yet
	}
	return r
}

// set replaces what is there by the update's value, if the update has one and,
// where only gaps are to be filled, if there is nothing yet.
func set[T comparable](into *T, update T, onlyGaps bool) {
	var zero T
	if update != zero && (!onlyGaps || *into == zero) {
		*into = update
	}
}

func validCapacity(capacity string) error {
	if capacity != "" && capacity != "spot" && capacity != "on-demand" {
		return fmt.Errorf("capacityType %q is unknown; use spot or on-demand", capacity)
	}
	return nil
}

func validPrice(field string, usd float64) error {
	if math.IsNaN(usd) || usd < 0 || usd > 1e6 {
		return fmt.Errorf("%s %v is not a price; give USD per hour from 0 to 1000000", field, usd)
	}
	return nil
}

func inOrder(first string, from time.Time, second string, to time.Time) error {
	if !from.IsZero() && !to.IsZero() && to.Before(from) {
		return fmt.Errorf("%s %s is before %s %s; swap them or correct one", second, to.Format(time.RFC3339), first, from.Format(time.RFC3339))
	}
	return nil
}
