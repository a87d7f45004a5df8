#include "functions/alerts/intake.h"

#include "base/clock.h"
#include "base/list.h"
#include "functions/alerts/events.h"
#include "functions/alerts/survey.h"

/* An alert that begins anew ends its old episode too. */
#define RECORDS_PER_ALERT 2
/* Nor more than this of texts: encoding them, too, happens on the loop. */
#define BATCH_BYTES_MAX ((size_t)64 * 1024)
#define LOG_EVERY_NS    (60 * NS_PER_S)

bool quiet_may_log(struct quiet *q, unsigned *ret_swallowed)
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

/* ---- the fold ---- */

static void on_record(struct journal_follower *f, const struct journal_entry *e)
{
    struct intake *in = container_of(f, struct intake, follower);
    episodes_apply(in->episodes, e->seq, e->record);
    if (e->record->kind == RECORD_SIGNAL && e->record->detail.len > 0)
        event_ids_add(in->event_ids, events_key(e->record->detail));
    bool is_delivered = e->record->how.len == 0;
    if ((e->record->kind == RECORD_SIGNAL || e->record->kind == RECORD_SEEN) && is_delivered)
        heard_source(&in->heard, e->record->source, e->record->time_ns);
    in->folded_seq = e->seq;
}

static void on_reset(struct journal_follower *f, uint64_t durable_seq)
{
    (void)durable_seq; /* the past is shown again from its first record on */
    struct intake *in = container_of(f, struct intake, follower);
    episodes_free(in->episodes);
    in->episodes = episodes_new();
    event_ids_free(in->event_ids);
    in->event_ids = event_ids_new();
    in->folded_seq = 0;
}

static void on_save(const struct journal_follower *f, struct pack *p)
{
    const struct intake *in = container_of(f, const struct intake, follower);
    pack_u64(p, in->folded_seq);
    heard_save(&in->heard, p);
    episodes_save(in->episodes, p);
    pack_u64(p, event_ids_count(in->event_ids));
    for (size_t i = 0; i < event_ids_count(in->event_ids); i++)
        pack_u64(p, event_ids_at(in->event_ids, i));
}

static enum status on_load(struct journal_follower *f, unsigned version, struct unpack *u, struct error *err)
{
    (void)version;
    struct intake *in = container_of(f, struct intake, follower);
    in->folded_seq = unpack_u64(u);
    heard_load(&in->heard, u);
    enum status s = episodes_load(in->episodes, u, err);
    size_t n_events = s == STATUS_OK ? unpack_count(u) : 0;
    for (; n_events > 0 && !u->is_bad; n_events--)
        event_ids_add(in->event_ids, unpack_u64(u));
    if (s == STATUS_OK && !unpack_is_good(u)) s = error_set(err, STATUS_DATA_LOSS, "the intake is damaged");
    return s; /* on failure on_reset() follows */
}

bool intake_is_current(const struct intake *in)
{
    return journal_is_healthy(in->journal) && in->folded_seq == journal_last_seq(in->journal);
}

void intake_init(struct intake *in, const struct core_env *env)
{
    in->loop = env->loop;
    in->journal = env->journal;
    in->lease_ns = 2 * env->repeat_interval_ns + env->group_interval_ns;
    in->grace_ns = 2 * env->group_interval_ns;
    in->episodes = episodes_new();
    in->event_ids = event_ids_new();
    in->follower = (struct journal_follower){.on_record = on_record,
                                             .on_reset = on_reset,
                                             .name = "intake",
                                             .version = 1,
                                             .on_save = on_save,
                                             .on_load = on_load};
    fiber_scope_init(&in->scope);
    heard_init(&in->heard, env, in->lease_ns);
    journal_follow(in->journal, &in->follower);
}

void intake_release(struct intake *in)
{
    journal_unfollow(in->journal, &in->follower);
    episodes_free(in->episodes);
    event_ids_free(in->event_ids);
}

/* ---- alerts that came together ---- */

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
        .time_ns = d->received_unix_ns,
        .source = d->webhook.source,
        .function = SV("alerts"),
        .receiver = d->webhook.receiver,
        .group_key = d->webhook.group_key,
        .trace = d->trace,
        .how = d->how,
    };
    return r;
}

