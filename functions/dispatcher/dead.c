/* Dead letters: acts and calls whose attempts are used up. They wait in the queue (store/queue.h) for a
 * person:
 *
 *   a call --retry "again"--> the queue hands it out once more
 *   an act --retry "anew"---> its step is decided on once more, through all gates (state.h); refused unless
 *                             the incident is open, its alert fires and nothing was done about it since
 *   both ----"dropped"------> gone; the incident has moved on when the act died
 *
 * Running the old intent again would pass by cooldown, rate and mode, and its deadline is over. */
#include <inttypes.h>

#include "functions/dispatcher/handler_impl.h"
#include "functions/dispatcher/ids.h"

#define LIST_DEFAULT    100
#define DURABLE_WAIT_NS (10 * NS_PER_S)

/* One with its records, which may be large (a call's body): in an arena of its own. NULL: no longer kept. */
struct letter {
    struct queue_dead dead;
    const struct record *record, *outcome;
};

static bool is_escalation(const struct letter *l)
{
    return l->record != NULL && sv_eq(l->record->purpose, SV("escalate"));
}

static enum status read_record(const struct exchange *x, uint64_t seq, struct arena *a,
                               const struct record **ret_record, struct error *err)
{
    struct journal_entry *entries = NULL;
    size_t n = 0;
    *ret_record = NULL;
    if (seq < journal_first_seq(x->d->env.journal)) return STATUS_OK;
    enum status s = journal_read(x->d->env.journal, seq, 1, true, a, &entries, &n, err);
    if (s == STATUS_OK && n == 1 && entries[0].seq == seq) *ret_record = entries[0].record;
    return s;
}

/* ---- the list ---- */

static void put_text(json_t *o, const char *name, struct strview text)
{
    if (text.len > 0) (void)json_object_set_new(o, name, json_text(text));
}

static void put_time(json_t *o, const char *name, int64_t unix_ns)
{
    char text[RFC3339_LEN + 1];
    rfc3339_format(unix_ns, text);
    (void)json_object_set_new(o, name, json_string(text));
}

static struct strview kind_of(const struct letter *l)
{
    if (!l->dead.is_call) return is_escalation(l) ? SV("message") : SV("act");
    bool is_callback = l->record != NULL && sv_eq(l->record->purpose, SV("callback"));
    return is_callback ? SV("callback") : SV("call");
}

static json_t *letter_json(const struct letter *l)
{
    json_t *o = json_object();
    put_text(o, "id", l->dead.id);
    put_text(o, "kind", kind_of(l));
    put_text(o, "function", l->dead.function);
    if (l->record != NULL) {
        if (!l->dead.is_call) put_text(o, "target", l->record->target);
        put_text(o, "incident", l->record->incident);
        put_text(o, "path", l->record->path);
        put_time(o, "since", l->record->time_ns);
    }
    if (l->outcome != NULL) {
        put_time(o, "died", l->outcome->time_ns);
        int64_t age_ns = clock_elapsed_ns(l->outcome->time_ns, clock_unix_ns());
        (void)json_object_set_new(o, "ageSeconds", json_integer(age_ns > 0 ? age_ns / NS_PER_S : 0));
        (void)json_object_set_new(o, "attempts", json_integer(l->outcome->attempt));
        put_text(o, "code", l->outcome->code);
        put_text(o, "error", l->outcome->reason);
        put_text(o, "message", l->outcome->message);
    }
    return o;
}

static enum status list(const struct exchange *x, json_t *letters, size_t *ret_total, struct error *err)
{
    struct strview function = {0};
    uint64_t limit = LIST_DEFAULT;
    struct queue_dead *dead;
    (void)http_query_get(x->req, SV("function"), &function);
    enum status s = exchange_limit(x, &limit, err);
    if (s != STATUS_OK) return s;
    size_t n = queue_list_dead(x->d->queue, function, (size_t)limit, x->req->arena, &dead, ret_total);
    struct arena scratch = {0};
    for (size_t i = 0; i < n && s == STATUS_OK; i++) {
        struct letter l = {.dead = dead[i]};
        arena_reset(&scratch);
        s = read_record(x, dead[i].seq, &scratch, &l.record, err);
        if (s == STATUS_OK) s = read_record(x, dead[i].ended_seq, &scratch, &l.outcome, err);
        if (s == STATUS_OK) (void)json_array_append_new(letters, letter_json(&l));
    }
    arena_release(&scratch);
    return s;
}

