/* Leaf hashes of batches on other threads, so that reading and hashing share the cores: hashing is two thirds
 * of the work of verifying.
 *
 *   one thread reads:  hasher_put(batch) … hasher_put(batch)      at most HASHER_BATCHES on their way
 *   and takes back:    hasher_get() -> the oldest, hashed         (while nothing is ready it hashes one
 * itself)
 *
 * Used by one thread; its helpers are its own. */
#ifndef BALM_AUDIT_HASHER_H
#define BALM_AUDIT_HASHER_H

#include "audit/merkle.h"
#include "store/journal.h"

#define HASHER_BATCHES       8
#define HASHER_BATCH_RECORDS 1000
#define HASHER_THREADS_MAX   4 /* beyond, reading is what takes the time */

struct hasher_batch {
    struct arena arena; /* of the entries; the reader's */
    struct journal_entry *entries;
    size_t n;
    struct merkle_hash leaves[HASHER_BATCH_RECORDS];
    enum { HASHER_EMPTY, HASHER_FILLED, HASHER_AT_WORK, HASHER_DONE } state; /* hasher's */
};

struct hasher;

/* threads 0: one a core but ours, at most HASHER_THREADS_MAX. Without any (none could be made) hasher_get()
 * does it all. */
struct hasher *hasher_new(unsigned threads);
void hasher_free(struct hasher *h);
/* An empty batch to fill (arena reset), or NULL while all are on their way. Then hasher_put() it. */
struct hasher_batch *hasher_next(struct hasher *h);
void hasher_put(struct hasher *h, struct hasher_batch *b);
/* The oldest put, hashed; NULL: nothing is on its way. Then hasher_done(). */
struct hasher_batch *hasher_get(struct hasher *h);
void hasher_done(struct hasher *h, struct hasher_batch *b);

#endif
