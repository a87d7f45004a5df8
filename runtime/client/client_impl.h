/* Shared by runtime/client/client*.c and its tests only.
 *
 *   http_request (client.c: limits, retries)  ->  client_attempt (client_attempt.c: one easy handle, one
 * struct) |  add, remove, wait for `done`
 *                                                     v
 *                     client_pool (client_pool.c: curl's multi handle and its timer; one a loop)
 *                                                     |  watch
 *                                                     v
 *                     client_socket (client_socket.c: an epoll in libuv's) */
#ifndef BALM_CLIENT_IMPL_H
#define BALM_CLIENT_IMPL_H

#include <uv.h>

#include "client/client.h"
#include "client/client_curl.h"

#define CLIENT_TOTAL_CONNECTIONS_MAX                                                                         \
    480 /* of one loop, all hosts: descriptors are finite even if URLs come from a file */
#define CLIENT_WRITERS_MAX 64
#define CLIENT_IDLE_AGE_NS (30 * NS_PER_S) /* idle connections beyond the kept ones are shut after this */

/* What we know of a descriptor that curl has; found by its number. */
struct client_socket {
    bool is_known, is_open; /* open: a connection, by client_socket_open() */
    uint32_t wanted;        /* what a transfer waits for; 0: it lies idle in curl's pool */
    uint32_t watched;       /* what the epoll has; stays while idle. 0: it is not in there */
    uint32_t generation;    /* grows with each descriptor of this number */
    int64_t idle_since_ns;
};

struct client_pool {
    struct loop *loop;
    CURLM *multi;
    uv_timer_t timer;              /* when curl wants to be called next */
    int epoll_fd;                  /* owned */
    uv_poll_t ready;               /* of epoll_fd */
    uv_timer_t ageing;             /* runs while more connections are open than are kept */
    struct client_socket *sockets; /* owned; indexed by descriptor */
    size_t n_sockets;
    unsigned n_open;
    curl_socket_t writers[CLIENT_WRITERS_MAX]; /* see client_sockets_write() */
    unsigned n_writers;
    unsigned n_calls;
    unsigned n_closing; /* uv handles whose close callback is still to come */
    struct fiber_event all_closed;
};

/* The calling loop's pool, made on first use. */
enum status client_pool_get(struct client_pool **ret_pool, struct error *err) MUST_USE;
/* An easy handle with nothing set but what is the same for all; freed by easy_cleanup. NULL: out of memory.
 */
CURL *client_pool_easy_new(struct client_pool *p);
/* Lets curl work: a descriptor is ready (CURL_CSELECT_*), or CURL_SOCKET_TIMEOUT. From the loop's stack. */
void client_pool_drive(struct client_pool *p, curl_socket_t fd, int events);
/* Shut the oldest idle connections that have been idle for min_age_ns, until CLIENT_IDLE_CONNECTIONS_KEPT
 * idle ones are left. Returns how many. curl finds them dead when it looks for one and closes them. */
unsigned client_pool_age(struct client_pool *p, int64_t min_age_ns);

/* curl's callbacks; `arg` is the pool. */
int client_socket_wanted(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg);
curl_socket_t client_socket_open(void *arg, curlsocktype purpose, struct curl_sockaddr *address);
int client_socket_close(void *arg, curl_socket_t fd);
/* Between a request and its answer curl asks to be told when it can write, though it has sent all. On a
 * connection that stands it is told so at once, which costs less than two changes of the epoll; those that
 * still want to write then are watched. */
void client_sockets_write(struct client_pool *p);
enum status client_sockets_init(struct client_pool *p, struct error *err) MUST_USE;
void client_sockets_release(struct client_pool *p); /* its uv handles are closed */

/* What an attempt tells about the next one; set whatever came of it. */
struct client_hint {
    int64_t retry_after_s; /* the answer's Retry-After, 0 if none */
    bool was_stale; /* failed on a pooled connection before a byte came: the peer had closed it just then */
};

/* One attempt of a call. deadline_ns is absolute. */
enum status client_attempt(const struct http_call *call, int64_t deadline_ns, struct arena *a,
                           struct http_reply *ret_reply, struct client_hint *ret_hint,
                           struct error *err) MUST_USE;
/* The same for a call that needs no more than plain HTTP to an address (client_plain.c); false: it does, and
 * nothing was done. */
bool client_plain_attempt(const struct http_call *call, int64_t deadline_ns, struct arena *a,
                          struct http_reply *ret_reply, struct client_hint *ret_hint, enum status *ret_status,
                          struct error *err) MUST_USE;
void client_plain_release(struct loop *l);
/* Its limit of the answer's body, or the default. */
size_t client_max_body(const struct http_call *call);
/* May it be sent twice? GET and HEAD always. */
bool client_is_repeatable(const struct http_call *call);
/* "POST http://host/path" for messages: no user, password or query in it. Arena. */
struct strview client_describe(const struct http_call *call, struct arena *a);
/* Called by the pool when curl has finished the easy handle whose private pointer is `attempt`. */
void client_attempt_done(void *attempt, CURLcode code);

#endif
