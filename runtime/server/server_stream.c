/* Answers in parts. The fiber hands one part at a time to h2o and waits for the last one to be taken before
 * the next: that is all the back pressure there is, on HTTP/1 the socket's and on HTTP/2 the stream's window.
 *
 *   http_resp_stream -> head out, busy --on_proceed--> free --http_resp_write--> busy ... handler returns ->
 * end
 *
 * Parts are copied: a writer that is cancelled or times out leaves nothing in h2o that points at its memory.
 * Chunks are framed here, since h2o's own filter can neither send a head alone nor keep a connection after a
 * status other than 200. */
#include "server/server_impl.h"

#include "base/clock.h"

void stream_init(struct http_stream *st)
{
    *st = (struct http_stream){0};
    fiber_event_init(&st->moved);
}

static void send_parts(struct server_exchange *x, h2o_req_t *req, h2o_iovec_t *bufs, size_t n,
                       h2o_send_state_t state)
{
    x->stream.is_busy = true;
    x->progress_ns = loop_now_ns(x->server->loop);
    h2o_send(req, bufs, n, state);
}

static void choose_framing(struct server_exchange *x, h2o_req_t *req)
{
    struct http_stream *st = &x->stream;
    struct strview length = http_header_get(x->resp.headers, x->resp.n_headers, SV("content-length"));
    st->is_bodiless = sv_eq(x->req.method, SV("HEAD")) || x->resp.status == 204 || x->resp.status == 304;
    st->has_length = length.len > 0 && sv_parse_u64(length, &st->left_bytes) == STATUS_OK;
    if (st->has_length && x->resp.status != 204) req->res.content_length = st->left_bytes;
    if (st->is_bodiless) st->has_length = false;
    if (st->has_length || st->is_bodiless || x->conn->is_http2) return;
    if (req->version >= 0x101) {
        st->is_chunked = true;
        h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_TRANSFER_ENCODING, NULL,
                       H2O_STRLIT("chunked"));
    } else {
        req->http1_is_persistent = 0; /* HTTP/1.0: the end of the connection is the end of the body */
    }
}

enum status http_resp_stream(struct http_resp *resp)
{
    struct server_exchange *x = resp->exchange;
    if (resp->stream != NULL) return STATUS_OK;
    resp->stream = &x->stream;
    if (x->link == NULL) return STATUS_CANCELLED;
    h2o_req_t *req = x->link->req;
    exchange_send_head(x, req);
    choose_framing(x, req);
    x->stream.is_started = true;
    x->stream.part = arena_alloc(&x->arena, SERVER_STREAM_PART_BYTES);
    h2o_start_response(req, &x->generator);
    send_parts(x, req, NULL, 0, H2O_SEND_STATE_IN_PROGRESS);
    return STATUS_OK;
}

/* Until h2o has let go of the last part. */
static enum status wait_free(struct server_exchange *x)
{
    struct http_stream *st = &x->stream;
    while (x->link != NULL && st->is_busy) {
        fiber_event_reset(&st->moved);
        int64_t give_up_ns = x->progress_ns + x->server->cfg.write_timeout_ns;
        enum status s = fiber_event_wait(&st->moved, give_up_ns);
        if (s == STATUS_OK) continue;
        st->is_broken = true;
        bool is_stuck = s == STATUS_DEADLINE_EXCEEDED && clock_monotonic_ns() >= give_up_ns;
        if (!is_stuck) return s;
        conn_cut(x->conn); /* it has not read for too long */
        return STATUS_CANCELLED;
    }
    return x->link != NULL ? STATUS_OK : STATUS_CANCELLED;
}

static void send_piece(struct server_exchange *x, struct strview piece)
{
    struct http_stream *st = &x->stream;
    h2o_iovec_t bufs[3];
    size_t n = 0;
    memcpy(st->part, piece.ptr, piece.len);
    if (st->is_chunked) {
        int len = snprintf(st->chunk_head, sizeof(st->chunk_head), "%zx\r\n", piece.len);
        bufs[n++] = h2o_iovec_init(st->chunk_head, (size_t)len);
    }
    bufs[n++] = h2o_iovec_init(st->part, piece.len);
    if (st->is_chunked) bufs[n++] = h2o_iovec_init("\r\n", 2);
    send_parts(x, x->link->req, bufs, n, H2O_SEND_STATE_IN_PROGRESS);
}

enum status http_resp_write(struct http_resp *resp, struct strview part)
{
    struct server_exchange *x = resp->exchange;
    struct http_stream *st = &x->stream;
    if (!st->is_started) return STATUS_CANCELLED; /* the client was gone at http_resp_stream() */
    while (part.len > 0) {
        enum status s = wait_free(x);
        if (s != STATUS_OK) return s;
        if (st->is_bodiless) return STATUS_OK;
        size_t n = part.len < SERVER_STREAM_PART_BYTES ? part.len : SERVER_STREAM_PART_BYTES;
        if (st->has_length &&
            n > st->left_bytes) { /* more than was announced: the next bytes would be read as a new answer */
            st->is_broken = true;
            return STATUS_OUT_OF_RANGE;
        }
        st->left_bytes -= st->has_length ? n : 0;
        send_piece(x, sv_sub(part, 0, n));
        part = sv_sub(part, n, part.len);
    }
    return x->link != NULL ? STATUS_OK : STATUS_CANCELLED;
}

void http_resp_abort(struct http_resp *resp)
{
    resp->exchange->stream.is_broken = true;
}

bool http_resp_is_gone(const struct http_resp *resp)
{
    return resp->exchange->link == NULL;
}

/* Nothing of req may be touched afterwards: without bytes left to send, h2o ends the request inside. */
static void send_end(struct server_exchange *x, h2o_req_t *req)
{
    struct http_stream *st = &x->stream;
    bool is_short = st->is_broken || (st->has_length && st->left_bytes > 0);
    h2o_iovec_t last = h2o_iovec_init("0\r\n\r\n", 5);
    conn_unwatch(x->conn);
    if (x->server->is_draining) req->http1_is_persistent = 0;
    if (is_short)
        send_parts(x, req, NULL, 0, H2O_SEND_STATE_ERROR);
    else
        send_parts(x, req, &last, st->is_chunked ? 1 : 0, H2O_SEND_STATE_FINAL);
}

void stream_proceed(struct server_exchange *x, h2o_req_t *req)
{
    x->stream.is_busy = false;
    x->progress_ns = loop_now_ns(x->server->loop);
    if (x->stream.is_ended)
        send_end(x, req);
    else
        fiber_event_set(&x->stream.moved);
}

void stream_gone(struct server_exchange *x)
{
    fiber_event_set(&x->stream.moved);
}

void stream_end(struct server_exchange *x, h2o_req_t *req)
{
    x->stream.is_ended = true;
    if (!x->stream.is_busy) send_end(x, req);
}
