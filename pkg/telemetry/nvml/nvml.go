// SPDX-License-Identifier: Apache-2.0

// Package nvml reads a node's GPUs through NVIDIA's management library.
package nvml

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/spotbench/spotbench/pkg/telemetry"
)

// Reader reads every GPU of the node and every MIG instance.
type Reader struct {
	lib     nvml.Interface
	driver  string
	missing map[string]bool // functions that this version of the library lacks

	gpus []telemetry.Device          // by index: what never changes, known from the first look
	migs map[string]telemetry.Device // by UUID

	events  nvml.EventSet
	stop    chan struct{}
	waiting sync.WaitGroup
	mu      sync.Mutex
	xids    []telemetry.XID
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
	r := &Reader{lib: lib, missing: map[string]bool{}, migs: map[string]telemetry.Device{}, stop: make(chan struct{})}
	// A function that an old library lacks would end the process when it is called.
	for _, name := range []string{"nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetRemappedRows", "nvmlDeviceGetFieldValues", "nvmlDeviceGetMigMode",
		"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetNvLinkState", "nvmlEventSetWait_v2"} {
		r.missing[name] = lib.Extensions().LookupSymbol(name) != nil
	}
	if version, ret := lib.SystemGetDriverVersion(); ret == nvml.SUCCESS {
		r.driver = version
	}
	r.listen()
	return r, nil
}

// Close releases the library.
func (r *Reader) Close() error {
	close(r.stop)
	r.waiting.Wait()
	if ret := r.lib.Shutdown(); ret != nvml.SUCCESS {
		return fmt.Errorf("NVML: shut down: %w", ret)
	}
	return nil
}

// Driver is the version of the NVIDIA driver, "" if it does not say.
func (r *Reader) Driver() string { return r.driver }

// listen has XIDs collected as they happen; a driver that cannot tell them is read without.
func (r *Reader) listen() {
	n, ret := r.lib.DeviceGetCount()
	if ret != nvml.SUCCESS || r.missing["nvmlEventSetWait_v2"] {
		return
	}
	if r.events, ret = r.lib.EventSetCreate(); ret != nvml.SUCCESS {
		return
	}
	registered := 0
	for i := range n {
		if device, ret := r.lib.DeviceGetHandleByIndex(i); ret == nvml.SUCCESS &&
			device.RegisterEvents(nvml.EventTypeXidCriticalError, r.events) == nvml.SUCCESS {
			registered++
		}
	}
	if registered == 0 {
		_ = r.events.Free()
		return
	}
	r.waiting.Go(r.wait)
}

// wait takes events until the Reader is closed. The wait is short, so that closing is too.
func (r *Reader) wait() {
	defer func() { _ = r.events.Free() }()
	for {
		select {
		case <-r.stop:
			return
		default:
		}
		event, ret := r.events.Wait(500)
		switch ret {
		case nvml.SUCCESS:
			if event.EventType != nvml.EventTypeXidCriticalError {
				continue
			}
			x := telemetry.XID{Code: int(event.EventData), At: time.Now()} //nolint:gosec // XIDs are small numbers
			x.GPU, _ = event.Device.GetUUID()
			r.mu.Lock()
			r.xids = append(r.xids, x)
			r.mu.Unlock()
		case nvml.ERROR_TIMEOUT:
		default: // a lost GPU makes every wait fail at once
			select {
			case <-r.stop:
				return
			case <-time.After(time.Second):
			}
		}
	}
}

// Read reads every GPU. A GPU that is lost is said to be; one that cannot be read for
// another reason is left out and named in the error; the others are good.
func (r *Reader) Read() (telemetry.Reading, error) {
	var reading telemetry.Reading
	n, ret := r.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return reading, fmt.Errorf("NVML: number of GPUs: %w", ret)
	}
	for len(r.gpus) < n {
		r.gpus = append(r.gpus, telemetry.Device{Index: len(r.gpus), Driver: r.driver})
	}
	var errs []error
	at := time.Now()
	for i := range n {
		samples, ret, what := r.gpu(i, at)
		switch ret {
		case nvml.SUCCESS:
			reading.Samples = append(reading.Samples, samples...)
			continue
		case nvml.ERROR_GPU_IS_LOST:
			reading.Lost = append(reading.Lost, telemetry.Lost{UUID: r.gpus[i].UUID, Index: i, Cause: "the driver has lost it"})
		case nvml.ERROR_RESET_REQUIRED:
			reading.Lost = append(reading.Lost, telemetry.Lost{UUID: r.gpus[i].UUID, Index: i, Cause: "it must be reset"})
		default:
		}
		errs = append(errs, fmt.Errorf("NVML: GPU %d: %s: %w", i, what, ret))
	}
	r.mu.Lock()
	reading.XIDs, r.xids = r.xids, nil
	r.mu.Unlock()
	return reading, errors.Join(errs...)
}

