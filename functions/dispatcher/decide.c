#include "functions/dispatcher/decide.h"

#include <inttypes.h>
#include <string.h>

#include "functions/dispatcher/gates.h"
#include "functions/dispatcher/template.h"

/* How many waiting incidents one input may wake: bounds the records of one decision. What is left is woken by
 * a timer set for that purpose. */
enum { WAKE_MAX = 64 };

/* One call of decide(). */
struct decision {
    const struct state *state;
    uint64_t seq;
    const struct record *in;
    struct arena *arena;
    struct record *out;
    size_t n, capacity;
    const struct incident **taken; /* given an intent by this decision */
    size_t n_taken, taken_capacity;
    const struct incident **delayed; /* given a recheck timer by this decision */
    size_t n_delayed, delayed_capacity;
    const struct incident *handled[2 * WAKE_MAX]; /* woken already */
    size_t n_handled;
    const struct incident *freed; /* gives its place on its target up by this decision */
    bool has_freed_more;          /* than the one above */
};

/* ---- writing ---- */

static struct record *emit_plain(struct decision *d, enum record_kind kind)
{
    if (d->n == d->capacity) {
        size_t capacity = d->capacity ? 2 * d->capacity : 8;
        struct record *bigger = arena_array(d->arena, capacity, sizeof(*bigger));
        if (d->n > 0) memcpy(bigger, d->out, d->n * sizeof(*bigger));
        d->out = bigger;
        d->capacity = capacity;
    }
    struct record *r = &d->out[d->n++];
    *r = (struct record){.kind = kind,
                         .time_ns = d->in->time_ns,
                         .cause = d->seq,
                         .epoch = d->state->epoch,
                         .tenant = d->in->tenant,
                         .cluster = d->in->cluster};
    return r;
}

static struct record *emit(struct decision *d, enum record_kind kind, const struct incident *inc)
{
    struct record *r = emit_plain(d, kind);
    r->tenant = inc->tenant;
    r->cluster = inc->cluster;
    r->incident = inc->id;
    r->fingerprint = inc->fingerprint;
    r->runbook = inc->runbook->name;
    r->runbook_hash = sv(inc->runbook->hash);
    r->target = inc->target_name;
    r->step = inc->step;
    return r;
}

static void note_freed(struct decision *d, const struct incident *inc)
{
    d->has_freed_more |= d->freed != NULL && d->freed != inc;
    d->freed = inc;
}

static void emit_closed(struct decision *d, const struct incident *inc, const char *state)
{
    emit(d, RECORD_CLOSED, inc)->state = sv(state);
    if (incident_is_busy(inc) || inc->phase == INCIDENT_DELAYED) note_freed(d, inc);
}

static void emit_timer(struct decision *d, const struct incident *inc, const char *purpose, int64_t due_ns)
{
    struct record *r = emit(d, RECORD_TIMER, inc);
    r->purpose = sv(purpose);
    r->due_ns = due_ns;
}

static void emit_wake_timer(struct decision *d, const struct runbook_slot *slot)
{
    struct record *r = emit_plain(d, RECORD_TIMER);
    r->runbook = slot->name;
    r->purpose = SV("wake");
    r->due_ns = d->in->time_ns;
}

static const struct runbook_step *step_of(const struct incident *inc)
{
    return incident_is_following_up(inc) ? &inc->runbook->follow_up : &inc->runbook->steps[inc->step - 1];
}

static void emit_verified(struct decision *d, const struct incident *inc, bool is_ok, const char *how)
{
    struct record *r = emit(d, RECORD_VERIFIED, inc);
    r->function = step_of(inc)->bot;
    r->intent = arena_copy(d->arena, sv(inc->intent));
    r->ok = is_ok;
    r->how = sv(how);
}

/* Its end if all went well. */
static void emit_closed_well(struct decision *d, const struct incident *inc)
{
    emit_closed(d, inc, runbook_is_scheduled(inc->runbook) ? "done" : "healed");
}

static void emit_healed(struct decision *d, const struct incident *inc, const char *how)
{
    emit_verified(d, inc, true, how);
    if (inc->runbook->follow_up.bot.len == 0) {
        emit_closed_well(d, inc);
        return;
    }
    emit_timer(d, inc, "follow_up", d->in->time_ns + inc->runbook->follow_up_after_ns);
    note_freed(d, inc);
}

