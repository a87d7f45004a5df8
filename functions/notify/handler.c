#include "notify.gen.h"

#include <inttypes.h>

#include "base/hash.h"
#include "config/quote.h"
#include "function/secret.h"

#define ATTEMPTS_MAX 6
#define ANSWER_MAX   (64 * 1024) /* read and, but for its start in a message, thrown away */
/* What is left of the deadline when we stop trying: our sentence tells more than the runtime's timeout. */
#define VERDICT_NS     (250 * NS_PER_MS)
#define GIVE_UP_NS     (30 * NS_PER_S) /* where nobody set a deadline */
#define UNIX_TEXT_MAX  24
#define SIGNATURE_TEXT (sizeof("sha256=") - 1 + 2 * SHA256_BYTES + 1)

/* The URL's path is a credential with most receivers, so only the host may be shown. */
static struct strview host_of(struct strview url)
{
    size_t scheme = sv_starts_with(url, SV("https://")) ? 8 : 7;
    struct strview rest = sv_sub(url, scheme, url.len);
    return sv_sub(rest, 0, sv_find(rest, '/'));
}

static void set_unless_empty(json_t *object, const char *name, struct strview text)
{
    if (text.len > 0) json_object_set_new(object, name, json_text(text));
}

static struct strview make_body(const struct invocation *inv, const struct notify_params *p)
{
    char time_text[RFC3339_LEN + 1];
    rfc3339_format(inv->intent_unix_ns, time_text);
    json_t *body = json_object();
    json_object_set_new(body, "intent", json_text(inv->intent));
    json_object_set_new(body, "time", json_string(time_text));
    json_object_set_new(body, "severity", json_text(p->severity));
    json_object_set_new(body, "title", json_text(p->title));
    set_unless_empty(body, "incident", inv->incident);
    set_unless_empty(body, "target", inv->target);
    set_unless_empty(body, "text", p->text);
    set_unless_empty(body, "link", p->link);
    struct strview text = json_canonical(inv->arena, body);
    json_decref(body);
    return text;
}

/* "sha256=" and the hex HMAC-SHA256 of "TIMESTAMP.BODY": of the very bytes that are sent, never of JSON
 * written again. */
static void sign(struct arena *a, struct strview key, struct strview timestamp, struct strview body,
                 char ret_text[SIGNATURE_TEXT])
{
    uint8_t mac[SHA256_BYTES];
    hmac_sha256(key, arena_printf(a, "%.*s.%.*s", SV_ARG(timestamp), SV_ARG(body)), mac);
    memcpy(ret_text, "sha256=", 7);
    hex_encode(mac, sizeof(mac), ret_text + 7);
}

static enum status post(struct invocation *inv, struct strview url, struct strview key, struct strview body,
                        struct http_reply *ret_reply, struct error *err)
{
    char timestamp[UNIX_TEXT_MAX], signature[SIGNATURE_TEXT];
    (void)snprintf(timestamp, sizeof(timestamp), "%" PRId64, clock_unix_ns() / NS_PER_S);
    sign(inv->arena, key, sv(timestamp), body, signature);
    const struct http_header headers[] = {
        {SV("content-type"), SV("application/json")}, {SV("user-agent"), SV("balm-notify")},
        {SV("x-balm-timestamp"), sv(timestamp)},      {SV("x-balm-signature"), sv(signature)},
        {SV("idempotency-key"), inv->intent},
    };
    int64_t left_ns =
        fiber_deadline() != 0 ? fiber_deadline() - VERDICT_NS - clock_monotonic_ns() : GIVE_UP_NS;
    const struct http_call call = {
        .method = SV("POST"),
        .url = url,
        .headers = headers,
        .n_headers = ARRAY_LEN(headers),
        .body = body,
        .timeout_ns = left_ns > NS_PER_MS ? left_ns : NS_PER_MS,
        .max_body_bytes = ANSWER_MAX,
        .max_attempts = ATTEMPTS_MAX,
        .is_idempotent = true, /* the receiver sees one idempotency key */
    };
    return http_request(&call, inv->arena, ret_reply, err);
}

/* The client's sentence may start with the URL: keep what comes after it. */
static enum status not_sent(struct strview url, enum status s, struct error *err)
{
    if (err == NULL) return s;
    bool can_retry = err->can_retry;
    const char *attempts = strstr(err->message, "(attempt ");
    bool has_url = attempts == NULL && sv_contains(sv(err->message), host_of(url));
    struct strview why = attempts != NULL ? sv(attempts) : has_url ? sv(status_name(s)) : sv(err->message);
    s = error_set(err, s, "webhook at %.*s: no answer: %.*s", SV_ARG(host_of(url)), SV_ARG(why));
    err->can_retry = can_retry;
    return s;
}

static enum status not_taken(struct strview host, const struct http_reply *reply, struct error *err)
{
    char shown[QUOTE_MAX];
    enum status s = status_from_http(reply->status);
    bool is_transient = s == STATUS_UNAVAILABLE || s == STATUS_DEADLINE_EXCEEDED;
    return error_set(err, is_transient ? STATUS_UNAVAILABLE : STATUS_FAILED_PRECONDITION,
                     "webhook at %.*s answered %d after %u attempts%s%s", SV_ARG(host), reply->status,
                     reply->attempts, reply->body.len > 0 ? ": " : "",
                     quote_text(sv_trim(reply->body), shown));
}

enum status notify_handle(struct invocation *inv, const struct notify_params *p, struct result *ret,
                          struct error *err)
{
    struct strview url, key;
    struct error why;
    /* Where to post comes from the operator alone: an alert must not choose who is told. */
    if (secret_read(inv->arena, "notify-url", &url, &why) != STATUS_OK ||
        secret_read(inv->arena, "notify-hmac-key", &key, &why) != STATUS_OK)
        return result_refused(ret, "nobody was told: %s; make the secrets notify-url and notify-hmac-key",
                              why.message);
    if (!param_pattern_matches(PARAM_URL, url))
        return result_refused(ret, "nobody was told: the secret notify-url is no http:// or https:// URL");
    struct strview host = host_of(url);
    struct http_reply reply;
    enum status s = invocation_check(inv, err);
    if (s != STATUS_OK) return s;
    s = post(inv, url, key, make_body(inv, p), &reply, err);
    if (s != STATUS_OK) return not_sent(url, s, err);
    if (reply.status < 200 || reply.status > 299) return not_taken(host, &reply, err);
    result_set_text(ret, "host", host);
    result_set_int(ret, "httpStatus", reply.status);
    result_set_int(ret, "attempts", reply.attempts);
    return result_done(ret, "%.*s was told (%d)", SV_ARG(host), reply.status);
}
