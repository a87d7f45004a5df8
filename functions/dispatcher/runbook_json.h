/* The JSON of GET /runbooks and GET /runbooks/NAME: what is in force, with everything written out. */
#ifndef BALM_DISPATCHER_RUNBOOK_JSON_H
#define BALM_DISPATCHER_RUNBOOK_JSON_H

#include "functions/dispatcher/dispatcher_impl.h"

/* New values, owned by the caller.
 * [{name, mode, hash, file, match [text] | schedule, time_zone, start_deadline, target, steps [bot],
 * follow_up bot, escalate bot, acts, lastActed, shadowed, inFlight, waiting}], in the order in which they are
 * tried. */
json_t *runbook_list_json(const struct dispatcher *d);
/* The same of one, with steps, guardrails, follow_up and escalate as a runbook has them and every default
 * filled in, and activated {seq, time, actor}: since when this text is in force in this mode, and by whom.
 * Suspends. STATUS_NOT_FOUND: none of that name is in force; the sentence has the nearest that is. */
enum status runbook_show_json(const struct dispatcher *d, struct strview name, struct arena *a,
                              json_t **ret_json, struct error *err) MUST_USE;

#endif
