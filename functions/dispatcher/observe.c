#include <stdio.h>

#include "functions/dispatcher/dispatcher_impl.h"
#include "log/log.h"

#define LOGGED_MAX 50 /* lines a second */

static void set_queue_gauges(struct dispatcher *d, struct strview function)
{
    struct queue_depth depth = queue_depth(d->queue, function);
    const struct {
        struct strview state;
        size_t n;
    } rows[] = {{SV("ready"), depth.ready},
                {SV("leased"), depth.leased},
                {SV("waiting"), depth.waiting},
                {SV("dead"), depth.dead}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        metric_set(metrics_series(d->metrics.queue_depth, (struct strview[]){function, rows[i].state}),
                   (double)rows[i].n);
}

/* Collectors cannot be taken back, so there is one for the process, and it looks here. */
static struct dispatcher *observed;

static void on_collect(void *arg)
{
    (void)arg;
    struct dispatcher *d = observed;
    if (d == NULL) return;
    const struct state *s = dispatcher_state(d);
    for (int phase = 0; phase < INCIDENT_PHASES; phase++)
        metric_set(metrics_series(d->metrics.incidents_open,
                                  (struct strview[]){sv(incident_phase_name((enum incident_phase)phase))}),
                   (double)s->n_phase[phase]);
    for (size_t i = 0; i < s->n_active; i++) {
        const struct runbook *rb = s->active[i].runbook;
        for (size_t k = 0; k < rb->n_steps; k++)
            set_queue_gauges(d, rb->steps[k].bot);
        if (rb->escalate.bot.len > 0) set_queue_gauges(d, rb->escalate.bot);
    }
    uint64_t hits = s->n_limit_hits;
    if (hits > d->metrics.limit_hits_counted)
        metric_add(metrics_series(d->metrics.limit_hits, NULL),
                   (double)(hits - d->metrics.limit_hits_counted));
    d->metrics.limit_hits_counted = hits;
}

void observe_init(struct dispatcher *d)
{
    static const double stage_buckets[] = {.001, .0025, .005, .01, .025, .05, .1,  .25, .5,
                                           1,    2.5,   5,    10,  30,   60,  120, 300, 900};
    static const char *const stage_labels[] = {"stage"}, *const result_labels[] = {"result"},
                             *const phase_labels[] = {"phase"}, *const queue_labels[] = {"function", "state"};
    struct dispatcher_metrics *m = &d->metrics;
    m->stage_seconds = metrics_family(METRIC_HISTOGRAM, "balm_stage_seconds",
                                      "From the receipt of an alert to each stage of its incident.",
                                      stage_labels, 1, stage_buckets, ARRAY_LEN(stage_buckets));
    m->decisions = metrics_family(METRIC_COUNTER, "balm_decisions_total", "Decisions on incidents by result.",
                                  result_labels, 1, NULL, 0);
    m->incidents_open = metrics_family(METRIC_GAUGE, "balm_incidents_open", "Open incidents by phase.",
                                       phase_labels, 1, NULL, 0);
    m->queue_depth = metrics_family(METRIC_GAUGE, "balm_queue_depth", "Intents and calls without outcome.",
                                    queue_labels, 2, NULL, 0);
    m->limit_hits =
        metrics_family(METRIC_COUNTER, "balm_matcher_limit_hits_total",
                       "Regular expressions of runbooks that gave up on a label.", NULL, 0, NULL, 0);
    static bool is_registered;
    if (!is_registered) metrics_on_collect(on_collect, NULL);
    is_registered = true;
    observed = d;
}

void observe_release(const struct dispatcher *d)
{
    if (observed == d) observed = NULL;
}

void observe_stage(struct dispatcher *d, const char *stage, int64_t ns)
{
    if (ns < 0) ns = 0;
    metric_observe(metrics_series(d->metrics.stage_seconds, (struct strview[]){sv(stage)}),
                   (double)ns / (double)NS_PER_S);
}

static void count_decision(struct dispatcher *d, const char *result)
{
    metric_add(metrics_series(d->metrics.decisions, (struct strview[]){sv(result)}), 1);
}

struct observed_incident observe_before(const struct dispatcher *d, const struct record *r)
{
    struct observed_incident before = {0};
    const struct incident *inc =
        r->incident.len > 0 ? state_incident(dispatcher_state(d), r->incident) : NULL;
    if (inc == NULL) return before;
    before.opened_ns = inc->opened_ns;
    (void)snprintf(before.alertname, sizeof(before.alertname), "%.*s",
                   SV_ARG(sv_sub(inc->alertname, 0, sizeof(before.alertname) - 1)));
    return before;
}

/* A storm of alerts must not become a storm of lines: so many a second, then how many were left out. The
 * journal has all of them. */
static bool may_log(struct dispatcher *d)
{
    int64_t second = clock_monotonic_ns() / NS_PER_S;
    if (second != d->log_second) {
        if (d->n_logged > LOGGED_MAX)
            log_info("dispatcher", "more decisions than are logged",
                     LOG_INT("left_out", d->n_logged - LOGGED_MAX));
        d->log_second = second;
        d->n_logged = 0;
    }
    return ++d->n_logged <= LOGGED_MAX;
}

static void log_decision(struct dispatcher *d, const struct record *r, const char *message,
                         const struct observed_incident *before, const char *name, struct strview value)
{
    if (!may_log(d)) return;
    log_info("dispatcher", message, LOG_STR("alert", before->alertname), LOG_SV("incident", r->incident),
             LOG_SV("target", r->target), LOG_SV("function", r->function), LOG_SV("runbook", r->runbook),
             LOG_SV(name, value));
}

static void observe_decided(struct dispatcher *d, const struct record *r,
                            const struct observed_incident *before)
{
    switch (r->kind) {
    case RECORD_INTENT:
        count_decision(d, "intent");
        log_decision(d, r, sv_eq(r->purpose, SV("escalate")) ? "telling a person" : "act decided", before,
                     "intent", r->intent);
        break;
    case RECORD_REFUSAL:
        count_decision(d, sv_eq(r->mode, SV("shadow")) ? "shadow" : "refusal");
        log_decision(d, r, sv_eq(r->mode, SV("shadow")) ? "would act (shadow)" : "act refused", before,
                     "gate", r->gate);
        break;
    case RECORD_VERIFIED:
        if (r->ok && before->opened_ns > 0) observe_stage(d, "verified", clock_unix_ns() - before->opened_ns);
        log_decision(d, r, r->ok ? "verified" : "not verified", before, "how", r->how);
        break;
    case RECORD_ESCALATED:
        if (may_log(d))
            log_warn("dispatcher", "needs a person", LOG_STR("alert", before->alertname),
                     LOG_SV("incident", r->incident), LOG_SV("target", r->target),
                     LOG_SV("reason", r->reason));
        break;
    case RECORD_CLOSED:
        if (before->opened_ns > 0) observe_stage(d, "resolved", clock_unix_ns() - before->opened_ns);
        log_decision(d, r, "incident closed", before, "state", r->state);
        break;
    default:
        break;
    }
}

void observe_record(struct dispatcher *d, const struct record *r, const struct observed_incident *before)
{
    if (r->cause != 0) {
        if (r->epoch == dispatcher_state(d)->epoch) observe_decided(d, r, before);
        return;
    }
    if (r->kind == RECORD_OUTCOME && r->intent.len > 0 && may_log(d))
        log_info("dispatcher", "act ended", LOG_SV("incident", r->incident), LOG_SV("function", r->function),
                 LOG_SV("target", r->target), LOG_SV("state", r->state), LOG_SV("text", r->message));
    if (r->kind == RECORD_FREEZE)
        log_warn("dispatcher", r->on ? "acting is stopped" : "acting is resumed", LOG_SV("actor", r->actor));
}
