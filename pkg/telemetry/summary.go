// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
)

// Distribution describes a quantity over time.
type Distribution struct {
	Mean float64
	P5   float64
	P50  float64
	P95  float64
	Max  float64
}

// GPUSummary is what one device did while a pod held it. A distribution is nil if
// the quantity was never given.
type GPUSummary struct {
	Device
	Samples int
	// PowerWatts is in W, clocks in MHz, temperatures in °C, Utilization in percent,
	// MemoryUsedBytes in bytes (to 16 MiB), the last four as shares of 1 (to 0.01).
	PowerWatts, SMClockMHz, MemClockMHz, TemperatureC, MemoryTemperatureC, Utilization, MemoryUsedBytes *Distribution
	GREngineActive, SMActive, PipeTensorActive, DRAMActive                                              *Distribution
	// EnergyJoules is of the whole GPU, see EnergySource. For a MIG instance it is
	// the energy of the GPU that it is part of.
	EnergyJoules float64
	EnergySource EnergySource
	// ThrottledSeconds is the time the clocks were held down, by cause;
	// ReasonSeconds is the same by the driver's reason, by its name in Reasons.
	ThrottledSeconds ThrottledSeconds
	ReasonSeconds    map[string]float64
	// ClockSteadiness is the share of the samples with a kernel running in which the
	// SM clock was within 5 % of their median; nil without such samples.
	ClockSteadiness *float64
	// The growth of the driver's counters between the first and the last sample.
	SingleBitErrors, DoubleBitErrors, RemappedRows, PCIeReplays uint64
	// XIDs is how often the driver reported which error of this GPU.
	XIDs map[int]int
	// Neighbours is the most other pods that held a part of the GPU at once, and
	// NeighbourSeconds the time in which at least one did.
	Neighbours       int
	NeighbourSeconds float64
	// Series is how it went over the pod's time.
	Series Series
}

// EnergySource is how an energy was found.
type EnergySource string

// The sources: the GPU's own counter, or the power draw over time where there is
// no counter, or each for a part of the time.
const (
	EnergyCounter  EnergySource = "counter"
	EnergyIntegral EnergySource = "integral"
	EnergyMixed    EnergySource = "mixed"
)

// ThrottledSeconds is time by cause; two causes at once count in both.
type ThrottledSeconds struct {
	Thermal float64
	Power   float64
	Other   float64
}

// Summary is what the GPUs of a pod did from its first sample to its last.
type Summary struct {
	From time.Time
	To   time.Time
	GPUs []GPUSummary
}

// Seen is one sample of a device that a pod holds.
type Seen struct {
	Sample
	// Neighbours is how many other pods hold a part of the same GPU.
	Neighbours int
}

// Accumulator collects the samples of one pod. It keeps counts per whole unit and a
// bounded series of means, not the samples, so that it stays small however long the pod
// runs; its percentiles are exact to that unit.
type Accumulator struct {
	from, to time.Time
	devices  map[string]*account
}

// longestGap is the longest time that a sample stands for. After a longer one
// nobody knows what happened, so it counts as neither throttled nor not.
const longestGap = 30 * time.Second

// spread are the quantities of which a distribution is kept, with the unit that
// they are counted in and what a unit is in the summary.
var spread = []struct {
	metric   Metric
	unit, in float64
	of       func(*GPUSummary) **Distribution
}{
	{PowerUsage, 1, 1, func(g *GPUSummary) **Distribution { return &g.PowerWatts }},
	{SMClock, 1, 1, func(g *GPUSummary) **Distribution { return &g.SMClockMHz }},
	{MemClock, 1, 1, func(g *GPUSummary) **Distribution { return &g.MemClockMHz }},
	{GPUTemp, 1, 1, func(g *GPUSummary) **Distribution { return &g.TemperatureC }},
	{MemoryTemp, 1, 1, func(g *GPUSummary) **Distribution { return &g.MemoryTemperatureC }},
	{GPUUtil, 1, 1, func(g *GPUSummary) **Distribution { return &g.Utilization }},
	{FBUsed, 16, 1 << 20, func(g *GPUSummary) **Distribution { return &g.MemoryUsedBytes }},
	{ProfGREngineActive, 0.01, 1, func(g *GPUSummary) **Distribution { return &g.GREngineActive }},
	{ProfSMActive, 0.01, 1, func(g *GPUSummary) **Distribution { return &g.SMActive }},
	{ProfPipeTensorActive, 0.01, 1, func(g *GPUSummary) **Distribution { return &g.PipeTensorActive }},
	{ProfDRAMActive, 0.01, 1, func(g *GPUSummary) **Distribution { return &g.DRAMActive }},
}

