/* Checkpoints as they stand in files: signed notes, oldest first, each followed by an empty line. */
#ifndef BALM_AUDIT_NOTES_H
#define BALM_AUDIT_NOTES_H

#include <stdio.h>

#include "audit/merkle.h"
#include "base/buf.h"

#define NOTE_MAX       (64 * 1024) /* a checkpoint with the signatures of many witnesses is a few KiB */
#define NOTES_KEPT_MAX (64 * 1024 * 1024)
#define NOTES_TAIL_MAX (64 * 1024) /* of a file: what is searched for the newest one */

/* One note with the empty line behind it into `note`, from at most *bytes_left bytes of `file`: two empty
 * lines in all. False at the end, in the middle of one too. */
bool notes_next(FILE *file, uint64_t *bytes_left, struct buf *note);
/* Start of the last note of the log `origin` in `tail` that begins before `before`: the line with the origin,
 * first in the file or behind an empty line. */
bool notes_find_last(struct strview tail, bool is_whole_file, size_t before, struct strview origin,
                     size_t *ret_start);
/* The note at the start of `rest`, which has its empty line behind it. False: it is torn. */
bool notes_take(struct strview rest, struct strview *ret_note);
/* All checkpoints of a file, of the newest notes that somebody kept elsewhere, by size. *ret_checkpoints:
 * free(). The empty line behind the last note may be missing.
 * STATUS_INVALID_ARGUMENT: something else is in it, or nothing. STATUS_UNAUTHENTICATED: not signed by k. */
enum status notes_read_kept(const struct audit_key *k, const char *path, struct checkpoint **ret_checkpoints,
                            size_t *ret_n, struct error *err) MUST_USE;
/* The newest checkpoint that holds of DIR/audit/checkpoints; arena. public_key_file NULL: DIR/audit/key.pub.
 * STATUS_NOT_FOUND: none. */
enum status notes_newest(const char *data_dir, const char *public_key_file, struct arena *a,
                         struct strview *ret_note, struct error *err) MUST_USE;

#endif
