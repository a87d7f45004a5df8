#include "functions/alerts/alerts.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/memory.h"
#include "functions/alerts/heard.h"
#include "functions/alerts/webhook.h"
#include "log/log.h"
#include "metrics/catalog.h"
#include "store/episode.h"
#include "store/journal.h"

#define SOURCE SV("alertmanager")

/* A body that takes longer than 0.2 ms to read goes to a worker thread. */
#define INLINE_BYTES_MAX ((size_t)64 * 1024)
/* Records of one append: followers decide on each while the loop stands still, about 20 us each. */
#define BATCH_MAX 64
/* An alert that begins anew ends its old episode too. */
#define RECORDS_PER_ALERT 2
/* Nor more than this of texts: encoding them, too, happens on the loop. */
#define BATCH_BYTES_MAX ((size_t)64 * 1024)
/* Alertmanager's default pipeline deadline is 10 s, and it should be able to try again within it. */
#define DURABLE_WAIT_NS    (5 * NS_PER_S)
#define EXPIRY_LOOK_MAX_NS (5 * NS_PER_S)
#define EXPIRY_LOOK_MIN_NS (100 * NS_PER_MS)
#define CLOCK_JUMP_NS      (5 * NS_PER_S) /* design §4: records */
#define LOG_EVERY_NS       (60 * NS_PER_S)

/* A log line that a sender can cause at will: one a minute, and how many were swallowed. */
struct quiet {
    int64_t next_ns;
    unsigned swallowed;
};

enum alert_result { RESULT_ACCEPTED, RESULT_DUPLICATE, RESULT_REJECTED, RESULTS };

struct intake {
    struct loop *loop;
    struct journal *journal;
    struct journal_follower follower;
    struct episodes *episodes;
    uint64_t folded_seq; /* the table is that of the journal up to here */
    int64_t lease_ns, grace_ns;
    struct fiber_scope scope; /* of the fiber that writes RECORD_EXPIRED */
    struct metric *results[RESULTS], *durable_seconds, *accepted_requests;
    struct metric_family *requests;
    struct heard heard;
    struct quiet refused, failed, truncated;
};

/* ---- the fold ---- */

static void on_record(struct journal_follower *f, const struct journal_entry *e)
{
    struct intake *in = container_of(f, struct intake, follower);
    episodes_apply(in->episodes, e->seq, e->record);
    if (e->record->kind == RECORD_SIGNAL || e->record->kind == RECORD_SEEN)
        heard_source(&in->heard, e->record->source, e->record->time_ns);
    in->folded_seq = e->seq;
}

static void on_reset(struct journal_follower *f, uint64_t durable_seq)
{
    (void)durable_seq; /* the past is shown again from its first record on */
    struct intake *in = container_of(f, struct intake, follower);
    episodes_free(in->episodes);
    in->episodes = episodes_new();
    in->folded_seq = 0;
}

/* A table that is behind (the past is being folded) would take known alerts for new and open ones for
 * resolved. */
static bool is_current(const struct intake *in)
{
    return journal_is_healthy(in->journal) && in->folded_seq == journal_last_seq(in->journal);
}

/* ---- one delivery ---- */

struct delivery {
    struct intake *in;
    const struct http_req *req;
    struct webhook webhook;
    struct strview trace;
    struct record *batch; /* not yet appended */
    size_t n_batch, batch_max;
    uint64_t generation; /* of the journal when the first alert was judged */
    uint64_t own_seq;    /* last record of this delivery; 0: none yet */
    uint64_t needed_seq; /* the answer relies on everything up to here */
    uint64_t counts[RESULTS];
    struct strview first_reason;
    bool is_table_full;
};

static void rely_on(struct delivery *d, uint64_t seq)
{
    if (seq > d->needed_seq) d->needed_seq = seq;
}

static enum status flush(struct delivery *d, struct error *err)
{
    if (d->n_batch == 0) return STATUS_OK;
    uint64_t last_seq;
    enum status s = journal_append(d->in->journal, d->batch, d->n_batch, &last_seq, err);
    if (s != STATUS_OK) return s;
    d->own_seq = last_seq;
    rely_on(d, last_seq);
    d->n_batch = 0;
    return STATUS_OK;
}