static void add_rejected(struct delivery *d, size_t index, struct strview reason)
{
    const struct webhook_alert *alert = &d->webhook.alerts[index];
    struct buf detail;
    buf_init(&detail, (size_t)16 * WEBHOOK_EVIDENCE_BYTES_MAX);
    buf_append(&detail, SV("{\"evidence\":"));
    buf_append_json_string(&detail, alert->evidence);
    buf_append(&detail, SV(",\"index\":"));
    buf_append_u64(&detail, index);
    buf_append_char(&detail, '}');
    struct record *r = add_record(d, RECORD_REJECTED);
    r->reason = reason;
    r->detail = arena_copy(d->arena, buf_view(&detail));
    buf_release(&detail);
    if (d->first_reason.len == 0) d->first_reason = reason;
    d->counts[RESULT_REJECTED]++;
}

/* The incident of a signal: that of its episode, else a new one. Copied, because an episode's views end with
 * the next record. */
static struct strview incident_of(struct delivery *d, const struct webhook_alert *alert,
                                  const struct episode *e, bool is_new)
{
    if (e != NULL && !is_new) return arena_copy(d->arena, e->incident);
    char *id = arena_alloc(d->arena, INCIDENT_ID_MAX);
    webhook_incident_id(d->webhook.source, alert->fingerprint, alert->starts_at_ns, id);
    /* It fires still, or again, with a startsAt that has had its incident. */
    if (e != NULL && (alert->starts_at_ns <= e->starts_at_ns || sv_eq(e->incident, sv(id))))
        webhook_incident_id(d->webhook.source, alert->fingerprint, d->received_unix_ns, id);
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
    r->reason = d->reason;
    r->detail = alert->detail;
    d->counts[RESULT_ACCEPTED]++;
}

static void add_seen(struct delivery *d, const struct webhook_alert *alert, const struct episode *e)
{
    struct record *r = add_record(d, RECORD_SEEN);
    r->incident = arena_copy(d->arena, e->incident);
    r->fingerprint = alert->fingerprint;
    r->fingerprint_computed = alert->fingerprint_computed;
    r->starts_at_ns = alert->starts_at_ns;
}

static void add_expired(struct delivery *d, const struct webhook_alert *alert, const struct episode *e,
                        struct strview reason)
{
    struct record *r = add_record(d, RECORD_EXPIRED);
    r->incident = arena_copy(d->arena, e->incident);
    r->fingerprint = alert->fingerprint;
    r->fingerprint_computed = alert->fingerprint_computed;
    r->starts_at_ns = e->starts_at_ns;
    r->reason = reason;
}

/* Nobody has said that it ended. The same is said again by the other half of a pair. */
static void take_silent_end(struct delivery *d, const struct webhook_alert *alert, const struct episode *e,
                            struct strview reason)
{
    if (e->state == EPISODE_OPEN) {
        add_expired(d, alert, e, reason);
        d->counts[RESULT_ACCEPTED]++;
    } else {
        rely_on(d, e->seq);
        d->counts[RESULT_DUPLICATE]++;
    }
}

/* Nobody knows how the target is, and nothing is done on account of it: of what is open, it says that Grafana
 * still holds it for firing; the rest is recorded as rejected, with the labels it came with. */
static bool take_unmeasured(struct delivery *d, size_t index, const struct episode *e,
                            enum episode_verdict verdict)
{
    const struct webhook_alert *alert = &d->webhook.alerts[index];
    if (alert->unmeasured.len == 0) return false;
    bool is_open = e != NULL && e->state == EPISODE_OPEN;
    if (!alert->is_firing) {
        if (verdict != EPISODE_CLOSES) return false; /* of nothing that is open: as any other */
        take_silent_end(d, alert, e, alert->unmeasured);
        return true;
    }
    if (verdict != EPISODE_NEW && verdict != EPISODE_RENEWED) return false;
    d->has_unmeasured = true;
    if (is_open) add_expired(d, alert, e, SV("it began anew, and no resolve of this episode has come"));
    add_rejected(d, index, alert->unmeasured);
    return true;
}

/* An event that came before, whatever has become of its episode since. */
static bool take_known_event(struct delivery *d, const struct webhook_alert *alert)
{
    if (!event_ids_has(d->in->event_ids, alert->event_key)) return false;
    rely_on(d, d->in->folded_seq);
    heard_source(&d->in->heard, d->webhook.source, d->received_unix_ns);
    d->counts[RESULT_DUPLICATE]++;
    return true;
}

