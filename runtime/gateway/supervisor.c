/* What is deployed, how many of it run, and who gets the next request. */
#include "gateway/gateway_impl.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "config/config.h"
#include "log/log.h"

#define DESCRIBE_TIMEOUT_NS (5 * NS_PER_S)
#define IDLE_LOOK_MS        500
#define NAMESPACE_SUFFIX    ".openfaas-fn"
#define TARGET_DEFAULT      50 /* requests in flight a replica before another one is started */

/* ---- manifest ---- */

static bool json_is_yes(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

static enum on_unknown parse_on_unknown(struct strview text)
{
    if (sv_eq(text, SV("rerun"))) return ON_UNKNOWN_RERUN;
    return sv_eq(text, SV("reread")) ? ON_UNKNOWN_REREAD : ON_UNKNOWN_ESCALATE;
}

static void info_from_manifest(struct deployment *d)
{
    const json_t *m = d->manifest;
    d->info = (struct function_info){
        .name = d->spec.name,
        .acts = json_is_yes(m, "acts"),
        .is_destructive = json_is_yes(m, "destructive"),
        .removes_series = json_is_yes(m, "removes_series"),
        .on_unknown = parse_on_unknown(json_get_text(m, "on_unknown")),
        .manifest_json = m != NULL ? json_canonical(&d->arena, m) : SV("{}"),
    };
    if (duration_parse(json_get_text(m, "timeout"), &d->info.timeout_ns) != STATUS_OK) d->info.timeout_ns = 30 * NS_PER_S;
}

/* A function of ours says what it is (--describe). Another program says something else or nothing, and is a plain function. */
static enum status read_manifest(struct deployment *d, struct error *err)
{
    const char *argv[] = {d->executable, "--describe", NULL};
    struct process_spec spec = {.argv = argv, .env = (const char *const[]){"LANG=C.UTF-8", NULL}, .cwd = "/"};
    struct process_result r;
    enum status s = process_run(&spec, sv(NULL), 256 * 1024, clock_monotonic_ns() + DESCRIBE_TIMEOUT_NS, &d->arena, &r, err);
    if (s != STATUS_OK) return error_prefix(err, s, "%s --describe", d->executable);
    if (r.exit_code == 0 && json_parse(r.stdout_text, 0, &d->manifest, NULL) == STATUS_OK && json_is_object(d->manifest)) {
        info_from_manifest(d);
        return STATUS_OK;
    }
    return error_set(err, STATUS_FAILED_PRECONDITION, "%s does not say what it is: --describe gave exit %d and no manifest (%.*s)", d->executable,
                     r.exit_code, (int)(r.stderr_text.len < 200 ? r.stderr_text.len : 200), r.stderr_text.ptr);
}

/* "registry/team/echo:1.2" -> functions_dir/echo */
static enum status find_executable(struct deployment *d, struct error *err)
{
    struct strview image = d->spec.image, part, last = image;
    while (sv_next(&image, '/', &part))
        last = part;
    last = sv_sub(last, 0, sv_find(last, ':'));
    last = sv_sub(last, 0, sv_find(last, '@'));
    if (last.len == 0 || sv_starts_with(last, SV(".")))
        return error_set(err, STATUS_INVALID_ARGUMENT, "image '%.*s' names no executable", SV_ARG(d->spec.image));
    char real[4096];
    const char *path = arena_printf(&d->arena, "%s/%.*s", d->gateway->cfg.functions_dir, SV_ARG(last)).ptr;
    if (realpath(path, real) == NULL || access(real, X_OK) != 0)
        return error_set(err, STATUS_NOT_FOUND, "image '%.*s': no executable %s", SV_ARG(d->spec.image), path);
    d->executable = arena_cstr(&d->arena, sv(real));
    return STATUS_OK;
}

/* ---- deployments ---- */

static void copy_spec(struct deployment *d, const struct deployment_spec *from)
{
    struct arena *a = &d->arena;
    d->spec = *from;
    d->spec.arena = a;
    d->spec.name = arena_copy(a, from->name);
    d->spec.image = arena_copy(a, from->image);
    d->spec.process = arena_copy(a, from->process);
    d->spec.env = json_deep_copy(from->env);
    d->spec.labels = json_deep_copy(from->labels);
    d->spec.annotations = json_deep_copy(from->annotations);
    struct strview *secrets = arena_array(a, from->n_secrets, sizeof(*secrets));
    for (size_t i = 0; i < from->n_secrets; i++)
        secrets[i] = arena_copy(a, from->secrets[i]);
    d->spec.secrets = secrets;
}

static void deployment_free(struct deployment *d)
{
    json_release(d->spec.env);
    json_release(d->spec.labels);
    json_release(d->spec.annotations);
    json_release(d->manifest);
    function_log_free(d->log);
    arena_release(&d->arena);
    free(d);
}

static struct deployment *deployment_new(struct gateway *g, const struct deployment_spec *spec)
{
    struct deployment *d = mem_zalloc(1, sizeof(*d));
    d->gateway = g;
    list_init(&d->replicas);
    copy_spec(d, spec);
    d->next_number = 1;
    d->created_unix_ns = clock_unix_ns();
    d->last_used_ns = clock_monotonic_ns();
    d->log = function_log_new();
    d->scale_max = deployment_label(spec, "com.openfaas.scale.max", 1, REPLICAS_MAX);
    if (d->scale_max == 0) d->scale_max = 1;
    d->scale_min = deployment_label(spec, "com.openfaas.scale.min", 0, d->scale_max);
    d->scale_target = deployment_label(spec, "com.openfaas.scale.target", TARGET_DEFAULT, 100000);
    if (d->scale_target == 0) d->scale_target = 1;
    d->idle_ns = g->cfg.idle_ns;
    return d;
}

/* Frees what was removed or replaced once nobody looks at it any more. */
static void reap_fiber(void *arg)
{
    struct deployment *d = arg;
    while (d->users > 0 || !list_is_empty(&d->replicas))
        if (sleep_ms(50) != STATUS_OK) {
            fiber_shield_begin();
            while (d->users > 0 || !list_is_empty(&d->replicas))
                (void)!sleep_ms(5);
            fiber_shield_end();
        }
    deployment_free(d);
}

static void retire_deployment(struct deployment *d)
{
    struct error err;
    d->is_removed = true;
    list_remove(&d->node);
    d->gateway->n_deployments--;
    for (struct list *n = d->replicas.next; n != &d->replicas; n = n->next)
        replica_retire(container_of(n, struct replica, node));
    if (fiber_scope_spawn(&d->gateway->scope, reap_fiber, d, &err) != STATUS_OK)
        log_error("gateway", "a removed function is kept in memory", LOG_STR("error", err.message));
}

static enum status check_spec(const struct gateway *g, const struct deployment_spec *spec, struct error *err)
{
    struct strview name = spec->name;
    bool is_fine = name.len > 0 && name.len <= FUNCTION_NAME_MAX && name.ptr[0] != '-' && name.ptr[name.len - 1] != '-';
    for (size_t i = 0; i < name.len && is_fine; i++) {
        char c = name.ptr[i];
        is_fine = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
    }
    if (!is_fine)
        return error_set(err, STATUS_INVALID_ARGUMENT, "function name '%.*s': 1 to %d lower-case letters, digits and inner '-'",
                         (int)(name.len < 80 ? name.len : 80), name.ptr, FUNCTION_NAME_MAX);
    for (unsigned i = 0; i < g->cfg.n_core; i++)
        if (sv_eq(name, sv(g->cfg.core[i]->name)))
            return error_set(err, STATUS_ALREADY_EXISTS, "'%.*s' is a core function of balm and cannot be replaced", SV_ARG(name));
    if (g->n_deployments >= DEPLOYMENTS_MAX) return error_set(err, STATUS_RESOURCE_EXHAUSTED, "%d functions are deployed", DEPLOYMENTS_MAX);
    return STATUS_OK;
}

enum status supervisor_deploy(struct gateway *g, const struct deployment_spec *spec, struct error *err)
{
    enum status s = check_spec(g, spec, err);
    if (s != STATUS_OK) return s;
    struct deployment *d = deployment_new(g, spec);
    s = find_executable(d, err);
    if (s == STATUS_OK) s = read_manifest(d, err);
    if (s != STATUS_OK) {
        deployment_free(d);
        return s;
    }
    struct deployment *old = supervisor_find(g, d->spec.name);
    if (old != NULL) {
        d->created_unix_ns = old->created_unix_ns;
        d->invocations = old->invocations;
        retire_deployment(old);
    }
    list_push_back(&g->deployments, &d->node);
    g->n_deployments++;
    for (unsigned i = 0; i < d->scale_min && s == STATUS_OK; i++)
        s = replica_start(d, err);
    log_info("gateway", old != NULL ? "function replaced" : "function deployed", LOG_SV("function", d->spec.name), LOG_BOOL("acts", d->info.acts),
             LOG_STR("executable", d->executable));
    return s;
}

enum status supervisor_remove(struct gateway *g, struct strview name, struct error *err)
{
    struct deployment *d = supervisor_find(g, name);
    if (d == NULL) return error_set(err, STATUS_NOT_FOUND, "no function '%.*s' is deployed", SV_ARG(name));
    retire_deployment(d);
    log_info("gateway", "function removed", LOG_SV("function", name));
    return STATUS_OK;
}

struct deployment *supervisor_find(struct gateway *g, struct strview name)
{
    if (sv_ends_with(name, SV(NAMESPACE_SUFFIX))) name = sv_sub(name, 0, name.len - (sizeof(NAMESPACE_SUFFIX) - 1));
    for (struct list *n = g->deployments.next; n != &g->deployments; n = n->next) {
        struct deployment *d = container_of(n, struct deployment, node);
        if (sv_eq(d->spec.name, name)) return d;
    }
    return NULL;
}

unsigned deployment_replicas(const struct deployment *d)
{
    return d->n_routed;
}

/* ---- scaling ---- */

enum status supervisor_scale(struct deployment *d, unsigned n, struct error *err)
{
    enum status s = STATUS_OK;
    if (n < d->scale_min) n = d->scale_min;
    if (n > d->scale_max) n = d->scale_max;
    while (d->n_routed < n && s == STATUS_OK)
        s = replica_start(d, err);
    struct list *next;
    for (struct list *node = d->replicas.next; node != &d->replicas && d->n_routed > n; node = next) {
        next = node->next;
        replica_retire(container_of(node, struct replica, node));
    }
    return s;
}

/* Least busy replica that takes requests. */
static struct replica *pick(struct deployment *d)
{
    struct replica *best = NULL;
    for (struct list *n = d->replicas.next; n != &d->replicas; n = n->next) {
        struct replica *r = container_of(n, struct replica, node);
        if (r->is_routed && (best == NULL || r->inflight < best->inflight)) best = r;
    }
    return best;
}

static enum status wait_for_backoff(struct deployment *d, int64_t deadline_ns, struct error *err)
{
    if (d->not_before_ns <= clock_monotonic_ns()) return STATUS_OK;
    if (d->not_before_ns > deadline_ns)
        return error_set(err, STATUS_UNAVAILABLE, "function '%.*s' ended %u times in a row; its next start is in %lld s", SV_ARG(d->spec.name), d->failures,
                         (long long)((d->not_before_ns - clock_monotonic_ns()) / NS_PER_S + 1));
    d->users++;
    enum status s = sleep_until(d->not_before_ns);
    d->users--;
    return s == STATUS_OK ? s : error_set(err, s, "waiting for the next start of '%.*s'", SV_ARG(d->spec.name));
}

enum status supervisor_acquire(struct deployment *d, int64_t deadline_ns, struct replica **ret_replica, struct error *err)
{
    if (d->n_routed == 0) {
        enum status s = wait_for_backoff(d, deadline_ns, err);
        if (s != STATUS_OK) return s;
        if (d->is_removed) return error_set(err, STATUS_NOT_FOUND, "function '%.*s' was removed", SV_ARG(d->spec.name));
        if (d->n_routed == 0) s = replica_start(d, err);
        if (s != STATUS_OK) return s;
    }
    struct replica *r = pick(d);
    if (r->inflight >= d->scale_target && d->n_routed < d->scale_max) {
        struct error ignored; /* the busy one serves as well */
        if (replica_start(d, &ignored) == STATUS_OK) r = pick(d);
    }
    r->inflight++;
    d->inflight++;
    d->users++;
    d->invocations++;
    fiber_event_reset(&r->idle);
    *ret_replica = r;
    return STATUS_OK;
}

void supervisor_release(struct replica *r)
{
    struct deployment *d = r->deployment;
    d->inflight--;
    d->users--;
    d->last_used_ns = clock_monotonic_ns();
    if (!r->has_exited) d->failures = 0;
    if (--r->inflight == 0) fiber_event_set(&r->idle);
}

static void look_for_idle(struct deployment *d, int64_t now_ns)
{
    if (d->idle_ns == 0 || d->inflight > 0 || d->n_routed <= d->scale_min || now_ns - d->last_used_ns < d->idle_ns) return;
    struct error ignored;
    (void)!supervisor_scale(d, d->scale_min, &ignored);
    log_debug("gateway", "function scaled down", LOG_SV("function", d->spec.name), LOG_INT("replicas", d->n_routed));
}

void supervisor_idle_fiber(void *gateway)
{
    struct gateway *g = gateway;
    while (sleep_ms(IDLE_LOOK_MS) == STATUS_OK) {
        int64_t now_ns = clock_monotonic_ns();
        for (struct list *n = g->deployments.next; n != &g->deployments; n = n->next)
            look_for_idle(container_of(n, struct deployment, node), now_ns);
    }
}

/* ---- everything ---- */

void supervisor_signal_acting(struct gateway *g, int signo)
{
    for (struct list *n = g->deployments.next; n != &g->deployments; n = n->next) {
        struct deployment *d = container_of(n, struct deployment, node);
        if (!d->info.acts) continue;
        for (struct list *m = d->replicas.next; m != &d->replicas; m = m->next) {
            struct replica *r = container_of(m, struct replica, node);
            if (!r->has_exited) (void)!process_kill(r->process, signo);
        }
    }
}

void supervisor_stop(struct gateway *g)
{
    while (!list_is_empty(&g->deployments))
        retire_deployment(container_of(g->deployments.next, struct deployment, node));
}
