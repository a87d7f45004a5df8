#include "gateway/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/list.h"
#include "loop/loop.h"

#define PREFIX        "balm-"
#define TRY           "try-"
#define ASIDE         PREFIX "platform"
#define PROC_MAX      (256 * 1024)
#define CPU_PERIOD_US 100000
#define CPU_QUOTA_MIN 1000 /* the kernel takes no less */

static const char *const names[CGROUP_CONTROLLERS] = {[CGROUP_MEMORY] = "memory", [CGROUP_CPU] = "cpu"};

static bool put(const char *folder, const char *file, const char *text)
{
    char path[CGROUP_PATH_MAX + 64];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = write(fd, text, strlen(text));
    int failed = errno;
    (void)close(fd);
    errno = failed;
    return n == (ssize_t)strlen(text);
}

static struct strview read_in(struct arena *a, const char *folder, const char *file)
{
    struct strview text = {0};
    struct error ignored;
    (void)!file_read(a, arena_printf(a, "%s/%s", folder, file).ptr, PROC_MAX, &text, &ignored);
    return text;
}

static bool has_word(struct strview list, char separator, struct strview word)
{
    struct strview part;
    while (sv_next(&list, separator, &part))
        if (sv_eq(sv_trim(part), word)) return true;
    return false;
}

/* ---- where ---- */

/* /proc/self/cgroup, "HIERARCHY:CONTROLLERS:PATH": where we are; version 2 has no controllers there. */
static struct strview own_path(struct strview groups, int version, struct strview controller)
{
    struct strview line, number, list;
    while (sv_next(&groups, '\n', &line)) {
        (void)sv_next(&line, ':', &number);
        (void)sv_next(&line, ':', &list);
        if (version == 2 ? list.len == 0 && sv_eq(number, SV("0")) : has_word(list, ',', controller))
            return line;
    }
    return (struct strview){0};
}

static bool can_make(const char *folder)
{
    char path[CGROUP_PATH_MAX + 64];
    (void)snprintf(path, sizeof(path), "%s/" PREFIX TRY "%d", folder, (int)getpid());
    return mkdir(path, 0755) == 0 && rmdir(path) == 0;
}

/* Are the controllers passed on to groups below? */
static bool passes_on(struct arena *a, const char *folder, struct strview controller)
{
    char wish[32];
    if (has_word(read_in(a, folder, "cgroup.subtree_control"), ' ', controller)) return true;
    (void)snprintf(wish, sizeof(wish), "+%.*s", SV_ARG(controller));
    return put(folder, "cgroup.subtree_control", wish);
}

static bool step_aside(struct arena *a, const char *folder, struct strview controller)
{
    char own[32];
    const char *aside = arena_printf(a, "%s/" ASIDE, folder).ptr;
    (void)snprintf(own, sizeof(own), "%d", (int)getpid());
    if (!sv_eq(sv_trim(read_in(a, folder, "cgroup.procs")), sv(own))) return false; /* not alone */
    if (mkdir(aside, 0755) != 0 && errno != EEXIST) return false;
    if (put(aside, "cgroup.procs", own) && passes_on(a, folder, controller)) return true;
    (void)put(folder, "cgroup.procs", own);
    (void)rmdir(aside);
    return false;
}

static bool is_usable(struct arena *a, const char *folder, int version, struct strview controller)
{
    if (!can_make(folder)) return false;
    if (version == 1) return true;
    return has_word(read_in(a, folder, "cgroup.controllers"), ' ', controller) &&
           (passes_on(a, folder, controller) || step_aside(a, folder, controller));
}

/* One line of /proc/self/mounts: "cgroup2 /sys/fs/cgroup cgroup2 rw,…". */
static void look_at_mount(struct cgroups *c, struct arena *a, struct strview line, struct strview groups)
{
    struct strview device, point, type, options;
    (void)sv_next(&line, ' ', &device);
    (void)sv_next(&line, ' ', &point);
    (void)sv_next(&line, ' ', &type);
    (void)sv_next(&line, ' ', &options);
    int version = sv_eq(type, SV("cgroup2")) ? 2 : sv_eq(type, SV("cgroup")) ? 1 : 0;
    for (size_t i = 0; version != 0 && i < CGROUP_CONTROLLERS; i++) {
        struct strview name = sv(names[i]);
        if (c->of[i].version != 0 || (version == 1 && !has_word(options, ',', name))) continue;
        struct strview own = own_path(groups, version, name);
        /* In a container the path may be one of the host's: then there is only the top. */
        const char *const tries[] = {arena_printf(a, "%.*s%.*s", SV_ARG(point), SV_ARG(own)).ptr,
                                     arena_cstr(a, point)};
        for (size_t k = 0; c->of[i].version == 0 && k < ARRAY_LEN(tries); k++) {
            if (strlen(tries[k]) + 128 > CGROUP_PATH_MAX || !is_usable(a, tries[k], version, name)) continue;
            c->of[i].version = version;
            (void)snprintf(c->of[i].folder, CGROUP_PATH_MAX, "%s", tries[k]);
        }
    }
}

/* "balm-PID-…", "balm-try-PID": of a platform that is no more? One that lives may be about to put a process
 * into a group that is still empty. */
