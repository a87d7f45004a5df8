/* A copy of a journal's folder (SQLite), made while a platform may go on writing to it.
 *
 * Records are read as every reader reads them, in transactions of at most 1 000: the writer's checkpoints and
 * a platform that starts meanwhile are not held up, however long the copy takes. It ends where the journal
 * ended when it began, which is the end of a committed group: an input and what was decided on it stay
 * together. Segments keep their names and limits; their copies have no WAL, so that they are one file each
 * and can be read where nothing can be written. */
#ifndef BALM_STORE_JOURNAL_COPY_H
#define BALM_STORE_JOURNAL_COPY_H

#include "base/strview.h"

struct journal_copy_cfg {
    const char *from, *to; /* folders of segments; `to` is there and empty */
    /* Called about every 1 000 records; NULL: none. `last`: where the copy will end. */
    void (*on_progress)(uint64_t seq, uint64_t last_seq, void *arg);
    void *arg;
};

/* Every file is synced, the folder is not. Blocks. Nothing there: first 1, last 0.
 * Where retention removes a segment before its turn has come, the copy starts again from what is kept then.
 * STATUS_NOT_FOUND: no such folder. STATUS_DATA_LOSS: a segment is damaged, or records are missing.
 * STATUS_FAILED_PRECONDITION: a newer format. STATUS_RESOURCE_EXHAUSTED: no room. */
enum status journal_copy(const struct journal_copy_cfg *cfg, uint64_t *ret_first_seq, uint64_t *ret_last_seq,
                         struct error *err) MUST_USE;

#endif
