/* The JSON of GET /status and GET /incidents. */
#ifndef BALM_DISPATCHER_STATUS_H
#define BALM_DISPATCHER_STATUS_H

#include "functions/dispatcher/dispatcher_impl.h"

/* New values, owned by the caller.
 * status: time, epoch, seq, alertmanager {groupInterval, repeatInterval}, frozen {on, since, by, reason,
 * recorded, file: DIR/stop is there}, clockSettling, incidents {open, phase counts, unmatched}, queues
 * [{function, ready, leased, waiting, dead, oldestSeconds}], runbooks [{name, mode, hash, bots, inFlight,
 * waiting}], mayAct [name], sources [{name, last, ageSeconds, signals}], reloadError,
 * runbooksChanged: since when the folder differs from what is in force, runbooksError: why it cannot be
 * looked at */
json_t *status_json(const struct dispatcher *d);
/* [{incident, state, phase, since, stuck, alert, target, runbook, step, opened, …}], newest first, open ones
 * before closed ones. */
json_t *status_incidents(const struct dispatcher *d, bool with_open, bool with_closed, size_t limit);

#endif
