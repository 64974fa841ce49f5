/* SPDX-License-Identifier: Apache-2.0
 *
 * The GPUs that both simulated libraries show, and the script they follow.
 *
 * The file is gpu-sim.conf in the directory of the library (or the path in
 * GPU_SIM_CONF). It is read again whenever it changes. One statement per line,
 * key=value pairs, values with blanks in double quotes, '#' starts a comment:
 *
 *   driver version=570.133.20
 *   gpu index=0 uuid=GPU-0001 name="NVIDIA L4" memory_mib=23034 [compute=8.9] [KEY=VALUE]...
 *   mig gpu=0 gi=7 uuid=MIG-0001 profile=1g.10gb memory_mib=9856 [KEY=VALUE]...
 *   at 30 gpu=0 [gi=7] KEY=VALUE...
 *
 * `at` changes values so many seconds after the file was last modified: a file
 * that is given an older modification time starts later in its script. KEY is
 *
 *   power_w temp_c mem_temp_c sm_clock mem_clock (MHz) util mem_util enc_util
 *   dec_util (%) memory_used_mib reserved_mib gr_active sm_active sm_occupancy
 *   tensor_active dram_active (0 to 1) pcie_tx pcie_rx nvlink_tx nvlink_rx (B/s)
 *   nvlink_links nvlink_down (counts) ecc_sbe ecc_dbe pcie_replay
 *   remap_uncorrectable remap_correctable remap_pending remap_failure
 *       what the GPU shows. One that is left out follows a fixed load curve:
 *       utilization swings between 70 and 98 % in 20 s, the rest follows it
 *   ecc_sbe_rate ecc_dbe_rate pcie_replay_rate
 *       growth per second of these counters
 *   throttle=REASON[+REASON]...
 *       none, idle, app_clocks, sw_power, hw_slowdown, sync_boost, sw_thermal,
 *       hw_thermal, power_brake, display
 *   xid=N            the driver reports this XID now
 *   lost=1           the GPU has fallen off the bus; 2: and DCGM fails every call that
 *                    names it
 *   blank=KEY[,KEY]  no value: one of DCGM's sentinels, NVML's NOT_SUPPORTED
 *   unsupported=KEY[,KEY]   the GPU cannot say: NOT_SUPPORTED in both
 *   sentinel=blank|not_found|not_supported|not_permissioned   which one `blank` is
 *   profiling=0      no profiling metrics (DCGM)
 *   slow_ms=N        every call takes so long
 *
 * `energy` may be blank or unsupported too; otherwise it is the power over time.
 */
#ifndef SCENARIO_H
#define SCENARIO_H

#include <stddef.h>

#define SIM_MAX_GPUS 32
#define SIM_MAX_MIGS 64
#define SIM_MAX_XIDS 256
#define SIM_UNSET (-1.0)

enum sim_key {
	SIM_POWER, SIM_TEMP, SIM_MEM_TEMP, SIM_SM_CLOCK, SIM_MEM_CLOCK, SIM_UTIL, SIM_MEM_UTIL, SIM_ENC_UTIL, SIM_DEC_UTIL,
	SIM_MEMORY_USED, SIM_RESERVED, SIM_GR_ACTIVE, SIM_SM_ACTIVE, SIM_SM_OCCUPANCY, SIM_TENSOR_ACTIVE, SIM_DRAM_ACTIVE,
	SIM_PCIE_TX, SIM_PCIE_RX, SIM_NVLINK_TX, SIM_NVLINK_RX, SIM_NVLINK_LINKS, SIM_NVLINK_DOWN,
	SIM_ECC_SBE, SIM_ECC_DBE, SIM_PCIE_REPLAY,
	SIM_REMAP_UNCORRECTABLE, SIM_REMAP_CORRECTABLE, SIM_REMAP_PENDING, SIM_REMAP_FAILURE,
	SIM_ENERGY,
	SIM_KEYS
};

/* What sim_value says beside a value. */
enum sim_state { SIM_OK, SIM_BLANK, SIM_UNSUPPORTED };

/* NVML's bits of the reasons for which clocks are held down, which are DCGM's too. */
struct sim_values {
	double now[SIM_KEYS];   /* SIM_UNSET follows the curve */
	double rate[SIM_KEYS];  /* of counters, per second */
	double since[SIM_KEYS]; /* when the counter was now[], seconds of CLOCK_REALTIME */
	unsigned long long blank, unsupported; /* a bit for each key */
	unsigned long long throttle;
	int sentinel; /* 0 blank, 1 not found, 2 not supported, 3 not permissioned */
};

struct sim_gpu {
	unsigned int index;
	char uuid[96], name[96];
	unsigned long long memory_mib;
	int compute_major, compute_minor;
	int lost, profiling;
	unsigned int slow_ms;
	double energy_j, energy_at;
	struct sim_values values;
};

struct sim_mig {
	unsigned int gpu, gi;
	char uuid[96], profile[32];
	unsigned long long memory_mib;
	struct sim_values values;
};

struct sim_xid {
	unsigned int gpu;
	unsigned long long code;
	double at; /* CLOCK_REALTIME, seconds; not before the script was loaded */
};

extern struct sim_gpu sim_gpus[SIM_MAX_GPUS];
extern unsigned int sim_gpu_count;
extern struct sim_mig sim_migs[SIM_MAX_MIGS];
extern unsigned int sim_mig_count;
extern struct sim_xid sim_xids[SIM_MAX_XIDS];
extern unsigned int sim_xid_count;
extern double sim_loaded_at; /* when this version of the file was first read */
extern char sim_driver[80];

/* sim_enter takes the lock and brings the state up to date; sim_leave gives it back. */
void sim_enter(void);
void sim_leave(void);
/* sim_wait makes the caller wait as slow_ms says. The lock is not held. */
void sim_wait(const struct sim_gpu *g);
double sim_now(void);

/* sim_value is one value of a GPU, or of one of its MIG instances. The lock is held. */
enum sim_state sim_value(struct sim_gpu *g, const struct sim_mig *m, enum sim_key key, double *value);
struct sim_mig *sim_mig_of(unsigned int gpu, unsigned int nth);
unsigned int sim_migs_of(unsigned int gpu);
/* sim_bus_id is the PCI address, made from the index. */
void sim_bus_id(const struct sim_gpu *g, char *out, size_t size);

#endif
