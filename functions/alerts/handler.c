#include "functions/alerts/alerts.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/memory.h"
#include "functions/alerts/body.h"
#include "functions/alerts/intake.h"
#include "functions/alerts/reconcile.h"
#include "log/log.h"

/* A body that takes longer than 0.2 ms to read goes to a worker thread. */
#define INLINE_BYTES_MAX ((size_t)64 * 1024)
/* Alertmanager's default pipeline deadline is 10 s, and it should be able to try again within it. */
#define DURABLE_WAIT_NS    (5 * NS_PER_S)
#define EXPIRY_LOOK_MAX_NS (5 * NS_PER_S)
#define EXPIRY_LOOK_MIN_NS (100 * NS_PER_MS)

/* ---- answers ---- */

static enum status wait_durable(struct delivery *d, struct error *err)
{
    struct journal *j = d->in->journal;
    /* The store was reopened between two batches: our sequences may be others' now. */
    if (journal_generation(j) != d->generation)
        return error_set(err, STATUS_UNAVAILABLE, "the journal was reopened meanwhile");
    enum status s = journal_wait_durable(j, d->needed_seq, clock_monotonic_ns() + DURABLE_WAIT_NS, err);
    if (s != STATUS_OK) return s;
    int64_t durable_ns = d->own_seq ? journal_durable_unix_ns(j, d->own_seq) : 0;
    if (durable_ns != 0)
        metric_observe(d->in->durable_seconds, (double)(durable_ns - d->received_unix_ns) / (double)NS_PER_S);
    return STATUS_OK;
}

static void count_request(struct intake *in, int http_status)
{
    if (http_status == 202) {
        metric_add(in->accepted_requests, 1);
        return;
    }
    char code[12];
    (void)snprintf(code, sizeof(code), "%d", http_status);
    struct strview value = sv(code);
    metric_add(metrics_series(in->requests, &value), 1);
}

static void answer_error(const struct http_req *req, struct http_resp *resp, struct quiet *q,
                         const struct error *err)
{
    unsigned swallowed;
    http_resp_error(resp, req->arena, err);
    if (quiet_may_log(q, &swallowed))
        log_warn("alerts", "a delivery was not taken", LOG_INT("http_status", resp->status),
                 LOG_STR("error", err->message), LOG_SV("peer", req->peer),
                 LOG_INT("others_since_last", swallowed));
}

static void answer(struct delivery *d, struct http_resp *resp)
{
    struct buf text;
    /* An empty batch is one. What was not measured is no mistake of the sender. */
    bool is_taken = d->counts[RESULT_ACCEPTED] + d->counts[RESULT_DUPLICATE] > 0 || d->has_unmeasured ||
                    d->webhook.n_alerts == 0;
    buf_init(&text, (size_t)16 * ERROR_MESSAGE_MAX);
    buf_append(&text, SV("{\"accepted\":"));
    buf_append_u64(&text, d->counts[RESULT_ACCEPTED]);
    buf_append(&text, SV(",\"duplicate\":"));
    buf_append_u64(&text, d->counts[RESULT_DUPLICATE]);
    if (d->first_reason.len > 0) {
        buf_append(&text, SV(",\"error\":"));
        buf_append_json_string(&text, d->first_reason);
    }
    buf_append(&text, SV(",\"rejected\":"));
    buf_append_u64(&text, d->counts[RESULT_REJECTED]);
    buf_append(&text, SV("}\n"));
    http_resp_set(resp, is_taken ? 202 : 400, SV("application/json"), arena_copy(d->arena, buf_view(&text)));
    buf_release(&text);
    for (unsigned i = 0; i < RESULTS; i++)
        if (d->counts[i] > 0) metric_add(d->in->results[i], (double)d->counts[i]);
}

static void warn_of_what_is_missing(const struct delivery *d)
{
    unsigned swallowed;
    const struct webhook *w = &d->webhook;
    if (w->truncated_alerts > 0 && quiet_may_log(&d->in->truncated, &swallowed))
        log_warn("alerts", "the sender cut alerts off: set max_alerts to 0 in its receiver",
                 LOG_INT("truncated", w->truncated_alerts), LOG_SV("receiver", w->receiver),
                 LOG_INT("others_since_last", swallowed));
    if (w->n_rejected > 0 && quiet_may_log(&d->in->refused, &swallowed))
        log_warn("alerts", "alerts were rejected (see records of kind rejected)",
                 LOG_INT("rejected", w->n_rejected), LOG_INT("of", w->n_alerts),
                 LOG_SV("reason", d->first_reason), LOG_INT("others_since_last", swallowed));
}

