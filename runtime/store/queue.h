/* Pending work: the intents and calls without outcome, as a fold over the journal, with the semantics of a
 * good queue; the same for every store (contracts/keda-queues.md §6).
 *
 *   intent/call --> ready --take--> leased --outcome--> gone
 *                     ^               |  nack: RECORD_RETRY with due time (backoff, full jitter) or, after
 *                     +---due time----+        the last attempt, RECORD_OUTCOME state "dead"
 *                     ^                           |
 *                     |                           v     a person's RECORD_OUTCOME "dropped", or RECORD_RETRY
 *                     +---RECORD_RETRY "again"-- dead --> "anew" (another intent comes in its place): gone
 *
 * - serial per target: an item is ready only if nothing of its target is leased; ready items of a target
 *   go by sequence; one that waits for its due time lets later ones pass. No target: no order; a call has
 *   none, whatever its record says
 * - per function at most `max_inflight_function` leased, and no more than it leaves to the others: a function
 *   that has n leased gets another only while n places are free. So bots that hang cannot take all places,
 * and one alone gets half of them and one
 * - intents go before calls, and calls may have at most half of what can be in flight, over all and per
 *   function (rounded up): anybody may add calls, and however many and slow they are, an act finds a place
 * - attempts count at the take, so a crash loop is seen: RECORD_RETRY with state "failed", "interrupted"
 *   (both count) or "snoozed" (does not)
 * - a person's records (RECORD_RETRY without attempt, RECORD_OUTCOME "dropped") count for dead items alone:
 *   what has ended otherwise is not begun again, what is under way is not taken from its holder. "again"
 *   gives all attempts back
 * - taking writes no record, so after our own death every item that may have been begun is handed out again
 *   with is_interrupted set, same intent, so that the function's on_unknown can be applied. After a kill the
 *   marks of what was handed out say which (taken_file). Without them, as after a power loss, may have been:
 *   it was due, and no earlier item of its target, ready all the time, kept it back. Before such an item is
 *   handed out its lost attempt is recorded.
 * - a lease is in memory: it ends with its holder; a store with many invokers adds its own (consumer ack
 *   wait). It survives a reset of the journal.
 * - an item is handed out only once its intent is durable; an intent of an epoch that is over is void
 *
 * - the end of an item may bring a call with it (queue_item.sequel): both are recorded, or neither
 * - a jump of the clock (RECORD_CLOCK) moves every due time and age with it
 *
 * The identity in the journal is `intent`; a call without one is known as "call-SEQ". */
#ifndef BALM_STORE_QUEUE_H
#define BALM_STORE_QUEUE_H

#include "store/journal.h"

/* What a configuration may allow. So many items of a function without order count as perhaps begun after a
 * restart, which costs each an attempt. */
#define QUEUE_INFLIGHT_MAX 64
/* queue_admit_call() refuses new calls; what is in the journal is never dropped, and neither is an intent. */
#define QUEUE_ITEMS_MAX 1000000
/* Of one function, without outcome: calls need no credentials, and whoever sends more than a function serves
 * would fill our memory, make every start longer, and keep others' calls waiting for hours. */
#define QUEUE_CALLS_MAX 10000
/* Dead items that can still be retried; older ones are in the journal only. */
#define QUEUE_DEAD_MAX 10000
/* Of records kept in memory; the rest is read again from the journal when taken. */
#define QUEUE_BYTES_MAX (64 * 1024 * 1024)
/* A function cannot put its item off for longer at once. */
#define QUEUE_RETRY_AFTER_MAX_NS (3600 * INT64_C(1000000000))
/* An item older than this is snoozed no more: attempts count. */
#define QUEUE_SNOOZE_MAX_NS (3600 * INT64_C(1000000000))

struct queue;

struct queue_cfg {
    unsigned max_inflight;          /* over all functions; 0: 64; not above the number of takers */
    unsigned max_inflight_function; /* per function; 0: 10 */
    /* 0: 5; telling a person (purpose "escalate") is tried until the intent's deadline, however often. */
    unsigned max_attempts;
    int64_t backoff_base_ns, backoff_cap_ns; /* 0: 1 s, 60 s */
    /* Where it is noted what is handed out (queue_taken.c), for the process after us; copied. NULL: nowhere.
     */
    const char *taken_file;
};

/* Follows `j`. Fold the past by journal_fold(), or journal_replay() with queue_follower(), before the
 * first take; what the journal held when the queue was made is the past, in which attempts may have been
 * interrupted. */
