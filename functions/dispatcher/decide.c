#include "functions/dispatcher/decide_impl.h"

#include <string.h>

/* ---- those who waited ---- */

/* Returns the gate at which it still waits, or NULL. */
static const char *wake(struct decision *d, const struct incident *inc)
{
    for (size_t i = 0; i < d->n_handled; i++)
        if (d->handled[i] == inc) return NULL;
    if (inc->phase != INCIDENT_WAITING || inc->alert != ALERT_FIRING || inc->is_closing ||
        incident_ends_by_itself(inc) || d->n_handled == ARRAY_LEN(d->handled))
        return NULL;
    const char *gate = decide_attempt(d, inc, inc->step, true);
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
    return t->n_busy > n_freed || decide_has_delayed(d, inc);
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
        if (n++ == DECIDE_WAKE_MAX) {
            decide_emit_wake_timer(d, inc->slot);
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
        if (n++ == DECIDE_WAKE_MAX) {
            decide_emit_wake_timer(d, slot);
            return false;
        }
        if (inc->is_closing) continue;
        decide_tell(d, inc, inc->step, arena_copy(d->arena, inc->escalation_reason));
        if (incident_ends_by_itself(inc)) decide_emit_closed(d, inc, "escalated");
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
        if (n++ == DECIDE_WAKE_MAX || d->n_handled == ARRAY_LEN(d->handled)) {
            decide_emit_wake_timer(d, slot);
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
    struct record *r = decide_emit_plain(d, RECORD_REFUSAL);
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
        decide_emit_wake_timer(d, container_of(node, struct runbook_slot, node));
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
