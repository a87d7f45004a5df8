/* How much clients may fill: an eighth of what the process may have, by its limits and by its control group
 * (a container, balm.service), so that it is told 503 and cut before the kernel ends us all. */
#include "server/server_impl.h"

#include <stdlib.h>
#include <sys/resource.h>

#include "base/file.h"

#define GROUP_FILE_MAX 4096

static size_t at_most(size_t most, uint64_t limit)
{
    return limit / SERVER_MEMORY_SHARE < most ? (size_t)(limit / SERVER_MEMORY_SHARE) : most;
}

static size_t by_limits(size_t most)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) == 0) most = at_most(most, limit.rlim_cur);
    if (getrlimit(RLIMIT_DATA, &limit) == 0) most = at_most(most, limit.rlim_cur);
    return most;
}

/* "max" and what is not there are no limit. */
static size_t by_file(struct arena *a, const char *path, size_t most)
{
    struct strview text;
    uint64_t limit;
    if (file_read(a, path, GROUP_FILE_MAX, &text, NULL) != STATUS_OK) return most;
    return sv_parse_u64(sv_trim(text), &limit) == STATUS_OK ? at_most(most, limit) : most;
}

/* A line of /proc/self/cgroup is "4:memory:/PATH" or, of version 2, "0::/PATH". Inside a container the path
 * is often the host's, and what is mounted is our own group. */
static size_t by_group(struct arena *a, struct strview line, size_t most)
{
    size_t first = sv_find(line, ':');
    struct strview rest = sv_sub(line, first + 1, line.len);
    size_t second = sv_find(rest, ':');
    struct strview controllers = sv_sub(rest, 0, second), path = sv_sub(rest, second + 1, rest.len);
    bool is_v2 = controllers.len == 0;
    if (!is_v2 && !sv_contains(controllers, SV("memory"))) return most;
    const char *mount = is_v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    const char *name = is_v2 ? "memory.max" : "memory.limit_in_bytes";
    most = by_file(a, arena_printf(a, "%s%.*s/%s", mount, SV_ARG(path), name).ptr, most);
    return by_file(a, arena_printf(a, "%s/%s", mount, name).ptr, most);
}

static size_t by_groups(size_t most)
{
    struct arena a = {0};
    struct strview text;
    if (file_read(&a, "/proc/self/cgroup", GROUP_FILE_MAX, &text, NULL) == STATUS_OK) {
        while (text.len > 0) {
            size_t end = sv_find(text, '\n');
            most = by_group(&a, sv_sub(text, 0, end), most);
            text = sv_sub(text, end + 1, text.len);
        }
    }
    arena_release(&a);
    return most;
}

void server_limit_memory(struct server *s)
{
    if (s->is_memory_known) return;
    s->is_memory_known = true;
    s->held_max_bytes = by_groups(by_limits(SERVER_HELD_MAX_BYTES));
    s->input_max_bytes =
        s->held_max_bytes < SERVER_INPUT_MAX_BYTES ? s->held_max_bytes : SERVER_INPUT_MAX_BYTES;
}
