/* SPDX-License-Identifier: Apache-2.0
 *
 * A simulated libdcgm.so.4: the part of DCGM's binary interface by which GPUs are
 * listed and their fields watched and read, over the GPUs of scenario.h.
 *
 * It is as strict as DCGM where its users go wrong: a field that is not watched has
 * no value, 64 groups are all there are, structures have versions, and a host
 * engine must listen where a connection is asked for. The values of a remote host
 * engine are those of the scenario; the connection is real, and so is its loss.
 */
#define _GNU_SOURCE
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define DCGM_API_EXPORT
#pragma GCC visibility push(default)
#include "dcgm_agent.h"
#include "dcgm_fields.h"
#include "dcgm_structs.h"
#pragma GCC visibility pop

#include "scenario.h"

#define MAX_GROUPS DCGM_MAX_NUM_GROUPS
#define MAX_MEMBERS 256
#define MAX_FIELDS 128

struct group {
	int used, count;
	dcgmGroupEntityPair_t members[MAX_MEMBERS];
};

struct field_group {
	int used, count;
	unsigned short fields[MAX_FIELDS];
};

struct watch {
	int group, fields; /* -1: none */
};

static struct group groups[MAX_GROUPS];
static struct field_group field_groups[MAX_GROUPS];
static struct watch watches[MAX_GROUPS];
static int initialized, embedded, connection = -1;

/* What each field is: its type, and the key of the scenario and factor it comes from. */
static const struct field {
	unsigned short id;
	char type;
	int key;
	double factor;
} fields[] = {
	{DCGM_FI_DRIVER_VERSION, DCGM_FT_STRING, -1, 0}, {DCGM_FI_DEV_NAME, DCGM_FT_STRING, -1, 0}, {DCGM_FI_DEV_UUID, DCGM_FT_STRING, -1, 0},
	{DCGM_FI_DEV_PCI_BUSID, DCGM_FT_STRING, -1, 0}, {DCGM_FI_DEV_MINOR_NUMBER, DCGM_FT_INT64, -1, 0}, {DCGM_FI_DEV_NVML_INDEX, DCGM_FT_INT64, -1, 0},
	{DCGM_FI_DEV_CLOCKS_EVENT_REASONS, DCGM_FT_INT64, -1, 0}, {DCGM_FI_DEV_XID_ERRORS, DCGM_FT_INT64, -1, 0},
	{DCGM_FI_DEV_FB_TOTAL, DCGM_FT_INT64, -1, 0}, {DCGM_FI_DEV_FB_FREE, DCGM_FT_INT64, -1, 0},
	{DCGM_FI_DEV_SM_CLOCK, DCGM_FT_INT64, SIM_SM_CLOCK, 1}, {DCGM_FI_DEV_MEM_CLOCK, DCGM_FT_INT64, SIM_MEM_CLOCK, 1},
	{DCGM_FI_DEV_MEMORY_TEMP, DCGM_FT_INT64, SIM_MEM_TEMP, 1}, {DCGM_FI_DEV_GPU_TEMP, DCGM_FT_INT64, SIM_TEMP, 1},
	{DCGM_FI_DEV_POWER_USAGE, DCGM_FT_DOUBLE, SIM_POWER, 1}, {DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION, DCGM_FT_INT64, SIM_ENERGY, 1000},
	{DCGM_FI_DEV_PCIE_REPLAY_COUNTER, DCGM_FT_INT64, SIM_PCIE_REPLAY, 1}, {DCGM_FI_DEV_GPU_UTIL, DCGM_FT_INT64, SIM_UTIL, 1},
	{DCGM_FI_DEV_MEM_COPY_UTIL, DCGM_FT_INT64, SIM_MEM_UTIL, 1}, {DCGM_FI_DEV_ENC_UTIL, DCGM_FT_INT64, SIM_ENC_UTIL, 1},
	{DCGM_FI_DEV_DEC_UTIL, DCGM_FT_INT64, SIM_DEC_UTIL, 1}, {DCGM_FI_DEV_FB_USED, DCGM_FT_INT64, SIM_MEMORY_USED, 1},
	{DCGM_FI_DEV_FB_RESERVED, DCGM_FT_INT64, SIM_RESERVED, 1}, {DCGM_FI_DEV_ECC_SBE_VOL_TOTAL, DCGM_FT_INT64, SIM_ECC_SBE, 1},
	{DCGM_FI_DEV_ECC_DBE_VOL_TOTAL, DCGM_FT_INT64, SIM_ECC_DBE, 1},
	{DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS, DCGM_FT_INT64, SIM_REMAP_UNCORRECTABLE, 1},
	{DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS, DCGM_FT_INT64, SIM_REMAP_CORRECTABLE, 1},
	{DCGM_FI_DEV_ROW_REMAP_FAILURE, DCGM_FT_INT64, SIM_REMAP_FAILURE, 1}, {DCGM_FI_DEV_ROW_REMAP_PENDING, DCGM_FT_INT64, SIM_REMAP_PENDING, 1},
	{DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL, DCGM_FT_INT64, SIM_NVLINK_TX, 1e-6},
	{DCGM_FI_PROF_GR_ENGINE_ACTIVE, DCGM_FT_DOUBLE, SIM_GR_ACTIVE, 1}, {DCGM_FI_PROF_SM_ACTIVE, DCGM_FT_DOUBLE, SIM_SM_ACTIVE, 1},
	{DCGM_FI_PROF_SM_OCCUPANCY, DCGM_FT_DOUBLE, SIM_SM_OCCUPANCY, 1}, {DCGM_FI_PROF_PIPE_TENSOR_ACTIVE, DCGM_FT_DOUBLE, SIM_TENSOR_ACTIVE, 1},
	{DCGM_FI_PROF_DRAM_ACTIVE, DCGM_FT_DOUBLE, SIM_DRAM_ACTIVE, 1}, {DCGM_FI_PROF_PCIE_TX_BYTES, DCGM_FT_INT64, SIM_PCIE_TX, 1},
	{DCGM_FI_PROF_PCIE_RX_BYTES, DCGM_FT_INT64, SIM_PCIE_RX, 1}, {DCGM_FI_PROF_NVLINK_TX_BYTES, DCGM_FT_INT64, SIM_NVLINK_TX, 1},
	{DCGM_FI_PROF_NVLINK_RX_BYTES, DCGM_FT_INT64, SIM_NVLINK_RX, 1},
};
#define FIELDS (sizeof fields / sizeof fields[0])

