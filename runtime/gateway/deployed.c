#include "gateway/deployed.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "config/bytes.h"
#include "config/config.h"
#include "config/quote.h"
#include "log/log.h"

#define DEPLOYMENT_BYTES_MAX (256 * 1024)
#define CHANGE_WAIT_NS       (30 * NS_PER_S)
#define REMOVED              ".removed" /* what is on its way out; left behind only by a crash */
#define SCALE                ".scale"
#define SCALE_BYTES_MAX      64

/* ---- a FunctionDeployment ---- */

enum member_type { MEMBER_TEXT, MEMBER_MAP, MEMBER_RESOURCES, MEMBER_LIST, MEMBER_BOOL };

static const struct member {
    const char *name;
    enum member_type type;
} members[] = {
    {"service", MEMBER_TEXT},      {"image", MEMBER_TEXT},         {"namespace", MEMBER_TEXT},
    {"envProcess", MEMBER_TEXT},   {"envVars", MEMBER_MAP},        {"labels", MEMBER_MAP},
    {"annotations", MEMBER_MAP},   {"secrets", MEMBER_LIST},       {"constraints", MEMBER_LIST},
    {"limits", MEMBER_RESOURCES},  {"requests", MEMBER_RESOURCES}, {"readOnlyRootFilesystem", MEMBER_BOOL},
    {"network", MEMBER_TEXT}, /* clients of old send these two; there is nothing here that they could mean */
    {"registryAuth", MEMBER_TEXT},
};

/* A misspelt member that is passed over is a function without its secrets, or without a limit. */
static enum status unknown_member(const char *name, struct error *err)
{
    const char *names[ARRAY_LEN(members)];
    char shown[QUOTE_MAX];
    for (size_t i = 0; i < ARRAY_LEN(members); i++)
        names[i] = members[i].name;
    const char *nearest = config_nearest(name, names, ARRAY_LEN(names));
    return error_set(err, STATUS_INVALID_ARGUMENT, "a FunctionDeployment has no member '%s'%s%s%s",
                     quote_text(sv(name), shown), nearest != NULL ? " (did you mean '" : "",
                     nearest != NULL ? nearest : "", nearest != NULL ? "'?)" : "");
}

static enum status check_text_map(const json_t *map, const char *what, struct error *err)
{
    const char *key;
    json_t *value;
    char shown[QUOTE_MAX];
    if (!json_is_object(map))
        return error_set(err, STATUS_INVALID_ARGUMENT, "%s must be a map of text to text", what);
    json_object_foreach((json_t *)(uintptr_t)map, key, value)
    {
        if (!json_is_string(value))
            return error_set(err, STATUS_INVALID_ARGUMENT, "%s: '%s' must be text", what,
                             quote_text(sv(key), shown));
    }
    return STATUS_OK;
}

static enum status check_member(const struct member *m, const json_t *value, struct error *err)
{
    bool is_fine = json_is_null(value);
    const char *kind = "";
    switch (m->type) {
    case MEMBER_TEXT:
        is_fine = is_fine || json_is_string(value);
        kind = "text";
        break;
    case MEMBER_BOOL:
        is_fine = is_fine || json_is_boolean(value);
        kind = "true or false";
        break;
    case MEMBER_LIST:
        is_fine = is_fine || json_is_array(value);
        for (size_t i = 0; i < json_array_size(value); i++)
            is_fine = is_fine && json_is_string(json_array_get(value, i));
        kind = "a list of texts";
        break;
    case MEMBER_MAP:
    case MEMBER_RESOURCES:
        return is_fine ? STATUS_OK : check_text_map(value, m->name, err);
    }
    return is_fine ? STATUS_OK : error_set(err, STATUS_INVALID_ARGUMENT, "%s must be %s", m->name, kind);
}

