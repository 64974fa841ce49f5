// SPDX-License-Identifier: Apache-2.0

// Package telemetry samples a node's GPUs, knows which pod holds which, and
// boils the samples of a run down to a summary that fits in a record.
package telemetry

import (
	"maps"
	"slices"
	"time"
)

// Reading is one look at one GPU.
type Reading struct {
	// UUID is the GPU's, "GPU-…" or "MIG-…".
	UUID string
	// Index is the GPU's number on its node.
	Index int
	// Model is the driver's name of it, for example "NVIDIA H100 80GB HBM3".
	Model string
	// PowerWatts is the board's draw (NVML: power usage, DCGM_FI_DEV_POWER_USAGE).
	PowerWatts float64
	// EnergyJoules is the counter since the driver was loaded (DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION,
	// there in millijoules). It starts over when the driver is loaded again.
	EnergyJoules float64
	// SMClockMHz and MemClockMHz are the current clocks (DCGM_FI_DEV_SM_CLOCK, _MEM_CLOCK).
	SMClockMHz, MemClockMHz int
	// TemperatureC is the die's (DCGM_FI_DEV_GPU_TEMP).
	TemperatureC int
	// UtilizationPercent is the share of time with a kernel running (DCGM_FI_DEV_GPU_UTIL).
	UtilizationPercent int
	// MemoryUsedBytes and MemoryTotalBytes are of the frame buffer (DCGM_FI_DEV_FB_USED, there in MiB).
	MemoryUsedBytes, MemoryTotalBytes uint64
	// Throttle is why the clocks are held down, if they are.
	Throttle Throttle
	// DoubleBitErrors is the volatile count of uncorrectable ECC errors.
	DoubleBitErrors uint64
}

// Throttle is the set of reasons for which clocks are held down.
type Throttle struct {
	// Thermal is a slowdown by software or hardware because of heat.
	Thermal bool
	// Power is the power cap or the external power brake.
	Power bool
	// Other is a hardware slowdown that the driver explains no further.
	Other bool
}

// Distribution describes a metric over time.
type Distribution struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	Max  float64 `json:"max"`
}

// GPUSummary is what one GPU did while a pod held it.
type GPUSummary struct {
	UUID    string `json:"uuid"`
	Model   string `json:"model"`
	Samples int    `json:"samples"`
	// PowerWatts is in W, SMClockMHz in MHz, TemperatureC in °C, Utilization in
	// percent, MemoryUsedBytes in bytes (to the MiB).
	PowerWatts      Distribution `json:"powerWatts"`
	SMClockMHz      Distribution `json:"smClockMHz"`
	TemperatureC    Distribution `json:"temperatureC"`
	Utilization     Distribution `json:"utilization"`
	MemoryUsedBytes Distribution `json:"memoryUsedBytes"`
	// EnergyJoules is the counter's growth between the first and the last sample.
	EnergyJoules float64 `json:"energyJoules"`
	// ThrottledSeconds is the time the clocks were held down, by reason.
	ThrottledSeconds ThrottledSeconds `json:"throttledSeconds"`
	// DoubleBitErrors is the growth of the count of uncorrectable ECC errors.
	DoubleBitErrors uint64 `json:"doubleBitErrors"`
}

// ThrottledSeconds is time by reason; two reasons at once count in both.
type ThrottledSeconds struct {
	Thermal float64 `json:"thermal"`
	Power   float64 `json:"power"`
	Other   float64 `json:"other"`
}

// Summary is what the GPUs of a pod did from its first sample to its last.
type Summary struct {
	From time.Time    `json:"from"`
	To   time.Time    `json:"to"`
	GPUs []GPUSummary `json:"gpus"`
}

// Accumulator collects the readings of one pod. It keeps counts per whole unit
// (W, MHz, °C, %, MiB) and not the samples, so that it stays small however long
// the pod runs; its percentiles are exact to that unit.
type Accumulator struct {
	from, to time.Time
	gpus     map[string]*gpuCounts
}

type gpuCounts struct {
	first, last                    Reading
	lastAt                         time.Time
	samples                        int
	energy                         float64
	power, clock, temp, util, used counts
	throttled                      ThrottledSeconds
}

// Add takes the readings of one moment. A reading stands for the time since the
// GPU's reading before it.
func (a *Accumulator) Add(at time.Time, readings []Reading) {
	if len(readings) == 0 {
		return
	}
	if a.gpus == nil {
		a.gpus, a.from = map[string]*gpuCounts{}, at
	}
	a.to = at
	for _, r := range readings {
		g := a.gpus[r.UUID]
		if g == nil {
			g = &gpuCounts{first: r, last: r, lastAt: at}
			a.gpus[r.UUID] = g
		}
		g.samples++
		g.power.add(r.PowerWatts)
		g.clock.add(float64(r.SMClockMHz))
		g.temp.add(float64(r.TemperatureC))
		g.util.add(float64(r.UtilizationPercent))
		g.used.add(float64(r.MemoryUsedBytes >> 20))
		// A counter that went backwards was reset: what it shows is the growth since.
		if grown := r.EnergyJoules - g.last.EnergyJoules; grown >= 0 {
			g.energy += grown
		} else {
			g.energy += r.EnergyJoules
		}
		elapsed := at.Sub(g.lastAt).Seconds()
		if r.Throttle.Thermal {
			g.throttled.Thermal += elapsed
		}
		if r.Throttle.Power {
			g.throttled.Power += elapsed
		}
		if r.Throttle.Other {
			g.throttled.Other += elapsed
		}
		g.last, g.lastAt = r, at
	}
}

// Summary boils down what was added so far; GPUs are in the order of their index.
func (a *Accumulator) Summary() Summary {
	s := Summary{From: a.from, To: a.to}
	for _, uuid := range slices.SortedFunc(maps.Keys(a.gpus), func(x, y string) int { return a.gpus[x].first.Index - a.gpus[y].first.Index }) {
		g := a.gpus[uuid]
		const mib = 1 << 20
		s.GPUs = append(s.GPUs, GPUSummary{
			UUID: uuid, Model: g.first.Model, Samples: g.samples,
			PowerWatts: g.power.distribution(1), SMClockMHz: g.clock.distribution(1), TemperatureC: g.temp.distribution(1),
			Utilization: g.util.distribution(1), MemoryUsedBytes: g.used.distribution(mib),
			EnergyJoules: g.energy, ThrottledSeconds: g.throttled,
			DoubleBitErrors: g.last.DoubleBitErrors - min(g.last.DoubleBitErrors, g.first.DoubleBitErrors),
		})
	}
	return s
}

// counts is how often each whole value was seen, and the exact sum.
type counts struct {
	seen map[int]int
	n    int
	sum  float64
}

func (c *counts) add(v float64) {
	if c.seen == nil {
		c.seen = map[int]int{}
	}
	c.seen[int(v+0.5)]++
	c.n++
	c.sum += v
}

// distribution reports the values times unit, by the nearest-rank definition of
// a percentile: the smallest value that at least p % of the samples do not exceed.
func (c *counts) distribution(unit float64) Distribution {
	if c.n == 0 {
		return Distribution{}
	}
	values := slices.Sorted(maps.Keys(c.seen))
	rank := func(percent int) float64 {
		need, below := (c.n*percent+99)/100, 0
		for _, v := range values {
			if below += c.seen[v]; below >= need {
				return float64(v) * unit
			}
		}
		return float64(values[len(values)-1]) * unit
	}
	return Distribution{Mean: c.sum / float64(c.n) * unit, P50: rank(50), P95: rank(95), Max: float64(values[len(values)-1]) * unit}
}
