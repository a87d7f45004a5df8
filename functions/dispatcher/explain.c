#include "functions/dispatcher/explain_impl.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/memory.h"

struct explain *explain_new(struct strview incident)
{
    struct explain *x = mem_zalloc(1, sizeof(*x));
    x->incident = arena_copy(&x->arena, incident);
    return x;
}

void explain_free(struct explain *x)
{
    if (x == NULL) return;
    free(x->items);
    arena_release(&x->arena);
    free(x);
}

void explain_at(struct explain *x, int64_t now_ns)
{
    if (now_ns > x->now_ns) x->now_ns = now_ns;
}

void explain_stopped(struct explain *x)
{
    x->is_stopped = true;
}

/* The stop belongs to no incident, and holds all of them up. */
static void note_stop(struct explain *x, const struct record *r)
{
    x->is_stopped = r->on;
    x->stopped_ns = r->time_ns;
    x->stopped_by = arena_copy(&x->arena, r->actor);
}

void explain_add(struct explain *x, uint64_t seq, const struct record *r)
{
    if (r->kind == RECORD_FREEZE) note_stop(x, r);
    explain_at(x, r->time_ns);
    if (!sv_eq(r->incident, x->incident)) return;
    if (x->n == EXPLAIN_RECORDS_MAX) {
        x->n_omitted++;
        return;
    }
    if (x->n == x->capacity) {
        x->capacity = x->capacity ? 2 * x->capacity : 32;
        x->items = mem_realloc(x->items, x->capacity * sizeof(*x->items));
    }
    struct explained *item = &x->items[x->n++];
    item->seq = seq;
    record_copy(r, &x->arena, &item->record);
}

/* ---- JSON pieces; what is empty is left out ---- */

static void put_text(json_t *o, const char *name, struct strview text)
{
    if (text.len > 0) (void)json_object_set_new(o, name, json_text(text));
}

static void put_time(json_t *o, const char *name, int64_t unix_ns)
{
    char text[RFC3339_LEN + 1];
    if (unix_ns == 0) return;
    rfc3339_format(unix_ns, text);
    (void)json_object_set_new(o, name, json_string(text));
}

static void put_json(json_t *o, const char *name, struct strview text)
{
    json_t *value = NULL;
    if (text.len > 0 && json_parse(text, JSON_DECODE_ANY, &value, NULL) == STATUS_OK)
        (void)json_object_set_new(o, name, value);
}

static void put_int(json_t *o, const char *name, int64_t n)
{
    if (n != 0) (void)json_object_set_new(o, name, json_integer(n));
}

static json_t *labels_json(const struct record_labels *labels)
{
    json_t *o = json_object();
    for (size_t i = 0; i < labels->n; i++)
        (void)json_object_setn_new_nocheck(o, labels->items[i].name.ptr, labels->items[i].name.len,
                                           json_text(labels->items[i].value));
    return o;
}

/* A person gave the act up. */
static bool is_dropped(const struct record *r)
{
    return r->kind == RECORD_OUTCOME && sv_eq(r->state, SV("dropped"));
}

/* ---- the parts ---- */

static json_t *alert_json(const struct record *r)
{
    json_t *o = json_object();
    put_text(o, "name", record_label(&r->labels, SV("alertname")));
    put_text(o, "source", r->source);
    put_text(o, "receiver", r->receiver);
    put_text(o, "generatorURL", r->generator_url);
    put_text(o, "trace", r->trace);
    put_time(o, "startsAt", r->starts_at_ns);
    put_time(o, "due", r->due_ns);
    put_time(o, "received", r->time_ns);
    (void)json_object_set_new(o, "labels", labels_json(&r->labels));
    (void)json_object_set_new(o, "annotations", labels_json(&r->annotations));
    return o;
}

static json_t *act_json(const struct record *r)
{
    json_t *o = json_object();
    put_text(o, "intent", r->intent);
    put_text(o, "purpose", r->purpose);
    put_text(o, "function", r->function);
    put_text(o, "target", r->target);
    put_int(o, "step", r->step);
    put_time(o, "decided", r->time_ns);
    put_time(o, "deadline", r->deadline_ns);
    put_json(o, "params", r->params);
    put_json(o, "gates", r->gates);
    put_json(o, "plan", r->detail);
    put_json(o, "facts", r->facts);
    (void)json_object_set_new(o, "retries", json_array());
    return o;
}

