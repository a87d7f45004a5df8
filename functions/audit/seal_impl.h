/* Inside of the sealing: for seal.c (the fiber, comparing, life cycle) and seal_start.c (what a start finds)
 * alone. */
#ifndef BALM_FUNCTIONS_AUDIT_SEAL_IMPL_H
#define BALM_FUNCTIONS_AUDIT_SEAL_IMPL_H

#include "base/clock.h"
#include "functions/audit/seal.h"
#include "functions/audit/seal_files.h"

#define SEAL_BATCH    1000
#define SEAL_PAUSE_NS (1 * NS_PER_S) /* between checkpoints while records come, and between tries */
#define SEAL_LAST_WAIT_NS                                                                                    \
    (5 * NS_PER_S) /* when a stop has to wait: for what was appended to become durable */

struct seal {
    struct journal *journal;
    struct journal_keeper keeper;
    struct seal_files files;
    struct fiber_scope scope;
    struct fiber_event caught_up; /* what was there at the start is signed, or was tried */
    uint64_t opened_seq;          /* where the journal ended when it was opened */
    /* As the loop's thread knows it, while a worker may be at the files: up to where leaves and a signature
     * are on the disk; and what was sealed at the start, which is compared with its leaves. */
    uint64_t signed_seq, compared_seq;
    int64_t checkpoint_ns; /* monotonic, of the newest one of this process; 0: none yet */
    bool is_started, is_stopped_for_good, is_failing;
    bool is_late_recorded, is_rest_settled; /* nothing is signed before the latter */
    struct metric *records, *last_seq, *last_checkpoint, *failures;
};

/* One piece of work on the files, for the worker thread. */
struct seal_work {
    struct seal_files *files;
    const struct journal_entry *entries;
    size_t n;
    uint64_t bad_seq;
    struct merkle_tree *tree;
    const char *dir;
    struct strview origin;
    enum status status;
    struct error *err;
};

/* ---- seal.c ---- */

/* An error in the log, and counted: somebody may have been at the past. */
void seal_found_tampering(struct seal *seal, const char *message, uint64_t seq, const char *detail);
/* One failure is one line in the log; the next success another. */
void seal_note_result(struct seal *seal, enum status s, const struct error *err);

/* ---- seal_start.c ---- */

/* What stands behind the newest checkpoint is cut, or recorded and set aside, once. */
enum status seal_look_at_rest(struct seal *seal, struct error *err) MUST_USE;
/* The same, until it succeeds. STATUS_CANCELLED: it did not. */
enum status seal_settle_rest(struct seal *seal) MUST_USE;
/* Until the leaves are those of the newest checkpoint, or it is known that they cannot be. */
enum status seal_mend_leaves(struct seal *seal) MUST_USE;

#endif