/* Asking says nothing of the way by which deliveries come: the watchdog is not heard by it. */
static enum episode_verdict judge(const struct delivery *d, size_t index, const struct episode **ret_e)
{
    struct intake *in = d->in;
    const struct webhook_alert *alert = &d->webhook.alerts[index];
    const struct episode_alert asked = {.source = d->webhook.source,
                                        .fingerprint = alert->fingerprint,
                                        .fingerprint_computed = alert->fingerprint_computed,
                                        .is_firing = alert->is_firing,
                                        .starts_at_ns = alert->starts_at_ns,
                                        .ends_at_ns = alert->ends_at_ns};
    bool is_delivered = d->how.len == 0;
    int64_t lease_ns = is_delivered ? heard_lease(&in->heard, &alert->labels) : in->lease_ns;
    enum episode_verdict verdict = episodes_judge(in->episodes, &asked, d->received_unix_ns, lease_ns, ret_e);
    if (is_delivered && *ret_e != NULL)
        episodes_set_missing(in->episodes, *ret_e, 0); /* it says more than a list without it */
    return d->judge == NULL ? verdict : d->judge(d, index, verdict, *ret_e);
}

static enum status take_alert(struct delivery *d, size_t index, struct error *err)
{
    struct intake *in = d->in;
    const struct webhook_alert *alert = &d->webhook.alerts[index];
    if (is_in_batch(d, alert->fingerprint)) { /* twice in one body: the table must know the first one */
        enum status s = flush(d, err);
        if (s != STATUS_OK) return s;
    }
    if (take_known_event(d, alert)) return STATUS_OK;
    const struct episode *e;
    enum episode_verdict verdict = judge(d, index, &e);
    if (!alert->is_firing && e != NULL && survey_has_lapsed(e, alert->ends_at_ns)) {
        take_silent_end(d, alert, e,
                        SV("its source fell silent: Alertmanager ended it when it was to lapse"));
        return STATUS_OK;
    }
    if (take_unmeasured(d, index, e, verdict)) return STATUS_OK;
    switch (verdict) {
    case EPISODE_RENEWED:
        add_expired(d, alert, e, SV("it began anew, and no resolve of this episode has come"));
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
    if (d->how.len == 0) heard_source(&in->heard, d->webhook.source, d->received_unix_ns);
    if (e != NULL) rely_on(d, e->seq);
    d->counts[RESULT_DUPLICATE]++;
    return STATUS_OK;
}

enum status intake_take(struct delivery *d, struct error *err)
{
    struct intake *in = d->in;
    const struct webhook *w = &d->webhook;
    d->generation = journal_generation(in->journal);
    d->batch_max = w->n_alerts < INTAKE_BATCH_MAX ? w->n_alerts : INTAKE_BATCH_MAX;
    d->batch = arena_alloc(d->arena, RECORDS_PER_ALERT * d->batch_max * sizeof(d->batch[0]));
    enum status s = STATUS_OK;
    size_t n = 0, bytes = 0; /* of this turn */
    for (size_t i = 0; i < w->n_alerts && s == STATUS_OK; i++) {
        if (n == 0 && !intake_is_current(in))
            return error_set(err, STATUS_UNAVAILABLE, "the journal does not take records now");
        if (w->alerts[i].reason.len == 0)
            s = take_alert(d, i, err);
        else if (d->how.len == 0)
            add_rejected(d, i, w->alerts[i].reason);
        n++;
        bytes += w->alerts[i].bytes;
        bool is_last = i + 1 == w->n_alerts, is_turn = n == INTAKE_BATCH_MAX || bytes >= BATCH_BYTES_MAX;
        if (s == STATUS_OK && (is_last || is_turn)) s = flush(d, err);
        if (s == STATUS_OK && is_turn && !is_last) s = fiber_yield();
        if (is_turn) n = bytes = 0;
    }
    if (s == STATUS_OK && d->is_table_full)
        s = error_set(err, STATUS_UNAVAILABLE, "%d alerts are open, no more can be kept apart", EPISODES_MAX);
    return s;
}

enum status intake_expire(struct intake *in, const struct episode *e, int64_t now_unix_ns, struct strview how,
                          struct strview reason)
{
    /* The episode's views end when the record is folded; other followers read it after that. */
    struct arena a = {0};
    struct record r = {.kind = RECORD_EXPIRED,
                       .time_ns = now_unix_ns,
                       .function = SV("alerts"),
                       .source = arena_copy(&a, e->source),
                       .fingerprint = arena_copy(&a, e->fingerprint),
                       .fingerprint_computed = arena_copy(&a, e->fingerprint_computed),
                       .incident = arena_copy(&a, e->incident),
                       .starts_at_ns = e->starts_at_ns,
                       .how = how,
                       .reason = reason};
    enum status s = journal_append(in->journal, &r, 1, NULL, NULL);
    arena_release(&a);
    return s;
}
