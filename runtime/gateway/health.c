/* Does a replica answer? Asked before it is routed to, when it seems not to, and now and then while nobody
 * calls it. */
#include <signal.h>

#include "base/clock.h"
#include "gateway/gateway_impl.h"
#include "log/log.h"

#define TRY_TIMEOUT_NS (10 * NS_PER_S)
#define LAST_WORDS_MAX 200
#define HEALTH_ASK_NS  NS_PER_S
#define HEALTH_PATH    SV("/_/health")

#define PROBE_LOOK_MS    1000
#define PROBE_QUIET_NS   (10 * NS_PER_S) /* an answer to a call says as much as one to a probe */
#define PROBE_TIMEOUT_NS (2 * NS_PER_S)
#define PROBE_MISSES_MAX 3  /* in a row, without any call under way: it hangs */
#define PROBES_MAX       16 /* at once: a thousand functions do not wake up together */
#define READY_PATH       SV("/_/ready")
#define READY_ANNOTATION "com.openfaas.ready.http.path"

/* ---- trying it before it is routed to ---- */

static struct strview last_words(const struct deployment *d)
{
    struct function_log_line line = {.text = sv(NULL)};
    (void)function_log_get(d->log, function_log_last(d->log), &line);
    return sv_sub(line.text, 0, LAST_WORDS_MAX);
}

static enum status ask(struct upstream *u, struct strview path, int64_t deadline_ns, int *ret_http_status,
                       struct error *err)
{
    struct arena a = {0};
    struct http_reply reply;
    struct forward_spec spec = {
        .method = SV("GET"), .target = path, .authority = SV("localhost"), .deadline_ns = deadline_ns};
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
    enum status s = ask(r->upstream, HEALTH_PATH, deadline_ns, &http_status, err);
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
    enum status s = ask(u, HEALTH_PATH, clock_monotonic_ns() + HEALTH_ASK_NS, &http_status, &ignored);
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

/* ---- ready ---- */

static struct strview ready_path(const struct deployment *d)
{
    struct strview path = json_get_text(d->spec.annotations, READY_ANNOTATION);
    return sv_starts_with(path, SV("/")) ? path : READY_PATH;
}

static void set_ready(struct replica *r, bool is_ready, const char *why)
{
    if (r->is_unready == !is_ready) return;
    r->is_unready = !is_ready;
    log_info("gateway", is_ready ? "function is ready again" : "function is not ready: others are called",
             LOG_SV("function", r->deployment->spec.name), LOG_INT("replica", r->number),
             LOG_STR("why", why));
}

/* As a kubelet has it: 2xx and 3xx. But 429 is one at its limit, which the next answer frees (openfaas.md
 * §1.6), and who does not know the question is no worse for it. */
static bool says_ready(int http_status)
{
    return http_status < 400 || http_status == 404 || http_status == 405 || http_status == 429;
}

static void judge_probe(struct replica *r, enum status s, int http_status)
{
    r->probed_ns = clock_monotonic_ns();
    r->n_missed = s == STATUS_OK ? 0 : r->n_missed + 1;
    set_ready(r, s == STATUS_OK && says_ready(http_status), s == STATUS_OK ? "its own answer" : "no answer");
    if (r->n_missed < PROBE_MISSES_MAX || r->inflight > 1) return; /* 1: this probe's hold */
    supervisor_check_deaf(r);
    if (r->is_routed) kill_hung(r);
}

static void probe_fiber(void *arg)
{
    struct replica *r = arg;
    struct deployment *d = r->deployment;
    struct gateway *g = d->gateway;
    struct upstream *u;
    struct error ignored;
    int http_status = 0;
    enum status s = replica_connect(r, &u, &ignored);
    if (s == STATUS_OK) {
        s = ask(u, ready_path(d), clock_monotonic_ns() + PROBE_TIMEOUT_NS, &http_status, &ignored);
        upstream_free(u);
    }
    r->is_suspect = false;
    if (s != STATUS_CANCELLED && r->is_routed && !r->has_exited) judge_probe(r, s, http_status);
    replica_unhold(r);
    g->n_probes--;
}

static bool is_due(const struct replica *r, int64_t now_ns)
{
    int64_t heard_ns = r->answered_ns > r->probed_ns ? r->answered_ns : r->probed_ns;
    if (!r->is_routed || r->has_exited || r->is_suspect) return false;
    if (!r->has_answered && now_ns - r->started_ns < TRY_TIMEOUT_NS) return false;
    return r->is_unready || r->n_missed > 0 || now_ns - heard_ns >= PROBE_QUIET_NS;
}

static void probe(struct replica *r)
{
    struct gateway *g = r->deployment->gateway;
    struct error ignored;
    replica_hold(r);
    r->is_suspect = true;
    g->n_probes++;
    if (fiber_scope_spawn(&g->scope, probe_fiber, r, &ignored) == STATUS_OK) return;
    g->n_probes--;
    r->is_suspect = false;
    replica_unhold(r);
}

void health_watch_fiber(void *gateway)
{
    struct gateway *g = gateway;
    while (sleep_ms(PROBE_LOOK_MS) == STATUS_OK) {
        int64_t now_ns = clock_monotonic_ns();
        for (struct list *n = g->deployments.next; n != &g->deployments; n = n->next) {
            struct deployment *d = container_of(n, struct deployment, node);
            for (struct list *m = d->replicas.next; m != &d->replicas && g->n_probes < PROBES_MAX;
                 m = m->next)
                if (is_due(container_of(m, struct replica, node), now_ns))
                    probe(container_of(m, struct replica, node));
        }
    }
}
