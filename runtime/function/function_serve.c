#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/random.h"
#include "client/client_count.h"
#include "function/function_impl.h"
#include "function/openapi.h"
#include "function/secret.h"

#define TEXT_PLAIN SV("text/plain; charset=utf-8")
#define JSON_TYPE  SV("application/json")

/* ---- answers of the runtime's own ---- */

/* "made by the platform, not by the function": set on these only, queue workers retry by it (openfaas.md
 * §1.7). */
static void mark_internal(struct http_resp *resp, struct strview who)
{
    http_resp_header(resp, SV("x-openfaas-internal"), who);
}

static void answer_saturated(const struct function *f, struct arena *a, struct http_resp *resp)
{
    http_resp_set(resp, 429, SV("text/plain"),
                  arena_printf(a, "Concurrent request limit exceeded. Max concurrent requests: %lld\n",
                               (long long)f->cfg.max_inflight));
    mark_internal(resp, SV("faas-middleware"));
    http_resp_header(resp, SV("retry-after"), SV("1"));
}

static void answer_timeout(struct http_resp *resp)
{
    resp->status = 504;
    resp->body = SV("");
    mark_internal(resp, SV("of-watchdog"));
}

/* ---- health and readiness ---- */

static bool is_saturated(const struct function *f)
{
    return f->cfg.max_inflight > 0 && f->inflight >= f->cfg.max_inflight;
}

bool function_is_healthy(const struct function *f)
{
    if (!f->is_accepting || (f->def->is_ready != NULL && !f->def->is_ready())) return false;
    return f->lock_path[0] == '\0' || access(f->lock_path, F_OK) == 0;
}

static void note_probe(struct function *f)
{
    if (f->is_accepting || f->has_probe_seen_503) return;
    f->has_probe_seen_503 = true;
    f->last_traffic_ns = clock_monotonic_ns();
    fiber_event_set(&f->traffic);
}

static void serve_health(struct function *f, const struct http_req *req, struct http_resp *resp)
{
    if (!sv_eq(req->method, SV("GET"))) {
        resp->status = 405;
        http_resp_header(resp, SV("allow"), SV("GET"));
        return;
    }
    /* For `balm stop`: the signal has arrived, and so many invocations have not ended yet. */
    if (invocation_is_frozen())
        http_resp_header(resp, SV("x-balm-frozen"), arena_printf(req->arena, "%u", f->inflight));
    if (function_is_healthy(f)) {
        http_resp_set(resp, 200, TEXT_PLAIN, SV("OK"));
        return;
    }
    resp->status = 503;
    note_probe(f);
}

/* ---- time limits ---- */

/* X-Timeout: a Go duration that lowers exec_timeout; anything else is ignored, also bare seconds, which Go
 * does not take. */
static int64_t requested_limit_ns(const struct http_req *req)
{
    struct strview text = http_req_header(req, SV("x-timeout"));
    int64_t limit_ns = 0;
    uint64_t number;
    if (text.len == 0 || sv_parse_u64(text, &number) == STATUS_OK ||
        duration_parse(text, &limit_ns) != STATUS_OK)
        return 0;
    return limit_ns;
}

static int64_t earlier(int64_t a_ns, int64_t b_ns)
{
    if (a_ns == 0 || b_ns == 0) return a_ns + b_ns;
    return a_ns < b_ns ? a_ns : b_ns;
}

/* Monotonic; 0 for none. exec_timeout counts from the request's arrival: the events of a batch share it. */
static int64_t deadline_of(const struct function *f, const struct invocation *inv)
{
    int64_t now_ns = clock_monotonic_ns(), deadline_ns = 0;
    if (f->cfg.exec_timeout_ns > 0) {
        int64_t limit_ns = requested_limit_ns(inv->req);
        if (limit_ns == 0 || limit_ns > f->cfg.exec_timeout_ns) limit_ns = f->cfg.exec_timeout_ns;
        deadline_ns = inv->req->received_ns + limit_ns;
    }
    if (inv->deadline_unix_ns != 0)
        deadline_ns = earlier(deadline_ns, now_ns + inv->deadline_unix_ns - clock_unix_ns());
    return deadline_ns;
}

/* ---- calling the handler ---- */

static enum status decode_params(const struct function *f, struct invocation *inv, const void **ret_params,
                                 struct error *err)
{
    struct strview body = inv->req->body.len > 0 ? inv->req->body : SV("{}");
    json_t *json = NULL;
    if (f->def->params_bytes == 0) return STATUS_OK;
    enum status s = json_parse(body, JSON_REJECT_DUPLICATES, &json, err);
    if (s != STATUS_OK) return error_prefix(err, STATUS_INVALID_ARGUMENT, "parameters");
    void *params = arena_zalloc(inv->arena, f->def->params_bytes);
    s = f->def->decode(json, inv->arena, params, err);
    json_release(json);
    if (s == STATUS_OK) *ret_params = params;
    return s;
}

