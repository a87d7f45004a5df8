/* What would follow if these alerts came now: `balm explain` and `balm plan`. It is decide() itself, on a
 * copy of what it would look at (state_copy()), so the answer is that of the real thing; the state itself is
 * only read and nothing is recorded. Pure: no clock, file or network.
 *
 * The alerts of one preview are taken one after the other, as they would be if they came in this order: the
 * second one on a target sees the act of the first.
 *
 * JSON of an alert: alert, fingerprint, status, result, and as far as there are such
 *   incident, phase       that is open, or was closed, for it already
 *   runbook {hash, mode, name}, target, step, function, params
 *   gates                 [{gate, limit, ok, value}…], all of them
 *   refusals              names of those that are not ok; gate, reason: the first, in one sentence
 *   escalation            {function, params, reason}: who would be told
 *   others                [{function, incident, kind}…]: what follows for other incidents on the target
 *   next                  one sentence
 * result: "act", "shadow" (refused by the mode alone that its runbook has), "refused", "tell" (its runbook
 * has no steps: a person is told), "open" (known, nothing new), "closed" (the same, and its incident is
 * over), "no_runbook", "resolved" (ends what is open). */
#ifndef BALM_DISPATCHER_PREVIEW_H
#define BALM_DISPATCHER_PREVIEW_H

#include "functions/dispatcher/state.h"

#define PREVIEW_ALERTS_MAX 10000

/* signals: as the intake records them (RECORD_SIGNAL); they, and `state`'s runbooks, must live as long as the
 * preview. now_ns: wall clock. is_braked: acting is stopped although no record says so yet. */
struct preview;
struct preview *preview_new(const struct state *state, const struct record *signals, size_t n, int64_t now_ns,
                            bool is_braked);
void preview_free(struct preview *p);
/* The next alert's, a new value; NULL: that was all. state: as it is by now. */
json_t *preview_next(struct preview *p, const struct state *state);

/* A state that knows these runbooks and has seen no alert yet: for a preview without a platform. */
struct state *preview_state_of(const struct runbook_set *set);

#endif
