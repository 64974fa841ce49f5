/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "scenario.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define MAX_CHANGES 1024

/* A change is one key of an `at` statement. */
struct change {
	double at; /* seconds after the file's modification */
	unsigned int gpu;
	long gi; /* -1: the GPU itself */
	char key[32], value[128];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
struct sim_gpu sim_gpus[SIM_MAX_GPUS];
unsigned int sim_gpu_count;
struct sim_mig sim_migs[SIM_MAX_MIGS];
unsigned int sim_mig_count;
struct sim_xid sim_xids[SIM_MAX_XIDS];
unsigned int sim_xid_count;
double sim_loaded_at;
char sim_driver[80] = "570.133.20";

static struct change changes[MAX_CHANGES];
static unsigned int change_count, next_change;
static struct timespec file_mtime;
static double file_at;

static const char *const names[SIM_KEYS] = {
	"power_w", "temp_c", "mem_temp_c", "sm_clock", "mem_clock", "util", "mem_util", "enc_util", "dec_util",
	"memory_used_mib", "reserved_mib", "gr_active", "sm_active", "sm_occupancy", "tensor_active", "dram_active",
	"pcie_tx", "pcie_rx", "nvlink_tx", "nvlink_rx", "nvlink_links", "nvlink_down",
	"ecc_sbe", "ecc_dbe", "pcie_replay",
	"remap_uncorrectable", "remap_correctable", "remap_pending", "remap_failure",
	"energy",
};

double sim_now(void) {
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static const char *conf_path(void) {
	static char path[4096];
	const char *env = getenv("GPU_SIM_CONF");
	Dl_info info;
	if (env != NULL && *env != '\0')
		return env;
	if (dladdr((void *)conf_path, &info) == 0 || info.dli_fname == NULL)
		return "gpu-sim.conf";
	snprintf(path, sizeof path, "%s", info.dli_fname);
	char *slash = strrchr(path, '/');
	if (slash == NULL)
		return "gpu-sim.conf";
	snprintf(slash + 1, sizeof path - (size_t)(slash + 1 - path), "gpu-sim.conf");
	return path;
}

/* next_pair takes the next key=value from *p, in place; 0 at the end of the line. */
static int next_pair(char **p, char **key, char **value) {
	char *s = *p;
	while (*s == ' ' || *s == '\t' || *s == '\r')
		s++;
	if (*s == '\0' || *s == '#' || *s == '\n')
		return 0;
	*key = s;
	while (*s != '\0' && *s != '=' && *s != ' ' && *s != '\t' && *s != '\n')
		s++;
	if (*s != '=') { /* a bare word */
		*value = "";
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
	while (*s != '\0' && *s != '\n' && *s != '\r' && *s != end)
		s++;
	if (*s != '\0')
		*s++ = '\0';
	*p = s;
	return 1;
}

static int key_of(const char *name, size_t length) {
	for (int k = 0; k < SIM_KEYS; k++)
		if (strlen(names[k]) == length && memcmp(names[k], name, length) == 0)
			return k;
	return -1;
}

/* keys_of is the set of keys in a list divided by commas. */
static unsigned long long keys_of(const char *list) {
	unsigned long long set = 0;
	while (*list != '\0') {
		size_t length = strcspn(list, ",");
		int k = key_of(list, length);
		if (k >= 0)
			set |= 1ULL << k;
		list += length;
		if (*list == ',')
			list++;
	}
	return set;
}

static unsigned long long throttle_of(const char *list) {
	static const char *const reasons[] = {"idle", "app_clocks", "sw_power", "hw_slowdown", "sync_boost", "sw_thermal", "hw_thermal", "power_brake", "display"};
	unsigned long long bits = 0;
	while (*list != '\0') {
		size_t length = strcspn(list, "+");
		for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
			if (strlen(reasons[i]) == length && memcmp(reasons[i], list, length) == 0)
				bits |= 1ULL << i;
		list += length;
		if (*list == '+')
			list++;
	}
	return bits;
}

static double counter(const struct sim_values *v, enum sim_key k, double at) {
	return (v->now[k] == SIM_UNSET ? 0 : v->now[k]) + (at > v->since[k] ? v->rate[k] * (at - v->since[k]) : 0);
}

/* set changes one value as of the moment at; 0 if the key is none of a GPU or of an instance. */
static int set(struct sim_values *v, const char *key, const char *value, double at) {
	size_t length = strlen(key);
	int k = key_of(key, length);
	if (k >= 0) {
		v->now[k] = atof(value);
		v->since[k] = at;
		return 1;
	}
	if (length > 5 && strcmp(key + length - 5, "_rate") == 0 && (k = key_of(key, length - 5)) >= 0) {
		v->now[k] = counter(v, (enum sim_key)k, at);
		v->since[k] = at;
		v->rate[k] = atof(value);
		return 1;
	}
	if (strcmp(key, "throttle") == 0) v->throttle = throttle_of(value);
	else if (strcmp(key, "blank") == 0) v->blank = keys_of(value);
	else if (strcmp(key, "unsupported") == 0) v->unsupported = keys_of(value);
	else if (strcmp(key, "sentinel") == 0)
		v->sentinel = strcmp(value, "not_found") == 0 ? 1 : strcmp(value, "not_supported") == 0 ? 2 : strcmp(value, "not_permissioned") == 0 ? 3 : 0;
	else return 0;
	return 1;
}

static void set_gpu(struct sim_gpu *g, const char *key, const char *value, double at) {
	if (set(&g->values, key, value, at)) return;
	if (strcmp(key, "uuid") == 0) snprintf(g->uuid, sizeof g->uuid, "%s", value);
	else if (strcmp(key, "name") == 0) snprintf(g->name, sizeof g->name, "%s", value);
	else if (strcmp(key, "memory_mib") == 0) g->memory_mib = strtoull(value, NULL, 10);
	else if (strcmp(key, "compute") == 0) sscanf(value, "%d.%d", &g->compute_major, &g->compute_minor);
	else if (strcmp(key, "lost") == 0) g->lost = atoi(value);
	else if (strcmp(key, "profiling") == 0) g->profiling = atoi(value) != 0;
	else if (strcmp(key, "slow_ms") == 0) g->slow_ms = (unsigned int)strtoul(value, NULL, 10);
	else if (strcmp(key, "xid") == 0 && sim_xid_count < SIM_MAX_XIDS)
		sim_xids[sim_xid_count++] = (struct sim_xid){g->index, strtoull(value, NULL, 10), at > sim_loaded_at ? at : sim_loaded_at};
}

static void unset(struct sim_values *v) {
	memset(v, 0, sizeof *v);
	for (int k = 0; k < SIM_KEYS; k++)
		v->now[k] = SIM_UNSET;
}

static void parse_gpu(char *p) {
	char *key, *value, *q = p;
	static char copy[4096];
	struct sim_gpu g = {.index = sim_gpu_count, .memory_mib = 81920, .compute_major = 8, .profiling = 1};
	unset(&g.values);
	snprintf(copy, sizeof copy, "%s", p);
	for (char *c = copy; next_pair(&c, &key, &value);)
		if (strcmp(key, "index") == 0)
			g.index = (unsigned int)strtoul(value, NULL, 10);
	if (g.index >= SIM_MAX_GPUS)
		return;
	/* The energy counter never runs backwards, also across a new scenario. */
	g.energy_j = sim_gpus[g.index].energy_j;
	g.energy_at = sim_gpus[g.index].energy_at;
	while (next_pair(&q, &key, &value))
		set_gpu(&g, key, value, file_at);
	sim_gpus[g.index] = g;
	if (g.index >= sim_gpu_count)
		sim_gpu_count = g.index + 1;
}

static void parse_mig(char *p) {
	char *key, *value;
	struct sim_mig m = {.memory_mib = 9856, .gi = sim_mig_count};
	unset(&m.values);
	while (next_pair(&p, &key, &value)) {
		if (strcmp(key, "gpu") == 0) m.gpu = (unsigned int)strtoul(value, NULL, 10);
		else if (strcmp(key, "gi") == 0) m.gi = (unsigned int)strtoul(value, NULL, 10);
		else if (strcmp(key, "uuid") == 0) snprintf(m.uuid, sizeof m.uuid, "%s", value);
		else if (strcmp(key, "profile") == 0) snprintf(m.profile, sizeof m.profile, "%s", value);
		else if (strcmp(key, "memory_mib") == 0) m.memory_mib = strtoull(value, NULL, 10);
		else set(&m.values, key, value, file_at);
	}
	if (m.gpu < SIM_MAX_GPUS && sim_mig_count < SIM_MAX_MIGS)
		sim_migs[sim_mig_count++] = m;
}

static void parse_at(char *p) {
	char *key, *value;
	struct change c = {.gi = -1};
	if (!next_pair(&p, &key, &value))
		return;
	c.at = atof(key);
	while (next_pair(&p, &key, &value)) {
		if (strcmp(key, "gpu") == 0) c.gpu = (unsigned int)strtoul(value, NULL, 10);
		else if (strcmp(key, "gi") == 0) c.gi = strtol(value, NULL, 10);
		else if (change_count < MAX_CHANGES) {
			struct change *next = &changes[change_count++];
			*next = c;
			snprintf(next->key, sizeof next->key, "%s", key);
			snprintf(next->value, sizeof next->value, "%s", value);
		}
	}
}

/* sort_changes keeps the order of the file among changes of one moment. */
static void sort_changes(void) {
	for (unsigned int i = 1; i < change_count; i++) {
		struct change c = changes[i];
		unsigned int j = i;
		for (; j > 0 && changes[j - 1].at > c.at; j--)
			changes[j] = changes[j - 1];
		changes[j] = c;
	}
}

static void reload(void) {
	struct stat st;
	const char *path = conf_path();
	if (stat(path, &st) != 0)
		return;
	if (st.st_mtim.tv_sec == file_mtime.tv_sec && st.st_mtim.tv_nsec == file_mtime.tv_nsec)
		return;
	FILE *f = fopen(path, "re");
	if (f == NULL)
		return;
	file_mtime = st.st_mtim;
	file_at = (double)st.st_mtim.tv_sec + (double)st.st_mtim.tv_nsec / 1e9;
	sim_loaded_at = sim_now();
	sim_gpu_count = sim_mig_count = sim_xid_count = change_count = next_change = 0;
	char line[4096];
	while (fgets(line, sizeof line, f) != NULL) {
		char *p = line, *key, *value;
		if (!next_pair(&p, &key, &value))
			continue;
		if (strcmp(key, "gpu") == 0) parse_gpu(p);
		else if (strcmp(key, "mig") == 0) parse_mig(p);
		else if (strcmp(key, "at") == 0) parse_at(p);
		else if (strcmp(key, "driver") == 0)
			while (next_pair(&p, &key, &value))
				if (strcmp(key, "version") == 0)
					snprintf(sim_driver, sizeof sim_driver, "%s", value);
	}
	fclose(f);
	sort_changes();
}

/* play applies the changes whose moment has come. */
static void play(void) {
	double elapsed = sim_now() - file_at;
	for (; next_change < change_count && changes[next_change].at <= elapsed; next_change++) {
		const struct change *c = &changes[next_change];
		if (c->gi < 0 && c->gpu < sim_gpu_count)
			set_gpu(&sim_gpus[c->gpu], c->key, c->value, file_at + c->at);
		for (unsigned int i = 0; c->gi >= 0 && i < sim_mig_count; i++)
			if (sim_migs[i].gpu == c->gpu && sim_migs[i].gi == (unsigned int)c->gi)
				set(&sim_migs[i].values, c->key, c->value, file_at + c->at);
	}
}

void sim_enter(void) {
	pthread_mutex_lock(&lock);
	reload();
	play();
}

void sim_leave(void) { pthread_mutex_unlock(&lock); }

void sim_wait(const struct sim_gpu *g) {
	unsigned int ms = g->slow_ms;
	if (ms > 0) {
		struct timespec ts = {ms / 1000, (long)(ms % 1000) * 1000000L};
		nanosleep(&ts, NULL);
	}
}

struct sim_mig *sim_mig_of(unsigned int gpu, unsigned int nth) {
	for (unsigned int i = 0; i < sim_mig_count; i++)
		if (sim_migs[i].gpu == gpu && nth-- == 0)
			return &sim_migs[i];
	return NULL;
}

unsigned int sim_migs_of(unsigned int gpu) {
	unsigned int n = 0;
	while (sim_mig_of(gpu, n) != NULL)
		n++;
	return n;
}

void sim_bus_id(const struct sim_gpu *g, char *out, size_t size) {
	snprintf(out, size, "00000000:%02X:00.0", 0x10 + g->index);
}

/* The load curve: a triangle between 70 and 98 %, 20 s long, each GPU a second apart. */
static double util_of(const struct sim_gpu *g) {
	if (g->values.now[SIM_UTIL] != SIM_UNSET)
		return g->values.now[SIM_UTIL];
	double phase = sim_now() + g->index;
	phase -= 20 * (double)(long)(phase / 20);
	return 70 + 28 * (phase < 10 ? phase : 20 - phase) / 10;
}

static double tdp_of(const struct sim_gpu *g) {
	return g->compute_major >= 9 ? 700 : g->compute_minor == 9 ? 72 : 400;
}

static double curve(const struct sim_gpu *g, const struct sim_mig *m, enum sim_key key) {
	double util = util_of(g);
	switch (key) {
	case SIM_POWER: return tdp_of(g) * (0.2 + 0.7 * util / 100);
	case SIM_TEMP: return 35 + 0.35 * util;
	case SIM_MEM_TEMP: return 40 + 0.4 * util;
	case SIM_SM_CLOCK: return (g->compute_major >= 9 ? 1980 : g->compute_minor == 9 ? 2040 : 1410) * (g->values.throttle & ~1ULL ? 0.6 : 1);
	case SIM_MEM_CLOCK: return g->compute_major >= 9 ? 2619 : g->compute_minor == 9 ? 6251 : 1593;
	case SIM_UTIL: return util;
	case SIM_MEM_UTIL: return util / 2;
	case SIM_MEMORY_USED: return m != NULL ? (double)(m->memory_mib / 2) : (double)((g->memory_mib / 100) * 88);
	case SIM_GR_ACTIVE: return util / 100;
	case SIM_SM_ACTIVE: return 0.9 * util / 100;
	case SIM_SM_OCCUPANCY: return 0.3 * util / 100;
	case SIM_TENSOR_ACTIVE: return 0.5 * util / 100;
	case SIM_DRAM_ACTIVE: return 0.6 * util / 100;
	case SIM_PCIE_TX: case SIM_PCIE_RX: return 1e7 * util;
	default: return 0;
	}
}

enum sim_state sim_value(struct sim_gpu *g, const struct sim_mig *m, enum sim_key key, double *value) {
	const struct sim_values *v = m != NULL ? &m->values : &g->values;
	if (v->unsupported >> key & 1)
		return SIM_UNSUPPORTED;
	if (v->blank >> key & 1)
		return SIM_BLANK;
	if (key == SIM_ENERGY) {
		double t = sim_now(), watts = g->values.now[SIM_POWER] != SIM_UNSET ? g->values.now[SIM_POWER] : curve(g, NULL, SIM_POWER);
		if (g->energy_at > 0 && t > g->energy_at)
			g->energy_j += (t - g->energy_at) * watts;
		g->energy_at = t;
		*value = g->energy_j;
		return SIM_OK;
	}
	if (key == SIM_ECC_SBE || key == SIM_ECC_DBE || key == SIM_PCIE_REPLAY) {
		*value = counter(v, key, sim_now());
		return SIM_OK;
	}
	*value = v->now[key] != SIM_UNSET ? v->now[key] : curve(g, m, key);
	return SIM_OK;
}
