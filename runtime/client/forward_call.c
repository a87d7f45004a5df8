/* The socket's side of one attempt. Each callback either goes on or ends the call by fail() or finish(),
 * which give the connection back first: after those nobody calls back. */
#include "client/forward_impl.h"

#include <errno.h>

static void on_connected(h2o_socket_t *sock, const char *h2o_err, void *arg);

void forward_call_start(struct forward_call *c)
{
    struct upstream *u = c->upstream;
    fiber_event_init(&c->moved);
    buf_init(&c->body, c->is_streaming ? FORWARD_STREAM_MAX_BYTES : c->max_body_bytes);
    answer_init(&c->answer, c->is_head_method, c->arena);
    errno = 0;
    c->is_connecting = true;
    h2o_socketpool_connect(&c->connecting, &u->pool, loop_h2o(u->loop), NULL, on_connected, c);
    c->is_connecting = false;
}

/* To the pool if it can be used again. */
static void leave_connection(struct forward_call *c, bool is_kept)
{
    h2o_socket_t *sock = c->sock;
    if (sock == NULL) return;
    c->sock = NULL;
    h2o_socket_read_stop(sock);
    if (is_kept)
        (void)h2o_socketpool_return(&c->upstream->pool, sock);
    else
        h2o_socket_close(sock);
}

void forward_call_release(struct forward_call *c)
{
    if (c->connecting != NULL) h2o_socketpool_cancel_connect(c->connecting);
    c->connecting = NULL;
    leave_connection(c, false);
    buf_release(&c->body);
}

static void finish(struct forward_call *c, enum status s)
{
    leave_connection(c, s == STATUS_OK && c->answer.is_keepable);
    c->is_done = true;
    c->status = s;
    fiber_event_set(&c->moved);
}

static void fail(struct forward_call *c, enum status s, bool can_retry, const char *what)
{
    (void)error_set(&c->err, s, "forward to %s: %s", c->upstream->name, what);
    c->err.can_retry = can_retry;
    finish(c, s);
}

static void fail_too_large(struct forward_call *c)
{
    (void)error_set(&c->err, STATUS_RESOURCE_EXHAUSTED, "forward to %s: the answer is longer than %zu bytes",
                    c->upstream->name, c->max_body_bytes);
    c->err.can_retry = false; /* it was executed */
    finish(c, STATUS_RESOURCE_EXHAUSTED);
}

static void fail_cut(struct forward_call *c)
{
    if (c->has_head)
        fail(c, STATUS_UNKNOWN, false, "the connection was cut within the answer");
    else if (c->is_silent)
        fail(c, STATUS_UNAVAILABLE, false, "the connection was cut before an answer");
    else
        fail(c, STATUS_UNKNOWN, false, "the answer's head is cut or malformed");
}

static bool is_announced_too_large(const struct forward_call *c)
{
    return !c->is_streaming && c->answer.state == ANSWER_BODY_LENGTH &&
           c->answer.left + c->body.len > c->max_body_bytes;
}

static void take_head(struct forward_call *c)
{
    if (c->has_head || c->answer.state == ANSWER_HEAD || c->answer.state == ANSWER_BROKEN) return;
    c->has_head = true;
    c->reply.status = c->answer.status;
    forward_headers_keep(&c->answer, c->arena, &c->reply);
}

/* More of the answer is there, or its end. */
static void go_on(struct forward_call *c)
{
    take_head(c);
    if (c->body.is_full || is_announced_too_large(c)) {
        fail_too_large(c);
    } else if (c->answer.state == ANSWER_BROKEN) {
        fail_cut(c);
    } else if (c->answer.state == ANSWER_END) {
        finish(c, STATUS_OK);
    } else if (c->is_streaming && c->has_head) {
        c->is_paused = c->body.len >= FORWARD_STREAM_HIGH;
        if (c->is_paused) h2o_socket_read_stop(c->sock);
        fiber_event_set(&c->moved);
    }
}

static void on_bytes(h2o_socket_t *sock, const char *h2o_err)
{
    struct forward_call *c = sock->data;
    if (sock->input->size > 0) c->is_silent = false;
    size_t used = answer_feed(&c->answer, sv_n(sock->input->bytes, sock->input->size), &c->body);
    bool has_rest = c->answer.state == ANSWER_END && used < sock->input->size;
    h2o_buffer_consume(&sock->input, has_rest ? sock->input->size : used);
    if (h2o_err != NULL) answer_close(&c->answer);
    go_on(c);
}

void forward_call_resume(struct forward_call *c)
{
    if (!c->is_paused || c->sock == NULL) return;
    c->is_paused = false;
    h2o_socket_read_start(c->sock, on_bytes);
}

/* The answer is read only now: a function that answers before it has read us gets no further either. */
static void on_sent(h2o_socket_t *sock, const char *h2o_err)
{
    struct forward_call *c = sock->data;
    if (h2o_err != NULL)
        fail_cut(c);
    else
        h2o_socket_read_start(sock, on_bytes);
}

static void on_connected(h2o_socket_t *sock, const char *h2o_err, void *arg)
{
    struct forward_call *c = arg;
    c->connecting = NULL;
    if (h2o_err != NULL) {
        /* h2o keeps no errno; it is still there where connect(2) failed at once, as with unix sockets. */
        fail(c, STATUS_UNAVAILABLE, true, c->is_connecting && errno != 0 ? strerror(errno) : h2o_err);
        return;
    }
    c->sock = sock;
    c->is_reused = c->is_connecting;
    c->is_sent = c->is_silent = true;
    sock->data = c;
    h2o_socket_write(sock, c->request, c->request[1].len > 0 ? 2 : 1, on_sent);
}
