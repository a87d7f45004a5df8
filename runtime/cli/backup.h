/* Backups: `balm backup` and `balm restore`.
 *
 * A backup is a folder laid out like a data folder, so that `balm audit verify --data BACKUP` works on it,
 * with a manifest, backup.json: what it is, up to which record it goes, and each file with its length and
 * SHA-256. The hashes find damage; what the log says is proved by its signatures.
 *
 *   data folder --copy--> NAME.partial --verify--> --fsync, rename--> NAME         balm backup NAME
 *   NAME --verify, copy--> DATA.partial --verify, record that--> --fsync, rename--> DATA   balm restore NAME
 *
 * So whatever has its name is whole. What was left under the other name by somebody who died is removed by
 * the next one. Everything here blocks. */
#ifndef BALM_CLI_BACKUP_H
#define BALM_CLI_BACKUP_H

#include "audit/verify.h"
#include "base/hash.h"
#include "cli/cli.h"

#define BACKUP_FORMAT    1
#define BACKUP_MANIFEST  "backup.json"
#define BACKUP_FILES_MAX 200000 /* a manifest that lists more is not one of ours */

/* ---- manifest (backup_manifest.c) ---- */

struct backup_file {
    struct strview path; /* below the folder: "journal/00000000000000000001.db" */
    uint64_t bytes;
    char sha256[SHA256_HEX + 1];
};

struct backup_manifest {
    struct strview version; /* of the balm that made it */
    struct strview made;    /* RFC 3339 */
    uint64_t first_seq, last_seq;
    struct strview root;       /* hex; over all records up to last_seq */
    struct strview checkpoint; /* the newest note; empty: nothing was sealed yet */
    bool is_without_secrets;
    struct backup_file *files; /* by path */
    size_t n_files;
};

/* Canonical members, and over them their own SHA-256: no byte of it can change unseen. Synced. */
enum status backup_manifest_write(const char *dir, const struct backup_manifest *m,
                                  struct error *err) MUST_USE;
/* Views live in the arena. STATUS_NOT_FOUND: no backup there. STATUS_DATA_LOSS: the manifest is damaged.
 * STATUS_FAILED_PRECONDITION: a newer format. */
enum status backup_manifest_read(const char *dir, struct arena *a, struct backup_manifest *ret_manifest,
                                 struct error *err) MUST_USE;

/* ---- files (backup_file.c) ---- */

/* What a long run shows on a terminal; nothing elsewhere. */
struct backup_progress {
    bool is_shown;
    int64_t next_ns;
};
/* Shown only where stderr is a terminal and it is wanted. */
void backup_progress_init(struct backup_progress *p, bool is_wanted);
/* done of all, in `unit`; all 0: not known. */
void backup_progress_show(struct backup_progress *p, const char *what, uint64_t done, uint64_t all,
                          const char *unit);
/* The line it is on is free for others again. */
void backup_progress_clear(const struct backup_progress *p);

/* The first max_bytes of a file, at most, into a new one (0600), synced. STATUS_NOT_FOUND: no such file. */
enum status backup_file_copy(const char *from, const char *to, uint64_t max_bytes,
                             struct error *err) MUST_USE;
/* As the disk has it, not as it was written a moment ago. */
enum status backup_file_hash(const char *path, uint64_t *ret_bytes, char ret_hex[SHA256_HEX + 1],
                             struct error *err) MUST_USE;
/* Every file of the manifest is there, as long as it says and with its hash.
 * STATUS_DATA_LOSS: names the first one that is not. */
enum status backup_files_check(const char *dir, const struct backup_manifest *m, struct backup_progress *p,
                               struct error *err) MUST_USE;

/* ---- the folder under its other name (backup_draft.c) ---- */

struct backup_draft {
    const char *target; /* what it will be called; arena */
    const char *path;   /* target + ".partial"; arena */
    const char *parent; /* the folder both names are in; arena */
    int fd;             /* of the folder, locked against others; -1: none */
};

/* Makes the folder. STATUS_ALREADY_EXISTS: there is something under the target's name already, or under the
 * other one that is not ours. STATUS_FAILED_PRECONDITION: somebody else is at it; or the target cannot be
 * renamed to, being a mount point. STATUS_NOT_FOUND: the folder to put it in is not there. */
enum status backup_draft_begin(struct backup_draft *d, const char *target, struct arena *a,
                               struct error *err) MUST_USE;
/* Removes what is in it, to begin again. */
enum status backup_draft_empty(const struct backup_draft *d, struct error *err) MUST_USE;
/* Folders to disk, then the name. */
enum status backup_draft_finish(struct backup_draft *d, struct error *err) MUST_USE;
/* Removes it, unless it is finished. */
void backup_draft_abandon(struct backup_draft *d);

/* ---- what is in a data folder (backup_parts.c) ---- */

/* A data folder's content into `to`, which is there and empty, in an order in which each part is covered by
 * the next. Fills first_seq, last_seq and the files of *ret_manifest; those live in the arena.
 * STATUS_ABORTED: retention removed records meanwhile, and the parts do not belong together: begin again. */
enum status backup_parts_copy(const char *from, const char *to, bool is_without_secrets,
                              struct backup_progress *p, struct arena *a,
                              struct backup_manifest *ret_manifest, struct error *err) MUST_USE;
/* May a backup have a file of this path? Not one that leads out of the folder. */
bool backup_parts_know(struct strview path);
/* Is it the name of something at the top of a data folder or backup? */
bool backup_parts_know_top(struct strview name);

/* ---- shared by both commands (backup.c) ---- */

/* audit_verify() on the folder. STATUS_DATA_LOSS: it is not the log that was sealed. */
enum status backup_log_verify(const char *dir, struct backup_progress *p, struct arena *a,
                              struct audit_report *ret_report, struct error *err) MUST_USE;
/* cli_fail(), with "no room" and "try again" as failures: nothing else than DIR could be missing. */
int backup_fail(const struct command *self, const struct error *err);

#endif