/* ---- requests ---- */

struct decoding {
    const struct http_req *req;
    struct webhook webhook;
    enum status status;
    struct error err;
};

static void decode(void *arg)
{
    struct decoding *d = arg;
    d->status = body_decode(d->req, &d->webhook, &d->err);
}

static bool is_hex(struct strview s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!((s.ptr[i] >= '0' && s.ptr[i] <= '9') || (s.ptr[i] >= 'a' && s.ptr[i] <= 'f'))) return false;
    return true;
}

/* The trace id of W3C's traceparent (00-TRACE-PARENT-FLAGS); the empty view if that is malformed. */
static struct strview trace_of(const struct http_req *req)
{
    struct strview text = http_req_header(req, SV("traceparent")), trace = sv_sub(text, 3, 35);
    bool is_whole = text.len >= 55 && text.ptr[2] == '-' && text.ptr[35] == '-' && text.ptr[52] == '-' &&
                    (text.len == 55 || text.ptr[55] == '-');
    if (!is_whole || !is_hex(sv_sub(text, 0, 2)) || !is_hex(trace) || !is_hex(sv_sub(text, 36, 52)) ||
        !is_hex(sv_sub(text, 53, 55)))
        return (struct strview){NULL, 0};
    bool is_refused = sv_starts_with(text, SV("ff")) ||
                      sv_eq(trace, SV("00000000000000000000000000000000")) ||
                      sv_eq(sv_sub(text, 36, 52), SV("0000000000000000"));
    return is_refused ? (struct strview){NULL, 0} : trace;
}

static void handle_post(struct intake *in, const struct http_req *req, struct http_resp *resp)
{
    struct decoding decoding = {.req = req};
    if (req->body.len > INLINE_BYTES_MAX)
        work_run(decode, &decoding);
    else
        decode(&decoding);
    if (decoding.status != STATUS_OK) {
        answer_error(req, resp, &in->refused, &decoding.err);
        if (decoding.status == STATUS_UNIMPLEMENTED) resp->status = 415; /* an event format we cannot read */
        return;
    }
    struct delivery d = {.in = in,
                         .arena = req->arena,
                         .webhook = decoding.webhook,
                         .received_unix_ns = req->received_unix_ns,
                         .trace = trace_of(req)};
    struct error err = {0};
    enum status s = intake_take(&d, &err);
    if (s == STATUS_OK) s = wait_durable(&d, &err);
    if (s != STATUS_OK) {
        /* Whatever it was, the sender must come again: 503 is the one answer that makes Alertmanager retry at
         * once. */
        err.code = STATUS_UNAVAILABLE;
        if (err.message[0] == '\0')
            (void)error_set(&err, STATUS_UNAVAILABLE, "the platform is stopping (%s)", status_name(s));
        answer_error(req, resp, &in->failed, &err);
        return;
    }
    answer(&d, resp);
    warn_of_what_is_missing(&d);
    if (d.webhook.truncated_alerts > 0 && sv_eq(d.webhook.source, WEBHOOK_ALERTMANAGER))
        reconcile_wake(in->reconcile);
}

/* For `balm status`: whom we ask, and what became of it. */
static void handle_alertmanagers(const struct intake *in, const struct http_req *req, struct http_resp *resp)
{
    json_t *list = reconcile_json(in->reconcile);
    http_resp_set(resp, 200, SV("application/json"), json_canonical(req->arena, list));
    json_release(list);
}

static void handle(void *state, const struct http_req *req, struct http_resp *resp)
{
    struct intake *in = state;
    struct error err;
    if (sv_eq(req->path, SV("/alertmanagers")) && sv_eq(req->method, SV("GET"))) {
        handle_alertmanagers(in, req, resp);
        return;
    }
    if (!sv_eq(req->path, SV("/"))) {
        (void)error_set(&err, STATUS_NOT_FOUND, "nothing is here: alerts are posted to /");
        http_resp_error(resp, req->arena, &err);
    } else if (!sv_eq(req->method, SV("POST"))) {
        http_resp_set(resp, 405, SV("application/json"), SV("{\"error\":\"alerts are sent by POST\"}\n"));
        http_resp_header(resp, SV("allow"), SV("POST"));
    } else {
        handle_post(in, req, resp);
    }
    count_request(in, resp->status);
}

/* ---- leases ---- */

