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

// GPUTelemetry summarises one GPU, or one MIG instance, over a segment. What the GPU
// did not give is absent.
type GPUTelemetry struct {
	UUID               string             `json:"uuid" maxLength:"128" doc:"UUID of the GPU, or of its MIG instance"`
	Model              string             `json:"model,omitempty" maxLength:"128" doc:"Model of the GPU"`
	MIGProfile         string             `json:"migProfile,omitempty" maxLength:"64" doc:"Size of the MIG instance; power, energy, temperature, clocks and errors are then those of the whole GPU" example:"1g.10gb"`
	GPUUUID            string             `json:"gpuUUID,omitempty" maxLength:"128" doc:"UUID of the GPU that the MIG instance is part of"`
	Driver             string             `json:"driver,omitempty" maxLength:"128" doc:"Version of the NVIDIA driver"`
	Samples            int64              `json:"samples,omitempty" minimum:"0" doc:"Samples taken"`
	PowerWatts         *Distribution      `json:"powerWatts,omitempty" doc:"Board power, watts"`
	EnergyJoules       float64            `json:"energyJoules,omitempty" minimum:"0" doc:"Energy used, joules"`
	EnergySource       string             `json:"energySource,omitempty" enum:"counter,integral,mixed" doc:"Whether the energy is the GPU's own count, the power over time, or both in turn"`
	SMClockMHz         *Distribution      `json:"smClockMHz,omitempty" doc:"Clock of the multiprocessors, MHz"`
	MemClockMHz        *Distribution      `json:"memClockMHz,omitempty" doc:"Clock of the memory, MHz"`
	ClockSteadiness    *float64           `json:"clockSteadiness,omitempty" minimum:"0" maximum:"1" doc:"Share of the samples with a kernel running whose SM clock is within 5 % of their median"`
	TemperatureC       *Distribution      `json:"temperatureC,omitempty" doc:"Temperature, °C"`
	MemoryTemperatureC *Distribution      `json:"memoryTemperatureC,omitempty" doc:"Temperature of the memory, °C"`
	Utilization        *Distribution      `json:"utilization,omitempty" doc:"Share of time in which a kernel ran, percent"`
	GREngineActive     *Distribution      `json:"grEngineActive,omitempty" doc:"Share of time in which the compute engine was active, 0 to 1"`
	SMActive           *Distribution      `json:"smActive,omitempty" doc:"Share of cycles in which a multiprocessor had a warp, 0 to 1"`
	PipeTensorActive   *Distribution      `json:"pipeTensorActive,omitempty" doc:"Share of cycles in which the tensor pipe was active, 0 to 1"`
	DRAMActive         *Distribution      `json:"dramActive,omitempty" doc:"Share of cycles in which the memory interface moved data, 0 to 1"`
	MemoryUsedBytes    *Distribution      `json:"memoryUsedBytes,omitempty" doc:"Memory in use, bytes"`
	ThrottledSeconds   *Throttling        `json:"throttledSeconds,omitempty" doc:"Time spent at reduced clocks, seconds"`
	ThrottleReasons    map[string]float64 `json:"throttleReasons,omitempty" doc:"The same by the driver's reason (dcgm-exporter's clock_event), seconds"`
	SingleBitErrors    uint64             `json:"singleBitErrors,omitempty" doc:"Corrected memory errors that happened meanwhile"`
	DoubleBitErrors    uint64             `json:"doubleBitErrors,omitempty" doc:"Uncorrectable memory errors that happened meanwhile"`
	RemappedRows       uint64             `json:"remappedRows,omitempty" doc:"Memory rows remapped meanwhile"`
	PCIeReplays        uint64             `json:"pcieReplays,omitempty" doc:"PCIe packets sent again meanwhile"`
	XIDs               []XIDCount         `json:"xids,omitempty" nullable:"false" maxItems:"1024" doc:"Errors that the driver reported meanwhile"`
	Neighbours         int64              `json:"neighbours,omitempty" minimum:"0" doc:"Most other pods that held a part of the same GPU at once"`
	NeighbourSeconds   float64            `json:"neighbourSeconds,omitempty" minimum:"0" doc:"Time in which another pod held a part of the same GPU, seconds"`
	Series             *Series            `json:"series,omitempty" doc:"How it went over time; only in a run's telemetry, and kept when a later summary has none"`
}