// account is what is kept of one device.
type account struct {
	last                                  Sample
	samples                               int
	counts                                []counts // as spread
	busyClock                             counts
	counted, integrated                   float64
	countedTime, integratedTime           time.Duration
	throttled                             ThrottledSeconds
	reasons                               [16]float64
	singleBit, doubleBit, rows, pcieAgain growth
	xids                                  map[int]int
	neighbours                            int
	neighbourSeconds                      float64
	track                                 track
}

// Add takes the samples of one moment, and the XIDs reported since the one before.
// A sample stands for the time since the device's sample before it.
func (a *Accumulator) Add(at time.Time, samples []Seen, xids []XID) {
	if len(samples) > 0 {
		if a.devices == nil {
			a.devices, a.from = map[string]*account{}, at
		}
		a.to = at
	}
	for i := range samples {
		s := &samples[i]
		g := a.devices[s.UUID]
		if g == nil {
			g = &account{last: s.Sample, counts: make([]counts, len(spread))}
			g.last.At = at
			a.devices[s.UUID] = g
		}
		g.add(at, s)
		g.track.add(at.Sub(a.from), &s.Sample)
	}
	for _, x := range xids {
		for _, g := range a.devices {
			if g.last.GPUUUID() == x.GPU {
				if g.xids == nil {
					g.xids = map[int]int{}
				}
				g.xids[x.Code]++
			}
		}
	}
}

func (g *account) add(at time.Time, s *Seen) {
	g.samples++
	for i, q := range spread {
		if v, ok := s.Value(q.metric); ok {
			g.counts[i].add(v / q.unit)
		}
	}
	util, known := s.Value(GPUUtil)
	if clock, ok := s.Value(SMClock); ok && (!known || util > 0) {
		g.busyClock.add(clock)
	}
	elapsed := at.Sub(g.last.At)
	g.addEnergy(s, elapsed)
	for counter, of := range map[*growth]Metric{&g.singleBit: ECCSingleBit, &g.doubleBit: ECCDoubleBit, &g.pcieAgain: PCIeReplays} {
		if v, ok := s.Value(of); ok {
			counter.see(v)
		}
	}
	uncorrectable, ok := s.Value(RemappedUncorrectable)
	if correctable, also := s.Value(RemappedCorrectable); ok && also {
		g.rows.see(uncorrectable + correctable)
	}
	if elapsed <= longestGap {
		g.addReasons(s.Reasons, elapsed.Seconds())
		if s.Neighbours > 0 {
			g.neighbourSeconds += elapsed.Seconds()
		}
	}
	g.neighbours = max(g.neighbours, s.Neighbours)
	g.last = s.Sample
	g.last.At = at
}

// addEnergy prefers the growth of the GPU's own counter; without one it is the mean
// of the power at both ends over the time between.
func (g *account) addEnergy(s *Seen, elapsed time.Duration) {
	before, had := g.last.Value(TotalEnergy)
	if now, has := s.Value(TotalEnergy); had && has {
		grown := now - before
		if grown < 0 {
			grown = now // the counter was reset: what it shows is the growth since
		}
		g.counted += grown / 1000
		g.countedTime += elapsed
		return
	}
	from, had := g.last.Value(PowerUsage)
	if to, has := s.Value(PowerUsage); had && has && elapsed <= longestGap {
		g.integrated += (from + to) / 2 * elapsed.Seconds()
		g.integratedTime += elapsed
	}
}

