/* How much clients may fill: an eighth of what the process may have, by its limits and by its control group
 * (a container, balm.service), so that it is told 503 and cut before the kernel ends us all. */
#include "server/server_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/file.h"

#define GROUP_FILE_MAX 4096
/* Twice what unfinished bodies may hold together: they double as they grow. */
#define BODY_FILES_ROOM_BYTES (2 * (uint64_t)SERVER_INPUT_MAX_BYTES)
#define BODY_FILE_MIN_BYTES   (1024 * 1024)

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

/* h2o resets the connection of a body whose file finds no room, and each sender comes again for nothing. */
static bool has_room(const char *folder)
{
    struct statvfs st;
    if (access(folder, W_OK) != 0 || statvfs(folder, &st) != 0) return false;
    return (uint64_t)st.f_bavail * st.f_frsize >= BODY_FILES_ROOM_BYTES;
}

void server_place_bodies(void)
{
    h2o_buffer_mmap_settings_t *files = &h2o_socket_buffer_mmap_settings;
    const char *folder = getenv("TMPDIR");
    if (folder == NULL || folder[0] != '/') folder = "/tmp";
    int n = snprintf(files->fn_template, sizeof(files->fn_template), "%s/balm.body.XXXXXX", folder);
    bool are_files = n > 0 && (size_t)n < sizeof(files->fn_template) && has_room(folder);
    files->threshold = are_files ? BODY_FILE_MIN_BYTES : SIZE_MAX;
}
