#include "functions/dispatcher/decide_impl.h"

#include <inttypes.h>
#include <string.h>

#include "functions/dispatcher/gates.h"
#include "functions/dispatcher/template.h"

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

bool decide_has_delayed(const struct decision *d, const struct incident *inc)
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
    struct record *r = decide_emit(d, RECORD_INTENT, inc);
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
    struct record *r = decide_emit(d, RECORD_REFUSAL, inc);
    r->function = step->bot;
    r->mode = sv(runbook_mode_name(state_mode(d->state, inc->runbook->name)));
    r->step = number;
    r->params = params;
    r->gate = sv(gate->name);
    r->gates = gates;
    r->reason = gate->reason;
    return r;
}

/* What a step would be called with, and what the gates say of it. */
struct answered {
    const struct runbook_step *step;
    bool is_escalation;
    struct strview params;
    struct gate_result results[GATES_MAX];
    size_t n;
    const struct gate_result *refused; /* in results; NULL: it may act */
};

/* reason: for the person who is told, where it is an escalation. */
static void ask_gates(struct decision *d, const struct incident *inc, const struct runbook_step *step,
                      bool is_escalation, struct strview reason, struct answered *ret)
{
    struct strview missing;
    ret->step = step;
    ret->is_escalation = is_escalation;
    ret->params = make_params(d, inc, step, reason, &missing);
    struct gate_question q = ask(d, inc, missing);
    ret->refused = is_escalation ? gates_evaluate_escalation(&q, d->arena, ret->results, &ret->n)
                                 : gates_evaluate(&q, d->arena, ret->results, &ret->n);
}

static struct record *emit_answer(struct decision *d, const struct incident *inc, int64_t number,
                                  const struct answered *a)
{
    struct strview gates = gates_json(a->results, a->n, d->arena);
    return a->refused == NULL ? emit_intent(d, inc, number, a->step, a->is_escalation, a->params, gates)
                              : emit_refusal(d, inc, number, a->step, a->params, a->refused, gates);
}

void decide_tell(struct decision *d, const struct incident *inc, int64_t number, struct strview reason)
{
    struct answered a;
    ask_gates(d, inc, &inc->runbook->escalate, true, reason, &a);
    struct record *r = emit_answer(d, inc, number, &a);
    r->purpose = SV("escalate");
    r->target =
        arena_printf(d->arena, "escalation/%.*s", SV_ARG(inc->id)); /* not queued behind acts on the target */
}

void decide_escalate(struct decision *d, const struct incident *inc, int64_t number, struct strview reason)
{
    struct record *r = decide_emit(d, RECORD_ESCALATED, inc);
    r->reason = reason;
    r->function = inc->runbook->escalate.bot;
    r->step = number;
    if (incident_is_busy(inc)) decide_note_freed(d, inc);
    if (r->function.len > 0) decide_tell(d, inc, number, reason);
    bool is_untold = inc->runbook->escalate.bot.len > 0 && d->state->is_frozen; /* that keeps it open */
    if (incident_ends_by_itself(inc) && !is_untold) decide_emit_closed(d, inc, "escalated");
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
    struct strview reason = SV("this runbook only tells people");
    struct answered a;
    ask_gates(d, inc, &inc->runbook->escalate, true, reason, &a);
    if (a.refused == NULL || strcmp(a.refused->name, "mode") != 0) {
        decide_escalate(d, inc, 0, reason);
        return NULL;
    }
    (void)emit_answer(d, inc, 0, &a);
    if (runbook_is_scheduled(inc->runbook)) decide_emit_closed(d, inc, "skipped");
    return a.refused->name;
}

const char *decide_attempt(struct decision *d, const struct incident *inc, int64_t number, bool is_woken)
{
    if (inc->runbook->n_steps == 0) return hand_over(d, inc);
    if (number > (int64_t)inc->runbook->n_steps) { /* its follow-up, refused by a predecessor cut off there */
        decide_emit_closed_well(d, inc);
        return NULL;
    }
    struct answered a;
    ask_gates(d, inc, &inc->runbook->steps[number - 1], false, (struct strview){0}, &a);
    const struct gate_result *refused = a.refused;
    if (refused == NULL) {
        (void)emit_answer(d, inc, number, &a);
        add_incident(d, &d->taken, &d->n_taken, &d->taken_capacity, inc);
        return NULL;
    }
    bool has_timer = refused->opens_ns > 0 && decide_has_delayed(d, inc);
    if (is_woken && (opens_by_event(refused) || has_timer)) return refused->name;
    (void)emit_answer(d, inc, number, &a);
    if (runbook_is_scheduled(
            inc->runbook)) { /* what its time does not find open is over: the next will come */
        decide_emit_closed(d, inc, "skipped");
        return refused->name;
    }
    if (incident_is_busy(inc)) decide_note_freed(d, inc);
    if (refused->opens_ns > 0 && !has_timer) {
        decide_emit_timer(d, inc, "recheck", refused->opens_ns);
        add_incident(d, &d->delayed, &d->n_delayed, &d->delayed_capacity, inc);
    }
    if (strcmp(refused->name, "rate") == 0) decide_escalate(d, inc, number, refused->reason);
    return refused->name;
}

void decide_attempt_follow_up(struct decision *d, const struct incident *inc)
{
    struct answered a;
    ask_gates(d, inc, &inc->runbook->follow_up, false, (struct strview){0}, &a);
    emit_answer(d, inc, (int64_t)inc->runbook->n_steps + 1, &a)->purpose = SV("follow_up");
    if (a.refused == NULL)
        add_incident(d, &d->taken, &d->n_taken, &d->taken_capacity, inc);
    else
        decide_emit_closed_well(d, inc);
}

void decide_drop_follow_up(struct decision *d, const struct incident *inc)
{
    const struct gate_result returned = {.name = "returned", .reason = SV("the alert has come again")};
    emit_refusal(d, inc, (int64_t)inc->runbook->n_steps + 1, &inc->runbook->follow_up, SV("{}"), &returned,
                 SV("[{\"gate\":\"returned\",\"limit\":0,\"ok\":false,\"value\":1}]"))
        ->purpose = SV("follow_up");
    decide_emit_closed_well(d, inc);
}

void decide_next_rung(struct decision *d, const struct incident *inc, const char *why)
{
    int64_t number = inc->step + 1;
    if (number <= (int64_t)inc->runbook->n_steps) {
        (void)decide_attempt(d, inc, number, false);
        return;
    }
    decide_escalate(d, inc, inc->step,
                    arena_printf(d->arena, "%s after step %" PRId64 " of %zu, the last", why, inc->step,
                                 inc->runbook->n_steps));
}
