#include "functions/dispatcher/selfwatch.h"

#include <inttypes.h>
#include <stdio.h>

#include "functions/dispatcher/dispatcher_impl.h"
#include "log/log.h"
#include "store/episode.h"

#define LOOK_NS (60 * NS_PER_S)
#define SOURCE  SV("balm")

static const struct self_kind {
    const char *alertname, *severity, *summary;
} kinds[SELF_ALERTS] = {
    [SELF_WATCHDOG] = {"BalmWatchdogSilent", "critical",
                       "the alert that always fires no longer reaches balm: no other alert would either"},
    [SELF_DEAD_LETTERS] = {"BalmDeadLetters", "warning", "acts or calls were given up"},
    [SELF_STUCK] = {"BalmIncidentStuck", "warning", "incidents do not move on"},
    [SELF_STORE] = {"BalmStoreFailing", "critical",
                    "balm cannot write its journal: alerts are answered with 503 and nothing is healed"},
};

struct strview self_alert_summary(enum self_alert kind)
{
    return sv(kinds[kind].summary);
}

struct record_labels self_alert_labels(enum self_alert kind, struct http_header ret_items[SELF_LABELS])
{
    ret_items[0] = (struct http_header){SV("alertname"), sv(kinds[kind].alertname)};
    ret_items[1] = (struct http_header){SV("reporter"), SOURCE};
    ret_items[2] = (struct http_header){SV("severity"), sv(kinds[kind].severity)};
    return (struct record_labels){ret_items, SELF_LABELS};
}

struct record_labels self_alert_annotations(enum self_alert kind, struct strview description,
                                            struct http_header ret_items[SELF_ANNOTATIONS])
{
    ret_items[0] = (struct http_header){SV("description"), description};
    ret_items[1] = (struct http_header){SV("summary"), self_alert_summary(kind)};
    return (struct record_labels){ret_items, SELF_ANNOTATIONS};
}

/* ---- the fold: what the journal says of the watchdog and of our own alerts ---- */

void selfwatch_init(struct selfwatch *w)
{
    struct http_header items[SELF_LABELS];
    *w = (struct selfwatch){.last_seen = catalog_series(CATALOG_WATCHDOG_LAST_SEEN, NULL)};
    for (int kind = 0; kind < SELF_ALERTS; kind++) {
        struct record_labels labels = self_alert_labels((enum self_alert)kind, items);
        record_fingerprint(&labels, w->episodes[kind].fingerprint);
    }
}

void selfwatch_reset(struct selfwatch *w)
{
    w->heard_ns = 0;
    for (int kind = 0; kind < SELF_ALERTS; kind++)
        w->episodes[kind].is_open = false;
}

/* A `seen` names no labels, so it is known by the fingerprint of the signal before it. */
static void fold_watchdog(struct selfwatch *w, struct strview watchdog, const struct record *r, bool is_live)
{
    bool is_signal = r->kind == RECORD_SIGNAL && sv_eq(r->status, SV("firing")) && watchdog.len > 0 &&
                     sv_eq(record_label(&r->labels, SV("alertname")), watchdog);
    bool is_seen = r->kind == RECORD_SEEN && w->heard_ns != 0 && sv_eq(r->fingerprint, sv(w->watchdog));
    if (r->how.len > 0) return; /* found by asking Alertmanager: nothing was delivered */
    if (is_signal) (void)snprintf(w->watchdog, sizeof(w->watchdog), "%.*s", SV_ARG(r->fingerprint));
    if (!is_signal && !is_seen) return;
    w->heard_ns = r->time_ns;
    if (is_live) w->heard_monotonic_ns = clock_monotonic_ns();
    metric_set(w->last_seen, (double)w->heard_ns / (double)NS_PER_S);
}

static void fold_own(struct selfwatch *w, const struct record *r)
{
    for (int kind = 0; kind < SELF_ALERTS; kind++) {
        struct self_episode *e = &w->episodes[kind];
        if (!sv_eq(r->fingerprint, sv(e->fingerprint))) continue;
        if (r->kind == RECORD_SIGNAL) {
            e->is_open = sv_eq(r->status, SV("firing"));
            e->starts_at_ns = r->starts_at_ns;
            (void)snprintf(e->incident, sizeof(e->incident), "%.*s", SV_ARG(r->incident));
        }
        if (r->kind == RECORD_EXPIRED) e->is_open = false;
        e->seen_ns = r->time_ns;
    }
}