static json_t *outcome_json(const struct record *r)
{
    json_t *o = json_object();
    put_text(o, "state", r->state);
    put_text(o, "code", r->code);
    put_text(o, "message", r->message);
    put_text(o, "reason", r->reason);
    put_text(o, "undo", r->undo);
    put_int(o, "attempt", r->attempt);
    put_time(o, "time", r->time_ns);
    put_json(o, "detail", r->detail);
    put_json(o, "stages", r->stages);
    return o;
}

static json_t *refusal_json(const struct record *r)
{
    json_t *o = json_object();
    put_time(o, "time", r->time_ns);
    put_text(o, "gate", r->gate);
    put_text(o, "reason", r->reason);
    put_text(o, "mode", r->mode);
    put_text(o, "purpose", r->purpose);
    put_text(o, "function", r->function);
    put_text(o, "target", r->target);
    put_int(o, "step", r->step);
    put_json(o, "params", r->params);
    put_json(o, "gates", r->gates);
    put_json(o, "facts", r->facts);
    return o;
}

static json_t *verified_json(const struct record *r)
{
    json_t *o = json_object();
    put_time(o, "time", r->time_ns);
    (void)json_object_set_new(o, "ok", json_boolean(r->ok));
    put_text(o, "how", r->how);
    put_text(o, "function", r->function);
    put_int(o, "step", r->step);
    return o;
}

static json_t *escalated_json(const struct record *r)
{
    json_t *o = json_object();
    put_time(o, "time", r->time_ns);
    put_text(o, "reason", r->reason);
    put_text(o, "function", r->function);
    return o;
}

static json_t *note_json(const struct record *r)
{
    json_t *o = json_object();
    put_time(o, "time", r->time_ns);
    put_text(o, "actor", r->actor);
    put_text(o, "message", r->message);
    return o;
}

/* What a person did: put an act back, gave it up, ended the incident. */
static json_t *persons_json(const struct record *r)
{
    json_t *o = json_object();
    put_time(o, "time", r->time_ns);
    put_text(o, "actor", r->actor);
    put_text(o, "reason", r->reason);
    return o;
}

static json_t *find_act(const json_t *acts, struct strview intent)
{
    for (size_t i = json_array_size(acts); i > 0; i--)
        if (sv_eq(json_get_text(json_array_get(acts, i - 1), "intent"), intent))
            return json_array_get(acts, i - 1);
    return NULL;
}

/* ---- one line a record ---- */

static struct strview line_of_refusal(struct arena *a, const struct record *r)
{
    if (explain_is_shadow(r))
        return arena_printf(a, "would run %.*s on %.*s (shadow: nothing was done)", SV_ARG(r->function),
                            SV_ARG(r->target));
    return arena_printf(a, "%.*s refused by gate %.*s: %.*s", SV_ARG(r->function), SV_ARG(r->gate),
                        SV_ARG(r->reason));
}

static struct strview line_of_retry(struct arena *a, const struct record *r)
{
    char due[RFC3339_LEN + 1];
    if (r->actor.len > 0)
        return arena_printf(a, "%.*s has %.*s retried: it is decided on anew", SV_ARG(r->actor),
                            SV_ARG(r->function));
    rfc3339_format(r->due_ns, due);
    return arena_printf(a, "attempt %" PRId64 " ended without result (%.*s %.*s); again at %s", r->attempt,
                        SV_ARG(r->code), SV_ARG(r->reason), due);
}

static struct strview line_of_timer(struct arena *a, const struct record *r)
{
    char due[RFC3339_LEN + 1];
    rfc3339_format(r->due_ns, due);
    if (sv_eq(r->purpose, SV("verify"))) return arena_printf(a, "the alert has until %s to resolve", due);
    if (sv_eq(r->purpose, SV("hold")))
        return arena_printf(a, "no new alert of that name may come until %s", due);
    if (explain_is_follow_up(r)) return arena_printf(a, "the follow-up comes at %s", due);
    return arena_printf(a, "to be decided on again at %s", due);
}

static struct strview line_of_tick(struct arena *a, const struct record *r)
{
    char due[RFC3339_LEN + 1];
    rfc3339_format(r->due_ns, due);
    json_t *detail = NULL;
    long long n = 0;
    if (json_parse(r->detail, 0, &detail, NULL) == STATUS_OK)
        n = (long long)json_integer_value(json_object_get(detail, "skipped"));
    json_release(detail);
    if (n == 0) return arena_printf(a, "the schedule's time %.19sZ has come", due);
    return arena_printf(a, "the schedule's time %.19sZ has come; %lld before it were passed over", due, n);
}

