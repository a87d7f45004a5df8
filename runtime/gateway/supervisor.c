/* Which deployment has a name, how many replicas it runs, and which one gets the next request. */
#include "gateway/gateway_impl.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "gateway/function_secrets.h"
#include "log/log.h"

#define WATCH_MS         250
#define NAMESPACE_SUFFIX "." FUNCTION_NAMESPACE
#define BACKOFF_MAX_NS   (60 * NS_PER_S)
#define COMPLAIN_NS      NS_PER_S /* anonymous requests must not fill the log */

/* ---- names ---- */

struct strview supervisor_bare_name(struct strview name)
{
    if (!sv_ends_with(name, SV(NAMESPACE_SUFFIX))) return name;
    return sv_sub(name, 0, name.len - (sizeof(NAMESPACE_SUFFIX) - 1));
}

struct deployment *supervisor_find(struct gateway *g, struct strview name)
{
    name = supervisor_bare_name(name);
    for (struct list *n = g->deployments.next; n != &g->deployments; n = n->next) {
        struct deployment *d = container_of(n, struct deployment, node);
        if (sv_eq(d->spec.name, name)) return d;
    }
    return NULL;
}

/* Frees what was removed or replaced once nobody looks at it any more. */
static void reap_fiber(void *arg)
{
    struct deployment *d = arg;
    fiber_shield_begin();
    while (d->users > 0 || !list_is_empty(&d->replicas))
        (void)!sleep_ms(d->gateway->is_draining ? 2 : 50);
    fiber_shield_end();
    list_remove(&d->node);
    deployment_free(d);
}

static void retire_deployment(struct deployment *d)
{
    struct error err;
    struct gateway *g = d->gateway;
    if (d->is_listed) g->n_deployments--;
    d->is_listed = false;
    d->is_removed = true;
    list_remove(&d->node);
    list_push_back(&g->retired, &d->node);
    for (struct list *n = d->replicas.next; n != &d->replicas; n = n->next)
        replica_retire(container_of(n, struct replica, node));
    if (fiber_scope_spawn(&g->scope, reap_fiber, d, &err) != STATUS_OK)
        log_error("gateway", "a removed function is kept in memory", LOG_STR("error", err.message));
}

/* What went wrong is kept: who asks for an act must hear it, whoever just calls must not. */
static enum status start_one(struct deployment *d, struct error *err)
{
    enum status s = replica_start(d, err);
    d->info.start_error = (struct strview){0};
    if (s == STATUS_OK) return s;
    (void)snprintf(d->start_error, sizeof(d->start_error), "%s", err->message);
    d->info.start_error = sv(d->start_error);
    return s;
}

static void ensure_wanted(struct deployment *d)
{
    struct error err;
    while (!d->is_remote && d->n_routed < d->wanted) {
        if (start_one(d, &err) == STATUS_OK) continue;
        deployment_note_failure(d);
        log_warn("gateway", "function does not start", LOG_SV("function", d->spec.name),
                 LOG_STR("error", err.message),
                 LOG_INT("retry_ms", (d->not_before_ns - clock_monotonic_ns()) / NS_PER_MS));
        return;
    }
}

/* It is deployed all the same: the secret may be made later, and the other functions must not wait for it. */
static void warn_of_missing_secrets(const struct deployment *d)
{
    struct arena a = {0};
    struct strview *names;
    size_t n = function_secrets_missing(d, &a, &names);
    for (size_t i = 0; i < n; i++)
        log_warn("gateway", "a secret that a function lists is missing: it cannot start",
                 LOG_SV("function", d->spec.name), LOG_SV("secret", names[i]),
                 LOG_SV("make_it", arena_printf(&a, "faas-cli secret create %.*s", SV_ARG(names[i]))));
    arena_release(&a);
}

static void note_asked(struct deployment *d, unsigned n)
{
    d->asked = n;
    if (n > d->scale.max && !d->scale.has_max) d->scale.max = n;
}