/* No alert's end will close it. */
static bool ends_by_itself(const struct incident *inc)
{
    return runbook_is_scheduled(inc->runbook) || incident_is_following_up(inc);
}

/* ---- acting ---- */

static struct strview step_detail(struct arena *a, const struct runbook_step *step, bool is_verified)
{
    if (!is_verified) return arena_printf(a, "{\"timeoutNs\":%" PRId64 "}", step->timeout_ns);
    return arena_printf(
        a, "{\"holdNs\":%" PRId64 ",\"timeoutNs\":%" PRId64 ",\"verify\":\"%s\",\"withinNs\":%" PRId64 "}",
        step->hold_ns, step->timeout_ns, step->verify == VERIFY_CHECK ? "check" : "resolve", step->within_ns);
}

/* Parameters with their variables replaced, "{}" if there are none. *ret_missing: what could not be. */
static struct strview make_params(struct decision *d, const struct incident *inc,
                                  const struct runbook_step *step, struct strview reason,
                                  struct strview *ret_missing)
{
    struct template_vars vars = {.labels = &inc->labels,
                                 .annotations = &inc->annotations,
                                 .incident = inc->id,
                                 .runbook = inc->runbook->name,
                                 .target = inc->target_name,
                                 .reason = reason};
    if (reason.len > 0) vars.fallback = SV("(none)"); /* a person is told even if the message has holes */
    struct strview params = SV("{}");
    *ret_missing = (struct strview){0};
    if (step->with == NULL) return params;
    enum status s = template_expand_json(step->with, &vars, d->arena, &params, ret_missing);
    if (s != STATUS_OK && ret_missing->len == 0) *ret_missing = SV("too long");
    return params;
}

static void add_incident(struct decision *d, const struct incident ***list, size_t *n, size_t *capacity,
                         const struct incident *inc)
{
    if (*n == *capacity) {
        *capacity = *capacity ? 2 * *capacity : 8;
        const struct incident **bigger = arena_array(d->arena, *capacity, sizeof(struct incident *));
        if (*n > 0) memcpy(bigger, *list, *n * sizeof(struct incident *));
        *list = bigger;
    }
    (*list)[(*n)++] = inc;
}

/* Does a recheck timer run for this target and runbook? Then it wakes all who wait for the same cooldown. */
static bool has_delayed(const struct decision *d, const struct incident *inc)
{
    for (size_t i = 0; i < d->n_delayed; i++)
        if (d->delayed[i]->target == inc->target && d->delayed[i]->slot == inc->slot) return true;
    for (struct list *node = inc->target->incidents.next; node != &inc->target->incidents;
         node = node->next) {
        const struct incident *other = container_of(node, struct incident, on_target);
        if (!incident_is_at_front(other)) return false;
        if (other->phase != INCIDENT_DELAYED) continue;
        if (other != inc && other != d->freed && other->slot == inc->slot && other->timer != NULL)
            return true;
    }
    return false;
}

static struct gate_question ask(const struct decision *d, const struct incident *inc,
                                struct strview params_missing)
{
    struct gate_question q = {.state = d->state,
                              .incident = inc,
                              .now_ns = d->in->time_ns,
                              .params_missing = params_missing,
                              .freed = d->freed};
    for (size_t i = 0; i < d->n_taken; i++) {
        if (inc->target != NULL && d->taken[i]->target == inc->target) q.taken_on_target++;
        if (d->taken[i]->slot == inc->slot) q.taken_of_runbook++;
    }
    return q;
}

static struct record *emit_intent(struct decision *d, const struct incident *inc, int64_t number,
                                  const struct runbook_step *step, bool is_escalation, struct strview params,
                                  struct strview gates)
{
    struct record *r = emit(d, RECORD_INTENT, inc);
    r->function = step->bot;
    /* The cause makes it unique for good: a step that is decided on again after its intent expired is another
     * act. */
    r->intent = arena_printf(d->arena, "%.*s-%s%" PRId64 "-%" PRIu64, SV_ARG(sv_sub(inc->id, 0, 64)),
                             is_escalation ? "e" : "", number, d->seq);
    r->mode = SV("act");
    r->step = number;
    r->params = params;
    r->gates = gates;
    r->deadline_ns =
        d->in->time_ns + (is_escalation ? ESCALATION_PATIENCE_NS : INTENT_PATIENCE_NS) + step->timeout_ns;
    r->detail = step_detail(d->arena, step, !is_escalation);
    return r;
}