static const struct field *field_of(unsigned short id) {
	for (size_t i = 0; i < FIELDS; i++)
		if (fields[i].id == id)
			return &fields[i];
	return NULL;
}

static int profiling(unsigned short id) { return id >= DCGM_FI_PROF_GR_ENGINE_ACTIVE && id < DCGM_FI_PROF_GR_ENGINE_ACTIVE + 1000; }

#define HANDLE ((dcgmHandle_t)1)

/* alive says whether the host engine is still there. */
static int alive(dcgmHandle_t handle) {
	char byte;
	if (!initialized || handle != HANDLE)
		return 0;
	if (embedded)
		return 1;
	if (connection < 0)
		return 0;
	return recv(connection, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0;
}

#define ENTER(handle, check) \
	sim_enter(); \
	dcgmReturn_t ret = DCGM_ST_OK; \
	if (!alive(handle)) { ret = embedded || connection >= 0 ? DCGM_ST_CONNECTION_NOT_VALID : DCGM_ST_UNINITIALIZED; goto out; } \
	if (!(check)) { ret = DCGM_ST_BADPARAM; goto out; }
#define LEAVE out: sim_leave(); return ret;

const char *errorString(dcgmReturn_t result) {
	switch (result) {
	case DCGM_ST_OK: return "Success";
	case DCGM_ST_BADPARAM: return "Bad parameter passed to function";
	case DCGM_ST_NOT_SUPPORTED: return "This request is not supported";
	case DCGM_ST_UNINITIALIZED: return "Host engine is not initialized";
	case DCGM_ST_VER_MISMATCH: return "API version mismatch";
	case DCGM_ST_NO_DATA: return "No data";
	case DCGM_ST_NOT_WATCHED: return "Field is not being watched";
	case DCGM_ST_GPU_IS_LOST: return "GPU is lost";
	case DCGM_ST_CONNECTION_NOT_VALID: return "The connection to the host engine is not valid";
	case DCGM_ST_MAX_LIMIT: return "Maximum limit reached";
	case DCGM_ST_DUPLICATE_KEY: return "Duplicate key";
	case DCGM_ST_PROFILING_NOT_SUPPORTED: return "Profiling is not supported for this group of GPUs or GPU";
	default: return "Generic unspecified error";
	}
}

dcgmReturn_t dcgmInit(void) {
	initialized = 1;
	return DCGM_ST_OK;
}

static void forget(void) {
	memset(groups, 0, sizeof groups);
	memset(field_groups, 0, sizeof field_groups);
	for (int i = 0; i < MAX_GROUPS; i++)
		watches[i] = (struct watch){-1, -1};
}

dcgmReturn_t dcgmShutdown(void) {
	initialized = embedded = 0;
	return DCGM_ST_OK;
}

dcgmReturn_t dcgmStartEmbedded(dcgmOperationMode_t mode, dcgmHandle_t *handle) {
	(void)mode;
	if (!initialized)
		return DCGM_ST_UNINITIALIZED;
	forget();
	embedded = 1;
	*handle = HANDLE;
	return DCGM_ST_OK;
}

dcgmReturn_t dcgmStopEmbedded(dcgmHandle_t handle) {
	(void)handle;
	embedded = 0;
	return DCGM_ST_OK;
}

/* dial_unix tries for up to 5 s: the engine may just have been started. */
static int dial_unix(const char *path) {
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
	for (int tries = 0; fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) != 0; tries++) {
		if (tries == 500) {
			close(fd);
			return -1;
		}
		usleep(10000);
	}
	return fd;
}

