/* Secrets of a function, in the folder that `secret_mount_path` names (default /var/openfaas/secrets): a file
 * NAME each, as OpenFaaS and balm's own gateway mount them, or a folder NAME with the secret's keys as files,
 * as Knative does; of several keys the one called NAME counts (contracts/openfaas.md §3.3). */
#ifndef BALM_FUNCTION_SECRET_H
#define BALM_FUNCTION_SECRET_H

#include "base/arena.h"

#define SECRET_READ_MAX 4096

/* The secret's content without the white space around it, in the arena (wiped by nobody: read it, use it,
 * do not log it). Read anew each time, so that a rotated secret counts at once.
 * STATUS_FAILED_PRECONDITION: not there, empty or unreadable; the sentence names the secret. */
enum status secret_read(struct arena *a, const char *name, struct strview *ret_secret,
                        struct error *err) MUST_USE;
/* The same from another folder than secret_folder(), this process's own. */
enum status secret_read_from(struct arena *a, const char *folder, const char *name,
                             struct strview *ret_secret, struct error *err) MUST_USE;
/* Where they are. Static, or of the environment. */
const char *secret_folder(void);

#endif