static struct strview line_of(struct arena *a, const struct record *r)
{
    switch (r->kind) {
    case RECORD_SIGNAL:
        if (sv_eq(r->status, SV("resolved"))) return SV("the alert resolved");
        return arena_printf(a, "alert %.*s fires (%.*s)%s%.*s",
                            SV_ARG(record_label(&r->labels, SV("alertname"))), SV_ARG(r->source),
                            r->reason.len > 0 ? ": " : "", SV_ARG(r->reason));
    case RECORD_TICK:
        return line_of_tick(a, r);
    case RECORD_SEEN:
        return SV("the alert was seen again");
    case RECORD_EXPIRED:
        if (r->reason.len > 0)
            return arena_printf(a, "how the alert ended is not known: %.*s", SV_ARG(r->reason));
        return SV("the alert's source fell silent: how it ended is not known");
    case RECORD_INTENT:
        if (explain_is_escalation(r))
            return arena_printf(a, "a person is to be told by %.*s", SV_ARG(r->function));
        if (explain_is_follow_up(r))
            return arena_printf(a, "the follow-up: %.*s shall act on %.*s", SV_ARG(r->function),
                                SV_ARG(r->target));
        return arena_printf(a, "step %" PRId64 ": %.*s shall act on %.*s", r->step, SV_ARG(r->function),
                            SV_ARG(r->target));
    case RECORD_REFUSAL:
        return line_of_refusal(a, r);
    case RECORD_RETRY:
        return line_of_retry(a, r);
    case RECORD_OUTCOME:
        if (is_dropped(r))
            return arena_printf(a, "%.*s gives %.*s up: %.*s", SV_ARG(r->actor), SV_ARG(r->function),
                                SV_ARG(r->reason));
        return arena_printf(a, "%.*s: %.*s%s%.*s%s%.*s", SV_ARG(r->function), SV_ARG(r->state),
                            r->reason.len > 0 ? ", " : "", SV_ARG(r->reason), r->message.len > 0 ? ", " : "",
                            SV_ARG(r->message));
    case RECORD_TIMER:
        return line_of_timer(a, r);
    case RECORD_FIRED:
        return arena_printf(a, "the time for '%.*s' is over", SV_ARG(r->purpose));
    case RECORD_VERIFIED:
        return arena_printf(a, "%s %.*s", r->ok ? "yes, by" : "no,", SV_ARG(r->how));
    case RECORD_ESCALATED:
        return arena_printf(a, "needs a person: %.*s", SV_ARG(r->reason));
    case RECORD_CLOSED:
        return r->state;
    case RECORD_CLOSE:
        return arena_printf(a, "%.*s ends it: %.*s", SV_ARG(r->actor), SV_ARG(r->reason));
    case RECORD_NOTE:
        return arena_printf(a, "%.*s: %.*s", SV_ARG(r->actor), SV_ARG(r->message));
    default:
        return (struct strview){0};
    }
}

/* ---- all together ---- */

struct document {
    json_t *root, *acts, *refusals, *verification, *escalation, *notes, *undo, *timeline;
    struct arena arena;
};

static json_t *add_list(json_t *root, const char *name)
{
    json_t *list = json_array();
    (void)json_object_set_new(root, name, list);
    return list;
}

static void add_outcome(struct document *doc, const struct record *r)
{
    json_t *act = find_act(doc->acts, r->intent);
    if (act != NULL && is_dropped(r))
        (void)json_object_set_new(act, "dropped", persons_json(r));
    else if (act != NULL)
        (void)json_object_set_new(act, "outcome", outcome_json(r));
    if (r->undo.len > 0) (void)json_array_append_new(doc->undo, json_text(r->undo));
}

static void add_retry(struct document *doc, const struct record *r)
{
    json_t *act = find_act(doc->acts, r->intent);
    if (act != NULL && r->actor.len > 0) (void)json_object_set_new(act, "retried", persons_json(r));
    if (act == NULL || r->actor.len > 0) return;
    json_t *o = json_object();
    put_time(o, "time", r->time_ns);
    put_time(o, "due", r->due_ns);
    put_int(o, "attempt", r->attempt);
    put_text(o, "code", r->code);
    put_text(o, "reason", r->reason);
    (void)json_array_append_new(json_object_get(act, "retries"), o);
}

static void add_runbook(struct document *doc, const struct record *r)
{
    json_t *o = json_object_get(doc->root, "runbook");
    if (r->runbook.len == 0) return;
    if (o == NULL) {
        o = json_object();
        put_text(o, "name", r->runbook);
        put_text(o, "hash", r->runbook_hash);
        (void)json_object_set_new(doc->root, "runbook", o);
    }
    /* A tick names the runbook alone: what is decided on it has the rest. */
    if (json_object_get(o, "mode") == NULL) put_text(o, "mode", r->mode);
    if (json_object_get(doc->root, "target") == NULL) put_text(doc->root, "target", r->target);
}