void supervisor_commit(struct deployment *d)
{
    struct gateway *g = d->gateway;
    struct deployment *old = supervisor_find(g, d->spec.name);
    if (old != NULL) {
        d->created_unix_ns = old->created_unix_ns;
        d->invocations = old->invocations;
        d->counted_invocations = old->counted_invocations;
        d->scale_history = old->scale_history;
        note_asked(d, old->asked);
        if (d->wanted < old->wanted) d->wanted = old->wanted < d->scale.max ? old->wanted : d->scale.max;
    }
    list_push_back(&g->deployments, &d->node);
    d->is_listed = true;
    g->n_deployments++;
    d->last_used_ns = clock_monotonic_ns();
    ensure_wanted(d); /* before the old ones stop: a replacement takes over as wide as they were */
    if (old != NULL) retire_deployment(old);
    log_info("gateway", old != NULL ? "function replaced" : "function deployed",
             LOG_SV("function", d->spec.name), LOG_BOOL("acts", d->info.acts),
             LOG_SV("runs", d->is_remote ? remote_url(&d->spec) : sv(d->executable)));
    if (!d->is_remote) warn_of_missing_secrets(d);
    for (size_t i = 0; i < d->warnings.n; i++)
        log_warn("gateway", "a wish of a function cannot be honoured", LOG_SV("function", d->spec.name),
                 LOG_SV("why", d->warnings.items[i]));
}

void supervisor_discard(struct deployment *d)
{
    if (list_is_empty(&d->replicas) && d->users == 0)
        deployment_free(d);
    else
        retire_deployment(d);
}

enum status supervisor_deploy(struct gateway *g, const struct deployment_spec *spec, struct error *err)
{
    struct deployment *d;
    enum status s = deployment_prepare(g, spec, &d, err);
    if (s == STATUS_OK) supervisor_commit(d);
    return s;
}

enum status supervisor_remove(struct gateway *g, struct strview name, struct error *err)
{
    struct deployment *d = supervisor_find(g, name);
    if (d == NULL)
        return error_set(err, STATUS_NOT_FOUND, "no function '%.*s' is deployed",
                         SV_ARG(sv_sub(name, 0, 80)));
    log_info("gateway", "function removed", LOG_SV("function", d->spec.name));
    retire_deployment(d);
    return STATUS_OK;
}

/* ---- scaling ---- */

void deployment_note_failure(struct deployment *d)
{
    unsigned shift = d->failures < 6 ? d->failures : 6;
    int64_t wait_ns = (INT64_C(1) << shift) * NS_PER_S;
    d->failures++;
    gateway_count_crash(d);
    d->not_before_ns = clock_monotonic_ns() + (wait_ns < BACKOFF_MAX_NS ? wait_ns : BACKOFF_MAX_NS);
}

static enum status set_replicas(struct deployment *d, unsigned n, struct error *err)
{
    enum status s = STATUS_OK;
    if (n < d->scale.floor) n = d->scale.floor;
    if (n > d->scale.max) n = d->scale.max;
    d->wanted = n;
    while (d->n_routed < n && s == STATUS_OK)
        s = start_one(d, err);
    for (struct list *node = d->replicas.next; node != &d->replicas && d->n_routed > n; node = node->next)
        replica_retire(
            container_of(node, struct replica, node)); /* its fiber, not this loop, takes it off the list */
    return s;
}

enum status supervisor_scale(struct deployment *d, unsigned n, struct error *err)
{
    if (d->is_remote)
        return error_set(err, STATUS_FAILED_PRECONDITION,
                         "function '%.*s' runs elsewhere, and is scaled there", SV_ARG(d->spec.name));
    note_asked(d, n);
    d->scale_history = (struct scaling_history){0};
    return set_replicas(d, n, err);
}

/* Of a function that is used: what its labels and whoever scaled it want, whatever its load. */
static unsigned least_in_use(const struct deployment *d)
{
    unsigned n = d->asked > d->scale.wake ? d->asked : d->scale.wake;
    return n < d->scale.max ? n : d->scale.max;
}

static bool is_better(const struct replica *r, const struct replica *than)
{
    if (than == NULL) return true;
    return r->is_unready != than->is_unready ? than->is_unready : r->inflight < than->inflight;
}

/* Least busy replica that takes requests, of several the one that has waited longest; one that is not ready
 * only if none is. NULL: none. */
