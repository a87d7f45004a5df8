#include "function/invocation.h"

#include <assert.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/list.h"
#include "cloudevents/cloudevents.h"

#define INVOCATION_TYPE SV("dev.balm.invocation")
/* A function that claims more is not believed. */
#define CERTIFICATES_REFUSED_MAX 1000

void invocation_derive_key(struct strview master, struct strview function, char ret_hex[65])
{
    hmac_derive_key(master, "balm-invocation-key-v1", function, ret_hex);
}

/* What is signed, as the texts that travel: nothing is parsed and written anew in between, so both ends hash
 * the same bytes. */
struct signed_part {
    struct strview function, intent, incident, target, epoch, attempt, time, deadline;
};

static enum status signature_of(const struct signed_part *p, struct strview key_hex, struct strview body,
                                struct arena *a, char ret_hex[SHA256_HEX + 1], struct error *err)
{
    const struct strview fields[] = {p->function, p->intent,  p->incident, p->target,
                                     p->epoch,    p->attempt, p->time,     p->deadline};
    struct strview lines[2 * ARRAY_LEN(fields) + 3] = {SV("balm-invocation-v1")};
    char body_hex[SHA256_HEX + 1];
    uint8_t mac[SHA256_BYTES];
    size_t n = 1;
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        /* A line feed inside a field would let one signature stand for two different invocations. */
        if (sv_find(fields[i], '\n') < fields[i].len)
            return error_set(err, STATUS_INVALID_ARGUMENT, "sign an invocation: a field has a line feed");
        lines[n++] = SV("\n");
        lines[n++] = fields[i];
    }
    sha256_hex(body, body_hex);
    lines[n++] = SV("\n");
    lines[n++] = sv(body_hex);
    hmac_sha256(key_hex, arena_join(a, lines, n), mac);
    hex_encode(mac, sizeof(mac), ret_hex);
    return STATUS_OK;
}

static void add_extension(struct cloudevent *e, struct strview name, struct strview value)
{
    if (value.len > 0) e->extensions[e->n_extensions++] = (struct http_header){.name = name, .value = value};
}

enum status invocation_sign(const struct invocation *inv, struct strview cluster, struct strview key_hex,
                            struct strview body, struct arena *a, struct http_header *ret_headers,
                            size_t *ret_n, struct error *err)
{
    struct signed_part p = {
        .function = inv->function,
        .intent = inv->intent,
        .incident = inv->incident,
        .target = inv->target,
        .epoch = arena_printf(a, "%llu", (unsigned long long)inv->epoch),
        .attempt = arena_printf(a, "%u", inv->attempt),
        .time = rfc3339_text(a, inv->intent_unix_ns),
        .deadline = rfc3339_text(a, inv->deadline_unix_ns),
    };
    char signature[SHA256_HEX + 1];
    if (inv->function.len == 0 || inv->intent.len == 0 || inv->deadline_unix_ns == 0)
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "sign an invocation: function, intent and deadline are needed");
    if (sv_trim(key_hex).len == 0)
        return error_set(err, STATUS_INVALID_ARGUMENT, "sign an invocation: the key is empty");
    enum status s = signature_of(&p, sv_trim(key_hex), body, a, signature, err);
    if (s != STATUS_OK) return s;

    struct cloudevent e = {
        .specversion = SV("1.0"),
        .id = p.intent,
        .type = INVOCATION_TYPE,
        .subject = p.target,
        .time = p.time,
        .source = arena_printf(a, "/balm/%.*s", SV_ARG(cluster)),
        .datacontenttype = SV("application/json"),
    };
    add_extension(&e, SV("balmincident"), p.incident);
    add_extension(&e, SV("balmfunction"), p.function);
    add_extension(&e, SV("balmepoch"), p.epoch);
    add_extension(&e, SV("balmattempt"), p.attempt);
    add_extension(&e, SV("balmdeadline"), p.deadline);
    add_extension(&e, SV("balmsignature"), arena_copy(a, sv_n(signature, SHA256_HEX)));
    return cloudevent_to_headers(&e, a, ret_headers, INVOCATION_HEADERS_MAX, ret_n, err);
}

static enum status read_numbers(const struct signed_part *p, struct invocation *inv, struct error *err)
{
    uint64_t attempt = 0;
    if (sv_parse_u64(p->epoch, &inv->epoch) != STATUS_OK || sv_parse_u64(p->attempt, &attempt) != STATUS_OK ||
        attempt > UINT32_MAX)
        return error_set(err, STATUS_PERMISSION_DENIED, "invocation: epoch or attempt is no number");
    inv->attempt = (unsigned)attempt;
    if (rfc3339_parse(p->time, &inv->intent_unix_ns) != STATUS_OK ||
        rfc3339_parse(p->deadline, &inv->deadline_unix_ns) != STATUS_OK || inv->deadline_unix_ns == 0)
        return error_set(err, STATUS_PERMISSION_DENIED, "invocation: time or deadline is no time");
    return STATUS_OK;
}

static enum status read_event(const struct http_req *req, const struct cloudevent **ret_event,
                              struct error *err)
{
    size_t n = 0;
    struct error why;
    if (cloudevent_mode(req) != CLOUDEVENT_BINARY)
        return error_set(
            err, STATUS_PERMISSION_DENIED,
            "this function acts: it takes only invocations that the platform signed for an intent");
    if (cloudevent_decode(req, ret_event, &n, &why) != STATUS_OK)
        return error_set(err, STATUS_PERMISSION_DENIED, "invocation: %s", why.message);
    if (!sv_eq((*ret_event)->type, INVOCATION_TYPE))
        return error_set(err, STATUS_PERMISSION_DENIED,
                         "this function acts: an event of type '%.*s' is no signed invocation",
                         SV_ARG(sv_sub((*ret_event)->type, 0, 64)));
    return STATUS_OK;
}

