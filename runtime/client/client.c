#include "client/client.h"

#include <assert.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/random.h"
#include "client/client_impl.h"

#define BODY_BYTES_DEFAULT ((size_t)1024 * 1024)
#define URL_BYTES_MAX      ((size_t)8192)
#define TIMEOUT_DEFAULT_NS (30 * NS_PER_S)
#define BACKOFF_FIRST_NS   NS_PER_S
#define BACKOFF_MAX_NS     (60 * NS_PER_S)

enum status client_preload(struct error *err)
{
    return client_curl_open(err);
}

bool client_is_repeatable(const struct http_call *call)
{
    return call->is_idempotent || call->method.len == 0 || sv_eq(call->method, SV("GET")) ||
           sv_eq(call->method, SV("HEAD"));
}

size_t client_max_body(const struct http_call *call)
{
    return call->max_body_bytes > 0 ? call->max_body_bytes : BODY_BYTES_DEFAULT;
}

struct strview client_describe(const struct http_call *call, struct arena *a)
{
    struct strview url = sv_sub(call->url, 0, sv_find(call->url, '?'));
    size_t host = sv_starts_with(url, SV("https://")) ? 8 : 7;
    size_t path = host + sv_find(sv_sub(url, host, url.len), '/');
    struct strview authority = sv_sub(url, host, path);
    size_t at = sv_find(authority, '@');
    if (at < authority.len) authority = sv_sub(authority, at + 1, authority.len);
    return arena_printf(a, "%.*s %.*s%.*s%.*s", SV_ARG(call->method.len > 0 ? call->method : SV("GET")),
                        SV_ARG(sv_sub(url, 0, host)), SV_ARG(sv_sub(authority, 0, 100)),
                        SV_ARG(sv_sub(sv_sub(url, path, url.len), 0, 100)));
}

/* ---- argument checks: nothing that a caller passes on may start a line of its own in the request ---- */

static bool has_control(struct strview s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] < 0x20 || s.ptr[i] == 0x7f) return true;
    return false;
}

static bool is_token(struct strview s)
{
    static const char others[] = "!#$%&'*+-.^_`|~";
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool is_alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_alnum && (c == '\0' || strchr(others, c) == NULL)) return false;
    }
    return s.len > 0;
}

static enum status check_url(struct strview url, struct error *err)
{
    if (!sv_starts_with(url, SV("http://")) && !sv_starts_with(url, SV("https://")))
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "HTTP call: the URL must start with http:// or https://");
    if (url.len > URL_BYTES_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT, "HTTP call: URL of %zu bytes, at most %zu are allowed",
                         url.len, URL_BYTES_MAX);
    if (has_control(url) || sv_find(url, ' ') < url.len)
        return error_set(err, STATUS_INVALID_ARGUMENT, "HTTP call: the URL has a space or control character");
    return STATUS_OK;
}

static enum status check_call(const struct http_call *call, struct error *err)
{
    enum status s = check_url(call->url, err);
    if (s != STATUS_OK) return s;
    if (call->method.len > 0 && !is_token(call->method))
        return error_set(err, STATUS_INVALID_ARGUMENT, "HTTP call: the method is no token");
    if (has_control(call->bearer_token))
        return error_set(err, STATUS_INVALID_ARGUMENT, "HTTP call: the bearer token has a control character");
    for (size_t i = 0; i < call->n_headers; i++) {
        if (is_token(call->headers[i].name) && !has_control(call->headers[i].value)) continue;
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "HTTP call: header %zu has an illegal name or a control character", i);
    }
    return STATUS_OK;
}

/* ---- retries ---- */

static bool is_transient_status(int http_status)
{
    return http_status == 408 || http_status == 429 || http_status == 502 || http_status == 503 ||
           http_status == 504;
}

static bool may_repeat(const struct http_call *call, enum status s, const struct error *why, int http_status)
{
    if (s == STATUS_OK) return client_is_repeatable(call) && is_transient_status(http_status);
    /* UNAVAILABLE of a call that is not repeatable means that nothing was sent, see transfer_failed(). */
    return s == STATUS_UNAVAILABLE && why->can_retry;
}

/* 1 s, 2 s, 4 s … each ±50 %, and not before the peer's Retry-After. */
static int64_t backoff_ns(unsigned n_failed, int64_t retry_after_s)
{
    int64_t base_ns = BACKOFF_FIRST_NS;
    for (unsigned i = 1; i < n_failed && base_ns < BACKOFF_MAX_NS; i++)
        base_ns *= 2;
    if (base_ns > BACKOFF_MAX_NS) base_ns = BACKOFF_MAX_NS;
    int64_t wait_ns = base_ns / 2 + (int64_t)random_below((uint64_t)base_ns);
    if (retry_after_s > 86400) retry_after_s = 86400;
    return wait_ns > retry_after_s * NS_PER_S ? wait_ns : retry_after_s * NS_PER_S;
}

static int64_t earliest_deadline(int64_t deadline_ns)
{
    int64_t own_ns = fiber_deadline();
    return own_ns != 0 && own_ns < deadline_ns ? own_ns : deadline_ns;
}

/* A peer may close a pooled connection in the moment we use it. That says nothing about the peer, so a
 * repeatable call goes out once more at once, and it counts as one attempt. */
static enum status attempt_fresh(const struct http_call *call, int64_t deadline_ns, struct arena *a,
                                 struct http_reply *ret_reply, struct client_hint *ret_hint,
                                 struct error *err)
{
    enum status s;
    if (client_plain_attempt(call, deadline_ns, a, ret_reply, ret_hint, &s, err)) return s;
    s = client_attempt(call, deadline_ns, a, ret_reply, ret_hint, err);
    if (s != STATUS_UNAVAILABLE || !ret_hint->was_stale || !client_is_repeatable(call)) return s;
    return client_attempt(call, deadline_ns, a, ret_reply, ret_hint, err);
}

enum status http_request(const struct http_call *call, struct arena *a, struct http_reply *ret_reply,
                         struct error *err)
{
    struct http_reply reply = {0};
    struct error why = {0};
    struct client_hint hint = {0};
    int64_t started_ns = clock_monotonic_ns();
    int64_t deadline_ns = started_ns + (call->timeout_ns > 0 ? call->timeout_ns : TIMEOUT_DEFAULT_NS);
    unsigned attempts = 0, max_attempts = call->max_attempts > 0 ? call->max_attempts : 1;
    assert(fiber_current() != NULL);
    enum status s = check_call(call, err);
    if (s != STATUS_OK) return s;
    for (;;) {
        s = attempt_fresh(call, deadline_ns, a, &reply, &hint, &why);
        attempts++;
        if (attempts >= max_attempts || !may_repeat(call, s, &why, reply.status)) break;
        int64_t again_ns = clock_monotonic_ns() + backoff_ns(attempts, hint.retry_after_s);
        if (again_ns >= earliest_deadline(deadline_ns))
            break; /* the last answer says more than a deadline would */
        enum status slept = sleep_until(again_ns);
        if (slept != STATUS_OK) {
            s = error_set(&why, slept, "cancelled while waiting for attempt %u", attempts + 1);
            break;
        }
    }
    if (s != STATUS_OK) {
        if (err != NULL) *err = why;
        return error_prefix(err, s, "%.*s (attempt %u of %u)", SV_ARG(client_describe(call, a)), attempts,
                            max_attempts);
    }
    reply.attempts = attempts;
    reply.elapsed_ns = clock_monotonic_ns() - started_ns;
    *ret_reply = reply;
    return STATUS_OK;
}
