/* SPDX-License-Identifier: Apache-2.0
 *
 * A simulated libnvidia-ml.so.1: NVML's binary interface over GPUs that a text
 * file describes, so that programs which use the real NVML bindings run where
 * there is no GPU. It stands for the hardware and its driver, nothing else.
 *
 * The file is nvml-sim.conf in the directory of this library (or the path in
 * NVML_SIM_CONF). It is read again whenever it changes, so a scenario (heat, a
 * lost GPU) is played by rewriting it. One statement per line, key=value pairs,
 * values with blanks in double quotes, '#' starts a comment:
 *
 *   driver version=570.133.20
 *   gpu index=0 uuid=GPU-0001 name="NVIDIA L4" memory_mib=23034
 *       [compute=8.9] [memory_used_mib=N] [power_w=N] [temp_c=N] [sm_clock=MHz]
 *       [mem_clock=MHz] [util=PERCENT] [ecc_dbe=N] [lost=1]
 *       [throttle=none|sw_power|hw_slowdown|sw_thermal|hw_thermal|power_brake]
 *
 * (a gpu statement is one line). A value that is left out follows a fixed load
 * curve: utilization swings between 70 and 98 % in 20 s, the rest follows it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "nvml.h" /* go-nvml's: nvmlDevice_t is a struct round the same pointer */

#define MAX_GPUS 32
#define UNSET (-1)