// gpu reads one GPU and its instances. If that fails it says what could not be read.
func (r *Reader) gpu(i int, at time.Time) (samples []telemetry.Sample, ret nvml.Return, what string) {
	device, ret := r.lib.DeviceGetHandleByIndex(i)
	if ret != nvml.SUCCESS {
		return nil, ret, "handle"
	}
	uuid, ret := device.GetUUID()
	if ret != nvml.SUCCESS {
		return nil, ret, "UUID"
	}
	if r.gpus[i].UUID != uuid {
		r.gpus[i] = r.identify(device, i, uuid)
	}
	s := telemetry.Sample{Device: r.gpus[i], At: at}
	if ret, what := r.values(device, &s); ret != nvml.SUCCESS {
		return nil, ret, what
	}
	return append([]telemetry.Sample{s}, r.instances(device, s.Device, at)...), nvml.SUCCESS, ""
}

func (r *Reader) identify(device nvml.Device, index int, uuid string) telemetry.Device {
	d := telemetry.Device{UUID: uuid, Index: index, Minor: index, Driver: r.driver}
	d.Model, _ = device.GetName()
	if minor, ret := device.GetMinorNumber(); ret == nvml.SUCCESS {
		d.Minor = minor
	}
	if pci, ret := device.GetPciInfo(); ret == nvml.SUCCESS {
		id := make([]byte, 0, len(pci.BusId))
		for _, c := range pci.BusId {
			if c == 0 {
				break
			}
			id = append(id, byte(c)) //nolint:gosec // a C character
		}
		d.PCIBusID = string(id)
	}
	return d
}

// values fills a whole GPU's sample. What the GPU does not support stays absent; any
// other failure is returned, with what it happened at.
func (r *Reader) values(device nvml.Device, s *telemetry.Sample) (failed nvml.Return, at string) {
	set := func(what string, ret nvml.Return, values map[telemetry.Metric]float64) {
		switch ret {
		case nvml.SUCCESS:
			for m, v := range values {
				s.Set(m, v)
			}
		case nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_NO_PERMISSION, nvml.ERROR_INVALID_ARGUMENT:
		default:
			if failed == nvml.SUCCESS {
				failed, at = ret, what
			}
		}
	}
	one := func(what string, m telemetry.Metric, v float64, ret nvml.Return) {
		set(what, ret, map[telemetry.Metric]float64{m: v})
	}
	milliwatts, ret := device.GetPowerUsage()
	one("power", telemetry.PowerUsage, float64(milliwatts)/1000, ret)
	millijoules, ret := device.GetTotalEnergyConsumption()
	one("energy", telemetry.TotalEnergy, float64(millijoules), ret)
	sm, ret := device.GetClockInfo(nvml.CLOCK_SM)
	one("SM clock", telemetry.SMClock, float64(sm), ret)
	mem, ret := device.GetClockInfo(nvml.CLOCK_MEM)
	one("memory clock", telemetry.MemClock, float64(mem), ret)
	celsius, ret := device.GetTemperature(nvml.TEMPERATURE_GPU)
	one("temperature", telemetry.GPUTemp, float64(celsius), ret)
	rates, ret := device.GetUtilizationRates()
	set("utilization", ret, map[telemetry.Metric]float64{telemetry.GPUUtil: float64(rates.Gpu), telemetry.MemCopyUtil: float64(rates.Memory)})
	enc, _, ret := device.GetEncoderUtilization()
	one("encoder", telemetry.EncUtil, float64(enc), ret)
	dec, _, ret := device.GetDecoderUtilization()
	one("decoder", telemetry.DecUtil, float64(dec), ret)
	corrected, ret := device.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_CORRECTED, nvml.VOLATILE_ECC)
	one("ECC errors", telemetry.ECCSingleBit, float64(corrected), ret)
	uncorrected, ret := device.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC)
	one("ECC errors", telemetry.ECCDoubleBit, float64(uncorrected), ret)
	replays, ret := device.GetPcieReplayCounter()
	one("PCIe replays", telemetry.PCIeReplays, float64(replays), ret)
	if !r.missing["nvmlDeviceGetCurrentClocksEventReasons"] {
		reasons, ret := device.GetCurrentClocksEventReasons()
		one("clock event reasons", telemetry.ClockEvents, float64(reasons), ret)
	} else {
		reasons, ret := device.GetCurrentClocksThrottleReasons()
		one("clock event reasons", telemetry.ClockEvents, float64(reasons), ret)
	}
	if !r.missing["nvmlDeviceGetRemappedRows"] {
		correctable, uncorrectable, pending, failure, ret := device.GetRemappedRows()
		set("remapped rows", ret, map[telemetry.Metric]float64{telemetry.RemappedCorrectable: float64(correctable),
			telemetry.RemappedUncorrectable: float64(uncorrectable), telemetry.RowRemapPending: truth(pending), telemetry.RowRemapFailure: truth(failure)})
	}
	if !r.missing["nvmlDeviceGetFieldValues"] {
		field := []nvml.FieldValue{{FieldId: nvml.FI_DEV_MEMORY_TEMP}}
		if ret := device.GetFieldValues(field); ret == nvml.SUCCESS {
			one("memory temperature", telemetry.MemoryTemp, float64(field[0].Value[0])+256*float64(field[0].Value[1]), nvml.Return(field[0].NvmlReturn)) //nolint:gosec // the same number, as a field
		}
	}
	memory, ret := r.memory(device)
	set("memory", ret, memory)
	r.links(device, s)
	return failed, at
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// memory is in MiB. What the driver keeps for itself is not counted as used, as in
// DCGM, where the library tells it apart.
func (r *Reader) memory(device nvml.Device) (map[telemetry.Metric]float64, nvml.Return) {
	const mib = 1 << 20
	if !r.missing["nvmlDeviceGetMemoryInfo_v2"] {
		m, ret := device.GetMemoryInfo_v2()
		return map[telemetry.Metric]float64{telemetry.FBTotal: float64(m.Total / mib), telemetry.FBUsed: float64(m.Used / mib),
			telemetry.FBFree: float64(m.Free / mib), telemetry.FBReserved: float64(m.Reserved / mib)}, ret
	}
	m, ret := device.GetMemoryInfo()
	return map[telemetry.Metric]float64{telemetry.FBTotal: float64(m.Total / mib), telemetry.FBUsed: float64(m.Used / mib), telemetry.FBFree: float64(m.Free / mib)}, ret
}