func (g *account) addReasons(r ClocksEventReasons, seconds float64) {
	if r.Thermal() {
		g.throttled.Thermal += seconds
	}
	if r.Power() {
		g.throttled.Power += seconds
	}
	if r.Other() {
		g.throttled.Other += seconds
	}
	for i, reason := range Reasons {
		if r&reason.Reason != 0 {
			g.reasons[i] += seconds
		}
	}
}

// Summary boils down what was added so far; devices are in the order of their GPU's
// index and, of one GPU, of their instance.
func (a *Accumulator) Summary() Summary {
	s := Summary{From: a.from, To: a.to}
	for _, g := range a.devices {
		one := g.summary()
		one.Series = g.track.series(a.from)
		s.GPUs = append(s.GPUs, one)
	}
	slices.SortFunc(s.GPUs, func(x, y GPUSummary) int {
		return cmp.Or(cmp.Compare(x.Index, y.Index), cmp.Compare(instance(x), instance(y)), cmp.Compare(x.UUID, y.UUID))
	})
	return s
}

func instance(g GPUSummary) int {
	if g.MIG == nil {
		return -1
	}
	return g.MIG.GPUInstance
}

func (g *account) summary() GPUSummary {
	s := GPUSummary{
		Device: g.last.Device, Samples: g.samples,
		EnergyJoules: g.counted + g.integrated, ThrottledSeconds: g.throttled,
		SingleBitErrors: uint64(g.singleBit.grown), DoubleBitErrors: uint64(g.doubleBit.grown), RemappedRows: uint64(g.rows.grown), PCIeReplays: uint64(g.pcieAgain.grown),
		XIDs: maps.Clone(g.xids), Neighbours: g.neighbours, NeighbourSeconds: g.neighbourSeconds,
	}
	for i, q := range spread {
		if g.counts[i].n > 0 {
			d := g.counts[i].distribution(q.unit * q.in)
			*q.of(&s) = &d
		}
	}
	switch {
	case g.countedTime > 0 && g.integratedTime > 0:
		s.EnergySource = EnergyMixed
	case g.countedTime > 0:
		s.EnergySource = EnergyCounter
	case g.integratedTime > 0:
		s.EnergySource = EnergyIntegral
	}
	for i, reason := range Reasons {
		if g.reasons[i] > 0 {
			if s.ReasonSeconds == nil {
				s.ReasonSeconds = map[string]float64{}
			}
			s.ReasonSeconds[reason.Name] = g.reasons[i]
		}
	}
	if g.busyClock.n > 0 {
		steady := g.busyClock.within(0.05)
		s.ClockSteadiness = &steady
	}
	return s
}

// growth follows a counter that starts over when the driver is loaded again.
type growth struct {
	last, grown float64
	seen        bool
}

func (g *growth) see(v float64) {
	if g.seen {
		if v >= g.last {
			g.grown += v - g.last
		} else {
			g.grown += v
		}
	}
	g.last, g.seen = v, true
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
	c.seen[int(math.Round(v))]++
	c.n++
	c.sum += v
}

// distribution reports the values times unit, by the nearest-rank definition of
// a percentile: the smallest value that at least p % of the samples do not exceed.
func (c *counts) distribution(unit float64) Distribution {
	values := slices.Sorted(maps.Keys(c.seen))
	rank := func(percent int) float64 { return float64(c.rank(values, percent)) * unit }
	return Distribution{Mean: c.sum / float64(c.n) * unit, P5: rank(5), P50: rank(50), P95: rank(95), Max: float64(values[len(values)-1]) * unit}
}

func (c *counts) rank(sorted []int, percent int) int {
	need, below := (c.n*percent+99)/100, 0
	for _, v := range sorted {
		if below += c.seen[v]; below >= need {
			return v
		}
	}
	return sorted[len(sorted)-1]
}

// within is the share of the samples that differ from the median by at most so
// much of it.
func (c *counts) within(share float64) float64 {
	median := float64(c.rank(slices.Sorted(maps.Keys(c.seen)), 50))
	near := 0
	for v, n := range c.seen {
		if math.Abs(float64(v)-median) <= share*median {
			near += n
		}
	}
	return float64(near) / float64(c.n)
}
