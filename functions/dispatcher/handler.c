#include "functions/dispatcher/handler_impl.h"

#include <inttypes.h>

#include "functions/dispatcher/explain.h"
#include "functions/dispatcher/ids.h"
#include "functions/dispatcher/preview.h"
#include "functions/dispatcher/runbook_json.h"
#include "functions/dispatcher/status.h"

#define LIST_DEFAULT 100
/* So many alerts are previewed before others get their turn. */
#define PREVIEW_TURN 50

void exchange_answer(const struct exchange *x, json_t *moved)
{
    http_resp_set(x->resp, 200, SV("application/json"), json_canonical(x->req->arena, moved));
    json_decref(moved);
}

void exchange_fail(const struct exchange *x, const struct error *err)
{
    http_resp_error(x->resp, x->req->arena, err);
}

bool exchange_is_method(const struct exchange *x, struct strview method)
{
    if (sv_eq(x->req->method, method)) return true;
    http_resp_header(x->resp, SV("allow"), method);
    http_resp_set(x->resp, 405, SV("application/json"), SV("{\"error\":\"method not allowed\"}"));
    return false;
}

/* ---- reading ---- */

enum status exchange_limit(const struct exchange *x, uint64_t *ret_limit, struct error *err)
{
    struct strview text;
    uint64_t limit;
    if (!http_query_get(x->req, SV("limit"), &text)) return STATUS_OK;
    if (sv_parse_u64(text, &limit) != STATUS_OK || limit < 1 || limit > LIST_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT, "limit '%.*s' is no number from 1 to %d",
                         SV_ARG(sv_sub(text, 0, 50)), LIST_MAX);
    *ret_limit = limit;
    return STATUS_OK;
}

static void get_incidents(const struct exchange *x)
{
    struct strview state = SV("all");
    uint64_t limit = LIST_DEFAULT;
    struct error err;
    if (http_query_get(x->req, SV("state"), &state) && !sv_eq(state, SV("open")) &&
        !sv_eq(state, SV("closed")) && !sv_eq(state, SV("all"))) {
        error_set(&err, STATUS_INVALID_ARGUMENT, "state '%.*s' is none of open, closed, all",
                  SV_ARG(sv_sub(state, 0, 50)));
        exchange_fail(x, &err);
        return;
    }
    if (exchange_limit(x, &limit, &err) != STATUS_OK) {
        exchange_fail(x, &err);
        return;
    }
    exchange_answer(
        x, status_incidents(x->d, !sv_eq(state, SV("closed")), !sv_eq(state, SV("open")), (size_t)limit));
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
    for (size_t n = 1; s == STATUS_OK && n > 0;) {
        struct journal_entry *entries;
        arena_reset(&batch);
        s = journal_read_kept(x->d->env.journal, seq, 1000, true, &batch, &entries, &n, err);
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
        s = journal_read_kept(j, end - want, want, true, &batch, &entries, &n, err);
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
    explain_at(explained, clock_unix_ns());
    enum status s = read_incident(x, explained, id, err);
    if (x->d->is_braked || dispatcher_state(x->d)->is_frozen) explain_stopped(explained);
    if (s == STATUS_OK) s = explain_json(explained, ret_json, err);
    explain_free(explained);
    return s;
}

/* Open ones first, each the newest first: the order in which people mean them. Borrowed from the state. */
static struct strview *known_incidents(const struct exchange *x, size_t *ret_n)
{
    const struct state *s = dispatcher_state(x->d);
    struct strview *ids = arena_array(x->req->arena, s->n_incidents + CLOSED_MAX, sizeof(*ids));
    size_t n = 0;
    for (struct list *node = s->incidents_list.prev; node != &s->incidents_list; node = node->prev)
        ids[n++] = container_of(node, struct incident, node)->id;
    for (uint64_t i = s->n_closed; i > 0 && s->n_closed - i < CLOSED_MAX; i--)
        ids[n++] = s->closed[(i - 1) % CLOSED_MAX].id;
    *ret_n = n;
    return ids;
}

/* "0123456789abcdef-19a2b3c4d5e" (store/episode.h): only such a one is worth reading the journal for. */
static bool is_whole_id(struct strview id)
{
    return id.len > 17 && id.len < INCIDENT_ID_MAX && id.ptr[16] == '-';
}

enum status exchange_incident(const struct exchange *x, struct strview text, struct strview *ret_id,
                              json_t **ret_json, struct error *err)
{
    size_t n;
    struct error unread;
    const struct strview *known = known_incidents(x, &n);
    enum status s = ids_find(text, known, n, "incident", "balm incident list", ret_id, err);
    *ret_json = NULL;
    if (s == STATUS_NOT_FOUND && is_whole_id(text) &&
        explain_incident(x, text, ret_json, &unread) == STATUS_OK) {
        *ret_id = text;
        s = STATUS_OK;
    }
    if (s == STATUS_OK) *ret_id = arena_copy(x->req->arena, *ret_id);
    return s;
}

static void get_incident(const struct exchange *x, struct strview id)
{
    struct error err;
    json_t *json = NULL;
    enum status s =
        sv_eq(id, SV("last")) ? find_last_incident(x, &id, &err) : exchange_incident(x, id, &id, &json, &err);
    if (s == STATUS_OK && json == NULL) s = explain_incident(x, id, &json, &err);
    if (s == STATUS_OK)
        exchange_answer(x, json);
    else
        exchange_fail(x, &err);
}

static void get_runbook(const struct exchange *x, struct strview name)
{
    struct error err;
    json_t *json = NULL;
    if (runbook_show_json(x->d, name, x->req->arena, &json, &err) == STATUS_OK)
        exchange_answer(x, json);
    else
        exchange_fail(x, &err);
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
        exchange_fail(x, &err);
        return;
    }
    char now[RFC3339_LEN + 1];
    rfc3339_format(clock_unix_ns(), now);
    exchange_answer(x, json_pack("{s:o, s:b, s:s}", "alerts", alerts, "frozen",
                                 dispatcher_state(x->d)->is_frozen || x->d->is_braked, "time", now));
}

