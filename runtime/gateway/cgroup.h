/* Limits of functions by control groups of the kernel, one group a replica, where the platform may make them:
 * memory and CPU of the function and of all that it starts. Without them memory is limited a process
 * (RLIMIT_DATA, which is set in any case), and CPU not at all.
 *
 *   v2   DIR/balm-…/{memory.max,cpu.max}                        DIR: the group that the platform was started
 * in, v1   DIR/balm-…/memory.limit_in_bytes, cpu.cfs_quota_us     of each hierarchy
 *
 * The function is moved into its group right after its start, which takes the kernel about 20 ms; what it
 * holds in memory by then is not counted.
 *
 * A group of v2 passes its controllers on only while no process is in it itself: the platform steps aside
 * into DIR/balm-platform where it is alone in DIR (systemd's Delegate=), and otherwise leaves everything as
 * it is. */
#ifndef BALM_GATEWAY_CGROUP_H
#define BALM_GATEWAY_CGROUP_H

#include <stdbool.h>

#include "base/status.h"
#include "base/strview.h"

#define CGROUP_PATH_MAX 512

enum cgroup_controller { CGROUP_MEMORY, CGROUP_CPU, CGROUP_CONTROLLERS };

/* Where groups can be made; version 0: nowhere. */
struct cgroups {
    struct {
        int version; /* 1, 2 */
        char folder[CGROUP_PATH_MAX];
    } of[CGROUP_CONTROLLERS];
};

struct cgroup_limits {
    int64_t memory_bytes; /* 0: none */
    int64_t cpu_millis;   /* thousandths of a core; 0: none */
};

/* Folders of one replica's groups, for whoever is to enter them (balm-shim -g); empty: none. */
struct cgroup {
    char folders[CGROUP_CONTROLLERS][CGROUP_PATH_MAX];
};

/* Looks where they can be made, and removes what a killed platform left. No failure: it finds none. */
void cgroups_find(struct cgroups *ret_groups);
/* name: of a file. STATUS_OK also where there is nothing to make or nowhere to. Removed by the caller, once
 * nothing runs in it. */
enum status cgroup_make(const struct cgroups *c, const char *name, const struct cgroup_limits *limits,
                        struct cgroup *ret_group, struct error *err) MUST_USE;
/* As the shim's arguments: at most 2 * CGROUP_CONTROLLERS of them; how many. Borrowed from the group. */
size_t cgroup_args(const struct cgroup *group, const char **ret_args);
/* Processes in it are killed by then; what is left of it is an empty folder. */
void cgroup_remove(const struct cgroup *group);

/* A Kubernetes quantity of CPU: "500m", "0.5", "2". STATUS_INVALID_ARGUMENT otherwise, and for 0. */
enum status cpu_parse_quantity(struct strview text, int64_t *ret_millis) MUST_USE;
#define CPU_QUANTITY_UNITS "a number of cores (0.5) or thousandths of one (500m)"

#endif
