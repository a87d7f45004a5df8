#include "functions/dispatcher/decide_impl.h"

#include <string.h>

static void decide_followed_up(struct decision *d, const struct incident *inc)
{
    if (inc->outcome == OUTCOME_DONE || inc->outcome == OUTCOME_UNCHANGED)
        decide_emit_closed_well(d, inc);
    else
        decide_escalate(d, inc, inc->step, SV("the repair was verified, but its follow-up did not succeed"));
}

static void decide_following(struct decision *d, const struct incident *inc)
{
    if (inc->hold_broken)
        decide_drop_follow_up(d, inc);
    else if (inc->timer == NULL)
        decide_attempt_follow_up(d, inc);
}

static void decide_ended(struct decision *d, const struct incident *inc)
{
    const struct runbook_step *step = &inc->runbook->steps[inc->step - 1];
    bool has_acted = inc->outcome == OUTCOME_DONE || inc->outcome == OUTCOME_UNCHANGED;
    if (inc->alert == ALERT_EXPIRED) {
        decide_emit_closed(d, inc, "unknown"); /* its source fell silent: that is no proof of anything */
    } else if (has_acted && step->verify == VERIFY_CHECK) {
        if (step->hold_ns > 0)
            decide_emit_timer(d, inc, "hold", d->in->time_ns + step->hold_ns);
        else
            decide_emit_healed(d, inc, "check");
    } else if (inc->alert == ALERT_RESOLVED) {
        /* It resolved while the bot was at work: ours if the bot changed something. */
        if (inc->outcome != OUTCOME_DONE)
            decide_emit_closed(d, inc, "resolved");
        else if (step->hold_ns > 0)
            decide_emit_timer(d, inc, "hold", d->in->time_ns + step->hold_ns);
        else
            decide_emit_healed(d, inc, "resolve");
    } else if (has_acted) {
        decide_emit_timer(d, inc, "verify", d->in->time_ns + step->within_ns);
    } else if (inc->outcome == OUTCOME_UNKNOWN) {
        decide_escalate(d, inc, inc->step,
                        SV("nobody knows whether the act took effect; going on could do it twice"));
    } else if (inc->outcome == OUTCOME_EXPIRED && runbook_is_scheduled(inc->runbook)) {
        decide_next_rung(d, inc, "the act did not begin in time");
    } else if (inc->outcome == OUTCOME_EXPIRED) {
        (void)decide_attempt(d, inc, inc->step,
                             false); /* it never began: the same step, through all gates again */
    } else {
        decide_next_rung(d, inc, inc->outcome == OUTCOME_REFUSED ? "the bot refused" : "the act failed");
    }
}

static void decide_verifying(struct decision *d, const struct incident *inc)
{
    const struct runbook_step *step = &inc->runbook->steps[inc->step - 1];
    if (inc->alert == ALERT_EXPIRED) {
        decide_emit_closed(d, inc, "unknown");
    } else if (inc->alert == ALERT_RESOLVED) {
        if (step->hold_ns > 0)
            decide_emit_timer(d, inc, "hold", d->in->time_ns + step->hold_ns);
        else
            decide_emit_healed(d, inc, "resolve");
    } else if (inc->timer == NULL) {
        decide_emit_verified(d, inc, false, "timeout");
        decide_next_rung(d, inc, "the alert went on");
    }
}

static void decide_holding(struct decision *d, const struct incident *inc)
{
    if (inc->alert == ALERT_EXPIRED) {
        decide_emit_closed(d, inc, "unknown");
    } else if (inc->hold_broken) {
        decide_emit_verified(d, inc, false, "hold");
        if (inc->alert == ALERT_FIRING)
            decide_next_rung(d, inc, "the alert came again");
        else
            decide_emit_closed(d, inc, "resolved"); /* the new alert is an incident of its own */
    } else if (inc->timer == NULL) {
        decide_emit_healed(d, inc, "hold");
    }
}

/* What ends by itself and is not at work is at its end: a predecessor was cut off before it closed it. */
static void decide_idle_run(struct decision *d, const struct incident *inc)
{
    if (inc->phase == INCIDENT_NEW)
        (void)decide_attempt(d, inc, 1, false);
    else if (inc->phase == INCIDENT_ESCALATED && !list_is_linked(&inc->in_slot)) /* told, or nobody to tell */
        decide_emit_closed(d, inc, "escalated");
    else if (inc->phase != INCIDENT_ESCALATED)
        decide_emit_closed(d, inc, "skipped");
}

void decide_incident(struct decision *d, const struct incident *inc)
{
    bool is_given_up = inc->is_closing && incident_is_overdue(inc, d->in->time_ns);
    if (inc->phase == INCIDENT_ACTING && !is_given_up)
        return; /* whatever came meanwhile: the outcome is awaited, and decided on then */
    if (inc->is_closing) {
        decide_emit_closed(d, inc, "manual");
        if (is_given_up)
            decide_emit_wake_timer(d, inc->slot); /* its place among the runbook's acts is free after this */
    } else if (inc->phase == INCIDENT_ENDED) {
        if (incident_is_following_up(inc))
            decide_followed_up(d, inc);
        else
            decide_ended(d, inc);
    } else if (inc->phase == INCIDENT_FOLLOWING) {
        decide_following(d, inc);
    } else if (inc->phase == INCIDENT_VERIFYING) {
        decide_verifying(d, inc);
    } else if (inc->phase == INCIDENT_HOLDING) {
        decide_holding(d, inc);
    } else if (incident_ends_by_itself(inc)) {
        decide_idle_run(d, inc);
    } else if (inc->alert != ALERT_FIRING) {
        decide_emit_closed(d, inc,
                           inc->alert == ALERT_EXPIRED ? "unknown"
                           : inc->is_escalated         ? "escalated"
                                                       : "resolved");
    } else if (inc->phase == INCIDENT_NEW) {
        (void)decide_attempt(d, inc, inc->step > 0 ? inc->step : 1,
                             false); /* a step: of the act to be retried */
    } else if (inc->phase == INCIDENT_DELAYED && inc->timer == NULL) {
        (void)decide_attempt(d, inc, inc->step, false);
    } else if (inc->phase == INCIDENT_REFUSED && inc->gate != NULL && strcmp(inc->gate, "rate") == 0) {
        decide_escalate(
            d, inc, inc->step,
            SV("too many acts on this target")); /* only if a predecessor was cut off between the two */
    }
}