static struct replica *pick(struct deployment *d)
{
    struct replica *best = NULL;
    for (struct list *n = d->replicas.next; n != &d->replicas; n = n->next) {
        struct replica *r = container_of(n, struct replica, node);
        if (r->is_routed && is_better(r, best)) best = r;
    }
    if (best == NULL || d->n_routed == 1) return best;
    list_remove(&best->node);
    list_push_back(&d->replicas, &best->node);
    return best;
}

static enum status wait_for_backoff(struct deployment *d, int64_t deadline_ns, struct error *err)
{
    while (d->n_routed == 0 && !d->is_removed && d->not_before_ns > clock_monotonic_ns()) {
        if (d->not_before_ns > deadline_ns) {
            int64_t wait_s = (d->not_before_ns - clock_monotonic_ns()) / NS_PER_S + 1;
            return error_set(err, STATUS_UNAVAILABLE,
                             "function '%.*s' ended %u times in a row; its next start is in %" PRId64 " s",
                             SV_ARG(d->spec.name), d->failures, wait_s);
        }
        d->users++;
        enum status s = sleep_until(d->not_before_ns);
        d->users--;
        if (s != STATUS_OK)
            return error_set(err, s, "waiting for the next start of '%.*s'", SV_ARG(d->spec.name));
    }
    return STATUS_OK;
}

/* What is wrong here is for the log, with its paths; who called learns that it was not his fault. */
static enum status not_started(struct deployment *d, enum status s, const struct error *why,
                               struct error *err)
{
    int64_t now_ns = clock_monotonic_ns();
    if (s == STATUS_CANCELLED) return error_set(err, s, "%s", why->message);
    if (d->complained_ns == 0 || now_ns - d->complained_ns >= COMPLAIN_NS) {
        d->complained_ns = now_ns;
        log_error("gateway", "function does not start", LOG_SV("function", d->spec.name),
                  LOG_STR("error", why->message));
    }
    return error_set(err, STATUS_UNAVAILABLE,
                     "function '%.*s' cannot be started now: the platform's log says why",
                     SV_ARG(d->spec.name));
}

static enum status start_first(struct deployment *d, int64_t deadline_ns, struct error *err)
{
    enum status s = wait_for_backoff(d, deadline_ns, err);
    if (s != STATUS_OK || d->is_removed || d->n_routed > 0) return s;
    struct error why;
    s = start_one(d, &why);
    if (s != STATUS_OK) return not_started(d, s, &why, err);
    if (d->wanted == 0) d->wanted = least_in_use(d); /* the others follow at the next look */
    return STATUS_OK;
}

/* What one more request would ask for, at once and not at the next look. A busy one serves as well, so it is
 * no error if there cannot be another. */
static void widen(struct deployment *d)
{
    struct error ignored;
    struct scaling_load load = {.inflight = d->inflight + 1};
    if (d->n_routed >= scaling_wanted(&d->scale, &load) || d->not_before_ns > clock_monotonic_ns()) return;
    if (replica_start(d, &ignored) != STATUS_OK) return;
    if (d->wanted < d->n_routed) d->wanted = d->n_routed;
    (void)scaling_settle(&d->scale_history, clock_monotonic_ns(), d->wanted);
}

enum status supervisor_check(struct deployment *d, struct error *err)
{
    enum status s = STATUS_OK;
    d->users++;
    if (d->is_remote) {
        s = remote_check_health(d, err);
        d->users--;
        return s;
    }
    if (d->n_routed == 0) {
        s = start_one(d, err);
        if (s == STATUS_OK && d->wanted == 0) d->wanted = 1;
        d->last_used_ns = clock_monotonic_ns(); /* it goes to 0 again as after a call */
    }
    struct replica *r = s == STATUS_OK ? pick(d) : NULL;
    if (r != NULL)
        s = replica_await_up(r, err);
    else if (s == STATUS_OK)
        s = error_set(err, STATUS_FAILED_PRECONDITION, "function '%.*s' ended at its start",
                      SV_ARG(d->spec.name));
    d->users--;
    return s;
}

