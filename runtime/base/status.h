/* What can go wrong, said one way everywhere.
 *
 * A function that can fail returns `enum status` and takes `struct error *err` last (NULL: the caller does
 * not want the sentence). The codes are gRPC's canonical ones with gRPC's numbers, so one table serves HTTP,
 * gRPC and exit codes. Source of numbers and meanings: grpc/grpc doc/statuscodes.md. */
#ifndef BALM_BASE_STATUS_H
#define BALM_BASE_STATUS_H

#include <stdarg.h>
#include <stdbool.h>

enum status {
    STATUS_OK = 0,
    STATUS_CANCELLED = 1,        /* the caller's scope was cancelled: leave by the ordinary error path */
    STATUS_UNKNOWN = 2,          /* sent, answer lost: never repeat blindly */
    STATUS_INVALID_ARGUMENT = 3, /* the input is wrong whatever the state: 400 */
    STATUS_DEADLINE_EXCEEDED = 4,
    STATUS_NOT_FOUND = 5,
    STATUS_ALREADY_EXISTS = 6,
    STATUS_PERMISSION_DENIED = 7,
    STATUS_RESOURCE_EXHAUSTED = 8,  /* a limit given at init was reached */
    STATUS_FAILED_PRECONDITION = 9, /* right request, wrong state: no retry until something changes */
    STATUS_ABORTED = 10,            /* lost a race (conflict, epoch): read again, then retry */
    STATUS_OUT_OF_RANGE = 11,
    STATUS_UNIMPLEMENTED = 12,
    STATUS_INTERNAL = 13,
    STATUS_UNAVAILABLE = 14, /* try again with backoff */
    STATUS_DATA_LOSS = 15,
    STATUS_UNAUTHENTICATED = 16,
};

#define ERROR_MESSAGE_MAX 512

/* One failure: code and one sentence with the values that matter ("lease from 'alerts': sqlite: database is
 * locked (5)"). Plain value, nothing to release. */
struct error {
    enum status code;
    bool can_retry; /* the same call may succeed later */
    char message[ERROR_MESSAGE_MAX];
};

#define MUST_USE          __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

/* Fill *err (NULL allowed) and return `code`, so that a failing line reads `return error_set(err, …)`.
 * can_retry is set for UNAVAILABLE, ABORTED, DEADLINE_EXCEEDED and RESOURCE_EXHAUSTED. */
enum status error_set(struct error *err, enum status code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Put "what was attempted: " in front of an error on its way up. Returns err's code; keeps can_retry.
 * err NULL: returns `code` as given. */
enum status error_prefix(struct error *err, enum status code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* The code's name as in gRPC, for logs and JSON: "UNAVAILABLE". Static. */
const char *status_name(enum status code);

/* HTTP status for a code: OK 200, INVALID_ARGUMENT 400, UNAUTHENTICATED 401, PERMISSION_DENIED 403, NOT_FOUND
 * 404, ALREADY_EXISTS and ABORTED 409, FAILED_PRECONDITION 412, RESOURCE_EXHAUSTED and UNAVAILABLE 503 (never
 * 429: Alertmanager does not retry it), DEADLINE_EXCEEDED 504, UNIMPLEMENTED 501, CANCELLED 499, else 500. */
int status_to_http(enum status code);

/* Reverse, for answers of peers: 2xx OK, 408 DEADLINE_EXCEEDED, 429/502/503 UNAVAILABLE, 504
 * DEADLINE_EXCEEDED … */
enum status status_from_http(int http_status);

/* errno to code: ENOENT NOT_FOUND, EEXIST ALREADY_EXISTS, EACCES/EPERM PERMISSION_DENIED,
 * ENOSPC/EMFILE/ENFILE/EDQUOT/ENOMEM RESOURCE_EXHAUSTED, ECONNREFUSED/ECONNRESET/EPIPE/EAGAIN UNAVAILABLE,
 * ETIMEDOUT DEADLINE_EXCEEDED, EINVAL INVALID_ARGUMENT, else INTERNAL. */
enum status status_from_errno(int errnum);

#endif
