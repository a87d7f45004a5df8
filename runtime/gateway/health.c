/* Does a replica answer? Asked before it is routed to, and when it seems not to. */
#include <signal.h>

#include "base/clock.h"
#include "gateway/gateway_impl.h"
#include "log/log.h"

#define TRY_TIMEOUT_NS (10 * NS_PER_S)
#define LAST_WORDS_MAX 200
#define HEALTH_ASK_NS  NS_PER_S

/* ---- trying it before it is routed to ---- */

static struct strview last_words(const struct deployment *d)
{
    struct function_log_line line = {.text = sv(NULL)};
    (void)function_log_get(d->log, function_log_last(d->log), &line);
    return sv_sub(line.text, 0, LAST_WORDS_MAX);
}

static enum status ask(struct upstream *u, int64_t deadline_ns, int *ret_http_status, struct error *err)
{
    struct arena a = {0};
    struct http_reply reply;
    struct forward_spec spec = {.method = SV("GET"),
                                .target = SV("/_/health"),
                                .authority = SV("localhost"),
                                .deadline_ns = deadline_ns};
    enum status s = http_forward(u, &spec, &a, &reply, err);
    if (s == STATUS_OK) *ret_http_status = reply.status;
    arena_release(&a);
    return s;
}

/* Any answer but "not now" will do: /_/health is the watchdog's contract, and a plain program may not know
 * it. */
static enum status ask_health(struct replica *r, int64_t deadline_ns, struct error *err)
{
    int http_status;
    enum status s = ask(r->upstream, deadline_ns, &http_status, err);
    if (s == STATUS_OK && http_status == 503) s = error_set(err, STATUS_UNAVAILABLE, "/_/health answers 503");
    return s;
}

static enum status await_health(struct replica *r, struct error *err)
{
    int64_t deadline_ns = clock_monotonic_ns() + TRY_TIMEOUT_NS;
    for (;;) {
        enum status s = ask_health(r, deadline_ns, err);
        if (s == STATUS_OK) r->has_answered = true;
        if (s != STATUS_UNAVAILABLE || r->has_exited || clock_monotonic_ns() >= deadline_ns) return s;
        if (fiber_event_wait(&r->exited, clock_monotonic_ns() + 20 * NS_PER_MS) == STATUS_CANCELLED)
            return STATUS_CANCELLED;
    }
}

enum status replica_await_up(struct replica *r, struct error *err)
{
    const struct deployment *d = r->deployment;
    struct error why = {0};
    replica_hold(r);
    enum status s = await_health(r, &why);
    if (s != STATUS_OK && r->has_exited)
        s = error_set(err, STATUS_FAILED_PRECONDITION,
                      "function '%.*s' ended at its start with exit %d: %.*s", SV_ARG(d->spec.name),
                      r->exit_code, SV_ARG(last_words(d)));
    else if (s != STATUS_OK)
        s = error_set(err, s == STATUS_CANCELLED ? s : STATUS_FAILED_PRECONDITION,
                      "function '%.*s' did not come up within %d s: %s", SV_ARG(d->spec.name),
                      (int)(TRY_TIMEOUT_NS / NS_PER_S), why.message);
    replica_unhold(r);
    return s;
}

enum status supervisor_try(struct deployment *d, struct error *err)
{
    if (d->is_remote) return STATUS_OK; /* whoever runs it sees to that */
    enum status s = replica_start(d, err);
    if (s != STATUS_OK) return s;
    if (d->wanted == 0) d->wanted = 1;
    return replica_await_up(container_of(d->replicas.prev, struct replica, node), err);
}

/* ---- hanging ---- */

/* On a connection of its own: a pool whose connections are all busy is not a process that hangs. */
static bool is_hung(const struct replica *r)
{
    struct upstream *u;
    struct error ignored;
    int http_status;
    if (replica_connect(r, &u, &ignored) != STATUS_OK) return false;
    enum status s = ask(u, clock_monotonic_ns() + HEALTH_ASK_NS, &http_status, &ignored);
    upstream_free(u);
    return s != STATUS_OK && s != STATUS_CANCELLED;
}

/* Waits for the end: the same act must not go on here while it is begun anew. */
static void kill_hung(struct replica *r)
{
    log_warn("gateway", "function hangs: it is killed", LOG_SV("function", r->deployment->spec.name),
             LOG_INT("replica", r->number), LOG_INT("inflight", r->inflight));
    fiber_shield_begin();
    replica_kill(r);
    if (fiber_event_wait(&r->exited, clock_monotonic_ns() + KILL_GRACE_NS) != STATUS_OK)
        (void)!process_kill(r->process, SIGKILL); /* the shim hangs as well */
    fiber_shield_end();
}

void supervisor_check_hung(struct replica *r)
{
    bool is_starting = !r->has_answered && clock_monotonic_ns() - r->started_ns < TRY_TIMEOUT_NS;
    if (!r->is_routed || r->is_suspect || is_starting) return;
    r->is_suspect = true;
    bool is_to_end = is_hung(r);
    r->is_suspect = false;
    if (is_to_end && r->is_routed && !r->has_exited) kill_hung(r);
}

/* ---- deaf ---- */

void supervisor_check_deaf(struct replica *r)
{
    if (!r->is_routed || r->has_exited || !replica_is_deaf(r)) return;
    log_warn("gateway", "function listens no more: it is killed",
             LOG_SV("function", r->deployment->spec.name), LOG_INT("replica", r->number),
             LOG_INT("inflight", r->inflight));
    replica_kill(r);
    deployment_note_failure(r->deployment);
}