static int dial_tcp(const char *address) {
	char host[256];
	const char *port = "5555", *colon = strrchr(address, ':');
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *to = NULL;
	snprintf(host, sizeof host, "%.*s", colon != NULL ? (int)(colon - address) : (int)strlen(address), address);
	if (colon != NULL)
		port = colon + 1;
	if (getaddrinfo(host, port, &hints, &to) != 0)
		return -1;
	int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, to->ai_addr, to->ai_addrlen) != 0) {
		close(fd);
		fd = -1;
	}
	freeaddrinfo(to);
	return fd;
}

static dcgmReturn_t connected(int fd, dcgmHandle_t *handle) {
	if (fd < 0)
		return DCGM_ST_CONNECTION_NOT_VALID;
	if (connection >= 0)
		close(connection);
	connection = fd;
	forget();
	*handle = HANDLE;
	return DCGM_ST_OK;
}

dcgmReturn_t dcgmConnect_v2(const char *address, dcgmConnectV2Params_t *params, dcgmHandle_t *handle) {
	if (params->version != dcgmConnectV2Params_version)
		return DCGM_ST_VER_MISMATCH;
	return connected(params->addressIsUnixSocket ? dial_unix(address) : dial_tcp(address), handle);
}

dcgmReturn_t dcgmConnect_v3(const char *address, dcgmConnectV3Params_t *params, dcgmHandle_t *handle) {
	if (params->version != dcgmConnectV3Params_version)
		return DCGM_ST_VER_MISMATCH;
	if (strncmp(address, "unix://", 7) == 0)
		return connected(dial_unix(address + 7), handle);
	if (strncmp(address, "tcp://", 6) == 0)
		return connected(dial_tcp(address + 6), handle);
	return DCGM_ST_BADPARAM;
}

dcgmReturn_t dcgmDisconnect(dcgmHandle_t handle) {
	(void)handle;
	if (connection >= 0)
		close(connection);
	connection = -1;
	return DCGM_ST_OK;
}

dcgmReturn_t dcgmGetEntityGroupEntities(dcgmHandle_t handle, dcgm_field_entity_group_t group, dcgm_field_eid_t *entities, int *count, unsigned int flags) {
	(void)flags;
	ENTER(handle, entities && count)
	int n = group == DCGM_FE_GPU ? (int)sim_gpu_count : group == DCGM_FE_GPU_I ? (int)sim_mig_count : 0;
	if (n > *count) {
		ret = DCGM_ST_INSUFFICIENT_SIZE;
		goto out;
	}
	for (int i = 0; i < n; i++)
		entities[i] = (unsigned int)i;
	*count = n;
	LEAVE
}

