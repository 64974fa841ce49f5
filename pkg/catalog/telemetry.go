// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"errors"
	"fmt"
	"time"
)

// Telemetry is what one pod's GPUs did while its segment lasted.
type Telemetry struct {
	PodUID string         `json:"podUID,omitempty" readOnly:"true" doc:"UID of the pod"`
	From   time.Time      `json:"from,omitzero" doc:"First sample"`
	To     time.Time      `json:"to,omitzero" doc:"Last sample"`
	GPUs   []GPUTelemetry `json:"gpus,omitempty" nullable:"false" maxItems:"1024" doc:"One summary per GPU"`
}

// GPUTelemetry summarises one GPU over a segment.
type GPUTelemetry struct {
	UUID             string        `json:"uuid" maxLength:"128" doc:"UUID of the GPU"`
	Model            string        `json:"model,omitempty" maxLength:"128" doc:"Model of the GPU"`
	Samples          int64         `json:"samples,omitempty" minimum:"0" doc:"Samples taken"`
	PowerWatts       *Distribution `json:"powerWatts,omitempty" doc:"Board power, watts"`
	EnergyJoules     float64       `json:"energyJoules,omitempty" minimum:"0" doc:"Energy used, joules"`
	SMClockMHz       *Distribution `json:"smClockMHz,omitempty" doc:"Clock of the multiprocessors, MHz"`
	TemperatureC     *Distribution `json:"temperatureC,omitempty" doc:"Temperature, °C"`
	Utilization      *Distribution `json:"utilization,omitempty" doc:"Share of time in which a kernel ran, percent"`
	MemoryUsedBytes  *Distribution `json:"memoryUsedBytes,omitempty" doc:"Memory in use, bytes"`
	ThrottledSeconds *Throttling   `json:"throttledSeconds,omitempty" doc:"Time spent at reduced clocks, seconds"`
	// ReasonSeconds is as ThrottledSeconds, by the driver's own names.
	ReasonSeconds    map[string]float64 `json:"reasonSeconds,omitempty" doc:"Time at reduced clocks by the driver's reason, seconds"`
	ClockSteadiness  *float64           `json:"clockSteadiness,omitempty" minimum:"0" maximum:"1" doc:"Share of the samples with a kernel running in which the clock was within 5 % of their median"`
	SingleBitErrors  uint64             `json:"singleBitErrors,omitempty" doc:"Corrected memory errors that happened meanwhile"`
	DoubleBitErrors  uint64             `json:"doubleBitErrors,omitempty" doc:"Uncorrectable memory errors that happened meanwhile"`
	RemappedRows     uint64             `json:"remappedRows,omitempty" doc:"Rows of memory that were replaced meanwhile"`
	PCIeReplays      uint64             `json:"pcieReplays,omitempty" doc:"Transfers over PCIe that were repeated meanwhile"`
	XIDs             map[string]int64   `json:"xids,omitempty" doc:"Errors that the driver reported, how often by XID"`
	Neighbours       int64              `json:"neighbours,omitempty" minimum:"0" doc:"Most other pods that held a part of the GPU at once"`
	NeighbourSeconds float64            `json:"neighbourSeconds,omitempty" minimum:"0" doc:"Time in which at least one did, seconds"`
}

// Distribution summarises samples of one quantity.
type Distribution struct {
	Mean float64 `json:"mean"`
	P5   float64 `json:"p5,omitempty"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	Max  float64 `json:"max"`
}

// Throttling is the time a GPU ran below the clocks it was asked for, by cause.
type Throttling struct {
	Thermal float64 `json:"thermal,omitempty" minimum:"0" doc:"Because it was too hot"`
	Power   float64 `json:"power,omitempty" minimum:"0" doc:"Because of its power limit"`
	Other   float64 `json:"other,omitempty" minimum:"0" doc:"For a reason that the driver does not tell"`
}

// Validate says what is wrong with the telemetry.
func (t Telemetry) Validate() error {
	errs := []error{inOrder("from", t.From, "to", t.To)}
	seen := map[string]bool{}
	for n, g := range t.GPUs {
		if g.UUID == "" {
			errs = append(errs, fmt.Errorf("gpus[%d].uuid is empty; give the GPU's UUID", n))
		} else if seen[g.UUID] {
			errs = append(errs, fmt.Errorf("gpus[%d].uuid %s is there twice; give one summary per GPU", n, g.UUID))
		}
		seen[g.UUID] = true
	}
	return errors.Join(errs...)
}

// EnergyJoules is the energy of all GPUs.
func (t Telemetry) EnergyJoules() float64 {
	sum := 0.0
	for _, g := range t.GPUs {
		sum += g.EnergyJoules
	}
	return sum
}