struct run {
    int64_t entered_unix_ns, left_unix_ns; /* wall clock, for the answer; 0: the handler was not entered */
    bool is_timeout;                       /* failed, and the time limit is over */
};

/* *err is filled whenever the status is not OK, with that status as its code. */
static enum status call_handler(const struct function *f, struct invocation *inv, struct result *result,
                                struct run *ret_run, struct error *err)
{
    const void *params = NULL;
    enum status s = decode_params(f, inv, &params, err);
    if (s != STATUS_OK) return s;
    int64_t deadline_ns = deadline_of(f, inv);
    (void)fiber_set_deadline(deadline_ns);
    fiber_set_local(inv);
    ret_run->entered_unix_ns = clock_unix_ns();
    s = f->def->handle(inv, params, result, err);
    ret_run->left_unix_ns = clock_unix_ns();
    fiber_set_local(NULL);
    (void)fiber_set_deadline(0);
    if (s == STATUS_OK) return s;
    ret_run->is_timeout = deadline_ns != 0 && clock_monotonic_ns() >= deadline_ns;
    if (err->code != s) (void)error_set(err, s, "the handler failed and gave no reason");
    return s;
}

static void log_failure(const struct function *f, const struct invocation *inv, const struct error *err)
{
    log_warn("function", "invocation failed", LOG_STR("function", f->def->name),
             LOG_SV("call_id", inv->call_id), LOG_SV("invocation_id", inv->intent),
             LOG_STR("code", status_name(err->code)), LOG_STR("error", err->message),
             LOG_BOOL("retry", err->can_retry));
}

/* ---- what came of it, as JSON ---- */

static json_t *answer_object(struct arena *a, const struct run *run, struct strview state,
                             struct strview message)
{
    json_t *answer = json_object();
    unsigned n_refused = client_take_refused_certificates();
    json_object_set_new(answer, "state", json_text(state));
    json_object_set_new(answer, "message", json_text(message));
    if (n_refused > 0) json_object_set_new(answer, "certificatesRefused", json_integer(n_refused));
    if (run->entered_unix_ns != 0) {
        json_object_set_new(answer, "entered", json_text(rfc3339_text(a, run->entered_unix_ns)));
        json_object_set_new(answer, "left", json_text(rfc3339_text(a, run->left_unix_ns)));
    }
    return answer;
}

static void answer_failed(struct invocation *inv, const struct run *run, const struct error *err,
                          struct http_resp *resp)
{
    json_t *answer = answer_object(inv->arena, run, SV("failed"), sv(err->message));
    json_object_set_new(answer, "code", json_text(sv(status_name(err->code))));
    json_object_set_new(answer, "retry", json_boolean(err->can_retry));
    int http_status = err->code == STATUS_CANCELLED ? 503 : status_to_http(err->code);
    http_resp_set(resp, http_status, JSON_TYPE, json_canonical(inv->arena, answer));
    if (run->is_timeout) {
        resp->status = 504;
        mark_internal(resp, SV("of-watchdog"));
    }
    json_decref(answer);
}

static void answer_result(struct invocation *inv, const struct run *run, const struct result *result,
                          struct http_resp *resp)
{
    static const char *const states[] = {
        [RESULT_DONE] = "done",
        [RESULT_UNCHANGED] = "unchanged",
        [RESULT_REFUSED] = "refused",
    };
    json_t *answer = answer_object(inv->arena, run, sv(states[result->state]), result->message);
    json_object_set_new(answer, "detail",
                        result->detail != NULL ? json_incref(result->detail) : json_object());
    if (result->undo.len > 0) json_object_set_new(answer, "undo", json_text(result->undo));
    http_resp_set(resp, 200, JSON_TYPE, json_canonical(inv->arena, answer));
    json_decref(answer);
}

/* ---- plain functions ---- */

static void answer_plain_failure(const struct function *f, const struct invocation *inv,
                                 const struct run *run, const struct error *err, struct http_resp *resp)
{
    if (run->is_timeout)
        answer_timeout(resp);
    else
        http_resp_error(resp, inv->arena, err);
    if (resp->status >= 500) log_failure(f, inv, err);
}

void function_answer_reply(const struct result *result, struct http_resp *resp)
{
    struct strview type =
        result->content_type.len > 0 ? result->content_type : SV("application/octet-stream");
    http_resp_set(resp, result->http_status != 0 ? result->http_status : 200, type, result->body);
    for (size_t i = 0; i < result->n_headers; i++)
        http_resp_header(resp, result->headers[i].name, result->headers[i].value);
}

