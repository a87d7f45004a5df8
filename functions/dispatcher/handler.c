#include "functions/dispatcher/dispatcher_impl.h"
#include "functions/dispatcher/explain.h"
#include "functions/dispatcher/preview.h"
#include "functions/dispatcher/status.h"

#include <inttypes.h>

#include "log/log.h"

#define DURABLE_WAIT_NS   (10 * NS_PER_S)
#define LIST_DEFAULT      100
#define LIST_MAX          1000
#define ACTOR_MAX         200
#define NOTE_MAX          4096
#define INCIDENT_PATH_MAX 100
/* So many alerts are previewed before others get their turn. */
#define PREVIEW_TURN 50

struct exchange {
    struct dispatcher *d;
    const struct http_req *req;
    struct http_resp *resp;
};

static void answer(const struct exchange *x, json_t *moved)
{
    http_resp_set(x->resp, 200, SV("application/json"), json_canonical(x->req->arena, moved));
    json_decref(moved);
}

static void fail(const struct exchange *x, const struct error *err)
{
    http_resp_error(x->resp, x->req->arena, err);
}

static bool is_method(const struct exchange *x, struct strview method)
{
    if (sv_eq(x->req->method, method)) return true;
    http_resp_header(x->resp, SV("allow"), method);
    http_resp_set(x->resp, 405, SV("application/json"), SV("{\"error\":\"method not allowed\"}"));
    return false;
}

/* ---- reading ---- */

static void get_incidents(const struct exchange *x)
{
    struct strview text, state = SV("all");
    uint64_t limit = LIST_DEFAULT;
    struct error err;
    if (http_query_get(x->req, SV("state"), &state) && !sv_eq(state, SV("open")) &&
        !sv_eq(state, SV("closed")) && !sv_eq(state, SV("all"))) {
        error_set(&err, STATUS_INVALID_ARGUMENT, "state '%.*s' is none of open, closed, all",
                  SV_ARG(sv_sub(state, 0, 50)));
        fail(x, &err);
        return;
    }
    if (http_query_get(x->req, SV("limit"), &text) &&
        (sv_parse_u64(text, &limit) != STATUS_OK || limit < 1 || limit > LIST_MAX)) {
        error_set(&err, STATUS_INVALID_ARGUMENT, "limit '%.*s' is no number from 1 to %d",
                  SV_ARG(sv_sub(text, 0, 50)), LIST_MAX);
        fail(x, &err);
        return;
    }
    answer(x, status_incidents(x->d, !sv_eq(state, SV("closed")), !sv_eq(state, SV("open")), (size_t)limit));
}

/* Where its records begin: known for open and recently closed incidents, else from the first record kept. */
static uint64_t first_seq_of(const struct dispatcher *d, struct strview id)
{
    const struct state *s = dispatcher_state(d);
    const struct incident *inc = state_incident(s, id);
    if (inc != NULL) return inc->seq;
    for (size_t i = 0; i < CLOSED_MAX; i++)
        if (s->closed[i].text != NULL && sv_eq(s->closed[i].id, id)) return s->closed[i].seq;
    return journal_first_seq(d->env.journal);
}

static enum status read_incident(const struct exchange *x, struct explain *explained, struct strview id,
                                 struct error *err)
{
    uint64_t seq = first_seq_of(x->d, id);
    struct arena batch = {0};
    enum status s = STATUS_OK;
    if (seq < journal_first_seq(x->d->env.journal)) seq = journal_first_seq(x->d->env.journal);
    for (size_t n = 1; s == STATUS_OK && n > 0;) {
        struct journal_entry *entries;
        arena_reset(&batch);
        s = journal_read(x->d->env.journal, seq, 1000, true, &batch, &entries, &n, err);
        for (size_t i = 0; s == STATUS_OK && i < n; i++) {
            explain_add(explained, entries[i].seq, entries[i].record);
            seq = entries[i].seq + 1;
        }
    }
    arena_release(&batch);
    return s;
}

/* The incident of the newest record that belongs to one, looked for from the end. */
static enum status find_last_incident(const struct exchange *x, struct strview *ret_id, struct error *err)
{
    struct journal *j = x->d->env.journal;
    struct arena batch = {0};
    struct strview id = {0};
    enum status s = STATUS_OK;
    uint64_t first = journal_first_seq(j), end = journal_durable_seq(j) + 1;
    while (s == STATUS_OK && id.len == 0 && end > first) {
        struct journal_entry *entries;
        size_t n = 0, want = end - first < 1000 ? (size_t)(end - first) : 1000;
        arena_reset(&batch);
        s = journal_read(j, end - want, want, true, &batch, &entries, &n, err);
        for (size_t i = n; s == STATUS_OK && i > 0 && id.len == 0; i--)
            id = arena_copy(x->req->arena, entries[i - 1].record->incident);
        end -= want;
    }
    arena_release(&batch);
    if (s == STATUS_OK && id.len == 0)
        s = error_set(err, STATUS_NOT_FOUND, "the journal has no incident yet");
    *ret_id = id;
    return s;
}