void selfwatch_record(struct selfwatch *w, struct strview watchdog, const struct record *r, bool is_live)
{
    fold_watchdog(w, watchdog, r, is_live);
    bool is_episode = r->kind == RECORD_SIGNAL || r->kind == RECORD_SEEN || r->kind == RECORD_EXPIRED;
    if (is_episode && sv_eq(r->source, SOURCE)) fold_own(w, r);
}

void selfwatch_save(const struct selfwatch *w, struct strview watchdog, struct pack *p)
{
    pack_text(p, watchdog);
    pack_i64(p, w->heard_ns);
    pack_text(p, sv(w->watchdog));
    pack_u64(p, SELF_ALERTS);
    for (int kind = 0; kind < SELF_ALERTS; kind++) {
        const struct self_episode *e = &w->episodes[kind];
        pack_text(p, sv(e->incident));
        pack_bool(p, e->is_open);
        pack_i64(p, e->starts_at_ns);
        pack_i64(p, e->seen_ns);
    }
}

void selfwatch_load(struct selfwatch *w, struct strview watchdog, struct unpack *u)
{
    bool is_same = sv_eq(unpack_text(u), watchdog);
    int64_t heard_ns = unpack_i64(u);
    struct strview fingerprint = unpack_text(u);
    if (is_same && heard_ns != 0) {
        w->heard_ns = heard_ns;
        (void)snprintf(w->watchdog, sizeof(w->watchdog), "%.*s", SV_ARG(fingerprint));
        metric_set(w->last_seen, (double)heard_ns / (double)NS_PER_S);
    }
    uint64_t n = unpack_u64(u);
    for (uint64_t kind = 0; kind < n && !u->is_bad; kind++) {
        struct self_episode ignored = {0}, *e = kind < SELF_ALERTS ? &w->episodes[kind] : &ignored;
        struct strview incident = unpack_text(u);
        (void)snprintf(e->incident, sizeof(e->incident), "%.*s", SV_ARG(incident));
        e->is_open = unpack_bool(u);
        e->starts_at_ns = unpack_i64(u);
        e->seen_ns = unpack_i64(u);
    }
}

/* ---- our own alerts: signals like any other's ---- */

static enum status append(struct dispatcher *d, enum self_alert kind, enum record_kind record, bool is_firing,
                          struct strview description, struct error *err)
{
    const struct self_episode *e = &d->watch.episodes[kind];
    struct http_header labels[SELF_LABELS], annotations[SELF_ANNOTATIONS];
    char incident[INCIDENT_ID_MAX];
    int64_t now_ns = clock_unix_ns(), starts_at_ns = e->is_open ? e->starts_at_ns : now_ns;
    incident_id(sv(e->fingerprint), starts_at_ns, incident);
    struct record r = {.kind = record,
                       .time_ns = now_ns,
                       .tenant = d->env.tenant,
                       .cluster = d->env.cluster,
                       .function = SV("dispatcher"),
                       .source = SOURCE,
                       .incident = sv(incident),
                       .fingerprint = sv(e->fingerprint),
                       .starts_at_ns = starts_at_ns};
    if (record == RECORD_SIGNAL) {
        r.status = is_firing ? SV("firing") : SV("resolved");
        r.ends_at_ns = is_firing ? 0 : now_ns;
        r.labels = self_alert_labels(kind, labels);
        r.annotations = self_alert_annotations(kind, description, annotations);
    }
    return journal_append(d->env.journal, &r, 1, NULL, err);
}

/* One that goes on is seen as often as others' are, or its lease would run out. */
static void look(struct dispatcher *d, enum self_alert kind, bool is_on, struct strview description)
{
    const struct self_episode *e = &d->watch.episodes[kind];
    struct error err;
    enum status s = STATUS_OK;
    int64_t quarter_ns = (2 * d->env.repeat_interval_ns + d->env.group_interval_ns) / 4;
    if (is_on != e->is_open) {
        s = append(d, kind, RECORD_SIGNAL, is_on, description, &err);
        log_warn("dispatcher", is_on ? "balm itself is not well" : "balm itself is well again",
                 LOG_STR("alert", kinds[kind].alertname), LOG_SV("what", description));
    } else if (is_on && quarter_ns > 0 && clock_elapsed_ns(e->seen_ns, clock_unix_ns()) > quarter_ns) {
        s = append(d, kind, RECORD_SEEN, true, description, &err);
    }
    if (s != STATUS_OK && s != STATUS_CANCELLED)
        log_error("dispatcher", "not recorded; the next look tries again", LOG_STR("error", err.message));
}

