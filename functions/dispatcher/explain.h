/* `balm why INCIDENT`: what happened in one incident and why, from its records alone. Pure; works on a
 * running platform's journal and offline on a data folder.
 *
 * JSON: incident, state (open, healed, resolved, unknown, escalated, manual; of a schedule's run done,
 * skipped, escalated, manual), alert {labels, annotations, startsAt, received, source …; due instead of
 * startsAt: a schedule's run}, runbook {name, hash, mode}, target, acts [{intent, purpose (escalate,
 * follow_up; none of a step), step, function, params, gates, retries, outcome, undo …; retried and dropped
 * {time, actor, reason}: by a person}], refusals, verification, escalation, notes, closing {time, actor,
 * reason}: by a person, what (happened, one sentence), next (one sentence), run (commands for whoever reads
 * it, "COMMAND  # what for"), undo (commands), timeline [{seq, time, kind, purpose, text}]. Whoever knows
 * that no platform runs on the journal adds platform: "down". Text is made from that JSON only. */
#ifndef BALM_DISPATCHER_EXPLAIN_H
#define BALM_DISPATCHER_EXPLAIN_H

#include "base/json.h"
#include "store/journal.h"

#define EXPLAIN_RECORDS_MAX 10000 /* of one incident; more are counted in "omitted" */

/* Fed with all records in journal order: of those that belong to no incident it looks whether acting is
 * stopped; those of other incidents are ignored. */
struct explain;
struct explain *explain_new(struct strview incident);
void explain_free(struct explain *x);
/* When it is looked at: what is overdue by then is said so. Until then the time of the newest record. */
void explain_at(struct explain *x, int64_t now_ns);
/* Acting is stopped now, though no record that was added may say so. */
void explain_stopped(struct explain *x);
void explain_add(struct explain *x, uint64_t seq, const struct record *r);
/* New value, owned by the caller. STATUS_NOT_FOUND: no record names the incident. */
enum status explain_json(const struct explain *x, json_t **ret_json, struct error *err) MUST_USE;
/* For people, from explain_json()'s value: lines of at most EXPLAIN_COLUMNS characters, and where possible no
 * more than EXPLAIN_LINES: the timeline is cut in its middle for that. What is cut is in the JSON. */
#define EXPLAIN_COLUMNS 100
#define EXPLAIN_LINES   24
void explain_text(const json_t *explained, struct buf *out);
/* All of the above from a data folder's journal. */
enum status explain_read(struct journal_reader *reader, struct strview incident, json_t **ret_json,
                         struct error *err) MUST_USE;

#endif