static enum status check_members(const json_t *body, struct error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)body, key, value)
    {
        size_t i = 0;
        while (i < ARRAY_LEN(members) && strcmp(members[i].name, key) != 0)
            i++;
        enum status s =
            i == ARRAY_LEN(members) ? unknown_member(key, err) : check_member(&members[i], value, err);
        if (s != STATUS_OK) return s;
    }
    return STATUS_OK;
}

/* What is larger could not be read again at the next start. */
static enum status check_size(const json_t *body, struct error *err)
{
    struct buf text;
    buf_init(&text, DEPLOYMENT_BYTES_MAX);
    json_append_canonical(&text, body);
    bool is_fine = buf_view(&text).len > 0; /* all or none */
    buf_release(&text);
    return is_fine ? STATUS_OK
                   : error_set(err, STATUS_INVALID_ARGUMENT,
                               "the deployment is larger than %d KiB, labels and all",
                               DEPLOYMENT_BYTES_MAX / 1024);
}

static json_t *object_or_null(const json_t *body, const char *key)
{
    json_t *o = json_object_get(body, key);
    return json_is_object(o) ? o : NULL;
}

/* Whether each can be a secret's name is checked with the rest of the spec. */
static void take_secrets(const json_t *body, struct arena *a, struct deployment_spec *spec)
{
    const json_t *list = json_object_get(body, "secrets");
    size_t n = json_array_size(list);
    struct strview *secrets = arena_array(a, n, sizeof(*secrets));
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(list, i);
        secrets[i] = sv_n(json_string_value(item), json_string_length(item));
    }
    spec->secrets = secrets;
    spec->n_secrets = n;
}

static enum status parse_memory(struct strview text, int64_t *ret_bytes, struct error *err)
{
    enum status s = bytes_parse_quantity(text, ret_bytes);
    if (s == STATUS_OK) return s;
    return error_set(err, s, "limits.memory '%.*s': " BYTES_QUANTITY_UNITS, SV_ARG(sv_sub(text, 0, 40)));
}

static enum status take_limits(const json_t *body, struct deployment_spec *spec, struct error *err)
{
    spec->limits = object_or_null(body, "limits");
    spec->requests = object_or_null(body, "requests");
    struct strview memory = json_get_text(spec->limits, "memory"), cpu = json_get_text(spec->limits, "cpu");
    enum status s = memory.len > 0 ? parse_memory(memory, &spec->memory_bytes, err) : STATUS_OK;
    if (s == STATUS_OK && cpu.len > 0 && cpu_parse_quantity(cpu, &spec->cpu_millis) != STATUS_OK)
        s = error_set(err, STATUS_INVALID_ARGUMENT, "limits.cpu '%.*s': " CPU_QUANTITY_UNITS,
                      SV_ARG(sv_sub(cpu, 0, 40)));
    return s;
}

static enum status check_required(const struct deployment_spec *spec, struct strview name_space,
                                  struct error *err)
{
    if (spec->name.len == 0)
        return error_set(err, STATUS_INVALID_ARGUMENT, "service (the function's name) is required");
    if (spec->image.len == 0) return error_set(err, STATUS_INVALID_ARGUMENT, "image is required");
    if (name_space.len == 0 || sv_eq(name_space, SV(FUNCTION_NAMESPACE))) return STATUS_OK;
    return error_set(err, STATUS_INVALID_ARGUMENT,
                     "namespace '%.*s' is not here: there is one, " FUNCTION_NAMESPACE,
                     SV_ARG(sv_sub(name_space, 0, 80)));
}

