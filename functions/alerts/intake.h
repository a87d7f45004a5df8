/* Shared by this function's impure files alone:
 *
 *   handler.c    life cycle, the HTTP side, leases
 *   intake.c     the fold, and alerts judged by it and appended: of a delivery, or found by reconciling
 *   reconcile.c  asks Alertmanager
 *
 * Between judging an alert and appending its record nothing waits (alerts.h). */
#ifndef BALM_FUNCTIONS_ALERTS_INTAKE_H
#define BALM_FUNCTIONS_ALERTS_INTAKE_H

#include "function/core.h"
#include "functions/alerts/event_ids.h"
#include "functions/alerts/heard.h"
#include "functions/alerts/webhook.h"
#include "store/episode.h"
#include "store/journal.h"

/* Records of one append: followers decide on each while the loop stands still, about 20 us each. */
#define INTAKE_BATCH_MAX 64

/* A log line that a sender can cause at will: one a minute, and how many were swallowed. */
struct quiet {
    int64_t next_ns;
    unsigned swallowed;
};
bool quiet_may_log(struct quiet *q, unsigned *ret_swallowed);

enum alert_result { RESULT_ACCEPTED, RESULT_DUPLICATE, RESULT_REJECTED, RESULTS };

struct reconcile;

struct intake {
    struct loop *loop;
    struct journal *journal;
    struct journal_follower follower;
    struct episodes *episodes;
    struct event_ids *event_ids;
    uint64_t folded_seq; /* both tables are those of the journal up to here */
    int64_t lease_ns, grace_ns;
    struct fiber_scope scope;    /* of the fiber that writes RECORD_EXPIRED */
    struct reconcile *reconcile; /* NULL: no Alertmanager is asked */
    struct metric *results[RESULTS], *durable_seconds, *accepted_requests;
    struct metric_family *requests;
    struct heard heard;
    struct quiet refused, failed, truncated;
};

void intake_init(struct intake *in, const struct core_env *env);
void intake_release(struct intake *in);
/* A table that is behind (the past is being folded) would take known alerts for new and open ones for
 * resolved. */
bool intake_is_current(const struct intake *in);

/* ---- alerts that came together ---- */

struct delivery;
/* Another verdict than the table's about alerts[i], or the same. */
typedef enum episode_verdict delivery_judge_fn(const struct delivery *d, size_t i,
                                               enum episode_verdict verdict, const struct episode *e);

/* The caller fills in the first part. */
struct delivery {
    struct intake *in;
    struct arena *arena;
    struct webhook webhook;
    int64_t received_unix_ns;
    struct strview trace;
    /* Of those that came by themselves: empty and NULL. Else how they were found and why they are recorded;
     * and rejected ones leave no record, since they are found again each time. */
    struct strview how, reason;
    delivery_judge_fn *judge;
    const void *judge_arg;

    struct record *batch; /* not yet appended */
    size_t n_batch, batch_max;
    uint64_t generation; /* of the journal when the first alert was judged */
    uint64_t own_seq;    /* last record of this delivery; 0: none yet */
    uint64_t needed_seq; /* the answer relies on everything up to here */
    uint64_t counts[RESULTS];
    struct strview first_reason;
    bool is_table_full, has_unmeasured;
};

/* Appends what is new, in batches; between two batches others get their turn. */
enum status intake_take(struct delivery *d, struct error *err) MUST_USE;

/* RECORD_EXPIRED for an open episode. */
enum status intake_expire(struct intake *in, const struct episode *e, int64_t now_unix_ns, struct strview how,
                          struct strview reason) MUST_USE;

#endif
