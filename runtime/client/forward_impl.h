/* Inside of forwarding: for runtime/client/forward*.c alone.
 *
 *   forward.c       upstream, the fiber's side: slot, attempt, retry, deadline
 *   forward_call.c  the socket's side: the callbacks of one attempt
 *   forward_pool.c  connections
 *   answer.c        the answer's bytes (answer.h)
 *   forward_head.c  request head out, headers of the answer in */
#ifndef BALM_CLIENT_FORWARD_IMPL_H
#define BALM_CLIENT_FORWARD_IMPL_H

#include <h2o.h>
#include <netinet/in.h>
#include <sys/un.h>

#include "base/buf.h"
#include "client/answer.h"
#include "client/forward.h"

#define FORWARD_CONNECTIONS_MAX 256               /* where upstream_new() says 0 */
#define FORWARD_BODY_MAX_BYTES  (8 * 1024 * 1024) /* where the spec says 0 */
/* Below a function's own idle time of 10 s, so that it is we who close first. */
#define FORWARD_IDLE_MS  5000
#define FORWARD_FRESH_MS 10
/* More than that waiting for a slow client: stop reading from upstream. */
#define FORWARD_STREAM_HIGH (64 * 1024)
/* One turn's reading never brings more than the socket's buffer. */
#define FORWARD_STREAM_MAX_BYTES (16 * 1024 * 1024)

union forward_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
};

struct upstream {
    struct loop *loop;
    union forward_address address;
    socklen_t address_len;
    struct list idle; /* of struct forward_conn, newest first */
    h2o_timeout_t idle_timeout;
    unsigned inflight, max_connections;
    struct list waiting; /* of struct slot_waiter */
    char name[160];      /* "unix:/run/echo.sock", "127.0.0.1:8081" */
};

/* Heap; owned by the call that uses it, else by upstream's `idle`. The socket's data. */
struct forward_conn {
    struct list node;
    struct upstream *upstream;
    h2o_socket_t *sock;
    struct forward_call *call;  /* NULL: idle */
    h2o_timeout_entry_t expiry; /* linked while idle */
};

/* One attempt: connect -> request out -> head in -> body in. On the fiber's stack; forward_call_release() is
 * the only end. */
struct forward_call {
    struct upstream *upstream;
    struct arena *arena;
    struct forward_conn *conn; /* NULL: nobody will call back any more */
    struct fiber_event moved;  /* head, more body, or the end */
    h2o_iovec_t request[2];    /* head and body; borrowed until the call ends */
    size_t max_body_bytes;
    bool is_head_method, is_streaming;
    bool is_repeatable; /* executed twice, it does no more than once */

    bool is_reused;  /* the connection came from the pool */
    bool is_written; /* the request is out; nothing is read before */
    bool is_sent;    /* some connection has taken the request: it may be executed */
    bool is_silent;  /* no byte of an answer was seen */
    bool has_head;
    bool is_done; /* complete, or failed: `status` tells */
    enum status status;
    struct error err;
    struct http_reply reply; /* body: filled at the end of a buffered call */
    struct answer answer;
    struct buf body; /* what has come and not been taken */
    bool is_paused;  /* it is not read: `body` is full enough */
};

/* ---- forward.c ---- */

struct forward_trace {
    bool is_sent; /* some connection has taken the request: it may have been executed */
};
/* http_forward() that also tells, whatever came of it, how far the request got. */
enum status forward_run(struct upstream *u, const struct forward_spec *spec, struct arena *a,
                        struct http_reply *ret_reply, struct forward_trace *ret_trace,
                        struct error *err) MUST_USE;

/* ---- forward_call.c ---- */

void forward_call_start(struct forward_call *c);
/* Reading was paused because `body` was full; it has been taken. */
void forward_call_resume(struct forward_call *c);
/* Cuts the connection if the call is still under way. */
void forward_call_release(struct forward_call *c);

/* ---- forward_pool.c ---- */

void forward_pool_init(struct upstream *u);
void forward_pool_release(struct upstream *u);
void forward_pool_empty(struct upstream *u); /* closes those that are idle */
/* NULL: none is idle. */
struct forward_conn *forward_pool_take(struct upstream *u);
/* It must be reading: who reads it is told of its end, too. */
void forward_pool_return(struct forward_conn *conn);
/* NULL: it failed at once; errno says why. */
struct forward_conn *forward_conn_open(struct upstream *u, h2o_socket_cb on_connected);
void forward_conn_close(struct forward_conn *conn);

/* ---- forward_head.c ---- */

/* Request line and headers, CRLF CRLF included. STATUS_INVALID_ARGUMENT: something in it would break the
 * framing. */
enum status forward_head_build(const struct forward_spec *spec, struct arena *a, struct strview *ret_head,
                               struct error *err) MUST_USE;
/* The answer's headers but for those of the hop. */
void forward_headers_keep(const struct answer *answer, struct arena *a, struct http_reply *reply);

#endif
