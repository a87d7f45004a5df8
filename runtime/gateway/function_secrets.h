/* Secrets of functions: DIR/secrets/functions/NAME, one file each (0600 in a folder 0700), made by
 * `faas-cli secret` or by hand. A replica gets a copy of those that its deployment lists when it starts
 * (replica_env.c), so a changed secret counts from the function's next start on. All of it touches files:
 * from a fiber it goes to a worker thread by work_run(), but for the look at what is missing. */
#ifndef BALM_GATEWAY_FUNCTION_SECRETS_H
#define BALM_GATEWAY_FUNCTION_SECRETS_H

#include "gateway/gateway_impl.h"

#define FUNCTION_SECRET_BYTES_MAX (1024 * 1024) /* of one, as Kubernetes; each start copies it */
#define FUNCTION_SECRETS_MAX      1000 /* in the folder: a client must not fill the disk with names */

/* As Kubernetes names secrets: a DNS subdomain. So it is no path, and no hidden file. */
enum status function_secret_check_name(struct strview name, struct error *err) MUST_USE;
/* is_new: STATUS_ALREADY_EXISTS if there is one; else STATUS_NOT_FOUND if there is none. Survives power loss
 * once it has returned; after a failure the old value is untouched. One change at a time, on any thread. */
enum status function_secret_put(const char *dir, struct strview name, struct strview value, bool is_new,
                                struct error *err) MUST_USE;
/* STATUS_NOT_FOUND: there is none. */
enum status function_secret_remove(const char *dir, struct strview name, struct error *err) MUST_USE;
/* Names, in order. */
enum status function_secrets_list(const char *dir, struct arena *a, struct strview **ret_names, size_t *ret_n,
                                  struct error *err) MUST_USE;
/* Removes what a write that a crash cut has left: it holds a value. At the start. */
void function_secrets_clean(const char *dir);
/* Those that `d` lists and that are not there or cannot be read: it does not start without them. Borrowed
 * from `d`; the list is in the arena. */
size_t function_secrets_missing(const struct deployment *d, struct arena *a, struct strview **ret_names);

/* Those that its manifest says it reads and that `d` does not list, unless a variable of the same name (with
 * '_' for '-') is set in their place. The same. */
size_t function_secrets_unlisted(const struct deployment *d, struct arena *a, struct strview **ret_names);

/* GET, POST, PUT, DELETE /system/secrets; authorized already. */
void routes_secrets(struct gateway *g, const struct http_req *req, struct http_resp *resp);

#endif
