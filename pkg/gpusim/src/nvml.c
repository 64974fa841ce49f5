/* SPDX-License-Identifier: Apache-2.0
 *
 * A simulated libnvidia-ml.so.1: NVML's binary interface over the GPUs of
 * scenario.h, so that programs which use the real NVML bindings run where there
 * is no GPU. It stands for the hardware and its driver, nothing else.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#pragma GCC visibility push(default)
#include "nvml.h" /* go-nvml's: nvmlDevice_t is a struct round the same pointer */
#pragma GCC visibility pop

#include "scenario.h"

/* A handle is one of these: a GPU, or one of its MIG devices. They are never freed. */
struct nvmlDevice_st {
	unsigned int gpu;
	int mig; /* -1: the GPU */
};

struct nvmlEventSet_st {
	double registered[SIM_MAX_GPUS]; /* 0: not registered */
	unsigned int delivered;          /* of sim_xids, in this version of the file */
	double version;
};

static struct nvmlDevice_st handles[SIM_MAX_GPUS], mig_handles[SIM_MAX_MIGS];
static int initialized;

#define ENTER(check) \
	sim_enter(); \
	nvmlReturn_t ret = NVML_SUCCESS; \
	if (!initialized) { ret = NVML_ERROR_UNINITIALIZED; goto out; } \
	if (!(check)) { ret = NVML_ERROR_INVALID_ARGUMENT; goto out; }
#define LEAVE out: sim_leave(); return ret;

/* DEVICE is the head of a call on a device: g is its GPU, m its instance or NULL. */
#define DEVICE(check) \
	struct nvmlDevice_st *d = dev.handle; \
	if (d != NULL && d->gpu < SIM_MAX_GPUS) \
		sim_wait(&sim_gpus[d->gpu]); \
	ENTER(d != NULL && d->gpu < SIM_MAX_GPUS && (check)) \
	struct sim_gpu *g = &sim_gpus[d->gpu]; \
	struct sim_mig *m = d->mig >= 0 ? &sim_migs[d->mig] : NULL; \
	(void)g; (void)m;
#define ALIVE if (g->lost) { ret = NVML_ERROR_GPU_IS_LOST; goto out; }
#define WHOLE if (m != NULL) { ret = NVML_ERROR_NOT_SUPPORTED; goto out; }

/* NUMBER puts one value into *to, or says why there is none. */
#define NUMBER(key, factor, to) do { \
	double number_; \
	if (sim_value(g, m, key, &number_) != SIM_OK) { ret = NVML_ERROR_NOT_SUPPORTED; goto out; } \
	*(to) = (__typeof__(*(to)))(number_ * (factor)); \
	} while (0)

nvmlReturn_t nvmlInit_v2(void) {
	sim_enter();
	for (int i = 0; i < SIM_MAX_GPUS; i++)
		handles[i] = (struct nvmlDevice_st){(unsigned int)i, -1};
	for (int i = 0; i < SIM_MAX_MIGS; i++)
		mig_handles[i] = (struct nvmlDevice_st){0, i};
	initialized++;
	sim_leave();
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
	(void)flags;
	return nvmlInit_v2();
}

nvmlReturn_t nvmlShutdown(void) {
	ENTER(1)
	initialized--;
	LEAVE
}

const char *nvmlErrorString(nvmlReturn_t result) {
	switch (result) {
	case NVML_SUCCESS: return "Success";
	case NVML_ERROR_UNINITIALIZED: return "Uninitialized";
	case NVML_ERROR_INVALID_ARGUMENT: return "Invalid Argument";
	case NVML_ERROR_NOT_SUPPORTED: return "Not Supported";
	case NVML_ERROR_NOT_FOUND: return "Not Found";
	case NVML_ERROR_INSUFFICIENT_SIZE: return "Insufficient Size";
	case NVML_ERROR_TIMEOUT: return "Timeout";
	case NVML_ERROR_GPU_IS_LOST: return "GPU is lost";
	default: return "Unknown Error";
	}
}

static nvmlReturn_t copy_string(char *out, unsigned int length, const char *s) {
	if (strlen(s) + 1 > length)
		return NVML_ERROR_INSUFFICIENT_SIZE;
	strcpy(out, s);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length) {
	ENTER(version)
	ret = copy_string(version, length, sim_driver);
	LEAVE
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length) {
	ENTER(version)
	char v[96];
	snprintf(v, sizeof v, "12.%s", sim_driver);
	ret = copy_string(version, length, v);
	LEAVE
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
	ENTER(count)
	*count = sim_gpu_count;
	LEAVE
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
	ENTER(device && index < sim_gpu_count)
	device->handle = &handles[index];
	LEAVE
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
	ENTER(uuid && device)
	ret = NVML_ERROR_NOT_FOUND;
	for (unsigned int i = 0; i < sim_gpu_count; i++)
		if (strcmp(sim_gpus[i].uuid, uuid) == 0) {
			device->handle = &handles[i];
			ret = NVML_SUCCESS;
		}
	for (unsigned int i = 0; i < sim_mig_count; i++)
		if (strcmp(sim_migs[i].uuid, uuid) == 0) {
			mig_handles[i].gpu = sim_migs[i].gpu;
			device->handle = &mig_handles[i];
			ret = NVML_SUCCESS;
		}
	LEAVE
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t dev, char *name, unsigned int length) {
	DEVICE(name)
	char full[256];
	snprintf(full, sizeof full, m != NULL ? "%s MIG %s" : "%s", g->name, m != NULL ? m->profile : "");
	ret = copy_string(name, length, full);
	LEAVE
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t dev, char *uuid, unsigned int length) {
	DEVICE(uuid)
	ret = copy_string(uuid, length, m != NULL ? m->uuid : g->uuid);
	LEAVE
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t dev, unsigned int *index) {
	DEVICE(index)
	*index = g->index;
	LEAVE
}

nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t dev, unsigned int *minor) {
	DEVICE(minor)
	*minor = g->index;
	LEAVE
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t dev, nvmlPciInfo_t *pci) {
	DEVICE(pci)
	memset(pci, 0, sizeof *pci);
	sim_bus_id(g, pci->busId, sizeof pci->busId);
	pci->bus = 0x10 + g->index;
	LEAVE
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t dev, int *major, int *minor) {
	DEVICE(major && minor)
	*major = g->compute_major;
	*minor = g->compute_minor;
	LEAVE
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t dev, nvmlMemory_v2_t *memory) {
	DEVICE(memory && memory->version == nvmlMemory_v2)
	ALIVE
	memory->total = (m != NULL ? m->memory_mib : g->memory_mib) << 20;
	NUMBER(SIM_MEMORY_USED, 1 << 20, &memory->used);
	NUMBER(SIM_RESERVED, 1 << 20, &memory->reserved);
	memory->free = memory->total - memory->used - memory->reserved;
	LEAVE
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t dev, nvmlMemory_t *memory) {
	nvmlMemory_v2_t v2 = {.version = nvmlMemory_v2};
	nvmlReturn_t ret = memory != NULL ? nvmlDeviceGetMemoryInfo_v2(dev, &v2) : NVML_ERROR_INVALID_ARGUMENT;
	if (ret == NVML_SUCCESS)
		*memory = (nvmlMemory_t){.total = v2.total, .free = v2.free, .used = v2.used + v2.reserved};
	return ret;
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t dev, unsigned int *milliwatts) {
	DEVICE(milliwatts)
	ALIVE WHOLE
	NUMBER(SIM_POWER, 1000, milliwatts);
	LEAVE
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t dev, unsigned long long *millijoules) {
	DEVICE(millijoules)
	ALIVE WHOLE
	NUMBER(SIM_ENERGY, 1000, millijoules);
	LEAVE
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t dev, nvmlTemperatureSensors_t sensor, unsigned int *celsius) {
	DEVICE(celsius && sensor == NVML_TEMPERATURE_GPU)
	ALIVE WHOLE
	NUMBER(SIM_TEMP, 1, celsius);
	LEAVE
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t dev, int count, nvmlFieldValue_t *values) {
	DEVICE(values && count >= 0)
	ALIVE WHOLE
	for (int i = 0; i < count; i++) {
		double value;
		values[i].nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
		if (values[i].fieldId == NVML_FI_DEV_MEMORY_TEMP && sim_value(g, NULL, SIM_MEM_TEMP, &value) == SIM_OK) {
			values[i].nvmlReturn = NVML_SUCCESS;
			values[i].valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
			values[i].value.uiVal = (unsigned int)value;
		}
	}
	LEAVE
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t dev, nvmlClockType_t type, unsigned int *mhz) {
	DEVICE(mhz)
	ALIVE WHOLE
	NUMBER(type == NVML_CLOCK_MEM ? SIM_MEM_CLOCK : SIM_SM_CLOCK, 1, mhz);
	LEAVE
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t dev, nvmlUtilization_t *rates) {
	DEVICE(rates)
	ALIVE WHOLE
	NUMBER(SIM_UTIL, 1, &rates->gpu);
	NUMBER(SIM_MEM_UTIL, 1, &rates->memory);
	LEAVE
}

nvmlReturn_t nvmlDeviceGetEncoderUtilization(nvmlDevice_t dev, unsigned int *percent, unsigned int *period_us) {
	DEVICE(percent && period_us)
	ALIVE WHOLE
	NUMBER(SIM_ENC_UTIL, 1, percent);
	*period_us = 167000;
	LEAVE
}

