#include "cli/cli.h"

#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *home_folder(void)
{
    const char *home = getenv("HOME");
    if (home != NULL && home[0] == '/') return home;
    const struct passwd *who = getpwuid(geteuid()); /* before there are threads */
    return who != NULL && who->pw_dir != NULL && who->pw_dir[0] == '/' ? who->pw_dir : NULL;
}

enum status cli_data_dir(const char *given, struct arena *a, const char **ret_dir, struct error *err)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = home_folder();
    if (given != NULL)
        *ret_dir = given;
    else if (geteuid() == 0)
        *ret_dir = "/var/lib/balm";
    else if (state != NULL && state[0] == '/')
        *ret_dir = arena_printf(a, "%s/balm", state).ptr;
    else if (home != NULL)
        *ret_dir = arena_printf(a, "%s/.local/state/balm", home).ptr;
    else
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "user %u has no home folder (HOME is not set): say --data DIR", (unsigned)geteuid());
    return STATUS_OK;
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