static void add_part(struct document *doc, const struct record *r)
{
    bool is_start = r->kind == RECORD_TICK || (r->kind == RECORD_SIGNAL && sv_eq(r->status, SV("firing")));
    if (is_start && json_object_get(doc->root, "alert") == NULL)
        (void)json_object_set_new(doc->root, "alert", alert_json(r));
    if (r->kind == RECORD_SIGNAL && sv_eq(r->status, SV("resolved")))
        put_time(doc->root, "resolved", r->time_ns);
    if (json_object_get(doc->root, "fingerprint") == NULL) put_text(doc->root, "fingerprint", r->fingerprint);
    add_runbook(doc, r);
    if (r->kind == RECORD_INTENT) (void)json_array_append_new(doc->acts, act_json(r));
    if (r->kind == RECORD_RETRY) add_retry(doc, r);
    if (r->kind == RECORD_OUTCOME) add_outcome(doc, r);
    if (r->kind == RECORD_REFUSAL) (void)json_array_append_new(doc->refusals, refusal_json(r));
    if (r->kind == RECORD_VERIFIED) (void)json_array_append_new(doc->verification, verified_json(r));
    if (r->kind == RECORD_ESCALATED) (void)json_array_append_new(doc->escalation, escalated_json(r));
    if (r->kind == RECORD_NOTE) (void)json_array_append_new(doc->notes, note_json(r));
    if (r->kind == RECORD_CLOSE) (void)json_object_set_new(doc->root, "closing", persons_json(r));
    if (r->kind == RECORD_CLOSED) {
        (void)json_object_set_new(doc->root, "state", json_text(r->state));
        put_time(doc->root, "closed", r->time_ns);
    }
}

static void add_line(struct document *doc, const struct explained *item)
{
    json_t *o = json_object();
    (void)json_object_set_new(o, "seq", json_integer((json_int_t)item->seq));
    put_time(o, "time", item->record.time_ns);
    (void)json_object_set_new(o, "kind", json_string(record_kind_name(item->record.kind)));
    put_text(o, "purpose", item->record.purpose);
    put_text(o, "text", line_of(&doc->arena, &item->record));
    (void)json_array_append_new(doc->timeline, o);
}

enum status explain_json(const struct explain *x, json_t **ret_json, struct error *err)
{
    if (x->n == 0)
        return error_set(err, STATUS_NOT_FOUND, "no record names the incident '%.*s'",
                         SV_ARG(sv_sub(x->incident, 0, 100)));
    struct document doc = {.root = json_object()};
    put_text(doc.root, "incident", x->incident);
    (void)json_object_set_new(doc.root, "state", json_string("open"));
    doc.acts = add_list(doc.root, "acts");
    doc.refusals = add_list(doc.root, "refusals");
    doc.verification = add_list(doc.root, "verification");
    doc.escalation = add_list(doc.root, "escalation");
    doc.notes = add_list(doc.root, "notes");
    doc.undo = add_list(doc.root, "undo");
    doc.timeline = add_list(doc.root, "timeline");
    for (size_t i = 0; i < x->n; i++) {
        add_part(&doc, &x->items[i].record);
        add_line(&doc, &x->items[i]);
    }
    explain_put_standing(x, doc.root, &doc.arena);
    put_int(doc.root, "omitted", (int64_t)x->n_omitted);
    arena_release(&doc.arena);
    *ret_json = doc.root;
    return STATUS_OK;
}

enum status explain_read(struct journal_reader *reader, struct strview incident, json_t **ret_json,
                         struct error *err)
{
    struct explain *x = explain_new(incident);
    struct arena arena = {0};
    explain_at(x, clock_unix_ns());
    uint64_t seq = journal_reader_first_seq(reader);
    enum status s = STATUS_OK;
    if (seq == 0) seq = 1;
    for (size_t n = 1; s == STATUS_OK && n > 0;) {
        struct journal_entry *entries;
        arena_reset(&arena);
        s = journal_reader_read(reader, seq, 1000, true, &arena, &entries, &n, err);
        for (size_t i = 0; s == STATUS_OK && i < n; i++) {
            explain_add(x, entries[i].seq, entries[i].record);
            seq = entries[i].seq + 1;
        }
    }
    if (s == STATUS_OK) s = explain_json(x, ret_json, err);
    arena_release(&arena);
    explain_free(x);
    return s;
}