enum status invocation_verify(const struct http_req *req, struct strview function, struct strview key_hex,
                              int64_t now_unix_ns, struct invocation *ret_inv, struct error *err)
{
    const struct cloudevent *e = NULL;
    char signature[SHA256_HEX + 1];
    enum status s = read_event(req, &e, err);
    if (s != STATUS_OK) return s;
    assert(e != NULL);
    struct signed_part p = {
        .function = cloudevent_extension(e, SV("balmfunction")),
        .intent = e->id,
        .incident = cloudevent_extension(e, SV("balmincident")),
        .target = e->subject,
        .epoch = cloudevent_extension(e, SV("balmepoch")),
        .attempt = cloudevent_extension(e, SV("balmattempt")),
        .time = e->time,
        .deadline = cloudevent_extension(e, SV("balmdeadline")),
    };
    if (sv_trim(key_hex).len == 0)
        return error_set(err, STATUS_PERMISSION_DENIED,
                         "invocation: this function was given no key (secret '%s')", INVOCATION_KEY_SECRET);
    if (!sv_eq(p.function, function))
        return error_set(err, STATUS_PERMISSION_DENIED,
                         "invocation: signed for function '%.*s', this is '%.*s'",
                         SV_ARG(sv_sub(p.function, 0, 64)), SV_ARG(function));
    s = signature_of(&p, sv_trim(key_hex), req->body, req->arena, signature, err);
    if (s != STATUS_OK ||
        !sv_eq_constant_time(cloudevent_extension(e, SV("balmsignature")), sv_n(signature, SHA256_HEX)))
        return error_set(err, STATUS_PERMISSION_DENIED, "invocation: the signature does not match");

    struct invocation inv = *ret_inv;
    s = read_numbers(&p, &inv, err);
    if (s != STATUS_OK) return s;
    if (inv.deadline_unix_ns <= now_unix_ns)
        return error_set(err, STATUS_DEADLINE_EXCEEDED, "invocation: its deadline %.*s has passed",
                         SV_ARG(p.deadline));
    inv.intent = p.intent;
    inv.incident = p.incident;
    inv.target = p.target;
    *ret_inv = inv;
    return STATUS_OK;
}

/* ---- the answer ---- */

static int64_t time_of(const json_t *object, const char *key)
{
    int64_t unix_ns = 0;
    if (rfc3339_parse(json_get_text(object, key), &unix_ns) != STATUS_OK) return 0;
    return unix_ns;
}

/* Status and state must agree: a proxy's 502 around a body that says "done" is no success. */
static bool is_our_answer(int http_status, struct strview state)
{
    static const char *const states[] = {"done", "unchanged", "refused"};
    if (http_status != 200) return sv_eq(state, SV("failed"));
    for (size_t i = 0; i < ARRAY_LEN(states); i++)
        if (sv_eq(state, sv(states[i]))) return true;
    return false;
}

/* A service that knows nothing of balm: its HTTP status is the answer, its text the sentence. */
static void read_foreign(int http_status, struct strview body, struct arena *a, struct invocation_reply *r)
{
    enum status code = status_from_http(http_status);
    struct strview text = sv_trim(sv_sub(body, 0, 400));
    while (text.len > 0 && !sv_is_utf8(text))
        text.len--; /* cut inside a character, or bytes that are no text */
    r->message = text.len > 0 ? arena_copy(a, text)
                              : arena_printf(a, "HTTP %d %s", http_status, http_reason(http_status));
    if (code == STATUS_OK) {
        r->state = SV("done");
        return;
    }
    r->state = SV("failed");
    r->code = sv(status_name(code));
    r->can_retry = code == STATUS_UNAVAILABLE || code == STATUS_DEADLINE_EXCEEDED;
}

enum status invocation_parse_reply(int http_status, struct strview body, struct arena *a,
                                   struct invocation_reply *ret_reply, struct error *err)
{
    struct invocation_reply r = {.detail = SV("{}")};
    json_t *object = NULL;
    bool is_ours = json_parse(body, 0, &object, NULL) == STATUS_OK &&
                   is_our_answer(http_status, json_get_text(object, "state"));
    if (http_status < 100 || http_status > 599) {
        json_release(object);
        return error_set(err, STATUS_INVALID_ARGUMENT, "answer of an invocation: HTTP status %d",
                         http_status);
    }
    if (!is_ours) {
        read_foreign(http_status, body, a, &r);
    } else {
        const json_t *detail = json_object_get(object, "detail");
        r.state = arena_copy(a, json_get_text(object, "state"));
        r.message = arena_copy(a, json_get_text(object, "message"));
        r.undo = arena_copy(a, json_get_text(object, "undo"));
        r.code = arena_copy(a, json_get_text(object, "code"));
        if (json_is_object(detail)) r.detail = json_canonical(a, detail);
        r.entered_unix_ns = time_of(object, "entered");
        r.left_unix_ns = time_of(object, "left");
        r.can_retry = json_is_true(json_object_get(object, "retry"));
        json_int_t n_refused = json_integer_value(json_object_get(object, "certificatesRefused"));
        if (n_refused > 0 && n_refused <= CERTIFICATES_REFUSED_MAX)
            r.certificates_refused = (unsigned)n_refused;
    }
    json_release(object);
    *ret_reply = r;
    return STATUS_OK;
}