static struct record *emit_refusal(struct decision *d, const struct incident *inc, int64_t number,
                                   const struct runbook_step *step, struct strview params,
                                   const struct gate_result *gate, struct strview gates)
{
    struct record *r = emit(d, RECORD_REFUSAL, inc);
    r->function = step->bot;
    r->mode = sv(runbook_mode_name(state_mode(d->state, inc->runbook->name)));
    r->step = number;
    r->params = params;
    r->gate = sv(gate->name);
    r->gates = gates;
    r->reason = gate->reason;
    return r;
}

static void tell(struct decision *d, const struct incident *inc, int64_t number, struct strview reason)
{
    const struct runbook_step *step = &inc->runbook->escalate;
    struct strview missing, params = make_params(d, inc, step, reason, &missing);
    struct gate_question q = ask(d, inc, missing);
    struct gate_result results[GATES_MAX];
    size_t n;
    const struct gate_result *refused = gates_evaluate_escalation(&q, d->arena, results, &n);
    struct strview gates = gates_json(results, n, d->arena);
    struct record *r = refused == NULL ? emit_intent(d, inc, number, step, true, params, gates)
                                       : emit_refusal(d, inc, number, step, params, refused, gates);
    r->purpose = SV("escalate");
    r->target =
        arena_printf(d->arena, "escalation/%.*s", SV_ARG(inc->id)); /* not queued behind acts on the target */
}

static void escalate(struct decision *d, const struct incident *inc, int64_t number, struct strview reason)
{
    struct record *r = emit(d, RECORD_ESCALATED, inc);
    r->reason = reason;
    r->function = inc->runbook->escalate.bot;
    r->step = number;
    if (incident_is_busy(inc)) note_freed(d, inc);
    if (r->function.len > 0) tell(d, inc, number, reason);
    bool is_untold = inc->runbook->escalate.bot.len > 0 && d->state->is_frozen; /* that keeps it open */
    if (ends_by_itself(inc) && !is_untold) emit_closed(d, inc, "escalated");
}

/* Gates that open by an event: who waits at one need not be told again that it still does. */
static bool opens_by_event(const struct gate_result *gate)
{
    static const char *const names[] = {"freeze", "clock", "in_flight", "in_flight_runbook"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(gate->name, names[i]) == 0) return true;
    return false;
}

/* A runbook without steps: a person at once, unless it may not act. */
static const char *hand_over(struct decision *d, const struct incident *inc)
{
    const struct runbook_step *step = &inc->runbook->escalate;
    struct strview missing, reason = SV("this runbook only tells people");
    struct strview params = make_params(d, inc, step, reason, &missing);
    struct gate_question q = ask(d, inc, missing);
    struct gate_result results[GATES_MAX];
    size_t n;
    const struct gate_result *refused = gates_evaluate_escalation(&q, d->arena, results, &n);
    if (refused == NULL || strcmp(refused->name, "mode") != 0) {
        escalate(d, inc, 0, reason);
        return NULL;
    }
    (void)emit_refusal(d, inc, 0, step, params, refused, gates_json(results, n, d->arena));
    if (runbook_is_scheduled(inc->runbook)) emit_closed(d, inc, "skipped");
    return refused->name;
}

/* Through all gates: an intent, or a refusal. is_woken: it was refused before and recorded; another refusal
 * by an event gate says nothing new. Returns the gate that refused, or NULL. */
