#include <stdio.h>

#include "functions/dispatcher/dispatcher_impl.h"
#include "log/log.h"

#define LOGGED_MAX 50 /* lines a second */

void observe_stage(const char *stage, int64_t from_ns, int64_t to_ns)
{
    int64_t ns = to_ns > from_ns ? clock_elapsed_ns(from_ns, to_ns) : 0;
    metric_observe(catalog_series(CATALOG_STAGE, (struct strview[]){sv(stage)}),
                   (double)ns / (double)NS_PER_S);
}

static void count(enum catalog_id id, struct strview label)
{
    metric_add(catalog_series(id, &label), 1);
}

static void count_of(enum catalog_id id, struct strview function, struct strview result)
{
    metric_add(catalog_series(id, (struct strview[]){function, result}), 1);
}

struct observed_incident observe_before(const struct dispatcher *d, const struct record *r)
{
    struct observed_incident before = {0};
    const struct incident *inc =
        r->incident.len > 0 ? state_incident(dispatcher_state(d), r->incident) : NULL;
    if (inc == NULL) return before;
    before.opened_ns = inc->opened_ns;
    before.is_undecided = inc->phase == INCIDENT_NEW && inc->step == 0;
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
    if (before->is_undecided) observe_stage("decided", before->opened_ns, clock_unix_ns());
    switch (r->kind) {
    case RECORD_INTENT:
        count(CATALOG_DECISIONS, SV("intent"));
        log_decision(d, r, sv_eq(r->purpose, SV("escalate")) ? "telling a person" : "act decided", before,
                     "intent", r->intent);
        break;
    case RECORD_REFUSAL:
        count(CATALOG_DECISIONS, sv_eq(r->mode, SV("shadow")) ? SV("shadow") : SV("refusal"));
        count(CATALOG_REFUSALS, r->gate);
        log_decision(d, r, sv_eq(r->mode, SV("shadow")) ? "would act (shadow)" : "act refused", before,
                     "gate", r->gate);
        break;
    case RECORD_VERIFIED:
        count_of(CATALOG_VERIFICATIONS, r->function, r->ok ? SV("verified") : SV("failed"));
        if (r->ok && before->opened_ns > 0) observe_stage("verified", before->opened_ns, clock_unix_ns());
        log_decision(d, r, r->ok ? "verified" : "not verified", before, "how", r->how);
        break;
    case RECORD_ESCALATED:
        metric_add(catalog_series(CATALOG_ESCALATIONS, NULL), 1);
        if (may_log(d))
            log_warn("dispatcher", "needs a person", LOG_STR("alert", before->alertname),
                     LOG_SV("incident", r->incident), LOG_SV("target", r->target),
                     LOG_SV("reason", r->reason));
        break;
    case RECORD_CLOSED:
        count(CATALOG_INCIDENTS_CLOSED, r->state);
        if (before->opened_ns > 0) observe_stage("resolved", before->opened_ns, clock_unix_ns());
        log_decision(d, r, "incident closed", before, "state", r->state);
        break;
    default:
        break;
    }
}

/* Each is a person's doing, so few. */
static void observe_person(const struct record *r)
{
    const char *message = NULL;
    if (r->kind == RECORD_CLOSE) message = "a person closes an incident";
    if (r->kind == RECORD_RETRY && r->actor.len > 0) message = "a person has a dead letter retried";
    if (r->kind == RECORD_OUTCOME && r->actor.len > 0) message = "a person drops a dead letter";
    if (message != NULL)
        log_info("dispatcher", message, LOG_SV("actor", r->actor), LOG_SV("incident", r->incident),
                 LOG_SV("intent", r->intent), LOG_SV("function", r->function), LOG_SV("reason", r->reason));
}

void observe_record(struct dispatcher *d, const struct record *r, const struct observed_incident *before)
{
    if (r->cause != 0) {
        if (r->epoch == dispatcher_state(d)->epoch) observe_decided(d, r, before);
        return;
    }
    if (r->kind == RECORD_OUTCOME) {
        count_of(CATALOG_OUTCOMES, r->function, r->state);
        if (sv_eq(r->state, SV("dead"))) count(CATALOG_DEAD_LETTERS, r->function);
    }
    if (r->kind == RECORD_OUTCOME && r->intent.len > 0 && may_log(d))
        log_info("dispatcher", "act ended", LOG_SV("incident", r->incident), LOG_SV("function", r->function),
                 LOG_SV("target", r->target), LOG_SV("state", r->state), LOG_SV("text", r->message));
    observe_person(r);
    if (r->kind == RECORD_FREEZE)
        log_warn("dispatcher", r->on ? "acting is stopped" : "acting is resumed", LOG_SV("actor", r->actor));
}
