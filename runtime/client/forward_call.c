/* The socket's side of one attempt. Each callback either goes on or ends the call by fail() or finish(),
 * which give the connection back first: after those nobody calls back. */
#include "client/forward_impl.h"

#include <errno.h>

static void on_connected(h2o_socket_t *sock, const char *h2o_err);
static void on_readable(h2o_socket_t *sock, const char *h2o_err);
static void on_sent(h2o_socket_t *sock, const char *h2o_err);
static void fail(struct forward_call *c, enum status s, bool can_retry, const char *what);

static void send_request(struct forward_call *c)
{
    c->is_sent = c->is_silent = true;
    h2o_socket_write(c->conn->sock, c->request, c->request[1].len > 0 ? 2 : 1, on_sent);
}

void forward_call_start(struct forward_call *c)
{
    fiber_event_init(&c->moved);
    buf_init(&c->body, c->is_streaming ? FORWARD_STREAM_MAX_BYTES : c->max_body_bytes);
    answer_init(&c->answer, c->is_head_method, c->arena);
    c->conn = forward_pool_take(c->upstream);
    c->is_reused = c->conn != NULL;
    if (c->conn == NULL) c->conn = forward_conn_open(c->upstream, on_connected);
    if (c->conn == NULL) {
        fail(c, STATUS_UNAVAILABLE, true, strerror(errno));
        return;
    }
    c->conn->call = c;
    if (c->is_reused) send_request(c);
}

/* To the pool if it can be used again. */
static void leave_connection(struct forward_call *c, bool is_kept)
{
    struct forward_conn *conn = c->conn;
    c->conn = NULL;
    if (conn == NULL) return;
    if (is_kept)
        forward_pool_return(conn);
    else
        forward_conn_close(conn);
}

void forward_call_release(struct forward_call *c)
{
    leave_connection(c, false);
    buf_release(&c->body);
}

static void finish(struct forward_call *c, enum status s)
{
    leave_connection(c, s == STATUS_OK && c->answer.is_keepable && !c->is_paused);
    c->is_done = true;
    c->status = s;
    fiber_event_set(&c->moved);
}

static void fail(struct forward_call *c, enum status s, bool can_retry, const char *what)
{
    (void)error_set(&c->err, s, "%s", what);
    c->err.can_retry = can_retry;
    finish(c, s);
}

static void fail_too_large(struct forward_call *c)
{
    (void)error_set(&c->err, STATUS_RESOURCE_EXHAUSTED, "the answer is longer than %zu bytes",
                    c->max_body_bytes);
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
        if (c->is_paused) h2o_socket_read_stop(c->conn->sock);
        fiber_event_set(&c->moved);
    }
}

static void read_answer(struct forward_call *c, const char *h2o_err)
{
    h2o_socket_t *sock = c->conn->sock;
    if (sock->input->size > 0) c->is_silent = false;
    size_t used = answer_feed(&c->answer, sv_n(sock->input->bytes, sock->input->size), &c->body);
    bool has_rest = c->answer.state == ANSWER_END && used < sock->input->size;
    h2o_buffer_consume(&sock->input, has_rest ? sock->input->size : used);
    if (h2o_err != NULL) answer_close(&c->answer);
    go_on(c);
}

/* Bytes or the end of the connection. The answer is read only once the request is out: a function that
 * answers before it has read us gets no further either. */
static void on_readable(h2o_socket_t *sock, const char *h2o_err)
{
    struct forward_conn *conn = sock->data;
    if (conn->call == NULL)
        forward_conn_close(conn); /* closed by its peer, or out of step */
    else if (conn->call->is_written)
        read_answer(conn->call, h2o_err);
    else if (h2o_err != NULL)
        fail_cut(conn->call);
    else
        h2o_socket_read_stop(sock);
}

void forward_call_resume(struct forward_call *c)
{
    if (!c->is_paused || c->conn == NULL) return;
    c->is_paused = false;
    h2o_socket_read_start(c->conn->sock, on_readable);
}

static void on_sent(h2o_socket_t *sock, const char *h2o_err)
{
    struct forward_call *c = ((struct forward_conn *)sock->data)->call;
    if (h2o_err != NULL) {
        fail_cut(c);
        return;
    }
    c->is_written = true;
    if (!h2o_socket_is_reading(sock)) h2o_socket_read_start(sock, on_readable);
    if (sock->input->size > 0) read_answer(c, NULL); /* it came early */
}

static void on_connected(h2o_socket_t *sock, const char *h2o_err)
{
    struct forward_call *c = ((struct forward_conn *)sock->data)->call;
    if (h2o_err != NULL)
        fail(c, STATUS_UNAVAILABLE, true, h2o_err);
    else
        send_request(c);
}