static bool is_in_batch(const struct delivery *d, struct strview fingerprint)
{
    for (size_t i = 0; i < d->n_batch; i++)
        if (sv_eq(d->batch[i].fingerprint, fingerprint)) return true;
    return false;
}

/* A record of this delivery in the batch; the caller adds what it is about. */
static struct record *add_record(struct delivery *d, enum record_kind kind)
{
    struct record *r = &d->batch[d->n_batch++];
    *r = (struct record){
        .kind = kind,
        .time_ns = d->req->received_unix_ns,
        .source = SOURCE,
        .function = SV("alerts"),
        .receiver = d->webhook.receiver,
        .group_key = d->webhook.group_key,
        .trace = d->trace,
    };
    return r;
}

static void add_rejected(struct delivery *d, const struct webhook_alert *alert, size_t index)
{
    struct buf detail;
    buf_init(&detail, (size_t)16 * WEBHOOK_EVIDENCE_BYTES_MAX);
    buf_append(&detail, SV("{\"evidence\":"));
    buf_append_json_string(&detail, alert->evidence);
    buf_append(&detail, SV(",\"index\":"));
    buf_append_u64(&detail, index);
    buf_append_char(&detail, '}');
    struct record *r = add_record(d, RECORD_REJECTED);
    r->reason = alert->reason;
    r->detail = arena_copy(d->req->arena, buf_view(&detail));
    buf_release(&detail);
    if (d->first_reason.len == 0) d->first_reason = alert->reason;
    d->counts[RESULT_REJECTED]++;
}

/* The incident of a signal: that of its episode, else a new one. Copied, because an episode's views end with
 * the next record. */
static struct strview incident_of(struct delivery *d, const struct webhook_alert *alert,
                                  const struct episode *e, bool is_new)
{
    if (e != NULL && !is_new) return arena_copy(d->req->arena, e->incident);
    char *id = arena_alloc(d->req->arena, INCIDENT_ID_MAX);
    incident_id(alert->fingerprint, alert->starts_at_ns, id);
    /* It fires still, or again, with a startsAt that has had its incident. */
    if (e != NULL && (alert->starts_at_ns <= e->starts_at_ns || sv_eq(e->incident, sv(id))))
        incident_id(alert->fingerprint, d->req->received_unix_ns, id);
    return sv(id);
}

static void add_signal(struct delivery *d, const struct webhook_alert *alert, const struct episode *e,
                       bool is_new)
{
    struct record *r = add_record(d, RECORD_SIGNAL);
    r->status = alert->is_firing ? SV("firing") : SV("resolved");
    r->incident = incident_of(d, alert, e, is_new);
    r->fingerprint = alert->fingerprint;
    r->fingerprint_computed = alert->fingerprint_computed;
    r->labels = alert->labels;
    r->annotations = alert->annotations;
    r->starts_at_ns = alert->starts_at_ns;
    r->ends_at_ns = alert->ends_at_ns;
    r->generator_url = alert->generator_url;
    d->counts[RESULT_ACCEPTED]++;
}

static void add_seen(struct delivery *d, const struct webhook_alert *alert, const struct episode *e)
{
    struct record *r = add_record(d, RECORD_SEEN);
    r->incident = arena_copy(d->req->arena, e->incident);
    r->fingerprint = alert->fingerprint;
    r->fingerprint_computed = alert->fingerprint_computed;
    r->starts_at_ns = alert->starts_at_ns;
}

/* The same alert, begun anew: the end in between was never told. */
static void add_expired(struct delivery *d, const struct webhook_alert *alert, const struct episode *e)
{
    struct record *r = add_record(d, RECORD_EXPIRED);
    r->incident = arena_copy(d->req->arena, e->incident);
    r->fingerprint = alert->fingerprint;
    r->fingerprint_computed = alert->fingerprint_computed;
    r->starts_at_ns = e->starts_at_ns;
    r->reason = SV("it began anew, and no resolve of this episode has come");
}