dcgmReturn_t dcgmGetGpuStatus(dcgmHandle_t handle, unsigned int gpu, DcgmEntityStatus_t *status) {
	ENTER(handle, status && gpu < sim_gpu_count)
	*status = sim_gpus[gpu].lost ? DcgmEntityStatusLost : DcgmEntityStatusOk;
	LEAVE
}

dcgmReturn_t dcgmGetGpuInstanceHierarchy(dcgmHandle_t handle, dcgmMigHierarchy_v2 *h) {
	ENTER(handle, h && h->version == dcgmMigHierarchy_version2)
	h->count = sim_mig_count;
	for (unsigned int i = 0; i < sim_mig_count; i++) {
		dcgmMigHierarchyInfo_v2 *e = &h->entityList[i];
		memset(e, 0, sizeof *e);
		e->entity = (dcgmGroupEntityPair_t){DCGM_FE_GPU_I, i};
		e->parent = (dcgmGroupEntityPair_t){DCGM_FE_GPU, sim_migs[i].gpu};
		snprintf(e->info.gpuUuid, sizeof e->info.gpuUuid, "%s", sim_gpus[sim_migs[i].gpu].uuid);
		e->info.nvmlGpuIndex = sim_migs[i].gpu;
		e->info.nvmlInstanceId = sim_migs[i].gi;
		e->info.nvmlComputeInstanceId = (unsigned int)-1;
	}
	LEAVE
}

dcgmReturn_t dcgmGetNvLinkLinkStatus(dcgmHandle_t handle, dcgmNvLinkStatus_v5 *status) {
	ENTER(handle, status && status->version == dcgmNvLinkStatus_version5)
	status->numGpus = sim_gpu_count < DCGM_MAX_NUM_DEVICES ? sim_gpu_count : DCGM_MAX_NUM_DEVICES;
	status->numNvSwitches = 0;
	for (unsigned int i = 0; i < status->numGpus; i++) {
		double links = 0, down = 0;
		sim_value(&sim_gpus[i], NULL, SIM_NVLINK_LINKS, &links);
		sim_value(&sim_gpus[i], NULL, SIM_NVLINK_DOWN, &down);
		status->gpus[i].entityId = i;
		for (int l = 0; l < DCGM_NVLINK_MAX_LINKS_PER_GPU; l++)
			status->gpus[i].linkState[l] = l >= links ? DcgmNvLinkLinkStateNotSupported : l < down ? DcgmNvLinkLinkStateDown : DcgmNvLinkLinkStateUp;
	}
	LEAVE
}

dcgmReturn_t dcgmProfGetSupportedMetricGroups(dcgmHandle_t handle, dcgmProfGetMetricGroups_t *m) {
	ENTER(handle, m && m->version == dcgmProfGetMetricGroups_version && m->gpuId < sim_gpu_count)
	if (!sim_gpus[m->gpuId].profiling) {
		ret = DCGM_ST_PROFILING_NOT_SUPPORTED;
		goto out;
	}
	m->numMetricGroups = 1;
	memset(&m->metricGroups[0], 0, sizeof m->metricGroups[0]);
	for (size_t i = 0; i < FIELDS; i++)
		if (profiling(fields[i].id))
			m->metricGroups[0].fieldIds[m->metricGroups[0].numFieldIds++] = fields[i].id;
	LEAVE
}

dcgmReturn_t dcgmGroupCreate(dcgmHandle_t handle, dcgmGroupType_t type, const char *name, dcgmGpuGrp_t *id) {
	(void)name;
	ENTER(handle, id && type == DCGM_GROUP_EMPTY)
	ret = DCGM_ST_MAX_LIMIT;
	for (int i = 0; i < MAX_GROUPS && ret != DCGM_ST_OK; i++)
		if (!groups[i].used) {
			groups[i] = (struct group){.used = 1};
			*id = (dcgmGpuGrp_t)(i + 2); /* 0 and 1 are DCGM's own */
			ret = DCGM_ST_OK;
		}
	LEAVE
}

