// SPDX-License-Identifier: Apache-2.0

// Package nvml reads a node's GPUs through NVIDIA's management library.
package nvml

import (
	"errors"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/spotbench/spotbench/pkg/telemetry"
)

// Reader reads every GPU of the node.
type Reader struct {
	lib nvml.Interface
}

// Open loads the library: a path, or "" for libnvidia-ml.so.1 where the dynamic
// linker finds it. The error says which library could not be used and why.
func Open(library string) (*Reader, error) {
	var opts []nvml.LibraryOption
	if library != "" {
		opts = append(opts, nvml.WithLibraryPath(library))
	} else {
		library = "libnvidia-ml.so.1"
	}
	lib := nvml.New(opts...)
	if ret := lib.Init(); ret != nvml.SUCCESS {
		if ret == nvml.ERROR_LIBRARY_NOT_FOUND {
			return nil, fmt.Errorf("NVML: %s cannot be loaded; is the NVIDIA driver there?", library)
		}
		return nil, fmt.Errorf("NVML: %s: %w", library, ret)
	}
	return &Reader{lib: lib}, nil
}

// Close releases the library.
func (r *Reader) Close() error {
	if ret := r.lib.Shutdown(); ret != nvml.SUCCESS {
		return fmt.Errorf("NVML: shut down: %w", ret)
	}
	return nil
}

// DriverVersion is the version of the NVIDIA driver.
func (r *Reader) DriverVersion() (string, error) {
	version, ret := r.lib.SystemGetDriverVersion()
	if ret != nvml.SUCCESS {
		return "", fmt.Errorf("NVML: driver version: %w", ret)
	}
	return version, nil
}

// Read reads every GPU. A GPU that cannot be read is left out and named in the
// error; the readings of the others are good.
func (r *Reader) Read() ([]telemetry.Reading, error) {
	n, ret := r.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("NVML: number of GPUs: %w", ret)
	}
	readings := make([]telemetry.Reading, 0, n)
	var errs []error
	for i := range n {
		device, ret := r.lib.DeviceGetHandleByIndex(i)
		if ret != nvml.SUCCESS {
			errs = append(errs, fmt.Errorf("NVML: GPU %d: %w", i, ret))
			continue
		}
		reading, err := read(device, i)
		if err != nil {
			errs = append(errs, fmt.Errorf("NVML: GPU %d: %w", i, err))
			continue
		}
		readings = append(readings, reading)
	}
	return readings, errors.Join(errs...)
}

// read fills a Reading. A metric that the GPU does not support stays zero.
func read(device nvml.Device, index int) (telemetry.Reading, error) {
	r := telemetry.Reading{Index: index}
	var failed error
	ok := func(what string, ret nvml.Return) bool {
		if ret != nvml.SUCCESS && ret != nvml.ERROR_NOT_SUPPORTED && failed == nil {
			failed = fmt.Errorf("%s: %w", what, ret)
		}
		return ret == nvml.SUCCESS
	}
	var ret nvml.Return
	r.UUID, ret = device.GetUUID()
	ok("UUID", ret)
	r.Model, ret = device.GetName()
	ok("name", ret)
	if milliwatts, ret := device.GetPowerUsage(); ok("power", ret) {
		r.PowerWatts = float64(milliwatts) / 1000
	}
	if millijoules, ret := device.GetTotalEnergyConsumption(); ok("energy", ret) {
		r.EnergyJoules = float64(millijoules) / 1000
	}
	if mhz, ret := device.GetClockInfo(nvml.CLOCK_SM); ok("SM clock", ret) {
		r.SMClockMHz = int(mhz)
	}
	if mhz, ret := device.GetClockInfo(nvml.CLOCK_MEM); ok("memory clock", ret) {
		r.MemClockMHz = int(mhz)
	}
	if celsius, ret := device.GetTemperature(nvml.TEMPERATURE_GPU); ok("temperature", ret) {
		r.TemperatureC = int(celsius)
	}
	if rates, ret := device.GetUtilizationRates(); ok("utilization", ret) {
		r.UtilizationPercent = int(rates.Gpu)
	}
	if memory, ret := device.GetMemoryInfo(); ok("memory", ret) {
		r.MemoryUsedBytes, r.MemoryTotalBytes = memory.Used, memory.Total
	}
	if reasons, ret := device.GetCurrentClocksEventReasons(); ok("clock event reasons", ret) {
		r.Throttle = throttle(reasons)
	}
	if n, ret := device.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC); ok("ECC errors", ret) {
		r.DoubleBitErrors = n
	}
	return r, failed
}

// throttle sorts NVML's bits. A hardware slowdown comes with its cause where the
// driver knows it, so it counts on its own only when none is given.
func throttle(reasons uint64) telemetry.Throttle {
	t := telemetry.Throttle{
		Thermal: reasons&(nvml.ClocksEventReasonSwThermalSlowdown|nvml.ClocksThrottleReasonHwThermalSlowdown) != 0,
		Power:   reasons&(nvml.ClocksEventReasonSwPowerCap|nvml.ClocksThrottleReasonHwPowerBrakeSlowdown) != 0,
	}
	t.Other = reasons&nvml.ClocksThrottleReasonHwSlowdown != 0 && !t.Thermal && !t.Power
	return t
}
