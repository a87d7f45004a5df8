/* The two files of the sealed log, DIR/audit/leaves and DIR/audit/checkpoints (audit/verify.h says what is in
 * them). Everything here blocks: worker threads only, one at a time.
 *
 * The invariant: a checkpoint is written only after the leaves that it covers are on disk. So what lies
 * behind the newest checkpoint may be torn by a power loss, is covered by no signature, and is cut and hashed
 * anew from the journal at the next start. If more is there than a crash explains, it is evidence, and set
 * aside instead. */
#ifndef BALM_FUNCTIONS_AUDIT_SEAL_FILES_H
#define BALM_FUNCTIONS_AUDIT_SEAL_FILES_H

#include "audit/merkle.h"
#include "store/journal.h"

struct seal_files {
    struct audit_key *key;
    int folder_fd, leaves_fd, checkpoints_fd;
    uint64_t leaves_bytes;     /* of the file as it was found */
    struct merkle_tree tree;   /* over the leaves that are written */
    struct merkle_tree synced; /* over those of them that are on the disk */
    struct checkpoint newest;  /* the newest one that holds; size 0, time 0: none */
    uint64_t checkpoints_end;  /* where the next note goes */
    bool has_checkpoint;
    bool are_leaves_bad;     /* as many as the newest checkpoint says, and their root is not the signed one */
    bool is_checkpoint_lost; /* records or leaves without any good checkpoint, or one that does not hold */
    char why[ERROR_MESSAGE_MAX]; /* of the latter */
};

/* dir: the data folder. Makes what is missing: key, files, a checkpoint of the empty tree (unless checkpoints
 * are lost: then the next one covers everything). n_records: in the journal. */
enum status seal_files_open(struct seal_files *f, const char *dir, struct strview origin, uint64_t n_records,
                            struct error *err) MUST_USE;
void seal_files_close(struct seal_files *f);
/* Once, before all below. What stands behind the leaves of the newest checkpoint is cut; or else the file is
 * set aside as DIR/audit/leaves.lost-TIME, and leaves are to be made anew from the journal. */
enum status seal_files_cut_rest(struct seal_files *f, struct error *err) MUST_USE;
enum status seal_files_set_aside(struct seal_files *f, int64_t now_unix_ns, struct error *err) MUST_USE;
/* Hash the records, which follow the last leaf, and append their leaves. All or none; may be repeated after a
 * failure. */
enum status seal_files_append(struct seal_files *f, const struct journal_entry *entries, size_t n,
                              struct error *err) MUST_USE;
/* Leaves to disk, then a signed checkpoint over them. Where the disk did not take them, the tree is again
 * what it was at the last success, and what came since is to be appended anew. */
enum status seal_files_checkpoint(struct seal_files *f, int64_t now_unix_ns, struct error *err) MUST_USE;
/* First of the records whose leaf on disk is another one; 0: none. Records without leaf are passed over. */
enum status seal_files_compare(const struct seal_files *f, const struct journal_entry *entries, size_t n,
                               uint64_t *ret_bad_seq, struct error *err) MUST_USE;
/* Drop all leaves: to be made anew from the journal. */
enum status seal_files_restart(struct seal_files *f, struct error *err) MUST_USE;

#endif