/* Not STATUS_OK only if the fiber has to end. */
static enum status expire(struct intake *in, int64_t now_ns)
{
    const struct episode *e;
    unsigned n = 0;
    enum status s = STATUS_OK;
    while (s == STATUS_OK && intake_is_current(in) &&
           (e = episodes_next_expired(in->episodes, now_ns, in->lease_ns)) != NULL) {
        if (intake_expire(in, e, now_ns, SV(""), SV("")) != STATUS_OK) break; /* the next look tries again */
        if (++n % INTAKE_BATCH_MAX == 0) s = fiber_yield();
    }
    if (n > 0)
        log_info("alerts", "alerts were not seen for their lease: closed as unknown", LOG_INT("alerts", n));
    return s;
}

/* Nothing expires within the first grace period, nor within one after the wall clock jumped: a sender whose
 * deliveries failed while we were down needs its group_interval to come again, and an alert that still fires
 * must not be closed just before it is repeated. */
static void expire_forever(void *arg)
{
    struct intake *in = arg;
    int64_t step_ns = in->lease_ns / 8;
    if (step_ns > EXPIRY_LOOK_MAX_NS) step_ns = EXPIRY_LOOK_MAX_NS;
    if (step_ns < EXPIRY_LOOK_MIN_NS) step_ns = EXPIRY_LOOK_MIN_NS;
    int64_t offset_ns = clock_unix_ns() - clock_monotonic_ns();
    int64_t next_ns = clock_monotonic_ns(), quiet_until_ns = next_ns + in->grace_ns;
    enum status s = STATUS_OK;
    while (s == STATUS_OK) {
        next_ns += step_ns;
        s = sleep_until(next_ns);
        if (s != STATUS_OK) break;
        int64_t now_ns = clock_monotonic_ns(), now_unix_ns = clock_unix_ns(),
                jump_ns = now_unix_ns - now_ns - offset_ns;
        if (jump_ns > CLOCK_JUMP_NS || jump_ns < -CLOCK_JUMP_NS) {
            log_warn("alerts", "the wall clock jumped: leases wait", LOG_INT("jump_ms", jump_ns / NS_PER_MS));
            quiet_until_ns = now_ns + in->grace_ns;
        }
        offset_ns += jump_ns; /* slewing is no jump, however long it goes on */
        next_ns = now_ns;
        if (now_ns >= quiet_until_ns) s = expire(in, now_unix_ns);
    }
}

/* ---- life cycle ---- */

static void on_collect(void *arg)
{
    const struct intake *in = arg;
    heard_collect(in->episodes);
}

static void register_metrics(struct intake *in)
{
    static const char *const results[RESULTS] = {"accepted", "duplicate", "rejected"};
    for (unsigned i = 0; i < RESULTS; i++) {
        struct strview value = sv(results[i]);
        in->results[i] = catalog_series(CATALOG_ALERTS, &value);
    }
    struct strview accepted = SV("202"), durable = SV("durable");
    in->requests = catalog_family(CATALOG_ALERTS_REQUESTS);
    in->accepted_requests = metrics_series(in->requests, &accepted);
    in->durable_seconds = catalog_series(CATALOG_STAGE, &durable);
}

static enum status start(const struct core_env *env, void **ret_state, struct error *err)
{
    if (env->repeat_interval_ns <= 0 || env->group_interval_ns <= 0)
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "alerts: repeat_interval and group_interval of the Alertmanager must be above 0");
    struct intake *in = mem_zalloc(1, sizeof(*in));
    enum status s = reconcile_new(env, in, &in->reconcile, err);
    if (s != STATUS_OK) {
        free(in);
        return s;
    }
    intake_init(in, env);
    register_metrics(in);
    metrics_on_collect(on_collect, in);
    *ret_state = in;
    return STATUS_OK;
}

static enum status ready(void *state, struct error *err)
{
    struct intake *in = state;
    enum status s = fiber_scope_spawn(&in->scope, expire_forever, in, err);
    return s == STATUS_OK ? reconcile_start(in->reconcile, err) : s;
}

static void stop(void *state, int64_t deadline_ns)
{
    (void)deadline_ns;
    struct intake *in = state;
    reconcile_free(in->reconcile);
    fiber_scope_cancel(&in->scope);
    fiber_scope_join(&in->scope);
    metrics_off_collect(on_collect, in);
    intake_release(in);
    free(in);
}

const struct core_function alerts_function = {
    .name = "alerts",
    .summary = "Takes alerts from Alertmanager, Grafana and as CloudEvents: durable before it answers",
    .auth = CORE_BEARER,
    .start = start,
    .ready = ready,
    .handle = handle,
    .stop = stop,
};