static int group_of(dcgmGpuGrp_t id) { return id >= 2 && id < MAX_GROUPS + 2 && groups[id - 2].used ? (int)id - 2 : -1; }
static int field_group_of(dcgmFieldGrp_t id) { return id >= 1 && id < MAX_GROUPS + 1 && field_groups[id - 1].used ? (int)id - 1 : -1; }

dcgmReturn_t dcgmGroupDestroy(dcgmHandle_t handle, dcgmGpuGrp_t id) {
	ENTER(handle, group_of(id) >= 0)
	for (int i = 0; i < MAX_GROUPS; i++)
		if (watches[i].group == group_of(id))
			watches[i] = (struct watch){-1, -1};
	groups[group_of(id)].used = 0;
	LEAVE
}

dcgmReturn_t dcgmGroupAddEntity(dcgmHandle_t handle, dcgmGpuGrp_t id, dcgm_field_entity_group_t entity_group, dcgm_field_eid_t entity) {
	ENTER(handle, group_of(id) >= 0 && (entity_group == DCGM_FE_GPU ? entity < sim_gpu_count : entity_group == DCGM_FE_GPU_I && entity < sim_mig_count))
	struct group *g = &groups[group_of(id)];
	if (g->count == MAX_MEMBERS) {
		ret = DCGM_ST_MAX_LIMIT;
		goto out;
	}
	g->members[g->count++] = (dcgmGroupEntityPair_t){entity_group, entity};
	LEAVE
}

dcgmReturn_t dcgmFieldGroupCreate(dcgmHandle_t handle, int count, const unsigned short *ids, const char *name, dcgmFieldGrp_t *id) {
	(void)name;
	ENTER(handle, ids && id && count > 0 && count <= MAX_FIELDS)
	ret = DCGM_ST_MAX_LIMIT;
	for (int i = 0; i < MAX_GROUPS && ret != DCGM_ST_OK; i++)
		if (!field_groups[i].used) {
			field_groups[i] = (struct field_group){.used = 1, .count = count};
			memcpy(field_groups[i].fields, ids, (size_t)count * sizeof *ids);
			*id = (dcgmFieldGrp_t)(i + 1);
			ret = DCGM_ST_OK;
		}
	LEAVE
}

dcgmReturn_t dcgmFieldGroupDestroy(dcgmHandle_t handle, dcgmFieldGrp_t id) {
	ENTER(handle, field_group_of(id) >= 0)
	field_groups[field_group_of(id)].used = 0;
	LEAVE
}

static unsigned int gpu_of(dcgmGroupEntityPair_t e) { return e.entityGroupId == DCGM_FE_GPU_I ? sim_migs[e.entityId].gpu : e.entityId; }

dcgmReturn_t dcgmWatchFields(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmFieldGrp_t field_group, long long every_us, double keep_s, int keep) {
	(void)keep;
	ENTER(handle, group_of(group) >= 0 && field_group_of(field_group) >= 0 && every_us > 0 && keep_s >= 0)
	const struct group *g = &groups[group_of(group)];
	const struct field_group *f = &field_groups[field_group_of(field_group)];
	for (int i = 0; i < f->count; i++)
		for (int j = 0; j < g->count && profiling(f->fields[i]); j++)
			if (!sim_gpus[gpu_of(g->members[j])].profiling) {
				ret = DCGM_ST_PROFILING_NOT_SUPPORTED;
				goto out;
			}
	ret = DCGM_ST_MAX_LIMIT;
	for (int i = 0; i < MAX_GROUPS && ret != DCGM_ST_OK; i++)
		if (watches[i].group < 0) {
			watches[i] = (struct watch){group_of(group), field_group_of(field_group)};
			ret = DCGM_ST_OK;
		}
	LEAVE
}

dcgmReturn_t dcgmUnwatchFields(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmFieldGrp_t field_group) {
	ENTER(handle, group_of(group) >= 0 && field_group_of(field_group) >= 0)
	for (int i = 0; i < MAX_GROUPS; i++)
		if (watches[i].group == group_of(group) && watches[i].fields == field_group_of(field_group))
			watches[i] = (struct watch){-1, -1};
	LEAVE
}

dcgmReturn_t dcgmUpdateAllFields(dcgmHandle_t handle, int wait) {
	(void)wait;
	ENTER(handle, 1)
	LEAVE
}

