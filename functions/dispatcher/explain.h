/* `balm why INCIDENT`: what happened in one incident and why, from its records alone. Pure; works on a
 * running platform's journal and offline on a data folder.
 *
 * JSON: incident, state (open, healed, resolved, unknown, escalated, manual), alert {labels, annotations,
 * startsAt, received, source …}, runbook {name, hash, mode}, target, acts [{intent, step, function, params,
 * gates, retries, outcome, undo …; retried and dropped {time, actor, reason}: by a person}], refusals,
 * verification, escalation, notes, closing {time, actor, reason}: by a person, next (one sentence), undo
 * (commands), timeline [{seq, time, kind, text}]. Text is made from that JSON only. */
#ifndef BALM_DISPATCHER_EXPLAIN_H
#define BALM_DISPATCHER_EXPLAIN_H

#include "base/json.h"
#include "store/journal.h"

#define EXPLAIN_RECORDS_MAX 10000 /* of one incident; more are counted in "omitted" */

/* Fed with records in journal order; those of other incidents are ignored. */
struct explain;
struct explain *explain_new(struct strview incident);
void explain_free(struct explain *x);
void explain_add(struct explain *x, uint64_t seq, const struct record *r);
/* New value, owned by the caller. STATUS_NOT_FOUND: no record names the incident. */
enum status explain_json(const struct explain *x, json_t **ret_json, struct error *err) MUST_USE;
/* For people, from explain_json()'s value. */
void explain_text(const json_t *explained, struct buf *out);
/* All of the above from a data folder's journal. */
enum status explain_read(struct journal_reader *reader, struct strview incident, json_t **ret_json,
                         struct error *err) MUST_USE;

#endif
