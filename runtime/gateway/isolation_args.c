/* What one process of a function may reach, as the shim's arguments; and its folder for temporary files. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "gateway/function_secrets.h"
#include "gateway/isolation.h"

#define READ_PATHS   "balm.dev/read-paths"
#define WRITE_PATHS  "balm.dev/write-paths"
#define UNIX_SOCKETS "balm.dev/unix-sockets"
#define PATHS_MAX    512 /* the shim's SANDBOX_PATHS_MAX, but for what is always there */

struct args {
    const struct deployment *d;
    struct arena *arena;
    const char **items;
    size_t n, n_paths;
    struct error *err;
};

static void add(struct args *args, const char *word)
{
    args->items[args->n++] = word;
}

static void add_number(struct args *args, const char *option, unsigned value)
{
    add(args, option);
    add(args, arena_printf(args->arena, "%u", value).ptr);
}

static enum status add_path(struct args *args, const char *option, const char *path)
{
    if (args->n_paths == PATHS_MAX)
        return error_set(args->err, STATUS_INVALID_ARGUMENT, "more than %d paths for one function",
                         PATHS_MAX);
    args->n_paths++;
    add(args, option);
    add(args, path);
    return STATUS_OK;
}

/* ---- paths that somebody named ---- */

/* "/var" and "/var/lib/balm": one contains the other. Both without links in them. */
static bool is_beneath(const char *path, const char *top)
{
    size_t len = strlen(top);
    if (len == 1) return true;
    return strncmp(path, top, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

static bool is_the_platforms(const struct gateway *g, const char *path)
{
    const char *const own[] = {g->cfg.dir, g->isolation.folder, g->isolation.temp};
    for (size_t i = 0; i < ARRAY_LEN(own); i++)
        if (own[i] != NULL && own[i][0] != '\0' && (is_beneath(own[i], path) || is_beneath(path, own[i])))
            return true;
    return false;
}

static enum status add_real(struct args *args, const char *option, const char *what, struct strview path)
{
    const char *text = arena_cstr(args->arena, path);
    char real[PATH_MAX];
    if (text[0] != '/' || strlen(text) != path.len)
        return error_set(args->err, STATUS_INVALID_ARGUMENT, "%s: '%.200s' is no absolute path", what, text);
    if (realpath(text, real) == NULL)
        return error_set(args->err, STATUS_INVALID_ARGUMENT, "%s: %.200s: %s", what, text, strerror(errno));
    return add_path(args, option, arena_cstr(args->arena, sv(real)));
}

static enum status add_named(struct args *args, const char *option, const char *what, struct strview path)
{
    enum status s = add_real(args, option, what, path);
    if (s != STATUS_OK || !is_the_platforms(args->d->gateway, args->items[args->n - 1])) return s;
    return error_set(args->err, STATUS_INVALID_ARGUMENT,
                     "%s: %.*s would open the platform's own folder to the function", what,
                     SV_ARG(sv_sub(path, 0, 200)));
}

static enum status add_listed(struct args *args, const char *option, const char *what, struct strview list)
{
    enum status s = STATUS_OK;
    struct strview path;
    while (s == STATUS_OK && sv_next(&list, ':', &path))
        if (sv_trim(path).len > 0) s = add_named(args, option, what, sv_trim(path));
    return s;
}

static enum status add_annotated(struct args *args)
{
    const json_t *annotations = args->d->spec.annotations;
    enum status s = add_listed(args, "-r", READ_PATHS, json_get_text(annotations, READ_PATHS));
    return s == STATUS_OK ? add_listed(args, "-w", WRITE_PATHS, json_get_text(annotations, WRITE_PATHS)) : s;
}

/* The operator's own, for every function: taken as they are. */
static enum status add_common(struct args *args)
{
    const struct gateway_cfg *cfg = &args->d->gateway->cfg;
    struct strview reads = sv(cfg->function_read_paths), writes = sv(cfg->function_write_paths), path;
    enum status s = STATUS_OK;
    while (s == STATUS_OK && sv_next(&reads, ':', &path))
        s = add_real(args, "-r", "function-read-paths", path);
    while (s == STATUS_OK && sv_next(&writes, ':', &path))
        s = add_real(args, "-w", "function-write-paths", path);
    return s;
}

/* ---- folders whose files it removes ---- */

static struct strview secret_of_that_name(const struct deployment *d, struct strview variable,
                                          struct arena *a)
{
    char *name = arena_cstr(a, variable);
    struct strview content = {0};
    for (char *c = name; *c != '\0'; c++)
        if (*c == '_') *c = '-';
    for (size_t i = 0; i < d->spec.n_secrets; i++)
        if (sv_eq(d->spec.secrets[i], sv(name)))
            (void)!file_read(a, arena_printf(a, "%s/secrets/functions/%s", d->gateway->cfg.dir, name).ptr,
                             FUNCTION_SECRET_BYTES_MAX, &content, NULL);
    return content;
}

/* Separated by ':' and line ends; empty: it removes nothing. */
static struct strview list_removable(const struct deployment *d, struct arena *a)
{
    struct strview variable = json_get_text(d->manifest, "removes_below");
    if (variable.len == 0) return variable;
    struct strview list = json_get_text(d->spec.env, arena_cstr(a, variable));
    return list.len > 0 ? list : secret_of_that_name(d, variable, a);
}

static bool next_removable(struct strview *list, struct strview *line, struct strview *ret_path)
{
    while (!sv_next(line, ':', ret_path))
        if (!sv_next(list, '\n', line)) return false;
    *ret_path = sv_trim(*ret_path);
    return true;
}

/* One that is not there, or that is no folder's real path, is the function's to refuse. */
static enum status add_removable(struct args *args, const char *variable, struct strview path)
{
    char real[PATH_MAX];
    if (path.len == 0 || sv_eq(path, SV("/"))) return STATUS_OK;
    if (realpath(arena_cstr(args->arena, path), real) == NULL || !sv_eq(sv(real), path)) return STATUS_OK;
    return add_named(args, "-d", variable, path);
}

static enum status add_all_removable(struct args *args)
{
    struct strview list = list_removable(args->d, args->arena), line = {0}, path;
    const char *name = arena_cstr(args->arena, json_get_text(args->d->manifest, "removes_below"));
    enum status s = STATUS_OK;
    while (s == STATUS_OK && next_removable(&list, &line, &path))
        s = add_removable(args, name, path);
    return s;
}

uint64_t isolation_roots_print(const struct deployment *d)
{
    struct arena a = {0};
    struct strview list = list_removable(d, &a), line = {0}, path;
    uint64_t print = FNV1A_START;
    while (next_removable(&list, &line, &path)) {
        struct stat st = {0};
        if (path.len > 0) (void)stat(arena_cstr(&a, path), &st);
        print = fnv1a_add(print, sv_n((const char *)&st.st_dev, sizeof(st.st_dev)));
        print = fnv1a_add(print, sv_n((const char *)&st.st_ino, sizeof(st.st_ino)));
    }
    arena_release(&a);
    return print;
}

/* ---- its own ---- */

/* python3 /srv/bots/handler.py: who deploys it has named the file. */
static enum status add_program(struct args *args)
{
    const struct deployment *d = args->d;
    char real[PATH_MAX];
    enum status s = STATUS_OK;
    if (d->program == NULL) return STATUS_OK;
    if (strcmp(d->folder, "/") != 0) s = add_named(args, "-r", "folder", sv(d->folder));
    for (size_t i = 0; s == STATUS_OK && d->program[i] != NULL; i++)
        if (d->program[i][0] == '/' && realpath(d->program[i], real) != NULL && strcmp(real, "/") != 0 &&
            !is_the_platforms(d->gateway, real))
            s = add_path(args, "-r", arena_cstr(args->arena, sv(real)));
    return s;
}

/* A build with sanitizers writes its reports beside the platform's, and its leak checker traces itself. */
static enum status add_sanitizer(struct args *args)
{
    const char *options = getenv("ASAN_OPTIONS"),
               *log = options != NULL ? strstr(options, "log_path=") : NULL;
    if (options == NULL) return STATUS_OK;
    add(args, "-t");
    if (log == NULL) return STATUS_OK;
    struct strview path = sv(log + strlen("log_path="));
    path = sv_sub(path, 0, sv_find(path, ':'));
    while (path.len > 1 && path.ptr[path.len - 1] != '/')
        path.len--;
    return add_real(args, "-w", "log_path", path);
}

/* With our own user it could connect to whatever listens in DIR/run. */
static void add_protections(struct args *args, const struct isolation *i, unsigned uid, bool needs_sockets)
{
    if (uid != 0) add_number(args, "-u", uid);
    if (i->landlock_abi > 0) add_number(args, "-l", (unsigned)i->landlock_abi);
    if (i->has_seccomp) add(args, "-s");
    if (uid != 0 || needs_sockets) add(args, "-x");
}

enum status isolation_args(const struct deployment *d, const char *temp, struct arena *a,
                           const char *ret_args[ISOLATION_ARGS_MAX], struct error *err)
{
    struct args args = {.d = d, .arena = a, .items = ret_args, .err = err};
    enum status s = STATUS_OK;
    add_protections(&args, &d->gateway->isolation, d->uid,
                    sv_eq(json_get_text(d->spec.annotations, UNIX_SOCKETS), SV("true")));
    if (d->program != NULL) add(&args, "-b");
    s = add_sanitizer(&args);
    if (s == STATUS_OK && temp != NULL) s = add_path(&args, "-w", temp);
    if (s == STATUS_OK && temp != NULL) s = add_path(&args, "-r", d->secrets_folder);
    if (s == STATUS_OK) s = add_program(&args);
    if (s == STATUS_OK) s = add_common(&args);
    if (s == STATUS_OK) s = add_annotated(&args);
    if (s == STATUS_OK) s = add_all_removable(&args);
    add(&args, NULL);
    return s;
}

enum status isolation_args_of_build(const struct gateway *g, const char *folder, unsigned uid,
                                    struct arena *a, const char *ret_args[ISOLATION_ARGS_MAX],
                                    struct error *err)
{
    struct args args = {.arena = a, .items = ret_args, .err = err};
    add_protections(&args, &g->isolation, uid, false);
    add(&args, "-b"); /* what tests listen on */
    enum status s = add_real(&args, "-w", "build", sv(folder));
    if (s == STATUS_OK) s = add_real(&args, "-r", "build", sv(folder)); /* and run what was made */
    add(&args, NULL);
    return s;
}

/* ---- temporary files ---- */

enum status isolation_make_temp(const char *path, unsigned uid, struct error *err)
{
    if (mkdir(path, 0700) != 0 || (uid != 0 && chown(path, uid, uid) != 0))
        return error_set(err, status_from_errno(errno), "make folder %s: %s", path, strerror(errno));
    return STATUS_OK;
}

static int open_folder(int at_fd, const char *name)
{
    return openat(at_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* What is in the folder `name` of `top_fd` goes; folders in it become folders of top_fd. Two descriptors,
 * however deep somebody has nested them. */
static void empty_into(int top_fd, const char *name, unsigned *serial)
{
    (void)!fchmodat(top_fd, name, 0700, 0); /* its owner, who may be we, can have closed it */
    int fd = open_folder(top_fd, name);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        if (fd >= 0) (void)close(fd);
        return;
    }
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        char moved[32];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (unlinkat(fd, e->d_name, 0) == 0 || errno != EISDIR) continue;
        (void)snprintf(moved, sizeof(moved), ".balm-%u", ++*serial);
        (void)renameat(fd, e->d_name, top_fd, moved);
    }
    (void)closedir(dir);
}

/* One folder of those at the top, or none. */
static bool remove_one(int top_fd, unsigned *serial)
{
    bool has_removed = false;
    int fd = open_folder(top_fd, ".");
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        if (fd >= 0) (void)close(fd);
        return false;
    }
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (unlinkat(fd, e->d_name, 0) == 0) continue;
        empty_into(top_fd, e->d_name, serial);
        has_removed |= unlinkat(fd, e->d_name, AT_REMOVEDIR) == 0;
    }
    (void)closedir(dir);
    return has_removed;
}

void isolation_remove_temp(const char *path)
{
    unsigned serial = 0;
    int fd = open_folder(AT_FDCWD, path);
    if (fd < 0) return;
    while (remove_one(fd, &serial)) {
    }
    (void)close(fd);
    (void)rmdir(path);
}