static const char *attempt(struct decision *d, const struct incident *inc, int64_t number, bool is_woken)
{
    if (inc->runbook->n_steps == 0) return hand_over(d, inc);
    if (number > (int64_t)inc->runbook->n_steps) { /* its follow-up, refused by a predecessor cut off there */
        emit_closed_well(d, inc);
        return NULL;
    }
    const struct runbook_step *step = &inc->runbook->steps[number - 1];
    struct strview missing, params = make_params(d, inc, step, (struct strview){0}, &missing);
    struct gate_question q = ask(d, inc, missing);
    struct gate_result results[GATES_MAX];
    size_t n;
    const struct gate_result *refused = gates_evaluate(&q, d->arena, results, &n);
    if (refused == NULL) {
        (void)emit_intent(d, inc, number, step, false, params, gates_json(results, n, d->arena));
        add_incident(d, &d->taken, &d->n_taken, &d->taken_capacity, inc);
        return NULL;
    }
    bool has_timer = refused->opens_ns > 0 && has_delayed(d, inc);
    if (is_woken && (opens_by_event(refused) || has_timer)) return refused->name;
    (void)emit_refusal(d, inc, number, step, params, refused, gates_json(results, n, d->arena));
    if (runbook_is_scheduled(
            inc->runbook)) { /* what its time does not find open is over: the next will come */
        emit_closed(d, inc, "skipped");
        return refused->name;
    }
    if (incident_is_busy(inc)) note_freed(d, inc);
    if (refused->opens_ns > 0 && !has_timer) {
        emit_timer(d, inc, "recheck", refused->opens_ns);
        add_incident(d, &d->delayed, &d->n_delayed, &d->delayed_capacity, inc);
    }
    if (strcmp(refused->name, "rate") == 0) escalate(d, inc, number, refused->reason);
    return refused->name;
}

/* Through all gates, at its time or not at all. */
static void attempt_follow_up(struct decision *d, const struct incident *inc)
{
    const struct runbook_step *step = &inc->runbook->follow_up;
    int64_t number = (int64_t)inc->runbook->n_steps + 1;
    struct strview missing, params = make_params(d, inc, step, (struct strview){0}, &missing);
    struct gate_question q = ask(d, inc, missing);
    struct gate_result results[GATES_MAX];
    size_t n;
    const struct gate_result *refused = gates_evaluate(&q, d->arena, results, &n);
    struct strview gates = gates_json(results, n, d->arena);
    struct record *r = refused == NULL ? emit_intent(d, inc, number, step, false, params, gates)
                                       : emit_refusal(d, inc, number, step, params, refused, gates);
    r->purpose = SV("follow_up");
    if (refused == NULL)
        add_incident(d, &d->taken, &d->n_taken, &d->taken_capacity, inc);
    else
        emit_closed_well(d, inc);
}

static void drop_follow_up(struct decision *d, const struct incident *inc)
{
    const struct gate_result returned = {.name = "returned", .reason = SV("the alert has come again")};
    emit_refusal(d, inc, (int64_t)inc->runbook->n_steps + 1, &inc->runbook->follow_up, SV("{}"), &returned,
                 SV("[{\"gate\":\"returned\",\"limit\":0,\"ok\":false,\"value\":1}]"))
        ->purpose = SV("follow_up");
    emit_closed_well(d, inc);
}

static void next_rung(struct decision *d, const struct incident *inc, const char *why)
{
    int64_t number = inc->step + 1;
    if (number <= (int64_t)inc->runbook->n_steps) {
        (void)attempt(d, inc, number, false);
        return;
    }
    escalate(d, inc, inc->step,
             arena_printf(d->arena, "%s after step %" PRId64 " of %zu, the last", why, inc->step,
                          inc->runbook->n_steps));
}

/* ---- one incident: what follows from where it stands ---- */

static void decide_followed_up(struct decision *d, const struct incident *inc)
{
    if (inc->outcome == OUTCOME_DONE || inc->outcome == OUTCOME_UNCHANGED)
        emit_closed_well(d, inc);
    else
        escalate(d, inc, inc->step, SV("the repair was verified, but its follow-up did not succeed"));
}

static void decide_following(struct decision *d, const struct incident *inc)
{
    if (inc->hold_broken)
        drop_follow_up(d, inc);
    else if (inc->timer == NULL)
        attempt_follow_up(d, inc);
}