void dispatcher_handle(void *state, const struct http_req *req, struct http_resp *resp)
{
    const struct exchange x = {state, req, resp};
    struct strview path = req->path, prefix = SV("/incidents/"), runbooks = SV("/runbooks/");
    if (sv_eq(path, SV("/status"))) {
        if (exchange_is_method(&x, SV("GET"))) exchange_answer(&x, status_json(x.d));
    } else if (sv_eq(path, SV("/incidents"))) {
        if (exchange_is_method(&x, SV("GET"))) get_incidents(&x);
    } else if (sv_starts_with(path, prefix)) {
        if (exchange_is_method(&x, SV("GET"))) get_incident(&x, sv_sub(path, prefix.len, path.len));
    } else if (sv_eq(path, SV("/runbooks"))) {
        if (exchange_is_method(&x, SV("GET"))) exchange_answer(&x, runbook_list_json(x.d));
    } else if (sv_starts_with(path, runbooks)) {
        if (exchange_is_method(&x, SV("GET"))) get_runbook(&x, sv_sub(path, runbooks.len, path.len));
    } else if (sv_eq(path, SV("/explain"))) {
        if (exchange_is_method(&x, SV("POST"))) post_explain(&x);
    } else if (sv_eq(path, SV("/freeze"))) {
        if (exchange_is_method(&x, SV("POST"))) steer_freeze(&x);
    } else if (sv_eq(path, SV("/notes"))) {
        if (exchange_is_method(&x, SV("POST"))) steer_note(&x);
    } else if (sv_eq(path, SV("/close"))) {
        if (exchange_is_method(&x, SV("POST"))) steer_close(&x);
    } else if (sv_eq(path, SV("/dead")) || sv_starts_with(path, SV("/dead/"))) {
        dead_handle(&x, sv_sub(path, SV("/dead").len, path.len));
    } else {
        http_resp_set(
            resp, 404, SV("application/json"),
            SV("{\"error\":\"known here: /status /incidents /incidents/ID /runbooks /runbooks/NAME /explain /freeze /notes /close /dead\"}"));
    }
}
