/* Pending work: the intents and calls without outcome, as a fold over the journal, with the semantics of a good queue; the same for
 * every store (contracts/keda-queues.md §6).
 *
 *   intent/call --> ready --take--> leased --outcome--> gone
 *                     ^               |  nack: RECORD_RETRY with due time (backoff, full jitter) or, after the last attempt,
 *                     +---due time----+        RECORD_OUTCOME state "dead" (dead letter; listed, can be retried by a person)
 *
 * - serial per target: an item is ready only if nothing of its target is leased; others pass (skip order), within a target by sequence
 * - per function at most `max_inflight` leased
 * - attempts count at the take: a crash loop is seen; an attempt that was interrupted by our own death (a lease without outcome or retry at
 *   the fold's end) is handed out again with is_interrupted set, same intent, so the function's on_unknown can be applied
 * - a lease is in memory: it ends with its holder; a store with many invokers adds its own (consumer ack wait)
 * - an item is handed out only once its intent is durable */
#ifndef BALM_STORE_QUEUE_H
#define BALM_STORE_QUEUE_H

#include "store/journal.h"

#define QUEUE_ITEMS_MAX 1000000

struct queue;

struct queue_cfg {
    unsigned max_inflight;          /* over all functions; 0: 64 */
    unsigned max_inflight_function; /* per function; 0: 10 */
    unsigned max_attempts;          /* 0: 5 */
    int64_t backoff_base_ns, backoff_cap_ns; /* 0: 1 s, 60 s */
};

/* Follows `j`. Fold the past by journal_replay() with queue_follower() before the first take. */
enum status queue_new(struct journal *j, const struct queue_cfg *cfg, struct queue **ret_queue, struct error *err) MUST_USE;
void queue_free(struct queue *q);
struct journal_follower *queue_follower(struct queue *q);

struct queue_item {
    uint64_t seq;           /* of the intent or call: the item's identity */
    uint64_t token;         /* of this lease: ack and nack with an older one are refused */
    unsigned attempt;       /* 1 for the first */
    bool is_interrupted;    /* an earlier attempt was begun and its end is unknown */
    const struct record *record; /* arena */
};

/* Suspends until an item is ready; leases it. After queue_stop(): STATUS_CANCELLED. */
enum status queue_take(struct queue *q, int64_t deadline_ns, struct arena *a, struct queue_item *ret_item, struct error *err) MUST_USE;
/* The end: appends `outcome` (kind, intent, target, function, incident, attempt are filled in from the item; time must be set) and ends the lease.
 * Shielded and repeated while the store is unavailable: an outcome is never dropped. STATUS_ABORTED: the token is old. */
enum status queue_done(struct queue *q, const struct queue_item *item, struct record *outcome, struct error *err) MUST_USE;
/* A failed attempt that may be repeated: appends RECORD_RETRY (reason, code, due) or, at the last attempt, RECORD_OUTCOME "dead".
 * counts false: a snooze (function at 0, gateway restarting) that uses up no attempt. retry_after_ns 0: backoff decides. */
enum status queue_retry(struct queue *q, const struct queue_item *item, bool counts, int64_t retry_after_ns, struct strview code,
                        struct strview reason, struct error *err) MUST_USE;
/* While true nothing is handed out (balm stop). */
void queue_freeze(struct queue *q, bool is_frozen);
/* Every take returns STATUS_CANCELLED from now on. */
void queue_stop(struct queue *q);

struct queue_depth { size_t ready, leased, waiting /* due later */, dead; int64_t oldest_ns; };
/* function empty: all. For status, metrics, scaling. */
struct queue_depth queue_depth(const struct queue *q, struct strview function);

#endif