enum status deployed_parse(const json_t *body, struct arena *a, struct deployment_spec *ret_spec,
                           struct error *err)
{
    if (!json_is_object(body))
        return error_set(err, STATUS_INVALID_ARGUMENT, "the body must be a FunctionDeployment object");
    enum status s = check_members(body, err);
    if (s == STATUS_OK) s = check_size(body, err);
    if (s != STATUS_OK) return s;
    struct deployment_spec spec = {.arena = a,
                                   .name = json_get_text(body, "service"),
                                   .image = json_get_text(body, "image"),
                                   .process = json_get_text(body, "envProcess"),
                                   .env = object_or_null(body, "envVars"),
                                   .labels = object_or_null(body, "labels"),
                                   .annotations = object_or_null(body, "annotations"),
                                   .constraints = json_object_get(body, "constraints"),
                                   .is_read_only =
                                       json_is_true(json_object_get(body, "readOnlyRootFilesystem"))};
    take_secrets(body, a, &spec);
    s = check_required(&spec, json_get_text(body, "namespace"), err);
    if (s == STATUS_OK) s = take_limits(body, &spec, err);
    if (s == STATUS_OK) *ret_spec = spec;
    return s;
}

/* ---- files, on a worker thread: each change is synced ---- */

struct file_work {
    const char *folder, *path, *aside, *scale;
    struct strview content;
    enum status status;
    struct error *err;
};

static struct file_work file_work(const struct gateway *g, struct arena *a, struct strview name)
{
    const char *folder = arena_printf(a, "%s/functions", g->cfg.dir).ptr;
    return (struct file_work){.folder = folder,
                              .path = arena_printf(a, "%s/%.*s.json", folder, SV_ARG(name)).ptr,
                              .scale = arena_printf(a, "%s/%.*s" SCALE, folder, SV_ARG(name)).ptr,
                              .aside = arena_printf(a, "%s/%.*s" REMOVED, folder, SV_ARG(name)).ptr};
}

static void store_work(void *arg)
{
    struct file_work *w = arg;
    w->status = dir_make(w->folder, 0700, w->err);
    if (w->status == STATUS_OK) w->status = file_write_atomic(w->path, w->content, 0600, w->err);
}

/* Set aside first: a folder that does not sync gives it back. One that an earlier call could not remove for
 * good may be gone already, so the folder is synced in any case. */
static void forget_work(void *arg)
{
    struct file_work *w = arg;
    bool is_aside = rename(w->path, w->aside) == 0;
    (void)unlink(w->scale); /* a name that comes back begins anew */
    if (!is_aside && errno != ENOENT) {
        w->status = error_set(w->err, status_from_errno(errno), "remove %s: %s", w->path, strerror(errno));
        return;
    }
    w->status = access(w->folder, F_OK) == 0 ? file_sync_name(w->path, w->err) : STATUS_OK;
    if (!is_aside) return;
    if (w->status == STATUS_OK)
        (void)unlink(w->aside);
    else
        (void)rename(w->aside, w->path);
}

enum status deployed_store(struct gateway *g, struct strview name, const json_t *body, struct error *err)
{
    struct arena a = {0};
    struct file_work w = file_work(g, &a, name);
    w.content = json_canonical(&a, body);
    w.err = err;
    work_run(store_work, &w);
    arena_release(&a);
    return w.status;
}

enum status deployed_store_scale(struct gateway *g, struct strview name, unsigned n, struct error *err)
{
    struct arena a = {0};
    struct file_work w = file_work(g, &a, name);
    w.path = w.scale;
    w.content = arena_printf(&a, "%u\n", n);
    w.err = err;
    work_run(store_work, &w);
    arena_release(&a);
    return w.status;
}

enum status deployed_forget(struct gateway *g, struct strview name, struct error *err)
{
    struct arena a = {0};
    struct file_work w = file_work(g, &a, name);
    w.err = err;
    work_run(forget_work, &w);
    arena_release(&a);
    return w.status;
}

enum status deployed_change_begin(struct gateway *g, struct error *err)
{
    while (g->is_changing) {
        fiber_event_reset(&g->change_ended);
        enum status s = fiber_event_wait(&g->change_ended, clock_monotonic_ns() + CHANGE_WAIT_NS);
        if (s != STATUS_OK) return error_set(err, s, "another function is being deployed or removed");
    }
    g->is_changing = true;
    return STATUS_OK;
}

