#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *cli_default_data_dir(struct arena *a)
{
    if (geteuid() == 0) return "/var/lib/balm";
    const char *state = getenv("XDG_STATE_HOME");
    if (state != NULL && state[0] == '/') return arena_printf(a, "%s/balm", state).ptr;
    const char *home = getenv("HOME");
    if (home != NULL && home[0] == '/') return arena_printf(a, "%s/.local/state/balm", home).ptr;
    return "./balm-data";
}

const char *cli_executable_dir(struct arena *a)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    if (n <= 0) return ".";
    path[n] = '\0';
    char *slash = strrchr(path, '/');
    if (slash == NULL || slash == path) return "/";
    *slash = '\0';
    return arena_cstr(a, sv(path));
}

const char *cli_find_part(struct arena *a, const char *name)
{
    static const char *const places[] = {"", "/../lib/balm", "/../share/balm"};
    const char *exe_dir = cli_executable_dir(a);
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        const char *path = arena_printf(a, "%s%s/%s", exe_dir, places[i], name).ptr;
        if (access(path, F_OK) == 0) return path;
    }
    return NULL;
}
