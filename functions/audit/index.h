/* What a query can know without reading: for each block of records the times and kinds in it, and every
 * series that there is. A fold over the journal, 24 bytes a block, so a query over the last hour reads the
 * blocks of the last hour and nothing else, in whatever order clocks have written their times. Loop thread
 * only. */
#ifndef BALM_FUNCTIONS_AUDIT_INDEX_H
#define BALM_FUNCTIONS_AUDIT_INDEX_H

#include "store/journal.h"

#define INDEX_BLOCK_RECORDS 1000
#define INDEX_SERIES_MAX                                                                                     \
    4096 /* functions times kinds; beyond, records are found and their series are not listed */

struct index_block {
    int64_t min_ns, max_ns; /* min > max: nothing in it */
    uint32_t kinds;         /* bit of each record_kind */
};

struct index_series { /* one label set: app="balm", kind, function (where there is one) */
    enum record_kind kind;
    struct strview function; /* owned by the index */
    int64_t min_ns, max_ns;
};

struct audit_index {
    struct journal_follower follower;
    struct index_block *blocks; /* [i]: records i × 1000 + 1 … (i + 1) × 1000 */
    size_t n_blocks, blocks_capacity;
    struct index_series *series;
    size_t n_series;
    size_t last_of_kind[RECORD_KINDS]; /* where the last one of that kind was found */
    bool is_full;
};

_Static_assert(RECORD_KINDS <= 32, "kinds of a block are one word");

/* Then journal_follow() its follower. */
void index_init(struct audit_index *x);
void index_release(struct audit_index *x);

#endif
