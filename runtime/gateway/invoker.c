/* How the dispatcher reaches bots: signed invocations, plain calls from the queue, and balm stop. */
#include "gateway/gateway_impl.h"

#include <signal.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/memory.h"
#include "function/api_key.h"
#include "gateway/callback.h"
#include "log/log.h"

#define ACT_GRACE_NS    (10 * NS_PER_S)   /* balm stop: how long an act under way may take to notice */
#define ASK_TIMEOUT_NS  (250 * NS_PER_MS) /* one bot that says nothing must not use up the others' time */
#define RESUME_GRACE_NS NS_PER_S
#define SEND_ATTEMPTS   3
#define SEND_AGAIN_NS   (250 * NS_PER_MS)
#define ASK_AGAIN_MS    10

static struct deployment *find_or_say(struct gateway *g, struct strview name, struct error *err)
{
    struct deployment *d = supervisor_find(g, name);
    if (d == NULL) (void)!stack_missing(g, NULL, name, err);
    return d;
}

static enum status invoker_info(void *arg, struct strview function, struct function_info *ret_info,
                                struct error *err)
{
    struct deployment *d = find_or_say(arg, function, err);
    if (d == NULL) return STATUS_NOT_FOUND;
    *ret_info = d->info;
    return STATUS_OK;
}

static int64_t monotonic_from_unix(int64_t unix_ns)
{
    return clock_monotonic_ns() + (unix_ns - clock_unix_ns());
}

/* Did it reach the handler? http_forward() knows whether a connection had taken it. If so the answer is lost,
 * and the bot's on_unknown decides. */
static enum status judge_lost(enum status s, struct error *err)
{
    if (s == STATUS_DEADLINE_EXCEEDED && err->can_retry) s = STATUS_UNAVAILABLE;
    if (s == STATUS_UNAVAILABLE && !err->can_retry) s = STATUS_UNKNOWN;
    if (s == STATUS_RESOURCE_EXHAUSTED) s = STATUS_UNKNOWN; /* it did answer, but nobody can know what */
    err->code = s;
    err->can_retry = s == STATUS_UNAVAILABLE;
    return s;
}

static enum status sign(struct gateway *g, const struct invocation *inv, struct arena *a,
                        struct forward_spec *spec, struct http_header *headers, struct error *err)
{
    char key[SHA256_HEX + 1];
    invocation_derive_key(g->secrets.invocation_key, inv->function, key);
    enum status s =
        invocation_sign(inv, g->cfg.cluster, sv(key), spec->body, a, headers, &spec->n_headers, err);
    mem_wipe(key, sizeof(key));
    spec->headers = headers;
    return s;
}

static enum status frozen(struct error *err)
{
    return error_set(err, STATUS_CANCELLED, "balm stop is in force");
}

/* It was not sent: that is no lost answer, and no attempt. */
static enum status unsent(enum status s, struct error *err)
{
    if (s == STATUS_CANCELLED || s == STATUS_NOT_FOUND) return s;
    err->code = STATUS_UNAVAILABLE;
    err->can_retry = true;
    return STATUS_UNAVAILABLE;
}

/* Nobody there: it has not left, and the queue tries again. */
static enum status send_away(const struct deployment *d, const struct forward_spec *spec, struct arena *a,
                             struct http_reply *ret_reply, struct error *err)
{
    enum status s = remote_forward(d, spec, a, ret_reply, err);
    return s == STATUS_OK || s == STATUS_CANCELLED ? s : judge_lost(s, err);
}

struct roots_look {
    const struct deployment *d;
    uint64_t print;
};

static void look_at_roots(void *arg)
{
    struct roots_look *look = arg;
    look->print = isolation_roots_print(look->d);
}

/* A folder to clean that was made or mounted since a replica's start is not in its sandbox: another one acts.
 */
static void retire_outdated(struct deployment *d)
{
    struct roots_look look = {.d = d};
    if (json_get_text(d->manifest, "removes_below").len == 0 || d->n_routed == 0) return;
    work_run(look_at_roots, &look);
    for (struct list *n = d->replicas.next; n != &d->replicas; n = n->next) {
        struct replica *r = container_of(n, struct replica, node);
        if (r->is_routed && r->roots_print != look.print) replica_retire(r);
    }
}

