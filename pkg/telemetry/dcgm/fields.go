// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"math"

	"github.com/NVIDIA/go-dcgm/pkg/dcgm"

	"github.com/spotbench/spotbench/pkg/telemetry"
)

// fields are DCGM's of each quantity that it has one for.
var fields = []struct {
	field  dcgm.Short
	metric telemetry.Metric
}{
	{dcgm.DCGM_FI_DEV_SM_CLOCK, telemetry.SMClock},
	{dcgm.DCGM_FI_DEV_MEM_CLOCK, telemetry.MemClock},
	{dcgm.DCGM_FI_DEV_MEMORY_TEMP_CELSIUS, telemetry.MemoryTemp},
	{dcgm.DCGM_FI_DEV_GPU_TEMP_CELSIUS, telemetry.GPUTemp},
	{dcgm.DCGM_FI_DEV_BOARD_POWER_WATTS, telemetry.PowerUsage},
	{dcgm.DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION, telemetry.TotalEnergy},
	{dcgm.DCGM_FI_DEV_PCIE_REPLAY_TOTAL, telemetry.PCIeReplays},
	{dcgm.DCGM_FI_DEV_GPU_UTIL_RATIO, telemetry.GPUUtil},
	{dcgm.DCGM_FI_DEV_MEM_COPY_UTIL, telemetry.MemCopyUtil},
	{dcgm.DCGM_FI_DEV_ENC_UTIL, telemetry.EncUtil},
	{dcgm.DCGM_FI_DEV_DEC_UTIL, telemetry.DecUtil},
	{dcgm.DCGM_FI_DEV_CLOCKS_EVENT_REASONS, telemetry.ClockEvents},
	{dcgm.DCGM_FI_DEV_FB_TOTAL, telemetry.FBTotal},
	{dcgm.DCGM_FI_DEV_FB_FREE, telemetry.FBFree},
	{dcgm.DCGM_FI_DEV_FB_USED, telemetry.FBUsed},
	{dcgm.DCGM_FI_DEV_FB_RESERVED, telemetry.FBReserved},
	{dcgm.DCGM_FI_DEV_ECC_SBE_VOL_TOTAL, telemetry.ECCSingleBit},
	{dcgm.DCGM_FI_DEV_ECC_DBE_VOL_TOTAL, telemetry.ECCDoubleBit},
	{dcgm.DCGM_FI_DEV_ROW_REMAP_UNCORRECTABLE_TOTAL, telemetry.RemappedUncorrectable},
	{dcgm.DCGM_FI_DEV_ROW_REMAP_CORRECTABLE_TOTAL, telemetry.RemappedCorrectable},
	{dcgm.DCGM_FI_DEV_ROW_REMAP_FAILED, telemetry.RowRemapFailure},
	{dcgm.DCGM_FI_DEV_ROW_REMAP_PENDING, telemetry.RowRemapPending},
	{dcgm.DCGM_FI_DEV_NVLINK_THROUGHPUT_TOTAL, telemetry.NVLinkBandwidth},
	{dcgm.DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO, telemetry.ProfGREngineActive},
	{dcgm.DCGM_FI_PROF_SM_UTIL_RATIO, telemetry.ProfSMActive},
	{dcgm.DCGM_FI_PROF_SM_OCCUPANCY_RATIO, telemetry.ProfSMOccupancy},
	{dcgm.DCGM_FI_PROF_TENSOR_UTIL_RATIO, telemetry.ProfPipeTensorActive},
	{dcgm.DCGM_FI_PROF_DRAM_UTIL_RATIO, telemetry.ProfDRAMActive},
	{dcgm.DCGM_FI_PROF_PCIE_TX_BYTES, telemetry.ProfPCIeTxBytes},
	{dcgm.DCGM_FI_PROF_PCIE_RX_BYTES, telemetry.ProfPCIeRxBytes},
	{dcgm.DCGM_FI_PROF_NVLINK_TX_BYTES, telemetry.ProfNVLinkTxBytes},
	{dcgm.DCGM_FI_PROF_NVLINK_RX_BYTES, telemetry.ProfNVLinkRxBytes},
}

var metricOf = func() map[dcgm.Short]telemetry.Metric {
	of := map[dcgm.Short]telemetry.Metric{}
	for _, f := range fields {
		of[f.field] = f.metric
	}
	return of
}()

// profiled says that a field needs DCGM's profiling module.
func profiled(m telemetry.Metric) bool { return m >= telemetry.ProfGREngineActive }

// The smallest of the numbers by which DCGM says that there is none: no value yet,
// not found, not supported, not permitted.
const (
	blankInt32 = 0x7ffffff0
	blankInt64 = 0x7ffffffffffffff0
	blankFP64  = 140737488355328.0
)

// number is a field's value, if it has one.
func number(v *dcgm.FieldValue_v2) (float64, bool) {
	if v.Status != dcgm.DCGM_ST_OK {
		return 0, false
	}
	switch v.FieldType {
	case dcgm.DCGM_FT_INT64:
		n := v.Int64()
		// Some fields are 32 bits wide in the driver and keep its sentinel.
		return float64(n), n < blankInt64 && (n < blankInt32 || n > blankInt32+15)
	case dcgm.DCGM_FT_DOUBLE:
		f := v.Float64()
		return f, !math.IsNaN(f) && !math.IsInf(f, 0) && f < blankFP64
	default:
		return 0, false
	}
}

// text is a string field's value, "" if it has none.
func text(v *dcgm.FieldValue_v2) string {
	if v.Status != dcgm.DCGM_ST_OK || v.StringValue == nil || len(*v.StringValue) >= 3 && (*v.StringValue)[:3] == "<<<" {
		return ""
	}
	return *v.StringValue
}