/* Its status is out already: all that is left is to let nobody take the rest for whole. */
static void break_off(const struct function *f, const struct invocation *inv, const struct error *err,
                      struct http_resp *resp)
{
    http_resp_abort(resp);
    if (err->code != STATUS_CANCELLED) log_failure(f, inv, err);
}

/* resp->exchange is NULL where the answer becomes an event. */
static void serve_plain(struct function *f, struct invocation *inv, struct http_resp *resp)
{
    struct result result = {.arena = inv->arena, .parts = resp->exchange != NULL ? resp : NULL};
    struct run run = {0};
    struct error err = {0};
    enum status s = call_handler(f, inv, &result, &run, &err);
    if (result.collected.len > 0) result.body = arena_copy(inv->arena, buf_view(&result.collected));
    if (s != STATUS_OK && result.is_answered)
        break_off(f, inv, &err, resp);
    else if (s != STATUS_OK)
        answer_plain_failure(f, inv, &run, &err, resp);
    else if (result.state != RESULT_NONE)
        answer_result(inv, &run, &result, resp);
    else if (!result.is_answered)
        function_answer_reply(&result, resp);
    buf_release(&result.collected);
    json_release(result.detail);
}

/* ---- acting functions ---- */

/* Read when first needed, so that a secret that is mounted late is found; kept until exit. Empty: there is
 * none. */
static struct strview invocation_key(struct function *f, struct arena *a)
{
    struct strview key;
    if (f->key_hex[0] == '\0' && secret_read(a, INVOCATION_KEY_SECRET, &key, NULL) == STATUS_OK) {
        memcpy(f->key_hex, key.ptr, key.len); /* at most SECRET_READ_MAX */
        f->key_hex[key.len] = '\0';
        mem_wipe((char *)(uintptr_t)key.ptr, key.len);
    }
    return sv(f->key_hex);
}

static enum status admit(struct function *f, struct invocation *inv, struct error *err)
{
    enum status s = invocation_verify(inv->req, sv(f->def->name), invocation_key(f, inv->arena),
                                      clock_unix_ns(), inv, err);
    return s == STATUS_OK ? invocation_check(inv, err) : s;
}

static void serve_acting(struct function *f, struct invocation *inv, struct http_resp *resp)
{
    struct result result = {.arena = inv->arena};
    struct run run = {0};
    struct error err = {0};
    if (!sv_eq(inv->req->method, SV("POST"))) {
        (void)error_set(&err, STATUS_INVALID_ARGUMENT, "this function acts: it takes POST alone");
        http_resp_error(resp, inv->arena, &err);
        resp->status = 405;
        http_resp_header(resp, SV("allow"), SV("POST"));
        return;
    }
    enum status s = admit(f, inv, &err);
    if (s == STATUS_PERMISSION_DENIED) {
        http_resp_error(resp, inv->arena, &err);
        log_debug("function", "refused", LOG_SV("call_id", inv->call_id), LOG_STR("error", err.message));
        return;
    }
    if (s == STATUS_OK) s = call_handler(f, inv, &result, &run, &err);
    if (s == STATUS_OK && result.state == RESULT_NONE)
        s = error_set(&err, STATUS_INTERNAL, "%s returned without saying what came of it", f->def->name);
    if (s == STATUS_OK) {
        answer_result(inv, &run, &result, resp);
    } else {
        answer_failed(inv, &run, &err, resp);
        log_failure(f, inv, &err);
    }
    json_release(result.detail);
}

/* ---- routes ---- */

/* of-watchdog's line as fields. Without log_callid it is a debug line: one write a request costs more than
 * the request. */
static void log_access(const struct function *f, const struct invocation *inv, const struct http_resp *resp,
                       int64_t elapsed_ns)
{
    const struct http_req *req = inv->req;
    enum log_level level = f->cfg.log_callid ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG;
    if (level < f->cfg.log_level) return;
    if (sv_starts_with(http_req_header(req, SV("user-agent")), SV("kube-probe"))) return;
    struct strview call_id = http_req_header(req, SV("x-call-id"));
    log_write(level, "access", "request",
              LOG_FIELDS(LOG_SV("method", req->method), LOG_SV("uri", req->target),
                         LOG_INT("status", resp->status), LOG_INT("bytes", resp->body.len),
                         LOG_INT("duration_us", elapsed_ns / NS_PER_US),
                         LOG_SV("call_id", f->cfg.log_callid && call_id.len == 0 ? SV("none") : call_id)));
}