/* One try. *ret_is_unsent: the process had just died, so another one may get it. */
static enum status send_once(struct gateway *g, struct deployment *d, const struct forward_spec *spec,
                             struct arena *a, struct http_reply *ret_reply, bool *ret_is_unsent,
                             struct error *err)
{
    struct replica *r;
    *ret_is_unsent = false;
    if (d->is_remote) return g->is_frozen ? frozen(err) : send_away(d, spec, a, ret_reply, err);
    retire_outdated(d);
    enum status s = supervisor_acquire(d, spec->deadline_ns, &r, err);
    if (s != STATUS_OK) return unsent(s, err);
    s = g->is_frozen ? frozen(err) : http_forward(r->upstream, spec, a, ret_reply, err);
    if (s == STATUS_DEADLINE_EXCEEDED) supervisor_check_hung(r);
    if (s == STATUS_UNAVAILABLE && err->can_retry) supervisor_check_deaf(r);
    if (s != STATUS_OK) s = judge_lost(s, err);
    if (s == STATUS_UNAVAILABLE)
        *ret_is_unsent = fiber_event_wait(&r->exited, clock_monotonic_ns() + SEND_AGAIN_NS) == STATUS_OK;
    supervisor_release(r, s == STATUS_OK);
    return s;
}

static enum status send_invocation(struct gateway *g, struct deployment *d, const struct invocation *inv,
                                   struct strview params, struct arena *a, struct invocation_reply *ret_reply,
                                   struct error *err)
{
    struct http_header headers[INVOCATION_HEADERS_MAX];
    struct forward_spec spec = {.method = SV("POST"),
                                .target = SV("/"),
                                .authority = inv->function,
                                .body = params,
                                .deadline_ns = monotonic_from_unix(inv->deadline_unix_ns)};
    struct http_reply reply;
    bool is_unsent = true;
    enum status s = sign(g, inv, a, &spec, headers, err);
    if (s != STATUS_OK) return s;
    for (unsigned attempt = 0; is_unsent && attempt < SEND_ATTEMPTS; attempt++)
        s = send_once(g, d, &spec, a, &reply, &is_unsent, err);
    if (s == STATUS_OK) s = invocation_parse_reply(reply.status, reply.body, a, ret_reply, err);
    if (s == STATUS_OK) gateway_count_refused_certificates(d, ret_reply->certificates_refused);
    /* What changed something can be taken back, or it is said that it cannot: by the bot for this act, or by
     * its manifest for all. */
    if (s == STATUS_OK && ret_reply->undo.len == 0 && sv_eq(ret_reply->state, SV("done")))
        ret_reply->undo = arena_copy(a, d->info.undo);
    return s;
}

static enum status invoker_invoke(void *arg, const struct invocation *inv, struct strview params,
                                  struct arena *a, struct invocation_reply *ret_reply, struct error *err)
{
    struct gateway *g = arg;
    struct error why;
    struct deployment *d = find_or_say(g, inv->function, err);
    if (d == NULL) return STATUS_NOT_FOUND;
    if (g->is_frozen) return frozen(err);
    d->users++;
    d->acting_inflight++;
    enum status s = send_invocation(g, d, inv, params, a, ret_reply, &why);
    d->acting_inflight--;
    d->users--;
    fiber_event_set(&g->acts_ended);
    if (s != STATUS_OK && err != NULL) *err = why;
    return s;
}

static enum status call_once(struct deployment *d, const struct forward_spec *spec, struct arena *a,
                             struct http_reply *ret_reply, struct error *err)
{
    struct replica *r;
    if (d->is_remote) return send_away(d, spec, a, ret_reply, err);
    enum status s = supervisor_acquire(d, spec->deadline_ns, &r, err);
    if (s != STATUS_OK) return unsent(s, err);
    s = http_forward(r->upstream, spec, a, ret_reply, err);
    if (s == STATUS_DEADLINE_EXCEEDED) supervisor_check_hung(r);
    if (s == STATUS_UNAVAILABLE && err->can_retry) supervisor_check_deaf(r);
    supervisor_release(r, s == STATUS_OK);
    return s == STATUS_OK ? s : judge_lost(s, err);
}

static enum status invoker_call(void *arg, struct strview function, const struct http_req *req,
                                int64_t deadline_ns, struct arena *a, struct http_reply *ret_reply,
                                struct error *err)
{
    struct gateway *g = arg;
    struct error why;
    struct deployment *d = find_or_say(g, function, err);
    if (d == NULL) return STATUS_NOT_FOUND;
    if (d->info.acts)
        return error_set(err, STATUS_PERMISSION_DENIED,
                         "function '%.*s' acts: it takes signed invocations only", SV_ARG(function));
    struct forward_spec spec = {.method = req->method,
                                .target = req->target,
                                .authority = req->authority,
                                .headers = req->headers,
                                .n_headers = req->n_headers,
                                .body = req->body,
                                .deadline_ns = deadline_ns};
    if (d->info.api_key_secret.len > 0)
        spec.headers = api_key_replace(req, sv(d->gateway_key), &spec.n_headers);
    d->users++;
    enum status s = call_once(d, &spec, a, ret_reply, &why);
    d->users--;
    if (s != STATUS_OK && err != NULL) *err = why;
    return s;
}

