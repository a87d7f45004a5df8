/* Asks Alertmanager what fires and puts right what deliveries failed to tell (design §4: episodes).
 *
 *   each interval, after the start, and at once after a delivery with truncatedAlerts
 *        v
 *   GET /api/v2/status, GET /api/v2/alerts?…  of each Alertmanager, one after the other      (suspends)
 *        v
 *   listing.h reads, survey.h folds them together                                            (worker)
 *        v
 *   listed:  intake_take() as if delivered        -> signal, seen, expired + signal          (in batches)
 *   missing: open episodes that none lists        -> expired
 *
 * Records that it causes have `how` "reconcile" and a reason. It never heals anything, and it opens nothing
 * that Alertmanager itself keeps from us. Loop thread only. */
#ifndef BALM_FUNCTIONS_ALERTS_RECONCILE_H
#define BALM_FUNCTIONS_ALERTS_RECONCILE_H

#include "base/json.h"
#include "functions/alerts/intake.h"

#define RECONCILE_PEERS_MAX 8

/* NULL in *ret_reconcile: env names no Alertmanager. in: borrowed, outlives it.
 * STATUS_INVALID_ARGUMENT: a URL that is none, or has a user or password in it. */
enum status reconcile_new(const struct core_env *env, struct intake *in, struct reconcile **ret_reconcile,
                          struct error *err) MUST_USE;
/* After the fold. NULL does nothing. */
enum status reconcile_start(struct reconcile *r, struct error *err) MUST_USE;
/* A sender cut alerts off: ask now, and do not wait for their delivery. NULL does nothing. */
void reconcile_wake(struct reconcile *r);
/* Stops and frees. From a fiber. NULL does nothing. */
void reconcile_free(struct reconcile *r);
/* [{"name","up","last","ageSeconds","error"}…]: when each answered last, and what went wrong since. A new
 * value; r NULL: empty. */
json_t *reconcile_json(const struct reconcile *r);

#endif