/* A version 4 UUID that is unique, not secret: a system call for each request would be 5 % of its cost. */
static struct strview new_call_id(struct arena *a)
{
    static struct random_seeded generator;
    static bool is_seeded;
    uint8_t bytes[16];
    char hex[2 * sizeof(bytes) + 1], *text = arena_alloc(a, UUID_LEN), *at = text;
    if (!is_seeded) random_bytes(&generator, sizeof(generator));
    is_seeded = true;
    for (size_t i = 0; i < sizeof(bytes); i += 8) {
        uint64_t word = random_seeded_next(&generator);
        memcpy(bytes + i, &word, 8);
    }
    bytes[6] = (uint8_t)((bytes[6] & 0x0f) | 0x40);
    bytes[8] = (uint8_t)((bytes[8] & 0x3f) | 0x80);
    hex_encode(bytes, sizeof(bytes), hex);
    for (size_t i = 0; i < sizeof(hex) - 1; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20) *at++ = '-';
        *at++ = hex[i];
    }
    return sv_n(text, UUID_LEN);
}

static void make_call_id(struct invocation *inv, struct http_resp *resp)
{
    inv->call_id = http_req_header(inv->req, SV("x-call-id"));
    if (inv->call_id.len > 0) return; /* the caller knows it: not echoed, as the gateway does */
    inv->call_id = new_call_id(inv->arena);
    http_resp_header(resp, SV("x-call-id"), inv->call_id);
}

/* Seconds with six decimals, as Go's %f; printf's takes as long as all the rest of an echo's answer. */
static struct strview seconds_text(struct arena *a, int64_t ns)
{
    char text[32], *at = text + sizeof(text);
    uint64_t us = ns > 0 ? (uint64_t)(ns / NS_PER_US) : 0;
    for (int digits = 0; us > 0 || digits < 7; digits++, us /= 10) {
        if (digits == 6) *--at = '.';
        *--at = (char)('0' + us % 10);
    }
    return arena_copy(a, sv_n(at, (size_t)(text + sizeof(text) - at)));
}

static void serve_function(struct function *f, const struct http_req *req, struct http_resp *resp)
{
    struct invocation inv = {.function = sv(f->def->name), .req = req, .arena = req->arena};
    make_call_id(&inv, resp);
    if (is_saturated(f)) {
        answer_saturated(f, req->arena, resp);
    } else if (function_take_key(f, &inv, resp)) {
        function_metrics_inflight(++f->inflight);
        function_serve_events(f, &inv, f->def->acts ? serve_acting : serve_plain, resp);
        function_metrics_inflight(--f->inflight);
        http_resp_header(resp, SV("x-duration-seconds"),
                         seconds_text(req->arena, clock_monotonic_ns() - req->received_ns));
    }
    int64_t now_ns = clock_monotonic_ns();
    function_metrics_count(req->method, resp->status, now_ns - req->received_ns);
    log_access(f, &inv, resp, now_ns - req->received_ns);
    f->last_traffic_ns = now_ns;
    if (!f->is_accepting) fiber_event_set(&f->traffic);
}

/* The function's own check: a GET of ready_path with the probe's headers, past limiter and metrics. */
static void serve_ready_path(struct function *f, const struct http_req *req, struct http_resp *resp)
{
    struct http_req probe = *req;
    struct invocation inv = {.function = sv(f->def->name), .req = &probe, .arena = req->arena};
    probe.target = sv(f->cfg.ready_path);
    probe.path = sv_sub(probe.target, 0, sv_find(probe.target, '?'));
    probe.query = sv_sub(probe.target, probe.path.len + 1, probe.target.len);
    inv.call_id = http_req_header(req, SV("x-call-id"));
    serve_plain(f, &inv, resp);
}

static void serve_ready(struct function *f, const struct http_req *req, struct http_resp *resp)
{
    if (!sv_eq(req->method, SV("GET")) || !function_is_healthy(f))
        serve_health(f, req, resp);
    else if (is_saturated(f))
        resp->status = 429;
    else if (f->cfg.ready_path != NULL)
        serve_ready_path(f, req, resp);
}

static bool is_reading(const struct http_req *req)
{
    return sv_eq(req->method, SV("GET")) || sv_eq(req->method, SV("HEAD"));
}

void function_serve(void *arg, const struct http_req *req, struct http_resp *resp)
{
    struct function *f = arg;
    bool is_knative_probe = f->cfg.knative_health && sv_eq(req->method, SV("GET"));
    if (sv_eq(req->path, SV("/_/health")) || (is_knative_probe && sv_eq(req->path, SV("/health/liveness"))))
        serve_health(f, req, resp);
    else if (sv_eq(req->path, SV("/_/ready")) ||
             (is_knative_probe && sv_eq(req->path, SV("/health/readiness"))))
        serve_ready(f, req, resp);
    else if (f->def->openapi_json != NULL && sv_eq(req->path, SV(OPENAPI_PATH)) && is_reading(req))
        http_resp_set(resp, 200, JSON_TYPE, sv(f->def->openapi_json));
    else if (!function_grants_webhook(f, req, resp))
        serve_function(f, req, resp);
    /* A kept connection would bring its next request to a closed listener's process. */
    if (!f->is_accepting) http_resp_header(resp, SV("connection"), SV("close"));
}
