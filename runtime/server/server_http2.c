/* HTTP/2 connections, as far as h2o 2.2.5 leaves them unbounded: a stream's body has a limit but the
 * connection has none (100 streams of 8 MiB), frames that are no requests cost their sender nothing, and any
 * frame puts the idle timer back. h2o's struct is not ours to look into; but what a connection has received
 * and no whole request explains is what h2o keeps for it at most, or what it had to work through for nothing.
 */
#include "server/server_impl.h"

#include <assert.h>
#include <dlfcn.h>
#include <linux/tcp.h>

#include "base/clock.h"

#define LAST_KNOWN_FRAME    9 /* CONTINUATION */
#define FRAME_PING          6
#define FRAME_FLAG_ACK      1
#define EXPLAINED_A_REQUEST 1024 /* frame heads, padding, window updates */

static bool is_http2(const struct server_conn *c)
{
    const h2o_conn_t *conn = c->sock != NULL ? c->sock->data : NULL;
    return conn != NULL && conn->callbacks != c->http1;
}

/* Counted by the kernel; 0 where it does not (unix sockets). */
static uint64_t received_bytes(const struct server_conn *c)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);
    if (getsockopt(h2o_socket_get_fd(c->sock), IPPROTO_TCP, TCP_INFO, &info, &len) != 0) return 0;
    return info.tcpi_bytes_received;
}

size_t http2_unexplained_bytes(const struct server_conn *c)
{
    if (!is_http2(c)) return 0;
    uint64_t received = received_bytes(c);
    return received > c->explained_bytes ? received - c->explained_bytes : 0;
}

bool http2_is_flood(const struct server_conn *c)
{
    const struct server *s = c->server;
    uint64_t age_s = (uint64_t)((loop_now_ns(s->loop) - c->opened_ns) / NS_PER_S);
    return http2_unexplained_bytes(c) >
           s->cfg.max_body_bytes + SERVER_H2_CONTROL_MAX_BYTES + age_s * SERVER_H2_CONTROL_A_SECOND;
}

/* Cut while h2o works through what it has read: the frames that are left are not worth it. */
static _Thread_local const struct server_conn *given_up;

bool http2_admit(struct server_conn *c, const h2o_req_t *req)
{
    size_t bytes = EXPLAINED_A_REQUEST + req->path.len + req->authority.len + req->entity.len;
    for (size_t i = 0; i < req->headers.size; i++)
        bytes += req->headers.entries[i].name->len + req->headers.entries[i].value.len;
    c->explained_bytes += bytes;
    /* More than may be open at once, without an answer in between: they have been reset. */
    if (c->requests_in_turn > SERVER_H2_REQUESTS_A_TURN) conn_abort(c);
    if (c->is_cut) given_up = c;
    return !c->is_cut;
}

void http2_forget(const struct server_conn *c)
{
    if (given_up == c) given_up = NULL;
}

/* ---- in place of h2o's decoder of frames ---- */

struct http2_frame { /* h2o_http2_frame_t of 2.2.5, whose header Debian's package cannot be compiled with */
    uint32_t length;
    uint8_t type, flags;
    uint32_t stream_id;
    const uint8_t *payload;
};

typedef ssize_t decode_frame_fn(struct http2_frame *frame, const uint8_t *src, size_t len,
                                const void *settings, const char **err_desc);
decode_frame_fn h2o_http2_decode_frame;

static decode_frame_fn *find_decoder(void)
{
    static decode_frame_fn *decode;
    if (decode != NULL) return decode;
    void *symbol = dlsym(RTLD_NEXT, "h2o_http2_decode_frame");
    assert(symbol != NULL);
    memcpy(&decode, &symbol, sizeof(decode)); /* ISO C has no conversion to a function */
    return decode;
}

static bool is_given_up(const uint8_t *src)
{
    if (given_up == NULL || given_up->sock == NULL) return false;
    const h2o_buffer_t *input = given_up->sock->input;
    return (const char *)src >= input->bytes && (const char *)src < input->bytes + input->size;
}

/* h2o calls its decoder by name, so that this one is called in its place. Frames that h2o does not know it
 * skips as it should, but with a line on stderr for each (nine bytes make thirty of log): they are shown to
 * it as what it skips in silence, an answer to a PING. */
ssize_t h2o_http2_decode_frame(struct http2_frame *frame, const uint8_t *src, size_t len,
                               const void *settings, const char **err_desc)
{
    static const uint8_t nothing[8];
    if (is_given_up(src)) return H2O_HTTP2_ERROR_PROTOCOL_CLOSE_IMMEDIATELY;
    ssize_t n = find_decoder()(frame, src, len, settings, err_desc);
    if (n > 0 && frame->type > LAST_KNOWN_FRAME)
        *frame = (struct http2_frame){
            .length = sizeof(nothing), .type = FRAME_PING, .flags = FRAME_FLAG_ACK, .payload = nothing};
    return n;
}