static enum status take_alert(struct delivery *d, const struct webhook_alert *alert, struct error *err)
{
    struct intake *in = d->in;
    if (is_in_batch(d, alert->fingerprint)) { /* twice in one body: the table must know the first one */
        enum status s = flush(d, err);
        if (s != STATUS_OK) return s;
    }
    const struct episode *e;
    const struct episode_alert asked = {.source = SOURCE,
                                        .fingerprint = alert->fingerprint,
                                        .fingerprint_computed = alert->fingerprint_computed,
                                        .is_firing = alert->is_firing,
                                        .starts_at_ns = alert->starts_at_ns,
                                        .ends_at_ns = alert->ends_at_ns};
    int64_t lease_ns = heard_lease(&in->heard, &alert->labels);
    switch (episodes_judge(in->episodes, &asked, d->req->received_unix_ns, lease_ns, &e)) {
    case EPISODE_RENEWED:
        add_expired(d, alert, e);
        add_signal(d, alert, e, true);
        return STATUS_OK;
    case EPISODE_NEW:
        /* Go on with the others: one that resolves makes room. */
        if (episodes_open_count(in->episodes) + d->n_batch >= EPISODES_MAX)
            d->is_table_full = true;
        else
            add_signal(d, alert, e, true);
        return STATUS_OK;
    case EPISODE_CLOSES:
    case EPISODE_UNKNOWN_RESOLVE:
        add_signal(d, alert, e, false);
        return STATUS_OK;
    case EPISODE_SEEN:
        add_seen(d, alert, e);
        break;
    case EPISODE_DUPLICATE:
    case EPISODE_STALE:
        break;
    }
    heard_source(&in->heard, SOURCE, d->req->received_unix_ns);
    rely_on(d, e->seq);
    d->counts[RESULT_DUPLICATE]++;
    return STATUS_OK;
}

/* Appends what is new, in batches; between two batches others get their turn. */
static enum status take_alerts(struct delivery *d, struct error *err)
{
    struct intake *in = d->in;
    const struct webhook *w = &d->webhook;
    d->generation = journal_generation(in->journal);
    d->batch_max = w->n_alerts < BATCH_MAX ? w->n_alerts : BATCH_MAX;
    d->batch = arena_alloc(d->req->arena, RECORDS_PER_ALERT * d->batch_max * sizeof(d->batch[0]));
    enum status s = STATUS_OK;
    size_t n = 0, bytes = 0; /* of this turn */
    for (size_t i = 0; i < w->n_alerts && s == STATUS_OK; i++) {
        if (n == 0 && !is_current(in))
            return error_set(err, STATUS_UNAVAILABLE, "the journal does not take records now");
        if (w->alerts[i].reason.len > 0)
            add_rejected(d, &w->alerts[i], i);
        else
            s = take_alert(d, &w->alerts[i], err);
        n++;
        bytes += w->alerts[i].bytes;
        bool is_last = i + 1 == w->n_alerts, is_turn = n == BATCH_MAX || bytes >= BATCH_BYTES_MAX;
        if (s == STATUS_OK && (is_last || is_turn)) s = flush(d, err);
        if (s == STATUS_OK && is_turn && !is_last) s = fiber_yield();
        if (is_turn) n = bytes = 0;
    }
    if (s == STATUS_OK && d->is_table_full)
        s = error_set(err, STATUS_UNAVAILABLE, "%d alerts are open, no more can be kept apart", EPISODES_MAX);
    return s;
}

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
        metric_observe(d->in->durable_seconds,
                       (double)(durable_ns - d->req->received_unix_ns) / (double)NS_PER_S);
    return STATUS_OK;
}

/* ---- answers ---- */

static bool may_log(struct quiet *q, unsigned *ret_swallowed)
{
    int64_t now_ns = clock_monotonic_ns();
    if (now_ns < q->next_ns) {
        q->swallowed++;
        return false;
    }
    *ret_swallowed = q->swallowed;
    *q = (struct quiet){.next_ns = now_ns + LOG_EVERY_NS};
    return true;
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
    if (may_log(q, &swallowed))
        log_warn("alerts", "a delivery was not taken", LOG_INT("http_status", resp->status),
                 LOG_STR("error", err->message), LOG_SV("peer", req->peer),
                 LOG_INT("others_since_last", swallowed));
}