struct nvmlDevice_st {
	unsigned int index;
	char uuid[NVML_DEVICE_UUID_V2_BUFFER_SIZE];
	char name[NVML_DEVICE_NAME_V2_BUFFER_SIZE];
	unsigned long long memory_mib, memory_used_mib, ecc_dbe;
	int compute_major, compute_minor;
	double power_w, temp_c, sm_clock, mem_clock, util; /* UNSET follows the curve */
	unsigned long long throttle;
	int lost;
	double energy_j, energy_at; /* integrated at each reading */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct nvmlDevice_st gpus[MAX_GPUS];
static unsigned int gpu_count;
static char driver[NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE] = "570.133.20";
static struct timespec conf_mtime;
static int initialized;

static double now(void) {
	struct timespec ts;
	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static const char *conf_path(void) {
	static char path[4096];
	const char *env = getenv("NVML_SIM_CONF");
	Dl_info info;
	if (env != NULL && *env != '\0')
		return env;
	if (dladdr((void *)nvmlInit_v2, &info) == 0 || info.dli_fname == NULL)
		return "nvml-sim.conf";
	snprintf(path, sizeof path, "%s", info.dli_fname);
	char *slash = strrchr(path, '/');
	if (slash == NULL)
		return "nvml-sim.conf";
	snprintf(slash + 1, sizeof path - (size_t)(slash + 1 - path), "nvml-sim.conf");
	return path;
}

/* next_pair takes the next key=value from *p, in place; 0 at the end of the line. */
static int next_pair(char **p, char **key, char **value) {
	char *s = *p;
	while (*s == ' ' || *s == '\t')
		s++;
	if (*s == '\0' || *s == '#' || *s == '\n')
		return 0;
	*key = s;
	while (*s != '\0' && *s != '=' && *s != ' ' && *s != '\n')
		s++;
	if (*s != '=') { /* a bare word */
		*value = s;
		if (*s != '\0')
			*s++ = '\0';
		*p = s;
		return 1;
	}
	*s++ = '\0';
	char end = ' ';
	if (*s == '"') {
		end = '"';
		s++;
	}
	*value = s;
	while (*s != '\0' && *s != '\n' && *s != end)
		s++;
	if (*s != '\0')
		*s++ = '\0';
	*p = s;
	return 1;
}

static unsigned long long throttle_reason(const char *name) {
	static const struct { const char *name; unsigned long long bit; } reasons[] = {
		{"sw_power", nvmlClocksEventReasonSwPowerCap},
		{"hw_slowdown", nvmlClocksThrottleReasonHwSlowdown},
		{"sw_thermal", nvmlClocksEventReasonSwThermalSlowdown},
		{"hw_thermal", nvmlClocksThrottleReasonHwThermalSlowdown},
		{"power_brake", nvmlClocksThrottleReasonHwPowerBrakeSlowdown},
	};
	for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
		if (strcmp(name, reasons[i].name) == 0)
			return reasons[i].bit;
	return 0;
}

static void parse_gpu(char *p) {
	struct nvmlDevice_st g = {.power_w = UNSET, .temp_c = UNSET, .sm_clock = UNSET, .mem_clock = UNSET,
		.util = UNSET, .memory_mib = 81920, .memory_used_mib = (unsigned long long)UNSET, .compute_major = 8};
	char *key, *value;
	g.index = gpu_count;
	while (next_pair(&p, &key, &value)) {
		if (strcmp(key, "index") == 0) g.index = (unsigned int)atoi(value);
		else if (strcmp(key, "uuid") == 0) snprintf(g.uuid, sizeof g.uuid, "%s", value);
		else if (strcmp(key, "name") == 0) snprintf(g.name, sizeof g.name, "%s", value);
		else if (strcmp(key, "memory_mib") == 0) g.memory_mib = strtoull(value, NULL, 10);
		else if (strcmp(key, "memory_used_mib") == 0) g.memory_used_mib = strtoull(value, NULL, 10);
		else if (strcmp(key, "compute") == 0) sscanf(value, "%d.%d", &g.compute_major, &g.compute_minor);
		else if (strcmp(key, "power_w") == 0) g.power_w = atof(value);
		else if (strcmp(key, "temp_c") == 0) g.temp_c = atof(value);
		else if (strcmp(key, "sm_clock") == 0) g.sm_clock = atof(value);
		else if (strcmp(key, "mem_clock") == 0) g.mem_clock = atof(value);
		else if (strcmp(key, "util") == 0) g.util = atof(value);
		else if (strcmp(key, "ecc_dbe") == 0) g.ecc_dbe = strtoull(value, NULL, 10);
		else if (strcmp(key, "lost") == 0) g.lost = atoi(value);
		else if (strcmp(key, "throttle") == 0) g.throttle = throttle_reason(value);
	}
	if (g.index >= MAX_GPUS)
		return;
	/* The energy counter never runs backwards, also across a new scenario. */
	g.energy_j = gpus[g.index].energy_j;
	g.energy_at = gpus[g.index].energy_at;
	gpus[g.index] = g;
	if (g.index >= gpu_count)
		gpu_count = g.index + 1;
}

/* reload reads the file if it changed. The lock is held. */
static void reload(void) {
	struct stat st;
	const char *path = conf_path();
	if (stat(path, &st) != 0)
		return;
	if (st.st_mtim.tv_sec == conf_mtime.tv_sec && st.st_mtim.tv_nsec == conf_mtime.tv_nsec)
		return;
	FILE *f = fopen(path, "re");
	if (f == NULL)
		return;
	conf_mtime = st.st_mtim;
	gpu_count = 0;
	char line[1024];
	while (fgets(line, sizeof line, f) != NULL) {
		char *p = line, *key, *value;
		if (!next_pair(&p, &key, &value))
			continue;
		if (strcmp(key, "gpu") == 0) {
			parse_gpu(p);
		} else if (strcmp(key, "driver") == 0) {
			while (next_pair(&p, &key, &value))
				if (strcmp(key, "version") == 0)
					snprintf(driver, sizeof driver, "%s", value);
		}
	}
	fclose(f);
}

/* The load curve: a triangle between 70 and 98 %, 20 s long, each GPU a second apart. */
static double util_of(const struct nvmlDevice_st *g) {
	if (g->util != UNSET)
		return g->util;
	double phase = now() + g->index;
	phase -= 20 * (long)(phase / 20);
	return 70 + 28 * (phase < 10 ? phase : 20 - phase) / 10;
}

static double tdp_of(const struct nvmlDevice_st *g) {
	return g->compute_major >= 9 ? 700 : g->compute_minor == 9 ? 72 : 400;
}

static double power_of(const struct nvmlDevice_st *g) {
	return g->power_w != UNSET ? g->power_w : tdp_of(g) * (0.2 + 0.7 * util_of(g) / 100);
}

static void integrate(struct nvmlDevice_st *g) {
	double t = now();
	if (g->energy_at > 0)
		g->energy_j += (t - g->energy_at) * power_of(g);
	g->energy_at = t;
}

#define ENTER(check) \
	pthread_mutex_lock(&lock); \
	nvmlReturn_t ret = NVML_SUCCESS; \
	if (!initialized) { ret = NVML_ERROR_UNINITIALIZED; goto out; } \
	reload(); \
	if (!(check)) { ret = NVML_ERROR_INVALID_ARGUMENT; goto out; }
#define LEAVE out: pthread_mutex_unlock(&lock); return ret;
#define ALIVE(d) if ((d)->lost) { ret = NVML_ERROR_GPU_IS_LOST; goto out; }

nvmlReturn_t nvmlInit_v2(void) {
	pthread_mutex_lock(&lock);
	reload();
	initialized++;
	pthread_mutex_unlock(&lock);
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
	ret = copy_string(version, length, driver);
	LEAVE
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length) {
	ENTER(version)
	char v[96];
	snprintf(v, sizeof v, "12.%s", driver);
	ret = copy_string(version, length, v);
	LEAVE
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
	ENTER(count)
	*count = gpu_count;
	LEAVE
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
	ENTER(device && index < gpu_count)
	device->handle = &gpus[index];
	LEAVE
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
	ENTER(uuid && device)
	ret = NVML_ERROR_NOT_FOUND;
	for (unsigned int i = 0; i < gpu_count; i++)
		if (strcmp(gpus[i].uuid, uuid) == 0) {
			device->handle = &gpus[i];
			ret = NVML_SUCCESS;
			break;
		}
	LEAVE
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t dev, char *name, unsigned int length) {
	struct nvmlDevice_st *d = dev.handle;
	ENTER(d && name)
	ret = copy_string(name, length, d->name);
	LEAVE
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t dev, char *uuid, unsigned int length) {
	struct nvmlDevice_st *d = dev.handle;
	ENTER(d && uuid)
	ret = copy_string(uuid, length, d->uuid);
	LEAVE
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t dev, unsigned int *index) {
	struct nvmlDevice_st *d = dev.handle;
	ENTER(d && index)
	*index = d->index;
	LEAVE
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t dev, int *major, int *minor) {
	struct nvmlDevice_st *d = dev.handle;
	ENTER(d && major && minor)
	*major = d->compute_major;
	*minor = d->compute_minor;
	LEAVE
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t dev, nvmlMemory_t *memory) {
	struct nvmlDevice_st *d = dev.handle;
	ENTER(d && memory)
	ALIVE(d)
	memory->total = d->memory_mib << 20;
	memory->used = d->memory_used_mib != (unsigned long long)UNSET ? d->memory_used_mib << 20 : (memory->total / 100) * 88;
	memory->free = memory->total - memory->used;
	LEAVE
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t dev, unsigned int *milliwatts) {
	struct nvmlDevice_st *d = dev.handle;
	ENTER(d && milliwatts)
	ALIVE(d)
	*milliwatts = (unsigned int)(power_of(d) * 1000);
	LEAVE
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t dev, unsigned long long *millijoules) {
	struct nvmlDevice_st *d = dev.handle;
	ENTER(d && millijoules)
	ALIVE(d)
	integrate(d);
	*millijoules = (unsigned long long)(d->energy_j * 1000);
	LEAVE
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t dev, nvmlTemperatureSensors_t sensor, unsigned int *celsius) {
	struct nvmlDevice_st *d = dev.handle;
	ENTER(d && celsius && sensor == NVML_TEMPERATURE_GPU)
	ALIVE(d)
	*celsius = (unsigned int)(d->temp_c != UNSET ? d->temp_c : 35 + 0.35 * util_of(d));
	LEAVE
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t dev, nvmlClockType_t type, unsigned int *mhz) {
	struct nvmlDevice_st *d = dev.handle;
	ENTER(d && mhz)
	ALIVE(d)
	double sm = d->compute_major >= 9 ? 1980 : d->compute_minor == 9 ? 2040 : 1410;
	double mem = d->compute_major >= 9 ? 2619 : d->compute_minor == 9 ? 6251 : 1593;
	if (type == NVML_CLOCK_MEM)
		*mhz = (unsigned int)(d->mem_clock != UNSET ? d->mem_clock : mem);
	else
		*mhz = (unsigned int)(d->sm_clock != UNSET ? d->sm_clock : d->throttle ? sm * 0.6 : sm);
	LEAVE
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t dev, nvmlUtilization_t *rates) {
	struct nvmlDevice_st *d = dev.handle;
	ENTER(d && rates)
	ALIVE(d)
	rates->gpu = (unsigned int)util_of(d);
	rates->memory = (unsigned int)(util_of(d) / 2);
	LEAVE
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t dev, unsigned long long *reasons) {
	struct nvmlDevice_st *d = dev.handle;
	ENTER(d && reasons)
	ALIVE(d)
	*reasons = d->throttle;
	LEAVE
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t dev, unsigned long long *reasons) {
	return nvmlDeviceGetCurrentClocksEventReasons(dev, reasons);
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t dev, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter, unsigned long long *count) {
	struct nvmlDevice_st *d = dev.handle;
	(void)counter;
	ENTER(d && count)
	ALIVE(d)
	*count = type == NVML_MEMORY_ERROR_TYPE_UNCORRECTED ? d->ecc_dbe : 0;
	LEAVE
}
