#include "functions/dispatcher/handler_impl.h"

#include "log/log.h"

#define ACTOR_MAX BRAKE_ACTOR_MAX
#define NOTE_MAX  4096

/* ---- who, and in which words ---- */

static bool has_control_characters(struct strview text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        bool is_c1 = c == 0xC2 && i + 1 < text.len && (unsigned char)text.ptr[i + 1] < 0xA0;
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F || is_c1) return true;
    }
    return false;
}

enum status exchange_words(const json_t *body, const char *name, size_t max, struct strview *ret_words,
                           struct error *err)
{
    struct strview words = json_get_text(body, name);
    if (sv_trim(words).len == 0 || words.len > max)
        return error_set(err, STATUS_INVALID_ARGUMENT, "%s must have 1 to %zu bytes, not %zu", name, max,
                         words.len);
    if (has_control_characters(words))
        return error_set(err, STATUS_INVALID_ARGUMENT, "%s has control characters", name);
    *ret_words = words;
    return STATUS_OK;
}

enum status exchange_body(const struct exchange *x, json_t **ret_body, struct strview *ret_actor,
                          struct error *err)
{
    json_t *body = NULL;
    enum status s = json_parse(x->req->body, 0, &body, err);
    if (s != STATUS_OK) return s;
    if (!json_is_object(body)) s = error_set(err, STATUS_INVALID_ARGUMENT, "the body must be a JSON object");
    if (s == STATUS_OK && exchange_words(body, "actor", ACTOR_MAX, ret_actor, err) != STATUS_OK)
        s = error_prefix(err, STATUS_INVALID_ARGUMENT, "who does this");
    if (s == STATUS_OK)
        *ret_body = body;
    else
        json_release(body);
    return s;
}

enum status exchange_append(const struct exchange *x, struct record *r, uint64_t *ret_seq, struct error *err)
{
    return dispatcher_append_durably(x->d, r, ret_seq, err);
}

/* ---- stop and resume ---- */

void steer_freeze(const struct exchange *x)
{
    struct error err;
    struct strview actor = {0};
    json_t *body = NULL;
    uint64_t seq = 0;
    enum status s = exchange_body(x, &body, &actor, &err);
    const json_t *on = json_object_get(body, "on");
    if (s == STATUS_OK && !json_is_boolean(on))
        s = error_set(&err, STATUS_INVALID_ARGUMENT, "on is missing: true stops acting, false resumes it");
    struct strview reason = json_get_text(body, "reason");
    if (s == STATUS_OK && reason.len > 0) s = exchange_words(body, "reason", BRAKE_REASON_MAX, &reason, &err);
    if (s == STATUS_OK)
        s = json_is_true(on) ? brake_stop(x->d, actor, reason, &seq, &err)
                             : brake_resume(x->d, actor, reason, &seq, &err);
    json_release(body);
    if (s == STATUS_OK)
        exchange_answer(
            x, json_pack("{s:b,s:I}", "on", dispatcher_state(x->d)->is_frozen, "seq", (json_int_t)seq));
    else
        exchange_fail(x, &err);
}

/* ---- one incident ---- */

void steer_note(const struct exchange *x)
{
    struct error err;
    struct record r = {.kind = RECORD_NOTE};
    json_t *body = NULL, *unused = NULL;
    uint64_t seq = 0;
    enum status s = exchange_body(x, &body, &r.actor, &err);
    if (s == STATUS_OK) s = exchange_words(body, "message", NOTE_MAX, &r.message, &err);
    if (s == STATUS_OK) s = exchange_incident(x, json_get_text(body, "incident"), &r.incident, &unused, &err);
    if (s == STATUS_OK) s = exchange_append(x, &r, &seq, &err);
    json_release(unused);
    json_release(body);
    if (s == STATUS_OK)
        exchange_answer(x, json_pack("{s:o,s:I}", "incident", json_text(r.incident), "seq", (json_int_t)seq));
    else
        exchange_fail(x, &err);
}

/* What it is about, so that the record says so by itself. */
static enum status describe_close(const struct exchange *x, struct record *r, struct error *err)
{
    struct arena *a = x->req->arena;
    const struct incident *inc = state_incident(dispatcher_state(x->d), r->incident);
    if (inc == NULL)
        return error_set(err, STATUS_FAILED_PRECONDITION, "incident %.*s is not open", SV_ARG(r->incident));
    if (inc->is_closing && !incident_is_overdue(inc, clock_unix_ns()))
        return error_set(err, STATUS_FAILED_PRECONDITION,
                         "incident %.*s is being closed already: its act is still under way",
                         SV_ARG(r->incident));
    r->fingerprint = arena_copy(a, inc->fingerprint);
    r->target = arena_copy(a, inc->target_name);
    r->runbook = arena_copy(a, inc->runbook->name);
    return STATUS_OK;
}

void steer_close(const struct exchange *x)
{
    struct error err;
    struct record r = {.kind = RECORD_CLOSE};
    json_t *body = NULL, *unused = NULL;
    uint64_t seq = 0;
    enum status s = exchange_body(x, &body, &r.actor, &err);
    if (s == STATUS_OK) s = exchange_words(body, "reason", REASON_MAX, &r.reason, &err);
    if (s == STATUS_OK) s = exchange_incident(x, json_get_text(body, "incident"), &r.incident, &unused, &err);
    if (s == STATUS_OK) s = describe_close(x, &r, &err);
    if (s == STATUS_OK) s = exchange_append(x, &r, &seq, &err);
    json_release(unused);
    json_release(body);
    if (s != STATUS_OK) {
        exchange_fail(x, &err);
        return;
    }
    const struct incident *inc = state_incident(dispatcher_state(x->d), r.incident);
    json_t *o = json_pack("{s:o,s:b,s:I}", "incident", json_text(r.incident), "closed", inc == NULL, "seq",
                          (json_int_t)seq);
    if (inc != NULL) (void)json_object_set_new(o, "intent", json_string(inc->intent));
    exchange_answer(x, o);
}