static void answer(struct delivery *d, struct http_resp *resp)
{
    struct buf text;
    bool is_taken = d->counts[RESULT_ACCEPTED] + d->counts[RESULT_DUPLICATE] > 0;
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
    http_resp_set(resp, is_taken ? 202 : 400, SV("application/json"),
                  arena_copy(d->req->arena, buf_view(&text)));
    buf_release(&text);
    for (unsigned i = 0; i < RESULTS; i++)
        if (d->counts[i] > 0) metric_add(d->in->results[i], (double)d->counts[i]);
}

static void warn_of_what_is_missing(const struct delivery *d)
{
    unsigned swallowed;
    const struct webhook *w = &d->webhook;
    if (w->truncated_alerts > 0 && may_log(&d->in->truncated, &swallowed))
        log_warn("alerts", "the sender cut alerts off: set max_alerts to 0 in its receiver",
                 LOG_INT("truncated", w->truncated_alerts), LOG_SV("receiver", w->receiver),
                 LOG_INT("others_since_last", swallowed));
    if (w->n_rejected > 0 && may_log(&d->in->refused, &swallowed))
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
    d->status = webhook_decode(d->req->body, d->req->arena, &d->webhook, &d->err);
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
        return;
    }
    struct delivery d = {.in = in, .req = req, .webhook = decoding.webhook, .trace = trace_of(req)};
    struct error err = {0};
    enum status s = take_alerts(&d, &err);
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
}

static void handle(void *state, const struct http_req *req, struct http_resp *resp)
{
    struct intake *in = state;
    struct error err;
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

static enum status append_expired(struct intake *in, const struct episode *e, int64_t now_ns)
{
    /* The episode's views end when the record is folded; other followers read it after that. */
    struct arena a = {0};
    struct record r = {.kind = RECORD_EXPIRED,
                       .time_ns = now_ns,
                       .function = SV("alerts"),
                       .source = arena_copy(&a, e->source),
                       .fingerprint = arena_copy(&a, e->fingerprint),
                       .fingerprint_computed = arena_copy(&a, e->fingerprint_computed),
                       .incident = arena_copy(&a, e->incident),
                       .starts_at_ns = e->starts_at_ns};
    enum status s = journal_append(in->journal, &r, 1, NULL, NULL);
    arena_release(&a);
    return s;
}

/* Not STATUS_OK only if the fiber has to end. */
static enum status expire(struct intake *in, int64_t now_ns)
{
    const struct episode *e;
    unsigned n = 0;
    enum status s = STATUS_OK;
    while (s == STATUS_OK && is_current(in) &&
           (e = episodes_next_expired(in->episodes, now_ns, in->lease_ns)) != NULL) {
        if (append_expired(in, e, now_ns) != STATUS_OK) break; /* the next look tries again */
        if (++n % BATCH_MAX == 0) s = fiber_yield();
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
    in->loop = env->loop;
    in->journal = env->journal;
    in->lease_ns = 2 * env->repeat_interval_ns + env->group_interval_ns;
    in->grace_ns = 2 * env->group_interval_ns;
    in->episodes = episodes_new();
    in->follower = (struct journal_follower){.on_record = on_record, .on_reset = on_reset};
    fiber_scope_init(&in->scope);
    register_metrics(in);
    heard_init(&in->heard, env, in->lease_ns);
    metrics_on_collect(on_collect, in);
    journal_follow(in->journal, &in->follower);
    *ret_state = in;
    return STATUS_OK;
}

static enum status ready(void *state, struct error *err)
{
    struct intake *in = state;
    return fiber_scope_spawn(&in->scope, expire_forever, in, err);
}

static void stop(void *state)
{
    struct intake *in = state;
    fiber_scope_cancel(&in->scope);
    fiber_scope_join(&in->scope);
    journal_unfollow(in->journal, &in->follower);
    metrics_off_collect(on_collect, in);
    episodes_free(in->episodes);
    free(in);
}

const struct core_function alerts_function = {
    .name = "alerts",
    .summary = "Takes alerts from Alertmanager: durable before it answers, one signal an episode",
    .auth = CORE_BEARER,
    .start = start,
    .ready = ready,
    .handle = handle,
    .stop = stop,
};