void deployed_change_end(struct gateway *g)
{
    g->is_changing = false;
    fiber_event_set(&g->change_ended);
}

/* ---- at the start ---- */

static bool has_scale(const struct gateway *g, struct arena *a, struct strview name)
{
    return access(file_work(g, a, name).scale, F_OK) == 0;
}

static enum status load_one(struct gateway *g, const char *path, struct arena *a, struct error *err)
{
    struct strview text;
    json_t *body = NULL;
    struct deployment *d;
    struct deployment_spec spec;
    enum status s = file_read(a, path, DEPLOYMENT_BYTES_MAX, &text, err);
    if (s == STATUS_OK) s = json_parse(text, 0, &body, err);
    if (s == STATUS_OK) s = deployed_parse(body, a, &spec, err);
    if (s == STATUS_OK) s = deployment_prepare(g, &spec, &d, err);
    if (s == STATUS_OK) {
        if (d->wanted == 0 && !has_scale(g, a, spec.name)) d->wanted = 1;
        supervisor_commit(d);
    }
    json_release(body);
    return s;
}

static bool is_left_over(struct strview file)
{
    return sv_ends_with(file, SV(REMOVED)) || sv_find(file, FILE_TEMPORARY_MARK[0]) < file.len;
}

enum status deployed_load(struct gateway *g, struct error *err)
{
    struct arena a = {0};
    const char *folder = arena_printf(&a, "%s/functions", g->cfg.dir).ptr;
    DIR *dir = opendir(folder);
    enum status s = STATUS_OK;
    if (dir == NULL) {
        if (errno != ENOENT)
            s = error_set(err, status_from_errno(errno), "open %s: %s", folder, strerror(errno));
        arena_release(&a);
        return s;
    }
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        struct error why;
        if (is_left_over(sv(e->d_name))) (void)unlinkat(dirfd(dir), e->d_name, 0);
        if (!sv_ends_with(sv(e->d_name), SV(".json"))) continue;
        const char *path = arena_printf(&a, "%s/%s", folder, e->d_name).ptr;
        if (load_one(g, path, &a, &why) != STATUS_OK)
            log_error("gateway", "a deployed function could not be started again", LOG_STR("file", path),
                      LOG_STR("error", why.message));
    }
    (void)closedir(dir);
    arena_release(&a);
    return s;
}

static void load_scale(struct gateway *g, int folder_fd, const char *file, struct arena *a)
{
    struct strview text, name = sv_sub(sv(file), 0, strlen(file) - strlen(SCALE));
    struct deployment *d = supervisor_find(g, name);
    struct error err;
    uint64_t n;
    if (d == NULL) {
        (void)unlinkat(folder_fd, file, 0);
        return;
    }
    enum status s = file_read(a, file_work(g, a, name).scale, SCALE_BYTES_MAX, &text, &err);
    if (s == STATUS_OK && (sv_parse_u64(sv_trim(text), &n) != STATUS_OK || n > SCALING_REPLICAS_MAX))
        s = error_set(&err, STATUS_INVALID_ARGUMENT, "it does not say how many replicas");
    if (s == STATUS_OK) s = supervisor_scale(d, (unsigned)n, &err);
    if (s != STATUS_OK)
        log_error("gateway", "a function is not scaled as it was", LOG_SV("function", name),
                  LOG_STR("error", err.message));
}

void deployed_load_scales(struct gateway *g)
{
    struct arena a = {0};
    DIR *dir = opendir(arena_printf(&a, "%s/functions", g->cfg.dir).ptr);
    for (struct dirent *e = dir != NULL ? readdir(dir) : NULL; e != NULL; e = readdir(dir))
        if (sv_ends_with(sv(e->d_name), SV(SCALE))) load_scale(g, dirfd(dir), e->d_name, &a);
    if (dir != NULL) (void)closedir(dir);
    arena_release(&a);
}