static enum status invoker_post(void *arg, struct strview url, const struct http_header *headers,
                                size_t n_headers, struct strview body, struct arena *a, int *ret_http_status,
                                struct error *err)
{
    return callback_post(arg, url, headers, n_headers, body, a, ret_http_status, err);
}

/* ---- balm stop ---- */

static struct replica *find_acting_in(struct list *deployments, bool (*is_it)(const struct replica *r))
{
    for (struct list *n = deployments->next; n != deployments; n = n->next) {
        struct deployment *d = container_of(n, struct deployment, node);
        for (struct list *m = d->replicas.next; d->info.acts && m != &d->replicas; m = m->next) {
            struct replica *r = container_of(m, struct replica, node);
            if (!r->has_exited && is_it(r)) return r;
        }
    }
    return NULL;
}

/* Replaced and removed deployments count: their replicas end what they have. */
static struct replica *find_acting(struct gateway *g, bool (*is_it)(const struct replica *r))
{
    struct replica *r = find_acting_in(&g->deployments, is_it);
    return r != NULL ? r : find_acting_in(&g->retired, is_it);
}

static void signal_acting(struct gateway *g, int signo)
{
    struct list *const lists[] = {&g->deployments, &g->retired};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        for (struct list *n = lists[i]->next; n != lists[i]; n = n->next) {
            struct deployment *d = container_of(n, struct deployment, node);
            for (struct list *m = d->replicas.next; d->info.acts && m != &d->replicas; m = m->next) {
                struct replica *r = container_of(m, struct replica, node);
                r->is_in_step = false;
                r->is_asked = false;
                if (!r->has_exited) (void)!process_kill(r->process, signo);
            }
        }
}

static bool is_out_of_step(const struct replica *r)
{
    return !r->is_in_step;
}

static bool is_to_be_asked(const struct replica *r)
{
    return !r->is_in_step && !r->is_asked;
}

/* The header says "the signal has arrived, and so many invocations have not ended yet" (function_serve.c).
 * The signal is sent again: one that came before the process could catch it is lost. */
static void ask_frozen(struct gateway *g, struct replica *r, int64_t deadline_ns)
{
    struct arena a = {0};
    struct http_reply reply;
    struct error ignored;
    struct forward_spec spec = {.method = SV("GET"),
                                .target = SV("/_/health"),
                                .authority = SV("localhost"),
                                .deadline_ns = deadline_ns};
    replica_hold(r);
    r->is_asked = true;
    (void)!process_kill(r->process, g->is_frozen ? SIGUSR1 : SIGUSR2);
    if (http_forward(r->upstream, &spec, &a, &reply, &ignored) == STATUS_OK) {
        struct strview running = http_header_get(reply.headers, reply.n_headers, SV("x-balm-frozen"));
        r->has_answered = true;
        r->is_in_step = g->is_frozen ? sv_eq(running, SV("0")) : running.len == 0;
    }
    replica_unhold(r);
    arena_release(&a);
}

static void ask_round(struct gateway *g)
{
    struct replica *r;
    while ((r = find_acting(g, is_to_be_asked)) != NULL)
        ask_frozen(g, r, clock_monotonic_ns() + ASK_TIMEOUT_NS);
    struct list *const lists[] = {&g->deployments, &g->retired};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        for (struct list *n = lists[i]->next; n != lists[i]; n = n->next) {
            struct deployment *d = container_of(n, struct deployment, node);
            for (struct list *m = d->replicas.next; m != &d->replicas; m = m->next)
                container_of(m, struct replica, node)->is_asked = false;
        }
}

/* Until every acting process has said that it acts no more, or may again. Each is asked at least once. */
static enum status await_bots(struct gateway *g, int64_t deadline_ns)
{
    while (find_acting(g, is_out_of_step) != NULL) {
        if (fiber_is_cancelled()) return STATUS_CANCELLED;
        ask_round(g);
        if (find_acting(g, is_out_of_step) == NULL) break;
        if (clock_monotonic_ns() >= deadline_ns) return STATUS_DEADLINE_EXCEEDED;
        (void)!sleep_ms(ASK_AGAIN_MS);
    }
    return STATUS_OK;
}

