/* The way into deployed functions: at once, or recorded and later (contracts/openfaas.md §1.10, §2.10,
 * §2.11). */
#include "gateway/gateway_impl.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/random.h"
#include "function/api_key.h"
#include "gateway/callback.h"
#include "log/log.h"
#include "metrics/catalog.h"

#define ASYNC_BODY_MAX   (512 * 1024) /* a record holds the body in base64, and RECORD_BYTES_MAX is 1 MiB */
#define EXTRA_HEADERS    4
#define FORWARD_ATTEMPTS 3
#define FORWARD_AGAIN_NS (250 * NS_PER_MS)
#define CALL_ID_MAX      128
#define METHODS          "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
#define DURABLE_WAIT_NS  (30 * NS_PER_S)

/* NAME[/path]: the function and what it shall see as its target. */
struct function_target {
    struct strview name, target;
    bool has_key; /* the call has shown an API key of it, which goes no further */
};

static struct function_target split_target(const struct http_req *req, struct strview rest)
{
    struct function_target t = {.name = sv_sub(rest, 0, sv_find(rest, '/'))};
    struct strview path = sv_sub(rest, t.name.len, rest.len);
    if (path.len == 0) path = SV("/");
    t.target =
        req->query.len > 0 ? arena_printf(req->arena, "%.*s?%.*s", SV_ARG(path), SV_ARG(req->query)) : path;
    return t;
}

static void answer_text(const struct http_req *req, struct http_resp *resp, int status, const char *sentence)
{
    http_resp_set(resp, status, SV("text/plain; charset=utf-8"), arena_printf(req->arena, "%s\n", sentence));
    http_resp_header(resp, SV("x-content-type-options"), SV("nosniff"));
}

/* An error that is ours and not the function's carries X-OpenFaaS-Internal, so that a caller knows that it
 * may try again. */
static void answer_error(const struct http_req *req, struct http_resp *resp, const struct error *err)
{
    int status = err->code == STATUS_UNKNOWN ? 502 : status_to_http(err->code);
    answer_text(req, resp, status, err->message);
    if (status != 502) http_resp_header(resp, SV("x-openfaas-internal"), SV("proxy"));
    if (status == 503) http_resp_header(resp, SV("retry-after"), SV("1"));
}

static void count_invocation(struct deployment *d, int status, int64_t began_ns)
{
    if (d->durations == NULL) d->durations = catalog_series(CATALOG_FUNCTION_DURATION, &d->spec.name);
    if (d->counts == NULL || d->counted_status != status) {
        char code[16];
        (void)snprintf(code, sizeof(code), "%d", status);
        d->counts = catalog_series(CATALOG_FUNCTION_INVOCATIONS, (struct strview[]){sv(code), d->spec.name});
        d->counted_status = status;
    }
    metric_add(d->counts, 1);
    metric_observe(d->durations, (double)(clock_monotonic_ns() - began_ns) / 1e9);
}

/* X-Start-Time is ours to say; X-Call-Id and X-Forwarded-* are added where the caller sent none. The answer
 * carries the call id only if it was made here. */
static const struct http_header *add_headers(const struct http_req *req, struct http_resp *resp,
                                             size_t *ret_n)
{
    struct arena *a = req->arena;
    struct http_header *headers = arena_array(a, req->n_headers + EXTRA_HEADERS, sizeof(*headers));
    size_t n = 0;
    for (size_t i = 0; i < req->n_headers; i++)
        if (!sv_eq(req->headers[i].name, SV("x-start-time"))) headers[n++] = req->headers[i];
    char digits[SV_U64_MAX];
    struct strview start = arena_copy(a, sv_u64((uint64_t)req->received_unix_ns, digits));
    if (http_req_header(req, SV("x-call-id")).len == 0) {
        char id[UUID_LEN + 1];
        random_uuid(id);
        headers[n++] = (struct http_header){SV("x-call-id"), arena_copy(a, sv(id))};
        http_resp_header(resp, SV("x-call-id"), headers[n - 1].value);
    }
    headers[n++] = (struct http_header){SV("x-start-time"), start};
    http_resp_header(resp, SV("x-start-time"), start);
    if (http_req_header(req, SV("x-forwarded-host")).len == 0)
        headers[n++] = (struct http_header){SV("x-forwarded-host"), req->authority};
    if (http_req_header(req, SV("x-forwarded-for")).len == 0)
        headers[n++] = (struct http_header){SV("x-forwarded-for"), req->peer};
    *ret_n = n;
    return headers;
}

