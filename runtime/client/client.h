/* Outgoing HTTP for bots and platform.
 *
 * Plain HTTP to a literal address or a unix socket goes over h2o's own client; names, TLS, proxies, users and
 * tokens over libcurl's multi interface, with the same behaviour. libcurl is opened (dlopen) on the first
 * such call, or by client_preload() after readiness: a function that never makes one does not pay for its 40
 * shared objects (design §2: 9 ms and 0.9 MB). One pool a loop: at most 60 connections a host, idle ones
 * closed after 5 s, those of libcurl aged down to 10 (B4). Redirects are not followed. TLS verifies peer and
 * host, by the system's authorities or the call's own, or the peer's key alone by the call's pin.
 *
 * Retries: only transient failures (connect, reset before an answer, 408 429 502 503 504) of calls that say
 * they may be repeated, after 1 s, 2 s, 4 s … with full jitter ±50 %, Retry-After honoured up to the deadline
 * (B3). GET and HEAD may always be repeated, and a call of which nothing was sent. When no attempt or time is
 * left, the last outcome is the result: STATUS_OK with status 503, say.
 *
 * A pooled connection that the peer closed just then: a repeatable call goes out once more at once; another
 * one is STATUS_UNKNOWN (libcurl would send it twice). Messages name method, host and path only, never user,
 * query or token. HTTP/1.1; http_proxy of the environment counts. */
#ifndef BALM_CLIENT_CLIENT_H
#define BALM_CLIENT_CLIENT_H

#include <sys/socket.h>

#include "loop/loop.h"
#include "server/http.h"

#define CLIENT_HOST_CONNECTIONS_MAX  60
#define CLIENT_IDLE_CONNECTIONS_KEPT 10

struct http_call {
    struct strview method; /* "GET" where empty */
    struct strview url;    /* http:// or https:// only */
    const struct http_header *headers;
    size_t n_headers;
    struct strview body;
    int64_t timeout_ns;    /* of the whole call with its retries; 0: 30 s; never past the fiber's deadline */
    size_t max_body_bytes; /* of the answer; 0: 1 MiB; beyond: STATUS_RESOURCE_EXHAUSTED */
    unsigned max_attempts; /* 0 or 1: no retry */
    bool is_idempotent;    /* may be sent again after it might have reached the peer */
    const char *unix_path; /* connect here instead of to the URL's host; NULL: no */
    const char *ca_file;   /* NULL: system's */
    /* Instead of a CA and the host's name: the peer's public key, "sha256//BASE64". NULL: no. */
    const char *tls_pin;
    const char *client_cert_file, *client_key_file;
    struct strview bearer_token; /* sent as Authorization; never logged; wiped copy */
    /* For a URL that a stranger gave: may a connection be opened to this address? Asked of every address that
     * its host resolves to, when it is connected to. Such a call has a connection of its own, past any proxy,
     * so that nothing is reached unasked. All refused: STATUS_PERMISSION_DENIED. NULL: anything is allowed.
     */
    bool (*may_connect)(void *arg, const struct sockaddr *address);
    void *may_connect_arg;
};

struct http_reply {
    int status;
    const struct http_header *headers; /* arena */
    size_t n_headers;
    struct strview body; /* arena */
    unsigned attempts;
    int64_t elapsed_ns;
};

/* Suspends. STATUS_OK means that an answer came, whatever its status. STATUS_UNAVAILABLE: no connection or
 * cut before an answer; STATUS_UNKNOWN: cut after the request was sent and the call is not idempotent;
 * STATUS_DEADLINE_EXCEEDED; STATUS_CANCELLED; STATUS_INVALID_ARGUMENT: URL. */
enum status http_request(const struct http_call *call, struct arena *a, struct http_reply *ret_reply,
                         struct error *err) MUST_USE;
/* Opens libcurl now, off the hot path. */
enum status client_preload(struct error *err) MUST_USE;
/* Closes the calling loop's pool; no call may be under way. Before loop_free(). */
void client_release(struct loop *l);

#endif