static void get_dead(const struct exchange *x)
{
    struct error err;
    json_t *letters = json_array();
    size_t total = 0;
    if (list(x, letters, &total, &err) == STATUS_OK) {
        exchange_answer(x, json_pack("{s:o,s:I}", "dead", letters, "total", (json_int_t)total));
        return;
    }
    json_release(letters);
    exchange_fail(x, &err);
}

/* ---- what a person does to them ---- */

/* A request to retry or drop one or all of them, and what has come of it so far. */
struct sweep {
    const struct exchange *x;
    struct strview actor, reason; /* borrowed from the body; reason: why they are dropped, empty: a retry */
    json_t *done, *refused;
    uint64_t last_seq;
};

/* NULL, or why this one cannot be retried. *r is what records it. */
static const char *retry_record(const struct sweep *w, const struct letter *l, struct record *r)
{
    r->kind = RECORD_RETRY;
    r->due_ns = clock_unix_ns();
    r->state = SV("again");
    if (l->dead.is_call) return NULL;
    if (l->record == NULL) return "its record is no longer kept";
    const struct incident *inc = state_incident(dispatcher_state(w->x->d), l->record->incident);
    if (inc == NULL) return "its incident is closed";
    r->state = SV("anew");
    r->due_ns = 0;
    return incident_refuses_retry(inc, l->dead.id, is_escalation(l));
}

static struct record make_record(const struct sweep *w, const struct letter *l)
{
    struct record r = {.kind = RECORD_OUTCOME,
                       .time_ns = clock_unix_ns(),
                       .tenant = w->x->d->env.tenant,
                       .cluster = w->x->d->env.cluster,
                       .intent = l->dead.id,
                       .function = l->dead.function,
                       .state = SV("dropped"),
                       .reason = w->reason,
                       .actor = w->actor};
    if (l->record == NULL) return r;
    r.incident = l->record->incident;
    r.fingerprint = l->record->fingerprint;
    r.runbook = l->record->runbook;
    r.purpose = l->record->purpose;
    r.step = l->record->step;
    if (!l->dead.is_call) r.target = l->record->target;
    return r;
}

/* What has been decided on a retry: its other intent, or the gate at which it waits. */
static void put_decision(const struct sweep *w, const struct letter *l, json_t *o)
{
    const struct incident *inc =
        l->record != NULL ? state_incident(dispatcher_state(w->x->d), l->record->incident) : NULL;
    if (inc == NULL || is_escalation(l) || w->reason.len > 0) return;
    put_text(o, "phase", sv(incident_phase_name(inc->phase)));
    if (inc->phase == INCIDENT_ACTING) put_text(o, "intent", sv(inc->intent));
    if (inc->gate != NULL) put_text(o, "gate", sv(inc->gate));
}

static enum status yield(struct error *err)
{
    enum status s = fiber_yield();
    return s == STATUS_OK ? s : error_set(err, s, "cut");
}

/* Suspends before it looks at anything that may change. */
static enum status do_one(struct sweep *w, const struct queue_dead *dead, struct arena *scratch,
                          struct error *err)
{
    struct letter l = {.dead = *dead};
    enum status s = dead->is_call ? yield(err) : read_record(w->x, dead->seq, scratch, &l.record, err);
    if (s != STATUS_OK) return s;
    struct record r = make_record(w, &l);
    const char *why_not = w->reason.len > 0 ? NULL : retry_record(w, &l, &r);
    if (!queue_is_dead(w->x->d->queue, dead->id)) why_not = "somebody else was faster";
    json_t *o = json_object();
    put_text(o, "id", dead->id);
    put_text(o, "function", dead->function);
    put_text(o, "incident", r.incident);
    if (why_not != NULL) {
        put_text(o, "reason", sv(why_not));
        (void)json_array_append_new(w->refused, o);
        return STATUS_OK;
    }
    s = journal_append(w->x->d->env.journal, &r, 1, &w->last_seq, err);
    if (s == STATUS_OK) put_decision(w, &l, o);
    if (s == STATUS_OK)
        (void)json_array_append_new(w->done, o);
    else
        json_decref(o);
    return s;
}