static void decide_ended(struct decision *d, const struct incident *inc)
{
    const struct runbook_step *step = &inc->runbook->steps[inc->step - 1];
    bool has_acted = inc->outcome == OUTCOME_DONE || inc->outcome == OUTCOME_UNCHANGED;
    if (inc->alert == ALERT_EXPIRED) {
        emit_closed(d, inc, "unknown"); /* its source fell silent: that is no proof of anything */
    } else if (has_acted && step->verify == VERIFY_CHECK) {
        if (step->hold_ns > 0)
            emit_timer(d, inc, "hold", d->in->time_ns + step->hold_ns);
        else
            emit_healed(d, inc, "check");
    } else if (inc->alert == ALERT_RESOLVED) {
        /* It resolved while the bot was at work: ours if the bot changed something. */
        if (inc->outcome != OUTCOME_DONE)
            emit_closed(d, inc, "resolved");
        else if (step->hold_ns > 0)
            emit_timer(d, inc, "hold", d->in->time_ns + step->hold_ns);
        else
            emit_healed(d, inc, "resolve");
    } else if (has_acted) {
        emit_timer(d, inc, "verify", d->in->time_ns + step->within_ns);
    } else if (inc->outcome == OUTCOME_UNKNOWN) {
        escalate(d, inc, inc->step,
                 SV("nobody knows whether the act took effect; going on could do it twice"));
    } else if (inc->outcome == OUTCOME_EXPIRED && runbook_is_scheduled(inc->runbook)) {
        next_rung(d, inc, "the act did not begin in time");
    } else if (inc->outcome == OUTCOME_EXPIRED) {
        (void)attempt(d, inc, inc->step, false); /* it never began: the same step, through all gates again */
    } else {
        next_rung(d, inc, inc->outcome == OUTCOME_REFUSED ? "the bot refused" : "the act failed");
    }
}

static void decide_verifying(struct decision *d, const struct incident *inc)
{
    const struct runbook_step *step = &inc->runbook->steps[inc->step - 1];
    if (inc->alert == ALERT_EXPIRED) {
        emit_closed(d, inc, "unknown");
    } else if (inc->alert == ALERT_RESOLVED) {
        if (step->hold_ns > 0)
            emit_timer(d, inc, "hold", d->in->time_ns + step->hold_ns);
        else
            emit_healed(d, inc, "resolve");
    } else if (inc->timer == NULL) {
        emit_verified(d, inc, false, "timeout");
        next_rung(d, inc, "the alert went on");
    }
}

static void decide_holding(struct decision *d, const struct incident *inc)
{
    if (inc->alert == ALERT_EXPIRED) {
        emit_closed(d, inc, "unknown");
    } else if (inc->hold_broken) {
        emit_verified(d, inc, false, "hold");
        if (inc->alert == ALERT_FIRING)
            next_rung(d, inc, "the alert came again");
        else
            emit_closed(d, inc, "resolved"); /* the new alert is an incident of its own */
    } else if (inc->timer == NULL) {
        emit_healed(d, inc, "hold");
    }
}

/* What ends by itself and is not at work is at its end: a predecessor was cut off before it closed it. */
static void decide_idle_run(struct decision *d, const struct incident *inc)
{
    if (inc->phase == INCIDENT_NEW)
        (void)attempt(d, inc, 1, false);
    else if (inc->phase == INCIDENT_ESCALATED && !list_is_linked(&inc->in_slot)) /* told, or nobody to tell */
        emit_closed(d, inc, "escalated");
    else if (inc->phase != INCIDENT_ESCALATED)
        emit_closed(d, inc, "skipped");
}

static void decide_incident(struct decision *d, const struct incident *inc)
{
    bool is_given_up = inc->is_closing && incident_is_overdue(inc, d->in->time_ns);
    if (inc->phase == INCIDENT_ACTING && !is_given_up)
        return; /* whatever came meanwhile: the outcome is awaited, and decided on then */
    if (inc->is_closing) {
        emit_closed(d, inc, "manual");
        if (is_given_up)
            emit_wake_timer(d, inc->slot); /* its place among the runbook's acts is free after this */
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
    } else if (ends_by_itself(inc)) {
        decide_idle_run(d, inc);
    } else if (inc->alert != ALERT_FIRING) {
        emit_closed(d, inc,
                    inc->alert == ALERT_EXPIRED ? "unknown"
                    : inc->is_escalated         ? "escalated"
                                                : "resolved");
    } else if (inc->phase == INCIDENT_NEW) {
        (void)attempt(d, inc, inc->step > 0 ? inc->step : 1, false); /* a step: of the act to be retried */
    } else if (inc->phase == INCIDENT_DELAYED && inc->timer == NULL) {
        (void)attempt(d, inc, inc->step, false);
    } else if (inc->phase == INCIDENT_REFUSED && inc->gate != NULL && strcmp(inc->gate, "rate") == 0) {
        escalate(d, inc, inc->step,
                 SV("too many acts on this target")); /* only if a predecessor was cut off between the two */
    }
}