static int watched(dcgmGroupEntityPair_t e, unsigned short id) {
	for (int i = 0; i < MAX_GROUPS; i++) {
		if (watches[i].group < 0)
			continue;
		const struct group *g = &groups[watches[i].group];
		const struct field_group *f = &field_groups[watches[i].fields];
		int has = 0;
		for (int j = 0; j < f->count; j++)
			has |= f->fields[j] == id;
		for (int j = 0; has && j < g->count; j++)
			if (g->members[j].entityGroupId == e.entityGroupId && g->members[j].entityId == e.entityId)
				return 1;
	}
	return 0;
}

static void blank(dcgmFieldValue_v2 *v, int sentinel) {
	static const char *const strings[] = {DCGM_STR_BLANK, DCGM_STR_NOT_FOUND, DCGM_STR_NOT_SUPPORTED, DCGM_STR_NOT_PERMISSIONED};
	if (v->fieldType == DCGM_FT_DOUBLE) v->value.dbl = DCGM_FP64_BLANK + sentinel;
	else if (v->fieldType == DCGM_FT_STRING) strcpy(v->value.str, strings[sentinel]);
	else v->value.i64 = DCGM_INT64_BLANK + sentinel;
}

/* special fills the fields that are no number of the scenario; 0 if the field is one. */
static int special(dcgmFieldValue_v2 *v, const struct sim_gpu *g, const struct sim_mig *m) {
	switch (v->fieldId) {
	case DCGM_FI_DRIVER_VERSION: snprintf(v->value.str, sizeof v->value.str, "%s", sim_driver); return 1;
	case DCGM_FI_DEV_NAME: snprintf(v->value.str, sizeof v->value.str, "%s", m != NULL ? m->profile : g->name); return 1;
	case DCGM_FI_DEV_UUID: snprintf(v->value.str, sizeof v->value.str, "%s", g->uuid); return 1;
	case DCGM_FI_DEV_PCI_BUSID: sim_bus_id(g, v->value.str, sizeof v->value.str); return 1;
	case DCGM_FI_DEV_MINOR_NUMBER: case DCGM_FI_DEV_NVML_INDEX: v->value.i64 = g->index; return 1;
	case DCGM_FI_DEV_CLOCKS_EVENT_REASONS: v->value.i64 = (int64_t)g->values.throttle; return 1;
	case DCGM_FI_DEV_FB_TOTAL: v->value.i64 = (int64_t)(m != NULL ? m->memory_mib : g->memory_mib); return 1;
	case DCGM_FI_DEV_XID_ERRORS:
		v->status = DCGM_ST_NO_DATA;
		blank(v, 0);
		for (unsigned int i = 0; i < sim_xid_count; i++)
			if (sim_xids[i].gpu == g->index) {
				v->status = DCGM_ST_OK;
				v->value.i64 = (int64_t)sim_xids[i].code;
				v->ts = (int64_t)(sim_xids[i].at * 1e6);
			}
		return 1;
	}
	return 0;
}