static bool is_left_over(struct strview name)
{
    struct strview rest = sv_sub(name, sizeof(PREFIX) - 1, name.len);
    if (sv_starts_with(rest, SV(TRY))) rest = sv_sub(rest, sizeof(TRY) - 1, rest.len);
    return process_is_no_more(sv_sub(rest, 0, sv_find(rest, '-')));
}

/* The kernel keeps what somebody still runs in. */
static void clean(const char *folder)
{
    DIR *dir = opendir(folder);
    if (dir == NULL) return;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir))
        if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) == 0 && is_left_over(sv(e->d_name)))
            (void)unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR);
    (void)closedir(dir);
}

void cgroups_find(struct cgroups *ret_groups)
{
    struct arena a = {0};
    struct strview mounts = read_in(&a, "/proc/self", "mounts"), groups = read_in(&a, "/proc/self", "cgroup"),
                   line;
    *ret_groups = (struct cgroups){0};
    while (sv_next(&mounts, '\n', &line))
        look_at_mount(ret_groups, &a, line, groups);
    for (size_t i = 0; i < CGROUP_CONTROLLERS; i++)
        if (ret_groups->of[i].version != 0) clean(ret_groups->of[i].folder);
    arena_release(&a);
}

/* ---- one group ---- */

static bool limit_memory(const char *folder, int version, int64_t bytes)
{
    char text[32];
    (void)snprintf(text, sizeof(text), "%" PRId64, bytes);
    if (version == 1) return put(folder, "memory.limit_in_bytes", text);
    (void)put(folder, "memory.swap.max", "0"); /* or the limit would only make it slow */
    return put(folder, "memory.max", text);
}

static bool limit_cpu(const char *folder, int version, int64_t millis)
{
    char text[64];
    int64_t quota_us = millis * (CPU_PERIOD_US / 1000);
    if (quota_us < CPU_QUOTA_MIN) quota_us = CPU_QUOTA_MIN;
    (void)snprintf(text, sizeof(text), version == 1 ? "%" PRId64 : "%" PRId64 " %d", quota_us, CPU_PERIOD_US);
    return put(folder, version == 1 ? "cpu.cfs_quota_us" : "cpu.max", text);
}

enum status cgroup_make(const struct cgroups *c, const char *name, const struct cgroup_limits *limits,
                        struct cgroup *ret_group, struct error *err)
{
    const int64_t wanted[] = {[CGROUP_MEMORY] = limits->memory_bytes, [CGROUP_CPU] = limits->cpu_millis};
    *ret_group = (struct cgroup){0};
    for (size_t i = 0; i < CGROUP_CONTROLLERS; i++) {
        int version = c->of[i].version;
        char *folder = ret_group->folders[i];
        if (version == 0 || wanted[i] == 0) continue;
        (void)snprintf(folder, CGROUP_PATH_MAX, "%.*s/" PREFIX "%s", CGROUP_PATH_MAX - 128, c->of[i].folder,
                       name);
        bool is_made = mkdir(folder, 0755) == 0 || errno == EEXIST;
        if (is_made) is_made = (i == CGROUP_MEMORY ? limit_memory : limit_cpu)(folder, version, wanted[i]);
        if (is_made) continue;
        enum status s =
            error_set(err, status_from_errno(errno), "limit %s by %s: %s", names[i], folder, strerror(errno));
        cgroup_remove(ret_group);
        return s;
    }
    return STATUS_OK;
}

size_t cgroup_args(const struct cgroup *group, const char **ret_args)
{
    size_t n = 0;
    for (size_t i = 0; i < CGROUP_CONTROLLERS; i++) {
        if (group->folders[i][0] == '\0') continue;
        ret_args[n++] = "-g";
        ret_args[n++] = group->folders[i];
    }
    return n;
}

void cgroup_remove(const struct cgroup *group)
{
    for (size_t i = 0; i < CGROUP_CONTROLLERS; i++)
        if (group->folders[i][0] != '\0') (void)rmdir(group->folders[i]);
}

/* ---- quantities ---- */

enum status cpu_parse_quantity(struct strview text, int64_t *ret_millis)
{
    struct strview rest = text, whole;
    uint64_t ones, decimals = 0;
    bool is_millis = sv_ends_with(text, SV("m"));
    if (is_millis) rest = sv_sub(text, 0, text.len - 1);
    (void)sv_next(&rest, '.', &whole);
    if (sv_parse_u64(whole, &ones) != STATUS_OK || ones > 1000000) return STATUS_INVALID_ARGUMENT;
    if (is_millis && (rest.len > 0 || sv_find(text, '.') < text.len)) return STATUS_INVALID_ARGUMENT;
    if (rest.len > 3 || (rest.len > 0 && sv_parse_u64(rest, &decimals) != STATUS_OK))
        return STATUS_INVALID_ARGUMENT;
    for (size_t i = rest.len; i < 3; i++)
        decimals *= 10;
    int64_t millis = (int64_t)(is_millis ? ones : ones * 1000 + decimals);
    if (millis == 0) return STATUS_INVALID_ARGUMENT;
    *ret_millis = millis;
    return STATUS_OK;
}
