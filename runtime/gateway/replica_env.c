/* What a process of a function is given: environment and secrets. */
#include "gateway/gateway_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"
#include "function/api_key.h"
#include "gateway/function_secrets.h"

/* Made anew at each start, so it need not survive power loss: no fsync on the way to a first answer. Renamed
 * into place: another replica may be reading. */
static enum status write_secret(const struct deployment *d, struct arena *a, const char *name,
                                struct strview content, struct error *err)
{
    const char *folder = d->secrets_folder;
    const char *path = arena_printf(a, "%s/%s", folder, name).ptr,
               *fresh = arena_printf(a, "%s/.new", folder).ptr;
    (void)unlink(fresh);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0400);
    if (fd < 0) return error_set(err, status_from_errno(errno), "make %s: %s", fresh, strerror(errno));
    ssize_t n = write(fd, content.ptr, content.len);
    if (n >= 0 && d->uid != 0 && (fchown(fd, (uid_t)-1, d->uid) != 0 || fchmod(fd, 0440) != 0)) n = -1;
    int failed = errno;
    (void)close(fd);
    if (n != (ssize_t)content.len)
        return error_set(err, STATUS_RESOURCE_EXHAUSTED, "write %s: %s", fresh,
                         n < 0 ? strerror(failed) : "disk is full");
    if (rename(fresh, path) != 0)
        return error_set(err, status_from_errno(errno), "make %s: %s", path, strerror(errno));
    return STATUS_OK;
}

static enum status write_invocation_key(const struct deployment *d, struct arena *a, struct error *err)
{
    char key[SHA256_HEX + 1];
    invocation_derive_key(d->gateway->secrets.invocation_key, d->spec.name, key);
    enum status s = write_secret(d, a, INVOCATION_KEY_SECRET, sv(key), err);
    mem_wipe(key, sizeof(key));
    return s;
}

static enum status write_gateway_key(const struct deployment *d, struct arena *a, struct error *err)
{
    if (d->info.api_key_secret.len == 0) return STATUS_OK;
    return write_secret(d, a, API_KEY_GATEWAY_SECRET, sv(d->gateway_key), err);
}

static enum status copy_secret(const struct deployment *d, struct arena *a, const char *name,
                               struct error *err)
{
    struct strview content;
    const char *from = arena_printf(a, "%s/secrets/functions/%s", d->gateway->cfg.dir, name).ptr;
    enum status s = secret_file_check(from, err);
    if (s == STATUS_OK) s = file_read(a, from, FUNCTION_SECRET_BYTES_MAX, &content, err);
    if (s == STATUS_NOT_FOUND)
        return error_set(err, s, "secret '%s' of function '%.*s' is not there: faas-cli secret create %s",
                         name, SV_ARG(d->spec.name), name);
    if (s != STATUS_OK)
        return error_prefix(err, s, "secret '%s' of function '%.*s'", name, SV_ARG(d->spec.name));
    s = write_secret(d, a, name, content, err);
    mem_wipe((char *)(uintptr_t)content.ptr, content.len);
    return s;
}

/* Its own group may read it, and only the platform write it. */
static enum status make_secrets_folder(const struct deployment *d, struct error *err)
{
    const char *path = d->secrets_folder;
    if ((mkdir(path, 0700) == 0 || errno == EEXIST) &&
        (d->uid == 0 || (chown(path, (uid_t)-1, d->uid) == 0 && chmod(path, 0750) == 0)))
        return STATUS_OK;
    return error_set(err, status_from_errno(errno), "make folder %s: %s", path, strerror(errno));
}

enum status replica_prepare_secrets(const struct deployment *d, struct arena *a, struct error *err)
{
    enum status s = make_secrets_folder(d, err);
    if (s == STATUS_OK && d->info.acts) s = write_invocation_key(d, a, err);
    if (s == STATUS_OK) s = write_gateway_key(d, a, err);
    for (size_t i = 0; i < d->spec.n_secrets && s == STATUS_OK; i++)
        s = copy_secret(d, a, arena_cstr(a, d->spec.secrets[i]), err);
    return s;
}