nvmlReturn_t nvmlDeviceGetDecoderUtilization(nvmlDevice_t dev, unsigned int *percent, unsigned int *period_us) {
	DEVICE(percent && period_us)
	ALIVE WHOLE
	NUMBER(SIM_DEC_UTIL, 1, percent);
	*period_us = 167000;
	LEAVE
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t dev, unsigned long long *reasons) {
	DEVICE(reasons)
	ALIVE WHOLE
	*reasons = g->values.throttle;
	LEAVE
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t dev, unsigned long long *reasons) {
	return nvmlDeviceGetCurrentClocksEventReasons(dev, reasons);
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t dev, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter, unsigned long long *count) {
	(void)counter;
	DEVICE(count)
	ALIVE WHOLE
	NUMBER(type == NVML_MEMORY_ERROR_TYPE_UNCORRECTED ? SIM_ECC_DBE : SIM_ECC_SBE, 1, count);
	LEAVE
}

nvmlReturn_t nvmlDeviceGetPcieReplayCounter(nvmlDevice_t dev, unsigned int *count) {
	DEVICE(count)
	ALIVE WHOLE
	NUMBER(SIM_PCIE_REPLAY, 1, count);
	LEAVE
}

nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t dev, unsigned int *correctable, unsigned int *uncorrectable, unsigned int *pending, unsigned int *failed) {
	DEVICE(correctable && uncorrectable && pending && failed)
	ALIVE WHOLE
	NUMBER(SIM_REMAP_CORRECTABLE, 1, correctable);
	NUMBER(SIM_REMAP_UNCORRECTABLE, 1, uncorrectable);
	NUMBER(SIM_REMAP_PENDING, 1, pending);
	NUMBER(SIM_REMAP_FAILURE, 1, failed);
	LEAVE
}

nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t dev, unsigned int link, nvmlEnableState_t *active) {
	DEVICE(active)
	ALIVE WHOLE
	unsigned int links, down;
	NUMBER(SIM_NVLINK_LINKS, 1, &links);
	NUMBER(SIM_NVLINK_DOWN, 1, &down);
	if (link >= links) {
		ret = NVML_ERROR_NOT_SUPPORTED;
		goto out;
	}
	*active = link < down ? NVML_FEATURE_DISABLED : NVML_FEATURE_ENABLED;
	LEAVE
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t dev, unsigned int *current, unsigned int *pending) {
	DEVICE(current && pending)
	ALIVE WHOLE
	*current = *pending = sim_migs_of(g->index) > 0 ? NVML_DEVICE_MIG_ENABLE : NVML_DEVICE_MIG_DISABLE;
	LEAVE
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t dev, unsigned int *count) {
	DEVICE(count)
	*count = 7;
	LEAVE
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t dev, unsigned int index, nvmlDevice_t *device) {
	DEVICE(device)
	WHOLE
	struct sim_mig *found = sim_mig_of(g->index, index);
	if (found == NULL) {
		ret = NVML_ERROR_NOT_FOUND;
		goto out;
	}
	struct nvmlDevice_st *h = &mig_handles[found - sim_migs];
	h->gpu = g->index;
	device->handle = h;
	LEAVE
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t dev, unsigned int *id) {
	DEVICE(id)
	if (m == NULL)
		ret = NVML_ERROR_INVALID_ARGUMENT;
	else
		*id = m->gi;
	LEAVE
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) {
	ENTER(set)
	set->handle = calloc(1, sizeof *set->handle);
	if (set->handle == NULL)
		ret = NVML_ERROR_MEMORY;
	LEAVE
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
	free(set.handle);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t dev, unsigned long long *types) {
	DEVICE(types)
	ALIVE WHOLE
	*types = nvmlEventTypeXidCriticalError;
	LEAVE
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t dev, unsigned long long types, nvmlEventSet_t set) {
	DEVICE(set.handle)
	ALIVE WHOLE
	if (types != nvmlEventTypeXidCriticalError) {
		ret = NVML_ERROR_NOT_SUPPORTED;
		goto out;
	}
	set.handle->registered[g->index] = sim_now();
	LEAVE
}

/* next_event finds an event that the set has not delivered and that happened after
 * its GPU was registered. */
static int next_event(struct nvmlEventSet_st *set, nvmlEventData_t *data) {
	if (set->version != sim_loaded_at) {
		set->version = sim_loaded_at;
		set->delivered = 0;
	}
	while (set->delivered < sim_xid_count) {
		const struct sim_xid *x = &sim_xids[set->delivered++];
		double registered = x->gpu < SIM_MAX_GPUS ? set->registered[x->gpu] : 0;
		if (registered == 0 || x->at < registered)
			continue;
		memset(data, 0, sizeof *data);
		data->device.handle = &handles[x->gpu];
		data->eventType = nvmlEventTypeXidCriticalError;
		data->eventData = x->code;
		return 1;
	}
	return 0;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout_ms) {
	for (double until = sim_now() + timeout_ms / 1000.0;;) {
		ENTER(set.handle && data)
		if (!next_event(set.handle, data))
			ret = NVML_ERROR_TIMEOUT;
	out:
		sim_leave();
		if (ret != NVML_ERROR_TIMEOUT || sim_now() >= until)
			return ret;
		nanosleep(&(struct timespec){0, 20000000L}, NULL);
	}
}