static struct deployment *find_open(struct gateway *g, struct strview name, struct error *err)
{
    struct deployment *d = supervisor_find(g, name);
    if (d == NULL) {
        (void)!error_set(err, STATUS_NOT_FOUND, "error finding function %.*s: it is not deployed",
                         SV_ARG(name));
        return NULL;
    }
    if (!d->info.acts) return d;
    (void)!error_set(
        err, STATUS_PERMISSION_DENIED,
        "function %.*s acts: it takes invocations signed for one intent, which a runbook makes; a direct call is decided on like an alert, and needs the login, which faas-cli invoke does not send by itself: -H 'Authorization: Basic ...'",
        SV_ARG(name));
    return NULL;
}

static bool is_known_method(struct strview method)
{
    static const char *const known[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (sv_eq(method, sv(known[i]))) return true;
    return false;
}

/* In words for anybody, without the socket's path. What may have run is no 503, which asks to be tried again.
 */
static enum status judge_failed(const struct deployment *d, enum status s, struct error *err)
{
    struct strview name = d->spec.name;
    log_debug("gateway", "call failed", LOG_SV("function", name), LOG_STR("error", err->message));
    if (s == STATUS_DEADLINE_EXCEEDED)
        return error_set(err, s, "function '%.*s' did not answer in time", SV_ARG(name));
    if (s == STATUS_UNAVAILABLE && err->can_retry)
        return error_set(err, s, "function '%.*s' could not be reached", SV_ARG(name));
    if (s == STATUS_UNAVAILABLE || s == STATUS_UNKNOWN || s == STATUS_RESOURCE_EXHAUSTED)
        return error_set(err, STATUS_UNKNOWN, "function '%.*s' gave no whole answer: it may have run",
                         SV_ARG(name));
    return s;
}

/* Could not even connect: the process has just died and its end is known in a moment, or its backlog is full.
 * Then again, perhaps with another one. */
static enum status forward(struct deployment *d, const struct forward_spec *spec, const struct http_req *req,
                           struct http_resp *resp, int *ret_status, struct error *err)
{
    if (d->is_remote) {
        enum status s = remote_answer(d, spec, req, resp, ret_status, err);
        return s == STATUS_OK ? s : judge_failed(d, s, err);
    }
    for (unsigned attempt = 1;; attempt++) {
        struct replica *r;
        enum status s = supervisor_acquire(d, spec->deadline_ns, &r, err);
        if (s != STATUS_OK) return s;
        s = http_forward_stream(r->upstream, spec, req, resp, ret_status, err);
        bool is_again = s == STATUS_UNAVAILABLE && err->can_retry && attempt < FORWARD_ATTEMPTS;
        if (is_again)
            is_again =
                fiber_event_wait(&r->exited, clock_monotonic_ns() + FORWARD_AGAIN_NS) != STATUS_CANCELLED;
        if (s == STATUS_DEADLINE_EXCEEDED) supervisor_check_hung(r);
        if (s == STATUS_UNAVAILABLE && err->can_retry) supervisor_check_deaf(r);
        supervisor_release(r, s == STATUS_OK);
        if (!is_again) return s == STATUS_OK ? s : judge_failed(d, s, err);
    }
}

/* With credentials: somebody wants it to act, and answers for it. */
static bool take_act(struct gateway *g, const struct http_req *req, struct strview name,
                     struct http_resp *resp)
{
    const struct deployment *d = supervisor_find(g, name);
    bool is_asked = d != NULL && d->info.acts && sv_eq(req->method, SV("POST")) &&
                    http_req_header(req, SV("authorization")).len > 0;
    for (unsigned i = 0; is_asked && i < g->cfg.n_core; i++) {
        if (g->cfg.core[i]->act == NULL) continue;
        struct strview function = arena_copy(req->arena, d->spec.name);
        struct strview actor =
            arena_printf(req->arena, "%.*s from %.*s", SV_ARG(g->secrets.user), SV_ARG(req->peer));
        if (gateway_has_login(g, req, resp))
            g->cfg.core[i]->act(g->cfg.core_states[i], function, actor, req, resp);
        return true;
    }
    return false;
}

void routes_function(struct gateway *g, const struct http_req *req, struct strview rest,
                     struct http_resp *resp)
{
    struct function_target t = split_target(req, rest);
    struct error err;
    if (!is_known_method(req->method)) {
        answer_text(req, resp, 405, METHODS);
        http_resp_header(resp, SV("allow"), SV(METHODS));
        return;
    }
    if (take_act(g, req, t.name, resp)) return;
    struct deployment *d = find_open(g, t.name, &err);
    if (d == NULL) {
        answer_error(req, resp, &err);
        return;
    }
    if (!gateway_has_api_key(d, req, resp)) return;
    struct forward_spec spec = {.method = req->method,
                                .target = t.target,
                                .authority = req->authority,
                                .body = req->body,
                                .deadline_ns = req->received_ns + deployment_call_timeout(d)};
    struct http_req keyed = *req;
    if (d->info.api_key_secret.len > 0)
        keyed.headers = api_key_replace(req, sv(d->gateway_key), &keyed.n_headers);
    spec.headers = add_headers(&keyed, resp, &spec.n_headers);
    int status = 0;
    d->users++;
    enum status s = forward(d, &spec, req, resp, &status, &err);
    if (s != STATUS_OK) answer_error(req, resp, &err);
    count_invocation(d, s == STATUS_OK ? status : resp->status, req->received_ns);
    d->users--;
}

/* ---- recorded first ---- */

static bool is_kept(struct strview name)
{
    static const char *const dropped[] = {
        "authorization", "connection",        "content-length", "host",      "keep-alive",    "te",
        "trailer",       "transfer-encoding", "upgrade",        "x-call-id", "x-callback-url"};
    for (size_t i = 0; i < ARRAY_LEN(dropped); i++)
        if (sv_eq(name, sv(dropped[i]))) return false;
    return !sv_starts_with(name, SV("proxy-"));
}

static struct strview encode_headers(const struct http_req *req, bool has_key, struct strview call_id)
{
    json_t *object = json_object();
    for (size_t i = 0; i < req->n_headers; i++) {
        const struct http_header *h = &req->headers[i];
        if (has_key && sv_eq(h->name, SV(API_KEY_HEADER))) continue;
        if (is_kept(h->name) && sv_is_utf8(h->name) && sv_is_utf8(h->value))
            (void)json_object_setn_new(object, h->name.ptr, h->name.len, json_text(h->value));
    }
    (void)json_object_set_new(object, "x-call-id", json_text(call_id));
    struct strview text = json_canonical(req->arena, object);
    json_release(object);
    return text;
}

static struct strview encode_body(const struct http_req *req)
{
    if (req->body.len == 0) return sv(NULL);
    unsigned char *out = arena_alloc(req->arena, (req->body.len + 2) / 3 * 4 + 1);
    int n = EVP_EncodeBlock(out, (const unsigned char *)req->body.ptr, (int)req->body.len);
    return sv_n((char *)out, (size_t)n);
}

/* The record's identity is made here: a caller that chose it could name somebody else's intent. Its own call
 * id is a header like others. */
static enum status record_call(struct gateway *g, const struct http_req *req, const struct function_target *t,
                               struct strview name, const char *intent, struct strview call_id,
                               struct error *err)
{
    struct record call = {
        .kind = RECORD_CALL,
        .time_ns = req->received_unix_ns,
        .function = name,
        .intent = sv(intent),
        .method = req->method,
        .path = t->target,
        .headers = encode_headers(req, t->has_key, call_id),
        .callback = http_req_header(req, SV("x-callback-url")),
        .body_base64 = encode_body(req),
    };
    uint64_t seq;
    enum status s = journal_append(g->journal, &call, 1, &seq, err);
    if (s == STATUS_OK)
        s = journal_wait_durable(g->journal, seq, clock_monotonic_ns() + DURABLE_WAIT_NS, err);
    return s;
}

/* What makes a call impossible to record, in a sentence; NULL: nothing. */
static const char *find_fault(struct gateway *g, const struct http_req *req, const struct function_target *t,
                              int *ret_status)
{
    struct error err;
    struct strview callback = http_req_header(req, SV("x-callback-url"));
    struct strview call_id = http_req_header(req, SV("x-call-id"));
    *ret_status = 405;
    if (!sv_eq(req->method, SV("POST"))) return "asynchronous calls are POST only";
    *ret_status = 413;
    if (req->body.len > ASYNC_BODY_MAX) return "the body of an asynchronous call is limited to 512 KiB";
    *ret_status = 400;
    if (call_id.len > CALL_ID_MAX || !sv_is_utf8(call_id)) return "X-Call-Id: at most 128 bytes of UTF-8";
    if (!sv_is_utf8(t->target)) return "the path is not UTF-8";
    bool is_fine = callback.len == 0 || callback_check_url(g, callback, &err) == STATUS_OK;
    return is_fine ? NULL : arena_cstr(req->arena, sv(err.message));
}

static enum status admit_work(const struct gateway *g, struct strview name, struct error *err)
{
    enum status s = STATUS_OK;
    for (unsigned i = 0; i < g->cfg.n_core && s == STATUS_OK; i++)
        if (g->cfg.core[i]->admit_call != NULL)
            s = g->cfg.core[i]->admit_call(g->cfg.core_states[i], name, err);
    return s;
}

/* Its answer will be work as well: receivers that take nothing must not fill the queue. */
static enum status admit_call(const struct gateway *g, const struct http_req *req, struct strview name,
                              struct error *err)
{
    enum status s = admit_work(g, name, err);
    if (s != STATUS_OK || http_req_header(req, SV("x-callback-url")).len == 0) return s;
    return admit_work(g, arena_printf(req->arena, CALLBACK_FUNCTION_PREFIX "%.*s", SV_ARG(name)), err);
}

void routes_async_function(struct gateway *g, const struct http_req *req, struct strview rest,
                           struct http_resp *resp)
{
    struct function_target t = split_target(req, rest);
    struct error err;
    int status;
    const char *fault = find_fault(g, req, &t, &status);
    if (fault != NULL) {
        answer_text(req, resp, status, fault);
        if (status == 405) http_resp_header(resp, SV("allow"), SV("POST"));
        return;
    }
    struct deployment *d = find_open(g, t.name, &err);
    if (d != NULL && !gateway_has_api_key(d, req, resp)) return;
    if (d == NULL || admit_call(g, req, d->spec.name, &err) != STATUS_OK) {
        answer_error(req, resp, &err);
        return;
    }
    t.has_key = d->info.api_key_secret.len > 0;
    char intent[UUID_LEN + 1];
    struct strview call_id = http_req_header(req, SV("x-call-id"));
    random_uuid(intent);
    if (call_id.len == 0) call_id = arena_copy(req->arena, sv(intent));
    if (record_call(g, req, &t, arena_copy(req->arena, d->spec.name), intent, call_id, &err) != STATUS_OK) {
        answer_error(req, resp, &err);
        return;
    }
    resp->status = 202;
    http_resp_header(resp, SV("x-call-id"), call_id);
    http_resp_header(resp, SV("x-start-time"),
                     arena_printf(req->arena, "%lld", (long long)req->received_unix_ns));
}