static enum status explain_incident(const struct exchange *x, struct strview id, json_t **ret_json,
                                    struct error *err)
{
    struct explain *explained = explain_new(id);
    enum status s = read_incident(x, explained, id, err);
    if (s == STATUS_OK) s = explain_json(explained, ret_json, err);
    explain_free(explained);
    return s;
}

static void get_incident(const struct exchange *x, struct strview id)
{
    struct error err;
    json_t *json = NULL;
    enum status s = STATUS_OK;
    if (id.len == 0 || id.len > INCIDENT_PATH_MAX)
        s = error_set(&err, STATUS_NOT_FOUND, "no incident of that name");
    if (s == STATUS_OK && sv_eq(id, SV("last"))) s = find_last_incident(x, &id, &err);
    if (s == STATUS_OK) s = explain_incident(x, id, &json, &err);
    if (s == STATUS_OK)
        answer(x, json);
    else
        fail(x, &err);
}

/* ---- what would follow ---- */

static bool is_previewable(const struct record *r)
{
    return r->kind == RECORD_SIGNAL && r->cause == 0 &&
           (sv_eq(r->status, SV("firing")) || sv_eq(r->status, SV("resolved")));
}

/* One signal record a line, as the intake would write it. */
static enum status decode_signals(const struct exchange *x, struct record **ret_signals, size_t *ret_n,
                                  struct error *err)
{
    struct strview rest = x->req->body, line;
    size_t n = 0, n_lines = 1;
    for (size_t i = 0; i < rest.len; i++)
        n_lines += rest.ptr[i] == '\n';
    if (n_lines > PREVIEW_ALERTS_MAX + 1)
        return error_set(err, STATUS_INVALID_ARGUMENT, "more than %d alerts", PREVIEW_ALERTS_MAX);
    struct record *signals = arena_array(x->req->arena, n_lines, sizeof(*signals));
    while (sv_next(&rest, '\n', &line)) {
        if (line.len == 0) continue;
        enum status s = record_decode(line, x->req->arena, &signals[n], err);
        if (s == STATUS_OK && !is_previewable(&signals[n]))
            s = error_set(err, STATUS_INVALID_ARGUMENT, "no signal record, firing or resolved");
        if (s != STATUS_OK) return error_prefix(err, s, "line %zu", n + 1);
        n++;
        if (n % PREVIEW_TURN == 0 && (s = fiber_yield()) != STATUS_OK) return error_set(err, s, "cut");
    }
    *ret_signals = signals;
    *ret_n = n;
    return STATUS_OK;
}

/* Between two turns the state goes on; only if it is read anew altogether are its runbooks gone. */
static enum status preview_all(const struct exchange *x, const struct record *signals, size_t n,
                               json_t *alerts, struct error *err)
{
    struct dispatcher *d = x->d;
    if (!decider_is_active(d->decider))
        return error_set(err, STATUS_UNAVAILABLE,
                         "nothing is decided now: the journal does not take records");
    uint64_t generation = journal_generation(d->env.journal);
    struct preview *p = preview_new(dispatcher_state(d), signals, n, clock_unix_ns(), d->is_braked);
    enum status s = STATUS_OK;
    for (json_t *o; s == STATUS_OK && (o = preview_next(p, dispatcher_state(d))) != NULL;) {
        (void)json_array_append_new(alerts, o);
        if (json_array_size(alerts) % PREVIEW_TURN != 0) continue;
        if (fiber_yield() != STATUS_OK || journal_generation(d->env.journal) != generation)
            s = error_set(err, STATUS_UNAVAILABLE, "the journal is being read anew");
    }
    preview_free(p);
    return s;
}

static void post_explain(const struct exchange *x)
{
    struct error err;
    struct record *signals = NULL;
    size_t n = 0;
    json_t *alerts = json_array();
    enum status s = decode_signals(x, &signals, &n, &err);
    if (s == STATUS_OK) s = preview_all(x, signals, n, alerts, &err);
    if (s != STATUS_OK) {
        json_decref(alerts);
        fail(x, &err);
        return;
    }
    char now[RFC3339_LEN + 1];
    rfc3339_format(clock_unix_ns(), now);
    answer(x, json_pack("{s:o, s:b, s:s}", "alerts", alerts, "frozen",
                        dispatcher_state(x->d)->is_frozen || x->d->is_braked, "time", now));
}

/* ---- writing ---- */

static enum status parse_body(const struct exchange *x, json_t **ret_body, struct strview *ret_actor,
                              struct error *err)
{
    json_t *body = NULL;
    enum status s = json_parse(x->req->body, 0, &body, err);
    if (s != STATUS_OK) return s;
    if (!json_is_object(body)) s = error_set(err, STATUS_INVALID_ARGUMENT, "the body must be a JSON object");
    struct strview actor = json_get_text(body, "actor");
    if (s == STATUS_OK && (actor.len == 0 || actor.len > ACTOR_MAX))
        s = error_set(err, STATUS_INVALID_ARGUMENT, "actor is missing: who does this, in 1 to %d bytes",
                      ACTOR_MAX);
    if (s != STATUS_OK) {
        json_release(body);
        return s;
    }
    *ret_actor = actor;
    *ret_body = body;
    return STATUS_OK;
}