/* ---- those who waited ---- */

/* Returns the gate at which it still waits, or NULL. */
static const char *wake(struct decision *d, const struct incident *inc)
{
    for (size_t i = 0; i < d->n_handled; i++)
        if (d->handled[i] == inc) return NULL;
    if (inc->phase != INCIDENT_WAITING || inc->alert != ALERT_FIRING || inc->is_closing ||
        ends_by_itself(inc) || d->n_handled == ARRAY_LEN(d->handled))
        return NULL;
    const char *gate = attempt(d, inc, inc->step, true);
    d->handled[d->n_handled++] = inc;
    return gate;
}

static bool stops_all(const char *gate)
{
    return gate != NULL && (strcmp(gate, "in_flight_runbook") == 0 || strcmp(gate, "freeze") == 0 ||
                            strcmp(gate, "clock") == 0);
}

/* Cheap: what keeps an incident waiting is mostly its target. Its own event will come. */
static bool is_held_by_target(const struct decision *d, const struct incident *inc)
{
    const struct target *t = inc->target;
    if (t == NULL) return false;
    for (size_t i = 0; i < d->n_taken; i++)
        if (d->taken[i]->target == t) return true;
    size_t n_freed = d->freed != NULL && d->freed->target == t && incident_is_busy(d->freed) ? 1 : 0;
    return t->n_busy > n_freed || has_delayed(d, inc);
}

/* After anything that may have freed the target. Each one that is looked at gets its intent or a new refusal,
 * so this ends; of those whom the cooldown holds up, the first gets a timer and the others wait for it. */
static void wake_target(struct decision *d, const struct target *t)
{
    int n = 0;
    for (struct list *node = t == NULL ? NULL : t->incidents.next; t != NULL && node != &t->incidents;
         node = node->next) {
        const struct incident *inc = container_of(node, struct incident, on_target);
        if (inc->phase != INCIDENT_WAITING || is_held_by_target(d, inc)) continue;
        if (n++ == WAKE_MAX) {
            emit_wake_timer(d, inc->slot);
            return;
        }
        const char *gate = wake(d, inc);
        if (stops_all(gate) && strcmp(gate, "in_flight_runbook") != 0) return;
    }
}

/* What could not be told while acting was stopped. False: too many for one decision. */
static bool tell_untold(struct decision *d, const struct runbook_slot *slot)
{
    int n = 0;
    if (d->state->is_frozen) return true;
    for (struct list *node = slot->untold.next; node != &slot->untold; node = node->next) {
        const struct incident *inc = container_of(node, struct incident, in_slot);
        if (n++ == WAKE_MAX) {
            emit_wake_timer(d, slot);
            return false;
        }
        if (inc->is_closing) continue;
        tell(d, inc, inc->step, arena_copy(d->arena, inc->escalation_reason));
        if (ends_by_itself(inc)) emit_closed(d, inc, "escalated");
    }
    return true;
}

static void wake_slot(struct decision *d, const struct runbook_slot *slot)
{
    int n = 0;
    if (!tell_untold(d, slot)) return;
    for (struct list *node = slot->waiting.next; node != &slot->waiting; node = node->next) {
        const struct incident *inc = container_of(node, struct incident, in_slot);
        if (is_held_by_target(d, inc)) continue;
        if (n++ == WAKE_MAX || d->n_handled == ARRAY_LEN(d->handled)) {
            emit_wake_timer(d, slot);
            return;
        }
        if (stops_all(wake(d, inc))) return;
    }
}

static void wake_all_slots(struct decision *d)
{
    for (struct list *node = d->state->slots_list.next; node != &d->state->slots_list; node = node->next)
        wake_slot(d, container_of(node, struct runbook_slot, node));
}

/* ---- one input ---- */

static const struct runbook *runbook_for(const struct state *s, const struct record *in)
{
    if (in->kind != RECORD_TICK) return state_match(s, &in->labels, NULL);
    const struct active_runbook *active = state_active(s, in->runbook);
    return active != NULL && active->mode != RUNBOOK_OFF ? active->runbook : NULL;
}