/* ---- what is looked at ---- */

/* By the monotonic clock, and after a start it has its full time; one that was silent before stays so until
 * it is heard. A tenth more, because not every sighting is recorded. */
static bool is_watchdog_silent(const struct dispatcher *d)
{
    const struct selfwatch *w = &d->watch;
    int64_t within_ns = d->env.watchdog_within_ns, since_ns = w->heard_monotonic_ns;
    if (since_ns == 0 && w->episodes[SELF_WATCHDOG].is_open) return true;
    if (since_ns < w->started_ns) since_ns = w->started_ns;
    return w->heard_ns != 0 && within_ns > 0 && clock_monotonic_ns() - since_ns > within_ns + within_ns / 10;
}

static void look_at_watchdog(struct dispatcher *d, struct arena *a)
{
    char heard[RFC3339_LEN + 1], within[DURATION_TEXT_MAX];
    rfc3339_format(d->watch.heard_ns, heard);
    (void)duration_format(d->env.watchdog_within_ns, within);
    look(d, SELF_WATCHDOG, is_watchdog_silent(d),
         arena_printf(a,
                      "'%.*s' was last heard at %s, and is expected every %s. See whether Prometheus and "
                      "Alertmanager run and what Alertmanager logs about the webhook; `balm status` shows "
                      "the sources.",
                      SV_ARG(d->env.watchdog), heard, within));
}

static void look_at_dead_letters(struct dispatcher *d, struct arena *a)
{
    size_t n = queue_depth(d->queue, (struct strview){0}).dead;
    look(d, SELF_DEAD_LETTERS, n > 0,
         arena_printf(a,
                      "%zu acts or calls were given up after their last attempt: `balm dead list` has them "
                      "and their errors, `balm dead retry ID` and `balm dead drop ID` end it.",
                      n));
}

static void look_at_incidents(struct dispatcher *d, struct arena *a)
{
    const struct state *s = dispatcher_state(d);
    const struct incident *first = NULL;
    size_t n = 0;
    for (struct list *node = s->incidents_list.next; node != &s->incidents_list; node = node->next) {
        const struct incident *inc = container_of(node, struct incident, node);
        if (!incident_is_stuck(s, inc, clock_unix_ns())) continue;
        if (n++ == 0) first = inc;
    }
    struct strview id = first != NULL ? first->id : SV("INCIDENT");
    look(
        d, SELF_STUCK, n > 0,
        arena_printf(
            a,
            "%zu incidents should have moved on by themselves: `balm incident list` marks them, `balm why %.*s`",
            n, SV_ARG(id)));
}

static int64_t look_every_ns(const struct dispatcher *d)
{
    int64_t within_ns = d->env.watchdog_within_ns;
    return within_ns > 0 && within_ns / 5 < LOOK_NS ? within_ns / 5 : LOOK_NS;
}

void selfwatch_fiber(void *arg)
{
    struct dispatcher *d = arg;
    struct arena arena = {0};
    int64_t every_ns = look_every_ns(d);
    d->watch.started_ns = clock_monotonic_ns();
    if (selfwatch_teller(d, SELF_WATCHDOG) == NULL)
        log_info("dispatcher", "nobody is told when balm itself is not well: no runbook that may act takes "
                               "the alerts with reporter=\"balm\"");
    while (sleep_until(clock_monotonic_ns() + every_ns) == STATUS_OK) {
        selfwatch_store(d);
        if (!journal_is_healthy(d->env.journal) || !decider_is_active(d->decider)) continue;
        arena_reset(&arena);
        look_at_watchdog(d, &arena);
        look_at_dead_letters(d, &arena);
        look_at_incidents(d, &arena);
    }
    arena_release(&arena);
}
