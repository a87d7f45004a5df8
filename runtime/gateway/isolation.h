/* What keeps functions from each other, from the platform and from the host on this machine: found once at
 * the start, applied to every process of a function by balm-shim (shim_sandbox.h), told by GET /system/info
 * and by `balm doctor`. What the kernel or the platform's own rights do not offer is left out and said; what
 * they offer is applied, or the function does not start.
 *
 *   users     as root, each function has a user of its own out of a range (function-uids), by name and for
 *             good: DIR/users/NAME has its number. Not root: the platform's own
 *   DIR       stays closed to them. What a function may read (its secrets) lies in /run/balm-HASH where it
 *             has a user of its own, else in DIR/run
 *   TMPDIR    a folder of each process alone, in one that is made at each start; each gone at its end
 *
 * Beside the system's folders a function reads its own program, and what the deployment names:
 *
 *   annotation balm.dev/read-paths, balm.dev/write-paths
 *             absolute paths, ':' between them
 *   annotation balm.dev/unix-sockets: "true"
 *             may make unix sockets also without a user of its own
 *   removes_below in bot.yaml
 *             function/manifest.h
 *   fprocess  each word that is the absolute path of something
 *
 * None of them may lie above or below DIR. */
#ifndef BALM_GATEWAY_ISOLATION_H
#define BALM_GATEWAY_ISOLATION_H

#include "base/arena.h"
#include "base/json.h"
#include "base/status.h"
#include "base/strview.h"

#define ISOLATION_UIDS_DEFAULT "50000-59999"
#define ISOLATION_ARGS_MAX     1200 /* of the shim's command line */

struct deployment;
struct gateway;

struct isolation {
    unsigned first_uid, last_uid; /* 0: no users of their own */
    char no_uid_why[128];         /* the reason then */
    int landlock_abi;             /* 0: none */
    char no_landlock_why[64];
    bool has_seccomp;
    const char *folder; /* owned: what functions may reach of what is made for them; secrets/ is below it */
    char *temp;         /* owned: TMPDIRs are below it */
    json_t *users;      /* owned: name -> uid */
};

/* DIR and DIR/run are there. Says in the log what is active. */
enum status isolation_init(struct gateway *g, struct error *err) MUST_USE;
void isolation_release(struct gateway *g);
/* {"ownUser","uids","landlock","seccomp","noNewPrivileges",…} of GET /system/info. Owned by the caller. */
json_t *isolation_json(const struct isolation *i);

/* The user of the function of that name; 0: none of its own. STATUS_RESOURCE_EXHAUSTED: all of the range
 * belong to functions that are deployed. */
enum status isolation_user(struct gateway *g, struct strview name, unsigned *ret_uid,
                           struct error *err) MUST_USE;

/* The shim's arguments for a process of `d` with `temp` to write in (NULL: none, and no secrets); ends in
 * NULL. STATUS_INVALID_ARGUMENT: a path that it may not have. Reads files. */
enum status isolation_args(const struct deployment *d, const char *temp, struct arena *a,
                           const char *ret_args[ISOLATION_ARGS_MAX], struct error *err) MUST_USE;

/* Which folders are there now whose files it may remove: a process has in its sandbox those of its start, and
 * one that was made or mounted since is none of them. Asks the file system. */
uint64_t isolation_roots_print(const struct deployment *d);

/* The same for a build that may do as it likes in `folder`. */
enum status isolation_args_of_build(const struct gateway *g, const char *folder, unsigned uid,
                                    struct arena *a, const char *ret_args[ISOLATION_ARGS_MAX],
                                    struct error *err) MUST_USE;

/* A folder that is `uid`'s alone (0: ours). */
enum status isolation_make_temp(const char *path, unsigned uid, struct error *err) MUST_USE;
/* With all that is in it, whatever its owner made of it: for worker threads, nothing is too deep or too many.
 */
void isolation_remove_temp(const char *path);

#endif
