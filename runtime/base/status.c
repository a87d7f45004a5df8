#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/list.h"

static bool is_retryable(enum status code)
{
    return code == STATUS_UNAVAILABLE || code == STATUS_ABORTED || code == STATUS_DEADLINE_EXCEEDED ||
           code == STATUS_RESOURCE_EXHAUSTED;
}

/* A cut inside a UTF-8 sequence would make the sentence unfit for JSON: drop the started sequence. */
static void trim_cut_sequence(char message[ERROR_MESSAGE_MAX])
{
    size_t len = strlen(message);
    if (len < ERROR_MESSAGE_MAX - 1) return;
    size_t lead = len;
    while (lead > 0 && ((unsigned char)message[lead - 1] & 0xC0) == 0x80)
        lead--;
    if (lead == 0) return;
    unsigned char c = (unsigned char)message[lead - 1];
    size_t need = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
    if (len - (lead - 1) < need) message[lead - 1] = '\0';
}

enum status error_set(struct error *err, enum status code, const char *fmt, ...)
{
    if (err == NULL) return code;
    /* Through a copy: an argument may be a part of the old message. */
    char message[ERROR_MESSAGE_MAX];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    trim_cut_sequence(message);
    err->code = code;
    err->can_retry = is_retryable(code);
    memcpy(err->message, message, strlen(message) + 1);
    return code;
}

enum status error_prefix(struct error *err, enum status code, const char *fmt, ...)
{
    if (err == NULL) return code;
    char message[ERROR_MESSAGE_MAX];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    size_t used = n < 0 ? 0 : (size_t)n < sizeof(message) ? (size_t)n : sizeof(message) - 1;
    const char *const pieces[] = {": ", err->message};
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        size_t len = strnlen(pieces[i], sizeof(message) - 1 - used);
        memcpy(message + used, pieces[i], len);
        used += len;
    }
    message[used] = '\0';
    trim_cut_sequence(message);
    memcpy(err->message, message, strlen(message) + 1);
    if (err->code == STATUS_OK) { /* the callee failed without saying why */
        err->code = code;
        err->can_retry = is_retryable(code);
    }
    return err->code;
}

const char *status_name(enum status code)
{
    static const char *const names[] = {
        [STATUS_OK] = "OK",
        [STATUS_CANCELLED] = "CANCELLED",
        [STATUS_UNKNOWN] = "UNKNOWN",
        [STATUS_INVALID_ARGUMENT] = "INVALID_ARGUMENT",
        [STATUS_DEADLINE_EXCEEDED] = "DEADLINE_EXCEEDED",
        [STATUS_NOT_FOUND] = "NOT_FOUND",
        [STATUS_ALREADY_EXISTS] = "ALREADY_EXISTS",
        [STATUS_PERMISSION_DENIED] = "PERMISSION_DENIED",
        [STATUS_RESOURCE_EXHAUSTED] = "RESOURCE_EXHAUSTED",
        [STATUS_FAILED_PRECONDITION] = "FAILED_PRECONDITION",
        [STATUS_ABORTED] = "ABORTED",
        [STATUS_OUT_OF_RANGE] = "OUT_OF_RANGE",
        [STATUS_UNIMPLEMENTED] = "UNIMPLEMENTED",
        [STATUS_INTERNAL] = "INTERNAL",
        [STATUS_UNAVAILABLE] = "UNAVAILABLE",
        [STATUS_DATA_LOSS] = "DATA_LOSS",
        [STATUS_UNAUTHENTICATED] = "UNAUTHENTICATED",
    };
    /* Codes also arrive as numbers from peers (grpc-status). */
    return (size_t)code < ARRAY_LEN(names) ? names[code] : "UNKNOWN";
}

int status_to_http(enum status code)
{
    switch (code) {
    case STATUS_OK:
        return 200;
    case STATUS_INVALID_ARGUMENT:
        return 400;
    case STATUS_UNAUTHENTICATED:
        return 401;
    case STATUS_PERMISSION_DENIED:
        return 403;
    case STATUS_NOT_FOUND:
        return 404;
    case STATUS_ALREADY_EXISTS:
    case STATUS_ABORTED:
        return 409;
    case STATUS_FAILED_PRECONDITION:
        return 412;
    case STATUS_CANCELLED:
        return 499;
    case STATUS_UNIMPLEMENTED:
        return 501;
    case STATUS_RESOURCE_EXHAUSTED:
    case STATUS_UNAVAILABLE:
        return 503;
    case STATUS_DEADLINE_EXCEEDED:
        return 504;
    case STATUS_UNKNOWN:
    case STATUS_OUT_OF_RANGE:
    case STATUS_INTERNAL:
    case STATUS_DATA_LOSS:
        break;
    }
    return 500;
}

enum status status_from_http(int http_status)
{
    if (http_status >= 200 && http_status <= 299) return STATUS_OK;
    switch (http_status) {
    case 401:
        return STATUS_UNAUTHENTICATED;
    case 403:
        return STATUS_PERMISSION_DENIED;
    case 404:
        return STATUS_NOT_FOUND;
    case 408:
    case 504:
        return STATUS_DEADLINE_EXCEEDED;
    case 409:
        return STATUS_ABORTED;
    case 412:
        return STATUS_FAILED_PRECONDITION;
    case 429:
    case 502:
    case 503:
        return STATUS_UNAVAILABLE;
    case 499:
        return STATUS_CANCELLED;
    case 501:
        return STATUS_UNIMPLEMENTED;
    default:
        break;
    }
    /* Any other 4xx (413 and 422 among them) says that this very request will never do. */
    return http_status >= 400 && http_status <= 499 ? STATUS_INVALID_ARGUMENT : STATUS_INTERNAL;
}

enum status status_from_errno(int errnum)
{
    switch (errnum) {
    case 0:
        return STATUS_OK;
    case ENOENT:
        return STATUS_NOT_FOUND;
    case EEXIST:
        return STATUS_ALREADY_EXISTS;
    case EACCES:
    case EPERM:
        return STATUS_PERMISSION_DENIED;
    case ENOSPC:
    case EMFILE:
    case ENFILE:
    case EDQUOT:
    case ENOMEM:
        return STATUS_RESOURCE_EXHAUSTED;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case EAGAIN:
        return STATUS_UNAVAILABLE;
    case ETIMEDOUT:
        return STATUS_DEADLINE_EXCEEDED;
    case EINVAL:
        return STATUS_INVALID_ARGUMENT;
    default:
        return STATUS_INTERNAL;
    }
}