enum status queue_new(struct journal *j, const struct queue_cfg *cfg, struct queue **ret_queue,
                      struct error *err) MUST_USE;
/* No fiber may be in a call of the queue. NULL does nothing. */
void queue_free(struct queue *q);
struct journal_follower *queue_follower(struct queue *q);

struct queue_item {
    uint64_t seq;        /* of the intent or call: the item's identity */
    uint64_t token;      /* of this lease: ack and nack with an older one are refused */
    unsigned attempt;    /* 1 for the first */
    bool is_interrupted; /* the attempt before was begun and its end is unknown */
    /* Some attempt before, not only the last, may have taken effect: it was interrupted or ended with code
     * UNKNOWN. A definite end is the holder's to record; a person who has it retried has looked. */
    bool has_lost_answer;
    const struct record *record; /* arena */
    /* A call with a callback whose attempts are used up by our own deaths: its holder only ends it, since
     * nobody else can say what its caller shall be told. */
    bool is_spent;
    /* For the holder to fill in before it ends the item: a call that comes of the end, in one batch with the
     * RECORD_OUTCOME (not with a RECORD_RETRY). NULL: none. Borrowed until then. */
    const struct record *sequel;
    /* How far the clock has jumped since the record was written: its times are by the clock of then. */
    int64_t turned_ns;
};

/* Suspends until an item is ready; leases it. After queue_stop(): STATUS_CANCELLED. STATUS_DATA_LOSS: its
 * record cannot be read; the item is put back and tried again in a second. */
enum status queue_take(struct queue *q, int64_t deadline_ns, struct arena *a, struct queue_item *ret_item,
                       struct error *err) MUST_USE;
/* The end: appends `outcome` (kind, intent, target, function, incident, attempt are filled in from the
 * item; time must be set) and ends the lease. Returns once it is durable. Shielded and repeated while the
 * store is unavailable: an outcome is never dropped, except that after queue_stop() a store that stays
 * away gives STATUS_UNAVAILABLE, and the item is an interrupted one after the restart.
 * STATUS_ABORTED: the token is old, or somebody else recorded an outcome. STATUS_INVALID_ARGUMENT: outcome
 * too large; still leased. */
enum status queue_done(struct queue *q, const struct queue_item *item, struct record *outcome,
                       struct error *err) MUST_USE;
/* A failed attempt that may be repeated: appends RECORD_RETRY (reason, code, due) or, at the last attempt,
 * RECORD_OUTCOME "dead", with code UNKNOWN if any attempt's answer was lost, whatever the last one's. counts
 * false: a snooze (function at 0, gateway restarting) that uses up no attempt. retry_after_ns 0: backoff
 * decides. */
enum status queue_retry(struct queue *q, const struct queue_item *item, bool counts, int64_t retry_after_ns,
                        struct strview code, struct strview reason, struct error *err) MUST_USE;
/* While true nothing is handed out (balm stop). */
void queue_freeze(struct queue *q, bool is_frozen);
/* Every take returns STATUS_CANCELLED from now on. */
void queue_stop(struct queue *q);

struct queue_depth {
    size_t ready, leased, dead;
    size_t waiting; /* due later */
    int64_t oldest_ns;
};
/* function empty: all. For status, metrics, scaling. */
struct queue_depth queue_depth(const struct queue *q, struct strview function);
/* Each function that ever had work since the queue was made. */
void queue_each_function(const struct queue *q, void (*fn)(void *arg, struct strview function), void *arg);
/* Whose attempts are used up; it waits for a person. Views in the arena. */
struct queue_dead {
    uint64_t seq, ended_seq; /* of its record and of its outcome */
    struct strview id;       /* "intent" in the journal */
    struct strview function;
    bool is_call;
};
/* Those of one function (empty: of all), that died first first, at most `max` of them. *ret_total: how many
 * there are. */
size_t queue_list_dead(const struct queue *q, struct strview function, size_t max, struct arena *a,
                       struct queue_dead **ret_dead, size_t *ret_total);
/* Is the intent or call of that id among them? */
bool queue_is_dead(const struct queue *q, struct strview id);
bool queue_is_full(const struct queue *q);
/* Whoever accepts calls asks before each. STATUS_RESOURCE_EXHAUSTED: too many have no outcome yet. */
enum status queue_admit_call(const struct queue *q, struct strview function, struct error *err) MUST_USE;

#endif
