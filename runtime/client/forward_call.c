/* h2o's side of one attempt. Each callback either goes on or ends the call by fail() or complete(): after
 * those h2o frees its client by itself, so `client` is cut first and nobody touches it again. */
#include "client/forward_impl.h"

#include <errno.h>

static h2o_http1client_head_cb on_connected(h2o_http1client_t *client, const char *h2o_err,
                                            h2o_iovec_t **ret_bufs, size_t *ret_n_bufs, int *ret_is_head);

void forward_call_start(struct forward_call *c)
{
    struct upstream *u = c->upstream;
    fiber_event_init(&c->moved);
    buf_init(&c->body, c->is_streaming ? FORWARD_STREAM_MAX_BYTES : c->max_body_bytes);
    errno = 0;
    c->is_connecting = true;
    h2o_http1client_connect_with_pool(&c->client, c, &u->ctx, &u->pool, on_connected);
    c->is_connecting = false;
}

void forward_call_resume(struct forward_call *c)
{
    if (c->paused == NULL || c->client == NULL) return;
    h2o_socket_read_start(c->client->sock, c->paused);
    c->paused = NULL;
}

void forward_call_release(struct forward_call *c)
{
    if (c->client != NULL) h2o_http1client_cancel(c->client);
    c->client = NULL;
    buf_release(&c->body);
}

static void finish(struct forward_call *c, enum status s)
{
    c->client = NULL;
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

static bool is_too_large(const struct forward_call *c)
{
    return !c->is_streaming && c->body.is_full;
}

static void fail_too_large(struct forward_call *c)
{
    (void)error_set(&c->err, STATUS_RESOURCE_EXHAUSTED, "forward to %s: the answer is longer than %zu bytes",
                    c->upstream->name, c->max_body_bytes);
    c->err.can_retry = false; /* it was executed */
    finish(c, STATUS_RESOURCE_EXHAUSTED);
}

/* h2o takes a connection that closes between two chunks for the end of the body. It is not: then no byte came
 * with the end. */
static bool is_cut_short(const struct forward_call *c, const h2o_http1client_t *client)
{
    return c->is_chunked && client->sock->bytes_read == 0;
}

static int on_body(h2o_http1client_t *client, const char *h2o_err)
{
    struct forward_call *c = client->data;
    h2o_buffer_t *input = client->sock->input;
    bool is_end = h2o_err == h2o_http1client_error_is_eos;
    buf_append(&c->body, sv_n(input->bytes, input->size));
    h2o_buffer_consume(&client->sock->input, input->size);
    if (is_too_large(c) || c->body.is_full) {
        fail_too_large(c);
        return -1;
    }
    if (h2o_err != NULL && (!is_end || is_cut_short(c, client))) {
        fail(c, STATUS_UNKNOWN, false, "the connection was cut within the answer");
        return -1;
    }
    if (is_end) {
        finish(c, STATUS_OK);
        return 0;
    }
    if (c->is_streaming && c->body.len >= FORWARD_STREAM_HIGH && c->paused == NULL) {
        c->paused = client->sock->_cb.read;
        h2o_socket_read_stop(client->sock);
    }
    if (c->is_streaming) fiber_event_set(&c->moved);
    return 0;
}

static void fail_before_head(struct forward_call *c, const h2o_http1client_t *client)
{
    c->is_silent = client->sock == NULL || client->sock->input->size == 0;
    if (c->is_silent)
        fail(c, STATUS_UNAVAILABLE, false, "the connection was cut before an answer");
    else
        fail(c, STATUS_UNKNOWN, false, "the answer's head is cut or malformed");
}

static bool is_announced_too_large(const struct forward_call *c)
{
    uint64_t bytes;
    struct strview length = http_header_get(c->reply.headers, c->reply.n_headers, SV("content-length"));
    return !c->is_streaming && length.len > 0 && sv_parse_u64(length, &bytes) == STATUS_OK &&
           bytes > c->max_body_bytes;
}

static h2o_http1client_body_cb on_head(h2o_http1client_t *client, const char *h2o_err, int minor_version,
                                       int status, h2o_iovec_t reason, h2o_header_t *headers,
                                       size_t n_headers, int head_bytes)
{
    struct forward_call *c = client->data;
    bool is_end = h2o_err == h2o_http1client_error_is_eos;
    (void)minor_version, (void)reason, (void)head_bytes;
    if (h2o_err != NULL && !is_end) {
        fail_before_head(c, client);
        return NULL;
    }
    c->reply.status = status;
    forward_headers_copy(c->arena, headers, n_headers, &c->reply);
    c->is_chunked = false;
    for (size_t i = 0; i < n_headers; i++)
        c->is_chunked |= headers[i].name == &H2O_TOKEN_TRANSFER_ENCODING->buf;
    if (!is_end && is_announced_too_large(c)) {
        fail_too_large(c);
        return NULL;
    }
    c->has_head = true;
    if (is_end)
        finish(c, STATUS_OK);
    else if (c->is_streaming)
        fiber_event_set(&c->moved);
    return is_end ? NULL : on_body;
}

static h2o_http1client_head_cb on_connected(h2o_http1client_t *client, const char *h2o_err,
                                            h2o_iovec_t **ret_bufs, size_t *ret_n_bufs, int *ret_is_head)
{
    struct forward_call *c = client->data;
    if (h2o_err != NULL) {
        /* h2o keeps no errno; it is still there where connect(2) failed at once, as with unix sockets. */
        fail(c, STATUS_UNAVAILABLE, true, c->is_connecting && errno != 0 ? strerror(errno) : h2o_err);
        return NULL;
    }
    c->is_reused = c->is_connecting;
    c->is_sent = true;
    *ret_bufs = c->request;
    *ret_n_bufs = c->request[1].len > 0 ? 2 : 1;
    *ret_is_head = c->is_head_method;
    return on_head;
}
