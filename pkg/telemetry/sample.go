// SPDX-License-Identifier: Apache-2.0

// Package telemetry is what a node's GPUs say about themselves: the quantities,
// one look at them, and the summary of a run that fits in a record. It is pure;
// the packages below it read the hardware.
package telemetry

import "time"

// Device is a GPU, or one MIG instance of a GPU.
type Device struct {
	// UUID is the device's own, "GPU-…" or "MIG-…".
	UUID string
	// Index is the number of the (whole) GPU on its node.
	Index int
	// Minor is the number of its device file, /dev/nvidia<Minor>.
	Minor int
	// Model is the driver's name of it, for example "NVIDIA H100 80GB HBM3".
	Model string
	// PCIBusID is its address, for example "00000000:1B:00.0".
	PCIBusID string
	// Driver is the version of the NVIDIA driver.
	Driver string
	// MIG is set for an instance only.
	MIG *MIG
}

// GPUUUID is the UUID of the whole GPU that the device is, or is part of.
func (d Device) GPUUUID() string {
	if d.MIG != nil {
		return d.MIG.Parent
	}
	return d.UUID
}

// MIG says which part of a GPU an instance is.
type MIG struct {
	// Parent is the UUID of the GPU.
	Parent string
	// GPUInstance is the number of the GPU instance, dcgm-exporter's GPU_I_ID.
	GPUInstance int
	// Profile is the size of it, for example "1g.10gb".
	Profile string
}

// Sample is one look at one device. A quantity that the device, its driver or the
// library does not give is absent, never 0.
type Sample struct {
	Device
	At time.Time
	// Reasons is why the clocks are held down; meaningful if ClocksEventReasons is there.
	Reasons ClocksEventReasons

	present uint64
	values  [metrics]float64
}

// Set gives the sample a value.
func (s *Sample) Set(m Metric, value float64) {
	s.present |= 1 << m
	s.values[m] = value
	if m == ClockEvents {
		s.Reasons = ClocksEventReasons(value)
	}
}

// Value is the value of a quantity, and whether there is one.
func (s *Sample) Value(m Metric) (float64, bool) {
	return s.values[m], s.present>>m&1 == 1
}

// Empty says that the sample has no value at all.
func (s *Sample) Empty() bool { return s.present == 0 }

// XID is one error that the driver reported (NVIDIA's "Xid" message).
type XID struct {
	// GPU is the UUID of the whole GPU.
	GPU  string
	Code int
	At   time.Time
}

// Lost is a GPU that is known to be in the machine and cannot be read.
type Lost struct {
	// UUID is empty if the GPU was never read.
	UUID  string
	Index int
	Cause string
}

// Reading is one look at all of a node's devices.
type Reading struct {
	Samples []Sample
	// XIDs are those reported since the reading before.
	XIDs []XID
	// Lost are the GPUs that the driver knows of and can no longer reach.
	Lost []Lost
}

// ClocksEventReasons is the set of reasons for which clocks are held down: the bits
// that NVML and DCGM use.
type ClocksEventReasons uint64

// The reasons.
const (
	ReasonGPUIdle ClocksEventReasons = 1 << iota
	ReasonClocksSetting
	ReasonSWPowerCap
	ReasonHWSlowdown
	ReasonSyncBoost
	ReasonSWThermal
	ReasonHWThermal
	ReasonHWPowerBrake
	ReasonDisplayClocks
)

// Reasons are all of them with the names that dcgm-exporter gives them in its
// label clock_event.
var Reasons = []struct {
	Reason ClocksEventReasons
	Name   string
}{
	{ReasonGPUIdle, "gpu_idle"}, {ReasonClocksSetting, "clocks_setting"}, {ReasonSWPowerCap, "power_cap"}, {ReasonHWSlowdown, "hw_slowdown"},
	{ReasonSyncBoost, "sync_boost"}, {ReasonSWThermal, "sw_thermal"}, {ReasonHWThermal, "hw_thermal"}, {ReasonHWPowerBrake, "hw_power_brake"},
	{ReasonDisplayClocks, "display_clocks"},
}

// Thermal is a slowdown by software or hardware because of heat.
func (r ClocksEventReasons) Thermal() bool { return r&(ReasonSWThermal|ReasonHWThermal) != 0 }

// Power is the power cap or the external power brake.
func (r ClocksEventReasons) Power() bool { return r&(ReasonSWPowerCap|ReasonHWPowerBrake) != 0 }

// Other is a hardware slowdown that the driver explains no further. It comes with
// its cause where the driver knows it, so it counts only when none is given.
func (r ClocksEventReasons) Other() bool {
	return r&ReasonHWSlowdown != 0 && !r.Thermal() && !r.Power()
}
