/* A folder of runbooks as files, and whether it is still what it was.
 *
 * Two ways lead to new runbooks, and they are told apart, because only one of them is atomic:
 *
 *   a swap   every runbook is a link into DIR/..data, itself a link that is switched by a rename (a
 * Kubernetes ConfigMap); or DIR itself is a link that is switched (git-sync, releases in folders) an edit
 * anything else: a file that is being saved is half of one for a moment
 *
 * A mark is made from names, identities, sizes and times, not from contents: cheap enough to be made again
 * and again, and never the same after a change that was not made within the clock's tick. */
#ifndef BALM_DISPATCHER_RUNBOOK_FOLDER_H
#define BALM_DISPATCHER_RUNBOOK_FOLDER_H

#include <sys/types.h>

#include "base/arena.h"
#include "base/hash.h"

#define RUNBOOK_FILES_MAX 1000 /* as many as there may be runbooks: a file has at least one */

struct runbook_mark {
    char dir_link[SHA256_HEX + 1];  /* of DIR itself; empty: it is no link */
    char data_link[SHA256_HEX + 1]; /* of DIR/..data; empty: some runbook does not lie behind it */
    char all[SHA256_HEX + 1];       /* everything */
    dev_t device;                   /* of the folder: what a watch hangs on */
    ino_t inode;
};

struct runbook_folder {
    struct strview *names; /* *.yaml and *.yml but hidden ones, by name; NUL-terminated */
    size_t n;
    struct runbook_mark mark;
};

/* All in the arena. Synchronous: start-up and worker threads.
 * STATUS_NOT_FOUND: no such folder. STATUS_RESOURCE_EXHAUSTED: more than RUNBOOK_FILES_MAX. */
enum status runbook_folder_list(const char *dir, struct arena *a, struct runbook_folder *ret_folder,
                                struct error *err) MUST_USE;
bool runbook_mark_eq(const struct runbook_mark *a, const struct runbook_mark *b);
/* Did a swap lead from `before` to `now`? */
bool runbook_mark_is_swapped(const struct runbook_mark *before, const struct runbook_mark *now);

#endif