void replica_remove_secrets(const struct deployment *d)
{
    DIR *dir = opendir(d->secrets_folder);
    if (dir == NULL) return;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir))
        if (e->d_type == DT_REG) (void)unlinkat(dirfd(dir), e->d_name, 0);
    (void)closedir(dir);
    (void)rmdir(d->secrets_folder);
}

struct env {
    const char **items;
    size_t n;
};

static bool has_variable(const struct env *env, const char *key)
{
    size_t len = strlen(key);
    for (size_t i = 0; i < env->n; i++)
        if (strncmp(env->items[i], key, len) == 0 && env->items[i][len] == '=') return true;
    return false;
}

/* The first one that sets a variable has it. */
static void add_variable(struct env *env, struct arena *a, const char *key, struct strview value)
{
    if (!has_variable(env, key)) env->items[env->n++] = arena_printf(a, "%s=%.*s", key, SV_ARG(value)).ptr;
}

const char *const *replica_env(const struct replica *r, struct arena *a)
{
    const struct deployment *d = r->deployment;
    const char *const defaults[][2] = {
        {"PATH", FUNCTION_PATH}, {"LANG", "C.UTF-8"}, {"TMPDIR", r->temp}, {"MALLOC_ARENA_MAX", "1"}};
    struct env env = {.items = arena_array(a, FUNCTION_ENV_MAX + 16, sizeof(*env.items))};
    char text[DURATION_TEXT_MAX];
    add_variable(&env, a, "BALM_LISTEN_FD", arena_printf(a, "%d", REPLICA_LISTEN_FD));
    add_variable(&env, a, "BALM_METRICS", SV("off"));
    add_variable(&env, a, "BALM_FROZEN", d->gateway->is_frozen ? SV("true") : SV("false"));
    add_variable(&env, a, "OPENFAAS_NAMESPACE", SV(FUNCTION_NAMESPACE));
    add_variable(&env, a, "OPENFAAS_NAME", d->spec.name);
    add_variable(&env, a, "secret_mount_path", sv(d->secrets_folder));
    const char *key;
    json_t *value;
    json_object_foreach(d->spec.env, key, value) add_variable(&env, a, key, sv(json_string_value(value)));
    if (d->info.timeout_ns > 0)
        add_variable(&env, a, "exec_timeout", sv(duration_format(d->info.timeout_ns, text)));
    for (size_t i = 0; i < ARRAY_LEN(defaults); i++)
        add_variable(&env, a, defaults[i][0], sv(defaults[i][1]));
    if (getenv("ASAN_OPTIONS") != NULL) add_variable(&env, a, "ASAN_OPTIONS", sv(getenv("ASAN_OPTIONS")));
    return env.items;
}

/* ---- the command ---- */

void replica_command(const struct deployment *d, const char *ret_argv[REPLICA_COMMAND_MAX])
{
    const char *const watchdog[] = {d->gateway->watchdog_path, "--folder", d->folder, "--"};
    size_t n = 0;
    for (size_t i = 0; d->program != NULL && i < ARRAY_LEN(watchdog); i++)
        ret_argv[n++] = watchdog[i];
    ret_argv[n++] = d->executable;
    for (size_t i = 1; d->program != NULL && d->program[i] != NULL; i++)
        ret_argv[n++] = d->program[i];
    ret_argv[n] = NULL;
}

enum status replica_manifest(const struct deployment *d, struct arena *a, int *ret_fd, struct error *err)
{
    if (d->bot_file == NULL) return STATUS_OK;
    struct strview text = json_canonical(a, d->manifest);
    int fd = memfd_create("manifest", MFD_CLOEXEC);
    if (fd >= 0 && write(fd, text.ptr, text.len) == (ssize_t)text.len && lseek(fd, 0, SEEK_SET) == 0) {
        *ret_fd = fd;
        return STATUS_OK;
    }
    int failed = errno;
    if (fd >= 0) (void)close(fd);
    return error_set(err, status_from_errno(failed), "hand over the manifest: %s", strerror(failed));
}