enum status supervisor_acquire(struct deployment *d, int64_t deadline_ns, struct replica **ret_replica,
                               struct error *err)
{
    struct gateway *g = d->gateway;
    while (d->n_routed == 0) {
        enum status s = start_first(d, deadline_ns, err);
        if (s != STATUS_OK) return s;
        if (!d->is_removed) continue;
        struct deployment *next = supervisor_find(g, d->spec.name);
        if (next == NULL)
            return error_set(err, STATUS_NOT_FOUND, "function '%.*s' was removed", SV_ARG(d->spec.name));
        d = next;
    }
    widen(d);
    struct replica *r = pick(d); /* n_routed > 0, and nothing below waits */
    assert(r != NULL);
    d->inflight++;
    d->invocations++;
    replica_hold(r);
    *ret_replica = r;
    return STATUS_OK;
}

void supervisor_release(struct replica *r, bool has_answered)
{
    struct deployment *d = r->deployment;
    d->inflight--;
    d->last_used_ns = clock_monotonic_ns();
    if (has_answered) {
        r->has_answered = true;
        r->answered_ns = d->last_used_ns;
        d->failures = 0;
    }
    replica_unhold(r);
}

void replica_hold(struct replica *r)
{
    r->inflight++;
    fiber_event_reset(&r->idle);
}

void replica_unhold(struct replica *r)
{
    if (--r->inflight == 0) fiber_event_set(&r->idle);
}

static struct scaling_load look_at_load(struct deployment *d, int64_t since_ns)
{
    uint64_t n = d->invocations - d->counted_invocations;
    d->counted_invocations = d->invocations;
    if (since_ns > 0) /* half of it is what it was, so that one look between two requests says little */
        d->per_s = (unsigned)((d->per_s + n * (uint64_t)NS_PER_S / (uint64_t)since_ns + 1) / 2);
    return (struct scaling_load){
        .inflight = d->inflight, .per_s = d->per_s, .backlog = gateway_backlog(d->gateway, d->spec.name).n};
}

/* A function at 0 stays there: whoever calls it has it started. */
static void follow_load(struct deployment *d, const struct scaling_load *load, int64_t now_ns)
{
    struct error ignored;
    unsigned n = scaling_settle(&d->scale_history, now_ns, scaling_wanted(&d->scale, load));
    if (d->wanted == 0) return;
    if (n < least_in_use(d)) n = least_in_use(d);
    if (n < d->wanted) (void)!set_replicas(d, n, &ignored);
    if (n != d->wanted)
        log_debug("gateway", "function scaled", LOG_SV("function", d->spec.name), LOG_INT("replicas", n));
    d->wanted = n;
}

static void look_after(struct deployment *d, int64_t now_ns, int64_t since_ns)
{
    struct error ignored;
    struct scaling_load load = look_at_load(d, since_ns);
    bool is_idle = d->scale.idle_ns > 0 && d->inflight == 0 && load.backlog == 0 &&
                   now_ns - d->last_used_ns >= d->scale.idle_ns;
    if (is_idle && (d->wanted > d->scale.floor || d->n_routed > d->scale.floor)) {
        (void)!set_replicas(d, d->scale.floor, &ignored);
        log_debug("gateway", "function scaled down", LOG_SV("function", d->spec.name),
                  LOG_INT("replicas", d->n_routed));
    } else if (!is_idle) {
        follow_load(d, &load, now_ns);
    }
    if (now_ns >= d->not_before_ns) ensure_wanted(d);
}

void supervisor_watch_fiber(void *gateway)
{
    struct gateway *g = gateway;
    int64_t before_ns = clock_monotonic_ns();
    while (sleep_ms(WATCH_MS) == STATUS_OK) {
        int64_t now_ns = clock_monotonic_ns();
        for (struct list *n = g->deployments.next; n != &g->deployments; n = n->next)
            if (!container_of(n, struct deployment, node)->is_remote)
                look_after(container_of(n, struct deployment, node), now_ns, now_ns - before_ns);
        before_ns = now_ns;
    }
}

void supervisor_stop(struct gateway *g)
{
    g->is_draining = true;
    while (!list_is_empty(&g->deployments))
        retire_deployment(container_of(g->deployments.next, struct deployment, node));
}
