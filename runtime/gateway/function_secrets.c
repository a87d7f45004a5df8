#include "gateway/function_secrets.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "config/quote.h"
#include "function/api_key.h"
#include "function/params.h"

/* Between the look whether there is one and the change that follows nobody else may change it. */
static pthread_mutex_t one_change = PTHREAD_MUTEX_INITIALIZER;

static const char *folder_of(struct arena *a, const char *dir)
{
    return arena_printf(a, "%s/secrets/functions", dir).ptr;
}

static const char *path_of(struct arena *a, const char *dir, struct strview name)
{
    return arena_printf(a, "%s/secrets/functions/%.*s", dir, SV_ARG(name)).ptr;
}

enum status function_secret_check_name(struct strview name, struct error *err)
{
    char shown[QUOTE_MAX];
    if (!param_pattern_matches(PARAM_NAME, name))
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "secret name '%s': 1 to 253 lower-case letters, digits, inner '-' and '.'",
                         quote_text(name, shown));
    if (sv_eq(name, SV(INVOCATION_KEY_SECRET)) || sv_eq(name, SV(API_KEY_GATEWAY_SECRET)))
        return error_set(err, STATUS_INVALID_ARGUMENT, "secret '%.*s' is the platform's own", SV_ARG(name));
    return STATUS_OK;
}

/* ---- looking ---- */

static bool is_there(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

static int is_secret(const struct dirent *entry)
{
    return function_secret_check_name(sv(entry->d_name), NULL) == STATUS_OK;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

enum status function_secrets_list(const char *dir, struct arena *a, struct strview **ret_names, size_t *ret_n,
                                  struct error *err)
{
    struct dirent **entries;
    const char *folder = folder_of(a, dir);
    int n = scandir(folder, &entries, is_secret, by_name);
    if (n < 0) return error_set(err, status_from_errno(errno), "read %s: %s", folder, strerror(errno));
    struct strview *names = arena_array(a, (size_t)n, sizeof(*names));
    size_t n_names = 0;
    for (int i = 0; i < n; i++) {
        struct strview name = arena_copy(a, sv(entries[i]->d_name));
        struct stat st;
        if (stat(path_of(a, dir, name), &st) == 0 && S_ISREG(st.st_mode)) names[n_names++] = name;
        free(entries[i]);
    }
    free(entries);
    *ret_names = names;
    *ret_n = n_names;
    return STATUS_OK;
}

void function_secrets_clean(const char *dir)
{
    struct arena a = {0};
    DIR *folder = opendir(folder_of(&a, dir));
    for (struct dirent *e = folder != NULL ? readdir(folder) : NULL; e != NULL; e = readdir(folder))
        if (strchr(e->d_name, FILE_TEMPORARY_MARK[0]) != NULL) (void)unlinkat(dirfd(folder), e->d_name, 0);
    if (folder != NULL) (void)closedir(folder);
    arena_release(&a);
}

size_t function_secrets_missing(const struct deployment *d, struct arena *a, struct strview **ret_names)
{
    size_t n = 0;
    *ret_names = arena_array(a, d->spec.n_secrets, sizeof(**ret_names));
    for (size_t i = 0; i < d->spec.n_secrets; i++)
        if (access(path_of(a, d->gateway->cfg.dir, d->spec.secrets[i]), R_OK) != 0)
            (*ret_names)[n++] = d->spec.secrets[i];
    return n;
}

/* ---- changing ---- */

static enum status check_room(const char *dir, struct arena *a, struct error *err)
{
    struct strview *names;
    size_t n = 0;
    enum status s = function_secrets_list(dir, a, &names, &n, err);
    if (s == STATUS_OK && n >= FUNCTION_SECRETS_MAX)
        s = error_set(err, STATUS_FAILED_PRECONDITION, "there are %d secrets, and no more may be made",
                      FUNCTION_SECRETS_MAX);
    return s;
}

static enum status put(const char *dir, struct arena *a, struct strview name, struct strview value,
                       bool is_new, struct error *err)
{
    const char *path = path_of(a, dir, name);
    bool exists = is_there(path);
    if (is_new && exists)
        return error_set(err, STATUS_ALREADY_EXISTS, "secret %.*s already exists", SV_ARG(name));
    if (!is_new && !exists) return error_set(err, STATUS_NOT_FOUND, "no secret %.*s", SV_ARG(name));
    enum status s = is_new ? check_room(dir, a, err) : STATUS_OK;
    return s == STATUS_OK ? file_write_atomic(path, value, 0600, err) : s;
}

enum status function_secret_put(const char *dir, struct strview name, struct strview value, bool is_new,
                                struct error *err)
{
    struct arena a = {0};
    enum status s = function_secret_check_name(name, err);
    if (s == STATUS_OK && value.len == 0)
        s = error_set(err, STATUS_INVALID_ARGUMENT, "secret %.*s: its value is empty", SV_ARG(name));
    if (s == STATUS_OK && value.len > FUNCTION_SECRET_BYTES_MAX)
        s = error_set(err, STATUS_INVALID_ARGUMENT, "secret %.*s: a value of %zu bytes; at most %d are taken",
                      SV_ARG(name), value.len, FUNCTION_SECRET_BYTES_MAX);
    if (s != STATUS_OK) return s;
    (void)pthread_mutex_lock(&one_change);
    s = put(dir, &a, name, value, is_new, err);
    (void)pthread_mutex_unlock(&one_change);
    arena_release(&a);
    return s;
}

static bool is_listed(const struct deployment *d, struct strview name)
{
    for (size_t i = 0; i < d->spec.n_secrets; i++)
        if (sv_eq(d->spec.secrets[i], name)) return true;
    return false;
}

static bool has_variable(const struct deployment *d, struct strview secret, struct arena *a)
{
    char *name = arena_cstr(a, secret);
    for (char *c = name; *c != '\0'; c++)
        if (*c == '-') *c = '_';
    return json_get_text(d->spec.env, name).len > 0;
}

size_t function_secrets_unlisted(const struct deployment *d, struct arena *a, struct strview **ret_names)
{
    const json_t *reads = json_object_get(d->manifest, "secrets");
    struct strview *names = arena_array(a, json_array_size(reads), sizeof(*names));
    size_t i, n = 0;
    json_t *value;
    json_array_foreach(reads, i, value)
    {
        struct strview name = sv(json_string_value(value));
        if (name.len > 0 && !is_listed(d, name) && !has_variable(d, name, a))
            names[n++] = arena_copy(a, name);
    }
    *ret_names = names;
    return n;
}

static enum status remove_file(const char *folder, const char *path, struct strview name, struct error *err)
{
    if (unlink(path) != 0)
        return errno == ENOENT
                   ? error_set(err, STATUS_NOT_FOUND, "no secret %.*s", SV_ARG(name))
                   : error_set(err, status_from_errno(errno), "remove %s: %s", path, strerror(errno));
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return error_set(err, status_from_errno(errno), "open %s: %s", folder, strerror(errno));
    enum status s = STATUS_OK;
    if (fsync(fd) != 0) s = error_set(err, status_from_errno(errno), "sync %s: %s", folder, strerror(errno));
    (void)close(fd);
    return s;
}

enum status function_secret_remove(const char *dir, struct strview name, struct error *err)
{
    struct arena a = {0};
    enum status s = function_secret_check_name(name, err);
    if (s != STATUS_OK) return s;
    (void)pthread_mutex_lock(&one_change);
    s = remove_file(folder_of(&a, dir), path_of(&a, dir, name), name, err);
    (void)pthread_mutex_unlock(&one_change);
    arena_release(&a);
    return s;
}
