// SPDX-License-Identifier: Apache-2.0

package telemetry

// Metric is a quantity that a GPU gives, in the unit that DCGM gives it in.
type Metric uint8

// The quantities. Those named Prof need DCGM and a GPU that can profile.
const (
	SMClock Metric = iota
	MemClock
	MemoryTemp
	GPUTemp
	PowerUsage
	TotalEnergy
	PCIeReplays
	GPUUtil
	MemCopyUtil
	EncUtil
	DecUtil
	ClockEvents
	FBTotal
	FBFree
	FBUsed
	FBReserved
	ECCSingleBit
	ECCDoubleBit
	RemappedUncorrectable
	RemappedCorrectable
	RowRemapFailure
	RowRemapPending
	NVLinkBandwidth
	NVLinksUp
	NVLinksDown
	ProfGREngineActive
	ProfSMActive
	ProfSMOccupancy
	ProfPipeTensorActive
	ProfDRAMActive
	ProfPCIeTxBytes
	ProfPCIeRxBytes
	ProfNVLinkTxBytes
	ProfNVLinkRxBytes

	metrics // how many there are
)

// Info describes a Metric.
type Info struct {
	Metric Metric
	// Name is DCGM's name of the field, which is dcgm-exporter's name of the
	// metric; for what DCGM has no field for, it is our own.
	Name string
	// Help says what it is and its unit.
	Help string
	// Counter is true for what only grows, until the driver is loaded again.
	Counter bool
	// PerInstance is true for what a MIG instance has of its own. The others are
	// known of the whole GPU only.
	PerInstance bool
}

// Metrics describes every Metric, in its order.
var Metrics = []Info{
	{SMClock, "DCGM_FI_DEV_SM_CLOCK", "SM clock frequency (in MHz).", false, false},
	{MemClock, "DCGM_FI_DEV_MEM_CLOCK", "Memory clock frequency (in MHz).", false, false},
	{MemoryTemp, "DCGM_FI_DEV_MEMORY_TEMP", "Memory temperature (in C).", false, false},
	{GPUTemp, "DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C).", false, false},
	{PowerUsage, "DCGM_FI_DEV_POWER_USAGE", "Power draw (in W).", false, false},
	{TotalEnergy, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "Energy used since the driver was loaded (in mJ).", true, false},
	{PCIeReplays, "DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "PCIe packets sent again.", true, false},
	{GPUUtil, "DCGM_FI_DEV_GPU_UTIL", "Time in which a kernel ran (in %).", false, false},
	{MemCopyUtil, "DCGM_FI_DEV_MEM_COPY_UTIL", "Time in which memory was read or written (in %).", false, false},
	{EncUtil, "DCGM_FI_DEV_ENC_UTIL", "Encoder utilization (in %).", false, false},
	{DecUtil, "DCGM_FI_DEV_DEC_UTIL", "Decoder utilization (in %).", false, false},
	{ClockEvents, "DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "Why the clocks are held down (bits, 0: they are not).", false, false},
	{FBTotal, "DCGM_FI_DEV_FB_TOTAL", "Frame buffer memory (in MiB).", false, true},
	{FBFree, "DCGM_FI_DEV_FB_FREE", "Frame buffer memory free (in MiB).", false, true},
	{FBUsed, "DCGM_FI_DEV_FB_USED", "Frame buffer memory used (in MiB).", false, true},
	{FBReserved, "DCGM_FI_DEV_FB_RESERVED", "Frame buffer memory reserved (in MiB).", false, true},
	{ECCSingleBit, "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "Corrected memory errors since the driver was loaded.", true, false},
	{ECCDoubleBit, "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "Memory errors that could not be corrected since the driver was loaded.", true, false},
	{RemappedUncorrectable, "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "Memory rows remapped for errors that could not be corrected.", true, false},
	{RemappedCorrectable, "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "Memory rows remapped for corrected errors.", true, false},
	{RowRemapFailure, "DCGM_FI_DEV_ROW_REMAP_FAILURE", "1 if remapping a memory row has failed.", false, false},
	{RowRemapPending, "DCGM_FI_DEV_ROW_REMAP_PENDING", "1 if a memory row waits for the GPU's reset to be remapped.", false, false},
	{NVLinkBandwidth, "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", "NVLink traffic of all links (in MB/s).", false, false},
	{NVLinksUp, "spotbench_gpu_nvlinks_up", "NVLinks that are active.", false, false},
	{NVLinksDown, "spotbench_gpu_nvlinks_down", "NVLinks that are there and not active.", false, false},
	{ProfGREngineActive, "DCGM_FI_PROF_GR_ENGINE_ACTIVE", "Share of time in which the graphics or compute engine was active (0 to 1).", false, true},
	{ProfSMActive, "DCGM_FI_PROF_SM_ACTIVE", "Share of cycles in which a multiprocessor had a warp, mean of all (0 to 1).", false, true},
	{ProfSMOccupancy, "DCGM_FI_PROF_SM_OCCUPANCY", "Warps resident, as a share of those possible (0 to 1).", false, true},
	{ProfPipeTensorActive, "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "Share of cycles in which the tensor pipe was active (0 to 1).", false, true},
	{ProfDRAMActive, "DCGM_FI_PROF_DRAM_ACTIVE", "Share of cycles in which the memory interface moved data (0 to 1).", false, true},
	{ProfPCIeTxBytes, "DCGM_FI_PROF_PCIE_TX_BYTES", "Data sent over PCIe, headers included (in B/s).", false, false},
	{ProfPCIeRxBytes, "DCGM_FI_PROF_PCIE_RX_BYTES", "Data received over PCIe, headers included (in B/s).", false, false},
	{ProfNVLinkTxBytes, "DCGM_FI_PROF_NVLINK_TX_BYTES", "Data sent over NVLink (in B/s).", false, false},
	{ProfNVLinkRxBytes, "DCGM_FI_PROF_NVLINK_RX_BYTES", "Data received over NVLink (in B/s).", false, false},
}
