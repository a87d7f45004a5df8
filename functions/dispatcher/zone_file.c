#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/list.h"
#include "config/config.h"
#include "functions/dispatcher/zone_impl.h"

#define NAMES_MAX 700 /* entries of one folder that are compared for the nearest name */

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static const char *find_folder(void)
{
    static const char *const folders[] = {"/usr/share/zoneinfo", "/usr/lib/zoneinfo",
                                          "/usr/share/lib/zoneinfo", "/etc/zoneinfo"};
    const char *own = getenv("TZDIR");
    if (own != NULL && own[0] != '\0') return own;
    for (size_t i = 0; i < ARRAY_LEN(folders); i++)
        if (is_folder(folders[i])) return folders[i];
    return NULL;
}

/* A name leads to a file below the folder and nowhere else. */
static bool is_name(struct strview name)
{
    struct strview rest = name, part;
    if (name.len == 0 || name.len > ZONE_NAME_MAX) return false;
    while (sv_next(&rest, '/', &part)) {
        if (part.len == 0 || part.ptr[0] == '.') return false;
        for (size_t i = 0; i < part.len; i++) {
            char c = part.ptr[i], letter = (char)(c | 0x20);
            if (!(letter >= 'a' && letter <= 'z') && !(c >= '0' && c <= '9') && c != '_' && c != '-' &&
                c != '+' && c != '.')
                return false;
        }
    }
    return true;
}

/* Names of one folder of zones, each with the folder's own before it. */
static size_t list_names(struct arena *a, const char *path, struct strview prefix, const char **ret_names)
{
    size_t n = 0;
    DIR *dir = opendir(path);
    if (dir == NULL) return 0;
    for (const struct dirent *e; n < NAMES_MAX && (e = readdir(dir)) != NULL;)
        if (e->d_name[0] >= 'A' && e->d_name[0] <= 'Z')
            ret_names[n++] = arena_printf(a, "%.*s%s", SV_ARG(prefix), e->d_name).ptr;
    (void)closedir(dir);
    return n;
}

/* "Europe/Berln" is looked for in Europe; "Europ/Berlin" and "Berlin" in all folders of the first level. */
static const char *nearest(struct arena *a, const char *folder, struct strview name)
{
    const char **names = arena_array(a, NAMES_MAX, sizeof(char *));
    size_t slash = sv_find(name, '/');
    if (slash < name.len) {
        struct strview prefix = sv_sub(name, 0, slash + 1);
        const char *inside = arena_printf(a, "%s/%.*s", folder, SV_ARG(prefix)).ptr;
        size_t n = list_names(a, inside, prefix, names);
        if (n > 0) return config_nearest(arena_cstr(a, name), names, n);
    }
    size_t n_top = list_names(a, folder, SV(""), names);
    const char **all = arena_array(a, NAMES_MAX + n_top * NAMES_MAX, sizeof(char *));
    size_t n = 0;
    for (size_t i = 0; i < n_top; i++) {
        const char *path = arena_printf(a, "%s/%s", folder, names[i]).ptr;
        all[n++] = names[i];
        if (is_folder(path)) n += list_names(a, path, arena_printf(a, "%s/", names[i]), all + n);
    }
    for (size_t i = 0; i < n; i++) /* the city alone is what people write first */
        if (sv_ends_with(sv(all[i]), arena_printf(a, "/%.*s", SV_ARG(name)))) return all[i];
    return config_nearest(arena_cstr(a, name), all, n);
}

static enum status refuse_unknown(const char *folder, struct strview name, struct error *err)
{
    struct arena a = {0};
    const char *near = is_name(name) ? nearest(&a, folder, name) : NULL;
    if (near != NULL && sv_eq(sv(near), name)) near = NULL; /* "Europe": a folder of zones */
    enum status s =
        error_set(err, STATUS_INVALID_ARGUMENT, "no time zone '%.*s' below %s%s%s%s",
                  SV_ARG(sv_sub(name, 0, ZONE_NAME_MAX)), folder, near != NULL ? " (did you mean '" : "",
                  near != NULL ? near : "", near != NULL ? "'?)" : "");
    arena_release(&a);
    return s;
}

enum status zone_read(struct arena *a, struct strview name, struct zone *ret_zone, struct error *err)
{
    if (sv_eq(name, SV("UTC"))) {
        *ret_zone = (struct zone){.n = 0};
        return STATUS_OK;
    }
    const char *folder = find_folder();
    if (folder == NULL || !is_folder(folder))
        return error_set(
            err, STATUS_FAILED_PRECONDITION,
            "time zone '%.*s': this system has no time zone files%s%s; only UTC is known without "
            "them (the package tzdata brings them)",
            SV_ARG(sv_sub(name, 0, ZONE_NAME_MAX)), folder != NULL ? " in " : "",
            folder != NULL ? folder : "");
    if (!is_name(name)) return refuse_unknown(folder, name, err);
    struct strview bytes;
    struct arena file = {0};
    enum status s = file_read(&file, arena_printf(&file, "%s/%.*s", folder, SV_ARG(name)).ptr, ZONE_BYTES_MAX,
                              &bytes, err);
    if (s == STATUS_OK) {
        s = zone_parse(a, bytes, ret_zone, err);
        if (s != STATUS_OK) (void)error_prefix(err, s, "time zone '%.*s'", SV_ARG(name));
    } else if (s == STATUS_NOT_FOUND || s == STATUS_INVALID_ARGUMENT) { /* or a folder: "Europe" */
        s = refuse_unknown(folder, name, err);
    }
    arena_release(&file);
    return s;
}