/* One that cannot be done is an error; of all it is one line of the answer. */
static enum status refuse_one(const struct sweep *w, struct error *err)
{
    const json_t *o = json_array_get(w->refused, 0);
    struct strview id = json_get_text(o, "id"), incident = json_get_text(o, "incident");
    return error_set(err, STATUS_FAILED_PRECONDITION, "%.*s cannot be retried: %.*s%s%.*s", SV_ARG(id),
                     SV_ARG(json_get_text(o, "reason")), incident.len > 0 ? "; see balm why " : "",
                     SV_ARG(incident));
}

/* Those that are meant: the one with the id, or all (of a function). */
static enum status choose(const struct exchange *x, const json_t *body, struct queue_dead **ret_dead,
                          size_t *ret_n, struct error *err)
{
    struct strview id = json_get_text(body, "id"), found;
    bool is_all = json_is_true(json_object_get(body, "all"));
    size_t total, n = queue_list_dead(x->d->queue, json_get_text(body, "function"), QUEUE_DEAD_MAX,
                                      x->req->arena, ret_dead, &total);
    if (is_all == (id.len > 0)) return error_set(err, STATUS_INVALID_ARGUMENT, "say either id or all");
    *ret_n = n;
    if (is_all) return STATUS_OK;
    struct strview *known = arena_array(x->req->arena, n + 1, sizeof(*known));
    for (size_t i = 0; i < n; i++)
        known[n - 1 - i] = (*ret_dead)[i].id; /* the newest first */
    enum status s = ids_find(id, known, n, "dead letter", "balm dead list", &found, err);
    if (s != STATUS_OK) return s;
    while (!sv_eq((*ret_dead)->id, found))
        ++*ret_dead;
    *ret_n = 1;
    return STATUS_OK;
}

static enum status sweep(struct sweep *w, const json_t *body, struct error *err)
{
    struct queue_dead *dead = NULL;
    struct journal *j = w->x->d->env.journal;
    size_t n = 0;
    enum status s = choose(w->x, body, &dead, &n, err);
    if (s != STATUS_OK) return s;
    struct arena scratch = {0};
    for (size_t i = 0; i < n && s == STATUS_OK; i++) {
        arena_reset(&scratch);
        s = do_one(w, &dead[i], &scratch, err);
    }
    arena_release(&scratch);
    if (s == STATUS_OK && w->last_seq > 0)
        s = journal_wait_durable(j, w->last_seq, clock_monotonic_ns() + DURABLE_WAIT_NS, err);
    if (s != STATUS_OK) return error_prefix(err, s, "after %zu of %zu", json_array_size(w->done), n);
    bool is_one = !json_is_true(json_object_get(body, "all"));
    return is_one && json_array_size(w->refused) > 0 ? refuse_one(w, err) : STATUS_OK;
}

static void post_dead(const struct exchange *x, bool is_drop)
{
    struct error err;
    json_t *body = NULL;
    struct sweep w = {.x = x, .done = json_array(), .refused = json_array()};
    enum status s = exchange_body(x, &body, &w.actor, &err);
    if (s == STATUS_OK && is_drop) s = exchange_words(body, "reason", REASON_MAX, &w.reason, &err);
    if (s == STATUS_OK) s = sweep(&w, body, &err);
    if (s == STATUS_OK)
        exchange_answer(x, json_pack("{s:O,s:O,s:b}", is_drop ? "dropped" : "retried", w.done, "refused",
                                     w.refused, "stopped",
                                     dispatcher_state(x->d)->is_frozen || x->d->is_braked));
    else
        exchange_fail(x, &err);
    json_release(w.done);
    json_release(w.refused);
    json_release(body);
}

void dead_handle(const struct exchange *x, struct strview rest)
{
    if (rest.len == 0) {
        if (exchange_is_method(x, SV("GET"))) get_dead(x);
    } else if (sv_eq(rest, SV("/retry")) || sv_eq(rest, SV("/drop"))) {
        if (exchange_is_method(x, SV("POST"))) post_dead(x, sv_eq(rest, SV("/drop")));
    } else {
        http_resp_set(x->resp, 404, SV("application/json"),
                      SV("{\"error\":\"known here: /dead /dead/retry /dead/drop\"}"));
    }
}
