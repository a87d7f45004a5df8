/* Inside of verify: for verify.c (records, the pass as a whole) and verify_checkpoints.c alone. */
#ifndef BALM_AUDIT_VERIFY_IMPL_H
#define BALM_AUDIT_VERIFY_IMPL_H

#include <stdio.h>

#include "audit/notes.h"
#include "audit/open_intents.h"
#include "audit/unsealed.h"
#include "audit/verify.h"
#include "store/journal.h"

#define VERIFY_LEAVES_BUFFERED 4096

struct verify {
    const struct audit_verify_cfg *cfg;
    struct audit_report *report;
    struct arena *arena; /* of the report */
    struct audit_key *key;
    struct journal_reader *reader;
    FILE *checkpoints, *leaves; /* NULL: not there */
    uint64_t checkpoint_bytes;  /* left to read of those there at the start: a running platform adds some for
                                   records that we shall not see */
    struct checkpoint next;     /* the first that is not compared yet */
    bool has_next, has_met_any;
    struct checkpoint *kept; /* owned; of elsewhere, by size */
    size_t n_kept, next_kept;
    struct unsealed rest;  /* behind the last good checkpoint, once there is no other */
    int64_t began_unix_ns; /* what a running platform writes from then on it seals later */
    struct merkle_tree tree;
    uint64_t first_other_leaf; /* since the last good checkpoint; 0: none */
    struct merkle_hash leaf_buffer[VERIFY_LEAVES_BUFFERED];
    size_t n_leaves, next_leaf; /* in the buffer */
    /* The highest record that a record of kind "cut" says was removed: one met, one under a good checkpoint.
     */
    uint64_t cut_last, sealed_cut_last;
    uint64_t first_seq,
        removed_last; /* oldest kept when we began; the highest one that was gone when we came */
    struct open_intents open;
    struct arena scratch;
    struct error *err;
};

/* ---- verify_checkpoints.c ---- */

/* Only the first finding is kept. */
void verify_found_bad(struct verify *v, uint64_t seq, const char *fmt, ...) PRINTF_LIKE(3, 4);
bool verify_is_bad(const struct verify *v);
/* v->next, if has_next; one that does not hold is a finding. */
void verify_next_checkpoint(struct verify *v);
/* All checkpoints of the size reached. */
void verify_checkpoints(struct verify *v);
/* False: there are no more. */
bool verify_next_leaf(struct verify *v, struct merkle_hash *ret_leaf);
/* Checkpoints that cover more than there is. */
void verify_tail(struct verify *v);
/* The same of those that were kept elsewhere. */
enum status verify_load_kept(struct verify *v) MUST_USE;
void verify_kept(struct verify *v);
void verify_kept_tail(struct verify *v);

#endif
