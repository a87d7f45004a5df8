/* Shared by runtime/client/client*.c and its tests only.
 *
 *   http_request (client.c: limits, retries)  ->  client_attempt (client_attempt.c: one easy handle, one
 * struct) |  add, remove, wait for `done`
 *                                                     v
 *                     client_pool (client_pool.c: curl's multi handle on uv_poll and one uv_timer; one a
 * loop) */
#ifndef BALM_CLIENT_IMPL_H
#define BALM_CLIENT_IMPL_H

#include <uv.h>

#include "client/client.h"
#include "client/client_curl.h"

#define CLIENT_TOTAL_CONNECTIONS_MAX                                                                         \
    480 /* of one loop, all hosts: descriptors are finite even if URLs come from a file */
#define CLIENT_SPARE_HANDLES_MAX 64
#define CLIENT_IDLE_AGE_NS       (30 * NS_PER_S) /* idle connections beyond the kept ones are shut after this */

/* What we know of a descriptor that curl opened; found by its number. */
struct client_socket {
    bool is_open, is_polled; /* polled: a transfer uses it; otherwise it lies idle in curl's pool */
    int64_t idle_since_ns;
};

struct client_pool {
    struct loop *loop;
    CURLM *multi;
    uv_timer_t timer;              /* when curl wants to be called next */
    uv_timer_t ageing;             /* runs while more connections are open than are kept */
    struct client_socket *sockets; /* owned; indexed by descriptor */
    size_t n_sockets;
    unsigned n_open;
    CURL *spare[CLIENT_SPARE_HANDLES_MAX]; /* reset easy handles: making one costs more than a request's
                                              bookkeeping */
    unsigned n_spare, n_calls;
    unsigned n_closing; /* uv handles whose close callback is still to come */
    struct fiber_event all_closed;
};

/* The calling loop's pool, made on first use. */
enum status client_pool_get(struct client_pool **ret_pool, struct error *err) MUST_USE;
/* An easy handle with nothing set but what belongs to the pool. NULL: out of memory. */
CURL *client_pool_take(struct client_pool *p);
void client_pool_put_back(struct client_pool *p, CURL *easy);
/* Shut the oldest idle connections that have been idle for min_age_ns, until CLIENT_IDLE_CONNECTIONS_KEPT
 * idle ones are left. Returns how many. curl finds them dead when it looks for one and closes them. */
unsigned client_pool_age(struct client_pool *p, int64_t min_age_ns);

/* What an attempt tells about the next one; set whatever came of it. */
struct client_hint {
    int64_t retry_after_s; /* the answer's Retry-After, 0 if none */
    bool was_stale; /* failed on a pooled connection before a byte came: the peer had closed it just then */
};

/* One attempt of a call. deadline_ns is absolute. */
enum status client_attempt(struct client_pool *p, const struct http_call *call, int64_t deadline_ns,
                           struct arena *a, struct http_reply *ret_reply, struct client_hint *ret_hint,
                           struct error *err) MUST_USE;
/* May it be sent twice? GET and HEAD always. */
bool client_is_repeatable(const struct http_call *call);
/* "POST http://host/path" for messages: no user, password or query in it. Arena. */
struct strview client_describe(const struct http_call *call, struct arena *a);
/* Called by the pool when curl has finished the easy handle whose private pointer is `attempt`. */
void client_attempt_done(void *attempt, CURLcode code);

#endif