static void value_of(dcgmFieldValue_v2 *v, dcgmGroupEntityPair_t e, unsigned short id, int live) {
	const struct field *f = field_of(id);
	memset(v, 0, offsetof(dcgmFieldValue_v2, value) + 8);
	v->version = dcgmFieldValue_version2;
	v->entityGroupId = e.entityGroupId;
	v->entityId = e.entityId;
	v->fieldId = id;
	v->ts = (int64_t)(sim_now() * 1e6);
	v->status = DCGM_ST_UNKNOWN_FIELD;
	if (f == NULL)
		return;
	v->fieldType = (unsigned short)f->type;
	struct sim_mig *m = e.entityGroupId == DCGM_FE_GPU_I ? &sim_migs[e.entityId] : NULL;
	struct sim_gpu *g = &sim_gpus[gpu_of(e)];
	v->status = DCGM_ST_NOT_WATCHED;
	blank(v, 0);
	if (!live && !watched(e, id))
		return;
	v->status = DCGM_ST_OK;
	if (g->lost && id != DCGM_FI_DEV_XID_ERRORS && id != DCGM_FI_DEV_UUID && id != DCGM_FI_DEV_NAME) {
		v->status = DCGM_ST_GPU_IS_LOST;
		return;
	}
	if (special(v, g, m))
		return;
	double number = 0, used = 0, reserved = 0;
	enum sim_state state;
	int key = f->key;
	if (id == DCGM_FI_DEV_FB_FREE) {
		key = SIM_MEMORY_USED;
		state = sim_value(g, m, SIM_MEMORY_USED, &used);
		sim_value(g, m, SIM_RESERVED, &reserved);
		number = (double)(m != NULL ? m->memory_mib : g->memory_mib) - used - reserved;
	} else {
		/* What an instance does not have of its own is its GPU's. */
		int own = profiling(id) || key == SIM_MEMORY_USED || key == SIM_RESERVED;
		state = sim_value(g, own ? m : NULL, (enum sim_key)key, &number);
		number *= f->factor;
	}
	if (state != SIM_OK) {
		const struct sim_values *values = m != NULL ? &m->values : &g->values;
		blank(v, state == SIM_UNSUPPORTED ? 2 : values->sentinel);
		v->status = state == SIM_UNSUPPORTED ? DCGM_ST_NOT_SUPPORTED : DCGM_ST_OK;
	} else if (f->type == DCGM_FT_DOUBLE) {
		v->value.dbl = number;
	} else {
		v->value.i64 = (int64_t)number;
	}
}

dcgmReturn_t dcgmEntitiesGetLatestValues(dcgmHandle_t handle, dcgmGroupEntityPair_t entities[], unsigned int entity_count,
	unsigned short ids[], unsigned int field_count, unsigned int flags, dcgmFieldValue_v2 values[]) {
	for (unsigned int i = 0; i < entity_count; i++)
		if (entities[i].entityGroupId == DCGM_FE_GPU && entities[i].entityId < SIM_MAX_GPUS)
			sim_wait(&sim_gpus[entities[i].entityId]);
	ENTER(handle, entities && ids && values && entity_count > 0 && field_count > 0)
	for (unsigned int i = 0; i < entity_count; i++) {
		int there = entities[i].entityGroupId == DCGM_FE_GPU ? entities[i].entityId < sim_gpu_count
			: entities[i].entityGroupId == DCGM_FE_GPU_I && entities[i].entityId < sim_mig_count;
		if (!there || sim_gpus[gpu_of(entities[i])].lost > 1) {
			ret = there ? DCGM_ST_GPU_IS_LOST : DCGM_ST_BADPARAM;
			goto out;
		}
		for (unsigned int j = 0; j < field_count; j++)
			value_of(&values[i * field_count + j], entities[i], ids[j], flags & DCGM_FV_FLAG_LIVE_DATA);
	}
	LEAVE
}

/* Only XIDs have a history here: it is the one field whose past anybody asks for. */
dcgmReturn_t dcgmGetValuesSince_v2(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmFieldGrp_t field_group, long long since, long long *next,
	dcgmFieldValueEntityEnumeration_f callback, void *data) {
	static dcgmFieldValue_v1 found[SIM_MAX_XIDS];
	static unsigned int of[SIM_MAX_XIDS];
	int count = 0;
	ENTER(handle, group_of(group) >= 0 && field_group_of(field_group) >= 0 && next && callback)
	*next = (long long)(sim_now() * 1e6) + 1;
	for (unsigned int i = 0; i < sim_xid_count; i++) {
		dcgmGroupEntityPair_t e = {DCGM_FE_GPU, sim_xids[i].gpu};
		long long ts = (long long)(sim_xids[i].at * 1e6);
		if (ts < since || !watched(e, DCGM_FI_DEV_XID_ERRORS))
			continue;
		found[count] = (dcgmFieldValue_v1){.version = dcgmFieldValue_version1, .fieldId = DCGM_FI_DEV_XID_ERRORS, .fieldType = DCGM_FT_INT64,
			.status = DCGM_ST_OK, .ts = ts, .value.i64 = (int64_t)sim_xids[i].code};
		of[count++] = sim_xids[i].gpu;
	}
	out:
	sim_leave();
	for (int i = 0; i < count; i++)
		callback(DCGM_FE_GPU, of[i], &found[i], 1, data);
	return ret;
}
