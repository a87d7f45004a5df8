/* Inside of decide(): for decide*.c alone.
 *
 *   decide.c           one input: which incidents to look at, and those who waited for one of them
 *   decide_incident.c  one incident: what follows from where it stands
 *   decide_act.c       acting: parameters, gates, intent or refusal, the next rung, telling a person
 *   decide_emit.c      the records that say so
 */
#ifndef BALM_DISPATCHER_DECIDE_IMPL_H
#define BALM_DISPATCHER_DECIDE_IMPL_H

#include "functions/dispatcher/decide.h"

/* How many waiting incidents one input may wake: bounds the records of one decision. What is left is woken by
 * a timer set for that purpose. */
enum { DECIDE_WAKE_MAX = 64 };

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
    const struct incident *handled[2 * DECIDE_WAKE_MAX]; /* woken already */
    size_t n_handled;
    const struct incident *freed; /* gives its place on its target up by this decision */
    bool has_freed_more;          /* than the one above */
};

/* No alert's end will close it. */
static inline bool incident_ends_by_itself(const struct incident *inc)
{
    return runbook_is_scheduled(inc->runbook) || incident_is_following_up(inc);
}

/* ---- decide_emit.c ----
 *
 * One more record, dated and caused by the input; the caller fills in what is its own. */

struct record *decide_emit_plain(struct decision *d, enum record_kind kind);
struct record *decide_emit(struct decision *d, enum record_kind kind, const struct incident *inc);
void decide_emit_closed(struct decision *d, const struct incident *inc, const char *state);
/* Its end if all went well. */
void decide_emit_closed_well(struct decision *d, const struct incident *inc);
void decide_emit_timer(struct decision *d, const struct incident *inc, const char *purpose, int64_t due_ns);
/* At once: whoever waits for a place of the runbook is looked at again, once this decision is folded. */
void decide_emit_wake_timer(struct decision *d, const struct runbook_slot *slot);
void decide_emit_verified(struct decision *d, const struct incident *inc, bool is_ok, const char *how);
/* Verified, and closed or followed up. */
void decide_emit_healed(struct decision *d, const struct incident *inc, const char *how);
/* It gives its place on its target up. */
void decide_note_freed(struct decision *d, const struct incident *inc);

/* ---- decide_act.c ---- */

/* Step `number` through all gates: an intent, or a refusal. is_woken: it was refused before and recorded;
 * another refusal by an event gate says nothing new. Returns the gate that refused, or NULL. */
const char *decide_attempt(struct decision *d, const struct incident *inc, int64_t number, bool is_woken);
/* The same of its follow-up, at its time or not at all. */
void decide_attempt_follow_up(struct decision *d, const struct incident *inc);
/* No follow-up: the alert has come again. */
void decide_drop_follow_up(struct decision *d, const struct incident *inc);
/* The step after the one that did not heal it, or a person. */
void decide_next_rung(struct decision *d, const struct incident *inc, const char *why);
/* Given up: recorded, and a person is told if the runbook names a way. */
void decide_escalate(struct decision *d, const struct incident *inc, int64_t number, struct strview reason);
/* An escalation's message, which only mode and freeze can hold up. */
void decide_tell(struct decision *d, const struct incident *inc, int64_t number, struct strview reason);
/* Does a recheck timer run for this target and runbook? Then it wakes all who wait for the same cooldown. */
bool decide_has_delayed(const struct decision *d, const struct incident *inc);

/* ---- decide_incident.c ---- */

void decide_incident(struct decision *d, const struct incident *inc);

#endif