/* Who did not notice in time loses its process: the outcome of its act is unknown and is treated as
 * on_unknown says. */
static enum status kill_unheard(struct gateway *g, struct error *err)
{
    struct replica *r;
    while ((r = find_acting(g, is_out_of_step)) != NULL) {
        struct strview name = r->deployment->spec.name;
        log_warn("gateway", "balm stop: function did not stop acting within the grace, it is killed",
                 LOG_SV("function", name), LOG_INT("replica", r->number));
        replica_hold(r);
        replica_kill(r);
        enum status s = fiber_event_wait(&r->exited, clock_monotonic_ns() + KILL_GRACE_NS);
        if (s != STATUS_OK)
            (void)!error_set(err, s, "balm stop: function '%.*s' could not be killed", SV_ARG(name));
        r->is_in_step = s == STATUS_OK;
        replica_unhold(r);
        if (s != STATUS_OK) return s;
    }
    return STATUS_OK;
}

/* One with acts whose answers are due, of all or of those that run elsewhere; NULL: none. */
static const struct deployment *find_answer_due(const struct gateway *g, bool is_remote)
{
    const struct list *const lists[] = {&g->deployments, &g->retired};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        for (const struct list *n = lists[i]->next; n != lists[i]; n = n->next) {
            const struct deployment *d = container_of(n, struct deployment, node);
            if (d->acting_inflight > 0 && (d->is_remote || !is_remote)) return d;
        }
    return NULL;
}

/* No signal reaches those that run elsewhere: their acts end by their answer or their deadline, and a stop
 * that cannot wait for that says so. */
static enum status await_remote(struct gateway *g, int64_t deadline_ns, struct error *err)
{
    const struct deployment *d;
    while ((d = find_answer_due(g, true)) != NULL) {
        fiber_event_reset(&g->acts_ended);
        enum status s = fiber_event_wait(&g->acts_ended, deadline_ns);
        if (s == STATUS_CANCELLED) return s;
        if (s != STATUS_OK && (d = find_answer_due(g, true)) != NULL)
            return error_set(
                err, s,
                "balm stop: function '%.*s' runs elsewhere and has not answered: what it has begun "
                "may go on until its deadline",
                SV_ARG(d->spec.name));
    }
    return STATUS_OK;
}

/* The processes act no more; their answers are a matter of moments, and are not waited for longer. */
static enum status await_answers(struct gateway *g)
{
    int64_t deadline_ns = clock_monotonic_ns() + NS_PER_S;
    while (find_answer_due(g, false) != NULL) {
        fiber_event_reset(&g->acts_ended);
        enum status s = fiber_event_wait(&g->acts_ended, deadline_ns);
        if (s != STATUS_OK) return s == STATUS_CANCELLED ? s : STATUS_OK;
    }
    return STATUS_OK;
}

/* Who has not heard of the resume in time refuses what it gets, and hears of it then. */
static enum status resume(struct gateway *g, struct error *err)
{
    broker_freeze(g->broker, false);
    enum status s = await_bots(g, clock_monotonic_ns() + RESUME_GRACE_NS);
    return s == STATUS_CANCELLED ? error_set(err, s, "resume was cut short") : STATUS_OK;
}

enum status gateway_freeze(struct gateway *g, bool is_frozen, struct error *err)
{
    g->is_frozen = is_frozen;
    signal_acting(g, is_frozen ? SIGUSR1 : SIGUSR2);
    if (!is_frozen) return resume(g, err);
    broker_freeze(g->broker, true);
    /* From here on: a bot that waited for a slow restart is healthy, and has only now heard of its end. */
    int64_t deadline_ns = clock_monotonic_ns() + ACT_GRACE_NS;
    enum status s = await_bots(g, deadline_ns);
    if (s == STATUS_DEADLINE_EXCEEDED) s = kill_unheard(g, err);
    if (s == STATUS_OK) s = await_remote(g, deadline_ns, err);
    if (s == STATUS_OK) s = await_answers(g);
    if (s == STATUS_CANCELLED) return error_set(err, s, "balm stop was cut short while acts were ending");
    return s;
}

static enum status invoker_freeze(void *arg, bool is_frozen, struct error *err)
{
    return gateway_freeze(arg, is_frozen, err);
}

const struct invoker_ops gateway_invoker = {.name = "local",
                                            .info = invoker_info,
                                            .invoke = invoker_invoke,
                                            .call = invoker_call,
                                            .post = invoker_post,
                                            .freeze = invoker_freeze};