// links counts the NVLinks. A GPU without any has no such values.
func (r *Reader) links(device nvml.Device, s *telemetry.Sample) {
	if r.missing["nvmlDeviceGetNvLinkState"] {
		return
	}
	up, down := 0, 0
	for link := range nvml.NVLINK_MAX_LINKS {
		state, ret := device.GetNvLinkState(link)
		if ret != nvml.SUCCESS {
			break
		}
		if state == nvml.FEATURE_ENABLED {
			up++
		} else {
			down++
		}
	}
	if up+down > 0 {
		s.Set(telemetry.NVLinksUp, float64(up))
		s.Set(telemetry.NVLinksDown, float64(down))
	}
}

// instances reads the MIG instances of a GPU, none if it is not divided.
func (r *Reader) instances(device nvml.Device, parent telemetry.Device, at time.Time) []telemetry.Sample {
	if r.missing["nvmlDeviceGetMigMode"] {
		return nil
	}
	if mode, _, ret := device.GetMigMode(); ret != nvml.SUCCESS || mode != nvml.DEVICE_MIG_ENABLE {
		return nil
	}
	most, ret := device.GetMaxMigDeviceCount()
	if ret != nvml.SUCCESS {
		return nil
	}
	var samples []telemetry.Sample
	for i := range most {
		mig, ret := device.GetMigDeviceHandleByIndex(i)
		if ret != nvml.SUCCESS {
			continue
		}
		uuid, ret := mig.GetUUID()
		if ret != nvml.SUCCESS {
			continue
		}
		d, known := r.migs[uuid]
		if !known {
			d = instance(mig, uuid, parent)
			r.migs[uuid] = d
		}
		s := telemetry.Sample{Device: d, At: at}
		if memory, ret := r.memory(mig); ret == nvml.SUCCESS {
			for m, v := range memory {
				s.Set(m, v)
			}
		}
		samples = append(samples, s)
	}
	return samples
}

// instance says what a MIG device is. Its name ends with its profile:
// "NVIDIA H100 80GB HBM3 MIG 1g.10gb".
func instance(mig nvml.Device, uuid string, parent telemetry.Device) telemetry.Device {
	d := parent
	d.UUID, d.MIG = uuid, &telemetry.MIG{Parent: parent.UUID}
	if id, ret := mig.GetGpuInstanceId(); ret == nvml.SUCCESS {
		d.MIG.GPUInstance = id
	}
	if name, ret := mig.GetName(); ret == nvml.SUCCESS {
		if _, profile, ok := strings.Cut(name, " MIG "); ok {
			d.MIG.Profile = profile
		}
	}
	return d
}

// Instances are the MIG instances of all GPUs, which DCGM knows without their UUIDs.
func (r *Reader) Instances() []telemetry.Device {
	reading, err := r.Read()
	if err != nil && len(reading.Samples) == 0 {
		return nil
	}
	var found []telemetry.Device
	for _, s := range reading.Samples {
		if s.MIG != nil {
			found = append(found, s.Device)
		}
	}
	return found
}