static void refuse_for_capacity(struct decision *d)
{
    const struct runbook *rb = runbook_for(d->state, d->in);
    if (rb == NULL) return;
    struct record *r = emit_plain(d, RECORD_REFUSAL);
    r->incident = d->in->incident;
    r->fingerprint = d->in->fingerprint;
    r->runbook = rb->name;
    r->runbook_hash = sv(rb->hash);
    r->gate = SV("capacity");
    r->gates = arena_printf(d->arena, "[{\"gate\":\"capacity\",\"limit\":%d,\"ok\":false,\"value\":%zu}]",
                            INCIDENTS_MAX, d->state->n_incidents);
    r->reason = SV("too many incidents are open");
}

static void decide_firing(struct decision *d)
{
    const struct incident *inc = state_incident(d->state, d->in->incident);
    if (inc == NULL && state_is_full(d->state, d->in)) refuse_for_capacity(d);
    if (inc == NULL || inc->seq != d->seq) return;
    /* First the one whose hold it breaks: it was there before. */
    for (struct list *node = inc->target == NULL ? NULL : inc->target->incidents.next;
         node != NULL && node != &inc->target->incidents; node = node->next) {
        const struct incident *other = container_of(node, struct incident, on_target);
        if (!incident_is_at_front(other)) break;
        if (other->hold_broken) decide_incident(d, other);
    }
    decide_incident(d, inc);
    if (d->freed != NULL) wake_target(d, inc->target); /* the newcomer may have been refused for good */
}

/* An input about one incident, and about those that waited for it: only what was at its target's front can
 * have made room there. Ten thousand alerts on one target would else be looked at by each one's resolve. */
static void decide_about(struct decision *d)
{
    const struct incident *inc = state_incident(d->state, d->in->incident);
    if (inc == NULL) return;
    decide_incident(d, inc);
    if (incident_is_at_front(inc)) wake_target(d, inc->target);
    if (d->in->kind == RECORD_OUTCOME) wake_slot(d, inc->slot);
}

static void decide_retry(struct decision *d)
{
    const struct incident *inc = state_incident(d->state, d->in->incident);
    if (inc == NULL) return;
    if (sv_eq(d->in->purpose, SV("escalate")))
        (void)tell_untold(d, inc->slot);
    else
        decide_incident(d, inc);
}

static void decide_everything(struct decision *d)
{
    for (struct list *node = d->state->incidents_list.next; node != &d->state->incidents_list;
         node = node->next)
        decide_incident(d, container_of(node, struct incident, node));
    wake_all_slots(d);
    /* Places given up by several incidents at once are seen as free only once this is folded. */
    for (struct list *node = d->state->slots_list.next; d->has_freed_more && node != &d->state->slots_list;
         node = node->next)
        emit_wake_timer(d, container_of(node, struct runbook_slot, node));
}

void decide(const struct state *state, uint64_t seq, const struct record *in, struct arena *a,
            struct record **ret_out, size_t *ret_n)
{
    struct decision d = {.state = state, .seq = seq, .in = in, .arena = a};
    if (state->epoch == 0) { /* nobody decides yet */
        *ret_n = 0;
        return;
    }
    if (in->kind == RECORD_TICK || (in->kind == RECORD_SIGNAL && sv_eq(in->status, SV("firing")))) {
        decide_firing(&d);
    } else if (in->kind == RECORD_SIGNAL || in->kind == RECORD_EXPIRED || in->kind == RECORD_OUTCOME ||
               in->kind == RECORD_CLOSE || (in->kind == RECORD_FIRED && in->incident.len > 0)) {
        decide_about(&d);
    } else if (in->kind == RECORD_RETRY) {
        decide_retry(&d);
    } else if (in->kind == RECORD_FIRED && in->runbook.len > 0) {
        const struct runbook_slot *slot = table_get(&state->slots, in->runbook);
        if (slot != NULL) wake_slot(&d, slot);
    } else if ((in->kind == RECORD_FREEZE || in->kind == RECORD_CLOCK) && !in->on) {
        wake_all_slots(&d);
    } else if (in->kind == RECORD_EPOCH) {
        decide_everything(&d);
    }
    *ret_out = d.out;
    *ret_n = d.n;
}