static enum status append_durably(struct dispatcher *d, struct record *r, uint64_t *ret_seq,
                                  struct error *err)
{
    r->time_ns = clock_unix_ns();
    r->tenant = d->env.tenant;
    r->cluster = d->env.cluster;
    enum status s = journal_append(d->env.journal, r, 1, ret_seq, err);
    return s == STATUS_OK
               ? journal_wait_durable(d->env.journal, *ret_seq, clock_monotonic_ns() + DURABLE_WAIT_NS, err)
               : s;
}

/* Stopping holds even where it cannot be recorded: first the brake, then the paper. Resuming is the other way
 * round. */
static enum status freeze(struct dispatcher *d, bool is_on, struct strview actor, uint64_t *ret_seq,
                          struct error *err)
{
    struct record r = {.kind = RECORD_FREEZE, .on = is_on, .actor = actor};
    if (is_on) {
        d->is_braked = true;
        queue_freeze(d->queue, true);
    }
    enum status s = append_durably(d, &r, ret_seq, err);
    if (s == STATUS_OK) {
        d->is_braked =
            dispatcher_state(d)->is_frozen; /* the last record says it, whoever else asked meanwhile */
        return dispatcher_apply_freeze(d, err);
    }
    if (!is_on) return s;
    struct error why;
    enum status frozen = d->env.invoker->freeze(d->env.invoker_arg, true, &why);
    log_error("dispatcher", "acting is stopped, but that is not recorded: a restart would resume",
              LOG_STR("error", err->message));
    return error_prefix(err, s,
                        frozen == STATUS_OK ? "acting is stopped, but not recorded"
                                            : "not recorded, and a bot may still act");
}

static void post_freeze(const struct exchange *x)
{
    struct error err;
    struct strview actor = {0};
    json_t *body = NULL;
    uint64_t seq = 0;
    enum status s = parse_body(x, &body, &actor, &err);
    const json_t *on = json_object_get(body, "on");
    if (s == STATUS_OK && !json_is_boolean(on))
        s = error_set(&err, STATUS_INVALID_ARGUMENT, "on is missing: true stops acting, false resumes it");
    if (s == STATUS_OK) s = freeze(x->d, json_is_true(on), actor, &seq, &err);
    json_release(body);
    if (s == STATUS_OK)
        answer(x, json_pack("{s:b,s:I}", "on", dispatcher_state(x->d)->is_frozen, "seq", (json_int_t)seq));
    else
        fail(x, &err);
}

static void post_note(const struct exchange *x)
{
    struct error err;
    struct strview actor = {0};
    json_t *body = NULL;
    uint64_t seq = 0;
    enum status s = parse_body(x, &body, &actor, &err);
    struct record r = {.kind = RECORD_NOTE,
                       .actor = actor,
                       .incident = json_get_text(body, "incident"),
                       .message = json_get_text(body, "message")};
    if (s == STATUS_OK && (r.incident.len == 0 || r.incident.len > INCIDENT_PATH_MAX))
        s = error_set(&err, STATUS_INVALID_ARGUMENT, "incident is missing or too long");
    if (s == STATUS_OK && (r.message.len == 0 || r.message.len > NOTE_MAX))
        s = error_set(&err, STATUS_INVALID_ARGUMENT, "message must have 1 to %d bytes", NOTE_MAX);
    if (s == STATUS_OK) s = append_durably(x->d, &r, &seq, &err);
    json_release(body);
    if (s == STATUS_OK)
        answer(x, json_pack("{s:I}", "seq", (json_int_t)seq));
    else
        fail(x, &err);
}

void dispatcher_handle(void *state, const struct http_req *req, struct http_resp *resp)
{
    const struct exchange x = {state, req, resp};
    struct strview path = req->path, prefix = SV("/incidents/");
    if (sv_eq(path, SV("/status"))) {
        if (is_method(&x, SV("GET"))) answer(&x, status_json(x.d));
    } else if (sv_eq(path, SV("/incidents"))) {
        if (is_method(&x, SV("GET"))) get_incidents(&x);
    } else if (sv_starts_with(path, prefix)) {
        if (is_method(&x, SV("GET"))) get_incident(&x, sv_sub(path, prefix.len, path.len));
    } else if (sv_eq(path, SV("/explain"))) {
        if (is_method(&x, SV("POST"))) post_explain(&x);
    } else if (sv_eq(path, SV("/freeze"))) {
        if (is_method(&x, SV("POST"))) post_freeze(&x);
    } else if (sv_eq(path, SV("/notes"))) {
        if (is_method(&x, SV("POST"))) post_note(&x);
    } else {
        http_resp_set(
            resp, 404, SV("application/json"),
            SV("{\"error\":\"known here: /status /incidents /incidents/ID /explain /freeze /notes\"}"));
    }
}