// Series is how a GPU went over time: for each step the mean of a quantity, null where
// nothing was sampled. What the GPU did not give at all is absent.
type Series struct {
	From            time.Time  `json:"from" doc:"Start of the first step"`
	StepSeconds     float64    `json:"stepSeconds" minimum:"0.001" maximum:"1e8" doc:"Length of a step, seconds"`
	PowerWatts      []*float64 `json:"powerWatts,omitempty" nullable:"false" maxItems:"240" doc:"Board power, watts"`
	SMClockMHz      []*float64 `json:"smClockMHz,omitempty" nullable:"false" maxItems:"240" doc:"Clock of the multiprocessors, MHz"`
	TemperatureC    []*float64 `json:"temperatureC,omitempty" nullable:"false" maxItems:"240" doc:"Temperature, °C"`
	Utilization     []*float64 `json:"utilization,omitempty" nullable:"false" maxItems:"240" doc:"Share of time in which a kernel ran, percent"`
	MemoryUsedBytes []*float64 `json:"memoryUsedBytes,omitempty" nullable:"false" maxItems:"240" doc:"Memory in use, bytes"`
	Throttled       []*float64 `json:"throttled,omitempty" nullable:"false" maxItems:"240" doc:"Share of the samples with the clocks held down, 0 to 1"`
}

// MaxSeries is the most steps of a series.
const MaxSeries = 240

// XIDCount is how often the driver reported one error.
type XIDCount struct {
	Code  int64  `json:"code" minimum:"1" maximum:"100000" doc:"NVIDIA's number of the error"`
	Count int64  `json:"count" minimum:"1" doc:"How often it was reported"`
	Cause string `json:"cause,omitempty" enum:"application,hardware,other" doc:"application: a faulty program causes it, and the GPU is sound; hardware: the GPU cannot be relied on after it"`
}

// Distribution summarises samples of one quantity.
type Distribution struct {
	Mean float64  `json:"mean"`
	P5   *float64 `json:"p5,omitempty"`
	P50  float64  `json:"p50"`
	P95  float64  `json:"p95"`
	Max  float64  `json:"max"`
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
		if g.Series != nil {
			errs = append(errs, g.Series.validate(n))
		}
	}
	return errors.Join(errs...)
}

func (s Series) validate(gpu int) error {
	var errs []error
	if !(s.StepSeconds > 0) || s.StepSeconds > 1e8 || s.From.IsZero() {
		errs = append(errs, fmt.Errorf("gpus[%d].series: it needs from, and stepSeconds above 0", gpu))
	}
	for _, values := range [][]*float64{s.PowerWatts, s.SMClockMHz, s.TemperatureC, s.Utilization, s.MemoryUsedBytes, s.Throttled} {
		if len(values) > MaxSeries {
			errs = append(errs, fmt.Errorf("gpus[%d].series: %d steps are more than the %d it may have; make them longer", gpu, len(values), MaxSeries))
		}
	}
	return errors.Join(errs...)
}

// EnergyJoules is the energy of all GPUs. What two MIG instances of one GPU tell is the
// energy of that GPU, and counts once.
func (t Telemetry) EnergyJoules() float64 {
	sum, counted := 0.0, map[string]bool{}
	for _, g := range t.GPUs {
		if g.GPUUUID != "" && counted[g.GPUUUID] {
			continue
		}
		counted[g.GPUUUID] = true
		sum += g.EnergyJoules
	}
	return sum
}
