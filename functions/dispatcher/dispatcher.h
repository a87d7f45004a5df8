/* The dispatcher: decides on alerts and has bots act (design §1, §5). Linked into `balm` as a core function.
 *
 *   journal --record--> state_apply()   fold: incidents, targets, runbooks, freeze (state.h)
 *                           |           replayed at the start
 *                       decide()        pure: intents, refusals, timers, verifications … (decide.h)
 *                           |           only by the active decider
 *   journal <--append-------+
 *   queue ---intent---> invokers (fibers) --signed invocation--> bot --answer--> outcome --> journal
 *
 *   GET  /status         JSON of the whole: epoch, freeze, incidents, queues, runbooks, sources (status.h)
 *   GET  /incidents[?state=open|closed|all&limit=N]   newest first
 *   GET  /incidents/ID   what `balm why` prints, as JSON (explain.h)
 *   GET  /runbooks       what is in force, in order; /runbooks/NAME: one with every default written out
 *   POST /explain        signal records, one a line: what they would lead to (preview.h); changes nothing
 *   POST /freeze         {"on":true,"actor":"…","reason":"…"}: answers once no mutating request can leave any
 *                        bot; {"on":false,…} resumes, unless DIR/stop is there
 *   POST /notes          {"incident":"…","actor":"…","message":"…"}
 *   POST /close          {"incident":"…","actor":"…","reason":"…"}: a person ends an incident (state.h)
 *   GET  /dead[?function=F&limit=N]   acts and calls whose attempts are used up, that died first first
 *   POST /dead/retry     {"actor":"…","id":"…"} or {"actor":"…","all":true[,"function":"…"]}
 *   POST /dead/drop      the same, and "reason"
 *
 * An incident or dead letter is named by its id or by a part of it that fits no other (ids.h). */
#ifndef BALM_DISPATCHER_DISPATCHER_H
#define BALM_DISPATCHER_DISPATCHER_H

#include "function/core.h"

extern const struct core_function dispatcher_function;

#endif
